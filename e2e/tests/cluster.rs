//! Several nodes: how they come together, who is kept out, and what one of
//! them may do to the others by not being there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use sotto_e2e::case::text;
use sotto_e2e::cluster::{self, Cluster};
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::person::Person;
use sotto_e2e::process::{PATIENCE, nats_server};
use sotto_e2e::server::Server;
use sotto_faults::ports;
use sotto_service::Layout;

const PASSWORD: &str = "correct horse battery staple";

/// Alice with a room of her own.
fn alice(folder: &Path, invite: &str) -> (Person, String) {
    let alice = Person::new(folder.join("alice"), PASSWORD).unwrap();
    alice.does(&["signup", invite, "alice"]).unwrap();
    let made = alice.does(&["room", "create", "barn", "--project", "field"]);
    let room = text(&made.unwrap(), "room").unwrap();
    (alice, room)
}

fn said(person: &Person, room: &str, expected: &[String]) {
    // What was only queued while there was no leader goes out now.
    person.does(&["sync"]).unwrap();
    let history = history(person, room).unwrap();
    assert_eq!(difference(&history, "said", expected), None);
}

#[test]
fn messages_go_on_while_any_one_node_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::create(folder.path(), "acme", "field", 3).unwrap();
    let (alice, room) = alice(folder.path(), &cluster.first_invite().unwrap());
    let mut expected = Vec::new();
    for number in [2, 1, 0] {
        if number == 1 {
            let stopped = cluster.stop(number).unwrap();
            assert!(stopped.status.success(), "{}", stopped.stderr);
        } else {
            cluster.kill(number).unwrap();
        }
        expected.push(format!("said without node {number}"));
        alice
            .does(&["send", &room, expected.last().unwrap()])
            .unwrap();
        cluster.start(number).unwrap();
        cluster.is_settled().unwrap();
    }
    said(&alice, &room, &expected);
}

#[test]
fn a_server_that_was_used_becomes_a_cluster_and_grows_while_it_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("server");
    let mut server = Server::create(&root, "acme", "field").unwrap();
    let (alice, room) = alice(folder.path(), &server.first_invite("acme").unwrap());
    let mut expected = vec!["said alone".to_owned()];
    alice.does(&["send", &room, "said alone"]).unwrap();
    assert!(server.stop().unwrap().status.success());

    let mut cluster = Cluster::bootstrap(&root, "acme").unwrap();
    let writing = {
        let (alice, room) = (alice.clone(), room.clone());
        thread::spawn(move || {
            let began = Instant::now();
            let mut said = Vec::new();
            while began.elapsed() < Duration::from_secs(40) {
                said.push(format!("said while growing {}", said.len()));
                alice.does(&["send", &room, said.last().unwrap()]).unwrap();
            }
            said
        })
    };
    for name in ["n2", "n3"] {
        cluster.join(&folder.path().join(name), false).unwrap();
    }
    cluster.is_settled().unwrap();
    expected.extend(writing.join().unwrap());
    said(&alice, &room, &expected);

    let status = cluster.status(2).unwrap();
    let of = |list: &str, field: &str| -> Vec<Value> {
        let rows = status.get(list).unwrap().as_array().unwrap();
        rows.iter()
            .map(|row| row.get(field).unwrap().clone())
            .collect()
    };
    assert_eq!(of("nodes", "name"), ["n1", "n2", "n3"]);
    assert_eq!(of("nodes", "state"), ["current", "current", "current"]);
    let copies = of("streams", "copies");
    assert!(copies.len() > 10, "{status}");
    assert!(copies.iter().all(|copies| *copies == json!(3)), "{status}");
}

#[test]
fn a_lost_node_is_removed_and_another_takes_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::create(folder.path(), "acme", "field", 3).unwrap();
    let (alice, room) = alice(folder.path(), &cluster.first_invite().unwrap());
    alice.does(&["send", &room, "said by three"]).unwrap();
    let running = cluster.remove(2, &["--yes"]).unwrap_err().to_string();
    assert!(running.contains("stop its relay"), "{running}");

    cluster.kill(2).unwrap();
    let removing = Instant::now();
    while let Err(error) = cluster.remove(2, &["--yes"]) {
        // A node is away only after some seconds of silence.
        assert!(removing.elapsed() < Duration::from_secs(60), "{error}");
        thread::sleep(Duration::from_secs(1));
    }
    alice.does(&["send", &room, "said by two"]).unwrap();
    // It comes back, and nobody takes a route from it.
    cluster.launch(2).unwrap();
    cluster.join(&folder.path().join("n4"), false).unwrap();
    cluster.is_settled().unwrap();
    alice.does(&["send", &room, "said by others"]).unwrap();
    let expected = ["said by three", "said by two", "said by others"].map(str::to_owned);
    said(&alice, &room, &expected);
    let status = cluster.status(0).unwrap();
    let nodes = status.get("nodes").unwrap().as_array().unwrap();
    let names: Vec<_> = nodes.iter().map(|node| node.get("name").unwrap()).collect();
    assert_eq!(names, ["n1", "n2", "n4"]);
}

