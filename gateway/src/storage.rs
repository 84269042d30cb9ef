//! The gateway's state, in JetStream key-value buckets of each org's account:
//! any number of gateways share it, and each write is durable before it is
//! acknowledged. Every change of a value is a compare-and-set.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::{CreateKeyValueError, CreateKeyValueErrorKind};
use async_nats::jetstream::kv::{Config, Operation, Store, UpdateErrorKind};
use async_nats::jetstream::stream::{self, StorageType};
use bytes::Bytes;
use prost::Message;
use sotto_proto::limits;

use crate::refusal::Refusal;

const ACCOUNTS: &str = "accounts";
const SESSIONS: &str = "sessions";
const KEY_PACKAGES: &str = "key_packages";
const GROUP_INFOS: &str = "group_infos";
const LINKS: &str = "links";
const FACTORS: &str = "factors";
const PROOFS: &str = "proofs";
const CEREMONIES: &str = "ceremonies";
const THROTTLES: &str = "throttles";
const TASKS: &str = "tasks";
/// The name of every bucket: what a gateway's credentials must be for.
pub const BUCKETS: &[&str] = &[
    ACCOUNTS,
    SESSIONS,
    KEY_PACKAGES,
    GROUP_INFOS,
    LINKS,
    FACTORS,
    PROOFS,
    CEREMONIES,
    THROTTLES,
    TASKS,
];

/// How often a lost race is run again.
const RACES: usize = 100;
/// How long the mark of a removed value stays.
const MARKER: Duration = Duration::from_secs(60);
/// After so long a ceremony is over.
const CEREMONIES_AGE: Duration = Duration::from_secs(10 * 60);
/// After so long a throttle is forgotten: it has run out by then.
const THROTTLES_AGE: Duration = Duration::from_secs(24 * 3_600);
/// All link mailboxes of an org together, in bytes.
const LINKS_BYTES: i64 = 64 * 1024 * 1024;

/// The buckets of one org. What is in them: [`crate::records`].
#[derive(Debug, Clone)]
pub struct Buckets {
    /// Registered passwords and identity backups.
    pub accounts: Bucket,
    /// Sessions, by the hash of their token.
    pub sessions: Bucket,
    /// Key packages, by device.
    pub key_packages: Bucket,
    /// Public keys of open rooms, by room.
    pub group_infos: Bucket,
    /// Link mailboxes.
    pub links: Bucket,
    /// Authenticator apps, by user.
    pub factors: Bucket,
    /// What was proven, by device.
    pub proofs: Bucket,
    /// Ceremonies of passkeys and security keys, by the hash of their ticket.
    pub ceremonies: Bucket,
    /// How often something was tried.
    pub throttles: Bucket,
    /// How far the gateways' common tasks are.
    pub tasks: Bucket,
}

impl Buckets {
    /// Opens the buckets, making those that are missing on as many nodes as
    /// there are to be `copies`.
    ///
    /// # Errors
    /// When JetStream refuses, or a bucket has another configuration.
    pub async fn open(jetstream: &Context, copies: usize) -> Result<Self, CreateKeyValueError> {
        let open = |config| Bucket::open(jetstream, config);
        let config = |bucket| config(bucket, copies);
        Ok(Self {
            accounts: open(config(ACCOUNTS)).await?,
            sessions: open(Config {
                max_age: limits::SESSION,
                ..config(SESSIONS)
            })
            .await?,
            key_packages: open(config(KEY_PACKAGES)).await?,
            group_infos: open(Config {
                limit_markers: Some(MARKER),
                ..config(GROUP_INFOS)
            })
            .await?,
            links: open(Config {
                max_age: limits::LINK,
                max_bytes: LINKS_BYTES,
                ..config(LINKS)
            })
            .await?,
            factors: open(config(FACTORS)).await?,
            proofs: open(config(PROOFS)).await?,
            ceremonies: open(Config {
                max_age: CEREMONIES_AGE,
                ..config(CEREMONIES)
            })
            .await?,
            throttles: open(Config {
                max_age: THROTTLES_AGE,
                ..config(THROTTLES)
            })
            .await?,
            tasks: open(config(TASKS)).await?,
        })
    }
}

