//! A cluster as its operator runs it, all nodes on this machine: the first is
//! made by `sotto-gateway init` and `sotto-relay bootstrap` and has the
//! gateway, the others join with a token each.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_nats::Client;
use futures::StreamExt;
use rustix::process::Pid;
use serde::Deserialize;
use serde_json::Value;
use sotto_faults::ports;
use sotto_jwt_accounts::grants::{GATEWAY_INBOX, RELAY_INBOX, SYSTEM_INBOX};
use sotto_proto::{DIRECTORY_STREAM, GatewayAddress, INBOX_STREAM, OrgName, Shard};
use sotto_proto::{blob_stream, mail_stream};
use sotto_service::cluster::Members;
use sotto_service::nats::jetstream::{self, Jsz, Stream, Streams};
use sotto_service::nats::{self, Login};
use sotto_service::readiness::Ready;
use sotto_service::replicas::{self, Copies};
use sotto_service::{Layout, ServerConfig, private_files, tls};
use tokio::runtime::Runtime;

use crate::case::text;
use crate::links::{Addresses, Links};
use crate::process::{self, Outcome, PATIENCE, Running, binary};
use crate::programs::Programs;

/// How long nothing is looked at again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long servers are listened for after the last one answered.
const QUIET: Duration = Duration::from_millis(500);

/// Some nodes and their gateways: one, if nothing else is said. Stopped when dropped.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    /// By the number of their node.
    gateways: BTreeMap<usize, Running>,
    org: OrgName,
    /// What it runs, when that is to be replaced.
    programs: Option<Programs>,
    /// Between the nodes, when they are apart.
    links: Option<Links>,
}

/// One machine, as it were.
#[derive(Debug)]
pub struct Node {
    layout: Layout,
    relay: Option<Running>,
}

impl Cluster {
    /// Makes a cluster of this many nodes below `dir`, with one org and one
    /// project, and waits until everything is kept on as many as it should be.
    ///
    /// # Errors
    /// When it does not serve in the end.
    pub fn create(dir: &Path, org: &str, project: &str, nodes: usize) -> anyhow::Result<Self> {
        Self::alone(dir, org, project)?.grown(dir, nodes)
    }

    /// One of the org `acme` with programs that can be replaced, and a gateway
    /// on each node.
    ///
    /// # Errors
    /// When it does not serve in the end.
    pub fn replaceable(dir: &Path, nodes: usize) -> anyhow::Result<Self> {
        Self::replaceable_told(dir, nodes, &[])
    }

