//! What the accounts of a server may do and how they hang together.
//!
//! An org has two. Its own account holds the streams, the directory and what
//! gateways keep; relays and gateways are users of it. Devices are users of
//! another one without any JetStream, which hears what the first stores by the
//! import below, and reaches it in no other way. A relay is a user of both:
//! devices ask it in their own account to store something, or for what is
//! stored.
//!
//! Why: whoever publishes to a stream names the subject that the server
//! acknowledges to, and the server publishes there without asking for the
//! sender's permissions; and it obeys headers (`Nats-Rollup`, `Nats-TTL`,
//! `Nats-Expected-Last-Msg-Id`) that no permission can see. So no device
//! publishes to a stream (docs/adr/0004, 0012).

use std::collections::BTreeMap;

use sotto_proto::limits;

use crate::claims::{
    Account, AccountLimits, Direction, Export, Import, Limit, Permissions, Rights, RoleKey,
    SigningKey,
};
use crate::grants::{self, Services};

/// What the users of an account are that one signing key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Devices, each of which says itself what it may do.
    Device,
    /// Relays.
    Relay,
    /// Gateways.
    Gateway,
    /// Whoever runs the server.
    Admin,
}

impl Role {
    /// For people, and in the names of files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Relay => "relay",
            Self::Gateway => "gateway",
            Self::Admin => "admin",
        }
    }

    /// A public key that signs such users.
    pub(crate) fn key(self, key: String, rights: Option<Rights>) -> SigningKey {
        match rights {
            Some(rights) => SigningKey::Role(RoleKey::new(key, self.name(), rights)),
            None => SigningKey::Any(key),
        }
    }
}

/// The accounts of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// That commands the server.
    System,
    /// An org's own.
    Org,
    /// That of an org's devices.
    Devices,
}

impl Which {
    /// Whose users each of the account's signing keys signs.
    pub(crate) fn roles(self) -> &'static [Role] {
        match self {
            Self::System => &[Role::Admin, Role::Gateway],
            Self::Org => &[Role::Relay, Role::Gateway],
            Self::Devices => &[Role::Device, Role::Relay],
        }
    }

    /// What all users in a role may do; nothing is fixed for devices.
    pub(crate) fn rights(self, role: Role, services: Services<'_>) -> Option<Rights> {
        match (self, role) {
            (_, Role::Device) => None,
            (_, Role::Admin) => Some(grants::admin()),
            (Self::Devices, Role::Relay) => Some(grants::relay_of_devices()),
            (_, Role::Relay) => Some(grants::relay(services.shards)),
            (Self::System, Role::Gateway) => Some(grants::gateway_of_system()),
            (_, Role::Gateway) => Some(grants::gateway(services.buckets)),
        }
    }
}

/// Subjects that cross from the org's account to the devices'.
const CROSSINGS: [(&str, Direction); 1] = [("live.>", Direction::Stream)];

/// An org's own account, whose users these keys sign.
pub(crate) fn org(signing_keys: Vec<SigningKey>) -> Account {
    let exports = CROSSINGS.map(|(subject, direction)| Export {
        name: subject.to_owned(),
        subject: subject.to_owned(),
        direction,
    });
    let limits = AccountLimits {
        exports: Limit::AtMost(exports.len() as u64),
        wildcard_exports: true,
        disk_storage: Limit::Unlimited,
        streams: Limit::Unlimited,
        consumers: Limit::Unlimited,
        ..no_jetstream()
    };
    Account {
        exports: exports.into(),
        ..account(signing_keys, limits)
    }
}

/// The account of an org's devices, whose users these keys sign.
pub(crate) fn devices(signing_keys: Vec<SigningKey>, org_account: &str) -> Account {
    let imports = CROSSINGS.map(|(subject, direction)| Import {
        name: subject.to_owned(),
        subject: subject.to_owned(),
        account: org_account.to_owned(),
        direction,
    });
    let limits = AccountLimits {
        imports: Limit::AtMost(imports.len() as u64),
        ..no_jetstream()
    };
    Account {
        imports: imports.into(),
        ..account(signing_keys, limits)
    }
}

/// The account whose users command the server.
pub(crate) fn system(signing_keys: Vec<SigningKey>) -> Account {
    account(signing_keys, no_jetstream())
}

/// An account whose users can do only what their own claims allow.
fn account(signing_keys: Vec<SigningKey>, limits: AccountLimits) -> Account {
    Account {
        limits,
        signing_keys,
        revocations: BTreeMap::new(),
        exports: Vec::new(),
        imports: Vec::new(),
        default_permissions: Permissions::nothing(),
    }
}

/// As many users as there are, bounded per message; nothing stored, imported,
/// exported or bridged. Never anything in memory only.
fn no_jetstream() -> AccountLimits {
    AccountLimits {
        conn: Limit::Unlimited,
        leaf: Limit::AtMost(0),
        subs: Limit::Unlimited,
        payload: Limit::AtMost(limits::NATS_MESSAGE as u64),
        data: Limit::Unlimited,
        imports: Limit::AtMost(0),
        exports: Limit::AtMost(0),
        wildcard_exports: false,
        mem_storage: Limit::AtMost(0),
        disk_storage: Limit::AtMost(0),
        streams: Limit::AtMost(0),
        consumers: Limit::AtMost(0),
        max_ack_pending: Limit::Unlimited,
        mem_max_stream_bytes: Limit::Unlimited,
        disk_max_stream_bytes: Limit::Unlimited,
        max_bytes_required: false,
    }
}
