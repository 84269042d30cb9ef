//! A quota that is used up and a disk that is full, as who sends meets them:
//! they are told which it is, what they said waits on their device, and once
//! there is room it arrives, once each and in order.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test"
)]

use std::fs::{self, File};
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use sotto_e2e::case::{Case, two_people};
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::mounts;
use sotto_e2e::person::Person;
use sotto_e2e::process::Outcome;
use sotto_e2e::server::Server;
use sotto_service::ServerConfig;
use sotto_service::config::LimitsConfig;
use tempfile::TempDir;

/// How long a server may take to notice that there is space again.
const PATIENCE: Duration = Duration::from_secs(100);

/// `[limits]` of server.toml, from now on.
fn limit(server: &mut Server, limits: LimitsConfig) {
    server.stop().unwrap();
    let mut config = ServerConfig::load(server.layout()).unwrap();
    config.limits = limits;
    config.save(server.layout()).unwrap();
    server.start().unwrap();
}

/// How many texts of the room wait on this device.
fn waiting(person: &Person) -> usize {
    let rooms = person.does(&["rooms"]).unwrap();
    let queued = rooms.iter().find_map(|line| line.get("queued")?.as_u64());
    usize::try_from(queued.unwrap()).unwrap()
}

/// It is kept on this device, and the sentence says why.
#[track_caller]
fn is_kept(outcome: &Outcome, why: &str) {
    let Outcome {
        status,
        lines,
        stderr,
    } = outcome;
    assert_eq!(status.code(), Some(5), "{outcome:?}");
    assert!(
        lines.iter().any(|line| line["done"] == "queued"),
        "{lines:?}"
    );
    assert!(stderr.contains(why), "`{why}` is not in: {stderr}");
    assert!(stderr.contains("what waits is sent"), "{stderr}");
}

/// Whoever asks for it to be sent is told why it is not, and it goes on waiting.
#[track_caller]
fn still_waits(person: &Person, count: usize, why: &str) {
    // Nothing is waited for that does not come by waiting.
    let outcome = person.run(&["--wait", "3600", "sync"]).unwrap();
    assert_eq!(outcome.status.code(), Some(5), "{outcome:?}");
    assert!(outcome.stderr.contains(why), "{outcome:?}");
    assert_eq!(waiting(person), count);
}

/// Says `count` things that end with `words`, each by itself: how many were
/// taken in before the server took nothing more.
fn say(person: &Person, said: &mut Vec<String>, count: usize, words: &str, why: &str) -> usize {
    let mut sent = 0;
    for _ in 0..count {
        let text = format!("said {}{words}", said.len());
        let outcome = person.run(&["send", "barn", &text]).unwrap();
        said.push(text);
        if outcome.status.success() {
            assert_eq!(waiting(person), 0, "{outcome:?}");
            sent += 1;
        } else {
            is_kept(&outcome, why);
        }
    }
    sent
}

#[test]
fn a_used_up_quota_keeps_what_is_said_until_it_is_raised() {
    let some = |limit| Some(NonZeroU64::new(limit).unwrap());
    let quotas = [
        (
            LimitsConfig {
                room_messages: some(20),
                ..LimitsConfig::default()
            },
            30,
            "this room keeps as many messages as it may",
        ),
        (
            LimitsConfig {
                device_messages_per_day: some(2),
                ..LimitsConfig::default()
            },
            4,
            "this device has sent as many messages as it may in a day",
        ),
        (
            LimitsConfig {
                org_bytes: some(1),
                ..LimitsConfig::default()
            },
            2,
            "your organisation keeps as many bytes as it may",
        ),
    ];
    let mut case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let mut said = Vec::new();
    for (limits, count, why) in quotas {
        limit(&mut case.server, limits);
        let before = said.len();
        let sent = say(&case.alice, &mut said, count, "", why);
        eprintln!("{sent} of {count} taken in, then: {why}");
        assert!(sent < count, "nothing is full: {limits:?}");
        still_waits(&case.alice, count - sent, why);
        // What was taken in is there for others.
        bob.does(&["sync"]).unwrap();
        let read = history(&bob, &case.room).unwrap();
        assert_eq!(difference(&read, "said", &said[..before + sent]), None);

        limit(&mut case.server, LimitsConfig::default());
        case.alice.does(&["sync"]).unwrap();
        assert_eq!(waiting(&case.alice), 0);
        bob.does(&["sync"]).unwrap();
        for person in [&bob, &case.alice] {
            let read = history(person, &case.room).unwrap();
            assert_eq!(difference(&read, "said", &said), None);
        }
    }
}