    /// The same, with programs that are also told this by the environment.
    ///
    /// # Errors
    /// When it does not serve in the end.
    pub fn replaceable_told(
        dir: &Path,
        nodes: usize,
        told: &[(&'static str, &str)],
    ) -> anyhow::Result<Self> {
        let (org, project) = ("acme", "field");
        let programs = dir.join("programs");
        fs::create_dir(&programs).context("making a folder for programs")?;
        let programs = Programs::new(&programs, Duration::from_secs(30))?.told(told);
        let root = dir.join("n1");
        let addresses = Addresses::free()?;
        init(&root, org, project, &addresses)?;
        let mut cluster = Self::bootstrapped(&root, org, &addresses, None, Some(programs))?;
        for number in 1..nodes {
            let joined = dir.join(format!("n{}", number + 1));
            cluster.join(&joined, true)?;
            // What opens the keys never passes between nodes: people carry it.
            fs::copy(root.join("unlock"), joined.join("unlock"))
                .context("carrying a passphrase")?;
            cluster.start_gateway_on(number)?;
        }
        cluster.is_settled()?;
        Ok(cluster)
    }

    /// The same with links between the nodes that can be cut.
    ///
    /// # Errors
    /// When it does not serve in the end, or the machine does not let us have
    /// network namespaces.
    pub fn apart(dir: &Path, org: &str, project: &str, nodes: usize) -> anyhow::Result<Self> {
        let links = Links::between(nodes)?;
        let first = links.addresses(0)?;
        let root = dir.join("n1");
        init(&root, org, project, &first)?;
        let cluster = Self::bootstrapped(&root, org, &first, Some(links), None)?;
        cluster.grown(dir, nodes)
    }

    /// A cluster of one.
    ///
    /// # Errors
    /// When it does not serve in the end.
    pub fn alone(dir: &Path, org: &str, project: &str) -> anyhow::Result<Self> {
        let root = dir.join("n1");
        let addresses = Addresses::free()?;
        init(&root, org, project, &addresses)?;
        Self::bootstrapped(&root, org, &addresses, None, None)
    }

    /// Makes a stopped server the first node and starts it.
    ///
    /// # Errors
    /// When it does not serve in the end.
    pub fn bootstrap(root: &Path, org: &str) -> anyhow::Result<Self> {
        Self::bootstrapped(root, org, &Addresses::free()?, None, None)
    }

    fn bootstrapped(
        root: &Path,
        org: &str,
        addresses: &Addresses,
        links: Option<Links>,
        programs: Option<Programs>,
    ) -> anyhow::Result<Self> {
        tls::install_provider();
        let mut bootstrap = Command::new(binary("sotto-relay")?);
        bootstrap
            .args(["bootstrap", "--name", "n1", "--dir"])
            .arg(root)
            .args(["--routes-listen", &addresses.routes.to_string()])
            .args(["--admission-listen", &addresses.admission.to_string()]);
        finish(bootstrap)?;
        let mut cluster = Self {
            nodes: vec![Node {
                layout: Layout::new(root),
                relay: None,
            }],
            gateways: BTreeMap::new(),
            org: org.parse()?,
            links,
            programs,
        };
        cluster.start(0)?;
        cluster.start_gateway()?;
        Ok(cluster)
    }

    fn grown(mut self, dir: &Path, nodes: usize) -> anyhow::Result<Self> {
        for number in 2..=nodes {
            self.join(&dir.join(format!("n{number}")), false)?;
        }
        self.is_settled()?;
        Ok(self)
    }

    /// Has one more machine join and starts it; its number.
    ///
    /// # Errors
    /// When it is not let in or does not serve in the end.
    pub fn join(&mut self, dir: &Path, gateway: bool) -> anyhow::Result<usize> {
        let token = self.token(gateway)?;
        self.join_with(dir, token)
    }

    /// Has a machine join for a node that is lost, and starts it; its number.
    ///
    /// # Errors
    /// When it is not let in or does not serve in the end.
    pub fn join_for(&mut self, lost: usize, dir: &Path) -> anyhow::Result<usize> {
        let token = self.token_for(lost)?;
        self.join_with(dir, token)
    }

    fn join_with(
        &mut self,
        dir: &Path,
        (address, token): (String, String),
    ) -> anyhow::Result<usize> {
        let number = self.nodes.len();
        let name = format!("n{}", number + 1);
        let (program, addresses) = match &self.links {
            Some(links) => (
                self.program("sotto-relay", number)?,
                links.addresses(number)?,
            ),
            None => (Command::new(binary("sotto-relay")?), Addresses::free()?),
        };
        join_at(program, dir, &name, &address, &token, &addresses)?.success()?;
        self.add(dir)
    }

    /// Starts a machine that has joined; its number.
    ///
    /// # Errors
    /// When it does not serve in the end.
    pub fn add(&mut self, dir: &Path) -> anyhow::Result<usize> {
        let number = self.knows(dir);
        self.start(number)?;
        Ok(number)
    }

    /// Knows of a machine that has joined and does not run; its number.
    pub fn knows(&mut self, dir: &Path) -> usize {
        self.nodes.push(Node {
            layout: Layout::new(dir),
            relay: None,
        });
        self.nodes.len() - 1
    }

    /// A token for one more machine, and where it joins.
    ///
    /// # Errors
    /// When none is made.
    pub fn token(&self, gateway: bool) -> anyhow::Result<(String, String)> {
        self.token_told(if gateway { &["--gateway"] } else { &[] })
    }

    /// A token for a machine that is to replace a node.
    ///
    /// # Errors
    /// When none is made.
    pub fn token_for(&self, lost: usize) -> anyhow::Result<(String, String)> {
        self.token_told(&["--replaces", &format!("n{}", lost + 1)])
    }

    fn token_told(&self, told: &[&str]) -> anyhow::Result<(String, String)> {
        let mut command = Command::new(binary("sotto-relay")?);
        command
            .args(["cluster", "token", "--json", "--dir"])
            .arg(self.first()?.layout.root())
            .args(told);
        let made = finish(command)?;
        Ok((text(&made, "address")?, text(&made, "token")?))
    }

    /// What `sotto-relay cluster status` says on a node.
    ///
    /// # Errors
    /// When it fails.
    pub fn status(&self, number: usize) -> anyhow::Result<Value> {
        let node = self.nodes.get(number).context("no such node")?;
        let mut command = Command::new(binary("sotto-relay")?);
        command
            .args(["cluster", "status", "--json", "--dir"])
            .arg(node.layout.root());
        finish(command)?.pop().context("it says nothing")
    }

    /// Takes a node out that does not run, told this besides.
    ///
    /// # Errors
    /// When the others do not agree.
    pub fn remove(&mut self, number: usize, told: &[&str]) -> anyhow::Result<()> {
        let name = format!("n{}", number + 1);
        let mut command = Command::new(binary("sotto-relay")?);
        command
            .args(["cluster", "remove", &name, "--dir"])
            .arg(self.first()?.layout.root())
            .args(told);
        finish(command).map(drop)
    }

    /// What it runs.
    ///
    /// # Errors
    /// When that cannot be replaced.
    pub fn programs(&self) -> anyhow::Result<&Programs> {
        self.programs.as_ref().context("the programs stay")
    }

    /// What is between the nodes.
    ///
    /// # Errors
    /// When they are not apart.
    pub fn links(&self) -> anyhow::Result<&Links> {
        self.links.as_ref().context("the nodes are not apart")
    }

    /// The nodes, by number from 0.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Adds an org, on the first node.
    ///
    /// # Errors
    /// When that is refused.
    pub fn add_org(&self, org: &str, project: &str) -> anyhow::Result<()> {
        let mut command = Command::new(binary("sotto-gateway")?);
        command
            .args(["org", "add", org, "--project", project, "--dir"])
            .arg(self.first()?.layout.root());
        finish(command).map(drop)
    }

    /// Starts the relay of a node and waits until it serves.
    ///
    /// # Errors
    /// When it does not.
    pub fn start(&mut self, number: usize) -> anyhow::Result<()> {
        self.launch(number)?;
        self.serves(number)
    }

    /// Starts the relay of a node without waiting.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self, number: usize) -> anyhow::Result<()> {
        let mut command = self.program("sotto-relay", number)?;
        let node = self.nodes.get_mut(number).context("no such node")?;
        command
            .args(["run", "--exit-with-parent", "--dir"])
            .arg(node.layout.root());
        node.relay = Some(Running::start(command, None)?);
        Ok(())
    }

    /// Waits until a node serves; how long that took.
    ///
    /// # Errors
    /// When it does not.
    pub fn serves(&mut self, number: usize) -> anyhow::Result<()> {
        let node = self.nodes.get_mut(number).context("no such node")?;
        let relay = node.relay.as_mut().context("the node does not run")?;
        is_ready(relay, &node.layout.relay_ready())
    }

    /// Starts the gateway, on the first node, and waits until it serves.
    ///
    /// # Errors
    /// When it does not.
    pub fn start_gateway(&mut self) -> anyhow::Result<()> {
        self.start_gateway_on(0)
    }

    fn start_gateway_on(&mut self, number: usize) -> anyhow::Result<()> {
        let layout = &self.nodes.get(number).context("no such node")?.layout;
        let mut command = self.program("sotto-gateway", number)?;
        command
            .args(["run", "--exit-with-parent", "--dir"])
            .arg(layout.root());
        let mut gateway = Running::start(command, None)?;
        is_ready(&mut gateway, &layout.gateway_ready())?;
        self.gateways.insert(number, gateway);
        Ok(())
    }

    /// Ends the gateway as a power cut would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_gateway(&mut self) -> anyhow::Result<()> {
        let gateway = self.gateways.remove(&0);
        let gateway = gateway.context("the gateway does not run")?;
        gateway.kill().map(drop)
    }

