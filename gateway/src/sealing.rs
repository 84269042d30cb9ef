//! Sealing what the gateway must be able to read again, each secret for the
//! one place where it belongs.

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use rand::{CryptoRng, RngCore};
use sha2::Sha256;
use sotto_proto::{FactorId, OrgName, UserName};
use zeroize::Zeroizing;

use crate::refusal::Refusal;

const NONCE: usize = 12;

/// Whose secret it is, and of which factor.
pub type Place<'a> = (&'a OrgName, &'a UserName, FactorId);

/// Seals secrets of one kind. All gateways of a server have the same key.
pub struct Sealer(ChaCha20Poly1305);

impl Sealer {
    /// Derives its key from the key that signs for the gateway; each kind of
    /// secret has a label of its own.
    pub fn new(gateway: &SigningKey, label: &[u8]) -> Self {
        Self(ChaCha20Poly1305::new(
            derive(gateway, label).as_ref().into(),
        ))
    }

    /// The secret, to be stored.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub fn seal(
        &self,
        place: Place<'_>,
        secret: &[u8],
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<Bytes, Refusal> {
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        let payload = Payload {
            msg: secret,
            aad: &bound_to(place),
        };
        let sealed = self.0.encrypt(Nonce::from_slice(&nonce), payload);
        let sealed = sealed.map_err(|_| Refusal::unavailable("a secret cannot be sealed"))?;
        Ok([nonce.as_slice(), &sealed].concat().into())
    }

    /// The secret again, in the place that it was sealed for.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Refusal> {
        let damaged = || {
            Refusal::unavailable("a sealed secret does not open: was the gateway's key changed?")
        };
        let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or_else(damaged)?;
        let payload = Payload {
            msg: sealed,
            aad: &bound_to(place),
        };
        let secret = self.0.decrypt(Nonce::from_slice(nonce), payload);
        Ok(Zeroizing::new(secret.map_err(|_| damaged())?))
    }
}

/// A key of the gateway's for one purpose.
pub fn derive(gateway: &SigningKey, label: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    // 32 bytes are always within HKDF's reach.
    let _ = Hkdf::<Sha256>::new(None, gateway.as_bytes()).expand(label, key.as_mut());
    key
}

/// Names hold no NUL.
pub fn bound_to((org, user, id): Place<'_>) -> Vec<u8> {
    let (org, user) = (org.as_str().as_bytes(), user.as_str().as_bytes());
    [org, b"\0", user, b"\0", id.as_bytes()].concat()
}
