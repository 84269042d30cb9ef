//! The identity key as the gateway keeps it: sealed under a key that only the
//! user's password yields (OPAQUE's export key), so that the user can come
//! back on a new device and the gateway can read nothing.

use bytes::Bytes;
use chacha20poly1305::aead::{Aead, Payload};
use ed25519_dalek::SigningKey;
use hkdf::Hkdf;
use rand::{CryptoRng, RngCore};
use sha2::Sha512;
use sotto_proto::{OrgName, UserName};
use zeroize::{Zeroize, Zeroizing};

use crate::account::{AccountError, random_bytes};
use crate::vault::cipher;

const NONCE: usize = 24;

fn key(export_key: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let hkdf = Hkdf::<Sha512>::new(None, export_key);
    if hkdf
        .expand(b"sotto v1 identity backup", key.as_mut())
        .is_err()
    {
        key.zeroize();
    }
    key
}

fn owner(org: &OrgName, user: &UserName) -> Vec<u8> {
    format!("{org}/{user}").into_bytes()
}

pub(crate) fn seal(
    export_key: &[u8],
    org: &OrgName,
    user: &UserName,
    identity: &SigningKey,
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<Bytes, AccountError> {
    let nonce: [u8; NONCE] = random_bytes(rng);
    let payload = Payload {
        msg: identity.as_bytes(),
        aad: &owner(org, user),
    };
    let sealed = cipher(&key(export_key))
        .encrypt(&nonce.into(), payload)
        .map_err(|_| AccountError::Damaged)?;
    Ok([&nonce[..], &sealed].concat().into())
}

pub(crate) fn open(
    export_key: &[u8],
    org: &OrgName,
    user: &UserName,
    sealed: &[u8],
) -> Result<SigningKey, AccountError> {
    let damaged = AccountError::Server("the backup of the identity key does not open");
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or(damaged.clone())?;
    let payload = Payload {
        msg: sealed,
        aad: &owner(org, user),
    };
    let seed = cipher(&key(export_key)).decrypt(nonce.into(), payload);
    let seed = Zeroizing::new(seed.map_err(|_| damaged.clone())?);
    let seed: &[u8; 32] = seed.as_slice().try_into().map_err(|_| damaged)?;
    Ok(SigningKey::from_bytes(seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    #[test]
    fn a_backup_opens_for_its_owner_and_key_only() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let identity = SigningKey::generate(&mut rng);
        let (org, alice) = ("acme".parse().unwrap(), "alice".parse().unwrap());
        let sealed = seal(b"export", &org, &alice, &identity, &mut rng).unwrap();
        assert_eq!(open(b"export", &org, &alice, &sealed).unwrap(), identity);
        assert!(open(b"other", &org, &alice, &sealed).is_err());
        assert!(open(b"export", &org, &"bob".parse().unwrap(), &sealed).is_err());
    }
}
