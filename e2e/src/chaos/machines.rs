//! The server side of a run: one server, or a cluster on this machine, each
//! machine with a disk that forgets when its power is cut.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use sotto_faults::Disk;
use sotto_service::{Layout, ServerConfig};

use crate::cluster::Cluster;
use crate::process;
use crate::server::{Part, Server};

/// Of each node's log, when something is wrong.
const LOG_LINES: usize = 40;

/// The machines.
pub(super) struct Machines {
    servers: Servers,
    /// One each; none where FUSE is not allowed.
    disks: Vec<Disk>,
}

/// What runs the server's programs.
enum Servers {
    /// `sotto up`.
    One(Server),
    /// Nodes with links between them, the gateway beside the first.
    Several(Cluster),
}

/// Undoes something.
pub(super) type End<'a> = Box<dyn FnOnce() + Send + 'a>;

/// How nodes do not hear each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Apart {
    /// This one and all others.
    Alone(usize),
    /// These two; others reach both.
    Two(usize, usize),
    /// The first does not hear the second, which hears it.
    Deaf(usize, usize),
}

/// What happens to the other nodes when one has come back with a damage, and
/// before it is whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Others {
    Stay,
    AreKilled,
}

/// What a power cut leaves of what was not synced: nothing, or half of the
/// writes, drawn by this seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Survivors {
    Nothing,
    Half(u64),
}

impl Survivors {
    /// Cuts the power of a disk.
    pub(super) fn of(self, disk: &Disk) {
        match self {
            Self::Nothing => disk.cut_power(|| false),
            Self::Half(seed) => {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                disk.cut_power(|| rng.gen_bool(0.5))
            }
        };
    }
}

/// The disk of a machine or a device, where this machine allows one.
pub(super) fn disk(folder: &Path) -> anyhow::Result<Option<Disk>> {
    fs::create_dir(folder).context("making a folder")?;
    // What does not work here is said in the verdict.
    Ok(Disk::mount(folder).ok())
}

impl Machines {
    /// Makes so many, with the org `acme` and the project `field`.
    pub(super) fn make(dir: &Path, nodes: usize) -> anyhow::Result<Self> {
        let names: Vec<String> = match nodes {
            1 => vec!["server".to_owned()],
            nodes => (1..=nodes).map(|number| format!("n{number}")).collect(),
        };
        let mut disks = Vec::new();
        for name in names {
            disks.extend(disk(&dir.join(name))?);
        }
        let servers = match nodes {
            1 => Servers::One(Server::create(&dir.join("server"), "acme", "field")?),
            nodes => Servers::Several(Cluster::apart(dir, "acme", "field", nodes)?),
        };
        Ok(Self { servers, disks })
    }

    pub(super) fn count(&self) -> usize {
        match &self.servers {
            Servers::One(_) => 1,
            Servers::Several(cluster) => cluster.nodes().len(),
        }
    }

    /// Whether their disks forget when the power is cut.
    pub(super) fn forget(&self) -> bool {
        !self.disks.is_empty()
    }

