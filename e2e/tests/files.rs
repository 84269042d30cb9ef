//! Files that are interrupted, kept for later, too old, or sent twice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use rand::{Rng, RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sotto_e2e::case::{Case, text};
use sotto_e2e::network::Network;
use sotto_e2e::person::Person;
use sotto_e2e::process::{PATIENCE, Running};
use sotto_e2e::server::Part;
use sotto_e2e::tap::Tap;
use sotto_faults::{Conditions, Traffic};
use sotto_jwt_accounts::grants::RELAY_INBOX;
use sotto_proto::limits;
use sotto_service::nats::{self, Login};
use sotto_service::{ServerConfig, tls};
use tokio::runtime::Runtime;

/// 4 MB/s: what is under way at a time is a small part of the file.
const SLOW: Conditions = Conditions {
    bits_per_second: Some(32_000_000),
    ..Conditions::GOOD
};

/// Bytes of the file that is interrupted.
const SIZE: usize = 40_000_000;

/// Chunks under way at most: at [`SLOW`], more than these are answered so late
/// that the window grows no further.
const WINDOW: u64 = 9;

/// What TLS, NATS and the messages about it all cost beside the file: a
/// hundredth, and this for every connection.
const CONNECTION: u64 = 100_000;

const CHUNK: u64 = limits::CHUNK as u64;

/// A file that no other run of this test has.
fn write(case: &Case, name: &str, size: usize) -> (String, Vec<u8>) {
    let mut content = vec![0; size];
    ChaCha20Rng::seed_from_u64(size as u64).fill_bytes(&mut content);
    let path = case.folder().join(name);
    fs::write(&path, &content).unwrap();
    (path.display().to_string(), content)
}

/// Gets a file; what is in it.
fn get(case: &Case, person: &Person, room: &str, name: &str) -> Vec<u8> {
    let target = case.folder().join(format!("{name}.copy"));
    let path = target.display().to_string();
    person.does(&["sync"]).unwrap();
    person
        .does(&["files", "get", room, name, "-o", &path])
        .unwrap();
    let content = fs::read(&target).unwrap();
    fs::remove_file(&target).unwrap();
    content
}

fn total(network: &Network) -> Traffic {
    let [gateway, nats] = network.traffic();
    gateway + nats
}

/// The stream of chunks, as its relay sees it.
struct Blobs {
    runtime: Runtime,
    jetstream: jetstream::Context,
}

impl Blobs {
    fn of(case: &Case) -> Self {
        tls::install_provider();
        let runtime = Runtime::new().unwrap();
        let layout = case.server.layout();
        let login = Login {
            name: "test",
            credentials: &layout.relay_creds(&"acme".parse().unwrap()),
            inbox_prefix: RELAY_INBOX,
        };
        let config = ServerConfig::load(layout).unwrap();
        let jetstream = runtime.block_on(async {
            let client = nats::connect(layout, &config, login).await;
            jetstream::new(client.unwrap())
        });
        Self { runtime, jetstream }
    }

    /// How many there are.
    fn count(&self) -> u64 {
        let count = async {
            let blobs = self.jetstream.get_stream("BLOB-0").await.ok()?;
            Some(blobs.cached_info().state.messages)
        };
        // A server that was just killed says nothing.
        self.runtime.block_on(count).unwrap_or_default()
    }

