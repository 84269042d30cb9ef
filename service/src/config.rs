//! The configuration of a private server.
//!
//! One precedence, the same for every setting and every server program: a flag
//! wins over an environment variable, which wins over `server.toml`
//! ([`sources`]). [`command`] checks and shows what comes of it.

pub mod command;
mod nearest;
pub mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sotto_proto::{OrgName, ProjectName};

use crate::Layout;
pub use crate::config::sources::{ServerArgs, Sources};
use crate::consul::ConsulConfig;
pub use crate::limits::{Limits, LimitsConfig};
use crate::private_files::{self, FileError};
use crate::watch::Loopback;

/// Longest configuration file that is read, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

/// What `server.toml` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Names this server to NATS and in what devices sign.
    pub server_name: String,
    /// Host name or IP address by which clients reach it; the certificate is
    /// for this name, `localhost` and the loopback addresses.
    pub public_host: String,
    /// How many `MAIL-` and `BLOB-` streams an org's rooms are spread over.
    /// May grow; never make it smaller.
    pub shards: NonZeroU8,
    /// Where the gateway listens.
    pub gateway: GatewayConfig,
    /// Where nats-server listens.
    pub nats: NatsConfig,
    /// How the keys of accounts are opened.
    #[serde(default, skip_serializing_if = "KeysConfig::is_default")]
    pub keys: KeysConfig,
    /// Who sends text messages; without it nobody can prove the factor SMS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sms: Option<SmsConfig>,
    /// The relay's own.
    #[serde(default, skip_serializing_if = "RelayConfig::is_default")]
    pub relay: RelayConfig,
    /// How much orgs may store, and how fast. The same on every node.
    #[serde(default, skip_serializing_if = "LimitsConfig::is_empty")]
    pub limits: LimitsConfig,
    /// Where Consul is; without it, nothing asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consul: Option<ConsulConfig>,
    /// The organisations served here.
    pub orgs: Vec<OrgConfig>,
}

/// An HTTPS server that sends text messages: a JSON object is posted to it for
/// each. Any answer of 2xx says that it was taken in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmsConfig {
    /// `https://…`
    pub url: String,
    /// A file with what goes after `Authorization: Bearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_file: Option<PathBuf>,
    /// Authorities of that server's certificate, PEM; without it, those that
    /// the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The fields of the object; `{number}` and `{text}` in their values are
    /// filled in.
    pub fields: BTreeMap<String, String>,
}

impl SmsConfig {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = self.bearer_file.iter().chain(&self.ca_file);
        files.map(PathBuf::as_path)
    }
}

/// The gateway's part of `server.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// HTTPS.
    pub listen: SocketAddr,
    /// Where browsers reach it, `https://name` or `https://name:port`: what
    /// passkeys and security keys are bound to, so changing the name makes all
    /// of them useless. Without it, `public_host` and the port of `listen`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The folder of releases that is handed out below `/releases`, to programs
    /// that update themselves. An absolute path; without it nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub releases: Option<PathBuf>,
    /// Where the gateway is watched ([`crate::watch`]): a loopback address.
    /// Without it nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Loopback>,
    /// Addresses of proxies and of tunnels' private ends: each connection from
    /// there begins with a PROXY header (version 2), or is closed, and counts
    /// in the limits for the address that the header names.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub proxy_protocol_from: BTreeSet<IpAddr>,
}

/// nats-server's part of `server.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// Clients, TLS.
    pub listen: SocketAddr,
}

/// The key store's part of `server.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysConfig {
    /// The file with the passphrase that opens the seeds, instead of `unlock` in
    /// the server's directory; `SOTTO_UNLOCK_FILE` and a systemd credential
    /// `sotto-unlock` go before it. An absolute path.
    pub passphrase_file: Option<PathBuf>,
}

impl KeysConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The relay's part of `server.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RelayConfig {
    /// Where the relay is watched ([`crate::watch`]): a loopback address.
    /// Without it nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Loopback>,
}

