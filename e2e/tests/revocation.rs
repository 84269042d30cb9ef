//! How long it takes until a revoked user is out: from `sotto admin user
//! revoke` to the end of their connection, and to the commit that takes them
//! out of every room where somebody is online. Real programs throughout.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test, one of which measures"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{Client, Subscriber};
use futures::StreamExt;
use futures::future::join_all;
use prost::Message;
use serde_json::Value;
use sotto_client_core::io::Command;
use sotto_client_core::pace::Pace;
use sotto_client_native::clock::Clock;
use sotto_client_native::gateway::Gateway;
use sotto_client_native::home::Home;
use sotto_client_native::nats::{Connection, Settings};
use sotto_client_native::session::Session;
use sotto_client_native::tls;
use sotto_e2e::case::{PASSWORD, text};
use sotto_e2e::cluster::Cluster;
use sotto_e2e::person::Person;
use sotto_e2e::process::{PATIENCE, Running};
use sotto_e2e::tap;
use sotto_proto::{RoomId, Subject, wire};
use sotto_service::Layout;
use tokio::sync::mpsc;

/// What one revocation took, from the start of the command.
#[derive(Debug)]
struct Took {
    /// Until the directory had it.
    appended: Duration,
    /// Until the command had ended: in force at the message servers.
    answered: Duration,
    /// Until the user's connection to each node was closed.
    closed: Vec<Duration>,
    /// Until the stream had the order for each room, and the commit.
    ordered: Vec<Duration>,
    committed: Vec<Duration>,
}

#[test]
fn a_revoked_user_is_out_of_ten_rooms_at_once() {
    let took = revoke(3, 10);
    print(&took);
    assert_eq!((took.closed.len(), took.committed.len()), (3, 10));
    let slowest = took.committed.iter().chain(&took.closed).max().unwrap();
    assert!(*slowest < Duration::from_secs(10), "{took:?}");
}

/// Run it alone, optimised, the programs too, if the figures are to mean something:
/// `cargo build --release --workspace --bins`, then
/// `cargo test --release --package sotto-e2e --test revocation -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn a_revoked_user_is_out_of_a_hundred_rooms() {
    for nodes in [1, 3] {
        println!("nodes: {nodes}");
        print(&revoke(nodes, 100));
    }
}

fn print(took: &Took) {
    let Took {
        appended,
        answered,
        closed,
        ordered,
        committed,
    } = took;
    println!("in the directory {appended:?}, answered {answered:?}");
    for (what, times) in [
        ("connections closed", closed),
        ("rooms with the order", ordered),
        ("rooms with the commit", committed),
    ] {
        let mut times = times.clone();
        times.sort();
        let (p50, max) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{} {what}: p50 {p50:?}, max {max:?}", times.len());
    }
}