/// The streams have filled what they may take of it.
#[test]
fn a_full_disk_of_the_server_keeps_what_is_said_until_it_is_larger() {
    let name = "a_full_disk_of_the_server_keeps_what_is_said_until_it_is_larger";
    if !mounts::are_own(name).unwrap() {
        return;
    }
    let disk = SmallDisk::new();
    let mut server = disk.server();
    let ([alice, bob], room) = disk.two_people(&server);
    let why = "the server's disk is full";
    let path = disk.folder.path().join("film").display().to_string();
    fs::write(&path, vec![b'f'; 80 << 20]).unwrap();
    let outcome = alice.run(&["send", "barn", "--file", &path]).unwrap();
    assert_eq!(outcome.status.code(), Some(5), "{outcome:?}");
    assert!(outcome.stderr.contains(why), "{outcome:?}");
    // There may be space left, for less than a chunk.
    let mut said = Vec::new();
    let sent = say(&alice, &mut said, 14, &long(), why);
    eprintln!("{sent} of 14 long texts taken in");
    assert!(sent < 14, "the disk is not full");
    still_waits(&alice, 14 - sent, why);
    // What is there can be read.
    bob.does(&["sync"]).unwrap();
    let read = history(&bob, &room).unwrap();
    assert_eq!(difference(&read, "said", &said[..sent]), None);

    server.stop().unwrap();
    disk.mount("remount,size=400m");
    server.start().unwrap();
    alice.does(&["sync"]).unwrap();
    assert_eq!(waiting(&alice), 0);
    bob.does(&["sync"]).unwrap();
    for person in [&bob, &alice] {
        let read = history(person, &room).unwrap();
        assert_eq!(difference(&read, "said", &said), None);
    }
    let copy = disk.folder.path().join("copy").display().to_string();
    bob.does(&["files", "get", &room, "film", "-o", &copy])
        .unwrap();
    assert!(fs::read(copy).unwrap() == fs::read(path).unwrap());
}

/// Somebody else has filled it: nats-server does not answer then, until the
/// relay starts it again.
#[test]
fn a_disk_of_the_server_that_others_fill_keeps_what_is_said_until_there_is_space() {
    let name = "a_disk_of_the_server_that_others_fill_keeps_what_is_said_until_there_is_space";
    if !mounts::are_own(name).unwrap() {
        return;
    }
    let disk = SmallDisk::new();
    let server = disk.server();
    let ([alice, bob], room) = disk.two_people(&server);
    let mut said: Vec<String> = (0..3).map(|number| format!("said {number}")).collect();
    for text in &said {
        alice.does(&["send", "barn", text]).unwrap();
    }
    let others = disk.path().join("others");
    fill(&others);
    let why = "the server's disk is full";
    assert_eq!(say(&alice, &mut said, 3, &long(), why), 0);
    assert_eq!(waiting(&alice), 3);
    // What is there can be read.
    bob.does(&["sync"]).unwrap();
    let read = history(&bob, &room).unwrap();
    assert_eq!(difference(&read, "said", &said[..3]), None);

    fs::remove_file(others).unwrap();
    let began = Instant::now();
    while !alice.run(&["sync"]).unwrap().status.success() {
        assert!(began.elapsed() < PATIENCE, "the server does not go on");
    }
    assert_eq!(waiting(&alice), 0);
    bob.does(&["sync"]).unwrap();
    for person in [&bob, &alice] {
        let read = history(person, &room).unwrap();
        assert_eq!(difference(&read, "said", &said), None);
    }
}

/// A disk of which the streams of a server may take a few megabytes.
struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let disk = Self { folder };
        fs::create_dir(disk.path()).unwrap();
        // The gateway's buckets alone reserve 64 MB.
        disk.mount("size=80m");
        disk
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    fn mount(&self, options: &str) {
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]);
        let status = mount.arg(self.path()).status().unwrap();
        assert!(
            status.success(),
            "mounting a small tmpfs is not allowed here"
        );
    }

    fn server(&self) -> Server {
        Server::create(&self.path().join("server"), "acme", "field").unwrap()
    }

    fn two_people(&self, server: &Server) -> ([Person; 2], String) {
        let invite = server.first_invite("acme").unwrap();
        two_people(self.folder.path(), &invite).unwrap()
    }
}

/// What makes a text one that does not fit into what is left of a block.
fn long() -> String {
    ".".repeat(60_000)
}

/// Writes until there is no space left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let full = io::copy(&mut io::repeat(0), &mut file).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    file.flush().unwrap();
}
