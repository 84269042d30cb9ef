//! Rooms without faults: who gets in, who does not, and what they see.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]

use sotto_client_core::history::Content;
use sotto_client_core::io::{Command, Event};
use sotto_proto::refusals::{Measure, Refusal};
use sotto_proto::{RoomId, Subject, limits, wire};
use sotto_sim::World;

fn invite(world: &mut World, machine: usize, room: RoomId, user: &str) {
    let ticket = world.invite(machine, room, user);
    world.settle_connected();
    assert_eq!(
        world.done(machine, ticket),
        Some(room),
        "{:?}",
        world.failure(machine, ticket)
    );
}

/// Alice with a room, and Bob in it.
fn alice_and_bob() -> (World, usize, usize, RoomId) {
    let mut world = World::new(1);
    let (alice, bob) = (world.sign_up("alice"), world.sign_up("bob"));
    world.settle();
    let room = world.create_room(alice, wire::JoinRule::Invite);
    invite(&mut world, alice, room, "bob");
    world.settle();
    (world, alice, bob, room)
}

#[test]
fn two_people_read_each_other_and_the_rooms_name() {
    let (mut world, alice, bob, room) = alice_and_bob();
    world.say(alice, room, "hello bob");
    world.settle();
    world.say(bob, room, "hello alice");
    world.settle();
    for machine in [alice, bob] {
        assert_eq!(world.texts(machine, room), ["hello bob", "hello alice"]);
        let summary = &world.machines[machine].engine().rooms()[0];
        assert_eq!(summary.name.as_deref(), Some("the room"));
        assert_eq!(summary.members.len(), 2);
    }
}

#[test]
fn what_waits_travels_in_one_frame() {
    let (mut world, alice, bob, room) = alice_and_bob();
    let before = world.streams.messages();
    let many: Vec<String> = (0..100).map(|n| format!("message {n}")).collect();
    world.command(
        alice,
        Command::SendTexts {
            room,
            texts: many.clone(),
        },
    );
    world.settle();
    assert_eq!(world.texts(bob, room), many);
    assert_eq!(world.streams.messages(), before + 1);
}

#[test]
fn a_linked_device_is_in_every_room_and_reads_on() {
    let (mut world, alice, bob, room) = alice_and_bob();
    world.say(alice, room, "before");
    world.settle();
    let second = world.link_device(bob);
    world.settle();
    world.say(alice, room, "after");
    world.settle();
    assert_eq!(world.texts(second, room), ["after"]);
    assert_eq!(world.texts(bob, room), ["before", "after"]);
    assert_eq!(world.machines[second].engine().rooms()[0].members.len(), 3);
}

#[test]
fn a_device_that_was_off_gets_everything_once_in_order_with_one_request() {
    let (mut world, alice, bob, room) = alice_and_bob();
    world.disconnect(bob);
    let sent: Vec<String> = (0..50).map(|n| format!("{n}")).collect();
    for text in &sent {
        world.say(alice, room, text);
        world.settle_connected();
    }
    world.machines[bob].events.clear();
    world.connect(bob);
    world.settle();
    assert_eq!(world.texts(bob, room), sent);
    let caught_up = world.machines[bob]
        .events
        .iter()
        .find(|e| matches!(e, Event::CaughtUp { .. }));
    assert_eq!(caught_up, Some(&Event::CaughtUp { requests: 1 }));
}

#[test]
fn an_open_room_is_joined_without_an_invitation() {
    let mut world = World::new(2);
    let (alice, bob) = (world.sign_up("alice"), world.sign_up("bob"));
    world.settle();
    let room = world.create_room(alice, wire::JoinRule::Open);
    world.settle();
    let ticket = world.command(bob, Command::Join { room });
    world.settle();
    assert_eq!(
        world.done(bob, ticket),
        Some(room),
        "{:?}",
        world.machines[bob].events
    );
    world.say(bob, room, "I am in");
    world.settle();
    assert_eq!(world.texts(alice, room), ["I am in"]);
    let summary = &world.machines[bob].engine().rooms()[0];
    assert_eq!(
        summary.name.as_deref(),
        Some("the room"),
        "an owner tells newcomers"
    );
}

