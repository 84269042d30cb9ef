//! A node of three that is lost for good, with its disk, and the machine that
//! takes its place: nothing is ever to be kept on fewer nodes meanwhile.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::Value;
use sotto_e2e::case::text;
use sotto_e2e::cluster::{self, Cluster};
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::person::Person;
use sotto_e2e::process::{self, PATIENCE, binary};
use sotto_service::Layout;

const PASSWORD: &str = "correct horse battery staple";
const PAUSE: Duration = Duration::from_millis(500);

/// Alice, who writes in a room of her own.
struct Alice {
    person: Person,
    room: String,
    said: Vec<String>,
}

impl Alice {
    fn new(folder: &Path, cluster: &Cluster) -> Self {
        let invite = cluster.first_invite().unwrap();
        let person = Person::new(folder.join("alice"), PASSWORD).unwrap();
        person.does(&["signup", &invite, "alice"]).unwrap();
        let made = person.does(&["room", "create", "barn", "--project", "field"]);
        let room = text(&made.unwrap(), "room").unwrap();
        Self {
            person,
            room,
            said: Vec::new(),
        }
    }

    fn says(&mut self) {
        let said = format!("said {}", self.said.len());
        self.person.does(&["send", &self.room, &said]).unwrap();
        self.said.push(said);
    }

    /// Whether every text arrived once and in order.
    fn has_said_all(&self) {
        // What was only queued while there was no leader goes out now.
        self.person.does(&["sync"]).unwrap();
        let history = history(&self.person, &self.room).unwrap();
        assert_eq!(difference(&history, "said", &self.said), None);
    }
}

/// What goes on until it is stopped.
struct Until<T> {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<T>,
}

