//! `sotto-gateway accounts`: the NATS accounts of a server, seen and changed
//! by whoever runs it. What nats-server is to know is pushed at once.

mod nsc;
mod rotate;
mod show;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use sotto_jwt_accounts::claims::Limit;
use sotto_jwt_accounts::grants::SYSTEM_INBOX;
use sotto_jwt_accounts::keystore::{Detachable, KeyStore, StorageLimits};
use sotto_jwt_accounts::push_account;
use sotto_proto::OrgName;
use sotto_service::{Layout, ServerConfig, nats};

use nsc::NscCommand;
use rotate::RotateCommand;

use crate::clock::{Clock, SystemClock};
use crate::{provision, signing};

/// The accounts of which server, and what of them.
#[derive(Debug, clap::Args)]
pub struct AccountsArgs {
    /// The server's data directory.
    #[arg(
        long,
        env = "SOTTO_SERVER_DIR",
        value_name = "DIR",
        global = true,
        default_value = "."
    )]
    dir: PathBuf,

    #[command(subcommand)]
    command: AccountsCommand,
}

#[derive(Debug, clap::Subcommand)]
enum AccountsCommand {
    #[command(flatten)]
    Server(ServerCommand),
    /// Seal the keys of a server that was made before keys were sealed.
    Seal,
    /// Exchange accounts with nsc, the tool of the NATS project.
    #[command(subcommand)]
    Nsc(NscCommand),
}

#[derive(Debug, clap::Subcommand)]
enum ServerCommand {
    /// Show which version of each account every NATS server has in force.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Hand every account to the NATS servers again, and show who has it.
    Push {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say anew what relays and gateways may do: after an update, or when
    /// `shards` in server.toml grew, before the relay is started.
    Refresh,
    /// Bound what an organisation stores.
    Limits {
        /// The organisation.
        org: OrgName,
        /// Bytes on disk at most.
        #[arg(long)]
        bytes: Option<u64>,
        /// Streams and buckets at most.
        #[arg(long)]
        streams: Option<u64>,
    },
    /// New signing keys, in two steps: first without --finish, later with it.
    #[command(subcommand)]
    Rotate(RotateCommand),
    /// Keep the operator's seeds off this machine.
    #[command(subcommand)]
    Operator(OperatorCommand),
}

#[derive(Debug, clap::Subcommand)]
enum OperatorCommand {
    /// Move a seed to a file elsewhere.
    Detach(SeedArgs),
    /// Bring a seed back from a file.
    Attach(SeedArgs),
}

#[derive(Debug, clap::Args)]
struct SeedArgs {
    /// The file.
    file: PathBuf,
    /// The signing seed, which adding organisations, limits and revocations
    /// need, instead of the identity seed.
    #[arg(long)]
    signing: bool,
}

/// Does one command.
///
/// # Errors
/// When the keys do not read, or a NATS server does not answer.
pub async fn run(args: &AccountsArgs) -> anyhow::Result<()> {
    let layout = Layout::new(&args.dir);
    match &args.command {
        AccountsCommand::Server(command) => of_server(&layout, command).await,
        AccountsCommand::Seal => seal(&layout),
        AccountsCommand::Nsc(command) => nsc::run(&layout, command),
    }
}

async fn of_server(layout: &Layout, command: &ServerCommand) -> anyhow::Result<()> {
    let config = ServerConfig::load(layout)?;
    let now_ms = SystemClock.now_ms();
    let keys = provision::open_keys(layout, &config)?;
    match command {
        ServerCommand::Refresh => refresh(layout, &config, &keys, now_ms).await,
        ServerCommand::Status { json } => {
            let system = system(layout, &config).await?;
            show::status(&keys, &system, *json).await
        }
        ServerCommand::Push { json } => {
            let accounts = keys.resolver_preload()?.into_iter();
            let jwts: Vec<String> = accounts.map(|account| account.jwt).collect();
            let system = system(layout, &config).await?;
            push_all(&system, jwts).await?;
            show::status(&keys, &system, *json).await
        }
        ServerCommand::Limits {
            org,
            bytes,
            streams,
        } => {
            let now = keys.storage_limits(org)?;
            let limits = StorageLimits {
                bytes: bytes.map_or(now.bytes, Limit::AtMost),
                streams: streams.map_or(now.streams, Limit::AtMost),
            };
            let jwt = keys.limit_storage(org, limits, now_ms)?;
            push(layout, &config, [jwt]).await
        }
        ServerCommand::Rotate(command) => rotate::run(layout, &config, command, now_ms).await,
        ServerCommand::Operator(OperatorCommand::Detach(seed)) => {
            ensure!(
                !seed.file.starts_with(layout.root()),
                "{} is within the server's directory: name a file elsewhere",
                seed.file.display()
            );
            Ok(keys.detach(which(seed), &seed.file)?)
        }
        ServerCommand::Operator(OperatorCommand::Attach(seed)) => {
            Ok(keys.attach(which(seed), &seed.file)?)
        }
    }
}

fn which(seed: &SeedArgs) -> Detachable {
    if seed.signing {
        Detachable::Signing
    } else {
        Detachable::Identity
    }
}

async fn push(
    layout: &Layout,
    config: &ServerConfig,
    jwts: impl IntoIterator<Item = String>,
) -> anyhow::Result<()> {
    let system = system(layout, config)
        .await
        .context("the change is stored, but not in force: start the server and push it")?;
    push_all(&system, jwts).await
}

async fn push_all(
    system: &async_nats::Client,
    jwts: impl IntoIterator<Item = String>,
) -> anyhow::Result<()> {
    for jwt in jwts {
        push_account(system, &jwt).await?;
    }
    Ok(())
}

/// A server that does not run learns it when the relay starts it.
async fn refresh(
    layout: &Layout,
    config: &ServerConfig,
    keys: &KeyStore,
    now_ms: i64,
) -> anyhow::Result<()> {
    let mut changed = Vec::new();
    for org in keys.orgs()? {
        let services = provision::services(config);
        changed.extend(signing::refreshed(keys, &org, services, now_ms)?);
    }
    if changed.is_empty() || !provision::relay_runs(layout) {
        return Ok(());
    }
    push(layout, config, changed).await
}

#[expect(clippy::print_stdout, reason = "what was done")]
fn seal(layout: &Layout) -> anyhow::Result<()> {
    let config = ServerConfig::load(layout)?;
    let sealed = KeyStore::seal(&layout.accounts(), config.keys.passphrase_file)?;
    println!("{sealed} keys are sealed now. Rotate them: copies may have stayed in the clear.");
    Ok(())
}

async fn system(layout: &Layout, config: &ServerConfig) -> anyhow::Result<async_nats::Client> {
    let login = nats::Login {
        name: "sotto-gateway accounts",
        credentials: &layout.system_creds(),
        inbox_prefix: SYSTEM_INBOX,
    };
    Ok(nats::connect(layout, config, login).await?)
}
