//! The server with its programs, and devices that are driven through the
//! client's library in this process.

use std::fs;
use std::num::NonZeroU8;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use sotto_client_core::io::{Command, Event};
use sotto_client_native::clock::Clock;
use sotto_client_native::home::Home;
use sotto_client_native::session::{Notice, Session};
use sotto_client_native::tls;
use sotto_e2e::case::{PASSWORD, text};
use sotto_e2e::cluster::{Cluster, Node};
use sotto_e2e::person::Person;
use sotto_e2e::process::{self, Running};
use sotto_e2e::server::Server;
use sotto_proto::{RoomId, wire};
use sotto_service::{Layout, ServerConfig};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::block_in_place;

use crate::figures::Figures;

/// Texts that are queued by one command: what a script would pipe in.
const AT_A_TIME: usize = 500;

/// Of `/proc/PID/stat` in a second: `USER_HZ`, which Linux never changes.
const TICKS: f64 = 100.0;

/// How often a sign-up is tried, and how long after another: a gateway takes
/// only so many from one address.
const SIGN_UPS: usize = 30;
const SIGN_UP_AGAIN: Duration = Duration::from_secs(3);

/// A server that runs.
pub(super) struct Stage {
    server: Served,
    /// Owner of the org and of the room.
    pub(super) alice: Person,
    /// The id of alice's room.
    pub(super) room: String,
    people: usize,
    folder: TempDir,
}

enum Served {
    /// `sotto up`.
    One(Server),
    Several(Cluster),
}

impl Stage {
    pub(super) fn set(nodes: usize, shards: NonZeroU8) -> anyhow::Result<Self> {
        tls::install_provider();
        block_in_place(|| {
            let folder = tempfile::tempdir()?;
            let (server, invite) = serve(folder.path(), nodes, shards)?;
            let alice = Person::new(folder.path().join("alice"), PASSWORD)?;
            alice.does(&["signup", &invite, "alice"])?;
            let made = alice.does(&["room", "create", "barn", "--project", "field"])?;
            Ok(Self {
                server,
                alice,
                room: text(&made, "room")?,
                people: 0,
                folder,
            })
        })
    }

    /// Where measurements may put things.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the server's files are; of several nodes, the first's.
    pub(super) fn layout(&self) -> anyhow::Result<&Layout> {
        self.layouts().into_iter().next().context("no node")
    }

    fn layouts(&self) -> Vec<&Layout> {
        match &self.server {
            Served::One(server) => vec![server.layout()],
            Served::Several(cluster) => cluster.nodes().iter().map(Node::layout).collect(),
        }
    }

    /// A new user with one device, in no room.
    pub(super) fn person(&mut self) -> anyhow::Result<(String, Person)> {
        self.people += 1;
        let name = format!("person{}", self.people);
        let person = Person::new(self.folder().join(&name), PASSWORD)?;
        block_in_place(|| {
            let invited = self.alice.does(&["invite", "--project", "field"])?;
            sign_up(&person, &text(&invited, "invite")?, &name)
        })?;
        Ok((name, person))
    }

    /// Two devices at work that share a new room.
    pub(super) async fn pair(&mut self) -> anyhow::Result<(Device, Device, RoomId)> {
        let (_, first) = self.person()?;
        let (name, second) = self.person()?;
        let mut first = Device::start(&first).await?;
        let mut second = Device::start(&second).await?;
        let room = first.make_room("bench").await?;
        first.invite(room, &name).await?;
        second.wait_for_room(room).await?;
        Ok((first, second, room))
    }

    /// How much CPU time each of the server's programs and this one have
    /// taken so far.
    pub(super) fn cpu(&self) -> anyhow::Result<Cpu> {
        let of = |name: &str| {
            let mut seconds = 0.0;
            for layout in self.layouts() {
                seconds += cpu_seconds(&process_of(layout, name)?)?;
            }
            anyhow::Ok(seconds)
        };
        Ok(Cpu {
            client: cpu_seconds("self")?,
            relay: of("sotto-relay")?,
            nats: of("nats-server")?,
        })
    }

    /// The process of one of the server's programs; of several nodes, the
    /// first's.
    pub(super) fn process(&self, name: &str) -> anyhow::Result<String> {
        process_of(self.layout()?, name)
    }
}

fn process_of(layout: &Layout, name: &str) -> anyhow::Result<String> {
    let pid = process::find(name, layout.root())?;
    let pid = pid.with_context(|| format!("{name} is gone"))?;
    Ok(pid.as_raw_nonzero().to_string())
}

fn sign_up(person: &Person, invite: &str, name: &str) -> anyhow::Result<()> {
    for _ in 0..SIGN_UPS {
        match person.does(&["signup", invite, name]) {
            Err(error) if error.to_string().contains("too many calls") => {
                std::thread::sleep(SIGN_UP_AGAIN);
            }
            other => return other.map(drop),
        }
    }
    anyhow::bail!("the gateway takes no more sign-ups")
}