impl<T: Send + 'static> Until<T> {
    fn start(mut state: T, step: impl Fn(&mut T) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                step(&mut state);
            }
            state
        });
        Self { stop, thread }
    }

    fn stop(self) -> T {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// On how many nodes anything was to be kept, look by look.
fn copies_are_looked_at(layout: Layout) -> Until<Vec<usize>> {
    Until::start(Vec::new(), move |seen| {
        // Nobody answers while the servers are killed.
        if let Ok(streams) = cluster::streams(&layout) {
            seen.extend(streams.iter().map(|stream| stream.copies).min());
        }
    })
}

/// Waits until every stream is kept, whole, on these nodes and no others.
fn everything_is_kept_on(layout: &Layout, names: &[&str]) {
    let names: BTreeSet<&str> = names.iter().copied().collect();
    let began = Instant::now();
    loop {
        let streams = cluster::streams(layout).unwrap();
        let elsewhere = streams.iter().find(|stream| {
            let followers = stream.followers.iter().map(|node| node.name.as_str());
            let nodes: BTreeSet<&str> = followers.chain(stream.leader.as_deref()).collect();
            nodes != names || stream.behind().next().is_some() || stream.copies != 3
        });
        match elsewhere {
            None => {
                assert!(streams.len() > 10, "{streams:?}");
                let buckets = streams.iter().filter(|is| is.name.starts_with("KV_"));
                assert!(buckets.count() > 1, "{streams:?}");
                assert!(streams.iter().any(|is| is.name == "DIRECTORY"));
                return;
            }
            Some(stream) => assert!(began.elapsed() < PATIENCE, "{stream:?}"),
        }
        thread::sleep(PAUSE);
    }
}

/// The names of the nodes, once nothing speaks against stopping one.
fn settled(cluster: &Cluster, number: usize) -> Vec<String> {
    let began = Instant::now();
    loop {
        let status = cluster.status(number).unwrap();
        if status["unsettled"].is_null() {
            let nodes = status["nodes"].as_array().unwrap();
            let name = |node: &Value| node["name"].as_str().unwrap().to_owned();
            return nodes.iter().map(name).collect();
        }
        assert!(began.elapsed() < PATIENCE, "{}", status["unsettled"]);
        thread::sleep(PAUSE);
    }
}

/// Asks until the others see that the node is away, some seconds of silence
/// later; the token.
fn token_for_lost(cluster: &Cluster, number: usize) -> (String, String) {
    let began = Instant::now();
    loop {
        match cluster.token_for(number) {
            Ok(token) => return token,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error:#}"),
        }
        thread::sleep(PAUSE);
    }
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

#[test]
fn a_lost_node_is_replaced_while_everything_is_kept_three_times() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::create(folder.path(), "acme", "field", 3).unwrap();
    let mut alice = Alice::new(folder.path(), &cluster);
    alice.says();
    let refused = |cluster: &Cluster, lost: usize, why: &str| {
        let no = format!("{:#}", cluster.token_for(lost).unwrap_err());
        assert!(no.contains(why), "{no}");
    };
    refused(&cluster, 0, "this is n1 itself");
    refused(&cluster, 8, "there is no node n9");
    refused(&cluster, 2, "n3 is there");
    // Its nats-server hangs, its relay does not.
    let hanging = cluster.nodes()[2].nats_server().unwrap();
    kill_process(hanging, Signal::STOP).unwrap();
    let began = Instant::now();
    while let Err(no) = cluster.token_for(2)
        && !format!("{no:#}").contains("the relay of n3 answers")
    {
        assert!(began.elapsed() < PATIENCE, "{no:#}");
        thread::sleep(PAUSE);
    }

    cluster.kill(2).unwrap();
    let n2 = cluster.nodes()[1].layout().clone();
    let watching = copies_are_looked_at(n2.clone());
    let writing = Until::start(alice, Alice::says);
    let (lost, backup) = (folder.path().join("n3"), folder.path().join("backup"));
    copy(&lost, &backup);
    fs::remove_dir_all(&lost).unwrap();

    let (address, first) = token_for_lost(&cluster, 2);
    let began = Instant::now();
    loop {
        let no = format!("{:#}", cluster.remove(2, &[]).unwrap_err());
        let parts = ["too few for 3 copies", "token --replaces n3", "--yes"];
        if parts.iter().all(|part| no.contains(part)) {
            break;
        }
        // What it led has no leader for some seconds.
        assert!(began.elapsed() < PATIENCE, "{no}");
        thread::sleep(PAUSE);
    }
    let (_, token) = cluster.token_for(2).unwrap();
    let (dir, name) = (folder.path().join("n4"), "n4");
    let no = cluster::join(&dir, name, &address, &first).unwrap().stderr;
    assert!(no.contains("another token was made"), "{no}");
    let no = cluster::join(&dir, "n3", &address, &token).unwrap().stderr;
    assert!(no.contains("there is a node n3 already"), "{no}");
    let joined = cluster::join(&dir, name, &address, &token).unwrap();
    assert!(joined.status.success(), "{}", joined.stderr);
    refused(&cluster, 2, "was let in for n3 already");
    cluster.add(&dir).unwrap();
    everything_is_kept_on(&n2, &["n1", "n2", "n4"]);
    assert_eq!(settled(&cluster, 1), ["n1", "n2", "n4"]);

    // It comes back as it was, and is told why nobody talks to it.
    copy(&backup, &lost);
    let ready = Layout::new(&lost).relay_ready();
    fs::remove_file(&ready).unwrap();
    let returned = Returned::start(folder.path(), &lost);
    returned.says("this node, n3, is not in the cluster any more");
    assert_eq!(settled(&cluster, 1), ["n1", "n2", "n4"]);
    assert!(!ready.exists(), "it serves");
    drop(returned);

    let mut alice = writing.stop();
    let copies = watching.stop();
    assert!(copies.len() > 10, "{copies:?}");
    assert!(copies.iter().all(|copies| *copies == 3), "{copies:?}");
    // Any one node may be lost again.
    cluster.kill(0).unwrap();
    alice.says();
    cluster.start(0).unwrap();
    alice.has_said_all();
}

/// All stop, one is lost, and whatever is started is killed once more: what is
/// to be done is found where it was left. What is new meanwhile waits for the
/// third node, whichever that is.
#[test]
fn a_replacement_goes_on_whoever_is_killed_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::create(folder.path(), "acme", "field", 3).unwrap();
    let mut alice = Alice::new(folder.path(), &cluster);
    alice.says();
    cluster.add_org("other", "lab").unwrap();
    for number in 0..3 {
        cluster.kill(number).unwrap();
    }
    fs::remove_dir_all(folder.path().join("n3")).unwrap();
    for number in 0..2 {
        fs::remove_file(cluster.nodes()[number].layout().relay_ready()).ok();
        cluster.launch(number).unwrap();
    }
    // Nobody who leads has ever heard of it.
    let (address, token) = token_for_lost(&cluster, 2);
    let dir = folder.path().join("n4");
    let joined = cluster::join(&dir, "n4", &address, &token).unwrap();
    assert!(joined.status.success(), "{}", joined.stderr);
    cluster.kill(0).unwrap();
    cluster.launch(0).unwrap();
    let new = cluster.knows(&dir);
    let n2 = cluster.nodes()[1].layout().clone();
    for killed in [new, 1, 0] {
        if !cluster.nodes()[new].runs() {
            cluster.launch(new).unwrap();
        }
        // Each time something else is under way.
        thread::sleep(Duration::from_secs(4));
        cluster.kill(killed).unwrap();
        if killed != new {
            cluster.launch(killed).unwrap();
        }
    }
    for number in [0, 1, new] {
        if !cluster.nodes()[number].runs() {
            cluster.launch(number).unwrap();
        }
        cluster.serves(number).unwrap();
    }
    everything_is_kept_on(&n2, &["n1", "n2", "n4"]);
    assert_eq!(settled(&cluster, 1), ["n1", "n2", "n4"]);
    let streams = cluster::streams(&n2).unwrap();
    assert!(streams.iter().any(|stream| stream.account == "other"));
    alice.says();
    alice.has_said_all();
}

