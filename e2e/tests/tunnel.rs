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
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use prost::Message;
use reqwest::header::CONTENT_TYPE;
use sotto_e2e::case::{PASSWORD, meet};
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::network::Network;
use sotto_e2e::person::Person;
use sotto_e2e::process::{Running, binary};
use sotto_e2e::server::Server;
use sotto_proto::api::{self, Call};
use sotto_proto::wire::{ApiError, ApiErrorCode, LoginStart};
use sotto_service::{Layout, ServerConfig, tls};
use tokio::runtime::Runtime;

/// The server's name, which resolves everywhere. What people find there leads
/// to the tunnel and not to the server.
const NAME: &str = "localhost";
const TUNNEL: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SERVER: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A public end, and what its private ends need to know.
struct Tunnel {
    _public: Running,
    dir: String,
    to: String,
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
    /// One that listens on these ports.
    fn start(dir: &Path, ports: &[u16]) -> Self {
        let dir = dir.to_str().unwrap().to_owned();
        let key = sotto_tunnel(&words(&["key", "--dir", &dir])).output();
        let key = String::from_utf8(key.unwrap().stdout).unwrap();
        let allow = format!("{}={NAME}", key.trim());
        let mut serve = words(&["serve", "--dir", &dir, "--allow", &allow, "--json"]);
        serve.extend(words(&["--public-host", "127.0.0.2", "--exit-with-parent"]));
        for &port in ports {
            let at = SocketAddr::from((TUNNEL, port));
            serve.extend(["--listen".to_owned(), at.to_string()]);
        }
        let mut public = Running::start(sotto_tunnel(&serve), None).unwrap();
        let to = public.wait_for("address", |line| Some(line["to"].as_str()?.to_owned()));
        Self {
            _public: public,
            dir,
            to: to.unwrap(),
        }
    }

    /// A private end that leads from these ports to the same of the server's.
    fn dial(&self, ports: &[u16], options: &[&str]) -> Running {
        let mut dial = words(&["dial", "--dir", &self.dir, "--to", &self.to]);
        dial.extend(words(&["--exit-with-parent"]));
        dial.extend(words(options));
        for &port in ports {
            let to = SocketAddr::from((SERVER, port));
            dial.extend(["--route".to_owned(), format!("{NAME}:{port}={to}")]);
        }
        Running::start(sotto_tunnel(&dial), None).unwrap()
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
    let tunnel = Tunnel::start(&folder.path().join("tunnel"), &ports);
    let dialer = tunnel.dial(&ports, &[]);

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
    dialer.kill().unwrap();
    bob.does(&["--wait", "1", "send", "barn", "bob says 000"])
        .unwrap();
    let _dialer = tunnel.dial(&ports, &[]);
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

/// Logins that one address may begin at once.
const LOGINS: usize = 60;

/// Somebody who knows the server's authority, at an address of their own.
fn client(server: &Layout, own: Ipv4Addr, port: u16) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls::client_config(server).unwrap())
        .no_proxy()
        .local_address(IpAddr::from(own))
        .resolve(NAME, (TUNNEL, port).into())
        .build()
        .unwrap()
}

/// Begins a login with nothing in it.
async fn begins_login(client: &reqwest::Client, port: u16) -> ApiErrorCode {
    let request = client
        .post(format!("https://{NAME}:{port}{}", LoginStart::PATH))
        .header(CONTENT_TYPE, api::CONTENT_TYPE)
        .body(LoginStart::default().encode_to_vec());
    let answer = request.send().await.unwrap().bytes().await.unwrap();
    ApiError::decode(answer).unwrap().code()
}

#[test]
fn a_flood_from_one_address_shuts_out_nobody_else_who_comes_through_the_tunnel() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("server");
    let mut server = Server::create_at(NAME, &dir, "acme", "field").unwrap();
    server.stop().unwrap();
    let mut config = ServerConfig::load(server.layout()).unwrap();
    config.gateway.proxy_protocol_from = [SERVER.into()].into();
    config.save(server.layout()).unwrap();
    server.start().unwrap();

    let (gateway, nats) = (config.gateway.listen, config.nats.listen);
    let port = gateway.port();
    let ports = [port, nats.port()];
    let tunnel = Tunnel::start(&folder.path().join("tunnel"), &ports);
    let told = SocketAddr::from((SERVER, port)).to_string();
    let _dialer = tunnel.dial(&ports, &["--proxy-protocol", &told]);

    let at = |own: [u8; 4]| client(server.layout(), own.into(), port);
    let (stranger, other) = (at([127, 0, 0, 3]), at([127, 0, 0, 4]));
    Runtime::new().unwrap().block_on(async {
        let mut allowed = 0;
        while begins_login(&stranger, port).await == ApiErrorCode::Malformed {
            allowed += 1;
            assert!(allowed < 100 * LOGINS, "nobody is refused");
        }
        // As many as nobody has who shares a limit with the stranger.
        for _ in 0..LOGINS {
            let said = begins_login(&other, port).await;
            assert_eq!(said, ApiErrorCode::Malformed);
        }
    });

    let network = Network::by_way_of(TUNNEL.into(), gateway, nats, 1).unwrap();
    let alice = Person::new(folder.path().join("alice"), PASSWORD).unwrap();
    let alice = alice.behind(&network);
    let invite = server.first_invite("acme").unwrap();
    alice.does(&["signup", &invite, "alice"]).unwrap();
    alice
        .does(&["room", "create", "barn", "--project", "field"])
        .unwrap();
    alice.does(&["send", "barn", "hello"]).unwrap();
}