    pub(super) fn first_invite(&self) -> anyhow::Result<String> {
        match &self.servers {
            Servers::One(server) => server.first_invite("acme"),
            Servers::Several(cluster) => cluster.first_invite(),
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
        match &mut self.servers {
            Servers::One(server) => server.kill(part).map(drop),
            Servers::Several(cluster) => match part {
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
        self.stop_all()?;
        self.start_all()
    }

    /// The same, and what was not synced is lost.
    pub(super) fn cut_power(&mut self, survivors: Survivors) -> anyhow::Result<()> {
        self.stop_all()?;
        for node in 0..self.count() {
            self.loses_power(node, survivors)?;
        }
        self.start_all()
    }

    /// One machine of several stops and loses what was not synced.
    pub(super) fn cut_power_of(&mut self, node: usize, survivors: Survivors) -> anyhow::Result<()> {
        let Servers::Several(cluster) = &mut self.servers else {
            return self.cut_power(survivors);
        };
        cluster.kill(node)?;
        if node == 0 {
            cluster.kill_gateway()?;
        }
        self.loses_power(node, survivors)?;
        let Servers::Several(cluster) = &mut self.servers else {
            return Ok(());
        };
        cluster.start(node)?;
        if node == 0 {
            cluster.start_gateway()?;
        }
        Ok(())
    }

    /// What a power cut does to a machine on which nothing runs any more.
    fn loses_power(&self, node: usize, survivors: Survivors) -> anyhow::Result<()> {
        if let Some(disk) = self.disks.get(node) {
            survivors.of(disk);
        }
        if let Servers::Several(_) = &self.servers {
            // Its system has started anew since.
            let run = json!({"boot_id": "another", "clean": false});
            let path = self.layout(node)?.cluster_last_run();
            fs::write(path, run.to_string()).context("noting another start")?;
        }
        Ok(())
    }

    fn stop_all(&mut self) -> anyhow::Result<()> {
        match &mut self.servers {
            Servers::One(server) => server.kill_all(),
            Servers::Several(cluster) => {
                cluster.kill_gateway()?;
                (0..cluster.nodes().len()).try_for_each(|node| cluster.kill(node))
            }
        }
    }

    fn start_all(&mut self) -> anyhow::Result<()> {
        match &mut self.servers {
            Servers::One(server) => server.start(),
            Servers::Several(cluster) => {
                let nodes = cluster.nodes().len();
                (0..nodes).try_for_each(|node| cluster.launch(node))?;
                (0..nodes).try_for_each(|node| cluster.serves(node))?;
                cluster.start_gateway()
            }
        }
    }

    /// Nodes of several do not hear each other until what this returns is
    /// called.
    pub(super) fn part(&self, apart: Apart) -> anyhow::Result<Option<End<'static>>> {
        let Servers::Several(cluster) = &self.servers else {
            return Ok(None);
        };
        let links = cluster.links()?;
        match apart {
            Apart::Alone(node) => links.isolate(node),
            Apart::Two(one, other) => links.cut(one, other),
            Apart::Deaf(deaf, other) => links.deafen(deaf, other),
        }
        Ok(Some(Box::new(links.healing())))
    }

    /// SIGSTOP for a program of a node, and SIGCONT when what this returns is
    /// called.
    pub(super) fn pause(&self, part: Part, node: usize) -> anyhow::Result<Option<End<'static>>> {
        let Some(pid) = self.find(part, node)? else {
            return Ok(None);
        };
        // Errors: it has just ended.
        let _ = kill_process(pid, Signal::STOP);
        Ok(Some(Box::new(move || {
            let _ = kill_process(pid, Signal::CONT);
        })))
    }

    /// Everything goes on that was paused, and everything is where it should
    /// be again.
    pub(super) fn mend(&mut self) -> anyhow::Result<()> {
        for node in 0..self.count() {
            for part in [Part::Relay, Part::Gateway, Part::Nats] {
                if let Some(pid) = self.find(part, node)? {
                    let _ = kill_process(pid, Signal::CONT);
                }
            }
        }
        match &mut self.servers {
            Servers::One(_) => Ok(()),
            Servers::Several(cluster) => {
                cluster.links()?.heal();
                settle(cluster)
            }
        }
    }

    /// A node loses its streams: they are deleted while it is down.
    pub(super) fn lose_disk(&mut self, node: usize) -> anyhow::Result<()> {
        let lose = |layout: &Layout| {
            let streams = layout.jetstream();
            fs::remove_dir_all(&streams).context("deleting the streams")?;
            fs::create_dir(&streams).context("making their folder")
        };
        self.while_down(node, lose, Others::Stay)
    }

    /// One bit of a node's newest file of messages is flipped while it is
    /// down; which one, `draw` says for so many bytes.
    pub(super) fn flip_bit(
        &mut self,
        node: usize,
        draw: impl FnOnce(usize) -> usize,
        others: Others,
    ) -> anyhow::Result<()> {
        let flip = |layout: &Layout| {
            let Some(path) = largest_block(&layout.jetstream())? else {
                return Ok(());
            };
            let mut content = fs::read(&path)?;
            let place = draw(content.len());
            if let Some(byte) = content.get_mut(place) {
                *byte ^= 1 << (place % 8);
            }
            fs::write(&path, content).context("damaging a file")
        };
        self.while_down(node, flip, others)
    }

    fn while_down(
        &mut self,
        node: usize,
        act: impl FnOnce(&Layout) -> anyhow::Result<()>,
        others: Others,
    ) -> anyhow::Result<()> {
        let layout = self.layout(node)?.clone();
        match &mut self.servers {
            // Nobody else has what is lost here.
            Servers::One(_) => Ok(()),
            Servers::Several(cluster) => {
                settle(cluster)?;
                cluster.kill(node)?;
                act(&layout)?;
                cluster.start(node)?;
                if others == Others::AreKilled {
                    let nodes = cluster.nodes().len();
                    let others = || (0..nodes).filter(|other| *other != node);
                    others().try_for_each(|other| cluster.kill(other))?;
                    others().try_for_each(|other| cluster.launch(other))?;
                    others().try_for_each(|other| cluster.serves(other))?;
                }
                settle(cluster)
            }
        }
    }

    fn find(&self, part: Part, node: usize) -> anyhow::Result<Option<Pid>> {
        process::find(part.program(), self.layout(node)?.root())
    }

    fn layout(&self, node: usize) -> anyhow::Result<&Layout> {
        match &self.servers {
            Servers::One(server) => Ok(server.layout()),
            Servers::Several(cluster) => {
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

/// Waits until every node has everything. When that does not happen, the error
/// says which program has ended, or what the NATS servers said last.
fn settle(cluster: &mut Cluster) -> anyhow::Result<()> {
    let settled = cluster.is_settled();
    if settled.is_err() {
        cluster.still_runs()?;
    }
    let logs = || {
        let logs = cluster.nodes().iter().map(|node| {
            let log = fs::read_to_string(node.layout().nats_log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.len().saturating_sub(LOG_LINES);
            let last = lines.get(last..).unwrap_or_default().join("\n");
            format!("{}:\n{last}\n", node.layout().root().display())
        });
        logs.collect::<String>()
    };
    settled.map(drop).with_context(logs)
}
