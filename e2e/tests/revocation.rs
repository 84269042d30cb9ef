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

use std::collections::BTreeMap;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::{Client, Subscriber};
use futures::StreamExt;
use futures::future::join_all;
use prost::Message;
use serde_json::Value;
use sotto_client_core::io::Command;
use sotto_client_native::clock::Clock;
use sotto_client_native::home::Home;
use sotto_client_native::session::Session;
use sotto_e2e::case::{Case, PASSWORD};
use sotto_e2e::person::Person;
use sotto_e2e::process::{PATIENCE, Running};
use sotto_e2e::tap;
use sotto_proto::{RoomId, Subject, wire};

/// What one revocation took, from the start of the command.
#[derive(Debug)]
struct Took {
    /// Until the directory had it.
    appended: Duration,
    /// Until the command had ended: in force at the message server.
    answered: Duration,
    /// Until the user's connection was closed.
    closed: Duration,
    /// Until the stream had the order for each room, and the commit.
    ordered: Vec<Duration>,
    committed: Vec<Duration>,
}

#[test]
fn a_revoked_user_is_out_of_ten_rooms_at_once() {
    let took = revoke(10);
    print(&took);
    assert_eq!(took.committed.len(), 10);
    let slowest = took.committed.iter().max().unwrap();
    assert!(*slowest < Duration::from_secs(5), "{took:?}");
    assert!(took.closed < Duration::from_secs(5), "{took:?}");
}

/// Run it alone, optimised if the figures are to mean something:
/// `cargo test --release --package sotto-e2e --test revocation -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn a_revoked_user_is_out_of_a_hundred_rooms() {
    let took = revoke(100);
    print(&took);
    assert_eq!(took.committed.len(), 100);
}

fn print(took: &Took) {
    let Took {
        appended,
        answered,
        closed,
        ordered,
        committed,
    } = took;
    println!("in the directory {appended:?}, answered {answered:?}, connection closed {closed:?}");
    for (what, mut times) in [
        ("ordered", ordered.clone()),
        ("committed", committed.clone()),
    ] {
        times.sort();
        let (p50, max) = (times[times.len() / 2], times[times.len() - 1]);
        println!("{what} in {} rooms: p50 {p50:?}, max {max:?}", times.len());
    }
}

/// Alice revokes bob, who is in so many rooms with her and carol. Bob and
/// carol are online.
fn revoke(rooms: usize) -> Took {
    let case = Case::new().unwrap();
    let [bob, carol] = ["bob", "carol"].map(|name| {
        let device = case.device(name).unwrap();
        device
            .does(&["signup", &case.invite().unwrap(), name])
            .unwrap();
        device
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let rooms = runtime.block_on(make_rooms(&case.alice, rooms));
    for person in [&bob, &carol] {
        person.does(&["--wait", "60", "sync"]).unwrap();
    }
    case.alice.does(&["send", "room 0", "hello"]).unwrap();
    let witness = follow(&carol);
    let mallory = Closing::of(follow(&bob));
    let hearing = runtime.block_on(Streams::hear(&case));

    let started = now();
    let answer = case
        .alice
        .does(&["admin", "user", "revoke", "bob", "--yes"]);
    let answered = now() - started;
    let appended = answer
        .unwrap()
        .iter()
        .find_map(|line| line["at_ms"].as_u64());
    let appended = Duration::from_millis(appended.unwrap()).saturating_sub(started);
    let (ordered, committed) = runtime.block_on(hearing.until_removed(&rooms));
    let closed = mallory.wait() - started;
    witness.interrupt().unwrap();
    let since = |times: BTreeMap<RoomId, Duration>| {
        let times = times.into_values();
        times.map(|at| at.saturating_sub(started)).collect()
    };
    Took {
        appended,
        answered,
        closed,
        ordered: since(ordered),
        committed: since(committed),
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

/// A program whose connection is about to end.
struct Closing(JoinHandle<Duration>);

impl Closing {
    fn of(mut program: Running) -> Self {
        Self(thread::spawn(move || {
            let offline = |line: &Value| (line["event"] == "offline").then(now);
            let at = program.wait_for("the end of the connection", offline);
            program.kill().unwrap();
            at.unwrap()
        }))
    }

    /// When it ended.
    fn wait(self) -> Duration {
        self.0.join().unwrap()
    }
}

/// What is stored in the rooms, as it is stored.
struct Streams {
    _client: Client,
    handshakes: Subscriber,
}

/// When something was there in each room.
type Times = BTreeMap<RoomId, Duration>;

impl Streams {
    async fn hear(case: &Case) -> Self {
        let org = "acme".parse().unwrap();
        let client = tap::hear(case.server.layout(), &org);
        let client = client.await.unwrap();
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
