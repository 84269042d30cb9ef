//! A node's turn to start another nats-server that comes to nothing: whatever
//! ends in the middle of it, some nats-server serves on this node in the end,
//! no other node is kept waiting for long, and people notice nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_nats::jetstream;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sotto_e2e::case::two_people;
use sotto_e2e::cluster::{Cluster, Node};
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::process::{binary, kill, nats_server};
use sotto_e2e::programs::{is_succeeded, reload, runs, said, until};
use sotto_e2e::session::Saying;
use sotto_proto::{LOCK_STREAM, NATS_SERVER_LOCK};
use sotto_service::readiness::Ready;
use tokio::runtime::Runtime;

/// What nats-server logs at its turn.
const HANDS_OVER: &str = "Entering lame duck mode";

/// How often a node's nats-server has handed over.
fn turns(node: &Node) -> usize {
    let log = fs::read_to_string(node.layout().nats_log());
    log.map_or(0, |log| log.matches(HANDS_OVER).count())
}

/// Who has the lock, as its stream says; nothing when it is free.
fn holder(cluster: &Cluster) -> Value {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        // The second node always runs here.
        let client = cluster.relay_client(cluster.nodes()[1].layout()).await;
        let context = jetstream::new(client.unwrap());
        let stream = context.get_stream_no_info(LOCK_STREAM).await.unwrap();
        let last = stream.get_last_raw_message_by_subject(NATS_SERVER_LOCK);
        serde_json::from_slice(&last.await.unwrap().payload).unwrap()
    })
}

