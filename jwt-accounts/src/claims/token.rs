//! Signing claims into a JWT and reading them back.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use nkeys::{KeyPair, KeyPairType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha512_256};

use super::{Account, Operator, User};

/// Longest JWT that is read, in bytes: several thousand rooms.
const TOKEN_MAX: usize = 1024 * 1024;

/// Header of every NATS JWT. Not JOSE's name for Ed25519, so no JOSE library fits.
const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;

/// Version of the claims.
const VERSION: u8 = 2;

/// What a JWT is about.
pub trait Kind: Serialize + DeserializeOwned {
    /// The value of `nats.type`.
    const TYPE: &'static str;
    /// The kind of key that is described.
    const SUBJECT: KeyPairType;
    /// The kind of key that signs.
    const ISSUER: KeyPairType;
}

impl Kind for Operator {
    const TYPE: &'static str = "operator";
    const SUBJECT: KeyPairType = KeyPairType::Operator;
    const ISSUER: KeyPairType = KeyPairType::Operator;
}

impl Kind for Account {
    const TYPE: &'static str = "account";
    const SUBJECT: KeyPairType = KeyPairType::Account;
    const ISSUER: KeyPairType = KeyPairType::Operator;
}

impl Kind for User {
    const TYPE: &'static str = "user";
    const SUBJECT: KeyPairType = KeyPairType::User;
    const ISSUER: KeyPairType = KeyPairType::Account;
}

/// What is said about one public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims<K> {
    /// The public nkey that this is about.
    pub subject: String,
    /// For people; no right follows from it.
    pub name: String,
    /// Void from this second since 1970 on, if ever.
    pub expires_s: Option<i64>,
    /// The rest.
    pub nats: K,
}

/// Claims whose signature was checked. Whether the issuer may issue them is
/// for the reader to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<K> {
    /// The public nkey that signed.
    pub issuer: String,
    /// Seconds since 1970.
    pub issued_s: i64,
    /// What was signed.
    pub claims: Claims<K>,
}

/// Why claims could not be signed or were refused.
#[derive(Debug, thiserror::Error)]
pub enum ClaimsError {
    /// The subject or the issuer is not a key of the kind that the claims need.
    #[error("an nkey of kind {expected} is needed here")]
    Key {
        /// The kind that is needed.
        expected: &'static str,
    },
    /// The secret key cannot sign.
    #[error("the nkey cannot sign: {0}")]
    Sign(#[source] nkeys::error::Error),
    /// The signature is not by the issuer over these claims.
    #[error("the signature of the JWT does not fit")]
    Signature,
    /// Not a NATS JWT of this kind.
    #[error("not a NATS JWT of the expected kind")]
    Malformed,
}

sotto_log::log_safe!(ClaimsError);

impl<K: Kind> Claims<K> {
    /// Signs the claims at `now_s`, seconds since 1970.
    ///
    /// # Errors
    /// [`ClaimsError::Key`] or [`ClaimsError::Sign`].
    pub fn sign(&self, issuer: &KeyPair, now_s: i64) -> Result<String, ClaimsError> {
        check_kind(issuer, K::ISSUER)?;
        check_kind(&public(&self.subject)?, K::SUBJECT)?;
        let mut payload = Payload {
            id: String::new(),
            issued_s: now_s,
            issuer: issuer.public_key(),
            subject: self.subject.clone(),
            name: self.name.clone(),
            expires_s: self.expires_s,
            nats: Nats {
                body: &self.nats,
                kind: K::TYPE.to_owned(),
                version: VERSION,
            },
        };
        let nameless = serde_json::to_vec(&payload).map_err(|_| ClaimsError::Malformed)?;
        payload.id = BASE32_NOPAD.encode(&Sha512_256::digest(nameless));
        let json = serde_json::to_vec(&payload).map_err(|_| ClaimsError::Malformed)?;

        let mut token = BASE64URL_NOPAD.encode(HEADER.as_bytes());
        token.push('.');
        BASE64URL_NOPAD.encode_append(&json, &mut token);
        let signature = issuer.sign(token.as_bytes()).map_err(ClaimsError::Sign)?;
        token.push('.');
        BASE64URL_NOPAD.encode_append(&signature, &mut token);
        Ok(token)
    }

    /// Checks a JWT's form and signature; neither its time nor its issuer's rights.
    ///
    /// # Errors
    /// [`ClaimsError::Malformed`], [`ClaimsError::Key`] or [`ClaimsError::Signature`].
    pub fn verify(token: &str) -> Result<Verified<K>, ClaimsError> {
        if token.len() > TOKEN_MAX {
            return Err(ClaimsError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(ClaimsError::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(ClaimsError::Malformed)?;
        if decode(header)? != HEADER.as_bytes() {
            return Err(ClaimsError::Malformed);
        }
        let payload: Payload<K> =
            serde_json::from_slice(&decode(payload)?).map_err(|_| ClaimsError::Malformed)?;
        if payload.nats.kind != K::TYPE || payload.nats.version != VERSION {
            return Err(ClaimsError::Malformed);
        }
        let issuer = public(&payload.issuer)?;
        check_kind(&issuer, K::ISSUER)?;
        check_kind(&public(&payload.subject)?, K::SUBJECT)?;
        issuer
            .verify(signed.as_bytes(), &decode(signature)?)
            .map_err(|_| ClaimsError::Signature)?;
        Ok(Verified {
            issuer: payload.issuer,
            issued_s: payload.issued_s,
            claims: Claims {
                subject: payload.subject,
                name: payload.name,
                expires_s: payload.expires_s,
                nats: payload.nats.body,
            },
        })
    }
}

/// The JSON of a JWT.
#[derive(Serialize, Deserialize)]
struct Payload<K> {
    #[serde(rename = "jti")]
    id: String,
    #[serde(rename = "iat")]
    issued_s: i64,
    #[serde(rename = "iss")]
    issuer: String,
    #[serde(rename = "sub")]
    subject: String,
    name: String,
    #[serde(rename = "exp", default, skip_serializing_if = "Option::is_none")]
    expires_s: Option<i64>,
    nats: Nats<K>,
}

#[derive(Serialize, Deserialize)]
struct Nats<K> {
    #[serde(flatten)]
    body: K,
    #[serde(rename = "type")]
    kind: String,
    version: u8,
}

fn decode(text: &str) -> Result<Vec<u8>, ClaimsError> {
    BASE64URL_NOPAD
        .decode(text.as_bytes())
        .map_err(|_| ClaimsError::Malformed)
}

fn public(key: &str) -> Result<KeyPair, ClaimsError> {
    KeyPair::from_public_key(key).map_err(|_| ClaimsError::Malformed)
}

fn check_kind(key: &KeyPair, expected: KeyPairType) -> Result<(), ClaimsError> {
    if key.key_pair_type() == expected {
        Ok(())
    } else {
        Err(ClaimsError::Key {
            expected: kind_name(&expected),
        })
    }
}

fn kind_name(kind: &KeyPairType) -> &'static str {
    match kind {
        KeyPairType::Operator => "operator",
        KeyPairType::Account => "account",
        KeyPairType::User => "user",
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
