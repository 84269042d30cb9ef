//! The keys on disk: private, whole or not there, and the same after reopening.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test, with functions of its own"
)]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sotto_jwt_accounts::claims::{Account, Claims, Limit, Operator};
use sotto_jwt_accounts::grants::Services;
use sotto_jwt_accounts::keystore::{
    Accounts, Detachable, Identity, KeyStore, KeyStoreError, StorageLimits,
};
use sotto_jwt_accounts::nsc::Seeds;
use sotto_proto::OrgName;

const NOW_S: i64 = 1_800_000_000;
const NOW_MS: i64 = NOW_S * 1_000;

/// What daily work reads.
const READ: [&str; 11] = [
    "operator/signing.seed",
    "operator/operator.jwt",
    "system/admin.seed",
    "system/gateway.seed",
    "system/account.jwt",
    "orgs/acme/org/relay.seed",
    "orgs/acme/org/gateway.seed",
    "orgs/acme/org/account.jwt",
    "orgs/acme/devices/device.seed",
    "orgs/acme/devices/relay.seed",
    "orgs/acme/devices/account.jwt",
];

const SERVICES: Services<'static> = Services {
    shards: 1,
    buckets: &["sessions"],
};

const SOME: StorageLimits = StorageLimits {
    bytes: Limit::AtMost(1 << 30),
    streams: Limit::AtMost(20),
};

struct Case {
    _dir: tempfile::TempDir,
    path: PathBuf,
    keys: KeyStore,
    org: OrgName,
}

impl Case {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts");
        let keys = KeyStore::create(&path, NOW_MS).unwrap();
        let org: OrgName = "acme".parse().unwrap();
        keys.add_org(&org, SERVICES, NOW_MS).unwrap();
        Self {
            _dir: dir,
            path,
            keys,
            org,
        }
    }

    /// Every file, with its folders.
    fn tree(&self) -> (Vec<PathBuf>, Vec<PathBuf>) {
        tree(&self.path)
    }
}

/// Every file below a folder, with its folders.
fn tree(path: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut files, mut folders) = (Vec::new(), vec![path.to_owned()]);
    let mut unread = folders.clone();
    while let Some(folder) = unread.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                unread.push(path.clone());
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    (files, folders)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_reopened_is_what_was_made() {
    let case = Case::new();
    let reopened = KeyStore::open(&case.path).unwrap();
    assert_eq!(reopened.operator_jwt(), case.keys.operator_jwt());
    assert_eq!(reopened.orgs().unwrap(), std::slice::from_ref(&case.org));
    let preload = reopened.resolver_preload().unwrap();
    assert_eq!(preload, case.keys.resolver_preload().unwrap());
    let signer = reopened.account_signer(&case.org).unwrap();
    let ids: Vec<&str> = preload.iter().map(|account| account.id.as_str()).collect();
    let expected = [
        reopened.system_account(),
        signer.account(),
        signer.device_account(),
    ];
    assert_eq!(ids, expected);
}

#[test]
fn everything_is_for_its_owner_only() {
    let case = Case::new();
    let (files, folders) = case.tree();
    assert_eq!(files.len(), READ.len() + 4 + 1);
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    for folder in folders {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
    }
}

#[test]
fn a_seed_that_others_can_read_is_refused() {
    let case = Case::new();
    let seed = case.path.join("operator/signing.seed");
    fs::set_permissions(&seed, Permissions::from_mode(0o640)).unwrap();
    let error = use_all(&case.path, &case.org).unwrap_err();
    assert!(matches!(error, KeyStoreError::Exposed(path) if path == seed));
}

#[test]
fn damage_is_named_with_its_file() {
    for name in READ {
        let case = Case::new();
        let file = case.path.join(name);
        for content in [&b""[..], b"not a key", &[b'x'; 100], &[0xff; 10]] {
            fs::write(&file, content).unwrap();
            let error = use_all(&case.path, &case.org).unwrap_err();
            assert!(
                matches!(&error, KeyStoreError::Damaged(path) if *path == file),
                "{name}: {error}"
            );
        }
        fs::remove_file(&file).unwrap();
        let error = use_all(&case.path, &case.org).unwrap_err();
        let gone = matches!(error, KeyStoreError::Io { .. } | KeyStoreError::Away(_));
        assert!(gone, "{name}: {error}");
    }
}