/// A tick of a new org means as many disks as one of an old org.
#[test]
fn what_is_new_is_kept_on_three_nodes_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::create(folder.path(), "acme", "field", 3).unwrap();
    cluster.kill(2).unwrap();
    let away = Instant::now();
    while states(&cluster) != ["current", "current", "away"] {
        assert!(away.elapsed() < PATIENCE, "{:?}", states(&cluster));
        thread::sleep(Duration::from_millis(500));
    }
    cluster.add_org("other", "lab").unwrap();
    cluster.kill(0).unwrap();
    let ready = cluster.nodes()[0].layout().relay_ready();
    fs::remove_file(&ready).unwrap();
    cluster.launch(0).unwrap();
    // Long enough to make a stream. It waits for the node that is away, or
    // nats-server, which learns of that later, has given that one a copy, too.
    thread::sleep(Duration::from_secs(20));
    let copies = |cluster: &Cluster| copies_of(cluster, "other");
    assert!(copies(&cluster).iter().all(|copies| *copies == 3));
    assert!(!ready.exists() || copies(&cluster).len() > 3);

    cluster.start(2).unwrap();
    cluster.serves(0).unwrap();
    assert!(copies(&cluster).len() > 3, "{:?}", copies(&cluster));
    assert!(copies(&cluster).iter().all(|copies| *copies == 3));
}

/// How the first node sees them.
fn states(cluster: &Cluster) -> Vec<String> {
    let status = cluster.status(1).unwrap();
    let nodes = status.get("nodes").unwrap().as_array().unwrap();
    nodes
        .iter()
        .map(|node| text(std::slice::from_ref(node), "state").unwrap())
        .collect()
}

/// On how many nodes each stream of an org is to be kept.
fn copies_of(cluster: &Cluster, org: &str) -> Vec<u64> {
    let status = cluster.status(1).unwrap();
    let streams = status.get("streams").unwrap().as_array().unwrap();
    let of_org = streams.iter().filter(|stream| stream["account"] == org);
    of_org
        .map(|stream| stream["copies"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_token_lets_one_machine_in_once_and_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::alone(folder.path(), "acme", "field").unwrap();
    let (address, token) = cluster.token(false).unwrap();
    let refused = |token: &str, why: &str| {
        let dir = folder.path().join(why.replace(' ', "-"));
        let outcome = cluster::join(&dir, "stranger", &address, token).unwrap();
        assert!(!outcome.status.success(), "{why}");
        assert!(outcome.stderr.contains(why), "{}", outcome.stderr);
        assert!(!Layout::new(&dir).is_initialised());
    };
    refused("nonsense", "is no token");
    // The right authority, another secret.
    let first = if token.starts_with('0') { '1' } else { '0' };
    let forged = format!("{first}{}", &token[1..]);
    refused(&forged, "was not made here");
    // The right secret for another authority: nothing is said to an impostor.
    let other = format!("{}00000000", &token[..token.len() - 8]);
    refused(&other, "is not the node that made this token");

    let tokens = cluster.nodes()[0].layout().cluster_tokens();
    let good = fs::read_to_string(&tokens).unwrap();
    let mut old: Value = serde_json::from_str(&good).unwrap();
    old[0]["expires_ms"] = json!(1);
    fs::write(&tokens, old.to_string()).unwrap();
    refused(&token, "has run out");
    fs::write(&tokens, good).unwrap();

    let dir = folder.path().join("n2");
    let joined = cluster::join(&dir, "n2", &address, &token).unwrap();
    assert!(joined.status.success(), "{}", joined.stderr);
    refused(&token, "was used already");
    // Nobody else before the second has come, and after that no more with it.
    let (_, next) = cluster.token(false).unwrap();
    let early = cluster::join(&folder.path().join("n3"), "n3", &address, &next).unwrap();
    assert!(!early.status.success());
    assert!(early.stderr.contains("1 of 2 nodes"), "{}", early.stderr);
    cluster.add(&dir).unwrap();
    for secret in [
        "identity.seed",
        "signing.seed",
        "unlock",
        "gateway.key",
        "ca.key",
    ] {
        assert!(!has_file(&dir, secret), "{secret} came to a relay");
    }
}

#[test]
fn a_stranger_gets_no_route() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::create(folder.path(), "acme", "field", 2).unwrap();
    let layout = cluster.nodes()[0].layout();
    let stranger = Stranger::start(folder.path(), layout);
    thread::sleep(Duration::from_secs(5));
    let log = stranger.log();
    assert!(log.contains("tls"), "it did not even try: {log}");
    assert!(!log.contains("registered"), "{log}");
    let status = cluster.status(0).unwrap().to_string();
    assert!(!status.contains("stranger"), "{status}");
    let theirs = fs::read_to_string(layout.nats_log()).unwrap();
    assert!(theirs.contains("pinned"), "{theirs}");
}

#[test]
fn after_the_machine_stopped_nobody_is_let_in_before_the_node_has_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::create(folder.path(), "acme", "field", 3).unwrap();
    for number in 0..3 {
        cluster.kill(number).unwrap();
    }
    let layout = cluster.nodes()[2].layout().clone();
    let run = json!({"boot_id": "another", "clean": false});
    fs::write(layout.cluster_last_run(), run.to_string()).unwrap();
    let clients = cluster.nodes()[2].nats_listen().unwrap();
    cluster.launch(2).unwrap();
    thread::sleep(Duration::from_secs(8));
    assert!(TcpStream::connect(clients).is_err(), "it lets clients in");
    cluster.launch(0).unwrap();
    cluster.launch(1).unwrap();
    for number in 0..3 {
        cluster.serves(number).unwrap();
    }
    TcpStream::connect(clients).unwrap();
    cluster.is_settled().unwrap();
}

