//! Who is in the Raft group in which nats-servers agree on streams, as a node
//! finds it at its first start.
//!
//! nats-server guesses it from its configured routes, and takes two for the
//! least: a node alone would never elect itself, and nodes that join could
//! elect one of themselves before they hear of those that were there. So the
//! first start is given the truth, in nats-server's own file. Later ones never
//! are: from then on the group keeps the file itself.

use std::path::PathBuf;

use sha2::{Digest, Sha256};
use sotto_service::Layout;
use sotto_service::cluster::NodeName;
use sotto_service::private_files::{self, FileError};

/// Characters of a peer's id (nats-server, `getHash` in `events.go`).
const ID: usize = 8;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

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
    let peers: Vec<[u8; ID]> = peers.into_iter().map(id).collect();
    private_files::write(&path, &encode(&peers))
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

fn id(name: &NodeName) -> [u8; ID] {
    let hash = Sha256::digest(name.as_str());
    let mut id = [0; ID];
    for (place, byte) in id.iter_mut().zip(hash) {
        let digit = DIGITS.get(usize::from(byte) % DIGITS.len());
        *place = digit.copied().unwrap_or_default();
    }
    id
}

/// nats-server, `encodePeerState` in `raft.go`: size of the group, number of
/// peers, their ids, and how the domain is extended (not determined).
fn encode(peers: &[[u8; ID]]) -> Vec<u8> {
    let count = u32::try_from(peers.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = [count, count].concat();
    bytes.extend(peers.iter().flatten());
    bytes.extend(0u16.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_nats_server_shows() {
        for (name, peer) in [("n1", "fjFyEjc1"), ("n2", "44jzkV9D"), ("n3", "BXScrY9i")] {
            assert_eq!(id(&name.parse().unwrap()), peer.as_bytes());
        }
    }

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
