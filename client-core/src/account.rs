//! Who this device is: the user's identity key, the device's own keys, its
//! certificate, and where its gateway is. Made by [`crate::signup`],
//! [`crate::login`] or [`crate::link`]; kept sealed by the engine.

use ed25519_dalek::{SigningKey, VerifyingKey};
use nkeys::{KeyPair, KeyPairType};
use prost::Message;
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sotto_proto::signed::{self, DeviceCertificate, SignedError};
use sotto_proto::wire::{self, Signed};
use sotto_proto::{DeviceId, GatewayAddress, OrgName, UserName, limits};
use zeroize::{Zeroize, Zeroizing};

use crate::io::Timestamp;
use crate::wiped::Wiped;

/// Why an account could not be made or read. Each says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// OPAQUE says that the password does not fit.
    #[error("wrong user name or password: try again")]
    WrongPassword,
    /// The password is empty.
    #[error("the password is empty: choose one")]
    EmptyPassword,
    /// What the gateway sent does not read or does not verify.
    #[error(
        "the server sent an answer that makes no sense ({0}): check that the address is right, and tell your administrator"
    )]
    Server(&'static str),
    /// The stored account does not read.
    #[error(
        "the stored account is damaged: restore the folder from a backup, or move it away and link this device again"
    )]
    Damaged,
}

impl From<SignedError> for AccountError {
    fn from(_: SignedError) -> Self {
        Self::Server("a signature does not fit")
    }
}

/// One device of one user.
pub struct Account {
    /// The org.
    pub org: OrgName,
    /// The user.
    pub user: UserName,
    /// This device.
    pub device: DeviceId,
    /// Where the gateway is and by what it is recognised.
    pub gateway: GatewayAddress,
    /// What the gateway calls itself; part of every session statement.
    pub server_name: String,
    /// The gateway's signing key, as first seen.
    pub gateway_key: VerifyingKey,
    pub(crate) identity: SigningKey,
    pub(crate) leaf: SigningKey,
    nats: KeyPair,
    nats_public: String,
    certificate: Signed,
    session: Option<wire::Session>,
}

/// The account as it is stored, format 1.
#[derive(Serialize, Deserialize)]
struct Stored {
    org: OrgName,
    user: UserName,
    host: String,
    port: u16,
    /// SHA-256 of the authority's certificate.
    authority: [u8; 32],
    server_name: String,
    gateway_key: [u8; 32],
    /// Ed25519 seeds.
    identity: [u8; 32],
    leaf: [u8; 32],
    nats: [u8; 32],
    /// `Signed`, encoded.
    #[serde(with = "serde_bytes")]
    certificate: Vec<u8>,
    /// `Session`, encoded; empty for none.
    #[serde(with = "serde_bytes")]
    session: Vec<u8>,
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.identity.zeroize();
        self.leaf.zeroize();
        self.nats.zeroize();
        self.session.zeroize();
    }
}

/// The keys of a device, before or without a certificate.
pub(crate) struct DeviceKeys {
    pub(crate) device: DeviceId,
    pub(crate) leaf: SigningKey,
    pub(crate) nats: KeyPair,
}

impl DeviceKeys {
    pub(crate) fn generate(rng: &mut (impl RngCore + CryptoRng)) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut());
        Self {
            device: DeviceId::random(rng),
            leaf: SigningKey::generate(rng),
            nats: KeyPair::new_from_raw(KeyPairType::User, *seed)
                .unwrap_or_else(|_| KeyPair::new_user()),
        }
    }

    /// The certificate that makes these keys a device of `user`.
    pub(crate) fn certificate(&self, user: UserOf<'_>, now: Timestamp) -> Signed {
        user.certify(
            self.device,
            self.leaf.verifying_key(),
            self.nats.public_key(),
            now,
        )
    }
}

/// Whose device is being certified, and the key to do it with.
#[derive(Clone, Copy)]
pub(crate) struct UserOf<'a> {
    pub(crate) org: &'a OrgName,
    pub(crate) user: &'a UserName,
    pub(crate) identity: &'a SigningKey,
}

impl UserOf<'_> {
    pub(crate) fn certify(
        self,
        device: DeviceId,
        signature_key: VerifyingKey,
        nats_key: String,
        now: Timestamp,
    ) -> Signed {
        let certificate = DeviceCertificate {
            org: self.org.clone(),
            user: self.user.clone(),
            device,
            identity_key: self.identity.verifying_key(),
            signature_key,
            nats_key,
            not_before_ms: now.0.saturating_sub(millis(limits::CLOCK_SKEW)),
            not_after_ms: now.0.saturating_add(millis(limits::DEVICE_CERTIFICATE)),
        };
        certificate.sign(self.identity)
    }
}

