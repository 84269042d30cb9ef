//! Who is in the Raft group in which nats-servers agree on streams, as a node
//! finds it at its first start.
//!
//! nats-server guesses it from its configured routes, and takes two for the
//! least: a node alone would never elect itself, and nodes that join could
//! elect one of themselves before they hear of those that were there. So the
//! first start is given the truth, in nats-server's own file. Later ones never
//! are: from then on the group keeps the file itself.

use std::path::PathBuf;

use sotto_service::Layout;
use sotto_service::cluster::NodeName;
use sotto_service::nats::jetstream::peer_id;
use sotto_service::private_files::{self, FileError};

/// Writes who the peers are, unless nats-server has run as a node before.
///
/// # Errors
/// When the file cannot be written.
pub fn write_first<'a>(
    layout: &Layout,
    system_account: &str,
    peers: impl IntoIterator<Item = &'a NodeName>,
) -> Result<(), FileError> {
    let folder = folder(layout, system_account);
    let path = folder.join("peers.idx");
    if path.exists() {
        return Ok(());
    }
    private_files::create_dir(&folder)?;
    let ids: Vec<String> = peers.into_iter().map(|n| peer_id(n.as_str())).collect();
    private_files::write(&path, &encode(&ids))
}

/// Forgets that nats-server ran as a node.
///
/// # Errors
/// When the folder cannot be removed.
pub fn forget(layout: &Layout, system_account: &str) -> Result<(), FileError> {
    let folder = folder(layout, system_account);
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(FileError::new("remove", folder, error))
        }
        _ => Ok(()),
    }
}

/// Whether nats-server knows of no other node.
pub fn is_alone(layout: &Layout, system_account: &str) -> bool {
    let path = folder(layout, system_account).join("peers.idx");
    let state = std::fs::read(path).unwrap_or_default();
    state.first_chunk() == Some(&1u32.to_le_bytes())
}

fn folder(layout: &Layout, system_account: &str) -> PathBuf {
    layout
        .jetstream()
        .join("jetstream")
        .join(system_account)
        .join("_js_/_meta_")
}

/// nats-server, `encodePeerState` in `raft.go`: size of the group, number of
/// peers, their ids, and how the domain is extended (not determined).
fn encode(ids: &[String]) -> Vec<u8> {
    let count = u32::try_from(ids.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = [count, count].concat();
    bytes.extend(ids.concat().into_bytes());
    bytes.extend(0u16.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path());
        let [one, two] = ["n1", "n2"].map(|name| name.parse().unwrap());
        write_first(&layout, "SYS", [&one]).unwrap();
        write_first(&layout, "SYS", [&one, &two]).unwrap();
        assert!(is_alone(&layout, "SYS"));
        let path = super::folder(&layout, "SYS").join("peers.idx");
        let written = std::fs::read(path).unwrap();
        assert_eq!(written, b"\x01\0\0\0\x01\0\0\0fjFyEjc1\0\0");
    }
}
