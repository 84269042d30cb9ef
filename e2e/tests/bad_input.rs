//! What people, disks, clocks and servers do wrong. Each case ends in one
//! clear sentence that says what to do, and loses nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sotto_e2e::case::{Case, text};
use sotto_e2e::conversation::{self, difference, history};
use sotto_e2e::garbage::{Garbage, Nonsense};
use sotto_e2e::mounts;
use sotto_e2e::process::{Outcome, binary};
use sotto_e2e::releases::Releases;
use sotto_e2e::server::Server;
use sotto_proto::{GatewayAddress, InviteLink};

/// It failed with one sentence that holds these words.
#[track_caller]
fn one_sentence(outcome: &Outcome, words: &[&str]) {
    let Outcome { status, stderr, .. } = outcome;
    assert!(!status.success(), "it did not fail");
    assert!(status.code().is_some(), "it crashed: {status}");
    let lines: Vec<&str> = stderr
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "`{word}` is not in: {stderr}");
    }
}

#[test]
fn a_wrong_password() {
    let case = Case::new().unwrap();
    let laptop = case.device("laptop").unwrap();
    let login = ["login", "alice", "--gateway", case.server.gateway()];
    let wrong = laptop
        .clone()
        .with_password("incorrect horse")
        .run(&login)
        .unwrap();
    one_sentence(&wrong, &["wrong user name or password", "try again"]);
    let nobody = ["login", "nobody", "--gateway", case.server.gateway()];
    let unknown = laptop.run(&nobody).unwrap();
    assert_eq!(
        unknown.stderr, wrong.stderr,
        "users can be told from strangers"
    );
    laptop.does(&login).unwrap();
}

#[test]
fn a_wrong_passphrase_for_the_folder() {
    let case = Case::new().unwrap();
    let wrong = case
        .alice
        .clone()
        .with_password("incorrect horse")
        .run(&["rooms"])
        .unwrap();
    one_sentence(&wrong, &["passphrase"]);
    assert_eq!(
        text(&case.alice.does(&["rooms"]).unwrap(), "name").unwrap(),
        "barn"
    );
}

#[test]
fn an_expired_invite() {
    let case = Case::new().unwrap();
    let lines = case
        .alice
        .does(&["invite", "--project", "field", "--valid", "1s"])
        .unwrap();
    let expires = lines
        .iter()
        .find_map(|line| line.get("expires_ms")?.as_u64())
        .unwrap();
    let expires = UNIX_EPOCH + Duration::from_millis(expires);
    while let Ok(left) = expires.duration_since(SystemTime::now()) {
        std::thread::sleep(left + Duration::from_millis(1));
    }
    let bob = case.device("bob").unwrap();
    let late = bob
        .run(&["signup", &text(&lines, "invite").unwrap(), "bob"])
        .unwrap();
    one_sentence(&late, &["expired", "new one"]);
    let invite = case.invite().unwrap();
    bob.does(&["signup", &invite, "bob"]).unwrap();

    let again = case
        .device("carol")
        .unwrap()
        .run(&["signup", &invite, "carol"])
        .unwrap();
    one_sentence(&again, &["invit"]);
}

#[test]
fn an_unknown_room() {
    let case = Case::new().unwrap();
    for command in [
        &["send", "attic", "hello"][..],
        &["recv", "attic"],
        &["room", "invite", "attic", "bob"],
    ] {
        let outcome = case.alice.run(command).unwrap();
        one_sentence(&outcome, &["attic", "sotto rooms"]);
    }
}

#[test]
fn a_store_opened_by_two_processes() {
    let case = Case::new().unwrap();
    case.alice.does(&["send", "barn", "to myself"]).unwrap();
    let follow = ["recv", "barn", "--follow", "--all"];
    let mut reading = case.alice.starts(&follow, None).unwrap();
    reading
        .wait_for("a message", |line| line.get("text")?.as_str().map(drop))
        .unwrap();
    let second = case.alice.run(&["rooms"]).unwrap();
    one_sentence(&second, &["another sotto", "close it"]);
    assert!(reading.interrupt().unwrap().status.success());
    assert_eq!(
        text(&case.alice.does(&["rooms"]).unwrap(), "name").unwrap(),
        "barn"
    );
}