impl RelayConfig {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One organisation of `server.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrgConfig {
    /// Its name.
    pub name: OrgName,
    /// Its first project, made when the gateway first serves the org.
    pub project: ProjectName,
    /// How much it may store, where that is not as for all.
    #[serde(default, skip_serializing_if = "LimitsConfig::is_empty")]
    pub limits: LimitsConfig,
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The directory holds no server.
    #[error("there is no Sotto server in {0}: make one with `sotto-gateway init --dir {0}`")]
    NotInitialised(String),
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is said in the environment or by flags does not fit.
    #[error("{origin} does not fit: {problem}")]
    Override {
        /// Who said it.
        origin: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The file is not what is expected; the message names the line and key.
    #[error("{path} is not a valid configuration: {problem}")]
    Invalid {
        /// The file.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl ServerConfig {
    /// Reads `server.toml`. Unknown keys are errors.
    ///
    /// # Errors
    /// When it is missing, unreadable or invalid.
    pub fn load(layout: &Layout) -> Result<Self, ConfigError> {
        if !layout.is_initialised() {
            let root = layout.root().display().to_string();
            return Err(ConfigError::NotInitialised(root));
        }
        let path = layout.config();
        let text = private_files::read_text(&path, FILE_MAX)?;
        Self::read(&text).map_err(|problem| ConfigError::Invalid {
            path: path.display().to_string(),
            problem,
        })
    }

    fn read(text: &str) -> Result<Self, String> {
        toml::from_str(text)
            .map_err(|error| nearest::explain(&error))
            .and_then(Self::checked)
    }

    /// Writes `server.toml`, durably.
    ///
    /// # Errors
    /// When what it would say is invalid, or the file cannot be written.
    pub fn save(&self, layout: &Layout) -> Result<(), ConfigError> {
        let path = layout.config();
        let text = self
            .clone()
            .checked()
            .and_then(|config| toml::to_string(&config).map_err(|error| error.to_string()))
            .map_err(|problem| ConfigError::Invalid {
                path: path.display().to_string(),
                problem,
            })?;
        Ok(private_files::write(&path, text.as_bytes())?)
    }

    /// The names and addresses that the server's certificate must be for.
    pub fn certificate_hosts(&self) -> Vec<String> {
        certificate_hosts(&self.public_host, self.nats.listen)
    }

    /// Where browsers reach the gateway, which listens on `port`.
    pub fn origin(&self, port: u16) -> String {
        match (&self.gateway.origin, self.public_host.parse()) {
            (Some(origin), _) => origin.clone(),
            (None, Ok(IpAddr::V6(address))) => format!("https://[{address}]:{port}"),
            (None, _) => format!("https://{}:{port}", self.public_host),
        }
    }

    /// Where clients reach NATS.
    pub fn nats_url(&self) -> String {
        let port = self.nats.listen.port();
        match self.public_host.parse::<IpAddr>() {
            Ok(address) => format!("tls://{}", SocketAddr::new(address, port)),
            Err(_) => format!("tls://{}:{port}", self.public_host),
        }
    }

    /// Where processes on this machine reach NATS.
    pub fn local_nats_url(&self) -> String {
        format!("tls://{}", from_here(self.nats.listen))
    }

    fn checked(self) -> Result<Self, String> {
        let name_fits = |text: &str| {
            (1..=253).contains(&text.len())
                && text
                    .bytes()
                    .all(|c| c.is_ascii_alphanumeric() || b"-.:_".contains(&c))
        };
        if !name_fits(&self.server_name) {
            return Err("`server_name` may hold only letters, digits and `-._:`".to_owned());
        }
        if !name_fits(&self.public_host) {
            return Err("`public_host` must be a host name or an IP address".to_owned());
        }
        let passphrase_file = self.keys.passphrase_file.as_deref();
        if passphrase_file.is_some_and(Path::is_relative) {
            return Err("`passphrase_file` must be an absolute path".to_owned());
        }
        if self
            .gateway
            .releases
            .as_deref()
            .is_some_and(Path::is_relative)
        {
            return Err("`[gateway] releases` must be an absolute path".to_owned());
        }
        let proxies = &self.gateway.proxy_protocol_from;
        if proxies.iter().any(IpAddr::is_unspecified) {
            return Err(
                "`[gateway] proxy_protocol_from` must name the address of each proxy".to_owned(),
            );
        }
        if let Some(sms) = &self.sms {
            let holds = |what: &str| sms.fields.values().any(|value| value.contains(what));
            if !holds("{number}") || !holds("{text}") {
                return Err("`fields` of [sms] must hold `{number}` and `{text}`".to_owned());
            }
            if sms.files().any(Path::is_relative) {
                return Err("the files of [sms] must be absolute paths".to_owned());
            }
        }
        if let Some(consul) = &self.consul
            && consul.files().any(Path::is_relative)
        {
            return Err("the files of [consul] must be absolute paths".to_owned());
        }
        let mut names: Vec<&OrgName> = self.orgs.iter().map(|org| &org.name).collect();
        names.sort_unstable();
        if let Some([twice, _]) = names.array_windows().find(|[a, b]| a == b) {
            return Err(format!("the org `{twice}` is there twice"));
        }
        Ok(self)
    }
}

/// Where processes on this machine reach what listens there.
pub fn from_here(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
    };
    SocketAddr::new(address, listen.port())
}

/// The names and addresses that the certificate of a machine must be for
/// which people reach by this name or address, and its own processes where its
/// nats-server listens.
pub fn certificate_hosts(public_host: &str, nats_listen: SocketAddr) -> Vec<String> {
    let mut hosts = vec![
        "localhost".to_owned(),
        Ipv4Addr::LOCALHOST.to_string(),
        Ipv6Addr::LOCALHOST.to_string(),
    ];
    for host in [
        from_here(nats_listen).ip().to_string(),
        public_host.to_owned(),
    ] {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

#[cfg(test)]
pub(crate) mod tests;
