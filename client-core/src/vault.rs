//! Seals everything that is kept on the disk, and unlocks it with a passphrase.
//!
//! A random storage key is wrapped under Argon2id of the passphrase (the *key
//! slot*, a small file beside the store). From it come a key for the names of
//! records, one for their headers and one per room for their values, so that
//! whoever finds the disk sees neither which rooms there are nor how much is
//! in each, beyond that up to sixteen records belong together. Never writes a key or a plaintext anywhere itself.

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use rand::{CryptoRng, RngCore};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use sotto_proto::RoomId;
use zeroize::{Zeroize, Zeroizing};

use crate::wiped::Wiped;

/// Format of the key slot.
const SLOT_VERSION: u8 = 1;
/// Argon2id memory for the key slot, in KiB (RFC 9106, second recommendation).
const MEMORY_KIB: u32 = 64 * 1024;
/// Argon2id passes.
const PASSES: u32 = 3;
/// Largest memory that a key slot may ask for, in KiB: a damaged one must not
/// exhaust the machine.
const MEMORY_KIB_MAX: u32 = 256 * 1024;
const NONCE: usize = 24;
const TAG: usize = 16;

/// Why a vault cannot be opened or a record not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The passphrase does not open the key slot.
    #[error("wrong passphrase for this device: try again")]
    WrongPassphrase,
    /// The key slot or a record is not as it was written.
    #[error(
        "the device's {0} is damaged: restore the folder from a backup, or move it away and link this device again"
    )]
    Damaged(&'static str),
}

/// The keys of one device's disk.
#[derive(Clone)]
pub struct Vault {
    names: Zeroizing<[u8; 32]>,
    headers: XChaCha20Poly1305,
    rooms: Hkdf<Sha256>,
    general: XChaCha20Poly1305,
}

/// The key slot as it stands on the disk (MessagePack).
#[derive(Serialize, Deserialize)]
struct KeySlot {
    version: u8,
    memory_kib: u32,
    passes: u32,
    #[serde(with = "serde_bytes")]
    salt: Vec<u8>,
    #[serde(with = "serde_bytes")]
    nonce: Vec<u8>,
    #[serde(with = "serde_bytes")]
    wrapped: Vec<u8>,
}

/// A record as it goes to the disk.
pub(crate) struct Sealed {
    pub(crate) name: [u8; 16],
    pub(crate) value: Vec<u8>,
}

/// A record as it comes from the disk: its logical key and its value.
pub(crate) type Opened = (Vec<u8>, Wiped);

