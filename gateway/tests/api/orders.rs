//! Rooms are told whom they are to remove: soon, once, and whatever dies.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context, stream};
use prost::Message;
use sotto_gateway::clock::Clock;
use sotto_gateway::provision;
use sotto_jwt_accounts::directory::{Actor, By, Command};
use sotto_jwt_accounts::grants::RELAY_INBOX;
use sotto_proto::signed::RemovalOrder;
use sotto_proto::wire::directory_command::Ask;
use sotto_proto::wire::room_notice::Kind;
use sotto_proto::wire::{
    DeviceRevoked, DirectoryChange, DirectoryCommand, JoinRule, Role, RoleGranted, RoleRevoked,
    RoomNotice, Scope, UserRevoked, scope::Place,
};
use sotto_proto::{RoomId, Shard, mail_stream, mail_stream_subjects};
use sotto_service::nats::{self, Login};

use super::person::Person;
use super::revocation::Online;
use super::server::{Directory, PATIENCE, Server};

/// The streams of the org's rooms, as the relay makes them.
pub async fn rooms(server: &Server, org: &str) -> Context {
    let directory = &server.directory;
    let login = Login {
        name: "relay",
        credentials: &directory.layout.relay_creds(&org.parse().unwrap()),
        inbox_prefix: RELAY_INBOX,
    };
    let client = nats::connect(&directory.layout, &directory.config, login)
        .await
        .unwrap();
    let jetstream = jetstream::new(client);
    let config = stream::Config {
        name: mail_stream(Shard(0)),
        subjects: vec![mail_stream_subjects(Shard(0))],
        duplicate_window: Duration::from_secs(600),
        allow_direct: true,
        ..stream::Config::default()
    };
    jetstream.get_or_create_stream(config).await.unwrap();
    jetstream
}

/// Every order that the rooms were given, in order.
async fn orders(directory: &Directory, rooms: &Context) -> Vec<RemovalOrder> {
    let stream = rooms.get_stream(mail_stream(Shard(0))).await.unwrap();
    let key = provision::read_gateway_key(&directory.layout).unwrap();
    let key = key.verifying_key();
    let mut orders = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.direct_get(sequence).await.unwrap();
        assert!(message.subject.ends_with(".hs"), "{}", message.subject);
        let notice = RoomNotice::decode(message.payload.clone()).unwrap();
        let Some(Kind::RemovalOrder(signed)) = notice.kind else {
            panic!("{notice:?}");
        };
        let order = RemovalOrder::verify(&signed, &key).unwrap();
        assert!(message.subject.contains(&order.room.to_string()));
        orders.push(order);
    }
    orders
}

