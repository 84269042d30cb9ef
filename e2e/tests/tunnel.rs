//! A server that nobody reaches, and a tunnel before it: people know the
//! tunnel's address and nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use sotto_e2e::case::{PASSWORD, meet};
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::network::Network;
use sotto_e2e::person::Person;
use sotto_e2e::process::{Running, binary};
use sotto_e2e::server::Server;
use sotto_service::ServerConfig;

/// The server's name, which resolves everywhere. What people find there leads
/// to the tunnel and not to the server.
const NAME: &str = "localhost";
const TUNNEL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A tunnel from some ports of its address to the same of the server's.
struct Tunnel {
    _public: Running,
    dialer: Running,
    dial: Vec<String>,
}

fn sotto_tunnel(arguments: &[String]) -> Command {
    let mut command = Command::new(binary("sotto-tunnel").unwrap());
    command.args(arguments);
    command
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

impl Tunnel {
    fn start(dir: &Path, ports: [u16; 2]) -> Self {
        let dir = dir.to_str().unwrap();
        let key = sotto_tunnel(&words(&["key", "--dir", dir])).output();
        let key = String::from_utf8(key.unwrap().stdout).unwrap();
        let allow = format!("{}={NAME}", key.trim());
        let mut serve = words(&["serve", "--dir", dir, "--allow", &allow, "--json"]);
        serve.extend(words(&["--public-host", "127.0.0.2", "--exit-with-parent"]));
        let mut dial = words(&["dial", "--dir", dir, "--exit-with-parent"]);
        for port in ports {
            let (at, to) = (
                SocketAddr::from((TUNNEL, port)),
                SocketAddr::from((SERVER, port)),
            );
            serve.extend(["--listen".to_owned(), at.to_string()]);
            dial.extend(["--route".to_owned(), format!("{NAME}:{port}={to}")]);
        }
        let mut public = Running::start(sotto_tunnel(&serve), None).unwrap();
        let to = public.wait_for("address", |line| Some(line["to"].as_str()?.to_owned()));
        dial.extend(["--to".to_owned(), to.unwrap()]);
        Self {
            _public: public,
            dialer: Running::start(sotto_tunnel(&dial), None).unwrap(),
            dial,
        }
    }

    /// SIGKILL for its private end.
    fn lose_private_end(self) -> (Running, Vec<String>) {
        self.dialer.kill().unwrap();
        (self._public, self.dial)
    }
}

#[test]
fn people_who_know_only_the_tunnel_have_all_of_sotto() {
    let folder = tempfile::tempdir().unwrap();
    let server = folder.path().join("server");
    let server = Server::create_at(NAME, &server, "acme", "field").unwrap();
    let config = ServerConfig::load(server.layout()).unwrap();
    let (gateway, nats) = (config.gateway.listen, config.nats.listen);
    let ports = [gateway.port(), nats.port()];
    let tunnel = Tunnel::start(&folder.path().join("tunnel"), ports);

    // Nothing else is there where the people are.
    let network = Network::by_way_of(TUNNEL.into(), gateway, nats, 1).unwrap();
    let person = |name: &str| {
        let person = Person::new(folder.path().join(name), PASSWORD).unwrap();
        person.behind(&network)
    };
    let (alice, bob) = (person("alice"), person("bob"));
    meet(&alice, &bob, &server.first_invite("acme").unwrap()).unwrap();

    let said: Vec<String> = (0..200).map(|n| format!("alice says {n:03}")).collect();
    let sending = alice
        .starts(&["send", "barn", "--stdin"], Some(said.join("\n")))
        .unwrap();
    sending.finish().unwrap().success().unwrap();
    let map: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let sent = folder.path().join("map.pdf");
    fs::write(&sent, &map).unwrap();
    alice
        .does(&["send", "barn", "--file", sent.to_str().unwrap()])
        .unwrap();
    bob.does(&["sync"]).unwrap();
    let seen = history(&bob, "barn").unwrap();
    assert_eq!(difference(&seen, "alice says", &said), None);
    let got = folder.path().join("got.pdf");
    bob.does(&[
        "files",
        "get",
        "barn",
        "map.pdf",
        "-o",
        got.to_str().unwrap(),
    ])
    .unwrap();
    assert!(fs::read(got).unwrap() == map, "another file");

    // What is said while the tunnel is gone waits, and arrives.
    let (_public, dial) = tunnel.lose_private_end();
    bob.does(&["--wait", "1", "send", "barn", "bob says 000"])
        .unwrap();
    let _dialer = Running::start(sotto_tunnel(&dial), None).unwrap();
    bob.does(&["sync"]).unwrap();
    alice.does(&["sync"]).unwrap();
    let seen = history(&alice, "barn").unwrap();
    let bob_s = ["bob says 000".to_owned()];
    assert_eq!(difference(&seen, "bob says", &bob_s), None);

    let [to_gateway, to_nats] = network.traffic();
    assert!(to_gateway.up > 0 && to_gateway.down > 0, "{to_gateway:?}");
    let file = map.len() as u64;
    assert!(to_nats.up > file && to_nats.down > file, "{to_nats:?}");
}
