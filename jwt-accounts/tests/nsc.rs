//! Stores of `nsc`: ours is written as it would, its are read and adopted, and
//! a real nats-server takes what was written.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test, with functions of its own"
)]

mod server;

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use data_encoding::BASE64URL_NOPAD;
use nkeys::KeyPair;
use serde_json::{Value, json};
use server::{SERVICES, now_ms};
use sotto_jwt_accounts::claims::{Claims, Operator};
use sotto_jwt_accounts::keystore::{Detachable, KeyStore, KeyStoreError};
use sotto_jwt_accounts::nsc::{self, NscError, Seeds};
use sotto_jwt_accounts::{Credentials, grants};
use sotto_proto::OrgName;

const NOW_MS: i64 = 1_800_000_000_000;

fn org() -> OrgName {
    "acme".parse().unwrap()
}

/// Every file below a folder, by its path in it.
fn files(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut unread) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(dir) = unread.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                assert_eq!(mode(&path), 0o700, "{}", path.display());
                unread.push(path);
            } else {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
                let within = path.strip_prefix(root).unwrap().to_owned();
                found.insert(within, fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn seed_path(public: &str) -> PathBuf {
    let dir = Path::new("keys/keys")
        .join(&public[..1])
        .join(&public[1..3]);
    dir.join(format!("{public}.nk"))
}

#[test]
fn what_is_exported_is_laid_out_as_nsc_does_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let keys = KeyStore::create(&dir.path().join("accounts"), NOW_MS).unwrap();
    keys.add_org(&org(), SERVICES, NOW_MS).unwrap();
    let out = dir.path().join("nsc");
    let exported = nsc::export(&keys, &out, Seeds::With).unwrap();
    assert_eq!((exported.accounts, exported.seeds), (3, 11));
    assert!(exported.away.is_empty());

    let files = files(&out);
    let store = |path: &str| files[&Path::new("stores/sotto").join(path)].as_str();
    assert_eq!(
        store(".nsc"),
        r#"{"managed":false,"name":"sotto","kind":"operator","version":"1"}"#
    );
    assert_eq!(store("sotto.jwt"), keys.operator_jwt());
    assert_eq!(store("accounts/SYS/SYS.jwt"), keys.system_account_jwt());
    let [own, devices] = keys.account_jwts(&org()).unwrap();
    assert_eq!(store("accounts/acme/acme.jwt"), own);
    assert_eq!(store("accounts/acme devices/acme devices.jwt"), devices);
    let seeds = files.iter().filter(|(path, _)| path.starts_with("keys"));
    for (path, seed) in seeds.clone() {
        let public = KeyPair::from_seed(seed).unwrap().public_key();
        assert_eq!(*path, seed_path(&public));
    }
    assert_eq!((seeds.clone().count(), files.len()), (11, 16));

    let store = nsc::import(&out, None).unwrap();
    assert_eq!(store.operator.jwt, keys.operator_jwt());
    assert_eq!(store.seeds(), 11);
    let mut read: Vec<_> = store.accounts.iter().map(|a| a.token.jwt.clone()).collect();
    let mut kept: Vec<_> = keys.resolver_preload().unwrap();
    kept.sort_by_key(|account| account.jwt.clone());
    read.sort();
    assert!(read.iter().eq(kept.iter().map(|account| &account.jwt)));
    let shown = format!("{store:?}");
    for (_, seed) in seeds {
        assert!(!shown.contains(seed.as_str()), "a seed is shown");
    }
}

#[test]
fn seeds_leave_only_when_told_to_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let keys = KeyStore::create(&dir.path().join("accounts"), NOW_MS).unwrap();
    let out = dir.path().join("nsc");
    let exported = nsc::export(&keys, &out, Seeds::Without).unwrap();
    assert_eq!((exported.accounts, exported.seeds), (1, 0));
    let before = files(&out);
    assert!(before.keys().all(|path| path.starts_with("stores")));
    let again = nsc::export(&keys, &out, Seeds::With);
    assert!(matches!(again, Err(KeyStoreError::Exists(path)) if path == out));
    assert_eq!(files(&out), before);

    let away = dir.path().join("identity");
    keys.detach(Detachable::Identity, &away).unwrap();
    let exported = nsc::export(&keys, &dir.path().join("two"), Seeds::With).unwrap();
    assert_eq!((exported.seeds, exported.away.len()), (4, 1));
}