    fn wait_for(&self, count: u64) {
        let began = Instant::now();
        while self.count() < count {
            assert!(began.elapsed() < PATIENCE, "{} of {count}", self.count());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Lets nats-server find that what is there now is too old.
    fn expire(&self) {
        let keep_for = |age| async move {
            let blobs = self.jetstream.get_stream("BLOB-0").await.unwrap();
            let mut config = blobs.cached_info().config.clone();
            let before = std::mem::replace(&mut config.max_age, age);
            config.duplicate_window = config.duplicate_window.min(age);
            self.jetstream.update_stream(config).await.unwrap();
            before
        };
        let before = self.runtime.block_on(keep_for(Duration::from_secs(1)));
        let began = Instant::now();
        while self.count() > 0 {
            assert!(began.elapsed() < PATIENCE, "nothing expires");
            thread::sleep(Duration::from_millis(100));
        }
        self.runtime.block_on(keep_for(before));
    }
}

/// Starts to send a file and kills the client once the server has so many
/// chunks in all.
fn send_until(person: &Person, arguments: &[&str], blobs: &Blobs, chunks: u64) {
    let sending = person.starts(arguments, None).unwrap();
    blobs.wait_for(chunks);
    let killed = sending.kill().unwrap();
    let done = killed.lines.iter().any(|line| line.get("done").is_some());
    assert!(!done, "too quick to be killed");
}

#[test]
fn no_stored_chunk_is_sent_again_whenever_the_client_is_killed() {
    let case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let (path, content) = write(&case, "map", SIZE);
    let chunks = (SIZE as u64).div_ceil(CHUNK);
    let network = Network::new(case.server.layout(), SLOW, 1).unwrap();
    let alice = case.alice.clone().behind(&network);
    let blobs = Blobs::of(&case);
    let listening = Runtime::new().unwrap();
    let acme = "acme".parse().unwrap();
    let heard = case.folder().join("heard");
    let tap = Tap::open(case.server.layout(), &acme, &heard);
    let mut tap = listening.block_on(tap).unwrap();

    let mut rng = ChaCha20Rng::seed_from_u64(7);
    let before = total(&network);
    let mut reached = 0;
    let mut kills = 0;
    while reached + 20 < chunks {
        reached += rng.gen_range(5..20);
        let arguments: &[&str] = match kills {
            0 => &["send", "barn", "--file", &path],
            _ => &["sync"],
        };
        send_until(&alice, arguments, &blobs, reached);
        kills += 1;
    }
    alice.does(&["sync"]).unwrap();
    let sent = total(&network) - before;
    assert!(
        get(&case, &bob, "barn", "map") == content,
        "another content"
    );

    // Each was heard whole by the server exactly once ...
    let subjects = listening.block_on(tap.devices.subjects()).unwrap();
    assert_eq!(tap.devices.gaps(), 0);
    let submitted = |line: &&str| line.starts_with("in.") && line.contains(".blob.");
    let submitted = subjects.lines().filter(submitted).count() as u64;
    assert_eq!(submitted, chunks, "after {kills} kills");
    // ... and of those that were under way when it was killed, a part.
    let lost = kills * WINDOW * CHUNK;
    let most = SIZE as u64 * 101 / 100 + lost + (kills + 1) * CONNECTION;
    eprintln!("{} bytes up for {SIZE}, {kills} kills", sent.up);
    assert!(sent.up <= most, "{} bytes for {SIZE}", sent.up);
}

/// A transfer that is interrupted by the end of every program in turn.
struct Interrupted<'a> {
    case: &'a Case,
    network: &'a Network,
    /// At whose end it is.
    person: Person,
    rng: ChaCha20Rng,
    kills: u64,
}

impl Interrupted<'_> {
    /// Runs commands to the end, the second again and again when it is killed;
    /// `moved` says how many chunks are through.
    fn run(&mut self, first: &[&str], again: &[&str], moved: impl Fn() -> u64) -> Traffic {
        let before = total(self.network);
        let mut running = self.person.starts(first, None).unwrap();
        for victim in [Some(Part::Relay), None, Some(Part::Nats)] {
            let until = moved() + self.rng.gen_range(3..18);
            let began = Instant::now();
            while moved() < until {
                running.still_runs().unwrap();
                assert!(began.elapsed() < PATIENCE, "{} of {until}", moved());
                thread::sleep(Duration::from_millis(20));
            }
            match victim {
                Some(part) => drop(self.case.server.kill(part).unwrap()),
                None => running = self.kill_client(running, again),
            }
            self.kills += 1;
        }
        running.finish().unwrap().success().unwrap();
        total(self.network) - before
    }

    fn kill_client(&self, running: Running, again: &[&str]) -> Running {
        let killed = running.kill().unwrap();
        let done = killed.lines.iter().any(|line| line.get("done").is_some());
        assert!(!done, "too quick to be killed");
        self.person.starts(again, None).unwrap()
    }

    /// The file, and what was under way when something was killed.
    fn most(&self) -> u64 {
        let lost = self.kills * WINDOW * CHUNK;
        SIZE as u64 * 101 / 100 + lost + (2 * self.kills + 1) * CONNECTION
    }
}

