//! `sotto admin accounts`.

use clap::Subcommand;
use serde_json::{Value, json};
use sotto_proto::wire::{AccountHeld, AccountStanding, AccountVersion};

use crate::device::Context;

/// What can be typed after `sotto admin accounts`.
#[derive(Debug, Subcommand)]
pub enum Accounts {
    /// Show which version of the organisation's accounts each server has in
    /// force: what was revoked holds where the newest is.
    Status,
}

pub async fn run(context: &Context, command: Accounts) -> anyhow::Result<()> {
    match command {
        Accounts::Status => status(context).await,
    }
}

async fn status(context: &Context) -> anyhow::Result<()> {
    let device = context.open()?;
    let asking = device.session.nats_accounts();
    let asked = context.output.patiently("Asking the servers", asking).await;
    device.session.stop().await;
    for account in asked?.accounts {
        let stored = account.stored.clone().unwrap_or_default();
        for held in &account.held {
            let state = state(held, &stored);
            let hash = held.version.as_ref().map_or("-", |version| &version.hash);
            let text = format!("{}  {}  {hash}  {state}", account.name, held.server);
            context
                .output
                .say(&fields(&account, &stored, held, state), text)?;
        }
    }
    Ok(())
}

fn fields(
    account: &AccountStanding,
    stored: &AccountVersion,
    held: &AccountHeld,
    state: &str,
) -> Value {
    json!({
        "event": "account",
        "name": account.name,
        "account": account.account,
        "server": held.server,
        "state": state,
        "issued_s": held.version.as_ref().map(|version| version.issued_s),
        "hash": held.version.as_ref().map(|version| version.hash.clone()),
        "stored_issued_s": stored.issued_s,
        "stored_hash": stored.hash,
    })
}

fn state(held: &AccountHeld, stored: &AccountVersion) -> &'static str {
    match &held.version {
        None => "not loaded",
        Some(version) if version == stored => "current",
        Some(_) => "behind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stored_version_is_current() {
        let version = |issued_s, hash: &str| AccountVersion {
            issued_s,
            hash: hash.to_owned(),
        };
        let stored = version(2, "b");
        let held = |version| AccountHeld {
            server: "n1".to_owned(),
            version,
        };
        assert_eq!(state(&held(None), &stored), "not loaded");
        assert_eq!(state(&held(Some(stored.clone())), &stored), "current");
        for other in [version(1, "b"), version(2, "a")] {
            assert_eq!(state(&held(Some(other)), &stored), "behind");
        }
    }
}