    /// Ends a node as a power cut would: its relay and its nats-server.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let node = self.nodes.get_mut(number).context("no such node")?;
        let relay = node.relay.take().context("the node does not run")?;
        // It may have handed over to another process.
        process::kill_all("sotto-relay", node.layout.root())?;
        relay.kill()?;
        // Its servers may end by themselves at any moment.
        process::kill_all("nats-server", node.layout.root())
    }

    /// Stops a node as its operator does.
    ///
    /// # Errors
    /// When it does not run or does not stop.
    pub fn stop(&mut self, number: usize) -> anyhow::Result<Outcome> {
        let node = self.nodes.get_mut(number).context("no such node")?;
        let relay = node.relay.take().context("the node does not run")?;
        relay.interrupt()
    }

    /// What people are told the gateway is.
    ///
    /// # Errors
    /// When the first node's files do not read.
    pub fn gateway(&self) -> anyhow::Result<String> {
        let layout = &self.first()?.layout;
        let config = ServerConfig::load(layout)?;
        let address = GatewayAddress {
            host: config.public_host,
            port: config.gateway.listen.port(),
            org: self.org.clone(),
            authority: tls::authority_fingerprint(layout)?,
        };
        Ok(address.to_string())
    }

    /// The first admin's invitation.
    ///
    /// # Errors
    /// When it is used already.
    pub fn first_invite(&self) -> anyhow::Result<String> {
        let path = self.first()?.layout.first_invite(&self.org);
        Ok(private_files::read_text(&path, 4_096)?.trim().to_owned())
    }

    /// Waits until every stream and bucket is kept on as many nodes as it
    /// should be and each of them has everything; how long that took.
    ///
    /// # Errors
    /// When that does not happen.
    pub fn is_settled(&self) -> anyhow::Result<Duration> {
        let started = Instant::now();
        let runtime = Runtime::new()?;
        let running = self.nodes.iter().filter(|node| node.relay.is_some());
        let layout = running.map(|node| &node.layout).next();
        let layout = layout.context("no node runs")?;
        let wanted = Members::load(layout)?.replicas();
        runtime.block_on(async {
            let relay = self.relay_client(layout).await?;
            let gateway = self.gateway_client().await?;
            let mut streams = vec![INBOX_STREAM.to_owned(), DIRECTORY_STREAM.to_owned()];
            streams.extend([mail_stream(Shard(0)), blob_stream(Shard(0))]);
            let streams = streams.iter().map(|stream| (&relay, stream.as_str()));
            // Of the buckets the one that is made last.
            let streams: Vec<_> = streams.chain([(&gateway, "KV_tasks")]).collect();
            for (client, stream) in streams {
                loop {
                    let copies = replicas::copies(client, stream).await;
                    let settled = |now: &Copies| now.wanted == wanted && now.are_current();
                    if matches!(&copies, Ok(Some(now)) if settled(now)) {
                        break;
                    }
                    ensure!(
                        started.elapsed() < PATIENCE,
                        "{stream} is not kept on {wanted} nodes: {copies:?}"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Ok(started.elapsed())
        })
    }

    /// Fails when a program of a node has ended by itself, with what it said.
    ///
    /// # Errors
    /// See above.
    pub fn still_runs(&mut self) -> anyhow::Result<()> {
        let relays = self.nodes.iter_mut().filter_map(|node| node.relay.as_mut());
        let mut programs = relays.chain(self.gateways.values_mut());
        programs.try_for_each(Running::still_runs)
    }

    /// A client with the relay's grants in the org's account, on one node.
    ///
    /// # Errors
    /// When the node does not answer.
    pub async fn relay_client(&self, layout: &Layout) -> anyhow::Result<Client> {
        let login = Login {
            name: "test",
            credentials: &layout.relay_creds(&self.org),
            inbox_prefix: RELAY_INBOX,
        };
        Ok(nats::connect(layout, &ServerConfig::load(layout)?, login).await?)
    }

    async fn gateway_client(&self) -> anyhow::Result<Client> {
        let layout = &self.first()?.layout;
        let login = Login {
            name: "test",
            credentials: &layout.gateway_creds(&self.org),
            inbox_prefix: GATEWAY_INBOX,
        };
        Ok(nats::connect_to_any(layout, &ServerConfig::load(layout)?, login).await?)
    }

    /// A program that is to run on a node.
    fn program(&self, name: &str, node: usize) -> anyhow::Result<Command> {
        if let Some(programs) = &self.programs {
            return programs.command(&format!("n{}", node + 1), name);
        }
        let program = binary(name)?;
        let Some(links) = &self.links else {
            return Ok(Command::new(program));
        };
        let [nsenter, arguments @ ..] = links.enter(node)?;
        let mut command = Command::new(nsenter);
        command.args(arguments).arg(program);
        Ok(command)
    }

    fn first(&self) -> anyhow::Result<&Node> {
        self.nodes.first().context("a cluster without nodes")
    }
}

impl Node {
    /// Where everything of it is on disk.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Whether its relay was started and not stopped.
    pub fn runs(&self) -> bool {
        self.relay.is_some()
    }

    /// Its nats-server's process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn nats_server(&self) -> anyhow::Result<Pid> {
        let text = private_files::read_text(&self.layout.nats_pid(), 64)?;
        Pid::from_raw(text.trim().parse()?).context("no process id")
    }

    /// Its relay's process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn relay(&self) -> anyhow::Result<Pid> {
        let relay = self.relay.as_ref().context("the node does not run")?;
        relay.pid()
    }

    /// Has its relay, once it has a successor, say at an address how it is.
    ///
    /// # Errors
    /// When its configuration does not read or write.
    pub fn is_watched(&self) -> anyhow::Result<SocketAddr> {
        let at: SocketAddr = ports::free()?;
        let mut config = ServerConfig::load(&self.layout)?;
        config.relay.metrics = Some(at.try_into()?);
        config.save(&self.layout)?;
        Ok(at)
    }

    /// Where clients reach its nats-server.
    ///
    /// # Errors
    /// When its configuration does not read.
    pub fn nats_listen(&self) -> anyhow::Result<SocketAddr> {
        Ok(ServerConfig::load(&self.layout)?.nats.listen)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &self.nodes {
            // Ignored: it may not run.
            process::kill_all("sotto-gateway", node.layout.root()).ok();
        }
        self.gateways.clear();
        for number in 0..self.nodes.len() {
            // Ignored: it may not run.
            self.kill(number).ok();
        }
    }
}