fn config(bucket: &str, copies: usize) -> Config {
    Config {
        bucket: bucket.to_owned(),
        history: 1,
        storage: StorageType::File,
        num_replicas: copies,
        ..Config::default()
    }
}

/// One bucket.
#[derive(Debug, Clone)]
pub struct Bucket {
    store: Store,
}

impl Bucket {
    async fn open(jetstream: &Context, config: Config) -> Result<Self, CreateKeyValueError> {
        let bucket = config.bucket.clone();
        // On how many nodes it is kept may have changed since it was made.
        let store = match jetstream.get_key_value(&bucket).await {
            Ok(store) => store,
            Err(_) => jetstream.create_key_value(config).await?,
        };
        let stream = store.stream.cached_info().config.clone();
        if !stream.allow_direct {
            return Ok(Self { store });
        }
        // A copy on another node may be some moments behind, and who has
        // written must read what was written: only the leader is asked.
        let unusable = |error: async_nats::Error| {
            CreateKeyValueError::with_source(CreateKeyValueErrorKind::BucketCreate, error)
        };
        let stream = stream::Config {
            allow_direct: false,
            ..stream
        };
        let updated = jetstream.update_stream(stream).await;
        updated.map_err(|error| unusable(error.into()))?;
        let store = jetstream.get_key_value(&bucket).await;
        let store = store.map_err(|error| unusable(error.into()))?;
        Ok(Self { store })
    }

    /// The value under a key.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn get<R: Message + Default>(&self, key: &str) -> Result<Option<R>, Refusal> {
        Ok(self.read(key).await?.0)
    }

    /// Stores a value under a key that nobody else uses.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn put(&self, key: &str, value: &impl Message) -> Result<(), Refusal> {
        let value = value.encode_to_vec().into();
        self.store
            .put(key, value)
            .await
            .map_err(Refusal::unavailable)?;
        Ok(())
    }

    /// Reads a value, lets `decide` say what becomes of it (`None`: it stays),
    /// and stores that if nobody else was faster; otherwise all over again.
    /// Returns what the last `decide` gave.
    ///
    /// # Errors
    /// What `decide` refuses, or [`Refusal::Unavailable`]; then it may or may
    /// not be stored.
    pub async fn change<R, T>(
        &self,
        key: &str,
        mut decide: impl FnMut(Option<R>) -> Result<(Option<R>, T), Refusal>,
    ) -> Result<T, Refusal>
    where
        R: Message + Default,
    {
        for _ in 0..RACES {
            let (value, revision) = self.read(key).await?;
            let (changed, result) = decide(value)?;
            let Some(changed) = changed else {
                return Ok(result);
            };
            let changed: Bytes = changed.encode_to_vec().into();
            match self.store.update(key, changed, revision).await {
                Ok(_) => return Ok(result),
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
                Err(error) => return Err(Refusal::unavailable(error)),
            }
        }
        Err(Refusal::unavailable("a value changes all the time"))
    }

    /// Removes a value for good.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn remove(&self, key: &str) -> Result<(), Refusal> {
        let purged = self.store.purge_with_ttl(key, MARKER).await;
        purged.map(drop).map_err(Refusal::unavailable)
    }

    /// The value and its revision; 0 when there is none.
    async fn read<R: Message + Default>(&self, key: &str) -> Result<(Option<R>, u64), Refusal> {
        let entry = self.store.entry(key).await.map_err(Refusal::unavailable)?;
        let Some(entry) = entry else {
            return Ok((None, 0));
        };
        match entry.operation {
            Operation::Put => {
                let value = R::decode(entry.value).map_err(Refusal::unavailable)?;
                Ok((Some(value), entry.revision))
            }
            Operation::Delete | Operation::Purge => Ok((None, entry.revision)),
        }
    }
}