#[test]
fn two_who_join_at_once_both_get_in() {
    let mut world = World::new(3);
    let alice = world.sign_up("alice");
    let others = ["bob", "carol", "dave"].map(|user| world.sign_up(user));
    world.settle();
    let room = world.create_room(alice, wire::JoinRule::Open);
    world.settle();
    for machine in others {
        world.command(machine, Command::Join { room });
    }
    world.settle();
    world.settle();
    for machine in others {
        let rooms = world.machines[machine].engine().rooms();
        assert!(rooms[0].member, "{:?}", world.machines[machine].events);
        assert_eq!(rooms[0].members.len(), 4);
    }
}

#[test]
fn who_was_invited_on_two_devices_at_once_comes_in_once() {
    let mut world = World::new(21);
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|user| world.sign_up(user));
    world.settle();
    let room = world.create_room(alice, wire::JoinRule::Invite);
    let second = world.link_device(alice);
    world.settle();
    let invite = |user: &str| Command::Invite {
        room,
        user: user.parse().unwrap(),
        role: wire::Role::User,
    };

    // One has asked for Bob's key packages while the other lets him in.
    world.holding_calls = Some("/v1/key-packages/claim");
    let asked_first = world.command(alice, invite("bob"));
    world.run(20);
    world.holding_calls = None;
    let faster = world.command(second, invite("bob"));
    world.settle_connected();
    let next = world.command(alice, invite("carol"));
    world.settle_connected();
    world.release_answers();
    world.settle();
    for (machine, ticket) in [(alice, asked_first), (second, faster), (alice, next)] {
        assert_eq!(world.failure(machine, ticket), None);
        assert_eq!(world.done(machine, ticket), Some(room));
    }
    for machine in [alice, second, bob, carol] {
        let rooms = world.machines[machine].engine().rooms();
        assert_eq!(rooms[0].members.len(), 4);
    }
}

#[test]
fn an_invite_room_cannot_be_joined() {
    let (mut world, _, _, room) = alice_and_bob();
    let carol = world.sign_up("carol");
    let ticket = world.command(carol, Command::Join { room });
    world.settle();
    assert_eq!(
        world.failure(carol, ticket),
        Some("this room is by invitation")
    );
    assert!(world.machines[carol].engine().rooms().is_empty());
}

#[test]
fn only_an_owner_invites() {
    let (mut world, _, bob, room) = alice_and_bob();
    world.sign_up("carol");
    let user = "carol".parse().unwrap();
    let ticket = world.command(
        bob,
        Command::Invite {
            room,
            user,
            role: wire::Role::User,
        },
    );
    assert!(
        world
            .failure(bob, ticket)
            .unwrap()
            .contains("only an owner")
    );
}

#[test]
fn an_unknown_user_is_a_clear_error_and_nothing_stays() {
    let (mut world, alice, _, room) = alice_and_bob();
    let user = "nobody".parse().unwrap();
    let ticket = world.command(
        alice,
        Command::Invite {
            room,
            user,
            role: wire::Role::User,
        },
    );
    world.settle();
    assert_eq!(world.failure(alice, ticket), Some("there is no such user"));
    assert!(world.machines[alice].engine().is_settled());
}

#[test]
fn the_longest_text_is_sent_and_a_longer_one_refused_with_nothing_queued() {
    let (mut world, alice, bob, room) = alice_and_bob();
    let longest = "é".repeat(limits::TEXT / 2);
    world.say(alice, room, &longest);
    let texts_too_long = vec!["fine".to_owned(), "x".repeat(limits::TEXT + 1)];
    let ticket = world.command(
        alice,
        Command::SendTexts {
            room,
            texts: texts_too_long,
        },
    );
    world.settle();
    assert!(
        world
            .failure(alice, ticket)
            .unwrap()
            .contains("65537 bytes")
    );
    assert_eq!(world.texts(bob, room), [longest]);
}