/// A machine that was let in and never comes is replaced like any other.
#[test]
fn a_machine_that_joined_and_never_came_is_replaced_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::create(folder.path(), "acme", "field", 3).unwrap();
    cluster.kill(2).unwrap();
    let (address, token) = token_for_lost(&cluster, 2);
    let never = folder.path().join("n4");
    let joined = cluster::join(&never, "n4", &address, &token).unwrap();
    assert!(joined.status.success(), "{}", joined.stderr);
    fs::remove_dir_all(&never).unwrap();
    cluster.knows(&never);
    cluster.join_for(3, &folder.path().join("n5")).unwrap();
    let layout = cluster.nodes()[0].layout().clone();
    everything_is_kept_on(&layout, &["n1", "n2", "n5"]);
    assert_eq!(settled(&cluster, 0), ["n1", "n2", "n5"]);
}

/// A node that was replaced and is started again; its log.
struct Returned<'a> {
    dir: &'a Path,
    log: std::path::PathBuf,
    relay: std::process::Child,
}

impl<'a> Returned<'a> {
    fn start(folder: &Path, dir: &'a Path) -> Self {
        let log = folder.join("returned.log");
        let relay = Command::new(binary("sotto-relay").unwrap())
            .args(["run", "--exit-with-parent", "--dir"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { dir, log, relay }
    }

    fn says(&self, what: &str) {
        let began = Instant::now();
        loop {
            let log = fs::read_to_string(&self.log).unwrap();
            if log.contains(what) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "{log}");
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Returned<'_> {
    fn drop(&mut self) {
        self.relay.kill().ok();
        self.relay.wait().ok();
        process::kill_all("nats-server", self.dir).ok();
    }
}
