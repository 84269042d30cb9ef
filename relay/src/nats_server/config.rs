//! The configuration file of nats-server. It is written anew at every start:
//! whoever wants another setting changes `server.toml`.

use std::fmt::Write;
use std::path::Path;

use sotto_jwt_accounts::keystore::{KeyStore, KeyStoreError, PreloadedAccount};
use sotto_service::private_files::{self, FileError};
use sotto_service::{Layout, ServerConfig};

use super::disk;

/// Bytes of a message that nats-server takes at most.
pub(super) const MAX_PAYLOAD: usize = 1024 * 1024;
/// Bytes of a protocol line. A device's JWT with one grant per room travels in
/// one, and over the limit the server just hangs up.
pub(super) const MAX_CONTROL_LINE: usize = 1024 * 1024;
/// Seconds that a client may take for the TLS handshake, and as many for its
/// CONNECT: 2 KB each way at 2 kbit/s, and again for what is lost. NATS's own 2
/// seconds are too few for any poor network.
const HANDSHAKE: u32 = 120;
/// A client that takes nothing for so many seconds is dropped.
const WRITE_DEADLINE: u32 = 120;
/// The log is rotated at this size, in bytes, and so many old ones are kept.
const LOG_SIZE: usize = 16 * 1024 * 1024;
const LOGS_KEPT: usize = 3;

/// Why the configuration is not written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The accounts cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// The file cannot be written, or the disk not be asked for its size.
    #[error(transparent)]
    File(#[from] FileError),
    /// A path cannot stand in the file.
    #[error(
        "the path {0} holds characters that nats-server's configuration cannot: move the data directory"
    )]
    Path(String),
}

/// Writes `nats.conf`.
///
/// # Errors
/// [`ConfigFileError`].
pub fn write_config(layout: &Layout, config: &ServerConfig) -> Result<(), ConfigFileError> {
    let keys = KeyStore::open(&layout.accounts())?;
    let accounts = keys.resolver_preload()?;
    let store = layout.jetstream();
    let storage = disk::limit(&store).map_err(|error| FileError::new("read", store, error))?;
    let text = text(layout, config, &keys, &accounts, storage)?;
    Ok(private_files::write(
        &layout.nats_config(),
        text.as_bytes(),
    )?)
}

fn text(
    layout: &Layout,
    config: &ServerConfig,
    keys: &KeyStore,
    accounts: &[PreloadedAccount],
    storage: u64,
) -> Result<String, ConfigFileError> {
    let mut preload = String::new();
    for PreloadedAccount { id, jwt } in accounts {
        // Writing to a string does not fail.
        let _ = writeln!(preload, "  {id}: {jwt}");
    }
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
        server_name = quoted_text(&config.server_name),
        listen = quoted_text(&config.nats.listen.to_string()),
        pid = quoted(&layout.nats_pid())?,
        log = quoted(&layout.nats_log())?,
        certificate = quoted(&layout.server_certificate())?,
        key = quoted(&layout.server_key())?,
        store = quoted(&layout.jetstream())?,
        operator = keys.operator_jwt(),
        system = keys.system_account(),
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
