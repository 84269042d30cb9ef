//! The gateway orders somebody out of a room, and any member carries it out.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use prost::Message;
use sotto_client_core::io::{Command, Event};
use sotto_proto::{RoomId, wire};
use sotto_sim::World;

fn users(world: &World, machine: usize) -> Vec<String> {
    let members = &world.machines[machine].engine().rooms()[0].members;
    let mut users: Vec<String> = members.iter().map(|m| m.user.to_string()).collect();
    users.sort_unstable();
    users
}

fn is_member(world: &World, machine: usize) -> bool {
    world.machines[machine].engine().rooms()[0].member
}

fn was_told(world: &World, machine: usize, room: RoomId) -> bool {
    let removed = Event::Removed { room };
    world.machines[machine].events.contains(&removed)
}

/// Alice, who owns the room, with Bob, Carol and Eve in it.
struct Case {
    world: World,
    alice: usize,
    bob: usize,
    carol: usize,
    eve: usize,
    room: RoomId,
}

fn case() -> Case {
    let mut world = World::new(9);
    let [alice, bob, carol, eve] = ["alice", "bob", "carol", "eve"].map(|u| world.sign_up(u));
    world.settle();
    let room = world.create_room(alice, wire::JoinRule::Invite);
    for user in ["bob", "carol", "eve"] {
        world.invite(alice, room, user);
        world.settle();
    }
    assert_eq!(users(&world, alice), ["alice", "bob", "carol", "eve"]);
    Case {
        world,
        alice,
        bob,
        carol,
        eve,
        room,
    }
}

#[test]
fn any_member_carries_an_order_out_before_anything_else_is_said() {
    let Case {
        mut world,
        alice,
        bob,
        carol,
        eve,
        room,
    } = case();
    world.disconnect(alice);
    world.order_user_out("eve", room);
    world.say(bob, room, "without eve");
    world.say(carol, room, "also without eve");
    world.settle_connected();
    world.settle();
    for machine in [alice, bob, carol] {
        assert_eq!(users(&world, machine), ["alice", "bob", "carol"]);
        let mut seen = world.texts(machine, room);
        seen.sort();
        assert_eq!(seen, ["also without eve", "without eve"]);
        assert!(world.machines[machine].engine().is_settled());
    }
    assert!(was_told(&world, eve, room), "she heard the order");
    assert!(!is_member(&world, eve));
    assert_eq!(world.texts(eve, room), [""; 0]);
}

#[test]
fn who_was_away_learns_of_an_order_before_saying_anything() {
    let Case {
        mut world,
        alice,
        bob,
        carol,
        eve,
        room,
    } = case();
    for machine in [alice, bob, carol, eve] {
        world.disconnect(machine);
    }
    world.say(bob, room, "queued before the order");
    world.order_user_out("eve", room);
    world.connect(bob);
    world.settle_connected();
    assert_eq!(users(&world, bob), ["alice", "bob", "carol"]);
    world.settle();
    for machine in [alice, carol] {
        assert_eq!(world.texts(machine, room), ["queued before the order"]);
    }
    assert_eq!(world.texts(eve, room), [""; 0]);
}

#[test]
fn one_device_is_ordered_out_and_the_other_carries_it_out() {
    let Case {
        mut world,
        alice,
        bob,
        room,
        ..
    } = case();
    let lost = world.link_device(bob);
    world.settle();
    let device = world.machines[lost].device;
    world.disconnect(alice);
    world.order_device_out(device);
    world.settle_connected();
    world.settle();
    world.say(bob, room, "still me");
    world.settle();
    let members = &world.machines[alice].engine().rooms()[0].members;
    assert!(members.iter().all(|member| member.device != device));
    assert_eq!(world.texts(alice, room), ["still me"]);
    assert!(was_told(&world, lost, room));
    assert!(is_member(&world, bob));
}

#[test]
fn a_large_room_carries_an_order_out_with_few_commits() {
    let Case {
        mut world,
        alice,
        bob,
        room,
        ..
    } = case();
    for _ in 0..10 {
        world.link_device(bob);
    }
    world.settle();
    world.settle();
    let before = world.streams.messages();
    world.order_user_out("eve", room);
    world.settle();
    assert_eq!(users(&world, alice).len(), 13);
    // The notice and just one commit: whoever loses the race makes no second one.
    assert_eq!(world.streams.messages(), before + 2);
    for machine in 0..world.machines.len() {
        let engine = world.machines[machine].engine();
        assert!(engine.is_settled(), "{machine}: {engine:?}");
    }
}

#[test]
fn an_order_counts_once_and_who_comes_back_stays() {
    let Case {
        mut world,
        alice,
        bob,
        carol,
        eve,
        room,
    } = case();
    let notice = world.order_user_out("eve", room);
    world.settle();
    world.invite(alice, room, "eve");
    world.settle();
    world.sign_up("frank");
    world.settle();
    world.invite(alice, room, "frank");
    world.settle();
    let address = world.machines[alice].engine().rooms()[0].address.clone();
    // By the relay, by a gateway that does not know that it has said it, …
    for _ in 0..3 {
        world.inject(address.clone().unwrap().handshakes(), &notice);
    }
    world.say(bob, room, "welcome back");
    world.settle();
    let frank = world.machines.len() - 1;
    for machine in [alice, bob, carol, eve, frank] {
        let everybody = ["alice", "bob", "carol", "eve", "frank"];
        assert_eq!(users(&world, machine), everybody);
    }
    assert_eq!(world.texts(eve, room), ["welcome back"]);
}

