//! What `accounts status` prints.

use sotto_jwt_accounts::keystore::KeyStore;
use sotto_jwt_accounts::{AccountVersion, HeldAccount, held_accounts};

/// Prints, for every account and server, which version is in force.
#[expect(clippy::print_stdout, reason = "what the command is for")]
pub(super) async fn status(
    keys: &KeyStore,
    system: &async_nats::Client,
    json: bool,
) -> anyhow::Result<()> {
    for account in keys.resolver_preload()? {
        let stored = AccountVersion::of(&account.jwt);
        for held in held_accounts(system, &account.id).await? {
            let state = state(&held, &account.jwt);
            if json {
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
                println!("{line}");
            } else {
                let hash = held.version.as_ref().map_or("-", |version| &version.hash);
                println!("{}  {:20}  {hash:16}  {state}", account.id, held.server);
            }
        }
    }
    Ok(())
}

fn state(held: &HeldAccount, jwt: &str) -> &'static str {
    match &held.version {
        None => "not loaded",
        Some(_) if held.is(jwt) => "current",
        Some(_) => "behind",
    }
}
