//! Three nodes get another nats-server at the same time: each starts it anew at
//! its turn, and people notice nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Instant;

use async_nats::connection::State;
use async_nats::{Client, Statistics};
use sotto_e2e::case::two_people;
use sotto_e2e::cluster::{Cluster, Node};
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::programs::{Programs, hand_over, is_succeeded, reload, said, until};
use sotto_e2e::session::Saying;
use sotto_e2e::traffic::Traffic;
use sotto_jwt_accounts::grants::RELAY_INBOX;
use sotto_service::nats::{self, Login};
use sotto_service::readiness::Ready;
use sotto_service::{Layout, ServerConfig};
use tokio::runtime::Runtime;

/// What nats-server logs then.
const HANDS_OVER: &str = "Entering lame duck mode";

/// When nats-server was of no use, by its own log.
#[derive(Debug)]
struct Absence {
    node: usize,
    from: String,
    until: String,
}

/// Every one of these nodes, by when it began.
fn absences(cluster: &Cluster) -> Vec<Absence> {
    let mut absences = Vec::new();
    for (node, place) in cluster.nodes().iter().enumerate() {
        let log = fs::read_to_string(place.layout().nats_log()).unwrap();
        // [PID] DATE TIME [LEVEL] WHAT
        let at = |line: &str| {
            line.split(' ')
                .skip(1)
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let mut began = None;
        for line in log.lines() {
            if line.contains(HANDS_OVER) {
                began = Some(at(line));
            } else if line.contains("Server is ready")
                && let Some(from) = began.take()
            {
                let until = at(line);
                absences.push(Absence { node, from, until });
            }
        }
        assert_eq!(began, None, "the nats-server of a node stays away");
    }
    absences.sort_by(|one, other| one.from.cmp(&other.from));
    absences
}

/// Clients who know every node, a few on each.
fn clients(cluster: &Cluster, runtime: &Runtime) -> Vec<Client> {
    let org = "acme".parse().unwrap();
    let connect = async |node: &Node| {
        let layout = node.layout();
        let config = ServerConfig::load(layout).unwrap();
        let login = Login {
            name: "test",
            credentials: &layout.relay_creds(&org),
            inbox_prefix: RELAY_INBOX,
        };
        nats::connect_to_any(layout, &config, login).await.unwrap()
    };
    runtime.block_on(async {
        let mut clients = Vec::new();
        for node in cluster.nodes() {
            for _ in 0..2 {
                clients.push(connect(node).await);
            }
        }
        clients
    })
}

/// A relay that brings another nats-server serves, and says what it waits for,
/// also to an update, which is not over before.
fn a_node_that_is_away_is_waited_for(node: &Node, programs: &Programs) {
    let ready = node.layout().relay_ready();
    let at = node.is_watched().unwrap();
    let before = node.nats_server().unwrap();
    programs.replace_nats_server().unwrap();
    hand_over(&ready).unwrap();
    let says_so =
        || said(at).is_some_and(|said| said.starts_with("ready\n") && said.contains("n3"));
    until("a relay that waits for n3", says_so).unwrap();
    assert_eq!(node.nats_server().unwrap(), before);
    assert!(Ready::read(&ready).unwrap().is_partial);
}

#[test]
fn another_nats_server_comes_to_one_node_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::replaceable(folder.path(), 3).unwrap();
    let ([alice, bob], room) = two_people(folder.path(), &cluster.first_invite().unwrap()).unwrap();
    cluster.kill(2).unwrap();
    a_node_that_is_away_is_waited_for(&cluster.nodes()[0], cluster.programs().unwrap());
    cluster.start(2).unwrap();

    let programs = cluster.programs().unwrap();
    let nodes = cluster.nodes();
    let config = |node: &Node| ServerConfig::load(node.layout()).unwrap();
    let gateways: Vec<_> = nodes.iter().map(|n| config(n).gateway.listen).collect();
    // Nothing while the file is being written.
    let servers = || nodes.iter().map(|node| node.nats_server().ok());
    let before: Vec<_> = servers().collect();
    let runtime = Runtime::new().unwrap();
    let clients = clients(&cluster, &runtime);
    let org = "acme".parse().unwrap();
    let traffic = Traffic::start(nodes[0].layout(), &org, (&gateways, 60), (&[], 0), 60);
    let traffic = traffic.unwrap();
    let saying = Saying::start(&alice, &room).unwrap();

    let began = Instant::now();
    programs.replace_nats_server().unwrap();
    let ready = nodes.iter().map(|node| node.layout().relay_ready());
    let replaced: Vec<_> = ready.map(|file| (reload(&file).unwrap(), file)).collect();
    for (old, file) in &replaced {
        until("a successor", || is_succeeded(*old, file)).unwrap();
    }
    eprintln!("every relay is another one after {:.1?}", began.elapsed());
    let all_new = || {
        servers()
            .zip(&before)
            .all(|(now, before)| now.is_some() && now != *before)
    };
    until("another nats-server on every node", all_new).unwrap();
    cluster.is_settled().unwrap();
    let is_whole = |node: &Node| {
        Ready::read(&node.layout().relay_ready()).is_some_and(|ready| !ready.is_partial)
    };
    until("relays that are whole", || nodes.iter().all(is_whole)).unwrap();
    eprintln!(
        "every nats-server is another one after {:.1?}",
        began.elapsed()
    );

    let absences = absences(&cluster);
    for absence in &absences {
        let Absence { node, from, until } = absence;
        eprintln!("n{}: {from} to {until}", node + 1);
    }
    // One of them may have had its turn as soon as the other was back.
    let away: BTreeSet<_> = absences.iter().map(|absence| absence.node).collect();
    assert!(
        absences.is_sorted_by(|one, next| one.until < next.from),
        "{absences:#?}"
    );
    assert_eq!(away, BTreeSet::from([0, 1, 2]));

    let said = saying.stop().unwrap();
    traffic.stop().unwrap().nothing_failed().unwrap();
    assert!(said.len() > 20, "only {} messages", said.len());
    bob.does(&["sync"]).unwrap();
    for person in [&alice, &bob] {
        let history = history(person, &room).unwrap();
        assert_eq!(difference(&history, "said", &said), None);
    }
    eprintln!("{} messages", said.len());
    for client in clients {
        assert_eq!(client.connection_state(), State::Connected);
        let connects = |s: &Statistics| s.connects.load(Ordering::Relaxed);
        assert!(connects(&client.statistics()) > 1, "it was sent away");
    }
}

#[test]
#[ignore = "a lock lasts a minute"]
fn the_turn_of_a_node_that_was_killed_passes() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::replaceable(folder.path(), 3).unwrap();
    cluster.programs().unwrap().replace_nats_server().unwrap();
    let layouts = [0, 1].map(|number| cluster.nodes()[number].layout().clone());
    let hands_over = |layout: &Layout| {
        let log = fs::read_to_string(layout.nats_log());
        log.is_ok_and(|log| log.contains(HANDS_OVER))
    };
    let [one, two] = &layouts;
    let before = cluster.nodes()[1].nats_server().unwrap();
    hand_over(&one.relay_ready()).unwrap();
    until("the first node's turn", || hands_over(one)).unwrap();
    cluster.kill(0).unwrap();
    cluster.start(0).unwrap();
    hand_over(&two.relay_ready()).unwrap();
    until("the second node's turn", || hands_over(two)).unwrap();
    let is_new = || {
        cluster.nodes()[1]
            .nats_server()
            .is_ok_and(|now| now != before)
    };
    until("its other nats-server", is_new).unwrap();
    cluster.is_settled().unwrap();
}
