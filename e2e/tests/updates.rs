//! Programs are replaced while people use them, and nobody notices: not when
//! all goes well, and not when the new program is of no use.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use sotto_e2e::case::two_people;
use sotto_e2e::cluster::Cluster;
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::process::{self, Running};
use sotto_e2e::programs::{self, Programs, hand_over, is_succeeded, reload, until};
use sotto_e2e::session::Saying;
use sotto_e2e::traffic::Traffic;
use sotto_faults::ports;
use sotto_service::readiness::Ready;
use sotto_service::{Layout, ServerConfig};
use tempfile::TempDir;

/// By which clients come through the tunnel.
const NAME: &str = "localhost";

/// A public end before the gateway and the nats-server of a node, and the
/// private end beside them.
struct Tunnel {
    folder: TempDir,
    gateway: SocketAddr,
    nats: SocketAddr,
    _ends: [Running; 2],
}

impl Tunnel {
    fn before(config: &ServerConfig, programs: &Programs) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = |end: &str| folder.path().join(end);
        let mut key = programs.command("tunnel", "sotto-tunnel").unwrap();
        let key = key.arg("key").arg("--dir").arg(dir("dial")).output();
        let key = String::from_utf8(key.unwrap().stdout).unwrap();
        let [gateway, nats] = [(); 2].map(|()| ports::free().unwrap().to_string());
        let mut serve = programs.command("tunnel", "sotto-tunnel").unwrap();
        serve.args(["serve", "--json", "--exit-with-parent", "--dir"]);
        serve.arg(dir("serve")).args(["--public-host", "127.0.0.1"]);
        serve.args(["--listen", &gateway, "--listen", &nats]);
        serve.args(["--allow", &format!("{}={NAME}", key.trim())]);
        let mut serve = Running::start(serve, None).unwrap();
        let to = |line: &Value| Some(line.get("to")?.as_str()?.to_owned());
        let to = serve.wait_for("address", to).unwrap();
        let port = |address: &str| address.parse::<SocketAddr>().unwrap().port();
        let mut dial = programs.command("tunnel", "sotto-tunnel").unwrap();
        dial.args(["dial", "--exit-with-parent", "--to", &to, "--dir"]);
        dial.arg(dir("dial"));
        for (from, to) in [
            (&gateway, config.gateway.listen),
            (&nats, config.nats.listen),
        ] {
            dial.args(["--route", &format!("{NAME}:{}={to}", port(from))]);
        }
        let dial = Running::start(dial, None).unwrap();
        let tunnel = Self {
            gateway: gateway.parse().unwrap(),
            nats: nats.parse().unwrap(),
            _ends: [serve, dial],
            folder,
        };
        until("the tunnel", || {
            tunnel.ready().iter().all(|file| file.is_file())
        })
        .unwrap();
        tunnel
    }

    /// The ready files of both ends.
    fn ready(&self) -> [std::path::PathBuf; 2] {
        ["serve/serve.json", "dial/dial.json"].map(|file| self.folder.path().join(file))
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        process::kill_all("sotto-tunnel", self.folder.path()).ok();
    }
}

/// Replaces one program of a place, and has it hand over.
#[expect(clippy::print_stderr, reason = "what is measured")]
fn replace(programs: &Programs, place: &str, name: &str, ready: &Path) {
    let rebuilt = programs.rebuilt(name).unwrap();
    programs.put(place, name, &rebuilt).unwrap();
    let handed = hand_over(ready).unwrap();
    let (served, gone) = (handed.ready, handed.gone);
    eprintln!("{place} {name}: ready after {served:.2?}, the old one gone after {gone:.2?}");
}

/// Has a process hand over, and waits until its successor serves.
#[expect(clippy::print_stderr, reason = "what is measured")]
fn succeeded(ready: &Path) {
    let began = Instant::now();
    let old = reload(ready).unwrap();
    until("a successor", || is_succeeded(old, ready)).unwrap();
    let (ready, took) = (ready.display(), began.elapsed());
    eprintln!("{ready}: ready after {took:.2?}");
}