fn program(path: &Path, text: &str) -> PathBuf {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

/// A release of the relay with a nats-server of this kind.
fn release(folder: &Path, nats_server: &Path) -> PathBuf {
    let relay = binary("sotto-relay").unwrap();
    let (nats_server, relay) = (nats_server.display(), relay.display());
    let text = format!("SOTTO_NATS_SERVER={nats_server} exec {relay} \"$@\"");
    program(&folder.join("release"), &text)
}

/// The real one, which answers, and never finds the other nodes.
fn lonely_nats_server(folder: &Path) -> PathBuf {
    let real = nats_server().unwrap();
    let real = real.display();
    let text = format!(
        "[ \"$1\" = --version ] && exec {real} --version\n\
         exec {real} \"$@\" --cluster nats://127.0.0.1:-1 --routes nats://127.0.0.1:9"
    );
    program(&folder.join("nats-server"), &text)
}

/// The predecessor goes on, with a nats-server of its own, and all is well.
fn serves_as_before(cluster: &Cluster, node: &Node, relay: u32) {
    let ready = node.layout().relay_ready();
    let is_back = || {
        let named = Ready::read(&ready).is_some_and(|ready| ready.pid == relay);
        named && node.nats_server().is_ok_and(|pid| runs(number(pid)))
    };
    until("the predecessor", is_back).unwrap();
    cluster.is_settled().unwrap();
}

fn number(pid: Pid) -> u32 {
    pid.as_raw_nonzero().get().unsigned_abs()
}

/// The relay of a node, and its successor, which serves.
fn hands_over(node: &Node) -> (u32, u32) {
    let ready = node.layout().relay_ready();
    let relay = reload(&ready).unwrap();
    until("a successor", || is_succeeded(relay, &ready)).unwrap();
    (relay, Ready::read(&ready).unwrap().pid)
}

fn a_nats_server_that_never_serves_is_taken_back(cluster: &Cluster, folder: &Path) {
    let node = &cluster.nodes()[0];
    let (before, had) = (node.nats_server().unwrap(), turns(node));
    let release = release(folder, &lonely_nats_server(folder));
    let programs = cluster.programs().unwrap();
    programs.put("n1", "sotto-relay", &release).unwrap();

    let (relay, successor) = hands_over(node);
    until("its turn", || turns(node) == had + 1).unwrap();
    until("the successor's end", || !runs(successor)).unwrap();
    serves_as_before(cluster, node, relay);
    let now = node.nats_server().unwrap();
    assert_ne!(now, before);
    let started = fs::read_link(format!("/proc/{}/exe", number(now))).unwrap();
    assert!(started.starts_with(folder.join("programs")), "{started:?}");
    assert_eq!(holder(cluster), Value::Null, "the turn is given back");
    let own = binary("sotto-relay").unwrap();
    programs.put("n1", "sotto-relay", &own).unwrap();
}

fn a_successor_may_end_in_the_middle_of_its_turn(cluster: &Cluster) {
    let node = &cluster.nodes()[0];
    let had = turns(node);
    cluster.programs().unwrap().replace_nats_server().unwrap();
    let (relay, successor) = hands_over(node);
    until("its turn", || turns(node) == had + 1).unwrap();
    kill(Pid::from_raw(successor as i32).unwrap()).unwrap();
    serves_as_before(cluster, node, relay);
}

/// Two of three are away: there is nothing to be stopped any more, and the third
/// one needs nobody's leave.
fn without_a_majority_no_turn_is_waited_for(cluster: &mut Cluster) {
    let at = cluster.nodes()[0].is_watched().unwrap();
    cluster.programs().unwrap().replace_nats_server().unwrap();
    cluster.kill(2).unwrap();
    let node = &cluster.nodes()[0];
    let (_, relay) = hands_over(node);
    let waits = || said(at).is_some_and(|said| said.contains("this node's turn"));
    until("a relay that waits for n3", waits).unwrap();
    let before = node.nats_server().unwrap();
    cluster.kill(1).unwrap();
    let node = &cluster.nodes()[0];
    let is_new = || {
        let now = node.nats_server();
        now.is_ok_and(|now| now != before && runs(number(now)))
    };
    until("another nats-server", is_new).unwrap();
    for number in [1, 2] {
        cluster.start(number).unwrap();
    }
    cluster.is_settled().unwrap();
    let ready = cluster.nodes()[0].layout().relay_ready();
    let is_whole = || Ready::read(&ready).is_some_and(|now| now.pid == relay && !now.is_partial);
    until("a relay that is whole", is_whole).unwrap();
}

/// Whoever is stopped does not wait for a turn, and the others know.
fn who_is_stopped_takes_the_turn_in_passing(cluster: &mut Cluster) {
    let node = &cluster.nodes()[0];
    let nats_server = number(node.nats_server().unwrap());
    let serves = Ready::read(&node.layout().relay_ready()).unwrap().pid;
    let first = number(node.relay().unwrap());
    // As systemd does: a predecessor that stands by is still the one.
    let one = if runs(first) { first } else { serves };
    kill_process(Pid::from_raw(one as i32).unwrap(), Signal::TERM).unwrap();
    let is_gone = || [first, serves, nats_server].iter().all(|&pid| !runs(pid));
    until("everything of the first node to end", is_gone).unwrap();
    let held = holder(cluster);
    assert_eq!(held["node"], json!("n1"), "{held}");
    cluster.start(0).unwrap();
    cluster.is_settled().unwrap();
    let node = &cluster.nodes()[1];
    let at = node.is_watched().unwrap();
    cluster.programs().unwrap().replace_nats_server().unwrap();
    let had = turns(node);
    hands_over(node);
    let waits = || said(at).is_some_and(|said| said.contains("it is that of n1"));
    until("a relay that waits for n1", waits).unwrap();
    assert_eq!(turns(node), had);
}

#[test]
fn a_turn_that_comes_to_nothing_leaves_a_node_that_serves() {
    let folder = tempfile::tempdir().unwrap();
    let told = [
        ("SOTTO_STAND_BY_SECONDS", "60"),
        ("SOTTO_LEADERLESS_SECONDS", "8"),
        ("SOTTO_NATS_SERVER_READY_SECONDS", "8"),
    ];
    let mut cluster = Cluster::replaceable_told(folder.path(), 3, &told).unwrap();
    let ([alice, bob], room) = two_people(folder.path(), &cluster.first_invite().unwrap()).unwrap();
    let saying = Saying::start(&alice, &room).unwrap();
    a_nats_server_that_never_serves_is_taken_back(&cluster, folder.path());
    a_successor_may_end_in_the_middle_of_its_turn(&cluster);
    without_a_majority_no_turn_is_waited_for(&mut cluster);
    who_is_stopped_takes_the_turn_in_passing(&mut cluster);
    let said = saying.stop().unwrap();
    assert!(said.len() > 20, "only {} messages", said.len());
    bob.does(&["sync"]).unwrap();
    for person in [&alice, &bob] {
        let history = history(person, &room).unwrap();
        assert_eq!(difference(&history, "said", &said), None);
    }
}
