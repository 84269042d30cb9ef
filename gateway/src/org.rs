//! One org as a gateway serves it: its directory, its buckets, and the key
//! that signs its devices' JWTs.

use std::path::PathBuf;
use std::sync::Arc;

use async_nats::connection;
use async_nats::jetstream::{self, context::CreateKeyValueError};
use ed25519_dalek::SigningKey;
use sotto_jwt_accounts::AccountSigner;
use sotto_jwt_accounts::directory::{
    Actor, AppendError, Command, DirectoryWriter, LogError, State,
};
use sotto_proto::OrgName;

use crate::refusal::Refusal;
use crate::storage::Buckets;

/// An org that is served.
pub struct Org {
    name: OrgName,
    client: async_nats::Client,
    directory: DirectoryWriter,
    buckets: Buckets,
    signer: AccountSigner,
}

/// Why an org cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OrgError {
    /// Its directory.
    #[error(transparent)]
    Directory(#[from] LogError),
    /// Its key-value buckets.
    #[error("the gateway's storage cannot be opened: {0}")]
    Storage(#[from] CreateKeyValueError),
}

impl Org {
    /// Reads the org's directory and opens its buckets, making what is
    /// missing. `client` has the gateway's credentials in the org's account;
    /// `key` signs the directory, `snapshot` is where what was read of it is kept.
    ///
    /// # Errors
    /// [`OrgError`].
    pub async fn open(
        name: OrgName,
        client: async_nats::Client,
        key: SigningKey,
        signer: AccountSigner,
        snapshot: PathBuf,
    ) -> Result<Self, OrgError> {
        let jetstream = jetstream::new(client.clone());
        Ok(Self {
            directory: DirectoryWriter::open(&jetstream, name.clone(), key, Some(snapshot)).await?,
            buckets: Buckets::open(&jetstream).await?,
            name,
            client,
            signer,
        })
    }

    /// Its name.
    pub fn name(&self) -> &OrgName {
        &self.name
    }

    /// The directory, which is the truth about users, devices, rooms and roles.
    pub fn directory(&self) -> &DirectoryWriter {
        &self.directory
    }

    /// What else the gateway keeps.
    pub fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// Signs the JWTs of its devices.
    pub fn signer(&self) -> &AccountSigner {
        &self.signer
    }

    /// The directory's state as this process knows it.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when the directory cannot be believed.
    pub fn state(&self) -> Result<Arc<State>, Refusal> {
        self.directory.log().state().map_err(Refusal::unavailable)
    }

    /// A state in which `found` holds, if there is one: before the answer is
    /// no, the directory is asked whether another gateway has changed it.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn state_where(
        &self,
        found: impl Fn(&State) -> bool + Send,
    ) -> Result<Option<Arc<State>>, Refusal> {
        let known = self.state()?;
        if found(&known) {
            return Ok(Some(known));
        }
        let newest = self.directory.log().refresh().await;
        let newest = newest.map_err(Refusal::unavailable)?;
        Ok(found(&newest).then_some(newest))
    }

    /// Has the directory carry out a command, if it may be; returns a state
    /// that has it, when it is durable.
    ///
    /// # Errors
    /// What the directory refuses, or [`Refusal::Unavailable`].
    pub async fn append(
        &self,
        actor: Actor,
        command: Command,
        now_ms: i64,
    ) -> Result<Arc<State>, Refusal> {
        match self.directory.append(&actor.into(), command, now_ms).await {
            Ok(appended) => Ok(appended.state),
            Err(AppendError::Refused(refusal)) => Err(refusal.into()),
            Err(error @ (AppendError::Log(_) | AppendError::Busy)) => {
                Err(Refusal::unavailable(error))
            }
        }
    }

    /// Whether NATS and the directory are there.
    pub fn is_ready(&self) -> bool {
        self.client.connection_state() == connection::State::Connected && self.state().is_ok()
    }
}
