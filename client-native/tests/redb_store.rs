//! The store against what disks, processes and people do to it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod disk;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use disk::SmallDisk;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};
use sotto_client_core::store::{Store, StoreError, WriteBatch};
use sotto_client_native::redb_store::RedbStore;

/// A store in a directory that goes away with it.
struct Temporary {
    store: RedbStore,
    _directory: tempfile::TempDir,
}

impl Temporary {
    fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            store: RedbStore::open(&directory.path().join("store")).unwrap(),
            _directory: directory,
        }
    }
}

impl Store for Temporary {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(key)
    }
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        self.store.scan(prefix)
    }
    fn commit(&mut self, batch: &WriteBatch) -> Result<(), StoreError> {
        self.store.commit(batch)
    }
    fn wipe(&mut self) -> Result<(), StoreError> {
        self.store.wipe()
    }
}

sotto_client_core::store_conformance!(Temporary::open());

fn put(pairs: impl IntoIterator<Item = (String, Vec<u8>)>) -> WriteBatch {
    let writes = pairs
        .into_iter()
        .map(|(key, value)| (key.into_bytes(), Some(value)));
    WriteBatch {
        writes: writes.collect(),
    }
}

/// Commit `number` of a history: some records that stay and two that every
/// commit replaces, one of them long.
fn commit_number(number: u64) -> WriteBatch {
    let mut rng = StdRng::seed_from_u64(number);
    let mut bytes = |length: usize| {
        let mut bytes = vec![0; length];
        rng.fill_bytes(&mut bytes);
        bytes
    };
    put([
        (format!("message-{number:06}-a"), bytes(700)),
        (format!("message-{number:06}-b"), bytes(9_000)),
        ("number".to_owned(), number.to_be_bytes().to_vec()),
        ("state".to_owned(), bytes(20_000)),
    ])
}

/// What a store holds after the commits 0 to `last`.
fn expected(last: u64) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs = BTreeMap::new();
    for number in 0..=last {
        for (key, value) in commit_number(number).writes {
            pairs.insert(key, value.unwrap());
        }
    }
    pairs.into_iter().collect()
}

#[test]
fn a_store_is_found_as_it_was_left() {
    let directory = tempfile::tempdir().unwrap();
    for number in 0..20 {
        let mut store = RedbStore::open(directory.path()).unwrap();
        store.commit(&commit_number(number)).unwrap();
        assert_eq!(store.scan(b"").unwrap(), expected(number));
    }
}

#[test]
fn a_long_value_is_replaced_and_deleted() {
    let mut store = Temporary::open();
    let long = vec![1; 1_000_000];
    for value in [long.clone(), vec![2], long] {
        store
            .commit(&put([("key".to_owned(), value.clone())]))
            .unwrap();
        assert_eq!(store.get(b"key").unwrap(), Some(value));
    }
    let delete = WriteBatch {
        writes: [(b"key".to_vec(), None)].into(),
    };
    store.commit(&delete).unwrap();
    assert_eq!(store.get(b"key").unwrap(), None);
    assert_eq!(store.scan(b"").unwrap(), []);
}

#[test]
fn the_file_does_not_grow_when_values_are_replaced() {
    let mut store = Temporary::open();
    let path = store._directory.path().join("store/store.redb");
    for number in 0..300_u32 {
        let value = vec![1; 100_000 + number as usize];
        store.commit(&put([("key".to_owned(), value)])).unwrap();
    }
    let length = fs::metadata(path).unwrap().len();
    assert!(length < 4 << 20, "30 MB were written, {length} are kept");
}

#[test]
fn a_store_whose_making_was_cut_short_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    // What a power cut may leave of a file that redb had begun.
    fs::write(directory.path().join("store.new"), vec![0; 1 << 20]).unwrap();
    let mut store = RedbStore::open(directory.path()).unwrap();
    store.commit(&commit_number(0)).unwrap();
    assert_eq!(store.scan(b"").unwrap(), expected(0));
}

#[test]
fn a_second_opening_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(directory.path()).unwrap();
    let second = RedbStore::open(directory.path());
    assert!(matches!(second, Err(StoreError::InUse)), "{second:?}");
    drop(store);
    RedbStore::open(directory.path()).unwrap();
}

#[test]
fn the_store_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let _store = RedbStore::open(&path).unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    for file in fs::read_dir(&path).unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{}", file.path().display());
    }
}

#[test]
fn damage_is_noticed_or_does_not_matter() {
    const COMMITS: u64 = 150;
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    let mut store = RedbStore::open(&whole).unwrap();
    for number in 0..COMMITS {
        store.commit(&commit_number(number)).unwrap();
    }
    drop(store);
    let expected = expected(COMMITS - 1);

    let mut rng = StdRng::seed_from_u64(1);
    let mut refused = 0;
    for round in 0..80 {
        let damaged = directory.path().join("damaged");
        let _ = fs::remove_dir_all(&damaged);
        copy(&whole, &damaged);
        let what = damage(&damaged, &mut rng);
        match RedbStore::open(&damaged).and_then(|store| store.scan(b"")) {
            Ok(pairs) => assert!(pairs == expected, "round {round}: {what} went unnoticed"),
            Err(StoreError::Corrupt(_)) => refused += 1,
            Err(other) => panic!("round {round}: {what}: {other}"),
        }
    }
    assert!(refused > 20, "only {refused} damages mattered");
}

#[test]
fn an_older_state_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("store.redb");
    let mut store = RedbStore::open(directory.path()).unwrap();
    store.commit(&commit_number(0)).unwrap();
    drop(store);
    let older = fs::read(&file).unwrap();
    let mut store = RedbStore::open(directory.path()).unwrap();
    store.commit(&commit_number(1)).unwrap();
    drop(store);
    fs::write(&file, older).unwrap();
    let error = RedbStore::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("newest changes"), "{error}");
}

