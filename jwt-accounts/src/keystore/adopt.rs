//! A key store under an operator that was made with `nsc`.

use std::path::Path;

use nkeys::KeyPair;

use super::operator::NewOperator;
use super::{KeyStore, KeyStoreError};
use crate::claims::Claims;
use crate::nsc::{NscError, NscStore};

impl KeyStore {
    /// Makes a key store in `dir`, which must not exist, under an operator by
    /// `nsc` (see [`crate::nsc::import`]): its identity, the first of its
    /// signing keys whose seed is there, and all that its JWT says, but for the
    /// system account, which is the new store's own. So its JWT is signed once
    /// more, and the operator's other accounts stay valid under it; they are
    /// not taken along, and neither are users.
    ///
    /// Needs the operator's own seed and that of a signing key
    /// (`nsc edit operator --sk generate`), as daily work must do without the
    /// identity. The seeds in nsc's folder stay: remove them there.
    ///
    /// # Errors
    /// [`KeyStoreError::Nsc`] when one of those is missing or the operator's
    /// JWT has expired, [`KeyStoreError::Exists`], [`KeyStoreError::Io`].
    pub fn create_from_nsc(
        dir: &Path,
        store: &NscStore,
        now_ms: i64,
    ) -> Result<Self, KeyStoreError> {
        let Claims {
            subject,
            name,
            expires_s,
            nats,
        } = &store.claims.claims;
        if expires_s.is_some_and(|expires_s| expires_s <= now_ms.div_euclid(1_000)) {
            return Err(NscError::Expired(name.clone()).into());
        }
        let pair = |key: &String| store.seeds.get(key).map(KeyPair::from_seed);
        let identity = pair(subject).and_then(Result::ok);
        let identity = identity.ok_or_else(|| NscError::NoIdentity(name.clone()))?;
        let signing = nats.signing_keys.iter().find_map(pair).and_then(Result::ok);
        let signing = signing.ok_or_else(|| NscError::NoSigningKey(name.clone()))?;
        let operator = NewOperator {
            identity,
            signing,
            name: store.operator.name.clone(),
            expires_s: *expires_s,
            nats: nats.clone(),
        };
        Self::make(dir, operator, now_ms)
    }
}
