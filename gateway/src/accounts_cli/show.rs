//! What `accounts status` prints.

use sotto_jwt_accounts::keystore::{Accounts, KeyStore};
use sotto_jwt_accounts::{AccountVersion, HeldAccount, held_accounts, trusted_operators};

/// Prints, for the operator and every account, which version each server has in
/// force, and which signing keys are still to be dropped.
pub(super) async fn status(
    keys: &KeyStore,
    system: &async_nats::Client,
    json: bool,
) -> anyhow::Result<()> {
    operator(keys, system, json).await?;
    for account in keys.resolver_preload()? {
        let stored = AccountVersion::of(&account.jwt);
        for held in held_accounts(system, &account.id).await? {
            let state = state(&held, &account.jwt);
            let line = serde_json::json!({
                "account": account.id,
                "server": held.server,
                "server_id": held.server_id,
                "state": state,
                "issued_s": held.version.as_ref().map(|version| version.issued_s),
                "hash": held.version.as_ref().map(|version| version.hash.clone()),
                "stored_issued_s": stored.as_ref().map(|version| version.issued_s),
                "stored_hash": stored.as_ref().map(|version| version.hash.clone()),
            });
            let hash = held.version.as_ref().map_or("-", |version| &version.hash);
            let text = format!("{}  {:20}  {hash:16}  {state}", account.id, held.server);
            say(json, &line, &text);
        }
    }
    old_keys(keys, json)
}

async fn operator(keys: &KeyStore, system: &async_nats::Client, json: bool) -> anyhow::Result<()> {
    let (id, jwt) = (keys.operator_id(), keys.operator_jwt());
    for trust in trusted_operators(system).await? {
        let state = match trust.is(jwt) {
            true => "current",
            false => "behind",
        };
        let server = &trust.server;
        let line = serde_json::json!({ "operator": id, "server": server, "state": state });
        let text = format!("{id}  {server:20}  {:16}  {state}", "operator");
        say(json, &line, &text);
    }
    Ok(())
}

fn old_keys(keys: &KeyStore, json: bool) -> anyhow::Result<()> {
    let orgs = keys.orgs()?;
    let groups = orgs.iter().map(|org| (Accounts::Org(org), org.as_str()));
    for (accounts, name) in [(Accounts::System, "system")].into_iter().chain(groups) {
        if let Some(old) = keys.old_keys(accounts)? {
            let count = old.keys.len();
            let line = serde_json::json!({
                "rotating": name, "old_keys": count, "unused_s": old.unused_s,
            });
            let text = format!("{name}: {count} old signing keys are to be dropped with --finish");
            say(json, &line, &text);
        }
    }
    if keys.next_operator_key()?.is_some() {
        let line = serde_json::json!({ "rotating": "operator" });
        let text = "operator: the next signing key is to be taken with --finish";
        say(json, &line, text);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn say(json: bool, line: &serde_json::Value, text: &str) {
    match json {
        true => println!("{line}"),
        false => println!("{text}"),
    }
}

fn state(held: &HeldAccount, jwt: &str) -> &'static str {
    match &held.version {
        None => "not loaded",
        Some(_) if held.is(jwt) => "current",
        Some(_) => "behind",
    }
}