#[test]
fn a_missing_record_is_noticed() {
    const TABLE: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("store");
    let directory = tempfile::tempdir().unwrap();
    let mut store = RedbStore::open(directory.path()).unwrap();
    store.commit(&commit_number(0)).unwrap();
    drop(store);
    let file = redb::Database::open(directory.path().join("store.redb")).unwrap();
    let transaction = file.begin_write().unwrap();
    let removed = transaction
        .open_table(TABLE)
        .unwrap()
        .remove(b"rstate".as_slice())
        .unwrap()
        .is_some();
    assert!(removed);
    transaction.commit().unwrap();
    drop(file);
    let error = RedbStore::open(directory.path()).unwrap_err();
    assert!(error.to_string().contains("records are missing"), "{error}");
}

#[test]
fn damage_while_it_is_open_is_an_error_and_no_panic() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = RedbStore::open(directory.path()).unwrap();
    // More than is kept in memory.
    let record = |number| (format!("{number:05}"), vec![1; 3_000]);
    store.commit(&put((0..15_000).map(record))).unwrap();
    drop(store);
    let mut store = RedbStore::open(directory.path()).unwrap();
    let file = directory.path().join("store.redb");
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    file.write_all_at(&vec![0; length - 4_096], 4_096).unwrap();

    let mut refused = 0;
    for (key, value) in (0..15_000).step_by(500).map(record) {
        match store.get(key.as_bytes()) {
            Ok(found) => assert!(found == Some(value), "{key} was lost without a word"),
            Err(StoreError::Corrupt(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(refused > 0, "everything was in memory");
    assert!(store.scan(b"").is_err());
    assert!(store.commit(&commit_number(0)).is_err());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Damages redb's file, or now and then another file, in one place.
fn damage(directory: &Path, rng: &mut StdRng) -> String {
    let mut files: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file() && fs::metadata(path).unwrap().len() > 0)
        .collect();
    files.sort();
    let file = match rng.gen_bool(0.2) {
        true => files[rng.gen_range(0..files.len())].clone(),
        false => directory.join("store.redb"),
    };
    let mut bytes = fs::read(&file).unwrap();
    let at = rng.gen_range(0..bytes.len());
    let end = (at + 4_096).min(bytes.len());
    let what = match rng.gen_range(0..4) {
        0 => {
            bytes[at] ^= 1 << rng.gen_range(0..8);
            "a flipped bit"
        }
        1 => {
            bytes[at..end].fill(0);
            "zeros"
        }
        2 => {
            bytes.truncate(at);
            "a cut"
        }
        _ => {
            rng.fill_bytes(&mut bytes[at..end]);
            "garbage"
        }
    };
    fs::write(&file, bytes).unwrap();
    format!("{what} at {at} of {}", file.display())
}

/// Names the directory in which [`commit_until_killed`] is to commit.
const CHILD_DIRECTORY: &str = "SOTTO_TEST_STORE";

/// Not a test by itself: what the children of the next test run.
#[test]
fn commit_until_killed() {
    let Some(directory) = env::var_os(CHILD_DIRECTORY) else {
        return;
    };
    let mut store = RedbStore::open(Path::new(&directory)).unwrap();
    let first = match store.get(b"number").unwrap() {
        Some(bytes) => u64::from_be_bytes(bytes.try_into().unwrap()) + 1,
        None => 0,
    };
    for number in first.. {
        store.commit(&commit_number(number)).unwrap();
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "committed {number}").unwrap();
        stdout.flush().unwrap();
    }
}

#[test]
fn kill_9_between_and_during_commits_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut rng = StdRng::seed_from_u64(2);
    for _ in 0..10 {
        let mut child = child(directory.path());
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acknowledgements = lines.filter_map(|line| {
            let line = line.unwrap();
            let number = line.split_once("committed ")?.1.parse::<u64>();
            Some(number.unwrap())
        });
        let acknowledged = acknowledgements.take(rng.gen_range(1..60)).last().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(rng.gen_range(0..2_000)));
        child.kill().unwrap();
        child.wait().unwrap();

        let store = RedbStore::open(directory.path()).unwrap();
        let pairs = store.scan(b"").unwrap();
        let number = store.get(b"number").unwrap().unwrap();
        let last = u64::from_be_bytes(number.try_into().unwrap());
        assert!(last >= acknowledged, "{last} is left of {acknowledged}");
        assert!(pairs == expected(last), "commit {last} is there in part");
    }
}

fn child(directory: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "commit_until_killed", "--nocapture"])
        .env(CHILD_DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_full_disk_is_said_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let path = disk.path().join("store");
    for reserve in [3 << 20, 200_000, 40_000] {
        let _ = fs::remove_dir_all(&path);
        let mut store = RedbStore::open(&path).unwrap();
        for number in 0..30 {
            store.commit(&commit_number(number)).unwrap();
        }
        let filler = disk.fill(reserve);
        let refused = store.commit(&commit_number(30));
        assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
        assert_eq!(store.scan(b"").unwrap(), expected(29));
        drop(store);
        match RedbStore::open(&path) {
            Ok(opened) => assert_eq!(opened.scan(b"").unwrap(), expected(29)),
            Err(error) => assert!(matches!(error, StoreError::Full), "{error}"),
        }
        // With space again it goes on.
        fs::remove_file(&filler).unwrap();
        let mut store = RedbStore::open(&path).unwrap();
        store.commit(&commit_number(30)).unwrap();
        assert_eq!(store.scan(b"").unwrap(), expected(30));
    }
}