pub(crate) fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Account {
    /// Puts an account together and checks that its parts belong together.
    pub(crate) fn new(
        gateway: GatewayAddress,
        server: &wire::ServerInfo,
        identity: SigningKey,
        keys: DeviceKeys,
        certificate: Signed,
    ) -> Result<Self, AccountError> {
        let verified = DeviceCertificate::verify(&certificate)?;
        let fits = verified.org == gateway.org
            && verified.device == keys.device
            && verified.identity_key == identity.verifying_key()
            && verified.signature_key == keys.leaf.verifying_key()
            && verified.nats_key == keys.nats.public_key();
        if !fits {
            return Err(AccountError::Server(
                "the certificate is for another device",
            ));
        }
        Ok(Self {
            org: verified.org,
            user: verified.user,
            device: keys.device,
            gateway,
            server_name: server.server_name.clone(),
            gateway_key: signed::public_key(&server.gateway_key)?,
            identity,
            leaf: keys.leaf,
            nats_public: keys.nats.public_key(),
            nats: keys.nats,
            certificate,
            session: None,
        })
    }

    /// The device's NATS user nkey, `U…`.
    pub fn nats_public_key(&self) -> &str {
        &self.nats_public
    }

    /// Signs the nonce of a NATS server's INFO.
    ///
    /// # Errors
    /// Never for a device's own key; the type is nkeys'.
    pub fn sign_nats_nonce(&self, nonce: &[u8]) -> Result<Vec<u8>, nkeys::error::Error> {
        self.nats.sign(nonce)
    }

    /// A request for a session by proof of the device key. `now` is the
    /// *server's* time.
    pub fn session_request(&self, now: Timestamp) -> wire::SessionOpen {
        let statement = wire::SessionStatement {
            org: self.org.to_string(),
            server_name: self.server_name.clone(),
            device: self.device.to_bytes(),
            now_ms: now.0,
        };
        wire::SessionOpen {
            statement: Some(signed::sign(&statement, &self.leaf)),
        }
    }

    /// The request that enrols this device.
    pub fn enrolment(&self) -> wire::DeviceEnrol {
        wire::DeviceEnrol {
            certificate: Some(self.certificate.clone()),
        }
    }

    /// The gateway session, if one was opened; it may have expired.
    pub fn session(&self) -> Option<&wire::Session> {
        self.session.as_ref()
    }

    /// A fingerprint of the user's identity key for people to compare: 60
    /// digits of SHA-512 over the user's name and key.
    pub fn safety_number(&self) -> String {
        safety_number(&self.user, &self.identity.verifying_key())
    }

    pub(crate) fn set_session(&mut self, session: wire::Session) {
        self.session = Some(session);
    }

    pub(crate) fn certificate(&self) -> &Signed {
        &self.certificate
    }

    pub(crate) fn encode(&self) -> Wiped {
        let seed = self
            .nats
            .seed()
            .ok()
            .and_then(|seed| nkeys::decode_seed(&seed).ok());
        let stored = Stored {
            org: self.org.clone(),
            user: self.user.clone(),
            host: self.gateway.host.clone(),
            port: self.gateway.port,
            authority: self.gateway.authority,
            server_name: self.server_name.clone(),
            gateway_key: self.gateway_key.to_bytes(),
            identity: self.identity.to_bytes(),
            leaf: self.leaf.to_bytes(),
            nats: seed.map(|(_, seed)| seed).unwrap_or_default(),
            certificate: self.certificate.encode_to_vec(),
            session: self
                .session
                .as_ref()
                .map(Message::encode_to_vec)
                .unwrap_or_default(),
        };
        crate::records::encode(&stored)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, AccountError> {
        let damaged = AccountError::Damaged;
        let stored: Stored = crate::records::decode(bytes).map_err(|_| damaged.clone())?;
        let certificate =
            Signed::decode(stored.certificate.as_slice()).map_err(|_| damaged.clone())?;
        let verified = DeviceCertificate::verify(&certificate).map_err(|_| damaged.clone())?;
        let session = match stored.session.as_slice() {
            [] => None,
            bytes => Some(wire::Session::decode(bytes).map_err(|_| damaged.clone())?),
        };
        let nats =
            KeyPair::new_from_raw(KeyPairType::User, stored.nats).map_err(|_| damaged.clone())?;
        Ok(Self {
            org: stored.org.clone(),
            user: stored.user.clone(),
            device: verified.device,
            gateway: GatewayAddress {
                host: stored.host.clone(),
                port: stored.port,
                org: stored.org.clone(),
                authority: stored.authority,
            },
            server_name: stored.server_name.clone(),
            gateway_key: VerifyingKey::from_bytes(&stored.gateway_key).map_err(|_| damaged)?,
            identity: SigningKey::from_bytes(&stored.identity),
            leaf: SigningKey::from_bytes(&stored.leaf),
            nats_public: nats.public_key(),
            nats,
            certificate,
            session,
        })
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Account({}/{}, {:?})", self.org, self.user, self.device)
    }
}

/// 60 digits in groups of five, from a user's name and identity key.
pub fn safety_number(user: &UserName, key: &VerifyingKey) -> String {
    use sha2::{Digest, Sha512};
    let digest = Sha512::new()
        .chain_update(b"sotto v1 safety number\0")
        .chain_update(user.as_str())
        .chain_update([0])
        .chain_update(key.as_bytes())
        .finalize();
    let groups = digest.chunks_exact(5).take(12).map(|chunk| {
        let number = chunk
            .iter()
            .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        format!("{:05}", number % 100_000)
    });
    groups.collect::<Vec<_>>().join(" ")
}

/// The bytes of a random secret.
pub(crate) fn random_bytes<const N: usize>(
    rng: &mut (impl RngCore + CryptoRng + ?Sized),
) -> [u8; N] {
    let mut bytes = [0; N];
    rng.fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    /// The gateway's key in tests.
    pub(crate) fn gateway_key() -> SigningKey {
        SigningKey::from_bytes(&[42; 32])
    }

    pub(crate) fn server() -> wire::ServerInfo {
        wire::ServerInfo {
            server_name: "test".to_owned(),
            gateway_key: signed::key_bytes(&gateway_key().verifying_key()),
            ..wire::ServerInfo::default()
        }
    }

    /// A first device of a new user of org `acme`.
    pub(crate) fn account(user: &str, rng: &mut (impl RngCore + CryptoRng)) -> Account {
        device_of(user, SigningKey::generate(rng), rng)
    }

    /// A device of a user with this identity key.
    pub(crate) fn device_of(
        user: &str,
        identity: SigningKey,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Account {
        let gateway = GatewayAddress {
            host: "localhost".to_owned(),
            port: 1,
            org: "acme".parse().unwrap(),
            authority: [1; 32],
        };
        let keys = DeviceKeys::generate(rng);
        let now = Timestamp(1_800_000_000_000);
        let (org, user) = ("acme".parse().unwrap(), user.parse().unwrap());
        let user = UserOf {
            org: &org,
            user: &user,
            identity: &identity,
        };
        let certificate = keys.certificate(user, now);
        Account::new(gateway, &server(), identity, keys, certificate).unwrap()
    }

    #[test]
    fn an_account_comes_back_from_the_disk() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut alice = account("alice", &mut rng);
        alice.set_session(wire::Session {
            token: vec![5; 32].into(),
            expires_ms: 7,
            now_ms: 6,
        });
        let again = Account::decode(&alice.encode()).unwrap();
        assert_eq!(again.session(), alice.session());
        assert_eq!(again.nats_public_key(), alice.nats_public_key());
        assert_eq!(
            again.sign_nats_nonce(b"n").unwrap(),
            alice.sign_nats_nonce(b"n").unwrap()
        );
        assert_eq!(
            again.session_request(Timestamp(9)),
            alice.session_request(Timestamp(9))
        );
    }

    #[test]
    fn debug_shows_no_key() {
        let alice = account("alice", &mut ChaCha20Rng::seed_from_u64(1));
        assert_eq!(
            format!("{alice:?}"),
            format!("Account(acme/alice, {:?})", alice.device)
        );
    }

    #[test]
    fn safety_numbers_are_sixty_digits_and_differ() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let number = account("alice", &mut rng).safety_number();
        assert_eq!(number.chars().filter(char::is_ascii_digit).count(), 60);
        assert_ne!(number, account("alice", &mut rng).safety_number());
    }
}
