//! Seeds at rest: each is sealed with ChaCha20-Poly1305 under one key of the
//! store, which Argon2id makes of a passphrase and of what the file `sealing`
//! says.
//!
//! ```text
//! sealing          sotto-sealing-1 <m in KiB> <t> <p> <salt, base64url>
//! *.seed           sotto-sealed-1 <nonce and ciphertext, base64url>
//! ```
//!
//! A seed is bound to its place: one moved to another place does not open.
//! The passphrase is the text of one file: the one that `SOTTO_UNLOCK_FILE`
//! names; else `sotto-unlock` among systemd's credentials; else the one that
//! the configuration names; else `unlock` beside the store, which is made with
//! it and can be moved off the machine. Neither the passphrase nor the key is
//! ever written or shown.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use nkeys::KeyPair;
use rand::RngCore;
use rand::rngs::OsRng;
use zeroize::Zeroizing;

use super::{KeyStoreError, files};

/// The file in the store that says how the key is made.
pub(super) const SEALING: &str = "sealing";
/// First word of that file, and of a sealed seed.
const SEALING_FORMAT: &str = "sotto-sealing-1";
const SEALED_FORMAT: &str = "sotto-sealed-1";
/// Names the passphrase file, instead of the default.
const UNLOCK_VARIABLE: &str = "SOTTO_UNLOCK_FILE";
/// Where systemd puts what `LoadCredential=` names, and our name there.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
const CREDENTIAL: &str = "sotto-unlock";
/// The passphrase file that is made, beside the store.
const UNLOCK: &str = "unlock";
const PASSPHRASE: usize = 32;
const SALT: usize = 16;
const NONCE: usize = 12;
/// Argon2id as RFC 9106 recommends it for little memory: KiB, rounds, lanes.
const COSTS: (u32, u32, u32) = (64 * 1024, 3, 1);
/// The greatest costs that a store may ask for: 1 GiB, 16 rounds, 4 lanes.
const COSTS_MAX: (u32, u32, u32) = (1024 * 1024, 16, 4);

/// How the seeds of one store are sealed.
pub(super) struct Sealing {
    store: PathBuf,
    /// The passphrase file that the configuration names.
    configured: Option<PathBuf>,
    params: Params,
    salt: Vec<u8>,
    key: OnceLock<Zeroizing<[u8; 32]>>,
}

impl Sealing {
    /// Draws what a new store, which is being made in `new`, will be sealed
    /// with; and a passphrase beside it where there is none yet.
    pub(super) fn create(
        store: &Path,
        new: &Path,
        configured: Option<PathBuf>,
    ) -> Result<Self, KeyStoreError> {
        let unlock = own_passphrase_file(store, configured.as_deref());
        if !unlock.exists() {
            let mut secret = Zeroizing::new([0; PASSPHRASE]);
            OsRng.fill_bytes(&mut *secret);
            let text = Zeroizing::new(BASE32_NOPAD.encode(&*secret));
            files::replace(&unlock, &text)?;
        }
        let mut salt = [0; SALT];
        OsRng.fill_bytes(&mut salt);
        let (memory, rounds, lanes) = COSTS;
        let salt = BASE64URL_NOPAD.encode(&salt);
        let text = format!("{SEALING_FORMAT} {memory} {rounds} {lanes} {salt}\n");
        files::replace(&new.join(SEALING), &text)?;
        let mut sealing = Self::read(store, &text)?;
        sealing.configure(configured);
        Ok(sealing)
    }

    /// Reads how a store is sealed. The passphrase is not needed before a seed
    /// is.
    pub(super) fn open(store: &Path) -> Result<Self, KeyStoreError> {
        let path = store.join(SEALING);
        if !path.exists() && store.exists() {
            return Err(KeyStoreError::NotSealed(store.to_owned()));
        }
        Self::read(store, &files::read(&path)?)
    }

    fn read(store: &Path, text: &str) -> Result<Self, KeyStoreError> {
        let (params, salt) =
            parse(text).ok_or_else(|| KeyStoreError::Damaged(store.join(SEALING)))?;
        Ok(Self {
            store: store.to_owned(),
            configured: None,
            params,
            salt,
            key: OnceLock::new(),
        })
    }

    /// The configuration names this passphrase file, if any.
    pub(super) fn configure(&mut self, passphrase_file: Option<PathBuf>) {
        self.configured = passphrase_file;
    }

    fn passphrase_file(&self) -> PathBuf {
        own_passphrase_file(&self.store, self.configured.as_deref())
    }

    /// Seals a seed for its place, a path within the store.
    pub(super) fn seal(&self, place: &str, seed: &str) -> Result<String, KeyStoreError> {
        let mut nonce = [0; NONCE];
        OsRng.fill_bytes(&mut nonce);
        let payload = Payload {
            msg: seed.as_bytes(),
            aad: place.as_bytes(),
        };
        let sealed = self.cipher()?.encrypt(Nonce::from_slice(&nonce), payload);
        let sealed = sealed.map_err(|_| KeyStoreError::Damaged(self.store.join(place)))?;
        let text = BASE64URL_NOPAD.encode(&[&nonce[..], &sealed].concat());
        Ok(format!("{SEALED_FORMAT} {text}\n"))
    }

