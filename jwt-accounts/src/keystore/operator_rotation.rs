//! A new signing key, and a new identity, for the operator.
//!
//! nats-server reads whom it trusts when it starts, and only then. So the
//! operator's JWT first names the next key beside the one in use
//! ([`KeyStore::prepare_operator`]); when every server has been started with
//! that JWT, the next key signs all accounts again ([`KeyStore::take_next_key`])
//! and they are pushed; then the JWT names it alone
//! ([`KeyStore::drop_old_operator_keys`]), which each server learns when it is
//! started once more. In between both keys are believed everywhere, and any
//! step can be done again after it was cut short.

use nkeys::{KeyPair, KeyPairType};

use super::{IDENTITY_SEED, KeyStore, KeyStoreError, NEXT_SEED, OPERATOR, files};
use crate::claims::Claims;

/// Whether the operator gets a new identity, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// The same public key as before.
    Keep,
    /// A new one. Only the operator's own JWT depends on it.
    Draw,
}

impl KeyStore {
    /// Draws the operator's next signing key, unless that was done, and says in
    /// the operator's JWT that it signs, too. Returns that JWT, with which every
    /// nats-server is to be started.
    ///
    /// # Errors
    /// When the operator's identity is not there, or a file does not read or
    /// write.
    pub fn prepare_operator(
        &self,
        identity: Identity,
        now_ms: i64,
    ) -> Result<String, KeyStoreError> {
        let dir = self.dir.join(OPERATOR);
        let _locked = files::lock(&dir)?;
        let place = format!("{OPERATOR}/{IDENTITY_SEED}");
        // What cannot be finished is not begun.
        let mut signer = self.read_key(&place, KeyPairType::Operator)?;
        let next = self.next_key()?;
        let next = match next {
            Some(next) => next,
            None => {
                let next = KeyPair::new_operator();
                self.replace_key(&next_place(), &next)?;
                next
            }
        };
        if identity == Identity::Draw {
            signer = KeyPair::new_operator();
            self.replace_key(&place, &signer)?;
        }
        let mut claims = self.operator_now()?.claims;
        if !claims.nats.signing_keys.contains(&next.public_key()) {
            claims.nats.signing_keys.push(next.public_key());
        }
        self.sign_operator(claims, &signer, now_ms)
    }

    /// The public key that every server must trust before
    /// [`Self::take_next_key`], while the operator's signing key changes.
    ///
    /// # Errors
    /// When a file does not read.
    pub fn next_operator_key(&self) -> Result<Option<String>, KeyStoreError> {
        Ok(self.next_key()?.map(|next| next.public_key()))
    }

    /// Signs every account with the next key. Returns their JWTs, for
    /// [`crate::push_account`].
    ///
    /// # Errors
    /// When a file does not read or write. What was done until then holds.
    pub fn take_next_key(&self, now_ms: i64) -> Result<Vec<String>, KeyStoreError> {
        let operator = files::lock(&self.dir.join(OPERATOR))?;
        if let Some(next) = self.next_key()? {
            self.replace_key(&format!("{OPERATOR}/{}", super::SIGNING_SEED), &next)?;
            files::remove(&self.dir.join(next_place()))?;
        }
        drop(operator);
        let folders = self.folders()?;
        let signed = folders.iter().map(|folder| self.sign_again(folder, now_ms));
        signed.collect()
    }

    /// Says in the operator's JWT that the key in use is the only one. Returns
    /// that JWT, with which every nats-server is to be started.
    ///
    /// # Errors
    /// When the operator's identity is not there, or a file does not read or
    /// write.
    pub fn drop_old_operator_keys(&self, now_ms: i64) -> Result<String, KeyStoreError> {
        let _locked = files::lock(&self.dir.join(OPERATOR))?;
        let operator = self.operator_now()?;
        let mut claims = operator.claims;
        let current = vec![self.operator_key()?.public_key()];
        if claims.nats.signing_keys == current {
            return Ok(operator.jwt);
        }
        let place = format!("{OPERATOR}/{IDENTITY_SEED}");
        let identity = self.read_key(&place, KeyPairType::Operator)?;
        claims.nats.signing_keys = current;
        self.sign_operator(claims, &identity, now_ms)
    }

    /// Signs as the identity whose seed is stored, which is not the one in
    /// `claims` when it is new.
    fn sign_operator(
        &self,
        claims: Claims<crate::claims::Operator>,
        identity: &KeyPair,
        now_ms: i64,
    ) -> Result<String, KeyStoreError> {
        let claims = Claims {
            subject: identity.public_key(),
            ..claims
        };
        let jwt = claims.sign(identity, now_ms.div_euclid(1_000))?;
        files::replace(&super::operator::jwt_file(&self.dir), &jwt)?;
        Ok(jwt)
    }

    fn next_key(&self) -> Result<Option<KeyPair>, KeyStoreError> {
        match self.read_key(&next_place(), KeyPairType::Operator) {
            Ok(key) => Ok(Some(key)),
            Err(KeyStoreError::Away(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn next_place() -> String {
    format!("{OPERATOR}/{NEXT_SEED}")
}
