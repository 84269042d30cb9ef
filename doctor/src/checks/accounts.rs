//! Whether every server has the newest version of each account's JWT in force:
//! what was revoked holds only where it is.

use futures::future;
use serde::Deserialize;
use sotto_jwt_accounts::claims::{Account, Claims};
use sotto_jwt_accounts::keystore::KeyStore;
use sotto_jwt_accounts::{AccountVersion, HeldAccount, held_accounts};
use sotto_service::{Layout, private_files};

use crate::finding::{Check, Finding};
use crate::server::Server;
use crate::system::System;

/// Accounts that are asked after at most.
const ACCOUNTS_MAX: usize = 500;
/// Longest file of accounts, in bytes.
const FILE_MAX: u64 = 16 * 1024 * 1024;

/// An account's JWT, as it is in the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stored {
    /// Its public key.
    id: String,
    /// As it calls itself.
    name: String,
    version: AccountVersion,
}

/// Asks the servers after every account. No seed is read for it.
pub(crate) async fn check(server: &Server, system: &System) -> Vec<Finding> {
    let layout = server.layout.clone();
    let read = tokio::task::spawn_blocking(move || stored(&layout)).await;
    let read = read.unwrap_or_else(|error| Err(error.to_string()));
    let stored = match read {
        Ok(stored) => stored,
        Err(why) => {
            return vec![Finding::problem(
                Check::Accounts,
                format!("the accounts do not read: {why}"),
                "restore the folder `accounts` (on a node without keys: `cluster`) from a backup of this server",
            )];
        }
    };
    let asking = stored.iter().take(ACCOUNTS_MAX).map(async |account| {
        let held = held_accounts(system.client(), &account.id).await;
        held.map(|held| (account, held))
    });
    let mut answers = Vec::new();
    for answer in future::join_all(asking).await {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(error) => {
                return vec![Finding::not_checked(
                    Check::Accounts,
                    error.to_string(),
                    "run this again; if it stays so, read the end of nats/nats.log",
                )];
            }
        }
    }
    judge(&answers)
}

/// From the key store, or on a node without one from what was sent to it.
fn stored(layout: &Layout) -> Result<Vec<Stored>, String> {
    #[derive(Deserialize)]
    struct Sent {
        preload: Vec<(String, String)>,
    }

    let jwts: Vec<(String, String)> = if layout.accounts().is_dir() {
        let keys = KeyStore::open(&layout.accounts()).map_err(|error| error.to_string())?;
        let accounts = keys.resolver_preload().map_err(|error| error.to_string())?;
        let pairs = accounts
            .into_iter()
            .map(|account| (account.id, account.jwt));
        pairs.collect()
    } else {
        let text = private_files::read_text(&layout.cluster_accounts(), FILE_MAX);
        let text = text.map_err(|error| error.to_string())?;
        let sent: Sent = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        sent.preload
    };
    let stored = jwts.into_iter().map(|(id, jwt)| {
        let damaged = || format!("the JWT of the account {id} is damaged");
        let version = AccountVersion::of(&jwt).ok_or_else(damaged)?;
        let verified = Claims::<Account>::verify(&jwt).map_err(|_| damaged())?;
        Ok(Stored {
            name: verified.claims.name,
            version,
            id,
        })
    });
    stored.collect()
}

fn judge(answers: &[(&Stored, Vec<HeldAccount>)]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = answers
        .iter()
        .flat_map(|(stored, held)| judge_account(stored, held))
        .collect();
    if findings.is_empty() {
        let servers: Vec<&str> = answers.first().map_or(Vec::new(), |(_, held)| {
            held.iter().map(|held| held.server.as_str()).collect()
        });
        let what = format!(
            "of all {} accounts the newest version is in force on {}",
            answers.len(),
            servers.join(", ")
        );
        findings.push(Finding::ok(Check::Accounts, what));
    }
    findings
}

fn judge_account(stored: &Stored, held: &[HeldAccount]) -> Vec<Finding> {
    let Stored { name, version, .. } = stored;
    let versions = held.iter().filter_map(|held| held.version.as_ref());
    // Of two of one second the one in the directory counts: max_by_key takes
    // the last.
    let newest = versions
        .chain([version])
        .max_by_key(|version| version.issued_s);
    // One that has not loaded the account will read the newest.
    let behind = held
        .iter()
        .filter(|held| held.version.is_some() && held.version.as_ref() != newest);
    let behind: Vec<&str> = behind.map(|held| held.server.as_str()).collect();
    let mut findings = Vec::new();
    if !behind.is_empty() {
        findings.push(Finding::problem(
            Check::Accounts,
            format!("{} has an older version of the account {name} in force: what was revoked since is still let in there", behind.join(", ")),
            "run this again in a minute; if it stays so, start sotto-gateway again, which hands every server the newest",
        ));
    }
    if newest != Some(version) {
        findings.push(Finding::warning(
            Check::Accounts,
            format!("the servers have a newer version of the account {name} than this directory"),
            "run this again in a minute, after which this node should have it; if it stays so, see that sotto-relay (on a gateway: sotto-gateway) runs here",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    fn version(issued_s: i64, hash: &str) -> AccountVersion {
        AccountVersion {
            issued_s,
            hash: hash.to_owned(),
        }
    }

    fn held(server: &str, version: Option<AccountVersion>) -> HeldAccount {
        HeldAccount {
            server: server.to_owned(),
            server_id: String::new(),
            version,
            jwt: None,
        }
    }

    fn judged(versions: [Option<AccountVersion>; 2]) -> Vec<Finding> {
        let stored = Stored {
            id: "A".to_owned(),
            name: "acme".to_owned(),
            version: version(2, "b"),
        };
        let [one, other] = versions;
        judge(&[(&stored, vec![held("n1", one), held("n2", other)])])
    }

    #[test]
    fn the_same_everywhere_is_fine() {
        let newest = || Some(version(2, "b"));
        for versions in [[newest(), newest()], [newest(), None], [None, None]] {
            assert_eq!(judged(versions)[0].level, Level::Ok);
        }
        assert!(judged([newest(), newest()])[0].what.contains("n1, n2"));
    }

    #[test]
    fn who_is_behind_is_named() {
        for older in [version(1, "b"), version(2, "a")] {
            let [finding] = &judged([Some(version(2, "b")), Some(older)])[..] else {
                panic!()
            };
            assert_eq!(finding.level, Level::Problem);
            assert!(finding.what.starts_with("n2 "), "{}", finding.what);
        }
    }

    #[test]
    fn a_directory_may_be_behind_itself() {
        let newer = || Some(version(3, "c"));
        let [finding] = &judged([newer(), newer()])[..] else {
            panic!()
        };
        assert_eq!(finding.level, Level::Warning);
        let split = judged([newer(), Some(version(2, "b"))]);
        assert_eq!(split.len(), 2);
    }
}
