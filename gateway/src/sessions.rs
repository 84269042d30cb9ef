//! Sessions: a random token that the client keeps and whose hash the gateway
//! stores, so that a stolen bucket opens nothing.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use rand::RngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use sotto_proto::{DeviceId, OrgName, UserName, limits, wire};
use zeroize::Zeroizing;

use crate::org::Org;
use crate::records::{SessionRecord, VERSION};
use crate::refusal::Refusal;

/// Leading bytes of a token that say which org it is of; the other 24 are
/// random.
const TAG: usize = 8;
const TOKEN: usize = 32;

/// What a session was opened by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// A device of the user.
    Device(DeviceId),
    /// The password, on no device yet.
    Password {
        /// When, in ms since 1970.
        at_ms: i64,
    },
}

/// Opens a session of a user.
///
/// # Errors
/// [`Refusal::Unavailable`].
pub async fn open(
    org: &Org,
    user: &UserName,
    opened: Opened,
    now_ms: i64,
) -> Result<wire::Session, Refusal> {
    let token = Token::draw(org.name());
    let lifetime_ms = i64::try_from(limits::SESSION.as_millis()).unwrap_or(i64::MAX);
    let (device, password_ms) = match opened {
        Opened::Device(device) => (device.to_bytes(), 0),
        Opened::Password { at_ms } => (Bytes::new(), at_ms),
    };
    let record = SessionRecord {
        version: VERSION,
        user: user.to_string(),
        device,
        expires_ms: now_ms.saturating_add(lifetime_ms),
        password_ms,
    };
    org.buckets().sessions.put(&token.key(), &record).await?;
    Ok(wire::Session {
        token: Bytes::copy_from_slice(token.as_bytes()),
        expires_ms: record.expires_ms,
        now_ms,
    })
}

/// What only its holder knows, in one org; its hash is the key under which the
/// gateways remember what it is for.
pub struct Token(Zeroizing<[u8; TOKEN]>);

impl Token {
    /// Draws one.
    pub fn draw(org: &OrgName) -> Self {
        let mut token = Zeroizing::new([0; TOKEN]);
        OsRng.fill_bytes(token.as_mut());
        for (byte, tag) in token.iter_mut().zip(tag(org)) {
            *byte = tag;
        }
        Self(token)
    }

    /// For its holder.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_ref()
    }

    /// The key of its record.
    pub fn key(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.as_bytes()))
    }

    /// Reads 32 bytes.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        bytes
            .try_into()
            .ok()
            .map(|bytes| Self(Zeroizing::new(bytes)))
    }

    /// Whether it can be of this org.
    pub fn is_of(&self, org: &OrgName) -> bool {
        self.0.starts_with(&tag(org))
    }

    /// Whose session it is.
    ///
    /// # Errors
    /// [`Refusal::SessionExpired`] when it is nobody's, now or any more.
    pub async fn find(&self, org: &Org, now_ms: i64) -> Result<(UserName, Opened), Refusal> {
        let record: Option<SessionRecord> = org.buckets().sessions.get(&self.key()).await?;
        let record = record
            .filter(|record| record.expires_ms >= now_ms)
            .ok_or(Refusal::SessionExpired)?;
        let user = record.user.parse();
        let user = user.map_err(|_| Refusal::unavailable("a stored name is none"))?;
        let opened = match record.device.as_ref() {
            [] => Opened::Password {
                at_ms: record.password_ms,
            },
            device => Opened::Device(DeviceId::try_from(device).map_err(Refusal::unavailable)?),
        };
        Ok((user, opened))
    }
}

fn tag(org: &OrgName) -> [u8; TAG] {
    let hash = Sha256::digest(org.as_str());
    std::array::from_fn(|at| hash.get(at).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_of_one_org() {
        let [acme, other]: [OrgName; 2] = ["acme", "other"].map(|name| name.parse().unwrap());
        let mut bytes = [7; TOKEN];
        bytes[..TAG].copy_from_slice(&tag(&acme));
        let token = Token::new(&bytes).unwrap();
        assert!(token.is_of(&acme));
        assert!(!token.is_of(&other));
        assert!(Token::new(&bytes[1..]).is_none());
    }
}
