//! The operator in a store: its JWT, which every nats-server reads when it
//! starts, and the key that signs accounts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nkeys::{KeyPair, KeyPairType};

use super::{
    IDENTITY_SEED, KeyStore, KeyStoreError, OPERATOR, Place, SIGNING_SEED, Sealing, files,
};
use crate::claims::{Claims, Operator};

const OPERATOR_JWT: &str = "operator.jwt";

/// The operator's JWT, whose signature was checked.
pub(super) struct StoredOperator {
    pub jwt: String,
    pub claims: Claims<Operator>,
}

impl StoredOperator {
    /// Whether this public key of the operator signs accounts.
    pub(super) fn signs_with(&self, key: &String) -> bool {
        self.claims.nats.signing_keys.contains(key)
    }

    /// That what its JWT says does not fit the store.
    pub(super) fn damaged(&self, store: &Path) -> KeyStoreError {
        KeyStoreError::Damaged(jwt_file(store))
    }
}

impl KeyStore {
    /// The operator as it is stored now: another process may have changed it.
    pub(super) fn operator_now(&self) -> Result<StoredOperator, KeyStoreError> {
        read_operator(&self.dir)
    }

    /// The operator's key that signs accounts.
    pub(super) fn operator_key(&self) -> Result<KeyPair, KeyStoreError> {
        let place = format!("{OPERATOR}/{SIGNING_SEED}");
        let key = self.read_key(&place, KeyPairType::Operator)?;
        if self.operator_now()?.signs_with(&key.public_key()) {
            Ok(key)
        } else {
            Err(KeyStoreError::Damaged(self.dir.join(place)))
        }
    }
}

/// An operator before it is stored; it has no system account yet.
pub(super) struct NewOperator {
    pub identity: KeyPair,
    /// One of the signing keys in `nats`.
    pub signing: KeyPair,
    pub name: String,
    pub expires_s: Option<i64>,
    pub nats: Operator,
}

impl NewOperator {
    pub(super) fn draw() -> Self {
        let signing = KeyPair::new_operator();
        Self {
            identity: KeyPair::new_operator(),
            name: "sotto".to_owned(),
            expires_s: None,
            nats: Operator {
                signing_keys: vec![signing.public_key()],
                system_account: String::new(),
                strict_signing_keys: true,
                other: BTreeMap::new(),
            },
            signing,
        }
    }

    /// Writes its folder into a store that is being made in `new`.
    pub(super) fn write(
        &self,
        sealing: &Sealing,
        new: &Path,
        system_account: &str,
        now_s: i64,
    ) -> Result<(), KeyStoreError> {
        let claims = Claims {
            subject: self.identity.public_key(),
            name: self.name.clone(),
            expires_s: self.expires_s,
            nats: Operator {
                system_account: system_account.to_owned(),
                ..self.nats.clone()
            },
        };
        let folder = files::NewDir::within(new, OPERATOR)?;
        let place = Place {
            sealing,
            folder: &folder,
            path: OPERATOR.to_owned(),
        };
        place.write_seed(IDENTITY_SEED, &self.identity)?;
        place.write_seed(SIGNING_SEED, &self.signing)?;
        folder.write(OPERATOR_JWT, &claims.sign(&self.identity, now_s)?)?;
        folder.finish()
    }
}

pub(super) fn read_operator(store: &Path) -> Result<StoredOperator, KeyStoreError> {
    let path = jwt_file(store);
    let jwt = files::read(&path)?;
    let verified = Claims::<Operator>::verify(&jwt);
    let claims = verified.map_err(|_| KeyStoreError::Damaged(path))?.claims;
    Ok(StoredOperator {
        jwt: jwt.to_string(),
        claims,
    })
}

pub(super) fn jwt_file(store: &Path) -> PathBuf {
    store.join(OPERATOR).join(OPERATOR_JWT)
}
