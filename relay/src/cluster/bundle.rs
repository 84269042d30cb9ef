//! What a node needs besides its own keys: the credentials of relays, the
//! accounts, the orgs. It changes when an org is added or keys are rotated,
//! and then goes to every node.

use std::fs;
use std::path::{Component, Path};

use anyhow::{Context, Result, bail, ensure};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use sotto_service::private_files;
use sotto_service::{Layout, OrgConfig, ServerConfig};
use zeroize::Zeroizing;

use crate::nats_server::NatsAccounts;

/// Longest file in a bundle, in bytes.
const FILE_MAX: u64 = 256 * 1024;
/// Files of a key store at most, and folders in one another.
const STORE_FILES: usize = 20_000;
const STORE_DEPTH: usize = 8;

/// What every relay needs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// The gateway's public key, hexadecimal.
    gateway_public_key: String,
    /// Credentials in the system account.
    system: String,
    /// What nats-server knows of accounts.
    pub accounts: NatsAccounts,
    /// Each org with its credentials.
    orgs: Vec<OrgFiles>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct OrgFiles {
    org: OrgConfig,
    relay: String,
    relay_devices: String,
}

/// What a gateway needs besides.
#[derive(Serialize, Deserialize)]
pub struct KeeperFiles {
    authority_key: String,
    cluster_authority_key: String,
    gateway_key: String,
    gateway_system: String,
    opaque_setup: String,
    /// The gateway's credentials in the system account.
    system: String,
    /// Each org's name with the gateway's credentials.
    gateways: Vec<(OrgConfig, String)>,
    /// The key store, sealed: paths below it and contents.
    store: Vec<(String, String)>,
}

impl Bundle {
    /// What is on this machine.
    ///
    /// # Errors
    /// When a file does not read.
    pub fn read(layout: &Layout) -> Result<Self> {
        let config = ServerConfig::load(layout)?;
        let orgs = config.orgs.into_iter().map(|org| {
            anyhow::Ok(OrgFiles {
                relay: file(&layout.relay_creds(&org.name))?,
                relay_devices: file(&layout.relay_devices_creds(&org.name))?,
                org,
            })
        });
        Ok(Self {
            gateway_public_key: file(&layout.gateway_public_key())?,
            system: file(&layout.system_creds())?,
            accounts: NatsAccounts::read(layout)?,
            orgs: orgs.collect::<Result<_>>()?,
        })
    }

    /// Which bundle this is.
    pub fn digest(&self) -> String {
        // A struct of texts does serialise.
        let json = Zeroizing::new(serde_json::to_vec(self).unwrap_or_default());
        HEXLOWER.encode(&Sha256::digest(&*json))
    }

    /// Writes everything where it belongs.
    ///
    /// # Errors
    /// When it cannot be, or something in it is not what it should be.
    pub fn save(&self, layout: &Layout) -> Result<()> {
        ensure!(
            self.accounts.can_be_written(),
            "the accounts that were sent do not read"
        );
        let write = |path: &Path, text: &str| private_files::write(path, text.as_bytes());
        write(&layout.gateway_public_key(), &self.gateway_public_key)?;
        write(&layout.system_creds(), &self.system)?;
        for OrgFiles {
            org,
            relay,
            relay_devices,
        } in &self.orgs
        {
            write(&layout.relay_creds(&org.name), relay)?;
            write(&layout.relay_devices_creds(&org.name), relay_devices)?;
        }
        Ok(self.accounts.save(layout)?)
    }

    /// The orgs that are to be served.
    pub fn orgs(&self) -> impl Iterator<Item = &OrgConfig> {
        self.orgs.iter().map(|files| &files.org)
    }
}

impl KeeperFiles {
    /// What is on this machine.
    ///
    /// # Errors
    /// When a file does not read.
    pub fn read(layout: &Layout) -> Result<Self> {
        let config = ServerConfig::load(layout)?;
        let gateways = config.orgs.into_iter().map(|org| {
            let credentials = file(&layout.gateway_creds(&org.name))?;
            anyhow::Ok((org, credentials))
        });
        let mut store = Vec::new();
        collect(&layout.accounts(), Path::new(""), &mut store)?;
        Ok(Self {
            authority_key: file(&layout.authority_key())?,
            cluster_authority_key: file(&layout.cluster_authority_key())?,
            gateway_key: file(&layout.gateway_key())?,
            gateway_system: file(&layout.gateway_system_creds())?,
            opaque_setup: file(&layout.opaque_setup())?,
            system: file(&layout.gateway_system_creds())?,
            gateways: gateways.collect::<Result<_>>()?,
            store,
        })
    }

    /// Writes everything where it belongs.
    ///
    /// # Errors
    /// When it cannot be, or a path leads out of the key store.
    pub fn save(&self, layout: &Layout) -> Result<()> {
        let write = |path: &Path, text: &str| private_files::write(path, text.as_bytes());
        write(&layout.authority_key(), &self.authority_key)?;
        write(&layout.cluster_authority_key(), &self.cluster_authority_key)?;
        write(&layout.gateway_key(), &self.gateway_key)?;
        write(&layout.gateway_system_creds(), &self.gateway_system)?;
        write(&layout.opaque_setup(), &self.opaque_setup)?;
        write(&layout.gateway_system_creds(), &self.system)?;
        for (org, credentials) in &self.gateways {
            write(&layout.gateway_creds(&org.name), credentials)?;
        }
        for (path, content) in &self.store {
            let path = layout.accounts().join(within(Path::new(path))?);
            if let Some(folder) = path.parent() {
                private_files::create_dir(folder)?;
            }
            write(&path, content)?;
        }
        Ok(())
    }
}

/// The files below `root/at`, in no order.
fn collect(root: &Path, at: &Path, files: &mut Vec<(String, String)>) -> Result<()> {
    let folder = root.join(at);
    ensure!(
        at.components().count() < STORE_DEPTH,
        "{} lies too deep",
        folder.display()
    );
    let listed = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in listed {
        let entry = entry?;
        let path = at.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(root, &path, files)?;
        } else {
            ensure!(
                files.len() < STORE_FILES,
                "the key store has too many files"
            );
            let name = path.to_str().context("a file's name is not text")?;
            files.push((name.to_owned(), file(&root.join(&path))?));
        }
    }
    Ok(())
}

/// A path that stays below where it is joined to.
fn within(path: &Path) -> Result<&Path> {
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if path.components().all(plain) && path.components().count() <= STORE_DEPTH {
        Ok(path)
    } else {
        bail!("the key store that was sent has a file outside of it")
    }
}

fn file(path: &Path) -> Result<String> {
    Ok(private_files::read_text(path, FILE_MAX)?)
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_outside_of_the_key_store() {
        for bad in ["../x", "/etc/x", "a/../../x", "./x", "a/b/c/d/e/f/g/h/i"] {
            assert!(within(Path::new(bad)).is_err(), "{bad}");
        }
        assert!(within(Path::new("orgs/acme/org/signing.seed")).is_ok());
    }
}
