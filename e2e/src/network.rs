//! A bad network around one device: a namespace that has nothing but its own
//! loopback, where doors at the server's addresses lead out over links that
//! are as bad as a test wants them. The device's program notices nothing but
//! the badness.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use sotto_faults::{Conditions, Door, Link, Place, Traffic};
use sotto_service::{Layout, ServerConfig};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::namespace::Namespace;

/// The links of one device. What is behind them is cut off when it is dropped.
#[derive(Debug)]
pub struct Network {
    gateway: Link,
    /// To each node.
    nats: Vec<Link>,
    namespace: Namespace,
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
        let nats = nats.iter().map(|&nats| (nats, nats));
        Self::lead((gateway, gateway), nats, conditions, seed)
    }

    /// A link to the gateway and one to nats-server, where what has their
    /// ports at another address leads to them.
    ///
    /// # Errors
    /// When the machine does not let us have a network namespace.
    pub fn by_way_of(
        other: IpAddr,
        gateway: SocketAddr,
        nats: SocketAddr,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let by_way = |address: SocketAddr| (address, SocketAddr::new(other, address.port()));
        Self::lead(by_way(gateway), [by_way(nats)], &Conditions::GOOD, seed)
    }

    /// Links from where people believe something to be to where it is.
    fn lead(
        gateway: (SocketAddr, SocketAddr),
        nats: impl IntoIterator<Item = (SocketAddr, SocketAddr)>,
        conditions: &Conditions,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let sockets = tempfile::tempdir().context("making a folder")?;
        let forwarding = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let mut doors = Vec::new();
        let mut link = |(at, to): (SocketAddr, SocketAddr)| {
            let number = doors.len() as u64;
            let link = Link::new(conditions.clone(), 16 * seed + number);
            let socket = Place::Unix(sockets.path().join(number.to_string()));
            let forward = link.forward(&socket, Place::Tcp(to));
            doors.push(Door {
                at: Place::Tcp(at),
                to: socket.clone(),
            });
            let (_, forwards) = forwarding.block_on(forward)?;
            forwarding.spawn(forwards);
            anyhow::Ok(link)
        };
        let gateway = link(gateway)?;
        let nats = nats.into_iter().map(link);
        let nats = nats.collect::<anyhow::Result<_>>()?;
        Ok(Self {
            gateway,
            nats,
            namespace: Namespace::open(&doors)?,
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
        self.namespace.enter()
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        std::iter::once(&self.gateway).chain(&self.nats)
    }
}
