//! What is read of JWTs that other tools made, which leave out what is unset.
//! They are copied as they are, so the rest of what they say is not modelled.

use nkeys::KeyPairType;
use serde::{Deserialize, Serialize};

use crate::claims::{Kind, Operator, Verified};

/// An account's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NscAccountClaims {
    #[serde(default)]
    signing_keys: Vec<SigningKey>,
}

/// A user's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NscUserClaims {
    /// Set when a signing key of the account signed.
    #[serde(default)]
    issuer_account: String,
}

/// A signing key by itself, or with what its users may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum SigningKey {
    Plain(String),
    Scoped { key: String },
}

impl Kind for NscAccountClaims {
    const TYPE: &'static str = "account";
    const SUBJECT: KeyPairType = KeyPairType::Account;
    const ISSUER: KeyPairType = KeyPairType::Operator;
}

impl Kind for NscUserClaims {
    const TYPE: &'static str = "user";
    const SUBJECT: KeyPairType = KeyPairType::User;
    const ISSUER: KeyPairType = KeyPairType::Account;
}

impl NscAccountClaims {
    pub(crate) fn signing_keys(&self) -> impl Iterator<Item = &str> {
        self.signing_keys.iter().map(|key| match key {
            SigningKey::Plain(key) | SigningKey::Scoped { key } => key.as_str(),
        })
    }
}

/// Whether an operator says this of an account, as nats-server judges it.
pub(super) fn operator_signed(
    operator: &Verified<Operator>,
    account: &Verified<NscAccountClaims>,
) -> bool {
    let Operator {
        signing_keys,
        strict_signing_keys,
        ..
    } = &operator.claims.nats;
    signing_keys.contains(&account.issuer)
        || account.issuer == operator.claims.subject && !strict_signing_keys
}

/// Whether an account says this of a user, as nats-server judges it.
pub(super) fn account_signed(
    account: &Verified<NscAccountClaims>,
    user: &Verified<NscUserClaims>,
) -> bool {
    let id = &account.claims.subject;
    let of_account = &user.claims.nats.issuer_account;
    if user.issuer == *id {
        return of_account.is_empty() || of_account == id;
    }
    let mut signing_keys = account.claims.nats.signing_keys();
    of_account == id && signing_keys.any(|key| key == user.issuer)
}
