//! Taking what a server alone has stored into a cluster of one.
//!
//! nats-server as a node knows only streams that the group of servers has
//! agreed on, and half a minute after its start deletes what it finds on its
//! disk besides. So it is started once as a node, unseen, and told each stream
//! as it was; then it is compared. Until that is done a copy of everything
//! stays, which costs no space: its files are links.

use std::path::Path;

use anyhow::Result;
use sotto_service::Layout;

/// Whether there is any stream on disk.
///
/// # Errors
/// When the folder does not read.
pub fn has_streams(layout: &Layout, system_account: &str) -> Result<bool> {
    let accounts = layout.jetstream().join("jetstream");
    if !accounts.is_dir() {
        return Ok(false);
    }
    for account in std::fs::read_dir(accounts)? {
        let account = account?;
        let streams = account.path().join("streams");
        if account.file_name() != system_account && is_not_empty(&streams)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_not_empty(folder: &Path) -> Result<bool> {
    Ok(folder.is_dir() && std::fs::read_dir(folder)?.next().is_some())
}
