//! Files that people write or bring to a server: its configuration, the list
//! of a cluster's nodes, credentials, and another NATS installation's store.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sotto_jwt_accounts::Credentials;
use sotto_jwt_accounts::grants::Services;
use sotto_jwt_accounts::keystore::KeyStore;
use sotto_jwt_accounts::nsc::{self, Seeds};
use sotto_service::cluster::Members;
use sotto_service::{Layout, ServerConfig};
use tempfile::TempDir;

/// A store that imports, and its files.
struct Nsc {
    root: PathBuf,
    files: Vec<(PathBuf, Vec<u8>)>,
}

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

static NSC: LazyLock<Nsc> = LazyLock::new(|| {
    let keys = KeyStore::create(&FOLDER.path().join("accounts"), 0).expect("a key store");
    let org = "acme".parse().expect("a valid name");
    let services = Services {
        shards: 1,
        buckets: &[],
    };
    keys.add_org(&org, services, 0).expect("an org");
    let root = FOLDER.path().join("nsc");
    nsc::export(&keys, &root, Seeds::With).expect("an export");
    nsc::import(&root, None).expect("what was exported is imported");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    Nsc { root, files }
});

static SERVER: LazyLock<Layout> = LazyLock::new(|| {
    let layout = Layout::new(FOLDER.path().join("server"));
    fs::create_dir_all(layout.cluster()).expect("a folder");
    layout
});

fn collect(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push((path.clone(), fs::read(&path).expect("a file"))),
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&which, content)) = bytes.split_first() else {
        return;
    };
    if let Ok(text) = str::from_utf8(content)
        && let Ok(credentials) = Credentials::parse(text)
    {
        let again = Credentials::parse(credentials.expose()).expect("its own file");
        assert_eq!(again.jwt(), credentials.jwt());
    }
    match which {
        0 => {
            fs::write(SERVER.config(), content).expect("a file");
            if let Ok(config) = ServerConfig::load(&SERVER) {
                config.save(&SERVER).expect("what was read is written");
                assert!(ServerConfig::load(&SERVER).is_ok());
            }
        }
        1 => {
            fs::write(SERVER.cluster_members(), content).expect("a file");
            let _ = Members::load(&SERVER);
        }
        which => {
            let nsc = &*NSC;
            let (path, whole) = &nsc.files[usize::from(which) % nsc.files.len()];
            fs::write(path, content).expect("a file");
            let _ = nsc::import(&nsc.root, None);
            fs::write(path, whole).expect("a file");
        }
    }
});