    /// Opens what was sealed for this place.
    pub(super) fn unseal(
        &self,
        place: &str,
        text: &str,
    ) -> Result<Zeroizing<String>, KeyStoreError> {
        let path = self.store.join(place);
        let damaged = || KeyStoreError::Damaged(path.clone());
        if is_open(text) {
            return Err(KeyStoreError::NotSealed(self.store.clone()));
        }
        let sealed = text.trim_end().strip_prefix(SEALED_FORMAT);
        let sealed = sealed.and_then(|rest| rest.strip_prefix(' '));
        let sealed = BASE64URL_NOPAD
            .decode(sealed.ok_or_else(damaged)?.as_bytes())
            .map_err(|_| damaged())?;
        let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or_else(damaged)?;
        let payload = Payload {
            msg: sealed,
            aad: place.as_bytes(),
        };
        let seed = self.cipher()?.decrypt(Nonce::from_slice(nonce), payload);
        let seed = seed.map_err(|_| KeyStoreError::Locked {
            seed: path.clone(),
            unlock: self.passphrase_file(),
        })?;
        match String::from_utf8(seed) {
            Ok(seed) => Ok(Zeroizing::new(seed)),
            Err(bytes) => {
                drop(Zeroizing::new(bytes.into_bytes()));
                Err(damaged())
            }
        }
    }

    fn cipher(&self) -> Result<ChaCha20Poly1305, KeyStoreError> {
        let key = match self.key.get() {
            Some(key) => key,
            None => {
                let derived = self.derive()?;
                self.key.get_or_init(|| derived)
            }
        };
        Ok(ChaCha20Poly1305::new(Key::from_slice(&**key)))
    }

    fn derive(&self) -> Result<Zeroizing<[u8; 32]>, KeyStoreError> {
        let path = self.passphrase_file();
        if !path.exists() {
            return Err(KeyStoreError::NoPassphrase(path));
        }
        let passphrase = files::read(&path)?;
        let mut key = Zeroizing::new([0; 32]);
        let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        argon
            .hash_password_into(passphrase.trim_end().as_bytes(), &self.salt, &mut *key)
            .map_err(|_| KeyStoreError::Damaged(self.store.join(SEALING)))?;
        Ok(key)
    }
}

/// Whether this is a seed as it was kept before stores were sealed.
pub(super) fn is_open(text: &str) -> bool {
    KeyPair::from_seed(text.trim()).is_ok()
}

/// The file that holds the passphrase of a store, for a process with this
/// environment.
pub fn passphrase_file(
    store: &Path,
    configured: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> PathBuf {
    if let Some(named) = variable(UNLOCK_VARIABLE) {
        return named.into();
    }
    let credentials = variable(CREDENTIALS_VARIABLE).map(PathBuf::from);
    match credentials.map(|folder| folder.join(CREDENTIAL)) {
        Some(credential) if credential.exists() => credential,
        _ => configured.map_or_else(|| store.with_file_name(UNLOCK), Path::to_owned),
    }
}

fn own_passphrase_file(store: &Path, configured: Option<&Path>) -> PathBuf {
    passphrase_file(store, configured, |name| std::env::var_os(name))
}

fn parse(text: &str) -> Option<(Params, Vec<u8>)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let &[SEALING_FORMAT, memory, rounds, lanes, salt] = words.as_slice() else {
        return None;
    };
    let costs: (u32, u32, u32) = (
        memory.parse().ok()?,
        rounds.parse().ok()?,
        lanes.parse().ok()?,
    );
    if costs.0 > COSTS_MAX.0 || costs.1 > COSTS_MAX.1 || costs.2 > COSTS_MAX.2 {
        return None;
    }
    let params = Params::new(costs.0, costs.1, costs.2, Some(32)).ok()?;
    let salt = BASE64URL_NOPAD.decode(salt.as_bytes()).ok()?;
    (salt.len() == SALT).then_some((params, salt))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Sealing) {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("accounts");
        std::fs::create_dir(&store).unwrap();
        let sealing = Sealing::create(&store, &store, None).unwrap();
        (dir, sealing)
    }

    #[test]
    fn a_seed_opens_at_its_place_only() {
        let (_dir, sealing) = store();
        let sealed = sealing.seal("operator/signing.seed", "SO secret").unwrap();
        assert!(!sealed.contains("secret"));
        let again = Sealing::open(&sealing.store).unwrap();
        let seed = again.unseal("operator/signing.seed", &sealed).unwrap();
        assert_eq!(*seed, "SO secret");
        let moved = again.unseal("system/signing.seed", &sealed);
        assert!(matches!(moved, Err(KeyStoreError::Locked { .. })));
    }

    #[test]
    fn without_the_passphrase_nothing_opens() {
        let (dir, sealing) = store();
        let sealed = sealing.seal("x.seed", "SO secret").unwrap();
        let unlock = dir.path().join(UNLOCK);
        files::replace(&unlock, "another").unwrap();
        let other = Sealing::open(&sealing.store).unwrap();
        let opened = other.unseal("x.seed", &sealed);
        assert!(matches!(opened, Err(KeyStoreError::Locked { .. })));
        std::fs::remove_file(&unlock).unwrap();
        let none = Sealing::open(&sealing.store).unwrap();
        let opened = none.unseal("x.seed", &sealed);
        assert!(matches!(opened, Err(KeyStoreError::NoPassphrase(path)) if path == unlock));
    }

    #[test]
    fn costs_are_bounded_and_other_formats_refused() {
        let salt = BASE64URL_NOPAD.encode(&[0; SALT]);
        assert!(parse(&format!("{SEALING_FORMAT} 65536 3 1 {salt}")).is_some());
        for text in [
            String::new(),
            format!("sotto-sealing-2 65536 3 1 {salt}"),
            format!("{SEALING_FORMAT} 4294967295 3 1 {salt}"),
            format!("{SEALING_FORMAT} 65536 4294967295 1 {salt}"),
            format!("{SEALING_FORMAT} 65536 3 1 AAAA"),
            format!("{SEALING_FORMAT} 65536 3 1 {salt} more"),
        ] {
            assert!(parse(&text).is_none(), "{text}");
        }
    }
}
