//! The tunnels that are measured, as programs, and what they take of the
//! machine.

use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Arguments;
use crate::load::NAME;

/// Programs that run until this is dropped.
pub struct Tunnel {
    /// Where clients connect.
    pub at: SocketAddr,
    programs: Vec<Child>,
    _folder: tempfile::TempDir,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for program in &mut self.programs {
            program.kill().ok();
            program.wait().ok();
        }
    }
}

impl Tunnel {
    /// Two ends of ours.
    pub fn sotto(arguments: &Arguments, program: &Path, server: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().to_str().unwrap();
        let key = Command::new(program).args(["key", "--dir", dir]).output();
        let key = String::from_utf8(key.unwrap().stdout).unwrap();
        let allow = format!("{}={NAME}", key.trim());
        let at = free(arguments.public_at);
        let (listen, host) = (at.to_string(), at.ip().to_string());
        let mut command = Command::new(program);
        command
            .args(["serve", "--dir", dir, "--listen", &listen])
            .args(["--public-host", &host, "--allow", &allow])
            .args(["--json", "--log", "error"]);
        let mut serve = spawn(command, Stdio::piped());
        let mut line = String::new();
        let stdout = serve.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        let (to, links) = (said["to"].as_str().unwrap(), arguments.links.to_string());
        let route = format!("{NAME}={server}");
        let mut dial = private(arguments, program);
        dial.args(["dial", "--dir", dir, "--to", to, "--route", &route])
            .args(["--links", &links, "--log", "error"]);
        Self {
            at,
            programs: vec![serve, quietly(dial)],
            _folder: folder,
        }
    }

