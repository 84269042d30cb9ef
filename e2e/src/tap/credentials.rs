//! Credentials that hear everything, which no key of a server's key store makes
//! by itself: the operator's key lets another one sign them.

use std::fs;

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

/// A user of each account of an org, its own first, that hears everything.
///
/// # Errors
/// When the keys do not read, or the server does not take the account.
pub(super) async fn of_both_accounts(
    server: &Layout,
    org: &OrgName,
    now_s: i64,
) -> anyhow::Result<[Credentials; 2]> {
    let keys = KeyStore::open(&server.accounts())?;
    let [own, _] = keys.account_jwts(org)?;
    let mut own = Claims::<Account>::verify(&own)?.claims;

    // Nobody signs users of the org's own account who say what they may do.
    let operator = operator_key(&keys)?;
    let signing = KeyPair::new_account();
    let key = SigningKey::Any(signing.public_key());
    own.nats.signing_keys.push(key);
    let login = nats::Login {
        name: "tap",
        credentials: &server.system_creds(),
        inbox_prefix: SYSTEM_INBOX,
    };
    let system = nats::connect(server, &ServerConfig::load(server)?, login).await?;
    push_account(&system, &own.sign(&operator, now_s)?).await?;
    let among_devices = keys.account_signer(org)?;
    let among_devices = among_devices.user_of_devices(everything(), now_s * 1_000)?;
    Ok([listener(&own.subject, &signing, now_s)?, among_devices])
}

fn listener(account: &str, signing: &KeyPair, now_s: i64) -> anyhow::Result<Credentials> {
    let user = KeyPair::new_user();
    let claims = Claims {
        subject: user.public_key(),
        name: "tap".to_owned(),
        expires_s: None,
        nats: User {
            issuer_account: account.to_owned(),
            rights: Some(everything()),
        },
    };
    let jwt = claims.sign(signing, now_s)?;
    Ok(Credentials::new(jwt, user.seed()?.into()))
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
