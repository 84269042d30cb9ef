//! `sotto-relay cluster`: what whoever runs the servers asks and does.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use async_nats::Client;
use sotto_jwt_accounts::grants::SYSTEM_INBOX;
use sotto_service::cluster::{self, Cluster, NodeName};
use sotto_service::nats::{self, Login};
use sotto_service::{Layout, ServerConfig};

use super::remove;
use super::status::Status;
use super::tokens::{self, Permitted};

/// Longest life of a token, in hours.
const HOURS_MAX: u32 = 7 * 24;

/// What of a cluster.
#[derive(Debug, clap::Args)]
pub struct ClusterArgs {
    /// The data directory of a node.
    #[arg(
        long,
        env = "SOTTO_SERVER_DIR",
        value_name = "DIR",
        global = true,
        default_value = "."
    )]
    dir: PathBuf,

    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ClusterCommand {
    /// Make a token by which one machine joins, and print the command for it.
    Token {
        /// Let the machine be a gateway, too: it gets the key store, sealed.
        #[arg(long)]
        gateway: bool,

        /// For how many hours it is good.
        #[arg(long, default_value = "24", value_name = "HOURS")]
        hours: u32,

        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the nodes, who leads each stream, and who is behind.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take a node out for good that was stopped or lost.
    Remove {
        /// The node.
        node: NodeName,
    },
}

/// Does one command.
///
/// # Errors
/// When this is no node, or it cannot be done.
pub async fn run(args: &ClusterArgs) -> Result<()> {
    let root = std::fs::canonicalize(&args.dir)
        .with_context(|| format!("cannot find {}", args.dir.display()))?;
    let layout = Layout::new(root);
    let cluster = Cluster::load(&layout)?.with_context(|| {
        let root = layout.root().display();
        format!("{root} is no node of a cluster: make it one with `sotto-relay bootstrap`")
    })?;
    match &args.command {
        ClusterCommand::Token {
            gateway,
            hours,
            json,
        } => token(&layout, &cluster, *gateway, *hours, *json),
        ClusterCommand::Status { json } => {
            let status = Status::ask(&cluster, &system(&layout).await?).await?;
            show(&status, *json)
        }
        ClusterCommand::Remove { node } => {
            let config = ServerConfig::load(&layout)?;
            let system = system(&layout).await?;
            remove::remove(&layout, &config, &cluster, &system, node).await?;
            advise(node);
            Ok(())
        }
    }
}

async fn system(layout: &Layout) -> Result<Client> {
    let login = Login {
        name: "sotto-relay cluster",
        credentials: &layout.system_creds(),
        inbox_prefix: SYSTEM_INBOX,
    };
    let config = ServerConfig::load(layout)?;
    Ok(nats::connect_to_any(layout, &config, login).await?)
}

#[expect(clippy::print_stdout, reason = "the status is what was asked for")]
fn show(status: &Status, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string(status)?);
    } else {
        status.print();
    }
    Ok(())
}

/// A route from it is refused, but its files hold credentials of relays.
#[expect(clippy::print_stderr, reason = "what to do next")]
fn advise(node: &NodeName) {
    eprintln!(
        "{node} is no node any more. If others can read its disk, rotate the keys: `sotto-gateway accounts rotate`."
    );
}

#[expect(clippy::print_stdout, reason = "the token is what was asked for")]
fn token(layout: &Layout, cluster: &Cluster, gateway: bool, hours: u32, json: bool) -> Result<()> {
    ensure!(
        layout.cluster_authority_key().is_file(),
        "this node does not keep the keys: make the token on one that does"
    );
    ensure!(
        (1..=HOURS_MAX).contains(&hours),
        "a token is good for 1 to {HOURS_MAX} hours"
    );
    let own = cluster.members.get(&cluster.node.name);
    let address = own.map(|own| own.admission.to_string()).unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let expires = now + Duration::from_secs(u64::from(hours) * 3_600);
    let token = tokens::make(
        layout,
        cluster::authority_fingerprint(layout)?,
        Permitted { gateway },
        i64::try_from(now.as_millis())?,
        i64::try_from(expires.as_millis())?,
    )?;
    let token = token.to_text();
    if json {
        let line = serde_json::json!({
            "address": address, "token": *token, "gateway": gateway,
            "expires_ms": u64::try_from(expires.as_millis())?,
        });
        println!("{line}");
    } else {
        println!(
            "sotto-relay join {address} --token {} --dir DIR --name NAME --public-host HOST",
            *token
        );
    }
    Ok(())
}
