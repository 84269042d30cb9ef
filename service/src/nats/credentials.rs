//! Credentials from a file that may be replaced while a connection lives, which
//! is what a rotation of keys does: whoever connects again reads it again.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Auth, AuthError, Client};
use nkeys::KeyPair;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::NatsError;
use crate::private_files;

/// Longest credentials file that is read, in bytes.
const FILE_MAX: u64 = 64 * 1024;
/// How often it is looked whether the file is another one.
const INTERVAL: Duration = Duration::from_secs(2);

const JWT: &str = "-----BEGIN NATS USER JWT-----";
const SEED: &str = "-----BEGIN USER NKEY SEED-----";

/// A credentials file, in the format that nsc writes.
#[derive(Debug, Clone)]
pub(super) struct CredentialsFile {
    path: PathBuf,
}

impl CredentialsFile {
    /// The file, which must hold credentials now.
    pub(super) fn open(path: PathBuf) -> Result<Self, NatsError> {
        let file = Self { path };
        file.authenticate(&[])?;
        Ok(file)
    }

    /// Signs the server's nonce with what the file holds now.
    pub(super) async fn answer(self, nonce: Vec<u8>) -> Result<Auth, AuthError> {
        self.authenticate(&nonce).map_err(AuthError::new)
    }

    /// Connects again each time that the file is another one, until the
    /// connection is closed for good: so that nothing depends on the keys that
    /// signed the old one.
    pub(super) async fn follow(self, client: Client) {
        let mut known = self.digest();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let now = self.digest();
            if now.is_none() || now == known {
                continue;
            }
            known = now;
            sotto_log::info!(file = self.path, "there are new credentials");
            if client.force_reconnect().await.is_err() {
                return;
            }
        }
    }

    fn authenticate(&self, nonce: &[u8]) -> Result<Auth, NatsError> {
        let text = self.read()?;
        let damaged = || NatsError::Credentials(self.path.display().to_string());
        let jwt = block(&text, JWT).ok_or_else(damaged)?;
        let seed = block(&text, SEED).ok_or_else(damaged)?;
        let key = KeyPair::from_seed(seed).map_err(|_| damaged())?;
        let mut auth = Auth::new();
        auth.jwt = Some(jwt.to_owned());
        auth.signature = Some(key.sign(nonce).map_err(|_| damaged())?);
        Ok(auth)
    }

    fn digest(&self) -> Option<[u8; 32]> {
        let text = self.read().ok()?;
        Some(Sha256::digest(text.as_bytes()).into())
    }

    fn read(&self) -> Result<Zeroizing<String>, NatsError> {
        let text = private_files::read_text(&self.path, FILE_MAX)?;
        Ok(Zeroizing::new(text))
    }
}

/// The line after this one.
fn block<'a>(text: &'a str, begin: &str) -> Option<&'a str> {
    let mut lines = text.lines().map(str::trim);
    lines.find(|line| *line == begin)?;
    lines.next().filter(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_holds_now_signs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.creds");
        let write = |key: &KeyPair| {
            let seed = key.seed().unwrap();
            let text = format!(
                "{JWT}\neyJ.{seed}\n------END NATS USER JWT------\n\n{SEED}\n{seed}\n\
                 ------END USER NKEY SEED------\n"
            );
            private_files::write(&path, text.as_bytes()).unwrap();
        };
        let (old, new) = (KeyPair::new_user(), KeyPair::new_user());
        write(&old);
        let file = CredentialsFile::open(path.clone()).unwrap();
        for key in [old, new] {
            write(&key);
            let auth = file.authenticate(b"nonce").unwrap();
            assert_eq!(auth.jwt.unwrap(), format!("eyJ.{}", key.seed().unwrap()));
            key.verify(b"nonce", &auth.signature.unwrap()).unwrap();
        }
    }

    #[test]
    fn what_holds_no_credentials_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.creds");
        for text in ["", JWT, &format!("{JWT}\nx\n{SEED}\nSU"), "SEED"] {
            private_files::write(&path, text.as_bytes()).unwrap();
            let error = CredentialsFile::open(path.clone()).unwrap_err().to_string();
            assert!(error.contains("x.creds"), "{error}");
        }
    }
}