fn has_file(folder: &Path, name: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => has_file(&path, name),
            false => path.file_name().is_some_and(|file| file == name),
        }
    })
}

/// A nats-server with the configuration of the second node, but for a key of
/// its own: it has a certificate of the cluster, and is no node.
struct Stranger {
    child: Child,
    log: std::path::PathBuf,
}

impl Stranger {
    fn start(folder: &Path, keeper: &Layout) -> Self {
        let dir = folder.join("stranger");
        fs::create_dir(&dir).unwrap();
        let key = sotto_service::cluster::NodeKey::generate().unwrap();
        let admitted =
            sotto_service::cluster::admit(keeper, &key.public(), "127.0.0.1", false).unwrap();
        key.save(&dir.join("node.key")).unwrap();
        fs::write(dir.join("node.pem"), admitted.certificate).unwrap();
        let log = dir.join("log");
        let listen = ports::free().unwrap();
        let members = sotto_service::cluster::Members::load(keeper).unwrap();
        let configuration = format!(
            "server_name: stranger\nlisten: \"127.0.0.1:-1\"\nlog_file: {log:?}\ndebug: true\n\
             cluster {{ name: sotto, listen: {listen:?}, routes: [\"tls://{route}\"]\n\
             tls {{ cert_file: {certificate:?}, key_file: {key:?}, ca_file: {authority:?}, verify: true }} }}\n",
            route = members.nodes[0].routes,
            certificate = dir.join("node.pem"),
            key = dir.join("node.key"),
            authority = keeper.cluster_authority(),
        );
        fs::write(dir.join("conf"), configuration).unwrap();
        let child = Command::new(nats_server().unwrap())
            .arg("-c")
            .arg(dir.join("conf"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap().to_lowercase()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The others are told by its silence that it is away, which must not hide
/// from its own relay that it hangs.
#[test]
fn a_nats_server_of_a_node_that_hangs_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::create(folder.path(), "acme", "field", 3).unwrap();
    cluster.is_settled().unwrap();
    let node = &cluster.nodes()[1];
    let hanging = node.nats_server().unwrap();
    kill_process(hanging, Signal::STOP).unwrap();
    let began = Instant::now();
    while node.nats_server().map_or(true, |pid| pid == hanging) {
        assert!(began.elapsed() < 2 * PATIENCE, "it is not replaced");
        thread::sleep(Duration::from_millis(100));
    }
    cluster.is_settled().unwrap();
}