/// Waits until there are so many, and then a while for one too many.
pub async fn settled(server: &Server, rooms: &Context, count: usize) -> Vec<RemovalOrder> {
    let waiting = async {
        while orders(&server.directory, rooms).await.len() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let orders = orders(&server.directory, rooms).await;
    assert_eq!(orders.len(), count);
    orders
}

fn room_scope(room: RoomId) -> Option<Scope> {
    Some(Scope {
        place: Some(Place::Room(room.to_bytes())),
    })
}

fn revoke_role(user: &Person, room: RoomId) -> Ask {
    Ask::RevokeRole(RoleRevoked {
        user: user.user.to_string(),
        scope: room_scope(room),
        group: String::new(),
    })
}

fn grant_role(user: &Person, room: RoomId) -> Ask {
    Ask::GrantRole(RoleGranted {
        user: user.user.to_string(),
        scope: room_scope(room),
        role: Role::User.into(),
        group: String::new(),
    })
}

fn revoke_user(user: &Person) -> Ask {
    Ask::RevokeUser(UserRevoked {
        user: user.user.to_string(),
    })
}

/// Bob in so many rooms of Alice's.
async fn bob_in_rooms(server: &Server, count: usize) -> (Person, Person, Vec<RoomId>) {
    let alice = Person::first(server, "acme", "alice").await;
    let bob = alice.invite_new(server, "bob").await;
    let mut rooms = Vec::new();
    for _ in 0..count {
        rooms.push(alice.create_room(server, JoinRule::Invite).await);
    }
    let grants = rooms.iter().map(|room| grant_role(&bob, *room));
    alice.change(server, grants).await.unwrap();
    (alice, bob, rooms)
}

#[tokio::test]
async fn who_leaves_is_named_in_each_room_and_who_is_back_is_not() {
    let server = Server::start().await;
    let (alice, bob, rooms_of_bob) = bob_in_rooms(&server, 3).await;
    let second = bob.on_another_device(&server).await;
    // There is nothing to publish to yet: nothing is lost by that.
    let [left, back, kept] = rooms_of_bob[..] else {
        panic!("three rooms");
    };
    let changes = [
        revoke_role(&bob, left),
        revoke_role(&bob, back),
        grant_role(&bob, back),
    ];
    alice.change(&server, changes).await.unwrap();
    let rooms = rooms(&server, "acme").await;
    let told = settled(&server, &rooms, 1).await;
    assert_eq!((told[0].room, &told[0].user), (left, &bob.user));
    assert_eq!(told[0].identity_key, bob.identity.verifying_key());
    assert_eq!(
        (told[0].device, told[0].at_ms),
        (None, server.clock.now_ms())
    );

    server.clock.advance(Duration::from_secs(1));
    let lost = Ask::RevokeDevice(DeviceRevoked {
        device: second.device.id.to_bytes(),
    });
    alice.change(&server, [lost]).await.unwrap();
    let told = settled(&server, &rooms, 3).await;
    let named: BTreeSet<_> = told[1..]
        .iter()
        .map(|told| (told.room, told.device))
        .collect();
    let device = Some(second.device.id);
    assert_eq!(named, [(back, device), (kept, device)].into());

    alice.change(&server, [revoke_user(&bob)]).await.unwrap();
    let told = settled(&server, &rooms, 5).await;
    let named: BTreeSet<_> = told[3..]
        .iter()
        .map(|told| (told.room, told.device))
        .collect();
    assert_eq!(named, [(back, None), (kept, None)].into());
}

#[tokio::test]
async fn two_gateways_tell_each_room_once() {
    let one = Server::start().await;
    let two = Server::start_on(one.directory.clone()).await;
    let rooms = rooms(&one, "acme").await;
    let (alice, bob, rooms_of_bob) = bob_in_rooms(&one, 20).await;
    for (n, room) in rooms_of_bob.iter().enumerate() {
        let server = if n % 2 == 0 { &one } else { &two };
        alice
            .change(server, [revoke_role(&bob, *room)])
            .await
            .unwrap();
    }
    let told = settled(&one, &rooms, rooms_of_bob.len()).await;
    let named: BTreeSet<RoomId> = told.iter().map(|told| told.room).collect();
    assert_eq!(named, rooms_of_bob.into_iter().collect());
    // A third that starts now has nothing to add.
    let _three = Server::start_on(one.directory.clone()).await;
    settled(&one, &rooms, told.len()).await;
}

/// The directory has it, but the gateway was killed before any room heard.
#[tokio::test]
async fn what_a_killed_gateway_left_the_next_one_says() {
    let server = Server::start().await;
    let rooms = rooms(&server, "acme").await;
    let (alice, bob, rooms_of_bob) = bob_in_rooms(&server, 3).await;
    let writer = server.directory.writer("acme").await;
    let (directory, now_ms) = (server.directory.clone(), server.clock.now_ms());
    drop(server);
    let by = By::from(Actor::User(alice.user));
    let revoke = Command::RevokeUser { user: bob.user };
    writer.append(&by, revoke, now_ms).await.unwrap();
    let next = Server::start_on(directory).await;
    let told = settled(&next, &rooms, 3).await;
    let named: BTreeSet<RoomId> = told.iter().map(|told| told.room).collect();
    assert_eq!(named, rooms_of_bob.into_iter().collect());
}

/// Killed anywhere between the first order and the last: none is missing, and
/// none is said twice.
#[tokio::test]
async fn a_gateway_killed_among_the_orders_loses_and_doubles_none() {
    const ROOMS: usize = 60;
    let mut server = Server::start().await;
    let rooms = rooms(&server, "acme").await;
    let (alice, _, rooms_of_bob) = bob_in_rooms(&server, ROOMS).await;
    let writer = server.directory.writer("acme").await;
    let by = By::from(Actor::User(alice.user.clone()));
    let mut said = 0;
    for (n, lives_ms) in [0, 2, 5, 10, 20].into_iter().enumerate() {
        let name = format!("carol{n}");
        let carol = alice.invite_new(&server, &name).await;
        let grants = rooms_of_bob.iter().map(|room| grant_role(&carol, *room));
        alice.change(&server, grants).await.unwrap();
        let revoke = Command::RevokeUser { user: carol.user };
        let now_ms = server.clock.now_ms();
        writer.append(&by, revoke, now_ms).await.unwrap();
        tokio::time::sleep(Duration::from_millis(lives_ms)).await;
        let directory = server.directory.clone();
        drop(server);
        let after = orders(&directory, &rooms).await.len() - said;
        println!("killed after {lives_ms} ms, with {after} of {ROOMS} rooms told");
        server = Server::start_on(directory).await;
        said += ROOMS;
        let told = settled(&server, &rooms, said).await;
        let named: BTreeSet<RoomId> = told[said - ROOMS..].iter().map(|told| told.room).collect();
        assert_eq!(named.len(), ROOMS);
    }
}

/// From the call to the connection closed, and to the last of 100 rooms told.
#[tokio::test]
async fn a_revoked_user_is_out_of_a_hundred_rooms_within_a_second() {
    const ROOMS: usize = 100;
    let server = Server::start().await;
    let rooms = rooms(&server, "acme").await;
    let (alice, bob, _) = bob_in_rooms(&server, ROOMS).await;
    let mut online = Online::connect(&server, &bob).await;
    let mut stream = rooms.get_stream(mail_stream(Shard(0))).await.unwrap();

    let asked = Instant::now();
    let revoking = async {
        let call = DirectoryChange {
            commands: vec![DirectoryCommand {
                ask: Some(revoke_user(&bob)),
            }],
            dry_run: false,
        };
        alice.call(&server, &call).await.unwrap();
        asked.elapsed()
    };
    let closing = async {
        online.is_cut().await;
        asked.elapsed()
    };
    let telling = async {
        while stream.info().await.unwrap().state.messages < ROOMS as u64 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        asked.elapsed()
    };
    let telling = tokio::time::timeout(PATIENCE, telling);
    let (answered, closed, told) = tokio::join!(revoking, closing, telling);
    let told = told.unwrap();
    println!("user revoke: answered {answered:?}, closed {closed:?}, {ROOMS} rooms told {told:?}");
    assert!(closed < Duration::from_secs(1), "closed after {closed:?}");
    assert!(told < Duration::from_secs(1), "told after {told:?}");
    settled(&server, &rooms, ROOMS).await;
}
