//! The server side of a run: one server, or a cluster on this machine.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use sotto_service::{Layout, ServerConfig};

use crate::cluster::Cluster;
use crate::process;
use crate::server::{Part, Server};

/// What runs the server's programs.
pub(super) enum Machines {
    /// `sotto up`.
    One(Server),
    /// Nodes, the gateway beside the first.
    Several(Cluster),
}

impl Machines {
    /// Makes so many, with the org `acme` and the project `field`.
    pub(super) fn make(dir: &Path, nodes: usize) -> anyhow::Result<Self> {
        Ok(match nodes {
            1 => Self::One(Server::create(&dir.join("server"), "acme", "field")?),
            nodes => Self::Several(Cluster::create(dir, "acme", "field", nodes)?),
        })
    }

    pub(super) fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Several(cluster) => cluster.nodes().len(),
        }
    }

    pub(super) fn first_invite(&self) -> anyhow::Result<String> {
        match self {
            Self::One(server) => server.first_invite("acme"),
            Self::Several(cluster) => cluster.first_invite(),
        }
    }

    /// Where the gateway and each nats-server listen.
    pub(super) fn addresses(&self) -> anyhow::Result<(SocketAddr, Vec<SocketAddr>)> {
        let gateway = ServerConfig::load(self.layout(0)?)?.gateway.listen;
        let nats = (0..self.count())
            .map(|node| Ok(ServerConfig::load(self.layout(node)?)?.nats.listen))
            .collect::<anyhow::Result<_>>()?;
        Ok((gateway, nats))
    }

    /// SIGKILL for a program of a node; returns when another serves.
    pub(super) fn kill(&mut self, part: Part, node: usize) -> anyhow::Result<()> {
        match self {
            Self::One(server) => server.kill(part).map(drop),
            Self::Several(cluster) => match part {
                Part::Gateway => {
                    cluster.kill_gateway()?;
                    cluster.start_gateway()
                }
                Part::Relay => {
                    cluster.kill(node)?;
                    cluster.start(node)
                }
                Part::Nats => {
                    let node = cluster.nodes().get(node).context("no such node")?;
                    // Its relay starts another.
                    Ok(kill_process(node.nats_server()?, Signal::KILL)?)
                }
            },
        }
    }

    /// SIGKILL for everything, then everything again.
    pub(super) fn kill_all(&mut self) -> anyhow::Result<()> {
        match self {
            Self::One(server) => {
                server.kill_all()?;
                server.start()
            }
            Self::Several(cluster) => {
                cluster.kill_gateway()?;
                let nodes = cluster.nodes().len();
                (0..nodes).try_for_each(|node| cluster.kill(node))?;
                (0..nodes).try_for_each(|node| cluster.launch(node))?;
                (0..nodes).try_for_each(|node| cluster.serves(node))?;
                cluster.start_gateway()
            }
        }
    }

    /// SIGSTOP for a program of a node, and SIGCONT after `time`.
    pub(super) fn pause(&self, part: Part, node: usize, time: Duration) -> anyhow::Result<()> {
        if let Some(pid) = self.find(part, node)? {
            // Errors: it has just ended.
            let _ = kill_process(pid, Signal::STOP);
            thread::sleep(time);
            let _ = kill_process(pid, Signal::CONT);
        }
        Ok(())
    }

    /// Everything goes on that was paused, and everything is where it should
    /// be again.
    pub(super) fn mend(&self) -> anyhow::Result<()> {
        for node in 0..self.count() {
            for part in [Part::Relay, Part::Gateway, Part::Nats] {
                if let Some(pid) = self.find(part, node)? {
                    let _ = kill_process(pid, Signal::CONT);
                }
            }
        }
        match self {
            Self::One(_) => Ok(()),
            Self::Several(cluster) => cluster.is_settled().map(drop),
        }
    }

    /// A node loses its streams: they are deleted while it is down.
    pub(super) fn lose_disk(&mut self, node: usize) -> anyhow::Result<()> {
        self.while_down(node, |layout| {
            let streams = layout.jetstream();
            fs::remove_dir_all(&streams).context("deleting the streams")?;
            fs::create_dir(&streams).context("making their folder")
        })
    }

    /// One bit of a node's newest file of messages is flipped while it is
    /// down; which one, `draw` says for so many bytes.
    pub(super) fn flip_bit(
        &mut self,
        node: usize,
        draw: impl FnOnce(usize) -> usize,
    ) -> anyhow::Result<()> {
        self.while_down(node, |layout| {
            let Some(path) = largest_block(&layout.jetstream())? else {
                return Ok(());
            };
            let mut content = fs::read(&path)?;
            let place = draw(content.len());
            if let Some(byte) = content.get_mut(place) {
                *byte ^= 1 << (place % 8);
            }
            fs::write(&path, content).context("damaging a file")
        })
    }

    fn while_down(
        &mut self,
        node: usize,
        act: impl FnOnce(&Layout) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let layout = self.layout(node)?.clone();
        match self {
            // Nobody else has what is lost here.
            Self::One(_) => Ok(()),
            Self::Several(cluster) => {
                cluster.is_settled()?;
                cluster.kill(node)?;
                act(&layout)?;
                cluster.start(node)?;
                cluster.is_settled().map(drop)
            }
        }
    }

    fn find(&self, part: Part, node: usize) -> anyhow::Result<Option<Pid>> {
        process::find(part.program(), self.layout(node)?.root())
    }

    fn layout(&self, node: usize) -> anyhow::Result<&Layout> {
        match self {
            Self::One(server) => Ok(server.layout()),
            Self::Several(cluster) => {
                let node = cluster.nodes().get(node).context("no such node")?;
                Ok(node.layout())
            }
        }
    }
}

/// The largest file of messages of a `MAIL-` stream below a folder.
fn largest_block(folder: &Path) -> anyhow::Result<Option<std::path::PathBuf>> {
    let mut largest = None;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let of_messages = path.extension().is_some_and(|end| end == "blk")
                && path.to_string_lossy().contains("/streams/MAIL-");
            let size = path.metadata()?.len();
            if of_messages && largest.as_ref().is_none_or(|(most, _)| size > *most) {
                largest = Some((size, path));
            }
        }
    }
    Ok(largest.map(|(_, path)| path))
}