impl Vault {
    /// Draws a storage key and wraps it; the second part is the key slot,
    /// which must be durable before anything sealed is.
    ///
    /// # Errors
    /// [`VaultError::Damaged`] when Argon2 cannot run with the built-in parameters.
    pub fn create(
        passphrase: &str,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<(Self, Vec<u8>), VaultError> {
        let mut storage_key = Zeroizing::new([0; 32]);
        rng.fill_bytes(storage_key.as_mut());
        let mut slot = KeySlot {
            version: SLOT_VERSION,
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            salt: random(rng, 16),
            nonce: random(rng, NONCE),
            wrapped: Vec::new(),
        };
        let cipher = slot.wrapping_cipher(passphrase)?;
        slot.wrapped = cipher
            .encrypt(XNonce::from_slice(&slot.nonce), storage_key.as_slice())
            .map_err(|_| VaultError::Damaged("key file"))?;
        let file = rmp_serde::to_vec(&slot).map_err(|_| VaultError::Damaged("key file"))?;
        Ok((Self::from_storage_key(&storage_key), file))
    }

    /// Opens a key slot.
    ///
    /// # Errors
    /// [`VaultError::WrongPassphrase`], or [`VaultError::Damaged`].
    pub fn unlock(slot: &[u8], passphrase: &str) -> Result<Self, VaultError> {
        let damaged = VaultError::Damaged("key file");
        let slot: KeySlot = rmp_serde::from_slice(slot).map_err(|_| damaged.clone())?;
        let sensible = slot.version == SLOT_VERSION
            && slot.memory_kib <= MEMORY_KIB_MAX
            && slot.passes <= 16
            && slot.nonce.len() == NONCE
            && slot.wrapped.len() == 32 + TAG;
        if !sensible {
            return Err(damaged);
        }
        let opened = slot
            .wrapping_cipher(passphrase)?
            .decrypt(XNonce::from_slice(&slot.nonce), slot.wrapped.as_slice())
            .map_err(|_| VaultError::WrongPassphrase)?;
        let opened = Zeroizing::new(opened);
        let storage_key = opened.as_slice().try_into().map_err(|_| damaged)?;
        Ok(Self::from_storage_key(storage_key))
    }

    fn from_storage_key(storage_key: &[u8; 32]) -> Self {
        let root = Hkdf::<Sha256>::new(Some(b"sotto v1 storage"), storage_key);
        let rooms = expand(&root, &[b"rooms"]);
        Self {
            names: expand(&root, &[b"names"]),
            headers: cipher(&expand(&root, &[b"headers"])),
            general: cipher(&expand(&root, &[b"general"])),
            rooms: Hkdf::<Sha256>::new(None, rooms.as_slice()),
        }
    }

    /// The name under which a logical key is on the disk. The last byte of the
    /// key is its place among neighbours, and stays as it is: what is written
    /// together is near each other, which is all that the disk tells of it.
    pub(crate) fn name(&self, key: &[u8]) -> [u8; 16] {
        let mut name = [0; 16];
        let (place, group) = key.split_last().unwrap_or((&0, &[]));
        // HMAC takes keys of any length: the `else` cannot happen.
        if let Ok(mac) = <Hmac<Sha256> as Mac>::new_from_slice(self.names.as_slice()) {
            let tag = mac.chain_update(group).finalize().into_bytes();
            let tag = tag.into_iter().take(15).chain([*place]);
            name.iter_mut().zip(tag).for_each(|(to, from)| *to = from);
        }
        name
    }

    /// Seals a value under the key of `room`, or under the general one.
    pub(crate) fn seal(
        &self,
        key: &[u8],
        room: Option<&RoomId>,
        value: &[u8],
        rng: &mut (impl RngCore + CryptoRng + ?Sized),
    ) -> Result<Sealed, VaultError> {
        let name = self.name(key);
        let room_flag = room.map_or([0; 17], |room| {
            let mut flag = [1; 17];
            flag.iter_mut()
                .skip(1)
                .zip(room.as_bytes())
                .for_each(|(to, from)| *to = *from);
            flag
        });
        let header = Wiped::from([&room_flag[..], key].concat());
        let header = seal_box(&self.headers, &name, &header, rng)?;
        let body = seal_box(&self.room_cipher(room), &name, value, rng)?;
        let length = u16::try_from(header.len()).map_err(|_| VaultError::Damaged("record"))?;
        Ok(Sealed {
            name,
            value: [&length.to_be_bytes()[..], &header, &body].concat(),
        })
    }

    /// Opens what [`Vault::seal`] made.
    pub(crate) fn open(&self, name: &[u8], sealed: &[u8]) -> Result<Opened, VaultError> {
        let damaged = VaultError::Damaged("message store");
        let open = || {
            let (length, rest) = sealed.split_first_chunk::<2>()?;
            let (header, body) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
            let header = open_box(&self.headers, name, header)?;
            let (flag, key) = header.split_first_chunk::<17>()?;
            let room = match flag {
                [0, ..] => None,
                [_, room @ ..] => Some(RoomId::try_from(&room[..]).ok()?),
            };
            let value = open_box(&self.room_cipher(room.as_ref()), name, body)?;
            (self.name(key) == name).then(|| (key.to_vec(), value))
        };
        open().ok_or(damaged)
    }

    fn room_cipher(&self, room: Option<&RoomId>) -> XChaCha20Poly1305 {
        match room {
            Some(room) => cipher(&expand(&self.rooms, &[room.as_bytes()])),
            None => self.general.clone(),
        }
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(..)")
    }
}

impl KeySlot {
    fn wrapping_cipher(&self, passphrase: &str) -> Result<XChaCha20Poly1305, VaultError> {
        let damaged = VaultError::Damaged("key file");
        let params =
            Params::new(self.memory_kib, self.passes, 1, Some(32)).map_err(|_| damaged.clone())?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), &self.salt, key.as_mut())
            .map_err(|_| damaged)?;
        Ok(cipher(&key))
    }
}