#[test]
fn a_file_is_announced_with_its_key_after_its_chunks() {
    let (mut world, alice, bob, room) = alice_and_bob();
    let content = b"file content";
    let upload = sotto_client_core::io::NewUpload {
        room,
        name: "notes.txt".to_owned(),
        size: content.len() as u64,
        sha256: [3; 32],
        path: "/somewhere".to_owned(),
    };
    world.command(alice, Command::BeginUpload(upload));
    let (file, sealed) = {
        let engine = world.machines[alice].engine();
        let file = engine.uploads().next().unwrap().file;
        (file, engine.seal_chunk(file, 0, content).unwrap())
    };
    world.crash(alice);
    world.settle();
    assert_eq!(
        world.machines[alice]
            .engine()
            .uploads()
            .next()
            .unwrap()
            .next,
        0
    );
    world.command(alice, Command::AdvanceUpload { file, next: 1 });
    world.settle();
    assert_eq!(world.machines[alice].engine().uploads().count(), 0);
    let history = world.machines[bob].history(room);
    let Content::File(announced) = &history.last().unwrap().content else {
        panic!("no file")
    };
    assert_eq!(announced.name, "notes.txt");
    assert_eq!(
        sotto_client_core::files::open_chunk(announced, 0, &sealed).unwrap(),
        content
    );
}

#[test]
fn a_file_that_was_sent_before_keeps_its_id_and_key_in_the_next_room() {
    let (mut world, alice, bob, room) = alice_and_bob();
    let other = world.create_room(alice, wire::JoinRule::Invite);
    invite(&mut world, alice, other, "bob");
    world.settle();
    let upload = |room, sha256| sotto_client_core::io::NewUpload {
        room,
        name: "notes.txt".to_owned(),
        size: 5,
        sha256,
        path: "/somewhere".to_owned(),
    };
    let under_way = |world: &World| {
        let engine = world.machines[alice].engine();
        let uploads = engine.uploads().cloned();
        uploads.collect::<Vec<_>>()
    };
    let announced = |world: &World, room| {
        let history = world.machines[bob].history(room);
        match &history.last().unwrap().content {
            Content::File(file) => file.clone(),
            content => panic!("{content:?}"),
        }
    };

    world.command(alice, Command::BeginUpload(upload(room, [3; 32])));
    let first = under_way(&world)[0].clone();
    assert_eq!(first.copy_of, None);
    let advance = |file| Command::AdvanceUpload { file, next: 1 };
    world.command(alice, advance(first.file));
    world.settle();
    let first = announced(&world, room);

    // Another content is another file.
    world.command(alice, Command::BeginUpload(upload(other, [4; 32])));
    let another = under_way(&world)[0].clone();
    assert_eq!(another.copy_of, None);
    world.command(alice, Command::CancelUpload { file: another.file });

    world.command(alice, Command::BeginUpload(upload(other, [3; 32])));
    world.crash(alice);
    world.settle();
    let second = under_way(&world)[0].clone();
    assert_eq!(second.copy_of.unwrap().room, room);
    assert_eq!(second.announced().to_bytes(), first.file);
    world.command(alice, advance(second.file));
    world.settle();
    let second = announced(&world, other);
    assert_eq!((&second.file, &second.key), (&first.file, &first.key));

    // The relay does not copy: then it is a file of its own.
    world.command(alice, Command::BeginUpload(upload(room, [3; 32])));
    let third = under_way(&world)[0].clone();
    assert_eq!(third.copy_of.unwrap().room, other);
    world.command(alice, Command::UploadInstead { file: third.file });
    assert_eq!(under_way(&world)[0].copy_of, None);
    world.command(alice, advance(third.file));
    world.settle();
    let third = announced(&world, room);
    assert_ne!(third.file, first.file);
    assert_ne!(third.key, first.key);
}

#[test]
fn a_large_tree_travels_as_chunks() {
    let (mut world, alice, bob, room) = alice_and_bob();
    for _ in 0..45 {
        world.link_device(alice);
    }
    world.settle();
    world.settle();
    let last = world.link_device(alice);
    world.settle();
    let members = world.machines[alice].engine().rooms()[0].members.len();
    assert_eq!(members, 48);
    assert!(
        world.streams.blobs() > 0,
        "the tree should have passed the inline limit"
    );
    world.say(bob, room, "many of you");
    world.settle();
    assert_eq!(world.texts(last, room), ["many of you"]);
}

