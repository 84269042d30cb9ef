//! Entries that are said again for who lacks them. Whoever came in since they
//! were said must not be able to read them, so they are sealed under a key
//! that MLS exports in the epoch of the frame that carried them (RFC 9420,
//! section 8.5); every member keeps these keys for a while.

use std::collections::BTreeMap;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use prost::Message;
use rand::RngCore;
use serde::{Deserialize, Serialize};
use sotto_proto::{DeviceId, RoomId, wire};
use zeroize::Zeroize;

use crate::records::{Key, Records};

/// Epochs whose keys are kept of a room.
const EPOCHS: usize = 64;

const NONCE: usize = 24;

/// The MLS exporter's label.
pub(crate) const LABEL: &str = "sotto resend 1";

/// The keys of a room's newest epochs, format 2.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct EpochKeys {
    keys: BTreeMap<u64, [u8; 32]>,
}

impl Drop for EpochKeys {
    fn drop(&mut self) {
        self.keys.values_mut().for_each(Zeroize::zeroize);
    }
}

/// An own entry that waits to be said again, format 2.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Resend {
    /// Of the frame that carried it.
    pub(crate) epoch: u64,
    /// `Entry`, encoded.
    #[serde(with = "serde_bytes")]
    pub(crate) entry: Vec<u8>,
}

impl EpochKeys {
    pub(crate) fn load(records: &Records, room: RoomId) -> Self {
        let kept = records.get(&Key::EpochKeys(room)).ok().flatten();
        kept.unwrap_or_default()
    }

    pub(crate) fn holds(&self, epoch: u64) -> bool {
        self.keys.contains_key(&epoch)
    }

    /// Keeps the key of a new epoch, and forgets the oldest.
    pub(crate) fn keep(&mut self, epoch: u64, key: [u8; 32]) {
        self.keys.insert(epoch, key);
        while self.keys.len() > EPOCHS {
            self.keys.pop_first();
        }
    }

    /// Seals entries of an epoch; `None` when its key is not here any more.
    pub(crate) fn seal(
        &self,
        room: RoomId,
        sender: DeviceId,
        epoch: u64,
        entries: &wire::ResentEntries,
        rng: &mut impl RngCore,
    ) -> Option<wire::Resent> {
        let mut nonce = [0; NONCE];
        rng.fill_bytes(&mut nonce);
        let aad = authenticated(room, sender, epoch);
        let payload = Payload {
            msg: &entries.encode_to_vec(),
            aad: &aad,
        };
        let sealed = self.cipher(epoch)?.encrypt(&XNonce::from(nonce), payload);
        let sealed = [nonce.to_vec(), sealed.ok()?].concat().into();
        Some(wire::Resent { epoch, sealed })
    }

    /// Opens what a device says again; `None` when it is for others, or not
    /// what it says.
    pub(crate) fn open(
        &self,
        room: RoomId,
        sender: DeviceId,
        resent: &wire::Resent,
    ) -> Option<wire::ResentEntries> {
        let (nonce, sealed) = resent.sealed.split_at_checked(NONCE)?;
        let nonce: [u8; NONCE] = nonce.try_into().ok()?;
        let aad = authenticated(room, sender, resent.epoch);
        let payload = Payload {
            msg: sealed,
            aad: &aad,
        };
        let cipher = self.cipher(resent.epoch)?;
        let entries = cipher.decrypt(&XNonce::from(nonce), payload).ok()?;
        wire::ResentEntries::decode(entries.as_slice()).ok()
    }

    fn cipher(&self, epoch: u64) -> Option<XChaCha20Poly1305> {
        let key = self.keys.get(&epoch)?;
        Some(XChaCha20Poly1305::new(key.into()))
    }
}

fn authenticated(room: RoomId, sender: DeviceId, epoch: u64) -> Vec<u8> {
    let parts: [&[u8]; 3] = [room.as_bytes(), sender.as_bytes(), &epoch.to_be_bytes()];
    parts.concat()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    #[test]
    fn who_has_the_key_of_the_epoch_reads_it_and_nobody_else() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let (room, sender) = (RoomId::random(&mut rng), DeviceId::random(&mut rng));
        let mut keys = EpochKeys::default();
        keys.keep(3, [3; 32]);
        keys.keep(4, [4; 32]);
        let entries = wire::ResentEntries {
            entries: vec![wire::Entry {
                counter: 9,
                body: vec![1, 2, 3].into(),
                ..wire::Entry::default()
            }],
        };
        let resent = keys.seal(room, sender, 3, &entries, &mut rng).unwrap();
        assert_eq!(keys.open(room, sender, &resent), Some(entries.clone()));

        let mut newcomer = EpochKeys::default();
        newcomer.keep(4, [4; 32]);
        assert_eq!(newcomer.open(room, sender, &resent), None);
        let moved = wire::Resent {
            epoch: 4,
            ..resent.clone()
        };
        assert_eq!(keys.open(room, sender, &moved), None);
        let other = DeviceId::random(&mut rng);
        assert_eq!(keys.open(room, other, &resent), None);
        let short = wire::Resent {
            sealed: resent.sealed.slice(..10),
            ..resent
        };
        assert_eq!(keys.open(room, sender, &short), None);
        assert!(keys.seal(room, sender, 5, &entries, &mut rng).is_none());
    }

    #[test]
    fn old_keys_are_forgotten() {
        let mut keys = EpochKeys::default();
        for epoch in 0..100 {
            keys.keep(epoch, [1; 32]);
        }
        assert_eq!(keys.keys.len(), EPOCHS);
        assert!(keys.cipher(35).is_none() && keys.cipher(36).is_some());
    }
}
