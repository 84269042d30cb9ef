//! New keys at every level, while people write.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sotto_e2e::case::Case;
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::process::binary;
use sotto_e2e::server::Part;

/// How long relay and gateway may take to notice new keys.
const NOTICED: Duration = Duration::from_secs(8);

#[test]
fn every_key_changes_while_people_write() {
    let case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let room = case.room.as_str();
    let listening = bob.starts(&["recv", room, "--follow"], None).unwrap();
    let stop = AtomicBool::new(false);
    let said = thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let (mut said, mut longest) = (Vec::new(), Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let text = format!("said {}", said.len());
                let begun = Instant::now();
                // What is not sent while the server restarts is queued, and sent later.
                let sent = case.alice.run(&["send", room, &text]).unwrap();
                longest = longest.max(begun.elapsed());
                let queued = sent.lines.iter().any(|line| line["event"] == "queued");
                assert!(queued, "{}", sent.stderr);
                said.push(text);
            }
            println!("{} messages, the longest took {longest:?}", said.len());
            said
        });
        let rotated = rotate_all(&case);
        stop.store(true, Ordering::Relaxed);
        let said = writing.join().unwrap();
        rotated.unwrap();
        said
    });
    let shown = case.alice.does(&["admin", "accounts", "status"]).unwrap();
    let current = shown.iter().filter(|line| line["state"] == "current");
    assert_eq!(current.count(), 2, "{shown:?}");
    case.alice.does(&["sync"]).unwrap();
    listening.interrupt().unwrap();
    bob.does(&["sync"]).unwrap();
    let heard = history(&bob, room).unwrap();
    assert_eq!(difference(&heard, "said", &said), None);
    assert!(said.len() > 10, "{} messages", said.len());
}

fn rotate_all(case: &Case) -> anyhow::Result<()> {
    accounts(case, &["rotate", "org", "acme"])?;
    thread::sleep(NOTICED);
    let finish = ["rotate", "org", "acme", "--finish"];
    let why = refused(case, &finish)?;
    ensure!(why.contains("more minutes"), "{why}");
    // Relay and gateway have taken theirs by themselves.
    ensure!(!why.contains("of sotto-"), "{why}");
    accounts(case, &[&finish[..], &["--force"]].concat())?;

    accounts(case, &["rotate", "system"])?;
    thread::sleep(NOTICED);
    accounts(case, &["rotate", "system", "--finish"])?;

    accounts(case, &["rotate", "operator", "--identity"])?;
    let why = refused(case, &["rotate", "operator", "--finish"])?;
    ensure!(why.contains("does not know the new key"), "{why}");
    case.server.kill(Part::Relay)?;
    accounts(case, &["rotate", "operator", "--finish"])?;
    case.server.kill(Part::Relay)?;

    let status = accounts(case, &["status", "--json"])?;
    let behind = status.lines().find(|line| line.contains("\"behind\""));
    ensure!(behind.is_none(), "{behind:?}");
    Ok(())
}

/// What `sotto-gateway accounts` prints.
fn accounts(case: &Case, arguments: &[&str]) -> anyhow::Result<String> {
    let output = run(case, arguments)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Why it does not do something.
fn refused(case: &Case, arguments: &[&str]) -> anyhow::Result<String> {
    let output = run(case, arguments)?;
    ensure!(!output.status.success(), "{arguments:?} was done");
    Ok(String::from_utf8(output.stderr)?)
}

fn run(case: &Case, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
    Command::new(binary("sotto-gateway")?)
        .arg("accounts")
        .args(arguments)
        .arg("--dir")
        .arg(case.server.layout().root())
        .output()
        .context("sotto-gateway does not start")
}
