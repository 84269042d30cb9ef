//! How the log hangs together: every entry is signed by the gateway, names its
//! place, and names the hash of the entry before, so that changing, moving,
//! leaving out or inserting one shows.

use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use prost::Message;
use sha2::{Digest, Sha256};
use sotto_proto::signed::{self, SignedError};
use sotto_proto::wire::{self, Signed};

use super::event::{Change, Event};
use super::rule::Rule;
use super::state::State;
use super::terms::Actor;
use super::wire::Malformed;

/// Where a log ends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// Number of entries.
    pub length: u64,
    /// SHA-256 of the last one, as encoded; `None` for an empty log.
    pub hash: Option<[u8; 32]>,
}

/// Why an entry cannot be the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Not signed by the gateway, or not a signed statement at all.
    #[error("it is not an entry signed by this gateway")]
    Signature,
    /// A field is missing, or the kind is not known.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It does not follow the entry before.
    #[error("it does not follow the entry before")]
    Order,
    /// The org is created with another key than the one that signs.
    #[error("it names another gateway key than the one that signed it")]
    GatewayKey,
    /// A rule of the directory forbids it.
    #[error("it breaks a rule of the directory: {0}")]
    Rule(#[from] Rule),
}

impl State {
    /// Checks and takes in the next entry of the log, as it is stored. On an
    /// error the state is as it was, and nothing after this entry can be
    /// believed.
    ///
    /// # Errors
    /// Why it is not the next entry.
    pub fn advance(&mut self, entry: &[u8], gateway: &VerifyingKey) -> Result<(), ChainError> {
        let signed = Signed::decode(entry).map_err(|_| ChainError::Signature)?;
        // A log has one encoding; otherwise bits beside the statement could change unnoticed.
        if signed.encode_to_vec() != entry {
            return Err(ChainError::Signature);
        }
        let statement: wire::DirectoryEvent =
            signed::verify(&signed, gateway).map_err(|error| match error {
                SignedError::Malformed => ChainError::Malformed(Malformed::Part("statement")),
                SignedError::Signature | SignedError::Expired => ChainError::Signature,
            })?;
        let event = Event::try_from(statement)?;
        // What this version does not write, it does not understand.
        if wire::DirectoryEvent::from(&event).encode_to_vec() != signed.statement {
            return Err(Malformed::Part("form").into());
        }
        if (event.index, event.previous) != (self.head.length, self.head.hash) {
            return Err(ChainError::Order);
        }
        if let Change::OrgCreated { gateway_key, .. } = &event.change
            && gateway_key != gateway
        {
            return Err(ChainError::GatewayKey);
        }
        self.apply(&event)?;
        self.head = Head {
            length: self.head.length + 1,
            hash: Some(Sha256::digest(entry).into()),
        };
        Ok(())
    }
}

/// Signs changes as the entries that follow `head`.
pub(super) fn sign(
    head: &Head,
    actor: &Actor,
    changes: &[Change],
    now_ms: i64,
    gateway: &SigningKey,
) -> Vec<Bytes> {
    let mut head = head.clone();
    let mut entries = Vec::with_capacity(changes.len());
    for change in changes {
        let event = Event {
            index: head.length,
            previous: head.hash,
            at_ms: now_ms,
            actor: actor.clone(),
            change: change.clone(),
        };
        let signed = signed::sign(&wire::DirectoryEvent::from(&event), gateway);
        let entry = Bytes::from(signed.encode_to_vec());
        head = Head {
            length: head.length + 1,
            hash: Some(Sha256::digest(&entry).into()),
        };
        entries.push(entry);
    }
    entries
}
