//! What the accounts of a server may do and how they hang together.
//!
//! An org has two. Its own account holds the streams, the directory and what
//! gateways keep; relays and gateways are users of it. Devices are users of
//! another one without any JetStream, which reaches the first by the imports
//! below and in no other way. A relay is a user of both: devices ask it for
//! catch-up in their own account.
//!
//! Why: whoever publishes to a stream names the subject that the server
//! acknowledges to, and the server publishes there without asking for the
//! sender's permissions. In one account a device could make it write into the
//! directory, into a room it does not belong to or over a password record.
//! Between accounts the server puts a subject of its own (`_R_.…`) in the
//! place of that reply, and the acknowledgement ends in the devices' account,
//! where nothing is stored.

use std::collections::BTreeMap;

use sotto_proto::limits;

use crate::claims::{Account, AccountLimits, Direction, Export, Import, Limit, Permissions};

/// Subjects that cross from the devices' account to the org's, or back.
const CROSSINGS: [(&str, Direction); 4] = [
    ("r.>", Direction::Service),
    ("blob.>", Direction::Service),
    ("inbox.*", Direction::Service),
    ("live.>", Direction::Stream),
];

/// An org's own account, whose users this key signs.
pub(crate) fn org(signing_key: String) -> Account {
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
        ..account(signing_key, limits)
    }
}

/// The account of an org's devices, whose users this key signs.
pub(crate) fn devices(signing_key: String, org_account: &str) -> Account {
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
        ..account(signing_key, limits)
    }
}

/// The account whose users command the server.
pub(crate) fn system(signing_key: String) -> Account {
    account(signing_key, no_jetstream())
}

/// An account whose users can do only what their own claims allow.
fn account(signing_key: String, limits: AccountLimits) -> Account {
    Account {
        limits,
        signing_keys: vec![signing_key],
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
