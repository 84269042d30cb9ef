//! `accounts nsc`: the accounts as other NATS tools keep them.

use std::path::PathBuf;

use anyhow::ensure;
use sotto_jwt_accounts::nsc::{self, NscStore, Seeds};
use sotto_service::{Layout, ServerConfig};

use crate::provision;

/// What is exchanged with `nsc`.
#[derive(Debug, clap::Subcommand)]
pub(super) enum NscCommand {
    /// Write the operator and every account to a new folder, for
    /// `nsc --data-dir DIR/stores --keystore-dir DIR/keys`.
    Export(ExportArgs),
    /// Read a folder by nsc, check every signature and seed in it, and show what
    /// it has. To make a server under its operator: `sotto-gateway init --nsc`.
    Import(ImportArgs),
}

#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// The folder to make.
    #[arg(value_name = "NSC_DIR")]
    to: PathBuf,
    /// Write the seeds too. They are not sealed there: whoever reads the folder
    /// is the operator.
    #[arg(long)]
    with_seeds: bool,
    /// Say what was written as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct ImportArgs {
    /// The folder with nsc's `stores` and `keys` in it.
    #[arg(value_name = "NSC_DIR")]
    from: PathBuf,
    /// Which operator, when there are several.
    #[arg(long, value_name = "NAME")]
    operator: Option<String>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Does one command.
pub(super) fn run(layout: &Layout, command: &NscCommand) -> anyhow::Result<()> {
    match command {
        NscCommand::Export(args) => export(layout, args),
        NscCommand::Import(args) => import(args),
    }
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn export(layout: &Layout, args: &ExportArgs) -> anyhow::Result<()> {
    let keys = provision::open_keys(layout, &ServerConfig::load(layout)?)?;
    ensure!(
        !(args.with_seeds && args.to.starts_with(layout.root())),
        "{} is within the server's directory, where seeds are sealed: name a folder elsewhere",
        args.to.display()
    );
    let seeds = if args.with_seeds {
        Seeds::With
    } else {
        Seeds::Without
    };
    let exported = nsc::export(&keys, &args.to, seeds)?;
    if args.json {
        let line = serde_json::json!({
            "operator": exported.operator,
            "accounts": exported.accounts,
            "seeds": exported.seeds,
            "seeds_away": exported.away,
        });
        println!("{line}");
        return Ok(());
    }
    println!(
        "operator {}: {} accounts and {} seeds",
        exported.operator, exported.accounts, exported.seeds
    );
    for seed in exported.away {
        println!("not on this machine: {}", seed.display());
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let store = nsc::import(&args.from, args.operator.as_deref())?;
    if args.json {
        println!("{}", json(&store));
        return Ok(());
    }
    let operator = &store.operator;
    println!("operator {}  {}", operator.id, operator.name);
    for account in &store.accounts {
        println!("account  {}  {}", account.token.id, account.token.name);
        for user in &account.users {
            println!("user     {}  {}", user.token.id, user.token.name);
        }
    }
    println!("{} seeds", store.seeds());
    Ok(())
}

fn json(store: &NscStore) -> serde_json::Value {
    let accounts = store.accounts.iter().map(|account| {
        let users = account.users.iter().map(|user| {
            serde_json::json!({
                "name": user.token.name,
                "id": user.token.id,
                "credentials": user.credentials.is_some(),
            })
        });
        serde_json::json!({
            "name": account.token.name,
            "id": account.token.id,
            "users": users.collect::<Vec<_>>(),
        })
    });
    serde_json::json!({
        "operator": store.operator.name,
        "id": store.operator.id,
        "accounts": accounts.collect::<Vec<_>>(),
        "seeds": store.seeds(),
    })
}