/// A store as nsc makes it: what is unset is left out of its JWTs.
struct Made {
    dir: tempfile::TempDir,
    operator: KeyPair,
    signing: KeyPair,
    user: KeyPair,
}

/// A JWT with claims that are written down, not modelled.
fn signed(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: &Value) -> String {
    let payload = json!({
        "jti": "A", "iat": 1_700_000_000, "iss": issuer.public_key(), "name": name,
        "sub": subject.public_key(), "nats": nats,
    });
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let header = encode(r#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let token = format!("{header}.{}", encode(&payload.to_string()));
    let signature = BASE64URL_NOPAD.encode(&issuer.sign(token.as_bytes()).unwrap());
    format!("{token}.{signature}")
}

impl Made {
    fn new() -> Self {
        let made = Self {
            dir: tempfile::tempdir().unwrap(),
            operator: KeyPair::new_operator(),
            signing: KeyPair::new_operator(),
            user: KeyPair::new_user(),
        };
        let (account, scoped) = (KeyPair::new_account(), KeyPair::new_account());
        made.write(
            "stores/Ops/.nsc",
            r#"{"managed":false,"name":"Ops","kind":"operator","version":"1"}"#,
        );
        let operator = json!({
            "signing_keys": [made.signing.public_key()],
            "account_server_url": "nats://nats.example.org", "tags": ["prod"],
            "type": "operator", "version": 2,
        });
        let jwt = signed(&made.operator, &made.operator, "Ops", &operator);
        made.write("stores/Ops/Ops.jwt", &jwt);
        let claims = json!({
            "limits": { "subs": -1, "conn": -1, "wildcards": true },
            "signing_keys": [{
                "kind": "user_scope", "key": scoped.public_key(), "role": "r",
                "template": { "pub": {}, "sub": {} },
            }],
            "default_permissions": { "pub": {}, "sub": {} },
            "type": "account", "version": 2,
        });
        let jwt = signed(&made.operator, &account, "APP", &claims);
        made.write("stores/Ops/accounts/APP/APP.jwt", &jwt);
        let user = json!({ "pub": {}, "sub": {}, "subs": -1, "type": "user", "version": 2 });
        let jwt = signed(&account, &made.user, "bob", &user);
        made.write("stores/Ops/accounts/APP/users/bob.jwt", &jwt);
        for key in [&made.operator, &made.signing, &account, &scoped, &made.user] {
            let path = seed_path(&key.public_key());
            made.write(path.to_str().unwrap(), &key.seed().unwrap());
        }
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\
             -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            made.user.seed().unwrap()
        );
        let creds = Credentials::parse(&creds).unwrap();
        made.write("keys/creds/Ops/APP/bob.creds", creds.expose());
        made
    }

    fn path(&self, within: &str) -> PathBuf {
        self.dir.path().join(within)
    }

    fn write(&self, within: &str, text: &str) {
        let path = self.path(within);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    fn import(&self) -> Result<nsc::NscStore, NscError> {
        nsc::import(self.dir.path(), None)
    }

    fn adopt(&self) -> Result<KeyStore, KeyStoreError> {
        let path = self.path("server/accounts");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        KeyStore::create_from_nsc(&path, &self.import().unwrap(), NOW_MS)
    }
}

#[test]
fn a_store_by_nsc_is_read_as_it_is() {
    let made = Made::new();
    let store = made.import().unwrap();
    assert_eq!(store.operator.id, made.operator.public_key());
    let jwt = fs::read_to_string(made.path("stores/Ops/Ops.jwt")).unwrap();
    assert_eq!(store.operator.jwt, jwt);
    assert_eq!(store.seeds(), 5);
    assert_eq!(store.accounts.len(), 1);
    let bob = &store.accounts[0].users[0];
    assert_eq!(bob.token.id, made.user.public_key());
    let creds = fs::read_to_string(made.path("keys/creds/Ops/APP/bob.creds")).unwrap();
    assert_eq!(bob.credentials.as_ref().unwrap().expose(), creds);

    // What is not there is missing, and no more.
    fs::remove_dir_all(made.path("keys")).unwrap();
    let store = made.import().unwrap();
    assert_eq!(store.seeds(), 0);
    assert!(store.accounts[0].users[0].credentials.is_none());
}

#[test]
fn what_does_not_fit_is_refused() {
    type Break = fn(&Made);
    type Said = fn(&NscError) -> bool;
    let unfit: Said = |error| matches!(error, NscError::Unfit { .. });
    let cases: [(&str, Break, Said); 11] = [
        (
            "another's account",
            |made| {
                let (operator, account) = (KeyPair::new_operator(), KeyPair::new_account());
                let nats = json!({ "type": "account", "version": 2 });
                let jwt = signed(&operator, &account, "X", &nats);
                made.write("stores/Ops/accounts/X/X.jwt", &jwt);
            },
            unfit,
        ),
        (
            "an operator that another key signed",
            |made| {
                let nats = json!({
                    "signing_keys": [made.signing.public_key()],
                    "type": "operator", "version": 2,
                });
                let jwt = signed(&made.signing, &made.operator, "Ops", &nats);
                made.write("stores/Ops/Ops.jwt", &jwt);
            },
            unfit,
        ),
        (
            "an account by the identity of a strict operator",
            |made| {
                let nats = json!({
                    "signing_keys": [made.signing.public_key()],
                    "strict_signing_key_usage": true, "type": "operator", "version": 2,
                });
                let jwt = signed(&made.operator, &made.operator, "Ops", &nats);
                made.write("stores/Ops/Ops.jwt", &jwt);
            },
            unfit,
        ),
        (
            "a changed JWT",
            |made| {
                let path = "stores/Ops/accounts/APP/APP.jwt";
                let jwt = fs::read_to_string(made.path(path)).unwrap();
                made.write(path, &jwt[..jwt.len() - 2]);
            },
            unfit,
        ),
        (
            "a name that is not the file's",
            |made| {
                let users = made.path("stores/Ops/accounts/APP/users");
                fs::rename(users.join("bob.jwt"), users.join("eve.jwt")).unwrap();
            },
            unfit,
        ),
        (
            "the seed of another key",
            |made| {
                let path = seed_path(&made.signing.public_key());
                let another = KeyPair::new_operator().seed().unwrap();
                made.write(path.to_str().unwrap(), &another);
            },
            unfit,
        ),
        (
            "a seed for all to read",
            |made| {
                let path = made.dir.path().join(seed_path(&made.signing.public_key()));
                fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
            },
            |error| matches!(error, NscError::Exposed(_)),
        ),
        (
            "a linked file",
            |made| {
                let jwt = made.path("stores/Ops/Ops.jwt");
                fs::rename(&jwt, made.path("elsewhere")).unwrap();
                symlink(made.path("elsewhere"), jwt).unwrap();
            },
            |error| matches!(error, NscError::Link(_)),
        ),
        (
            "a linked folder",
            |made| {
                let users = made.path("stores/Ops/accounts/APP/users");
                fs::rename(&users, made.path("elsewhere")).unwrap();
                symlink(made.path("elsewhere"), users).unwrap();
            },
            |error| matches!(error, NscError::Link(_)),
        ),
        (
            "a large file",
            |made| made.write("stores/Ops/Ops.jwt", &"x".repeat(1024 * 1024 + 1)),
            |error| matches!(error, NscError::TooLarge(_)),
        ),
        (
            "a managed operator",
            |made| {
                made.write(
                    "stores/Ops/.nsc",
                    r#"{"managed":true,"name":"Ops","kind":"operator","version":"1"}"#,
                );
            },
            |error| matches!(error, NscError::Managed(name) if name == "Ops"),
        ),
    ];
    for (what, spoil, said) in cases {
        let made = Made::new();
        spoil(&made);
        let error = made.import().unwrap_err();
        assert!(said(&error), "{what}: {error}");
    }
}

#[test]
fn one_of_several_operators_is_named() {
    let made = Made::new();
    made.write("stores/Other/.nsc", "{}");
    let error = made.import().unwrap_err();
    assert!(matches!(error, NscError::WhichOperator(names) if names == "Ops, Other"));
    assert!(nsc::import(made.dir.path(), Some("Ops")).is_ok());
    let error = nsc::import(made.dir.path(), Some("../Ops")).unwrap_err();
    assert!(matches!(error, NscError::NoOperator(_)));
}

#[test]
fn an_operator_by_nsc_becomes_that_of_a_new_store() {
    let made = Made::new();
    let keys = made.adopt().unwrap();
    keys.add_org(&org(), SERVICES, NOW_MS).unwrap();
    let operator = Claims::<Operator>::verify(keys.operator_jwt()).unwrap();
    assert_eq!(operator.issuer, made.operator.public_key());
    let claims = operator.claims;
    assert_eq!(claims.subject, made.operator.public_key());
    assert_eq!(claims.name, "Ops");
    assert_eq!(claims.nats.signing_keys, [made.signing.public_key()]);
    assert_eq!(claims.nats.system_account, keys.system_account());
    assert!(!claims.nats.strict_signing_keys);
    let other = json!({ "account_server_url": "nats://nats.example.org", "tags": ["prod"] });
    assert_eq!(json!(claims.nats.other), other);

    let out = made.path("exported");
    nsc::export(&keys, &out, Seeds::With).unwrap();
    let store = nsc::import(&out, Some("Ops")).unwrap();
    assert_eq!((store.accounts.len(), store.seeds()), (3, 11));
}

#[test]
fn adopting_needs_both_seeds() {
    let made = Made::new();
    let seed = |key: &KeyPair| made.dir.path().join(seed_path(&key.public_key()));
    fs::remove_file(seed(&made.signing)).unwrap();
    let error = made.adopt().unwrap_err();
    assert!(matches!(
        error,
        KeyStoreError::Nsc(NscError::NoSigningKey(_))
    ));
    fs::remove_file(seed(&made.operator)).unwrap();
    let error = made.adopt().unwrap_err();
    assert!(matches!(error, KeyStoreError::Nsc(NscError::NoIdentity(_))));
    assert!(!made.path("server/accounts").exists());
}

#[tokio::test]
async fn nats_server_takes_what_was_exported_under_an_adopted_operator() {
    let made = Made::new();
    let keys = made.adopt().unwrap();
    keys.add_org(&org(), SERVICES, now_ms()).unwrap();
    let out = made.path("exported");
    nsc::export(&keys, &out, Seeds::Without).unwrap();
    let mut accounts = nsc::import(&out, None).unwrap().accounts;
    // The operator's account from before is valid under the new JWT, too.
    accounts.extend(made.import().unwrap().accounts);

    let mut preload = String::new();
    for account in &accounts {
        let token = &account.token;
        preload.push_str(&format!("  {}: {}\n", token.id, token.jwt));
    }
    let configuration = format!(
        "operator: \"{}\"\nsystem_account: {}\nresolver: MEMORY\n\
         resolver_preload {{\n{preload}}}\n",
        out.join("stores/Ops/Ops.jwt").display(),
        keys.system_account(),
    );
    let running = server::Running::start(made.dir.path(), &configuration).await;
    let signer = keys.account_signer(&org()).unwrap();
    let relay = signer.relay(now_ms()).unwrap();
    let system = keys.system_credentials(now_ms()).unwrap();
    let mut users = accounts.into_iter().flat_map(|account| account.users);
    let bob = users.next().unwrap().credentials.unwrap();
    let logins = [
        (relay, grants::RELAY_INBOX),
        (system, grants::SYSTEM_INBOX),
        (bob, "_INBOX"),
    ];
    for (credentials, inbox) in logins {
        let options = async_nats::ConnectOptions::with_credentials(credentials.expose()).unwrap();
        let client = options.custom_inbox_prefix(inbox).connect(&running.url);
        client.await.unwrap().flush().await.unwrap();
    }
}