/// Every stream, as the node says that leads it, asked through any that serves.
///
/// # Errors
/// When none does, or not all that answer are heard.
pub fn streams(layout: &Layout) -> anyhow::Result<Vec<Stream>> {
    let login = Login {
        name: "test",
        credentials: &layout.system_creds(),
        inbox_prefix: SYSTEM_INBOX,
    };
    let config = ServerConfig::load(layout)?;
    Runtime::new()?.block_on(async {
        let client = nats::connect_to_any(layout, &config, login).await?;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await?;
        let question = jetstream::QUESTION.into();
        client
            .publish_with_reply("$SYS.REQ.SERVER.PING.JSZ", inbox, question)
            .await?;
        let mut streams = Streams::new();
        while let Ok(Some(answer)) = tokio::time::timeout(QUIET, answers.next()).await {
            let Answer { server, data } = serde_json::from_slice(&answer.payload)?;
            data.add_to(&mut streams, &server.name);
        }
        ensure!(!streams.is_empty(), "nobody says what streams there are");
        Ok(streams.into_values().collect())
    })
}

#[derive(Deserialize)]
struct Answer {
    server: Answering,
    data: Jsz,
}

#[derive(Deserialize)]
struct Answering {
    name: String,
}

/// Types `sotto-relay join`, with ports that are free; what came of it.
///
/// # Errors
/// When it cannot be started or does not end.
pub fn join(dir: &Path, name: &str, address: &str, token: &str) -> anyhow::Result<Outcome> {
    let relay = Command::new(binary("sotto-relay")?);
    join_at(relay, dir, name, address, token, &Addresses::free()?)
}