#[test]
fn a_file_gets_through_whatever_is_killed_and_little_is_sent_twice() {
    let case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let (path, content) = write(&case, "film", SIZE);
    let network = Network::new(case.server.layout(), SLOW, 2).unwrap();
    let blobs = Blobs::of(&case);
    let mut upload = Interrupted {
        case: &case,
        network: &network,
        person: case.alice.clone().behind(&network),
        rng: ChaCha20Rng::seed_from_u64(3),
        kills: 0,
    };
    let wait = ["--wait", "100"];
    let sends = [&wait[..], &["send", "barn", "--file", &path]].concat();
    let syncs = [&wait[..], &["sync"]].concat();
    let sent = upload.run(&sends, &syncs, || blobs.count());
    eprintln!("{} bytes up for {SIZE}", sent.up);
    assert!(sent.up <= upload.most(), "{} bytes for {SIZE}", sent.up);
    case.alice.does(&["sync"]).unwrap();

    bob.does(&["sync"]).unwrap();
    let network = Network::new(case.server.layout(), SLOW, 3).unwrap();
    let mut download = Interrupted {
        case: &case,
        network: &network,
        person: bob.behind(&network),
        rng: ChaCha20Rng::seed_from_u64(4),
        kills: 0,
    };
    let target = case.folder().join("film.copy");
    let copy = target.display().to_string();
    let gets = [&wait[..], &["files", "get", "barn", "film", "-o", &copy]].concat();
    let part = target.with_added_extension("part");
    let got = download.run(&gets, &gets, || length(&part) / CHUNK);
    eprintln!("{} bytes down for {SIZE}", got.down);
    assert!(fs::read(&target).unwrap() == content, "another content");
    assert!(got.down <= download.most(), "{} bytes for {SIZE}", got.down);
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[test]
fn an_upload_goes_on_after_a_week_with_what_is_gone_by_then() {
    let case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let network = Network::new(case.server.layout(), SLOW, 4).unwrap();
    let blobs = Blobs::of(&case);
    let alice = case.alice.clone().behind(&network);
    let (path, content) = write(&case, "harvest", 12_000_000);
    let send = ["send", "barn", "--file", &path];
    send_until(&alice, &send, &blobs, 8);
    let later = alice.with_clock_off_by(8 * 24 * 3_600);
    later.does(&["sync"]).unwrap();
    assert!(
        get(&case, &bob, "barn", "harvest") == content,
        "another content"
    );

    // Meanwhile the server has let go of what it had.
    let (path, content) = write(&case, "sowing", 12_000_001);
    let chunks = 12_000_001_u64.div_ceil(CHUNK);
    let alice = case.alice.clone().behind(&network);
    let there = blobs.count();
    let send = ["send", "barn", "--file", &path];
    send_until(&alice, &send, &blobs, there + 8);
    blobs.expire();
    let later = alice.with_clock_off_by(8 * 24 * 3_600);
    later.does(&["sync"]).unwrap();
    assert_eq!(blobs.count(), chunks);
    assert!(
        get(&case, &bob, "barn", "sowing") == content,
        "another content"
    );
}

#[test]
fn a_file_that_is_too_old_is_said_to_be_gone() {
    let case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let (path, _) = write(&case, "old", 1_000_000);
    case.alice.does(&["send", "barn", "--file", &path]).unwrap();
    bob.does(&["sync"]).unwrap();
    Blobs::of(&case).expire();
    let target = case.folder().join("new").display().to_string();
    let gone = bob.run(&["files", "get", "barn", "old", "-o", &target]);
    let gone = gone.unwrap();
    assert!(!gone.status.success());
    assert!(
        gone.stderr.contains("does not have this file any more"),
        "{}",
        gone.stderr
    );
    assert!(!PathBuf::from(target).exists());
}

#[test]
fn a_file_for_a_second_room_is_not_uploaded_again() {
    const SIZE: usize = 10_000_000;
    let case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let carol = case.device("carol").unwrap();
    carol
        .does(&["signup", &case.invite().unwrap(), "carol"])
        .unwrap();
    let made = ["room", "create", "loft", "--project", "field"];
    let loft = text(&case.alice.does(&made).unwrap(), "room").unwrap();
    let invite = ["room", "invite", "loft", "carol"];
    case.alice.does(&invite).unwrap();
    carol.does(&["sync"]).unwrap();
    let network = Network::new(case.server.layout(), Conditions::GOOD, 5).unwrap();
    let alice = case.alice.clone().behind(&network);
    let (path, content) = write(&case, "recipes", SIZE);
    let up = |arguments: &[&str]| {
        let before = total(&network);
        let lines = alice.does(arguments).unwrap();
        (lines, (total(&network) - before).up)
    };

    let (_, first) = up(&["send", "barn", "--file", &path]);
    assert!(first > SIZE as u64, "{first}");
    let (lines, second) = up(&["send", "loft", "--file", &path]);
    eprintln!("{first} bytes up for the first room, {second} for the second");
    assert!(second < 60_000, "{second} bytes for the second room");
    let done = lines.iter().find(|line| line["done"] == "sent").unwrap();

    // Who is in one of the rooms has it from there, and from nowhere else.
    assert!(get(&case, &bob, "barn", "recipes") == content);
    assert!(get(&case, &carol, &loft, "recipes") == content);
    let listed = carol.does(&["files", "list", &loft]).unwrap();
    assert_eq!(
        text(&listed, "file").unwrap(),
        done["file"].as_str().unwrap()
    );
    for (person, room) in [(&bob, &loft), (&carol, &case.room)] {
        let other = person.run(&["files", "list", room]).unwrap();
        assert!(!other.status.success(), "{other:?}");
    }

    // To the same room once more: it is one file there.
    let (_, again) = up(&["send", "barn", "--file", &path]);
    assert!(again < 60_000, "{again} bytes for the first room once more");
    assert!(get(&case, &bob, "barn", "recipes") == content);

    // The server has it no more, in no room: it is uploaded like any other.
    Blobs::of(&case).expire();
    let (_, third) = up(&["send", "loft", "--file", &path]);
    assert!(third > SIZE as u64, "{third}");
    let listed = carol
        .does(&["sync"])
        .and_then(|_| carol.does(&["files", "list", &loft]));
    let listed = listed.unwrap();
    let newest = listed.last().unwrap()["file"].as_str().unwrap();
    assert!(get(&case, &carol, &loft, newest) == content);
}

#[test]
fn a_part_of_a_file_costs_the_chunks_it_is_in_and_no_more() {
    const SIZE: usize = 8 * limits::CHUNK + 1_000;
    let case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let (path, content) = write(&case, "atlas", SIZE);
    case.alice.does(&["send", "barn", "--file", &path]).unwrap();
    bob.does(&["sync"]).unwrap();
    let network = Network::new(case.server.layout(), Conditions::GOOD, 6).unwrap();
    let bob = bob.behind(&network);
    let target = case.folder().join("part");
    let copy = target.display().to_string();
    let part = |range: &str| {
        let get = [
            "files", "get", "barn", "atlas", "--range", range, "-o", &copy,
        ];
        let before = total(&network);
        let outcome = bob.run(&get).unwrap();
        let content = fs::read(&target).ok();
        fs::remove_file(&target).ok();
        (outcome, content, (total(&network) - before).down)
    };

    let (chunk, size) = (limits::CHUNK, SIZE);
    let in_chunks = |first: usize, end: usize| match first == end {
        true => 0,
        false => end.div_ceil(chunk) - first / chunk,
    };
    for (first, end) in [
        (0, 1),
        (chunk + 10, chunk + 21),
        (2 * chunk, 3 * chunk),
        (3 * chunk - 1, 3 * chunk + 1),
        (4 * chunk - 7, 6 * chunk + 7),
        (size - 1, size),
        (0, size),
    ] {
        let (outcome, got, down) = part(&format!("{first}-{}", end - 1));
        outcome.success().unwrap();
        assert!(got.unwrap() == content[first..end], "{first} to {end}");
        let most = in_chunks(first, end) as u64 * CHUNK * 101 / 100 + CONNECTION;
        eprintln!("{down} bytes down for {first} to {end}");
        assert!(down <= most, "{down} bytes for {first} to {end}");
    }
    // To the end, of which there may be nothing left.
    for first in [0, 5 * chunk, 8 * chunk + 1, size] {
        let (outcome, got, down) = part(&format!("{first}-"));
        outcome.success().unwrap();
        assert!(got.unwrap() == content[first..], "from {first}");
        let most = in_chunks(first, size) as u64 * CHUNK * 101 / 100 + CONNECTION;
        assert!(down <= most, "{down} bytes from {first}");
    }

    let within = format!("the file has {size} bytes: ask for a range within them");
    for (range, why) in [
        (format!("{}-", size + 1), within.as_str()),
        (format!("0-{size}"), &within),
        (format!("{size}-{size}"), &within),
        (format!("0-{}", u64::MAX - 1), &within),
        (format!("0-{}", u64::MAX), "a range is FIRST- or FIRST-LAST"),
        ("2-1".to_owned(), "a range is FIRST- or FIRST-LAST"),
    ] {
        let (outcome, got, down) = part(&range);
        assert!(!outcome.status.success(), "{range}");
        assert!(outcome.stderr.contains(why), "{range}: {}", outcome.stderr);
        assert_eq!(got, None, "{range} leaves something behind");
        assert!(down <= CONNECTION, "{down} bytes for {range}");
    }
    // What is there is never overwritten.
    fs::write(&target, "mine").unwrap();
    let (outcome, got, _) = part("0-1");
    assert!(
        outcome.stderr.contains("choose another name"),
        "{outcome:?}"
    );
    assert_eq!(got.unwrap(), b"mine");
}