#[test]
fn every_program_of_three_nodes_is_replaced_and_nobody_notices() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::replaceable(folder.path(), 3).unwrap();
    let programs = cluster.programs().unwrap();
    let layouts: Vec<Layout> = cluster
        .nodes()
        .iter()
        .map(|node| node.layout().clone())
        .collect();
    let configs: Vec<ServerConfig> = layouts
        .iter()
        .map(|l| ServerConfig::load(l).unwrap())
        .collect();
    let tunnel = Tunnel::before(&configs[0], programs);
    let ([alice, bob], room) = two_people(folder.path(), &cluster.first_invite().unwrap()).unwrap();
    let servers: Vec<_> = cluster
        .nodes()
        .iter()
        .map(|node| node.nats_server().unwrap())
        .collect();

    let mut gateways: Vec<_> = configs.iter().map(|config| config.gateway.listen).collect();
    gateways.push(tunnel.gateway);
    let mut nats: Vec<_> = configs.iter().map(|config| config.nats.listen).collect();
    nats.push(tunnel.nats);
    let org = "acme".parse().unwrap();
    let traffic = Traffic::start(&layouts[0], &org, (&gateways, 800), (&nats, 200), 200);
    let traffic = traffic.unwrap();
    let saying = Saying::start(&alice, &room).unwrap();

    for (number, layout) in layouts.iter().enumerate() {
        let place = format!("n{}", number + 1);
        replace(programs, &place, "sotto-relay", &layout.relay_ready());
        replace(programs, &place, "sotto-gateway", &layout.gateway_ready());
    }
    let rebuilt = programs.rebuilt("sotto-tunnel").unwrap();
    programs.put("tunnel", "sotto-tunnel", &rebuilt).unwrap();
    for ready in tunnel.ready() {
        succeeded(&ready);
        // What passes keeps the predecessor; so there is nothing to wait for
        // but that some passes by way of the successor.
        thread::sleep(Duration::from_secs(2));
    }

    let said = saying.stop().unwrap();
    traffic.stop().unwrap().nothing_failed().unwrap();
    for (node, before) in cluster.nodes().iter().zip(servers) {
        assert_eq!(node.nats_server().unwrap(), before, "nats-server goes on");
    }
    assert!(said.len() > 20, "only {} messages", said.len());
    bob.does(&["sync"]).unwrap();
    for person in [&alice, &bob] {
        let history = history(person, &room).unwrap();
        assert_eq!(difference(&history, "said", &said), None);
    }
}

#[test]
fn a_successor_that_is_of_no_use_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::replaceable(folder.path(), 1).unwrap();
    let programs = cluster.programs().unwrap();
    let layout = cluster.nodes()[0].layout();
    let config = ServerConfig::load(layout).unwrap();
    let server = cluster.nodes()[0].nats_server().unwrap();
    let org = "acme".parse().unwrap();
    let (gateways, nats) = ([config.gateway.listen], [config.nats.listen]);
    let traffic = Traffic::start(layout, &org, (&gateways, 50), (&nats, 10), 100).unwrap();

    let script = |text: &str| {
        let path = folder.path().join("script");
        // Another file: what is run cannot be written to.
        fs::remove_file(&path).ok();
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let ready_files = [
        ("sotto-gateway", layout.gateway_ready()),
        ("sotto-relay", layout.relay_ready()),
    ];
    for (name, ready) in &ready_files {
        let before = Ready::read(ready).unwrap().pid;
        // One that ends at once.
        programs.put("n1", name, &script("exit 1")).unwrap();
        reload(ready).unwrap();
        thread::sleep(Duration::from_secs(1));
        assert_eq!(Ready::read(ready).unwrap().pid, before);

        // One that is never ready; asked again, the process tries another one.
        let started = folder.path().join("started");
        let never = script(&format!("touch {}; exec sleep 600", started.display()));
        programs.put("n1", name, &never).unwrap();
        reload(ready).unwrap();
        until("the successor's start", || started.is_file()).unwrap();
        fs::remove_file(&started).unwrap();
        assert_eq!(Ready::read(ready).unwrap().pid, before);

        // One that serves for a moment.
        programs
            .put("n1", name, &process::binary(name).unwrap())
            .unwrap();
        reload(ready).unwrap();
        until("a successor", || is_succeeded(before, ready)).unwrap();
        let successor = Ready::read(ready).unwrap().pid;
        process::kill(rustix::process::Pid::from_raw(successor as i32).unwrap()).unwrap();
        until("the predecessor", || {
            Ready::read(ready).is_some_and(|ready| ready.pid == before)
        })
        .unwrap();

        // And one that goes on.
        let handed = hand_over(ready).unwrap();
        assert!(programs::runs(handed.pid));
    }
    traffic.stop().unwrap().nothing_failed().unwrap();
    assert_eq!(cluster.nodes()[0].nats_server().unwrap(), server);
}

#[test]
fn another_nats_server_is_started_by_the_successor() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::replaceable(folder.path(), 1).unwrap();
    let programs = cluster.programs().unwrap();
    let node = &cluster.nodes()[0];
    let ([alice, bob], room) = two_people(folder.path(), &cluster.first_invite().unwrap()).unwrap();
    let before = node.nats_server().unwrap();
    hand_over(&node.layout().relay_ready()).unwrap();
    assert_eq!(node.nats_server().unwrap(), before);

    let saying = Saying::start(&alice, &room).unwrap();
    programs.replace_nats_server().unwrap();
    hand_over(&node.layout().relay_ready()).unwrap();
    assert_ne!(node.nats_server().unwrap(), before);
    thread::sleep(Duration::from_secs(2));
    let said = saying.stop().unwrap();
    bob.does(&["sync"]).unwrap();
    assert_eq!(
        difference(&history(&bob, &room).unwrap(), "said", &said),
        None
    );
}