#[test]
fn identity_seeds_can_be_kept_elsewhere() {
    let case = Case::new();
    for folder in ["operator", "system", "orgs/acme/org", "orgs/acme/devices"] {
        fs::remove_file(case.path.join(folder).join("identity.seed")).unwrap();
    }
    use_all(&case.path, &case.org).unwrap();
}

#[test]
fn keys_of_another_store_do_not_mix_in() {
    let (ours, theirs) = (Case::new(), Case::new());
    for file in [
        "operator/signing.seed",
        "orgs/acme/org/account.jwt",
        "orgs/acme/devices/device.seed",
    ] {
        let own = fs::read(ours.path.join(file)).unwrap();
        fs::copy(theirs.path.join(file), ours.path.join(file)).unwrap();
        assert!(use_all(&ours.path, &ours.org).is_err(), "{file}");
        fs::write(ours.path.join(file), own).unwrap();
    }
    use_all(&ours.path, &ours.org).unwrap();
}

#[test]
fn what_exists_is_not_made_again() {
    let case = Case::new();
    let before = case.keys.resolver_preload().unwrap();
    let again = KeyStore::create(&case.path, NOW_MS).unwrap_err();
    assert!(matches!(again, KeyStoreError::Exists(_)), "{again}");
    let again = case.keys.add_org(&case.org, SERVICES, NOW_MS).unwrap_err();
    assert!(matches!(again, KeyStoreError::Exists(_)), "{again}");
    assert_eq!(case.keys.resolver_preload().unwrap(), before);
    let unknown = case.keys.account_signer(&"nobody".parse().unwrap());
    assert!(matches!(unknown, Err(KeyStoreError::UnknownOrg(_))));
}

#[test]
fn what_an_interrupted_start_left_is_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("accounts");
    fs::create_dir_all(dir.path().join(".new-accounts/operator")).unwrap();
    fs::write(
        dir.path().join(".new-accounts/operator/identity.seed"),
        "half",
    )
    .unwrap();
    let keys = KeyStore::create(&path, NOW_MS).unwrap();
    fs::create_dir_all(path.join("orgs/.new-acme/org")).unwrap();
    assert_eq!(keys.orgs().unwrap(), []);
    let org = "acme".parse().unwrap();
    keys.add_org(&org, SERVICES, NOW_MS).unwrap();
    assert_eq!(keys.orgs().unwrap(), [org]);
    assert!(!path.join("orgs/.new-acme").exists());
    assert!(!dir.path().join(".new-accounts").exists());
}

#[test]
fn a_revocation_is_remembered() {
    let case = Case::new();
    let [_, before] = case.keys.account_jwts(&case.org).unwrap();
    let key = nkeys::KeyPair::new_user().public_key();
    let revoke = |keys: &KeyStore, nats_keys: &[&str], now_s: i64| {
        let nats_keys = nats_keys.iter().map(|&key| (key.to_owned(), NOW_S));
        let jwt = keys.revoke(&case.org, &nats_keys.collect(), now_s * 1_000);
        let claims = Claims::<Account>::verify(jwt.as_ref().unwrap()).unwrap();
        (jwt.unwrap(), claims.claims.nats.revocations)
    };
    let (first, voided) = revoke(&case.keys, &[&key], NOW_S);
    assert_eq!(voided, [(key.clone(), NOW_S)].into());
    assert_ne!(first, before);

    let reopened = KeyStore::open(&case.path).unwrap();
    let [_, stored] = reopened.account_jwts(&case.org).unwrap();
    assert_eq!(stored, first);
    let (again, _) = revoke(&reopened, &[&key], NOW_S + 10);
    assert_eq!(again, first);

    // Another key beside it; both are forgotten when no JWT is left of them.
    let (_, voided) = revoke(&reopened, &["other"], NOW_S + 3_600);
    assert_eq!(voided.len(), 2);
    let (_, voided) = revoke(&reopened, &["other"], NOW_S + 3_601);
    assert_eq!(voided, BTreeMap::new());
}