/// Alice revokes bob, who is in so many rooms with her and carol. Carol is
/// online, and so is bob, on every node.
fn revoke(nodes: usize, rooms: usize) -> Took {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::create(folder.path(), "acme", "field", nodes).unwrap();
    let person = |name: &str| Person::new(folder.path().join(name), PASSWORD).unwrap();
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(person);
    let first = cluster.first_invite().unwrap();
    alice.does(&["signup", &first, "alice"]).unwrap();
    for (person, name) in [(&bob, "bob"), (&carol, "carol")] {
        let invited = alice.does(&["invite", "--project", "field"]).unwrap();
        let link = text(&invited, "invite").unwrap();
        person.does(&["signup", &link, name]).unwrap();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let rooms = runtime.block_on(make_rooms(&alice, rooms));
    for person in [&bob, &carol] {
        person.does(&["--wait", "60", "sync"]).unwrap();
    }
    alice.does(&["send", "room 0", "hello"]).unwrap();
    let witness = follow(&carol);
    let layout = cluster.nodes()[0].layout();
    let hearing = runtime.block_on(Streams::hear(layout));
    let connections = runtime.block_on(connect_everywhere(&bob));
    assert_eq!(connections.len(), nodes);
    let closing = connections.into_iter().map(|connection| {
        runtime.spawn(async move {
            connection.closed().await;
            now()
        })
    });
    let closing: Vec<_> = closing.collect();

    let started = now();
    let answer = alice.does(&["admin", "user", "revoke", "bob", "--yes"]);
    let answered = now() - started;
    let since = |at: Duration| at.saturating_sub(started);
    let appended = answer
        .unwrap()
        .iter()
        .find_map(|line| line["at_ms"].as_u64());
    let (ordered, committed) = runtime.block_on(hearing.until_removed(&rooms));
    let closed = runtime.block_on(join_all(closing)).into_iter();
    witness.interrupt().unwrap();
    Took {
        appended: since(Duration::from_millis(appended.unwrap())),
        answered,
        closed: closed.map(|at| since(at.unwrap())).collect(),
        ordered: ordered.into_values().map(since).collect(),
        committed: committed.into_values().map(since).collect(),
    }
}

/// Since 1970.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Has alice make these rooms and let bob and carol in, in one go: a hundred
/// commands would open her folder as often.
async fn make_rooms(alice: &Person, count: usize) -> Vec<RoomId> {
    let opened = Home::new(alice.dir()).open(PASSWORD).unwrap();
    let (session, mut notices) = Session::start(opened, Clock::default()).unwrap();
    tokio::spawn(async move { while notices.recv().await.is_some() {} });
    session.go_online().await;
    let mut rooms = Vec::new();
    for number in 0..count {
        let create = Command::CreateRoom {
            project: "field".parse().unwrap(),
            name: format!("room {number}"),
            join_rule: wire::JoinRule::Invite,
        };
        rooms.push(session.command(create).await);
    }
    let rooms = join_all(rooms.iter_mut().map(|room| room.done())).await;
    let rooms: Vec<_> = rooms
        .into_iter()
        .map(|room| room.unwrap().unwrap())
        .collect();
    for user in ["bob", "carol"] {
        let invite = |room: &RoomId| Command::Invite {
            room: *room,
            user: user.parse().unwrap(),
            role: wire::Role::User,
        };
        let mut inviting = Vec::new();
        for room in &rooms {
            inviting.push(session.command(invite(room)).await);
        }
        let invited = join_all(inviting.iter_mut().map(|invite| invite.done()));
        invited
            .await
            .into_iter()
            .for_each(|done| assert!(done.is_ok(), "{done:?}"));
    }
    session.settled().await.unwrap();
    session.stop().await;
    rooms
}

/// Somebody who watches a room, and has what was said there.
fn follow(person: &Person) -> Running {
    let room = "room 0";
    let mut following = person.starts(&["recv", room, "--follow"], None).unwrap();
    let hello = |line: &Value| (line["text"] == "hello").then_some(());
    following.wait_for("the connection", hello).unwrap();
    following
}

/// One connection to each node, with one JWT of a person's device.
async fn connect_everywhere(person: &Person) -> Vec<Connection> {
    let opened = Home::new(person.dir()).open(PASSWORD).unwrap();
    let account = opened.engine.account();
    let gateway = Gateway::new(account.gateway.clone(), Clock::default()).unwrap();
    let info = wire::ServerInfoRequest {
        org: account.org.to_string(),
    };
    let info = gateway.call(&info, None).await.unwrap();
    let session = account.session_request(Clock::default().now());
    let session = gateway.call(&session, None).await.unwrap();
    let jwt = gateway
        .call(&wire::JwtRequest {}, Some(&session))
        .await
        .unwrap();
    let tls = tls::pinned_client(account.gateway.authority, Arc::new(Clock::default())).unwrap();
    let device = account.device;
    let opened = Arc::new(Mutex::new(opened));
    let mut connections = Vec::new();
    for url in info.nats_urls {
        let settings = Settings {
            urls: vec![url],
            tls: tls.clone(),
            device,
            jwt: jwt.jwt.clone(),
            rooms: Vec::new(),
            gated: BTreeSet::new(),
            patience: PATIENCE,
            pace: Pace::ORDINARY,
        };
        let opened = Arc::clone(&opened);
        let sign = move |nonce: Vec<u8>| {
            let signed = opened
                .lock()
                .unwrap()
                .engine
                .account()
                .sign_nats_nonce(&nonce);
            async move { signed.ok() }
        };
        let ((live, _), (presence, _)) = (mpsc::channel(1), mpsc::channel(1));
        let connection = Connection::open(settings, sign, live, presence);
        connections.push(connection.await.unwrap());
    }
    connections
}

/// What is stored in the rooms, as it is stored.
struct Streams {
    _client: Client,
    handshakes: Subscriber,
}

/// When something was there in each room.
type Times = BTreeMap<RoomId, Duration>;

impl Streams {
    async fn hear(server: &Layout) -> Self {
        let client = tap::hear(server, &"acme".parse().unwrap()).await.unwrap();
        let handshakes = client.subscribe("live.r.*.*.*.hs").await.unwrap();
        client.flush().await.unwrap();
        Self {
            _client: client,
            handshakes,
        }
    }

    /// When each room had the order, and when the commit that carries it out.
    async fn until_removed(mut self, rooms: &[RoomId]) -> (Times, Times) {
        let (mut ordered, mut committed) = (Times::new(), Times::new());
        let all = async {
            while committed.len() < rooms.len() {
                let message = self.handshakes.next().await.unwrap();
                let subject = message.subject.strip_prefix("live.").unwrap().parse();
                let Ok(Subject::Handshakes(address)) = subject else {
                    panic!("{subject:?}");
                };
                if !rooms.contains(&address.room) {
                    continue;
                }
                let notice = wire::RoomNotice::decode(message.payload.clone());
                let times = match notice.is_ok_and(|notice| notice.kind.is_some()) {
                    true => &mut ordered,
                    false => &mut committed,
                };
                times.entry(address.room).or_insert_with(now);
            }
        };
        let waited = tokio::time::timeout(PATIENCE, all).await;
        waited.unwrap_or_else(|_| panic!("{} of {}", committed.len(), rooms.len()));
        (ordered, committed)
    }
}
