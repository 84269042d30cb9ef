//! Sealing a store that was made before stores were sealed.

use std::path::{Path, PathBuf};

use nkeys::KeyPair;

use super::sealing::{self, SEALING, Sealing};
use super::{KeyStore, KeyStoreError, files, seed};

/// Folders within one another in a store, at most.
const DEPTH: usize = 4;

impl KeyStore {
    /// Seals every seed in `dir` that is not sealed, with the passphrase that
    /// the configuration or the environment names, or a new one beside the
    /// store; returns how many there were. Cut short, it can be done again.
    ///
    /// What was there in the clear may still be found on the disk or in
    /// backups: let the keys be rotated afterwards.
    ///
    /// # Errors
    /// When a file does not read or write, or is no seed.
    pub fn seal(dir: &Path, passphrase_file: Option<PathBuf>) -> Result<usize, KeyStoreError> {
        let _locked = files::lock(dir)?;
        let mut sealing = match dir.join(SEALING).exists() {
            true => Sealing::open(dir)?,
            false => Sealing::create(dir, dir, passphrase_file.clone())?,
        };
        sealing.configure(passphrase_file);
        let mut sealed = 0;
        for place in seed_places(dir, Path::new(""), DEPTH)? {
            let path = dir.join(&place);
            let text = files::read(&path)?;
            if !sealing::is_open(&text) {
                // Sealed, and with this passphrase.
                sealing.unseal(&place, &text)?;
                continue;
            }
            let key = KeyPair::from_seed(text.trim());
            let key = key.map_err(|_| KeyStoreError::Damaged(path.clone()))?;
            files::replace(&path, &sealing.seal(&place, &seed(&key)?)?)?;
            sealed += 1;
        }
        Ok(sealed)
    }
}

/// The paths of seeds below `dir/at`, within the store.
fn seed_places(dir: &Path, at: &Path, depth: usize) -> Result<Vec<String>, KeyStoreError> {
    let mut places = Vec::new();
    for name in files::list(&dir.join(at))? {
        let path = at.join(&name);
        if dir.join(&path).is_dir() {
            if let Some(depth) = depth.checked_sub(1) {
                places.extend(seed_places(dir, &path, depth)?);
            }
        } else if name.ends_with(".seed") {
            places.extend(path.to_str().map(str::to_owned));
        }
    }
    Ok(places)
}
