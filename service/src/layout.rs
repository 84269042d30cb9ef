//! Where a private server keeps what: the one place that joins paths.

use std::path::{Path, PathBuf};

use sotto_proto::OrgName;

use crate::private_files::{self, FileError};

/// The data directory of one private server. Every folder in it has mode 0700
/// and every file 0600.
///
/// | path | what |
/// |---|---|
/// | `server.toml` | [`crate::ServerConfig`]; written last, so that its presence means the directory is complete |
/// | `accounts/` | sealed seeds and JWTs of the operator and of each org's account |
/// | `unlock` | the passphrase that opens those seeds; may be kept elsewhere |
/// | `gateway/` | the gateway's signing key and OPAQUE set-up |
/// | `tls/` | the server's own certificate authority and its certificate |
/// | `creds/` | NATS credentials of the relay, the gateway and the system user |
/// | `nats/` | nats-server's configuration, streams, account JWTs, pid and log, and the program itself where a release of the relay carries it |
/// | `first-invite-<org>` | the first admin's invitation, until it is used |
/// | `directory/` | how far the relay and the gateway have read each org's directory |
/// | `cluster/` | of a node of a cluster: [`crate::cluster`] |
/// | `run/` | which processes serve now |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The layout below a directory that may not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Makes the directory and its folders where they are missing, but for
    /// `accounts/`, which the key store makes.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn create(&self) -> Result<(), FileError> {
        let folders = [
            self.root.clone(),
            self.gateway(),
            self.tls(),
            self.creds(),
            self.nats(),
            self.jetstream(),
            self.account_jwts(),
            self.directory(),
            self.run(),
        ];
        folders
            .iter()
            .try_for_each(|folder| private_files::create_dir(folder))
    }

    /// Whether a complete server is here.
    pub fn is_initialised(&self) -> bool {
        self.config().is_file()
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.root.join("server.toml")
    }

    /// The folder of the key store.
    pub fn accounts(&self) -> PathBuf {
        self.root.join("accounts")
    }

    /// The folder of the gateway's own secrets.
    pub fn gateway(&self) -> PathBuf {
        self.root.join("gateway")
    }

    /// Seed of the Ed25519 key that signs the directory and every JoinGrant.
    pub fn gateway_key(&self) -> PathBuf {
        self.gateway().join("gateway.key")
    }

    /// Its public half, 64 hexadecimal digits: what a relay checks the
    /// directory with.
    pub fn gateway_public_key(&self) -> PathBuf {
        self.gateway().join("gateway.pub")
    }

    /// The OPAQUE server set-up.
    pub fn opaque_setup(&self) -> PathBuf {
        self.gateway().join("opaque.setup")
    }

    /// The folder of certificates.
    pub fn tls(&self) -> PathBuf {
        self.root.join("tls")
    }

    /// The authority's certificate, PEM.
    pub fn authority(&self) -> PathBuf {
        self.tls().join("ca.pem")
    }

    /// The authority's private key, PEM.
    pub fn authority_key(&self) -> PathBuf {
        self.tls().join("ca.key")
    }

    /// The server's certificate followed by the authority's, PEM.
    pub fn server_certificate(&self) -> PathBuf {
        self.tls().join("server.pem")
    }

    /// The server's private key, PEM.
    pub fn server_key(&self) -> PathBuf {
        self.tls().join("server.key")
    }

    /// The folder of NATS credentials.
    pub fn creds(&self) -> PathBuf {
        self.root.join("creds")
    }

    /// Credentials of the relay in an org's account.
    pub fn relay_creds(&self, org: &OrgName) -> PathBuf {
        self.creds().join(format!("{org}.relay.creds"))
    }

    /// Credentials of the relay in the account of an org's devices.
    pub fn relay_devices_creds(&self, org: &OrgName) -> PathBuf {
        self.creds().join(format!("{org}.relay-devices.creds"))
    }

    /// Credentials of the gateway in an org's account.
    pub fn gateway_creds(&self, org: &OrgName) -> PathBuf {
        self.creds().join(format!("{org}.gateway.creds"))
    }

    /// Credentials, in the system account, of whoever runs the server.
    pub fn system_creds(&self) -> PathBuf {
        self.creds().join("system.creds")
    }

    /// Credentials of the gateway in the system account.
    pub fn gateway_system_creds(&self) -> PathBuf {
        self.creds().join("gateway-system.creds")
    }

    /// The folder of nats-server.
    pub fn nats(&self) -> PathBuf {
        self.root.join("nats")
    }

    /// The folder of the nats-server that a release of the relay unpacks.
    pub fn nats_programs(&self) -> PathBuf {
        self.nats().join("bin")
    }

    /// nats-server's configuration.
    pub fn nats_config(&self) -> PathBuf {
        self.nats().join("nats.conf")
    }

    /// The streams.
    pub fn jetstream(&self) -> PathBuf {
        self.nats().join("jetstream")
    }

    /// The account JWTs that nats-server's resolver keeps.
    pub fn account_jwts(&self) -> PathBuf {
        self.nats().join("jwt")
    }

    /// The process id of nats-server, as it writes it itself.
    pub fn nats_pid(&self) -> PathBuf {
        self.nats().join("nats.pid")
    }

    /// What nats-server says.
    pub fn nats_log(&self) -> PathBuf {
        self.nats().join("nats.log")
    }

    /// The configuration of the server that keeps a lonely node company.
    pub fn witness_config(&self) -> PathBuf {
        self.nats().join("witness.conf")
    }

    /// What that server says.
    pub fn witness_log(&self) -> PathBuf {
        self.nats().join("witness.log")
    }

    /// The folder of what a node of a cluster knows of it.
    pub fn cluster(&self) -> PathBuf {
        self.root.join("cluster")
    }

    /// Which node this is; there from the moment the server is one.
    pub fn cluster_node(&self) -> PathBuf {
        self.cluster().join("node.json")
    }

    /// All nodes.
    pub fn cluster_members(&self) -> PathBuf {
        self.cluster().join("members.json")
    }

    /// The cluster authority's certificate, PEM.
    pub fn cluster_authority(&self) -> PathBuf {
        self.cluster().join("ca.pem")
    }

    /// Its private key, PEM, on nodes that keep the keys.
    pub fn cluster_authority_key(&self) -> PathBuf {
        self.cluster().join("ca.key")
    }

    /// This node's certificate, PEM.
    pub fn node_certificate(&self) -> PathBuf {
        self.cluster().join("node.pem")
    }

    /// Its private key, PEM.
    pub fn node_key(&self) -> PathBuf {
        self.cluster().join("node.key")
    }

    /// The accounts, on a node without a key store.
    pub fn cluster_accounts(&self) -> PathBuf {
        self.cluster().join("accounts.json")
    }

    /// What may join, on nodes that keep the keys.
    pub fn cluster_tokens(&self) -> PathBuf {
        self.cluster().join("tokens.json")
    }

    /// In which run of the operating system the node ran last, and how it
    /// ended.
    pub fn cluster_last_run(&self) -> PathBuf {
        self.cluster().join("last-run.json")
    }

    /// The first admin's invitation of an org, one line of text.
    pub fn first_invite(&self, org: &OrgName) -> PathBuf {
        self.root.join(format!("first-invite-{org}"))
    }

    /// The folder of what was read of each org's directory.
    pub fn directory(&self) -> PathBuf {
        self.root.join("directory")
    }

    /// How far a program (`relay`, `gateway`) has read an org's directory; it
    /// can be deleted at any time.
    pub fn directory_snapshot(&self, org: &OrgName, program: &str) -> PathBuf {
        self.directory().join(format!("{org}.{program}.snapshot"))
    }

    /// The folder that says which processes serve now.
    pub fn run(&self) -> PathBuf {
        self.root.join("run")
    }

    /// Locked by the relay while it runs, so that there is one.
    pub fn relay_lock(&self) -> PathBuf {
        self.run().join("relay.lock")
    }

    /// There while the relay serves: [`crate::readiness`].
    pub fn relay_ready(&self) -> PathBuf {
        self.run().join("relay.json")
    }

    /// There while the gateway serves: [`crate::readiness`].
    pub fn gateway_ready(&self) -> PathBuf {
        self.run().join("gateway.json")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn every_folder_is_private() {
        let parent = tempfile::tempdir().unwrap();
        let layout = Layout::new(parent.path().join("new/server"));
        layout.create().unwrap();
        layout.create().unwrap();
        for folder in [layout.root().to_owned(), layout.tls(), layout.jetstream()] {
            let mode = folder.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
        }
        assert!(!layout.is_initialised());
    }
}
