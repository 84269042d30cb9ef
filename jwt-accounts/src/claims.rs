//! The claims of NATS JWTs (version 2): operator, account and user, as
//! nats-server 2.14 and newer read them.
//!
//! Every limit is a field without a default, because what a missing one means
//! differs: nothing in some places, unlimited in others. Source:
//! <https://github.com/nats-io/jwt>, package `v2`.

mod token;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use token::{Claims, ClaimsError, Kind, Verified};

/// An upper bound, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "i64", into = "i64")]
pub enum Limit {
    /// At most this many, or this many bytes.
    AtMost(u64),
    /// No bound of its own.
    Unlimited,
}

impl From<i64> for Limit {
    fn from(number: i64) -> Self {
        u64::try_from(number).map_or(Self::Unlimited, Self::AtMost)
    }
}

impl From<Limit> for i64 {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::AtMost(bound) => Self::try_from(bound).unwrap_or(Self::MAX),
            Limit::Unlimited => -1,
        }
    }
}

/// Who signs accounts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Public operator keys that sign accounts instead of the operator's own.
    #[serde(default)]
    pub signing_keys: Vec<String>,
    /// Public key of the account whose users may command the server; empty when
    /// there is none yet.
    #[serde(default)]
    pub system_account: String,
    /// Whether only signing keys may sign, never an identity key.
    #[serde(rename = "strict_signing_key_usage", default)]
    pub strict_signing_keys: bool,
    /// What other tools said of it (URLs, tags, ...), kept as it was.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// A set of users that see only each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What the account may use.
    pub limits: AccountLimits,
    /// The keys that sign users instead of the account's own.
    #[serde(default)]
    pub signing_keys: Vec<SigningKey>,
    /// Public user key, or `*`, to the second since 1970 up to which JWTs of
    /// that user are void.
    #[serde(default)]
    pub revocations: BTreeMap<String, i64>,
    /// Subjects that other accounts may import.
    #[serde(default)]
    pub exports: Vec<Export>,
    /// Subjects of other accounts that users of this one reach.
    #[serde(default)]
    pub imports: Vec<Import>,
    /// What users may do whose own claims say nothing.
    pub default_permissions: Permissions,
}

/// A key that signs users of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SigningKey {
    /// A public account key whose users say themselves what they may do.
    Any(String),
    /// A key whose users may do what is said here, whatever they say.
    Role(RoleKey),
}

impl SigningKey {
    /// The public account key.
    pub fn public_key(&self) -> &str {
        match self {
            Self::Any(key) | Self::Role(RoleKey { key, .. }) => key,
        }
    }
}

/// A signing key of an account with the rights of all its users ("scoped
/// signing key" in NATS). nats-server takes no user by it that names rights of
/// its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKey {
    kind: ScopeKind,
    /// The public account key.
    pub key: String,
    /// What the users are, for people.
    pub role: String,
    /// What each of them may do.
    #[serde(rename = "template")]
    pub rights: Rights,
}

impl RoleKey {
    /// A key whose users have these rights.
    pub fn new(key: String, role: impl Into<String>, rights: Rights) -> Self {
        Self {
            kind: ScopeKind::User,
            key,
            role: role.into(),
            rights,
        }
    }
}

/// The only kind of scope that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum ScopeKind {
    #[serde(rename = "user_scope")]
    User,
}

/// A subject that other accounts may import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    /// For people.
    pub name: String,
    /// Here and, by default, there.
    pub subject: String,
    /// Which way messages go.
    #[serde(rename = "type")]
    pub direction: Direction,
}

/// A subject of another account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Import {
    /// For people.
    pub name: String,
    /// Here and there.
    pub subject: String,
    /// Public key of the account that exports it.
    pub account: String,
    /// Which way messages go.
    #[serde(rename = "type")]
    pub direction: Direction,
}

/// Which way messages cross from one account to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the exporting to the importing account.
    Stream,
    /// From the importing to the exporting account, and one answer back.
    Service,
}

/// Bounds of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountLimits {
    /// Connections.
    pub conn: Limit,
    /// Leaf node connections.
    pub leaf: Limit,
    /// Subscriptions.
    pub subs: Limit,
    /// Bytes per message, headers included.
    pub payload: Limit,
    /// Bytes in all.
    pub data: Limit,
    /// Imported subjects.
    pub imports: Limit,
    /// Exported subjects.
    pub exports: Limit,
    /// Whether exports may have wildcards.
    #[serde(rename = "wildcards")]
    pub wildcard_exports: bool,
    /// Bytes of JetStream in memory.
    pub mem_storage: Limit,
    /// Bytes of JetStream on disk.
    pub disk_storage: Limit,
    /// JetStream streams.
    pub streams: Limit,
    /// JetStream consumers.
    #[serde(rename = "consumer")]
    pub consumers: Limit,
    /// Unacknowledged messages per consumer.
    pub max_ack_pending: Limit,
    /// Bytes of one stream in memory.
    pub mem_max_stream_bytes: Limit,
    /// Bytes of one stream on disk.
    pub disk_max_stream_bytes: Limit,
    /// Whether a stream must bound its bytes.
    pub max_bytes_required: bool,
}

/// One client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Public key of the account, as the signer is one of its signing keys.
    pub issuer_account: String,
    /// What it may do; nothing is said when it is what the signing key's role
    /// may do.
    #[serde(flatten)]
    pub rights: Option<Rights>,
}

/// What a client may do, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// Subjects that it may use.
    #[serde(flatten)]
    pub permissions: Permissions,
    /// Subscriptions.
    pub subs: Limit,
    /// Bytes per message, headers included.
    pub payload: Limit,
    /// Bytes in all.
    pub data: Limit,
    /// Whether possession of the JWT alone is enough, without the nkey.
    pub bearer_token: bool,
    /// How it may connect.
    pub allowed_connection_types: Vec<ConnectionType>,
}

/// How a client reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ConnectionType {
    /// TCP.
    Standard,
    /// WebSocket.
    Websocket,
}

/// Subjects that may be published and subscribed to. In NATS an empty `allow`
/// means *everything*; [`Permissions::nothing`] is the way to say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// For publishing.
    #[serde(rename = "pub")]
    pub publish: Subjects,
    /// For subscribing.
    #[serde(rename = "sub")]
    pub subscribe: Subjects,
}

impl Permissions {
    /// Neither publishes nor subscribes to anything.
    pub fn nothing() -> Self {
        Self {
            publish: Subjects::nothing(),
            subscribe: Subjects::nothing(),
        }
    }
}

/// An allow and a deny list of subjects; deny wins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subjects {
    /// Allowed; empty means every subject.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Denied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
}

impl Subjects {
    /// Just these; no subject at all when there are none.
    pub fn only(allow: Vec<String>) -> Self {
        if allow.is_empty() {
            return Self::nothing();
        }
        Self {
            allow,
            deny: Vec::new(),
        }
    }

    /// No subject at all.
    pub fn nothing() -> Self {
        Self {
            allow: Vec::new(),
            deny: vec![">".to_owned()],
        }
    }
}