    /// A process for each connection, and no second end.
    pub fn socat(arguments: &Arguments, program: &Path, server: SocketAddr) -> Self {
        let at = free(arguments.public_at);
        let listen = format!(
            "TCP-LISTEN:{},bind={},reuseaddr,fork,backlog=1024,nodelay",
            at.port(),
            at.ip()
        );
        let to = format!("TCP:{server},nodelay");
        let mut command = Command::new(program);
        command.args(["-b", "65536", &listen, &to]);
        Self {
            at,
            programs: vec![quietly(command)],
            _folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A connection over the wire for each, made ahead.
    pub fn rathole(
        arguments: &Arguments,
        program: &Path,
        protection: Protection,
        server: SocketAddr,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (at, control) = (free(arguments.public_at), free(arguments.public_at));
        let [public_link, private_link] = protection.settings(program, folder.path());
        let file = |name: &str, text: String| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let token = "default_token = \"t\"";
        let mut public = Command::new(program);
        public.arg("--server").arg(file(
            "server.toml",
            format!("[server]\nbind_addr = \"{control}\"\n{token}\n[server.services.s]\nbind_addr = \"{at}\"\nnodelay = true\n{public_link}"),
        ));
        let mut dial = private(arguments, program);
        dial.arg("--client").arg(file(
            "client.toml",
            format!("[client]\nremote_addr = \"{control}\"\n{token}\n[client.services.s]\nlocal_addr = \"{server}\"\nnodelay = true\n{private_link}"),
        ));
        Self {
            at,
            programs: vec![quietly(public), quietly(dial)],
            _folder: folder,
        }
    }

    /// SSH over a WebSocket.
    pub fn chisel(arguments: &Arguments, program: &Path, server: SocketAddr) -> Self {
        let (at, control) = (free(arguments.public_at), free(arguments.public_at));
        let (host, port) = (control.ip().to_string(), control.port().to_string());
        let mut public = Command::new(program);
        public.args(["server", "--reverse", "--host", &host, "--port", &port]);
        let public = quietly(public);
        let mut dial = private(arguments, program);
        dial.args(["client", "--max-retry-interval", "1s"])
            .arg(format!("http://{control}"))
            .arg(format!("R:{at}:{server}"));
        Self {
            at,
            programs: vec![public, quietly(dial)],
            _folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A connection over the wire for each, made when it is needed.
    pub fn bore(arguments: &Arguments, program: &Path, server: SocketAddr) -> Self {
        let at = free(arguments.public_at);
        let mut public = Command::new(program);
        public.args(["server", "--min-port", "1024"]);
        let public = quietly(public);
        // It does not say when it listens.
        std::thread::sleep(Duration::from_millis(500));
        let (from, host) = (server.port().to_string(), server.ip().to_string());
        let (to, port) = (at.ip().to_string(), at.port().to_string());
        let mut dial = private(arguments, program);
        dial.args(["local", &from, "--local-host", &host])
            .args(["--to", &to, "--port", &port]);
        Self {
            at,
            programs: vec![public, quietly(dial)],
            _folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Seconds of the processors, with those of children that have ended.
    pub fn cpu(&self) -> f64 {
        let ticks = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after = stat.rsplit(") ").next().unwrap_or_default();
            let fields = after.split_whitespace().skip(11).take(4);
            let fields = fields.filter_map(|field| field.parse::<f64>().ok());
            fields.sum::<f64>()
        };
        let all = self.programs.iter().flat_map(processes);
        all.map(ticks).sum::<f64>() / rustix::param::clock_ticks_per_second() as f64
    }

    /// KiB that are of each end alone, or its share of them.
    pub fn resident(&self) -> [f64; 2] {
        let share = |pid: u32| {
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"));
            let rollup = rollup.unwrap_or_default();
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok())
                .unwrap_or(0.0)
        };
        let of = |program: &Child| processes(program).into_iter().map(share).sum();
        [0, 1].map(|end| self.programs.get(end).map_or(0.0, of))
    }
}

/// A program, and what it started.
fn processes(program: &Child) -> Vec<u32> {
    let mut found = vec![program.id()];
    let mut at = 0;
    while at < found.len() {
        let children = format!("/proc/{0}/task/{0}/children", found[at]);
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let children = children.split_whitespace();
        found.extend(children.filter_map(|pid| pid.parse::<u32>().ok()));
        at += 1;
    }
    found
}

/// What protects rathole's link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Protection {
    /// Nothing but a token.
    Plain,
    /// The Noise protocol, with the pattern that rathole chooses.
    Noise,
    /// TLS, as OpenSSL has it.
    Tls,
}

impl Protection {
    /// What a table says.
    pub fn rathole(self) -> &'static str {
        match self {
            Self::Plain => "rathole",
            Self::Noise => "rathole, Noise",
            Self::Tls => "rathole, TLS",
        }
    }

    /// What the public and the private end's settings say of it.
    fn settings(self, program: &Path, folder: &Path) -> [String; 2] {
        match self {
            Self::Plain => [String::new(), String::new()],
            Self::Noise => {
                let keys = Command::new(program).arg("--genkey").output().unwrap();
                let keys = String::from_utf8(keys.stdout).unwrap();
                let key = |name: &str| {
                    let mut lines = keys.lines().skip_while(|line| !line.contains(name));
                    lines.nth(1).unwrap().trim().to_owned()
                };
                let (private, public) = (key("Private"), key("Public"));
                [
                    format!(
                        "[server.transport]\ntype = \"noise\"\n[server.transport.noise]\nlocal_private_key = \"{private}\"\n"
                    ),
                    format!(
                        "[client.transport]\ntype = \"noise\"\n[client.transport.noise]\nremote_public_key = \"{public}\"\n"
                    ),
                ]
            }
            Self::Tls => {
                let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
                let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
                let (certificate, key, both) = (path("c.pem"), path("k.pem"), path("both.p12"));
                std::fs::write(&certificate, made.cert.pem()).unwrap();
                std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
                let mut openssl = Command::new("openssl");
                openssl
                    .args(["pkcs12", "-export", "-passout", "pass:t", "-out", &both])
                    .args(["-in", &certificate, "-inkey", &key]);
                assert!(openssl.status().unwrap().success(), "openssl failed");
                [
                    format!(
                        "[server.transport]\ntype = \"tls\"\n[server.transport.tls]\npkcs12 = \"{both}\"\npkcs12_password = \"t\"\n"
                    ),
                    format!(
                        "[client.transport]\ntype = \"tls\"\n[client.transport.tls]\ntrusted_root = \"{certificate}\"\nhostname = \"{NAME}\"\n"
                    ),
                ]
            }
        }
    }
}

/// A port of an address, free a moment ago.
fn free(at: IpAddr) -> SocketAddr {
    let listener = std::net::TcpListener::bind((at, 0)).unwrap();
    listener.local_addr().unwrap()
}

/// A private end, in its network namespace if it has one.
fn private(arguments: &Arguments, program: &Path) -> Command {
    let Some(namespace) = &arguments.private_in else {
        return Command::new(program);
    };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

fn quietly(command: Command) -> Child {
    spawn(command, Stdio::null())
}

/// Only what is read is piped: a pipe that nobody empties stops whoever logs.
fn spawn(mut command: Command, stdout: Stdio) -> Child {
    command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::null());
    let spawned = command.spawn();
    spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"))
}