fn join_at(
    mut relay: Command,
    dir: &Path,
    name: &str,
    address: &str,
    token: &str,
    listen: &Addresses,
) -> anyhow::Result<Outcome> {
    relay
        .args(["join", address, "--token", token, "--name", name, "--dir"])
        .arg(dir)
        .args(["--public-host", "127.0.0.1", "--wait", "30"])
        .args(["--nats-listen", &listen.nats.to_string()])
        .args(["--gateway-listen", &listen.gateway.to_string()])
        .args(["--routes-listen", &listen.routes.to_string()])
        .args(["--admission-listen", &listen.admission.to_string()]);
    Running::start(relay, Some(String::new()))?.finish()
}

/// Makes a server that does not run.
fn init(root: &Path, org: &str, project: &str, listen: &Addresses) -> anyhow::Result<()> {
    let mut init = Command::new(binary("sotto-gateway")?);
    init.args(["init", "--org", org, "--project", project, "--dir"])
        .arg(root)
        .args(["--gateway-listen", &listen.gateway.to_string()])
        .args(["--nats-listen", &listen.nats.to_string()]);
    finish(init).map(drop)
}

fn finish(command: Command) -> anyhow::Result<Vec<Value>> {
    Running::start(command, Some(String::new()))?
        .finish()?
        .success()
}

/// Waits until the process says that it serves.
fn is_ready(running: &mut Running, path: &Path) -> anyhow::Result<()> {
    let started = Instant::now();
    let pid = running.pid()?.as_raw_nonzero().get();
    loop {
        if Ready::read(path).is_some_and(|ready| i64::from(ready.pid) == i64::from(pid)) {
            return Ok(());
        }
        running.still_runs()?;
        ensure!(
            started.elapsed() < PATIENCE,
            "{} is not there within {PATIENCE:?}",
            path.display()
        );
        thread::sleep(PAUSE);
    }
}