#[test]
fn what_was_encrypted_too_many_epochs_ago_is_encrypted_again() {
    let (mut world, alice, bob, room) = alice_and_bob();
    let before = world.streams.messages();
    world.faults.lose_publish = 1;
    world.say(alice, room, "from long ago");
    world.say(alice, room, "and one more");
    world.disconnect(alice);
    world.faults.lose_publish = 0;
    assert_eq!(world.streams.messages(), before, "encrypted, but lost");
    for _ in 0..4 {
        world.link_device(bob);
        world.connect(bob);
        let new = world.machines.len() - 1;
        world.connect(new);
        world.settle_connected();
    }
    assert_eq!(world.texts(bob, room), [""; 0]);
    world.connect(alice);
    world.settle();
    assert_eq!(world.texts(bob, room), ["from long ago", "and one more"]);
    assert_eq!(world.texts(alice, room), ["from long ago", "and one more"]);
}

#[test]
fn a_message_that_is_no_message_is_passed_over() {
    let (mut world, alice, bob, room) = alice_and_bob();
    let address = world.machines[alice].engine().rooms()[0]
        .address
        .clone()
        .unwrap();
    for (subject, payload) in [
        (address.messages(), &b"garbage"[..]),
        (address.handshakes(), b"garbage"),
        (address.messages(), b""),
    ] {
        world.inject(subject, payload);
    }
    world.say(alice, room, "still here");
    let carol = world.sign_up("carol");
    world.connect(carol);
    world.settle();
    invite(&mut world, alice, room, "carol");
    world.settle();
    world.say(bob, room, "welcome");
    world.settle();
    assert_eq!(world.texts(bob, room), ["still here", "welcome"]);
    assert_eq!(world.texts(carol, room), ["welcome"]);
    let skipped = |event: &&Event| matches!(event, Event::Skipped { .. });
    assert_eq!(world.machines[bob].events.iter().filter(skipped).count(), 3);
}

#[test]
fn a_newcomer_gets_what_was_said_by_who_did_not_know_of_it_yet() {
    let (mut world, alice, bob, room) = alice_and_bob();
    world.faults.lose_publish = 1;
    world.say(alice, room, "one");
    world.disconnect(alice);
    world.faults.lose_publish = 0;
    let second = world.link_device(bob);
    world.connect(bob);
    world.connect(second);
    world.settle_connected();
    world.say(bob, room, "two");
    world.settle_connected();
    world.connect(alice);
    world.say(alice, room, "three");
    world.settle();
    for machine in [alice, bob] {
        assert_eq!(world.texts(machine, room), ["two", "one", "three"]);
    }
    let mut seen = world.texts(second, room);
    seen.sort();
    assert_eq!(seen, ["one", "three", "two"]);
    let skipped = |event: &Event| matches!(event, Event::Skipped { .. });
    assert!(!world.machines[second].events.iter().any(skipped));
}

#[test]
fn everyone_whom_one_commit_adds_is_told() {
    let mut world = World::new(4);
    let (alice, bob) = (world.sign_up("alice"), world.sign_up("bob"));
    world.settle();
    let second = world.link_device(bob);
    world.settle();
    let room = world.create_room(alice, wire::JoinRule::Invite);
    invite(&mut world, alice, room, "bob");
    world.settle();
    world.say(alice, room, "to both");
    world.settle();
    for machine in [bob, second] {
        assert_eq!(world.texts(machine, room), ["to both"]);
    }
}

#[test]
fn a_revoked_device_leaves_every_room_before_anything_else_is_said() {
    let (mut world, alice, bob, room) = alice_and_bob();
    let lost = world.link_device(bob);
    world.settle();
    let device = world.machines[lost].device;
    let ticket = world.revoke_device(bob, device);
    world.say(bob, room, "my phone is gone");
    world.settle();
    let events = &world.machines[bob].events;
    assert!(
        events.contains(&Event::Done { ticket, room: None }),
        "{events:?}"
    );
    world.say(alice, room, "good that you told us");
    world.settle();
    for machine in [alice, bob] {
        let summary = &world.machines[machine].engine().rooms()[0];
        assert!(summary.members.iter().all(|member| member.device != device));
        assert_eq!(
            world.texts(machine, room),
            ["my phone is gone", "good that you told us"]
        );
    }
    assert_eq!(world.texts(lost, room), [""; 0]);
}

