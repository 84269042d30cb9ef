//! `sotto-relay cluster`: what whoever runs the servers asks and does.

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use async_nats::Client;
use sotto_jwt_accounts::grants::SYSTEM_INBOX;
use sotto_service::cluster::{self, Cluster, NodeName};
use sotto_service::nats::{self, Login};
use sotto_service::{Layout, ServerConfig};

use super::remove;
use super::replacement;
use super::status::Status;
use super::tokens::{self, Permitted};

/// Longest life of a token, in hours.
const HOURS_MAX: u32 = 7 * 24;
/// Longest answer that is typed, in bytes.
const ANSWER_MAX: u64 = 80;

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
    Token(TokenArgs),
    /// Show the nodes, who leads each stream, and who is behind.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Take a node out for good that was stopped or lost, without another in
    /// its place.
    Remove {
        /// The node.
        node: NodeName,

        /// Do it though everything is kept fewer times then, without asking.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
struct TokenArgs {
    /// Let the machine in for this node, which is lost for good: nothing is
    /// kept fewer times meanwhile, and the lost one is taken out by itself.
    #[arg(long, value_name = "NODE")]
    replaces: Option<NodeName>,

    /// Let the machine be a gateway, too: it gets the key store, sealed.
    #[arg(long)]
    gateway: bool,

    /// For how many hours it is good.
    #[arg(long, default_value = "24", value_name = "HOURS")]
    hours: u32,

    /// As JSON.
    #[arg(long)]
    json: bool,
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
        ClusterCommand::Token(args) => {
            ensure!(
                layout.cluster_authority_key().is_file(),
                "this node does not keep the keys: make the token on one that does"
            );
            if let Some(lost) = &args.replaces {
                replacement::ask(&layout, &cluster, &system(&layout).await?, lost).await?;
            }
            token(&layout, &cluster, args)
        }
        ClusterCommand::Status { json } => {
            let status = Status::ask(&cluster, &system(&layout).await?).await?;
            show(&status, *json)
        }
        ClusterCommand::Remove { node, yes } => {
            let config = ServerConfig::load(&layout)?;
            let system = system(&layout).await?;
            let agreed = |what: &str| if *yes { Ok(()) } else { agreed(what) };
            remove::remove(&layout, &config, &cluster, &system, node, agreed).await?;
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

/// Asks at a terminal whether that is to be.
#[expect(clippy::print_stderr, reason = "a question")]
fn agreed(what: &str) -> Result<()> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        bail!("{what}; or say --yes");
    }
    eprint!("{what}.\nRemove it all the same? [y/N]: ");
    let mut typed = String::new();
    io::BufRead::read_line(&mut stdin.lock().take(ANSWER_MAX), &mut typed)?;
    match typed.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was changed"),
    }
}

/// A route from it is refused, but its files hold credentials of relays.
#[expect(clippy::print_stderr, reason = "what to do next")]
fn advise(node: &NodeName) {
    eprintln!(
        "{node} is no node any more. If others can read its disk, rotate the keys: `sotto-gateway accounts rotate`."
    );
}

#[expect(clippy::print_stdout, reason = "the token is what was asked for")]
fn token(layout: &Layout, cluster: &Cluster, args: &TokenArgs) -> Result<()> {
    let TokenArgs {
        replaces,
        gateway,
        hours,
        json,
    } = args;
    let (gateway, hours) = (*gateway, *hours);
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
        Permitted {
            gateway,
            replaces: replaces.clone(),
        },
        i64::try_from(now.as_millis())?,
        i64::try_from(expires.as_millis())?,
    )?;
    let token = token.to_text();
    if *json {
        let line = serde_json::json!({
            "address": address, "token": *token, "gateway": gateway, "replaces": replaces,
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