#[test]
fn a_second_store_takes_what_is_newer_from_the_first() {
    let case = Case::new();
    let copy = case.path.with_file_name("copy");
    let unlock = case.path.with_file_name("unlock");
    for file in case.tree().0 {
        let to = copy.join(file.strip_prefix(&case.path).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    let second = KeyStore::open(&copy).unwrap();
    let second = second.with_passphrase_file(Some(unlock));
    let [old, _] = second.account_jwts(&case.org).unwrap();
    let accounts = Accounts::Org(&case.org);
    let rotated = case
        .keys
        .rotate(accounts, SERVICES, NOW_MS + 1_000)
        .unwrap();
    let [own, devices] = rotated.try_into().unwrap();
    second.take_newer(&case.org, &own).unwrap();
    second.take_newer(&case.org, &devices).unwrap();
    // A revocation there leaves the new keys.
    let revoked = [("key".to_owned(), NOW_S)].into();
    let jwt = second.revoke(&case.org, &revoked, NOW_MS + 1_000).unwrap();
    let account = Claims::<Account>::verify(&jwt).unwrap().claims.nats;
    assert_eq!(account.signing_keys.len(), 4);
    assert_eq!(account.revocations, revoked);
    second.account_signer(&case.org).unwrap();

    // Neither what is older nor another operator's.
    second.take_newer(&case.org, &old).unwrap();
    let mut forged = Claims::<Account>::verify(&own).unwrap().claims;
    forged.nats.signing_keys.clear();
    let stranger = nkeys::KeyPair::new_operator();
    let forged = forged.sign(&stranger, NOW_S + 10).unwrap();
    for jwt in [forged.as_str(), "no JWT"] {
        second.take_newer(&case.org, jwt).unwrap();
    }
    assert_eq!(second.account_jwts(&case.org).unwrap(), [own, jwt]);
}

#[test]
fn revocations_of_several_processes_are_all_kept() {
    let case = Case::new();
    std::thread::scope(|scope| {
        for process in 0..4 {
            let keys = KeyStore::open(&case.path).unwrap();
            let org = &case.org;
            scope.spawn(move || {
                for number in 0..10 {
                    let key = (format!("{process}-{number}"), NOW_S);
                    keys.revoke(org, &[key].into(), NOW_MS).unwrap();
                }
            });
        }
    });
    let nothing = BTreeMap::new();
    let jwt = case.keys.revoke(&case.org, &nothing, NOW_MS).unwrap();
    let account = Claims::<Account>::verify(&jwt).unwrap();
    assert_eq!(account.claims.nats.revocations.len(), 40);
}

#[test]
fn no_seed_is_on_disk_in_the_clear() {
    let case = Case::new();
    let (files, _) = case.tree();
    let seeds = files
        .iter()
        .filter(|f| f.extension() == Some("seed".as_ref()));
    for file in seeds {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.starts_with("sotto-sealed-1 "), "{}", file.display());
        assert!(nkeys::KeyPair::from_seed(text.trim()).is_err());
    }
    let unlock = case.path.with_file_name("unlock");
    assert_eq!(mode(&unlock), 0o600);
}

#[test]
fn the_passphrase_may_be_elsewhere_until_a_seed_is_needed() {
    let case = Case::new();
    let unlock = case.path.with_file_name("unlock");
    fs::rename(&unlock, case.path.with_file_name("away")).unwrap();
    let keys = KeyStore::open(&case.path).unwrap();
    assert_eq!(keys.resolver_preload().unwrap().len(), 3);
    let error = keys.account_signer(&case.org).unwrap_err();
    assert!(matches!(error, KeyStoreError::NoPassphrase(path) if path == unlock));
    fs::write(&unlock, "another").unwrap();
    fs::set_permissions(&unlock, Permissions::from_mode(0o600)).unwrap();
    let keys = KeyStore::open(&case.path).unwrap();
    let error = keys.account_signer(&case.org).unwrap_err();
    assert!(matches!(error, KeyStoreError::Locked { .. }), "{error}");
}

#[test]
fn the_configuration_may_name_the_passphrase() {
    let case = Case::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("passphrase");
    fs::rename(case.path.with_file_name("unlock"), &file).unwrap();
    let open = |file: &Path| {
        let keys = KeyStore::open(&case.path).unwrap();
        keys.with_passphrase_file(Some(file.to_owned()))
    };
    open(&file).account_signer(&case.org).unwrap();
    let missing = elsewhere.path().join("missing");
    let error = open(&missing).account_signer(&case.org).unwrap_err();
    assert!(matches!(error, KeyStoreError::NoPassphrase(path) if path == missing));
}

#[test]
fn a_store_from_before_sealing_is_sealed_in_place() {
    let case = Case::new();
    let nsc = case.path.with_file_name("nsc");
    sotto_jwt_accounts::nsc::export(&case.keys, &nsc, Seeds::With).unwrap();
    let mut open = BTreeMap::new();
    for file in tree(&nsc.join("keys")).0 {
        let seed = fs::read_to_string(file).unwrap();
        let key = nkeys::KeyPair::from_seed(seed.trim()).unwrap();
        open.insert(key.public_key(), seed);
    }
    // Back to how it was: the same seeds, in the clear.
    let (files, _) = case.tree();
    let operator = Claims::<Operator>::verify(case.keys.operator_jwt()).unwrap();
    let place = |name: &str| case.path.join("operator").join(name);
    let mut seeds: BTreeMap<PathBuf, String> = BTreeMap::new();
    seeds.insert(place("identity.seed"), open[&operator.issuer].clone());
    let signing = &operator.claims.nats.signing_keys[0];
    seeds.insert(place("signing.seed"), open[signing].clone());
    for (file, seed) in &seeds {
        fs::write(file, seed).unwrap();
    }
    let before = case.keys.limit_storage(&case.org, SOME, NOW_MS);
    let error = before.unwrap_err();
    assert!(matches!(&error, KeyStoreError::NotSealed(_)), "{error}");
    assert!(error.to_string().contains("accounts seal"));

    assert_eq!(KeyStore::seal(&case.path, None).unwrap(), seeds.len());
    assert_eq!(KeyStore::seal(&case.path, None).unwrap(), 0);
    use_all(&case.path, &case.org).unwrap();
    let after: Vec<PathBuf> = case.tree().0;
    assert_eq!(after.len(), files.len());
    for (file, seed) in seeds {
        assert!(!fs::read_to_string(&file).unwrap().contains(seed.trim()));
        assert_eq!(mode(&file), 0o600);
    }

    // One that was never sealed has nothing to say how, and gets a passphrase.
    fs::remove_file(case.path.join("sealing")).unwrap();
    let error = KeyStore::open(&case.path).unwrap_err();
    assert!(matches!(error, KeyStoreError::NotSealed(_)));
}

#[test]
fn the_operators_seeds_can_be_off_the_machine() {
    let case = Case::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("signing");
    case.keys.detach(Detachable::Signing, &file).unwrap();
    assert_eq!(mode(&file), 0o600);
    let keys = KeyStore::open(&case.path).unwrap();
    keys.account_signer(&case.org).unwrap();
    keys.system_credentials(NOW_MS).unwrap();
    let error = keys.limit_storage(&case.org, SOME, NOW_MS).unwrap_err();
    assert!(error.to_string().contains("operator attach"), "{error}");

    // Neither another store's seed nor one of another kind comes in.
    let other = Case::new();
    let theirs = elsewhere.path().join("theirs");
    other.keys.detach(Detachable::Signing, &theirs).unwrap();
    assert!(keys.attach(Detachable::Signing, &theirs).is_err());
    assert!(keys.attach(Detachable::Identity, &file).is_err());
    keys.attach(Detachable::Signing, &file).unwrap();
    use_all(&case.path, &case.org).unwrap();
    assert_eq!(keys.storage_limits(&case.org).unwrap(), SOME);
}

#[test]
fn new_signing_keys_stand_beside_the_old_ones_until_those_are_dropped() {
    let case = Case::new();
    let keys_of = |jwts: Vec<String>| -> Vec<Vec<String>> {
        let keys = |jwt: String| {
            let account = Claims::<Account>::verify(&jwt).unwrap().claims.nats;
            let keys = account.signing_keys.iter();
            keys.map(|key| key.public_key().to_owned()).collect()
        };
        jwts.into_iter().map(keys).collect()
    };
    for accounts in [Accounts::Org(&case.org), Accounts::System] {
        let rotate = || case.keys.rotate(accounts, SERVICES, NOW_MS).unwrap();
        assert_eq!(case.keys.old_keys(accounts).unwrap(), None);
        let first = keys_of(rotate());
        let both = keys_of(rotate());
        for (first, both) in first.iter().zip(&both) {
            assert!(both.len() == 6 && both.starts_with(first), "{both:?}");
        }
        use_all(&case.path, &case.org).unwrap();
        let old = case.keys.old_keys(accounts).unwrap().unwrap();
        assert_eq!(old.keys.len(), 4 * both.len());
        let hour_s = if accounts == Accounts::System {
            0
        } else {
            3_660
        };
        assert_eq!(old.unused_s, NOW_S + hour_s);
        let after = keys_of(case.keys.drop_old_keys(accounts, NOW_MS).unwrap());
        for (after, both) in after.iter().zip(&both) {
            assert_eq!(after[..], both[4..]);
        }
        assert_eq!(case.keys.old_keys(accounts).unwrap(), None);
        use_all(&case.path, &case.org).unwrap();
    }
}

#[test]
fn the_operators_keys_change_in_steps_each_of_which_can_be_done_again() {
    let case = Case::new();
    let operator = |jwt: &str| Claims::<Operator>::verify(jwt).unwrap();
    let before = operator(case.keys.operator_jwt()).claims;
    assert_eq!(case.keys.next_operator_key().unwrap(), None);
    let prepared = case.keys.prepare_operator(Identity::Draw, NOW_MS).unwrap();
    let again = case.keys.prepare_operator(Identity::Keep, NOW_MS).unwrap();
    assert_eq!(operator(&prepared), operator(&again));
    let prepared = operator(&prepared);
    assert_ne!(prepared.claims.subject, before.subject);
    assert_eq!(prepared.issuer, prepared.claims.subject);
    let next = case.keys.next_operator_key().unwrap().unwrap();
    let both = [&before.nats.signing_keys[0], &next].map(String::clone);
    assert_eq!(prepared.claims.nats.signing_keys, both);
    // Until it is taken, the key of before signs.
    let issuers = |keys: &KeyStore| -> Vec<String> {
        let accounts = keys.resolver_preload().unwrap().into_iter();
        let issuer = |jwt: String| Claims::<Account>::verify(&jwt).unwrap().issuer;
        accounts.map(|account| issuer(account.jwt)).collect()
    };
    use_all(&case.path, &case.org).unwrap();
    assert_eq!(issuers(&case.keys), vec![both[0].clone(); 3]);

    let taken = case.keys.take_next_key(NOW_MS).unwrap();
    assert_eq!(case.keys.take_next_key(NOW_MS).unwrap(), taken);
    assert_eq!(issuers(&case.keys), vec![next.clone(); 3]);
    let dropped = case.keys.drop_old_operator_keys(NOW_MS).unwrap();
    let after = operator(&dropped).claims;
    assert_eq!(after.nats.signing_keys, [next]);
    assert_eq!(after.nats.system_account, before.nats.system_account);
    let again = case.keys.drop_old_operator_keys(NOW_MS).unwrap();
    assert_eq!(again, dropped);
    use_all(&case.path, &case.org).unwrap();
}

#[test]
fn secrets_do_not_show_in_debug() {
    let case = Case::new();
    let signer = case.keys.account_signer(&case.org).unwrap();
    let credentials = case.keys.system_credentials(NOW_MS).unwrap();
    assert_eq!(format!("{credentials:?}"), "Credentials(..)");
    let shown = format!("{:?} {signer:?}", case.keys);
    let (files, _) = case.tree();
    for file in files
        .iter()
        .filter(|file| file.extension() == Some("seed".as_ref()))
    {
        let seed = fs::read_to_string(file).unwrap();
        assert!(!shown.contains(&seed), "{}", file.display());
    }
}

/// Reads all that daily work reads.
fn use_all(path: &Path, org: &OrgName) -> Result<(), KeyStoreError> {
    let keys = KeyStore::open(path)?;
    keys.resolver_preload()?;
    keys.account_signer(org)?;
    keys.system_credentials(NOW_MS)?;
    keys.gateway_system_credentials(NOW_MS)?;
    keys.limit_storage(org, SOME, NOW_MS)?;
    Ok(())
}