#[test]
fn an_owner_takes_a_revoked_device_of_somebody_else_out() {
    let (mut world, alice, bob, room) = alice_and_bob();
    let lost = world.link_device(bob);
    world.settle();
    world.disconnect(bob);
    let device = world.machines[lost].device;
    let ticket = world.revoke_device(alice, device);
    world.settle_connected();
    assert!(
        world.machines[alice]
            .events
            .contains(&Event::Done { ticket, room: None })
    );
    world.say(alice, room, "for two");
    world.settle();
    let summary = &world.machines[bob].engine().rooms()[0];
    assert_eq!(summary.members.len(), 2);
    assert_eq!(world.texts(bob, room), ["for two"]);
    assert_eq!(world.texts(lost, room), [""; 0]);
}

#[test]
fn a_revocation_that_races_with_an_invitation_happens_too() {
    let (mut world, alice, bob, room) = alice_and_bob();
    let lost = world.link_device(bob);
    world.sign_up("carol");
    world.settle();
    let device = world.machines[lost].device;
    world.revoke_device(bob, device);
    let user = "carol".parse().unwrap();
    world.command(
        alice,
        Command::Invite {
            room,
            user,
            role: wire::Role::User,
        },
    );
    world.settle();
    world.settle();
    for machine in [alice, bob] {
        let members = &world.machines[machine].engine().rooms()[0].members;
        let mut users: Vec<&str> = members.iter().map(|member| member.user.as_str()).collect();
        users.sort_unstable();
        assert_eq!(users, ["alice", "bob", "carol"]);
    }
}

#[test]
fn an_own_commit_does_not_travel_back_twice() {
    let (mut world, alice, bob, room) = alice_and_bob();
    let carol = world.sign_up("carol");
    world.settle();
    world.disconnect(bob);
    world.disconnect(carol);
    world.acks_first = true;
    let answered = world.answered;
    let ticket = world.invite(alice, room, "carol");
    world.run(40);
    assert_eq!(world.done(alice, ticket), Some(room));
    assert_eq!(world.answered, answered);
}

#[test]
fn an_own_commit_that_is_not_told_of_is_looked_for() {
    let (mut world, alice, bob, room) = alice_and_bob();
    world.sign_up("carol");
    world.settle();
    world.disconnect(bob);
    world.faults.lose_live = 1;
    let ticket = world.invite(alice, room, "carol");
    world.run(40);
    assert_eq!(world.done(alice, ticket), None);
    world.tick(2);
    assert_eq!(world.done(alice, ticket), Some(room));
}

/// Carol is invited while the server has no place for something.
fn invited_into_a_full_org(refuses: fn(&Subject) -> bool) {
    let (mut world, alice, _, room) = alice_and_bob();
    let carol = world.sign_up("carol");
    world.settle();
    let full = Refusal::OrgFull(Measure::Bytes);
    world.refusing = Some(full.clone());
    world.refuses = refuses;
    let ticket = world.invite(alice, room, "carol");
    world.tick(60);
    assert_eq!(world.failure(alice, ticket), Some(&*full.to_string()));
    let engine = world.machines[alice].engine();
    assert_eq!(engine.held_for_space(), Some(&full));
    // There is nothing to wait for but somebody who makes room.
    assert!(engine.is_settled());
    // Two minutes: pauses of 4, 8, 16, 32 and 64 s.
    assert!(world.refused <= 6, "{} times", world.refused);
    let is_told = |event: &&Event| matches!(event, Event::Held { refusal, .. } if *refusal == full);
    let events = world.machines[alice].events.iter();
    assert_eq!(events.filter(is_told).count(), world.refused);

    world.refusing = None;
    world.tick(100);
    assert_eq!(world.machines[alice].engine().held_for_space(), None);
    world.say(alice, room, "for three");
    world.settle();
    assert_eq!(world.texts(carol, room), ["for three"]);
}

#[test]
fn a_commit_that_is_refused_is_held_and_told() {
    invited_into_a_full_org(|subject| matches!(subject, Subject::Handshakes(_)));
}

#[test]
fn a_welcome_that_is_refused_is_held_and_told() {
    invited_into_a_full_org(|subject| matches!(subject, Subject::Inbox(_)));
}
