//! One org as a gateway serves it: its directory, its buckets, and the key
//! that signs its devices' JWTs.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::{CreateKeyValueError, CreateKeyValueErrorKind};
use ed25519_dalek::SigningKey;
use sotto_jwt_accounts::AccountSigner;
use sotto_jwt_accounts::directory::{
    AppendError, Appended, By, Command, DirectoryWriter, LogError, State,
};
use sotto_proto::OrgName;
use sotto_service::awaiting_leaders;
use tokio::sync::watch;

use crate::refusal::Refusal;
use crate::storage::Buckets;

/// An org that is served.
pub struct Org {
    name: OrgName,
    client: async_nats::Client,
    directory: DirectoryWriter,
    buckets: Buckets,
    signer: RwLock<Arc<AccountSigner>>,
    in_force: watch::Sender<u64>,
}

/// How long a revocation may take to be in force before the caller is told to
/// try again.
const IN_FORCE: Duration = Duration::from_secs(5);

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

impl OrgError {
    /// Whether it is only that nobody answers yet, as when the nodes agree on
    /// no leader, or too few of them are there to keep something new.
    pub fn passes(&self) -> bool {
        match self {
            Self::Directory(error) => matches!(error, LogError::Unavailable(_)),
            Self::Storage(error) => {
                error.kind() == CreateKeyValueErrorKind::TimedOut || lacks_nodes(error)
            }
        }
    }
}

/// Of the stream behind a new bucket: see [`awaiting_leaders::lacks_nodes`].
fn lacks_nodes(error: &CreateKeyValueError) -> bool {
    let source = std::error::Error::source(error);
    let refused = source.and_then(|source| source.downcast_ref());
    refused.is_some_and(awaiting_leaders::lacks_nodes)
}

impl Org {
    /// Reads the org's directory and opens its buckets, making what is
    /// missing on as many nodes as there are to be `copies`. `client` has the
    /// gateway's credentials in the org's account; `key` signs the directory,
    /// `snapshot` is where what was read of it is kept.
    ///
    /// # Errors
    /// [`OrgError`].
    pub async fn open(
        name: OrgName,
        client: async_nats::Client,
        copies: usize,
        key: SigningKey,
        signer: AccountSigner,
        snapshot: PathBuf,
    ) -> Result<Self, OrgError> {
        let jetstream = jetstream::new(client.clone());
        let directory =
            DirectoryWriter::open(&jetstream, copies, name.clone(), key, Some(snapshot));
        Ok(Self {
            directory: Box::pin(directory).await?,
            buckets: Box::pin(Buckets::open(&jetstream, copies)).await?,
            name,
            client,
            signer: RwLock::new(Arc::new(signer)),
            in_force: watch::Sender::new(0),
        })
    }

    /// Its name.
    pub fn name(&self) -> &OrgName {
        &self.name
    }

    /// Its connection to NATS, as a gateway in the org's account.
    pub fn client(&self) -> &async_nats::Client {
        &self.client
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
    pub fn signer(&self) -> Arc<AccountSigner> {
        let signer = self.signer.read();
        Arc::clone(&signer.unwrap_or_else(PoisonError::into_inner))
    }

    /// Signs with these keys from now on.
    pub fn set_signer(&self, signer: AccountSigner) {
        let mut signing = self.signer.write();
        let signing = signing.as_deref_mut();
        if let Ok(signing) = signing {
            *signing = Arc::new(signer);
        }
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

    /// The newest state there is: what hands out something that is believed
    /// for hours must not rest on what another gateway has taken back.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn newest(&self) -> Result<Arc<State>, Refusal> {
        let newest = self.directory.log().refresh().await;
        newest.map_err(Refusal::unavailable)
    }

    /// Has the directory carry out a command, if it may be; returns a state
    /// that has it, when it is durable.
    ///
    /// # Errors
    /// What the directory refuses, or [`Refusal::Unavailable`].
    pub async fn append(
        &self,
        by: &By,
        command: Command,
        now_ms: i64,
    ) -> Result<Arc<State>, Refusal> {
        Ok(self.change(by, command, now_ms).await?.state)
    }

    /// As [`Self::append`], with what it changed.
    ///
    /// # Errors
    /// What the directory refuses, or [`Refusal::Unavailable`].
    pub async fn change(
        &self,
        by: &By,
        command: Command,
        now_ms: i64,
    ) -> Result<Appended, Refusal> {
        match self.directory.append(by, command, now_ms).await {
            Ok(appended) => Ok(appended),
            Err(AppendError::Refused(refusal)) => Err(refusal.into()),
            Err(error @ (AppendError::Log(_) | AppendError::Busy)) => {
                Err(Refusal::unavailable(error))
            }
        }
    }

    /// Waits until what the first `length` entries of the directory take from
    /// devices is in force at nats-server.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] when that takes too long; it goes on all the
    /// same.
    pub async fn is_in_force(&self, length: u64) -> Result<(), Refusal> {
        let mut in_force = self.in_force.subscribe();
        let waiting = in_force.wait_for(|in_force| *in_force >= length);
        let waited = tokio::time::timeout(IN_FORCE, waiting).await;
        let waited = waited.map_err(|_| Refusal::unavailable("a revocation is not in force"))?;
        waited.map(drop).map_err(Refusal::unavailable)
    }

    /// Says that what the first `length` entries of the directory take from
    /// devices is in force.
    pub fn set_in_force(&self, length: u64) {
        self.in_force.send_replace(length);
    }
}
