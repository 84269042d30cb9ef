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
use std::path::Path;
use std::process::Command;

use sotto_e2e::case::{Case, two_people};
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::mounts;
use sotto_e2e::person::Person;
use sotto_e2e::process::Outcome;
use sotto_e2e::server::Server;
use sotto_service::ServerConfig;
use sotto_service::config::LimitsConfig;

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
    let outcome = person.run(&["--wait", "2", "sync"]).unwrap();
    assert!(!outcome.status.success(), "{outcome:?}");
    let held = outcome.lines.iter().filter(|line| line["event"] == "held");
    let mut reasons = held.map(|line| line["reason"].as_str().unwrap());
    assert!(reasons.any(|reason| reason.contains(why)), "{outcome:?}");
    assert_eq!(waiting(person), count);
}

/// Says `count` things, each by itself: how many were taken in before the
/// server took nothing more.
fn say(person: &Person, said: &mut Vec<String>, count: usize, why: &str) -> usize {
    let mut sent = 0;
    for _ in 0..count {
        let text = format!("said {}", said.len());
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
                device_messages_per_day: some(5),
                ..LimitsConfig::default()
            },
            8,
            "this device has sent as many messages as it may in a day",
        ),
        (
            LimitsConfig {
                org_bytes: some(1),
                ..LimitsConfig::default()
            },
            3,
            "your organisation keeps as many bytes as it may",
        ),
    ];
    let mut case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let mut said = Vec::new();
    for (limits, count, why) in quotas {
        limit(&mut case.server, limits);
        let before = said.len();
        let sent = say(&case.alice, &mut said, count, why);
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

#[test]
fn a_full_disk_of_the_server_keeps_what_is_said_until_there_is_space() {
    let name = "a_full_disk_of_the_server_keeps_what_is_said_until_there_is_space";
    if !mounts::are_own(name).unwrap() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    mount_small(&disk);
    let server = Server::create(&disk.join("server"), "acme", "field").unwrap();
    let invite = server.first_invite("acme").unwrap();
    let ([alice, bob], room) = two_people(folder.path(), &invite).unwrap();
    let why = "the server's disk is full";
    let mut said = Vec::new();
    assert_eq!(say(&alice, &mut said, 3, why), 3);

    // Somebody else fills it; the server cannot know.
    let others = disk.join("others");
    fill(&others);
    let sent = say(&alice, &mut said, 5, why);
    eprintln!("{sent} of 5 taken in by a full disk");
    assert!(sent < 5, "the disk is not full");
    still_waits(&alice, 5 - sent, why);
    // What is there can still be read.
    bob.does(&["sync"]).unwrap();
    let read = history(&bob, &room).unwrap();
    assert_eq!(difference(&read, "said", &said[..3 + sent]), None);

    fs::remove_file(others).unwrap();
    alice.does(&["sync"]).unwrap();
    assert_eq!(waiting(&alice), 0);
    bob.does(&["sync"]).unwrap();
    for person in [&bob, &alice] {
        let read = history(person, &room).unwrap();
        assert_eq!(difference(&read, "said", &said), None);
    }
}

fn mount_small(target: &Path) {
    let mut mount = Command::new("mount");
    let mount = mount.args(["-t", "tmpfs", "-o", "size=150m", "tmpfs"]);
    let status = mount.arg(target).status().unwrap();
    assert!(
        status.success(),
        "mounting a small tmpfs is not allowed here"
    );
}

/// Writes until there is no space left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let full = io::copy(&mut io::repeat(0), &mut file).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    file.flush().unwrap();
}
