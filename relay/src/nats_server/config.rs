//! The configuration file of nats-server. It is written anew at every start:
//! whoever wants another setting changes `server.toml`.

use std::fmt::Write;
use std::path::Path;

use data_encoding::HEXLOWER;
use sotto_service::cluster::{Cluster, Member};
use sotto_service::nats::demands::{MAX_CONTROL_LINE, MAX_PAYLOAD};
use sotto_service::private_files::{self, FileError};
use sotto_service::{Layout, ServerConfig};

use super::accounts::{AccountsError, NatsAccounts};
use super::disk;

/// Seconds that a client may take for the TLS handshake, and as many for its
/// CONNECT: 2 KB each way at 2 kbit/s, and again for what is lost. NATS's own 2
/// seconds are too few for any poor network.
const HANDSHAKE: u32 = 120;
/// A client that takes nothing for so many seconds is dropped.
const WRITE_DEADLINE: u32 = 120;
/// The log is rotated at this size, in bytes, and so many old ones are kept.
const LOG_SIZE: usize = 16 * 1024 * 1024;
const LOGS_KEPT: usize = 3;
/// Over how long a node that stops sends its clients away, in seconds;
/// nats-server takes no less.
const LAME_DUCK_SECONDS: u32 = 30;

/// Why the configuration is not written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The accounts cannot be read.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
    /// The file cannot be written, or the disk not be asked for its size.
    #[error(transparent)]
    File(#[from] FileError),
    /// A path cannot stand in the file.
    #[error(
        "the path {0} holds characters that nats-server's configuration cannot: move the data directory"
    )]
    Path(String),
}

/// Writes the configurations of one run of nats-server.
#[derive(Debug, Clone, Copy)]
pub struct ConfigFile {
    /// What the streams may take, in bytes: the server does not let it change
    /// while it runs.
    storage: u64,
}

impl ConfigFile {
    /// Sees how much room there is.
    ///
    /// # Errors
    /// When the disk does not say.
    pub fn new(layout: &Layout) -> Result<Self, ConfigFileError> {
        let store = layout.jetstream();
        let storage = disk::limit(&store).map_err(|error| FileError::new("read", store, error))?;
        Ok(Self { storage })
    }

    /// Of a run that goes on: as it was begun.
    pub fn of_running(storage: u64) -> Self {
        Self { storage }
    }

    /// Writes `nats.conf`; of a node when there is a cluster.
    ///
    /// # Errors
    /// [`ConfigFileError`].
    pub fn write(
        &self,
        layout: &Layout,
        config: &ServerConfig,
        cluster: Option<&Cluster>,
    ) -> Result<(), ConfigFileError> {
        let accounts = NatsAccounts::read(layout)?;
        let mut text = text(layout, config, cluster, &accounts, self.storage)?;
        if let Some(cluster) = cluster {
            text.push_str(&routes(layout, config, cluster)?);
        }
        Ok(private_files::write(
            &layout.nats_config(),
            text.as_bytes(),
        )?)
    }
}

/// Writes the configuration of a server without streams, users or clients.
/// nats-server's Raft waits for a route before it does anything, so that a
/// node which is alone needs somebody to have a route to.
///
/// # Errors
/// [`ConfigFileError`].
pub fn write_witness(
    layout: &Layout,
    config: &ServerConfig,
    cluster: &Cluster,
) -> Result<(), ConfigFileError> {
    let text = format!(
        r#"# Written by sotto-relay at every start: changes are lost.
server_name: "{name}-witness"
listen: "127.0.0.1:-1"
log_file: {log}
log_size_limit: {LOG_SIZE}
log_max_num: {LOGS_KEPT}
# Nobody is let in.
authorization {{ token: "{nonce}" }}
cluster {{
  name: {cluster_name}
  listen: "127.0.0.1:-1"
  no_advertise: true
  routes: [{routes}]
{tls}
}}
"#,
        name = cluster.node.name,
        log = quoted(&layout.witness_log())?,
        nonce = HEXLOWER.encode(&rand::random::<[u8; 16]>()),
        cluster_name = quoted_text(&config.server_name),
        routes = route_urls(&cluster.members.nodes),
        tls = route_tls(layout, &cluster.members.nodes)?,
    );
    Ok(private_files::write(
        &layout.witness_config(),
        text.as_bytes(),
    )?)
}

