//! What is wanted: what can be typed behind `sotto bootstrap`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use sotto_proto::{OrgName, ProjectName};
use sotto_service::cluster::NODES_MAX;
use sotto_service::unit;
use sotto_update::Digest;

use crate::Destination;

/// Where a server is kept, unless it is said.
pub const DIR: &str = "/srv/sotto";

/// The arguments of `bootstrap`.
#[derive(Debug, Clone, Args)]
pub struct Wish {
    /// The machines, as for ssh: USER@HOST, root or with sudo. One is a complete
    /// server, three lose nothing with any of them; on the first a new server's
    /// keys are made.
    #[arg(required = true, num_args = 1..=NODES_MAX, value_name = "USER@HOST")]
    pub machines: Vec<Destination>,

    /// The organisation to serve; `home` on a new server.
    #[arg(long, value_name = "NAME")]
    pub org: Option<OrgName>,

    /// Its first project; `general` on a new server.
    #[arg(long, value_name = "NAME")]
    pub project: Option<ProjectName>,

    /// Host name or IP address by which people reach a machine: once for each,
    /// in their order. Without it, the one by which ssh reaches it.
    #[arg(long = "public-host", value_name = "HOST")]
    pub public_hosts: Vec<String>,

    /// The same for how the machines reach each other; without it, as people.
    #[arg(long = "cluster-host", value_name = "HOST")]
    pub cluster_hosts: Vec<String>,

    /// Where new gateways listen (HTTPS); 0.0.0.0:8443 without it.
    #[arg(long, value_name = "IP:PORT")]
    pub gateway_listen: Option<SocketAddr>,

    /// Where new nats-servers listen (TLS); 0.0.0.0:4222 without it.
    #[arg(long, value_name = "IP:PORT")]
    pub nats_listen: Option<SocketAddr>,

    /// The server's folder on the machines; /srv/sotto without it.
    // The same name as that of all commands, so that it is read in its place.
    #[arg(long, env = "SOTTO_SERVER_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Only the first machine keeps the keys and is a gateway. Without it all
    /// are, so that people can log in whichever is lost.
    #[arg(long)]
    pub one_gateway: bool,

    /// The folder with the programs to send: sotto-relay, sotto-gateway and
    /// nats-server. Without it, the folder of this program.
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,

    /// How the machines update themselves.
    #[command(flatten)]
    pub updates: UpdatesWish,

    /// Show what would be done, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// How the machines update themselves: all of it or nothing.
#[derive(Debug, Clone, Default, Args)]
pub struct UpdatesWish {
    /// Where the machines get updates from, daily: https://…, or a folder of
    /// theirs. Without it they stay as they are until somebody updates them.
    #[arg(
        long = "updates",
        value_name = "SOURCE",
        value_parser = unit::plain_word,
        requires_all = ["root_of_trust", "fingerprint"]
    )]
    pub source: Option<String>,

    /// Whom they trust: the file 1.root.json of the releases.
    #[arg(long, value_name = "FILE", requires = "source")]
    pub root_of_trust: Option<PathBuf>,

    /// Its SHA-256 sum, as you were told by those who release.
    #[arg(long, value_name = "SHA256", requires = "source")]
    pub fingerprint: Option<Digest>,

    /// Authorities of the certificate of SOURCE, PEM, instead of the machines'
    /// own; a file of this machine.
    #[arg(long, value_name = "FILE", requires = "source")]
    pub updates_ca_file: Option<PathBuf>,
}
