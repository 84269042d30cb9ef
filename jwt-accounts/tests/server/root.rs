//! What no key of a key store makes: a user who may do anything in an org's own
//! account. It takes the operator's key, which lets another key sign users there.

use std::fs;

use nkeys::KeyPair;
use sotto_jwt_accounts::claims::{Account, Claims, Operator, Rights, SigningKey, Subjects, User};
use sotto_jwt_accounts::grants;
use sotto_jwt_accounts::nsc::{self, Seeds};

use super::{Probe, SERVICES, Server, now_ms};

impl Server {
    /// A client who may do anything in the org's own account.
    pub async fn root(&self) -> async_nats::Client {
        let [jwt, _] = self.keys.account_jwts(&self.org).unwrap();
        let mut account = Claims::<Account>::verify(&jwt).unwrap().claims;
        let signing = KeyPair::new_account();
        let key = SigningKey::Any(signing.public_key());
        account.nats.signing_keys.push(key);
        let jwt = account.sign(&self.operator_key(), now_ms() / 1_000);
        self.push(&jwt.unwrap()).await;

        let everything = || Subjects::only(vec![">".to_owned()]);
        let mut rights = grants::gateway(SERVICES.buckets);
        rights.permissions.publish = everything();
        rights.permissions.subscribe = everything();
        let key = KeyPair::new_user();
        let claims = user(&key, self.signer.account(), Some(rights));
        let jwt = claims.sign(&signing, now_ms() / 1_000).unwrap();
        let probe = Probe::connect(&self.url, jwt, key, "_INBOX.root").await;
        probe.unwrap().client
    }

    /// The operator's key that signs accounts.
    pub fn operator_key(&self) -> KeyPair {
        let operator = Claims::<Operator>::verify(self.keys.operator_jwt()).unwrap();
        self.key(&operator.claims.nats.signing_keys[0])
    }

    /// The secret half of one of the store's keys.
    pub fn key(&self, public_key: &str) -> KeyPair {
        let folder = tempfile::tempdir().unwrap();
        let nsc = folder.path().join("nsc");
        nsc::export(&self.keys, &nsc, Seeds::With).unwrap();
        let (kind, bucket) = (&public_key[..1], &public_key[1..3]);
        let file = nsc.join(format!("keys/keys/{kind}/{bucket}/{public_key}.nk"));
        KeyPair::from_seed(fs::read_to_string(file).unwrap().trim()).unwrap()
    }
}

/// The claims of a user with this key.
pub fn user(key: &KeyPair, account: &str, rights: Option<Rights>) -> Claims<User> {
    Claims {
        subject: key.public_key(),
        name: "test".to_owned(),
        expires_s: None,
        nats: User {
            issuer_account: account.to_owned(),
            rights,
        },
    }
}