/// What a node's configuration has besides that of a server alone.
fn routes(
    layout: &Layout,
    config: &ServerConfig,
    cluster: &Cluster,
) -> Result<String, ConfigFileError> {
    let nodes = &cluster.members.nodes;
    let own = cluster.members.get(&cluster.node.name);
    let advertised = own.map(|own| own.routes.to_string());
    Ok(format!(
        r#"
# A node that stops hands over first. Its clients go to the others.
lame_duck_duration: "{LAME_DUCK_SECONDS}s"
lame_duck_grace_period: "1s"

cluster {{
  name: {name}
  listen: {listen}
  cluster_advertise: {advertised}
  routes: [{urls}]
{tls}
}}
"#,
        name = quoted_text(&config.server_name),
        listen = quoted_text(&cluster.node.routes_listen.to_string()),
        advertised = quoted_text(&advertised.unwrap_or_default()),
        urls = route_urls(nodes),
        tls = route_tls(layout, nodes)?,
    ))
}

fn route_urls(nodes: &[Member]) -> String {
    let urls: Vec<String> = nodes
        .iter()
        .map(|node| quoted_text(&format!("tls://{}", node.routes)))
        .collect();
    urls.join(", ")
}

/// Only who is a node now: a certificate of the cluster is not enough.
fn route_tls(layout: &Layout, nodes: &[Member]) -> Result<String, ConfigFileError> {
    let keys: Vec<String> = nodes.iter().map(|node| quoted_text(&node.key)).collect();
    Ok(format!(
        r#"  tls {{
    cert_file: {certificate}
    key_file: {key}
    ca_file: {authority}
    verify: true
    min_version: "1.3"
    pinned_certs: [{keys}]
    timeout: 5
  }}"#,
        certificate = quoted(&layout.node_certificate())?,
        key = quoted(&layout.node_key())?,
        authority = quoted(&layout.cluster_authority())?,
        keys = keys.join(", "),
    ))
}

fn text(
    layout: &Layout,
    config: &ServerConfig,
    cluster: Option<&Cluster>,
    accounts: &NatsAccounts,
    storage: u64,
) -> Result<String, ConfigFileError> {
    let mut preload = String::new();
    for (id, jwt) in &accounts.preload {
        // Writing to a string does not fail.
        let _ = writeln!(preload, "  {id}: {jwt}");
    }
    let server_name = cluster.map_or(config.server_name.as_str(), |cluster| {
        cluster.node.name.as_str()
    });
    Ok(format!(
        r#"# Written by sotto-relay at every start: changes are lost.
server_name: {server_name}
listen: {listen}
pid_file: {pid}
log_file: {log}
log_size_limit: {LOG_SIZE}
log_max_num: {LOGS_KEPT}

max_payload: {MAX_PAYLOAD}
max_control_line: {MAX_CONTROL_LINE}
write_deadline: "{WRITE_DEADLINE}s"
authorization {{
  timeout: {HANDSHAKE}
}}

tls {{
  cert_file: {certificate}
  key_file: {key}
  min_version: "1.3"
  handshake_first: true
  timeout: {HANDSHAKE}
}}

# An acknowledged message is on disk.
jetstream {{
  store_dir: {store}
  sync_interval: always
  max_file_store: {storage}
}}

operator: {operator}
system_account: {system}
resolver {{
  type: full
  dir: {jwts}
  allow_delete: false
}}
resolver_preload {{
{preload}}}
"#,
        server_name = quoted_text(server_name),
        listen = quoted_text(&config.nats.listen.to_string()),
        pid = quoted(&layout.nats_pid())?,
        log = quoted(&layout.nats_log())?,
        certificate = quoted(&layout.server_certificate())?,
        key = quoted(&layout.server_key())?,
        store = quoted(&layout.jetstream())?,
        operator = accounts.operator,
        system = accounts.system,
        jwts = quoted(&layout.account_jwts())?,
    ))
}

fn quoted(path: &Path) -> Result<String, ConfigFileError> {
    match path.to_str() {
        Some(text) if !text.contains(char::is_control) => Ok(quoted_text(text)),
        _ => Err(ConfigFileError::Path(format!("{path:?}"))),
    }
}

fn quoted_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_cannot_break_out_of_their_quotes() {
        let path = Path::new(r#"/a "b" \c"#);
        assert_eq!(quoted(path).unwrap(), r#""/a \"b\" \\c""#);
        assert!(quoted(Path::new("/a\nport: 1")).is_err());
    }
}
