//! The links between the nodes of a cluster: each node is in a network
//! namespace of its own and reaches the others through links that a test can
//! cut, one way or both. Everybody else, people and the test itself, reaches
//! the nodes at their addresses as before.

use std::net::SocketAddr;

use anyhow::Context;
use sotto_faults::ports;
use sotto_faults::{Conditions, Door, Link, Place, Way};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::namespace::Namespace;

/// Where a node listens.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// People, over HTTPS.
    pub gateway: SocketAddr,
    /// Clients of nats-server.
    pub nats: SocketAddr,
    /// The other nodes' nats-servers.
    pub routes: SocketAddr,
    /// Who wants to become a node.
    pub admission: SocketAddr,
}

/// Dropping it cuts every node off.
#[derive(Debug)]
pub struct Links {
    nodes: Vec<(Addresses, Namespace)>,
    /// What one node dials another over, with who dials and who is dialled.
    links: Vec<(usize, usize, Link)>,
    /// Forwards until it is dropped.
    _forwarding: Runtime,
    _sockets: TempDir,
}

impl Addresses {
    /// Some that are free at this moment.
    ///
    /// # Errors
    /// When there are none.
    pub fn free() -> anyhow::Result<Self> {
        Ok(Self {
            gateway: ports::free()?,
            nats: ports::free()?,
            routes: ports::free()?,
            admission: ports::free()?,
        })
    }

    fn all(&self) -> [SocketAddr; 4] {
        [self.gateway, self.nats, self.routes, self.admission]
    }
}

impl Links {
    /// Makes room for so many nodes.
    ///
    /// # Errors
    /// When the machine does not let us have network namespaces.
    pub fn between(nodes: usize) -> anyhow::Result<Self> {
        let sockets = tempfile::tempdir().context("making a folder")?;
        let forwarding = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let addresses = (0..nodes).map(|_| Addresses::free());
        let addresses: Vec<Addresses> = addresses.collect::<anyhow::Result<_>>()?;
        let forward = |link: &Link, at: &Place, to: &Place| {
            let (_, forwards) = forwarding.block_on(link.forward(at, to.clone()))?;
            forwarding.spawn(forwards);
            anyhow::Ok(())
        };
        let socket = |name: String| Place::Unix(sockets.path().join(name));
        let inside =
            |node: usize, address: SocketAddr| socket(format!("{node}-{}", address.port()));

        let everybody = Link::new(Conditions::GOOD, 0);
        let mut links = Vec::new();
        let mut namespaces = Vec::new();
        for (node, own) in addresses.iter().enumerate() {
            let mut doors = Vec::new();
            for address in own.all() {
                let (at, to) = (inside(node, address), Place::Tcp(address));
                forward(&everybody, &to, &at)?;
                doors.push(Door { at, to });
            }
            for (other, its) in addresses.iter().enumerate() {
                if other == node {
                    continue;
                }
                let link = Link::new(Conditions::GOOD, 0);
                for address in its.all() {
                    let out = socket(format!("{node}-to-{other}-{}", address.port()));
                    forward(&link, &out, &inside(other, address))?;
                    let at = Place::Tcp(address);
                    doors.push(Door { at, to: out });
                }
                links.push((node, other, link));
            }
            namespaces.push((*own, Namespace::open(&doors)?));
        }
        Ok(Self {
            nodes: namespaces,
            links,
            _forwarding: forwarding,
            _sockets: sockets,
        })
    }

    /// Two nodes hear nothing of each other any more, and are not told.
    pub fn cut(&self, one: usize, other: usize) {
        self.deafen(one, other);
        self.deafen(other, one);
    }

    /// A node hears nothing of another any more, which goes on hearing it.
    pub fn deafen(&self, deaf: usize, other: usize) {
        for (dials, dialled, link) in &self.links {
            if (*dials, *dialled) == (deaf, other) {
                link.cut_way(Way::Down);
            } else if (*dials, *dialled) == (other, deaf) {
                link.cut_way(Way::Up);
            }
        }
    }

    /// A node and all others hear nothing of each other any more.
    pub fn isolate(&self, node: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.cut(node, other);
        }
    }

    /// Everything goes on: what was in flight arrives after all.
    pub fn heal(&self) {
        self.healing()();
    }

    /// What heals them, wherever and whenever it is called.
    pub fn healing(&self) -> impl FnOnce() + Send + use<> {
        let links = self.links.iter().map(|(_, _, link)| link.clone());
        let links: Vec<Link> = links.collect();
        move || links.iter().for_each(Link::heal)
    }

    /// Where a node is to listen.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn addresses(&self, node: usize) -> anyhow::Result<Addresses> {
        let (addresses, _) = self.nodes.get(node).context("no such node")?;
        Ok(*addresses)
    }

    /// What comes before a command that is to run on a node.
    pub(crate) fn enter(&self, node: usize) -> anyhow::Result<[String; 6]> {
        let (_, namespace) = self.nodes.get(node).context("no such node")?;
        Ok(namespace.enter())
    }
}