pub(crate) fn cipher(key: &[u8; 32]) -> XChaCha20Poly1305 {
    XChaCha20Poly1305::new(key.into())
}

/// HKDF-Expand to 32 bytes, which SHA-256 always can.
fn expand(from: &Hkdf<Sha256>, info: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    if from.expand_multi_info(info, key.as_mut()).is_err() {
        key.zeroize();
    }
    key
}

fn seal_box(
    cipher: &XChaCha20Poly1305,
    name: &[u8],
    content: &[u8],
    rng: &mut (impl RngCore + CryptoRng + ?Sized),
) -> Result<Vec<u8>, VaultError> {
    let mut nonce = [0; NONCE];
    rng.fill_bytes(&mut nonce);
    let sealed = cipher
        .encrypt(
            &nonce.into(),
            Payload {
                msg: content,
                aad: name,
            },
        )
        .map_err(|_| VaultError::Damaged("record"))?;
    Ok([&nonce[..], &sealed].concat())
}

fn open_box(cipher: &XChaCha20Poly1305, name: &[u8], sealed: &[u8]) -> Option<Wiped> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
    let content = cipher
        .decrypt(
            nonce.into(),
            Payload {
                msg: sealed,
                aad: name,
            },
        )
        .ok()?;
    Some(Wiped::from(content))
}

fn random(rng: &mut (impl RngCore + CryptoRng), length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rng.fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    fn vault() -> (Vault, ChaCha20Rng) {
        (
            Vault::from_storage_key(&[7; 32]),
            ChaCha20Rng::seed_from_u64(1),
        )
    }

    #[test]
    fn a_slot_opens_with_its_passphrase_only() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (vault, slot) = Vault::create("correct horse", &mut rng).unwrap();
        let again = Vault::unlock(&slot, "correct horse").unwrap();
        assert_eq!(vault.name(b"x"), again.name(b"x"));
        // Neighbours are near each other, and nothing else is.
        assert_eq!(vault.name(b"x1")[..15], vault.name(b"x2")[..15]);
        assert_ne!(vault.name(b"x1")[..15], vault.name(b"y1")[..15]);
        assert_eq!(
            Vault::unlock(&slot, "wrong").unwrap_err(),
            VaultError::WrongPassphrase
        );
    }

    #[test]
    fn a_damaged_slot_is_an_error() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (_, slot) = Vault::create("p", &mut rng).unwrap();
        for length in 0..slot.len() {
            assert!(Vault::unlock(&slot[..length], "p").is_err());
        }
        assert_eq!(
            Vault::unlock(b"garbage", "p").unwrap_err(),
            VaultError::Damaged("key file")
        );
    }

    #[test]
    fn records_come_back_and_cannot_be_swapped() {
        let (vault, mut rng) = vault();
        let room = RoomId::random(&mut rng);
        let sealed = vault.seal(b"key", Some(&room), b"value", &mut rng).unwrap();
        let (key, value) = vault.open(&sealed.name, &sealed.value).unwrap();
        assert_eq!((key.as_slice(), &value[..]), (&b"key"[..], &b"value"[..]));
        let other = vault
            .seal(b"other", Some(&room), b"value", &mut rng)
            .unwrap();
        assert!(vault.open(&other.name, &sealed.value).is_err());
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let (vault, mut rng) = vault();
        let sealed = vault.seal(b"key", None, b"value", &mut rng).unwrap();
        for bit in 0..sealed.value.len() * 8 {
            let mut damaged = sealed.value.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(vault.open(&sealed.name, &damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn the_disk_shows_no_key_value_or_room() {
        let (vault, mut rng) = vault();
        let room = RoomId::random(&mut rng);
        let sealed = vault
            .seal(b"logical-key", Some(&room), b"plain-value", &mut rng)
            .unwrap();
        let disk = [&sealed.name[..], &sealed.value].concat();
        for secret in [&b"logical-key"[..], b"plain-value", room.as_bytes()] {
            assert!(!disk.windows(secret.len()).any(|window| window == secret));
        }
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", vault().0), "Vault(..)");
    }
}
