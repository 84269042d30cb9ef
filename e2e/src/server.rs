//! A private server as its operator runs it: one `sotto up`, and what that
//! starts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, ensure};
use serde_json::Value;
use sotto_faults::ports;
use sotto_proto::OrgName;
use sotto_service::Layout;
use sotto_service::readiness::Ready;

use crate::process::{self, Outcome, PATIENCE, Running, binary};

/// The processes behind `sotto up`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `sotto-relay`.
    Relay,
    /// `sotto-gateway`.
    Gateway,
    /// `nats-server`.
    Nats,
}

impl Part {
    /// Its program.
    pub fn program(self) -> &'static str {
        match self {
            Self::Relay => "sotto-relay",
            Self::Gateway => "sotto-gateway",
            Self::Nats => "nats-server",
        }
    }
}

/// A server on loopback ports that were free. Stopped when dropped.
#[derive(Debug)]
pub struct Server {
    layout: Layout,
    up: Option<Running>,
    gateway: String,
}

impl Server {
    /// Makes a server in `dir` with one org and one project, and starts it.
    ///
    /// # Errors
    /// When it does not serve in the end.
    pub fn create(dir: &Path, org: &str, project: &str) -> anyhow::Result<Self> {
        Self::create_at("127.0.0.1", dir, org, project)
    }

    /// The same, where people reach it by this name.
    ///
    /// # Errors
    /// When it does not serve in the end.
    pub fn create_at(host: &str, dir: &Path, org: &str, project: &str) -> anyhow::Result<Self> {
        let mut server = Self {
            layout: Layout::new(dir),
            up: None,
            gateway: String::new(),
        };
        // Not the customary ports: a server that stops for a while would find
        // them taken by the next one on this machine.
        let (gateway, nats) = (ports::free()?.to_string(), ports::free()?.to_string());
        let listen = [
            "--public-host",
            host,
            "--listen",
            &gateway,
            "--nats-listen",
            &nats,
        ];
        server.up(&[&["--org", org, "--project", project], &listen[..]].concat())?;
        Ok(server)
    }

    /// Starts a stopped server again.
    ///
    /// # Errors
    /// When it does not serve in the end.
    pub fn start(&mut self) -> anyhow::Result<()> {
        self.up(&[])
    }

    fn up(&mut self, options: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new(binary("sotto")?);
        command
            .args(["--json", "up"])
            .arg(self.layout.root())
            .args(options);
        let mut up = Running::start(command, None)?;
        let gateway = |line: &Value| Some(line.get("gateway")?.as_str()?.to_owned());
        self.gateway = up.wait_for("readiness", gateway)?;
        self.up = Some(up);
        Ok(())
    }

    /// Stops it as Ctrl-C does; what it said.
    ///
    /// # Errors
    /// When it does not run, or does not stop.
    pub fn stop(&mut self) -> anyhow::Result<Outcome> {
        self.up
            .take()
            .context("the server does not run")?
            .interrupt()
    }

    /// Ends `sotto up` with SIGKILL, and waits until what it started has
    /// noticed and ended, too.
    ///
    /// # Errors
    /// When something goes on running.
    pub fn kill_all(&mut self) -> anyhow::Result<()> {
        self.up.take().context("the server does not run")?.kill()?;
        let started = Instant::now();
        for part in [Part::Gateway, Part::Relay, Part::Nats] {
            while process::find(part.program(), self.layout.root())?.is_some() {
                ensure!(started.elapsed() < PATIENCE, "{part:?} goes on running");
                thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }

    /// Adds an org to the stopped or running server.
    ///
    /// # Errors
    /// When that is refused.
    pub fn add_org(&self, org: &str, project: &str) -> anyhow::Result<()> {
        let mut command = Command::new(binary("sotto-gateway")?);
        command
            .args(["org", "add", org, "--project", project, "--dir"])
            .arg(self.layout.root());
        Running::start(command, Some(String::new()))?
            .finish()?
            .success()?;
        Ok(())
    }

    /// Where everything is on disk.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What people are told the gateway is.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// The first admin's invitation of an org.
    ///
    /// # Errors
    /// When it is used already.
    pub fn first_invite(&self, org: &str) -> anyhow::Result<String> {
        let org: OrgName = org.parse()?;
        let path = self.layout.first_invite(&org);
        let text = fs::read_to_string(&path).context("reading the first invitation")?;
        Ok(text.trim().to_owned())
    }

    /// Ends one part with SIGKILL, and waits until another process has taken
    /// its place and serves; how long that took.
    ///
    /// # Errors
    /// When the part does not run, or does not come back.
    pub fn kill(&self, part: Part) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let name = part.program();
        let find = || process::find(name, self.layout.root());
        let victim = find()?.with_context(|| format!("{name} does not run"))?;
        process::kill(victim)?;
        loop {
            let successor = find()?.filter(|pid| *pid != victim);
            if successor.is_some() && self.serves() {
                return Ok(started.elapsed());
            }
            ensure!(started.elapsed() < PATIENCE, "{name} did not come back");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether relay and gateway say that they serve, and are who says so.
    fn serves(&self) -> bool {
        [
            (Part::Relay, self.layout.relay_ready()),
            (Part::Gateway, self.layout.gateway_ready()),
        ]
        .into_iter()
        .all(|(part, path)| self.announced(part, path).unwrap_or(false))
    }

    fn announced(&self, part: Part, path: PathBuf) -> anyhow::Result<bool> {
        let ready = Ready::read(&path).context("nobody says so")?;
        let running = process::find(part.program(), self.layout.root())?;
        Ok(running.is_some_and(|pid| pid.as_raw_nonzero().get() as u32 == ready.pid))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(up) = self.up.take() {
            // Ignored: the folder goes, too, and a killed `up` takes its
            // children along.
            up.interrupt().ok();
        }
    }
}
