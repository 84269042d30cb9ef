//! A successor that is alive and never serves runs into its time limit, and
//! changes nothing.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use sotto_e2e::process::{self, Running};
use sotto_e2e::programs::{Programs, hand_over, reload, runs, until};
use sotto_e2e::releases::script;
use sotto_faults::ports;
use sotto_service::readiness::Ready;

/// The process that a script says it runs as.
fn told(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[test]
fn a_successor_that_does_not_serve_in_time_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("serve");
    // The flag, and not what these programs are told by the environment.
    let programs = Programs::new(folder.path(), Duration::from_secs(3_600)).unwrap();
    let mut serve = programs.command("tunnel", "sotto-tunnel").unwrap();
    serve.args(["serve", "--json", "--exit-with-parent", "--dir"]);
    serve.arg(&dir).args(["--public-host", "127.0.0.1"]);
    serve.args(["--listen", &ports::free().unwrap().to_string()]);
    serve.args(["--successor-ready-seconds", "2"]);
    let mut serve = Running::start(serve, None).unwrap();
    let ready = dir.join("serve.json");
    until("the program", || Ready::read(&ready).is_some()).unwrap();
    let before = Ready::read(&ready).unwrap().pid;

    let (never, started) = (folder.path().join("never"), folder.path().join("started"));
    let does = format!("echo $$ > {}; exec sleep 600", started.display());
    script("sotto-tunnel", "9.0.0", &does, &never).unwrap();
    programs.put("tunnel", "sotto-tunnel", &never).unwrap();
    reload(&ready).unwrap();
    until("the successor's start", || told(&started).is_some()).unwrap();
    let successor = told(&started).unwrap();
    until("the successor's end", || !runs(successor)).unwrap();
    assert_eq!(Ready::read(&ready).unwrap().pid, before);
    serve.still_runs().unwrap();

    // It goes on, also to the next one.
    let right = programs.rebuilt("sotto-tunnel").unwrap();
    programs.put("tunnel", "sotto-tunnel", &right).unwrap();
    let handed = hand_over(&ready).unwrap();
    assert!(runs(handed.pid));
    drop(serve);
    process::kill_all("sotto-tunnel", folder.path()).unwrap();
}
