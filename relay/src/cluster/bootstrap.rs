//! `sotto-relay bootstrap`: makes a server the first node of a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use sotto_service::cluster::{
    self, ADMISSION_PORT, Cluster, Endpoint, Member, Members, Node, NodeName, ROUTES_PORT,
};
use sotto_service::{Layout, ServerConfig, private_files};

use super::adoption;
use crate::nats_server::{NatsAccounts, NatsBinary, peer_state};
use crate::takeover::Lock;

/// Where a node is reached.
#[derive(Debug, clap::Args)]
pub struct Places {
    /// The node's name: 1 to 32 of a-z, 0-9 and -.
    #[arg(long, value_name = "NAME")]
    pub name: NodeName,

    /// Host name or IP address by which the other nodes reach this machine;
    /// otherwise the one by which people do.
    #[arg(long, value_name = "HOST")]
    pub cluster_host: Option<String>,

    /// Where nats-server listens for the other nodes; otherwise port 6222 of
    /// the address that it listens on for clients.
    #[arg(long, value_name = "IP:PORT")]
    pub routes_listen: Option<SocketAddr>,

    /// Where the relay listens for the other nodes; otherwise port 6223 of the
    /// same address.
    #[arg(long, value_name = "IP:PORT")]
    pub admission_listen: Option<SocketAddr>,
}

/// What is to become the first node.
#[derive(Debug, clap::Args)]
pub struct BootstrapArgs {
    /// The server's data directory; the server must be stopped.
    #[arg(long, env = "SOTTO_SERVER_DIR", value_name = "DIR")]
    pub dir: PathBuf,

    #[command(flatten)]
    places: Places,

    /// The nats-server to run, instead of the one that this program carries, or
    /// else of the first that is found beside it or on PATH.
    #[arg(long, env = "SOTTO_NATS_SERVER", value_name = "FILE")]
    nats_server: Option<PathBuf>,
}

impl Places {
    /// This node, and where the others reach its nats-server and its relay.
    ///
    /// # Errors
    /// When a host is none.
    pub fn of(
        &self,
        public_host: &str,
        nats_listen: SocketAddr,
    ) -> Result<(Node, Endpoint, Endpoint)> {
        let ip = nats_listen.ip();
        let node = Node {
            name: self.name.clone(),
            routes_listen: self
                .routes_listen
                .unwrap_or(SocketAddr::new(ip, ROUTES_PORT)),
            admission_listen: self
                .admission_listen
                .unwrap_or(SocketAddr::new(ip, ADMISSION_PORT)),
        };
        let host = self.cluster_host.as_deref().unwrap_or(public_host);
        let routes = Endpoint::new(host, node.routes_listen.port())?;
        let admission = Endpoint::new(host, node.admission_listen.port())?;
        Ok((node, routes, admission))
    }
}

/// Makes the server in `args.dir` the first node of a new cluster. What it has
/// stored stays. `node.json` is written last: without it nothing has changed.
///
/// # Errors
/// When it runs, is a node already, or what it stored cannot be taken over;
/// then it is as it was.
pub async fn bootstrap(args: &BootstrapArgs) -> Result<()> {
    let config = ServerConfig::load(&Layout::new(&args.dir))?;
    let root = std::fs::canonicalize(&args.dir)
        .with_context(|| format!("cannot find {}", args.dir.display()))?;
    let layout = Layout::new(root);
    let _stopped = Lock::take(&layout, false)?;
    ensure!(
        !layout.cluster_node().is_file(),
        "{} is a node of a cluster already: make a token for the next one with `sotto-relay cluster token`",
        layout.root().display()
    );
    ensure!(
        layout.accounts().is_dir(),
        "{} has no key store: bootstrap the machine on which `sotto-gateway init` was run",
        layout.root().display()
    );
    let (node, routes, admission) = args.places.of(&config.public_host, config.nats.listen)?;
    private_files::create_dir(&layout.cluster())?;
    cluster::create_authority(&layout, &config.server_name)?;
    let own = cluster::issue_own(&layout, routes.host())?;
    let members = Members {
        serial: 1,
        nodes: vec![Member {
            name: node.name.clone(),
            nats_url: config.nats_url(),
            routes,
            admission,
            key: own.key,
            certificate: own.fingerprint,
            keeps_keys: true,
        }],
        replaced: Vec::new(),
    };
    members.save(&layout)?;
    let system = NatsAccounts::read(&layout)?.system;
    let cluster = Cluster {
        node: node.clone(),
        members,
    };
    adoption::put_back(&layout)?;
    if adoption::has_streams(&layout, &system)? {
        let binary = NatsBinary::find(args.nats_server.as_deref(), &layout)?;
        adoption::adopt(&layout, &config, &cluster, &system, &binary).await?;
    } else {
        peer_state::forget(&layout, &system)?;
        peer_state::write_first(&layout, &system, [&node.name])?;
    }
    node.save(&layout)?;
    Ok(())
}