/// Starts a server with the org `acme`; the first admin's invitation.
fn serve(folder: &Path, nodes: usize, shards: NonZeroU8) -> anyhow::Result<(Served, String)> {
    let (org, project) = ("acme", "field");
    let root = folder.join(if nodes == 1 { "server" } else { "n1" });
    let mut server = Server::create(&root, org, project)?;
    if nodes == 1 && shards == NonZeroU8::MIN {
        let invite = server.first_invite(org)?;
        return Ok((Served::One(server), invite));
    }
    // A server grows after it was made, as its operator would let it.
    server.stop()?;
    let layout = Layout::new(&root);
    let mut config = ServerConfig::load(&layout)?;
    config.shards = shards;
    config.save(&layout)?;
    let mut refresh = std::process::Command::new(process::binary("sotto-gateway")?);
    refresh.args(["accounts", "refresh", "--dir"]).arg(&root);
    Running::start(refresh, None)?.finish()?.success()?;
    if nodes == 1 {
        server.start()?;
        let invite = server.first_invite(org)?;
        return Ok((Served::One(server), invite));
    }
    let mut cluster = Cluster::bootstrap(&root, org)?;
    for number in 2..=nodes {
        cluster.join(&folder.join(format!("n{number}")), false)?;
    }
    cluster.is_settled()?;
    let invite = cluster.first_invite()?;
    Ok((Served::Several(cluster), invite))
}

/// CPU seconds of the programs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu {
    client: f64,
    relay: f64,
    nats: f64,
}

impl Cpu {
    /// Notes who was busy since `before`, of `wall` seconds: what is near 1 is
    /// the bottleneck, and when nothing is, waiting for the disk is.
    pub(super) fn note(self, before: Self, wall: Duration, what: &str, figures: &mut Figures) {
        let busy = [
            ("clients", self.client - before.client),
            ("relay", self.relay - before.relay),
            ("nats-server", self.nats - before.nats),
        ];
        for (who, seconds) in busy {
            let share = seconds / wall.as_secs_f64();
            figures.note(format!("{what}: cores kept busy by {who}"), share, "", None);
        }
    }
}

/// User and system time of a process, in seconds.
fn cpu_seconds(pid: &str) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything.
    let (_, fields) = stat.rsplit_once(')').context("no such process")?;
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / TICKS)
}

/// A line of `/proc/PID/status` that is in KiB, in MiB.
pub(super) fn memory_mib(pid: &str, line: &str) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|text| text.strip_prefix(line));
    let value = value.and_then(|text| text.trim_start_matches(':').split_whitespace().next());
    let kib: f64 = value.with_context(|| format!("no {line}"))?.parse()?;
    Ok(kib / 1_024.0)
}

/// A device at work.
pub(super) struct Device {
    pub(super) session: Session,
    notices: mpsc::UnboundedReceiver<Notice>,
}

impl Device {
    /// Opens the folder and goes online.
    pub(super) async fn start(person: &Person) -> anyhow::Result<Self> {
        let device = Self::open(person)?;
        device.session.go_online().await;
        device.session.settled().await?;
        Ok(device)
    }

    /// Opens the folder.
    pub(super) fn open(person: &Person) -> anyhow::Result<Self> {
        let home = Home::new(Path::new(person.dir()));
        let opened = block_in_place(|| home.open(person.password()))?;
        let (session, notices) = Session::start(opened, Clock::default())?;
        Ok(Self { session, notices })
    }

    pub(super) async fn make_room(&mut self, name: &str) -> anyhow::Result<RoomId> {
        let command = Command::CreateRoom {
            project: "field".parse()?,
            name: name.to_owned(),
            join_rule: wire::JoinRule::Invite,
        };
        let room = self.session.command(command).await.done().await?;
        self.session.settled().await?;
        room.context("no room was made")
    }

    pub(super) async fn invite(&mut self, room: RoomId, user: &str) -> anyhow::Result<()> {
        let command = Command::Invite {
            room,
            user: user.parse()?,
            role: wire::Role::User,
        };
        self.session.command(command).await.done().await?;
        Ok(self.session.settled().await?)
    }

    /// Waits until this device is a member of the room.
    pub(super) async fn wait_for_room(&mut self, room: RoomId) -> anyhow::Result<()> {
        while self.length(room).await.is_none() {
            self.notices.recv().await.context("the session has ended")?;
        }
        Ok(self.session.settled().await?)
    }

    /// Sends texts; returns when all of them are acknowledged.
    pub(super) async fn send(
        &self,
        room: RoomId,
        texts: impl Iterator<Item = String>,
    ) -> anyhow::Result<()> {
        let texts: Vec<String> = texts.collect();
        let mut running = Vec::new();
        for part in texts.chunks(AT_A_TIME) {
            let command = Command::SendTexts {
                room,
                texts: part.to_vec(),
            };
            running.push(self.session.command(command).await);
        }
        for running in &mut running {
            running.done().await?;
        }
        Ok(())
    }

    /// Waits until the history of a room has so many records.
    pub(super) async fn wait_for_length(&mut self, room: RoomId, least: u64) -> anyhow::Result<()> {
        loop {
            let notice = self.notices.recv().await.context("the session has ended")?;
            match notice {
                Notice::Event(Event::Received { room: of, length })
                    if of == room && length >= least =>
                {
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// Records of a room's history; `None` when it is not here.
    pub(super) async fn length(&self, room: RoomId) -> Option<u64> {
        let rooms = self.session.look(|engine, _| engine.rooms()).await.ok()?;
        let summary = rooms.into_iter().find(|summary| summary.room == room)?;
        Some(summary.history_length)
    }
}