#[test]
fn a_full_disk() {
    if !mounts::are_own("a_full_disk").unwrap() {
        return;
    }
    let case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let carol = case.device("carol").unwrap();
    fs::create_dir(carol.dir()).unwrap();
    mount(&["-t", "tmpfs", "-o", "size=8m", "tmpfs"], carol.dir());
    let carol = case.member(carol, "carol").unwrap();

    let mut kept = Vec::new();
    let refused = loop {
        let batch: Vec<String> = (0..50)
            .map(|n| format!("carol {} {n} {:.<8000}", kept.len(), ""))
            .collect();
        let sending = carol.starts(&["send", &case.room, "--stdin"], Some(batch.join("\n")));
        let outcome = sending.unwrap().finish().unwrap();
        if outcome
            .lines
            .iter()
            .any(|line| line.get("queued").is_some())
        {
            kept.extend(batch);
        }
        if !outcome.status.success() {
            break outcome;
        }
        assert!(kept.len() < 5_000, "8 MB hold more than that?");
    };
    one_sentence(&refused, &["the disk is full", "free some space"]);

    mount(&["-o", "remount,size=64m"], carol.dir());
    carol.does(&["sync"]).unwrap();
    bob.does(&["sync"]).unwrap();
    for person in [&carol, &bob] {
        let said = history(person, &case.room).unwrap();
        assert_eq!(difference(&said, "carol", &kept), None);
    }
}

#[test]
fn a_corrupt_store_file() {
    let case = Case::new().unwrap();
    case.alice.does(&["send", "barn", "before"]).unwrap();
    let said = history(&case.alice, "barn").unwrap();
    let folder = case.alice.dir();
    let backup = case.folder().join("backup");
    copy(folder, &backup);
    let mut refused = 0;
    for file in files(&backup) {
        let name = file.strip_prefix(&backup).unwrap();
        let mut content = fs::read(&file).unwrap();
        let length = content.len();
        if length == 0 {
            continue;
        }
        for byte in content.iter_mut().skip(length / 4).take(length / 2 + 1) {
            *byte ^= 0x5a;
        }
        fs::write(folder.join(name), &content).unwrap();
        let outcome = case.alice.run(&["recv", "barn", "--all"]).unwrap();
        if outcome.status.success() {
            // It holds nothing that cannot be done without.
            assert_eq!(
                conversation::said(&outcome.lines).unwrap(),
                said,
                "{name:?}"
            );
        } else {
            one_sentence(&outcome, &["damaged", "backup"]);
            refused += 1;
        }
        // What the sentence tells to do.
        fs::remove_dir_all(folder).unwrap();
        copy(&backup, folder);
    }
    assert!(refused > 0, "no file was needed");
    assert_eq!(history(&case.alice, "barn").unwrap(), said);
}

#[test]
fn a_gateway_that_answers_garbage_to_a_newcomer() {
    let case = Case::new().unwrap();
    let invite: InviteLink = case.invite().unwrap().parse().unwrap();
    let bob = case.device("bob").unwrap();
    for nonsense in Nonsense::ALL {
        let anywhere = "127.0.0.1:0".parse().unwrap();
        let garbage = Garbage::serve(case.server.layout(), anywhere, nonsense).unwrap();
        let mut elsewhere = invite.clone();
        elsewhere.gateway.port = garbage.address().port();
        let outcome = bob.run(&["signup", &elsewhere.to_string(), "bob"]).unwrap();
        one_sentence(&outcome, &["the server at", "check"]);
    }
    // Neither the invitation nor the folder is used up.
    bob.does(&["signup", &invite.to_string(), "bob"]).unwrap();
}

#[test]
fn a_gateway_that_answers_garbage_to_a_member() {
    let mut case = Case::new().unwrap();
    let invite: InviteLink = case.invite().unwrap().parse().unwrap();
    case.server.stop().unwrap();
    let GatewayAddress { host, port, .. } = invite.gateway;
    for (index, nonsense) in Nonsense::ALL.into_iter().enumerate() {
        let address = format!("{host}:{port}").parse().unwrap();
        let _garbage = Garbage::serve(case.server.layout(), address, nonsense).unwrap();
        let said = format!("said to nobody {index}");
        let lines = case
            .alice
            .does(&["--wait", "1", "send", "barn", &said])
            .unwrap();
        assert_eq!(text(&lines, "done").unwrap(), "queued", "{lines:?}");
        let reason = text(&lines, "reason").unwrap();
        assert!(
            reason.contains("the server at") && reason.contains("check"),
            "{reason}"
        );
    }
    case.server.start().unwrap();
    case.alice.does(&["sync"]).unwrap();
    let expected: Vec<String> = (0..Nonsense::ALL.len())
        .map(|index| format!("said to nobody {index}"))
        .collect();
    let said = history(&case.alice, "barn").unwrap();
    assert_eq!(difference(&said, "said to nobody", &expected), None);
}