#[test]
fn orders_that_do_not_count_change_nothing() {
    let Case {
        mut world,
        alice,
        bob,
        eve,
        room,
        ..
    } = case();
    let (address, good) = world.order_for("eve", room).unwrap();
    let stranger = SigningKey::from_bytes(&[5; 32]);
    let forged = good.notice(&stranger).encode_to_vec();
    let unsigned = wire::RoomNotice::default().encode_to_vec();
    let nonsense = [&[0x0a, 0xff][..], &forged].concat();
    for payload in [forged, unsigned, nonsense, vec![0x0a; 2_000]] {
        world.inject(address.handshakes(), &payload);
    }
    world.say(bob, room, "all here");
    world.settle();
    for machine in [alice, eve] {
        assert_eq!(users(&world, machine), ["alice", "bob", "carol", "eve"]);
        assert_eq!(world.texts(machine, room), ["all here"]);
    }
}

#[test]
fn an_order_for_somebody_who_is_not_there_keeps_nobody_waiting() {
    let Case {
        mut world,
        alice,
        bob,
        room,
        ..
    } = case();
    world.sign_up("frank");
    world.settle();
    // Frank has the role, but nobody has added him.
    world.disconnect(alice);
    world.invite(alice, room, "frank");
    world.connect(alice);
    let notice: Bytes = world.order_user_out("carol", room);
    world.settle();
    let address = world.machines[alice].engine().rooms()[0].address.clone();
    world.inject(address.unwrap().handshakes(), &notice);
    world.say(bob, room, "business as usual");
    world.settle();
    assert_eq!(world.texts(alice, room), ["business as usual"]);
    assert_eq!(users(&world, bob), ["alice", "bob", "eve", "frank"]);
}

#[test]
fn an_order_behind_the_rooms_public_key_does_not_keep_newcomers_out() {
    let mut world = World::new(11);
    let [alice, bob, eve] = ["alice", "bob", "eve"].map(|user| world.sign_up(user));
    world.settle();
    let room = world.create_room(alice, wire::JoinRule::Open);
    world.settle();
    world.command(eve, Command::Join { room });
    world.settle();
    // Nobody is there to carry it out, so it stands last on the subject.
    world.disconnect(alice);
    world.disconnect(eve);
    world.order_user_out("eve", room);
    world.command(bob, Command::Join { room });
    world.connect(bob);
    world.settle_connected();
    assert!(is_member(&world, bob), "{:?}", world.machines[bob].events);
    world.settle();
    world.say(bob, room, "hello");
    world.settle();
    assert_eq!(users(&world, alice), ["alice", "bob"]);
    assert_eq!(world.texts(alice, room), ["hello"]);
}

#[test]
fn a_commit_that_is_stored_after_its_order_has_ended_counts_for_nobody() {
    let Case {
        mut world,
        alice,
        bob,
        carol,
        eve,
        room,
    } = case();
    for machine in [alice, carol, eve] {
        world.disconnect(machine);
    }
    world.faults.lose_publish = 1;
    world.order_user_out("eve", room);
    world.run(20);
    world.disconnect(bob);
    world.faults.lose_publish = 0;
    world.let_pass(31);
    let before = world.streams.messages();
    world.connect(bob);
    world.settle_connected();
    assert_eq!(world.streams.messages(), before + 1, "made a month ago");
    world.say(bob, room, "too late for that");
    world.settle();
    world.say(alice, room, "but we still agree");
    world.settle();
    for machine in [alice, bob, carol] {
        assert_eq!(users(&world, machine), ["alice", "bob", "carol", "eve"]);
        assert_eq!(
            world.texts(machine, room),
            ["too late for that", "but we still agree"]
        );
        assert!(world.machines[machine].engine().is_settled());
    }
}

#[test]
fn who_was_taken_out_while_away_is_told_on_coming_back() {
    let Case {
        mut world,
        bob,
        eve,
        room,
        ..
    } = case();
    let kept = world.create_room(bob, wire::JoinRule::Invite);
    world.invite(bob, kept, "eve");
    world.settle();
    world.disconnect(eve);
    world.order_user_out("eve", room);
    world.settle_connected();
    // Longer than anybody remembers the order.
    world.let_pass(60);
    world.connect(eve);
    world.settle_connected();
    assert!(was_told(&world, eve, room));
    let engine = world.machines[eve].engine();
    assert!(engine.is_settled(), "{engine:?}");
    let rooms = engine.rooms();
    let lost = rooms.iter().find(|summary| summary.room == room).unwrap();
    assert!(lost.removed && !lost.member && lost.members.is_empty());
    let other = rooms.iter().find(|summary| summary.room == kept).unwrap();
    assert!(other.member, "the other room is as it was");
    // Whoever says so must be the gateway, and who comes back stays.
    world.invite(bob, kept, "carol");
    world.settle();
    let texts_before = world.texts(eve, kept);
    world.say(bob, kept, "still here");
    world.settle();
    assert_eq!(world.texts(eve, kept).len(), texts_before.len() + 1);
}

#[test]
fn who_was_ordered_out_while_all_were_away_comes_back_by_one_invitation() {
    let Case {
        mut world,
        alice,
        bob,
        carol,
        eve,
        room,
    } = case();
    for machine in [alice, bob, carol, eve] {
        world.disconnect(machine);
    }
    world.order_user_out("eve", room);
    // Alice has not heard of the order when she invites.
    world.invite(alice, room, "eve");
    world.connect(alice);
    world.settle_connected();
    world.settle();
    assert_eq!(users(&world, alice), ["alice", "bob", "carol", "eve"]);
    assert!(is_member(&world, eve));
    world.say(eve, room, "back again");
    world.settle();
    assert_eq!(world.texts(bob, room), ["back again"]);
}
