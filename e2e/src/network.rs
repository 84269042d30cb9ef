//! A bad network around one device: a namespace that has nothing but its own
//! loopback, where doors at the server's addresses lead out over links that
//! are as bad as a test wants them. The device's program notices nothing but
//! the badness.
//!
//! Needs `unshare` and `nsenter` of util-linux, and `ip` of iproute2.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use sotto_faults::{Conditions, Link, Place, Traffic};
use sotto_service::{Layout, ServerConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::process::binary;

/// The links of one device. What is behind them is cut off when it is dropped.
#[derive(Debug)]
pub struct Network {
    gateway: Link,
    /// To each node.
    nats: Vec<Link>,
    doors: Child,
    /// Forwards until it is dropped.
    _forwarding: Runtime,
    _sockets: TempDir,
}

impl Network {
    /// A link to the gateway and one to nats-server of a single server; `seed`
    /// decides what goes wrong when.
    ///
    /// # Errors
    /// When the machine does not let us have a network namespace.
    pub fn new(server: &Layout, conditions: Conditions, seed: u64) -> anyhow::Result<Self> {
        let config = ServerConfig::load(server)?;
        let (gateway, nats) = (config.gateway.listen, config.nats.listen);
        Self::between(gateway, &[nats], &conditions, seed)
    }

    /// A link to the gateway and one to each node's nats-server.
    ///
    /// # Errors
    /// When the machine does not let us have a network namespace.
    pub fn between(
        gateway: SocketAddr,
        nats: &[SocketAddr],
        conditions: &Conditions,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let sockets = tempfile::tempdir().context("making a folder")?;
        let forwarding = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let mut doors = Vec::new();
        let mut link = |address: SocketAddr| {
            let number = doors.len() as u64;
            let link = Link::new(conditions.clone(), 16 * seed + number);
            let socket = sockets.path().join(number.to_string());
            doors.push(format!("{address}={}", socket.display()));
            let place = Place::Unix(socket);
            let forward = link.forward(&place, Place::Tcp(address));
            let (_, forwards) = forwarding.block_on(forward)?;
            forwarding.spawn(forwards);
            anyhow::Ok(link)
        };
        let gateway = link(gateway)?;
        let nats = nats.iter().map(|address| link(*address));
        let nats = nats.collect::<anyhow::Result<_>>()?;
        Ok(Self {
            gateway,
            nats,
            doors: open_doors(&doors)?,
            _forwarding: forwarding,
            _sockets: sockets,
        })
    }

    /// Makes all links better or worse.
    pub fn set(&self, conditions: &Conditions) {
        self.links().for_each(|link| link.set(conditions.clone()));
    }

    /// Cuts all links: nothing is refused, nothing arrives.
    pub fn cut(&self) {
        self.links().for_each(Link::cut);
    }

    /// Undoes that; connections that were made meanwhile break.
    pub fn heal(&self) {
        self.links().for_each(Link::reset);
        self.links().for_each(Link::heal);
    }

    /// Breaks every connection.
    pub fn reset(&self) {
        self.links().for_each(Link::reset);
    }

    /// What went over the link to the gateway, and over those to nats-servers.
    pub fn traffic(&self) -> [Traffic; 2] {
        let nats = self.nats.iter().map(Link::traffic);
        let nats = nats.fold(Traffic::default(), |sum, link| sum + link);
        [self.gateway.traffic(), nats]
    }

    /// What comes before a command that is to run behind these links.
    pub(crate) fn enter(&self) -> [String; 6] {
        [
            "nsenter".to_owned(),
            "--preserve-credentials".to_owned(),
            "--user".to_owned(),
            "--net".to_owned(),
            "--target".to_owned(),
            self.doors.id().to_string(),
        ]
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        std::iter::once(&self.gateway).chain(&self.nats)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Ignored: it may have ended already.
        self.doors.kill().ok();
        self.doors.wait().ok();
    }
}

fn open_doors(doors: &[String]) -> anyhow::Result<Child> {
    let mut child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(binary("sotto-faults")?)
        .arg("doors")
        .args(doors)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting `unshare`, of util-linux")?;
    let said = child.stderr.take().context("no standard error")?;
    let mut line = String::new();
    BufReader::new(said).read_line(&mut line)?;
    ensure!(
        line.trim() == "open",
        "no network namespace can be made here: {line}"
    );
    Ok(child)
}