#[test]
fn a_clock_an_hour_off() {
    let case = Case::new().unwrap();
    let late = case
        .member(case.device("bob").unwrap().with_clock_off_by(-3_600), "bob")
        .unwrap();
    let early = case
        .member(
            case.device("carol").unwrap().with_clock_off_by(3_600),
            "carol",
        )
        .unwrap();
    let people = [&case.alice, &late, &early];
    let mut expected = Vec::new();
    for round in 0..3 {
        for (index, person) in people.into_iter().enumerate() {
            let words = format!("clock {round} {index}");
            person.does(&["send", &case.room, &words]).unwrap();
            expected.push(words);
        }
    }
    for person in people {
        person.does(&["sync"]).unwrap();
        let said = history(person, &case.room).unwrap();
        assert_eq!(difference(&said, "clock", &expected), None);
    }
}

#[test]
fn a_clock_a_year_off() {
    const YEAR: i64 = 365 * 24 * 3_600;
    let case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let login = ["login", "bob", "--gateway", case.server.gateway()];
    let slow = case.device("slow").unwrap().with_clock_off_by(-YEAR);
    one_sentence(
        &slow.run(&login).unwrap(),
        &["clock of this device", "right"],
    );

    let mut expected = Vec::new();
    for (number, year) in [-YEAR, YEAR].into_iter().enumerate() {
        let elsewhen = bob.clone().with_clock_off_by(year);
        let words = format!("year {number}");
        let outcome = elsewhen.run(&["send", &case.room, &words]).unwrap();
        if outcome.status.success() {
            expected.push(words);
        } else {
            one_sentence(&outcome, &["clock"]);
        }
    }
    bob.does(&["send", &case.room, "year now"]).unwrap();
    expected.push("year now".to_owned());
    for person in [&bob, &case.alice] {
        person.does(&["sync"]).unwrap();
        let said = history(person, &case.room).unwrap();
        assert_eq!(difference(&said, "year", &expected), None);
    }
}

/// Of the server: it starts again when the disk is as it was, with all it had.
#[test]
fn a_disk_that_can_only_be_read() {
    if !mounts::are_own("a_disk_that_can_only_be_read").unwrap() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("disk");
    fs::create_dir(&dir).unwrap();
    mount(&["-t", "tmpfs", "tmpfs"], &dir);
    let server = dir.join("server");
    let mut running = Server::create(&server, "acme", "field").unwrap();
    running.stop().unwrap();
    mount(&["-o", "remount,ro"], &dir);

    let says = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(binary(program).unwrap());
        let output = command.args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status, text(&output.stderr), text(&output.stdout))
    };
    let (path, other) = (server.to_str().unwrap(), dir.join("other"));
    let releases = Releases::create(&folder.path().join("keys"), &folder.path().join("releases"));
    let root = releases.unwrap().root();
    let (other, root) = (other.to_str().unwrap(), root.to_str().unwrap());
    let commands: [(&str, &[&str]); 3] = [
        ("sotto-relay", &["run", "--dir", path]),
        ("sotto-relay", &["update", "--state", other, "trust", root]),
        (
            "sotto-gateway",
            &[
                "init",
                "--dir",
                other,
                "--org",
                "acme",
                "--project",
                "field",
            ],
        ),
    ];
    for (program, arguments) in commands {
        let (status, said, _) = says(program, arguments);
        assert_eq!(status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(said.matches("Read-only file system").count(), 1, "{said}");
        assert!(said.contains("mount its file system"), "{said}");
    }
    let (status, _, said) = says("sotto", &["doctor", "--dir", path]);
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("can only be read"), "{said}");

    mount(&["-o", "remount,rw"], &dir);
    running.start().unwrap();
}

fn mount(options: &[&str], target: &Path) {
    let status = Command::new("mount")
        .args(options)
        .arg(target)
        .status()
        .unwrap();
    assert!(
        status.success(),
        "mounting a small tmpfs is not allowed here"
    );
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success());
}
