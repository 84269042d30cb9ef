//! Credentials that hear everything, which no key of a server's key store makes
//! by itself: the operator's key lets another one sign them.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use nkeys::KeyPair;
use sotto_jwt_accounts::claims::{
    Account, Claims, ConnectionType, Limit, Operator, Permissions, Rights, SigningKey, Subjects,
    User,
};
use sotto_jwt_accounts::grants::SYSTEM_INBOX;
use sotto_jwt_accounts::keystore::KeyStore;
use sotto_jwt_accounts::nsc::{self, Seeds};
use sotto_jwt_accounts::{Credentials, push_account};
use sotto_proto::OrgName;
use sotto_service::{Layout, ServerConfig, nats};

use super::MARK;

/// A user of an org's own account that hears everything. Nobody signs users
/// there who say themselves what they may do: the account is changed first.
///
/// # Errors
/// When the keys do not read, or the server does not take the account.
pub(super) async fn of_org(server: &Layout, org: &OrgName) -> anyhow::Result<Credentials> {
    let keys = KeyStore::open(&server.accounts())?;
    let [account, _] = keys.account_jwts(org)?;
    let mut account = Claims::<Account>::verify(&account)?.claims;
    let signing = KeyPair::new_account();
    let key = SigningKey::Any(signing.public_key());
    account.nats.signing_keys.push(key);
    let now_s = now_ms()? / 1_000;
    let account_jwt = account.sign(&operator_key(&keys)?, now_s)?;
    let login = nats::Login {
        name: "tap",
        credentials: &server.system_creds(),
        inbox_prefix: SYSTEM_INBOX,
    };
    let system = nats::connect(server, &ServerConfig::load(server)?, login).await?;
    push_account(&system, &account_jwt).await?;

    let user = KeyPair::new_user();
    let claims = Claims {
        subject: user.public_key(),
        name: "tap".to_owned(),
        expires_s: None,
        nats: User {
            issuer_account: account.subject,
            rights: Some(everything()),
        },
    };
    let jwt = claims.sign(&signing, now_s)?;
    Ok(Credentials::new(jwt, user.seed()?.into()))
}

/// A user of the account of an org's devices that hears everything.
///
/// # Errors
/// When the keys do not read.
pub(super) fn of_devices(server: &Layout, org: &OrgName) -> anyhow::Result<Credentials> {
    let signer = KeyStore::open(&server.accounts())?.account_signer(org)?;
    Ok(signer.user_of_devices(everything(), now_ms()?)?)
}

fn now_ms() -> anyhow::Result<i64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(now.as_millis().try_into()?)
}

/// The operator's key that signs accounts.
fn operator_key(keys: &KeyStore) -> anyhow::Result<KeyPair> {
    let folder = tempfile::tempdir()?;
    let nsc = folder.path().join("nsc");
    nsc::export(keys, &nsc, Seeds::With)?;
    let operator = Claims::<Operator>::verify(keys.operator_jwt())?.claims.nats;
    let seed = operator.signing_keys.iter().find_map(|key| {
        let (kind, bucket) = (key.get(..1)?, key.get(1..3)?);
        let folder = nsc.join("keys/keys").join(kind).join(bucket);
        fs::read_to_string(folder.join(format!("{key}.nk"))).ok()
    });
    let seed = seed.context("the operator's signing seed is not on this machine")?;
    Ok(KeyPair::from_seed(seed.trim())?)
}

fn everything() -> Rights {
    Rights {
        permissions: Permissions {
            publish: Subjects::only(vec![MARK.to_owned(), "$JS.API.STREAM.INFO.*".to_owned()]),
            subscribe: Subjects::only(vec![">".to_owned()]),
        },
        subs: Limit::Unlimited,
        payload: Limit::Unlimited,
        data: Limit::Unlimited,
        bearer_token: false,
        allowed_connection_types: vec![ConnectionType::Standard],
    }
}
