//! How much an org may store.

use sotto_proto::OrgName;

use super::{KeyStore, KeyStoreError};
use crate::claims::Limit;

/// What JetStream keeps for an org at most, replicas counted each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageLimits {
    /// Bytes on disk.
    pub bytes: Limit,
    /// Streams, key-value buckets among them.
    pub streams: Limit,
}

impl KeyStore {
    /// The limits of an org.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read.
    pub fn storage_limits(&self, org: &OrgName) -> Result<StorageLimits, KeyStoreError> {
        let [own, _] = self.org_folders(org)?;
        let limits = self.account(&own)?.claims.nats.limits;
        Ok(StorageLimits {
            bytes: limits.disk_storage,
            streams: limits.streams,
        })
    }

    /// Bounds what an org stores. Returns the JWT of its account once it is
    /// stored; [`crate::push_account`] puts it in force. What is above a new
    /// bound stays, and nothing is added to it.
    ///
    /// # Errors
    /// When there is no such org, or its files do not read or write.
    pub fn limit_storage(
        &self,
        org: &OrgName,
        limits: StorageLimits,
        now_ms: i64,
    ) -> Result<String, KeyStoreError> {
        let [own, _] = self.org_folders(org)?;
        self.change_account(&own, now_ms, |account| {
            account.limits.disk_storage = limits.bytes;
            account.limits.streams = limits.streams;
        })
    }
}
