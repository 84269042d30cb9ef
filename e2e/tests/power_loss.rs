//! Power cuts: whatever was not synced is lost, and nothing that was promised.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test"
)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use async_nats::jetstream::{self, stream};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sotto_client_core::store::{Store, WriteBatch};
use sotto_client_native::redb_store::RedbStore;
use sotto_e2e::case::{PASSWORD, meet};
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::mounts;
use sotto_e2e::person::Person;
use sotto_e2e::process::{PATIENCE, nats_server};
use sotto_e2e::server::Server;
use sotto_faults::Disk;
use sotto_faults::ports;

/// A disk at a new folder.
fn disk(folder: &Path) -> Disk {
    fs::create_dir(folder).unwrap();
    Disk::mount(folder).expect("FUSE, and leave to use it")
}

#[test]
fn a_server_that_loses_power_has_every_text_that_was_ticked() {
    if !mounts::are_own("a_server_that_loses_power_has_every_text_that_was_ticked").unwrap() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("server");
    let disk = disk(&root);
    let mut server = Server::create(&root, "acme", "field").unwrap();
    let (alice, bob) = two(folder.path(), &server);
    let mut expected = Vec::new();
    for round in 0..4 {
        for number in 0..5 {
            let text = format!("said {round} {number}");
            let sent = alice.does(&["send", "barn", &text]).unwrap();
            assert!(sent.iter().any(|line| line["done"] == "sent"), "{sent:?}");
            expected.push(text);
        }
        server.kill_all().unwrap();
        // At least what its log said.
        assert!(disk.cut_power(|| false) > 0, "it syncs everything?");
        server.start().unwrap();
    }
    bob.does(&["sync"]).unwrap();
    for person in [&alice, &bob] {
        let seen = history(person, "barn").unwrap();
        assert_eq!(difference(&seen, "said", &expected), None);
    }
}

#[test]
fn a_device_that_loses_power_has_every_text_that_it_has_queued() {
    if !mounts::are_own("a_device_that_loses_power_has_every_text_that_it_has_queued").unwrap() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disk = disk(&folder.path().join("alice"));
    let server = Server::create(&folder.path().join("server"), "acme", "field").unwrap();
    let (alice, bob) = two(folder.path(), &server);
    let mut expected = Vec::new();
    for round in 0..6 {
        let texts: Vec<String> = (0..20).map(|n| format!("said {round} {n:02}")).collect();
        let mut sending = alice
            .starts(&["send", "barn", "--stdin"], Some(texts.join("\n")))
            .unwrap();
        let queued = |line: &serde_json::Value| (line["event"] == "queued").then_some(());
        sending.wait_for("texts in the outbox", queued).unwrap();
        // Somewhere between the outbox and the last tick.
        thread::sleep(Duration::from_millis(40 * round));
        sending.kill().unwrap();
        disk.cut_power(|| false);
        expected.extend(texts);
    }
    alice.does(&["sync"]).unwrap();
    bob.does(&["sync"]).unwrap();
    for person in [&alice, &bob] {
        let seen = history(person, "barn").unwrap();
        assert_eq!(difference(&seen, "said", &expected), None);
    }
}

/// Names the folder where this program is to write until it is killed.
const WRITES_TO: &str = "SOTTO_TEST_WRITES_TO";

#[test]
fn a_store_that_loses_power_has_every_commit() {
    cuts_power("a_store_that_loses_power_has_every_commit", 0.0);
}

#[test]
fn a_store_of_whose_unsynced_writes_half_survive_has_every_commit() {
    let test = "a_store_of_whose_unsynced_writes_half_survive_has_every_commit";
    cuts_power(test, 0.5);
}

/// Cuts the power of a store that is written to, again and again; of the writes
/// that were not synced so many survive.
fn cuts_power(test: &str, survive: f64) {
    if let Some(folder) = env::var_os(WRITES_TO) {
        return write_forever(Path::new(&folder));
    }
    if !mounts::are_own(test).unwrap() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (root, said) = (folder.path().join("disk"), folder.path().join("said"));
    let disk = disk(&root);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for round in 0..12 {
        let mut writing = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(WRITES_TO, &root)
            .stdout(fs::File::create(&said).unwrap())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_millis(rng.gen_range(1_000..4_000)));
        kill(&mut writing);
        disk.cut_power(|| rng.gen_bool(survive));

        let said = fs::read_to_string(&said).unwrap();
        // The last line may be torn.
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let durable = whole.lines().filter_map(|line| line.parse::<u64>().ok());
        let durable = durable.max().unwrap_or(0);
        let store = RedbStore::open(&root.join("store"));
        let store =
            store.unwrap_or_else(|error| panic!("round {round}, {durable} committed: {error}"));
        let last = number(&store, b"last");
        println!("round {round}: {durable} committed, {last} there");
        assert!(last >= durable, "{durable} was committed, {last} is there");
        for key in 0..KEYS.min(last) {
            // The newest that was written there.
            let newest = last - (last - key) % KEYS;
            assert_eq!(number(&store, &key.to_be_bytes()), newest, "of {last}");
        }
    }
}

/// Keys that are written again and again, so that the store reuses its place.
const KEYS: u64 = 200;

fn number(store: &RedbStore, key: &[u8]) -> u64 {
    let value = store.get(key).unwrap().unwrap_or_default();
    value
        .first_chunk()
        .map_or(0, |number| u64::from_be_bytes(*number))
}

/// Commits one number after the other, and says so after each.
fn write_forever(folder: &Path) {
    let mut store = RedbStore::open(&folder.join("store")).unwrap();
    for next in number(&store, b"last") + 1.. {
        let mut value = next.to_be_bytes().to_vec();
        value.resize(3_000, 7);
        let mut batch = WriteBatch::default();
        let key = (next % KEYS).to_be_bytes().to_vec();
        batch.writes.insert(key, Some(value));
        let last = next.to_be_bytes().to_vec();
        batch.writes.insert(b"last".to_vec(), Some(last));
        store.commit(&batch).unwrap();
        println!("{next}");
    }
}

#[tokio::test]
async fn an_acknowledgement_is_worth_something_only_with_sync_interval_always() {
    let test = "an_acknowledgement_is_worth_something_only_with_sync_interval_always";
    if !mounts::are_own(test).unwrap() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(
        left_of_100(&folder.path().join("always"), "sync_interval: always").await,
        100
    );
    let lazy = left_of_100(&folder.path().join("lazy"), "").await;
    assert!(lazy < 100, "so the tests above would not notice anything");
}

/// Alice with a room called `barn`, and bob in it.
fn two(folder: &Path, server: &Server) -> (Person, Person) {
    let device = |name| Person::new(folder.join(name), PASSWORD).unwrap();
    let (alice, bob) = (device("alice"), device("bob"));
    meet(&alice, &bob, &server.first_invite("acme").unwrap()).unwrap();
    (alice, bob)
}

/// Of 100 messages that nats-server has acknowledged, how many are there after
/// a power cut.
async fn left_of_100(folder: &Path, setting: &str) -> u64 {
    let disk = disk(folder);
    let listen = ports::free().unwrap().to_string();
    let configuration =
        format!("listen: \"{listen}\"\njetstream {{ store_dir: {folder:?}, {setting} }}\n");
    let path = folder.with_extension("conf");
    fs::write(&path, configuration).unwrap();
    let config = stream::Config {
        name: "S".to_owned(),
        subjects: vec!["s".to_owned()],
        ..Default::default()
    };

    let mut server = start(&path);
    let client = connect(&listen).await;
    let js = jetstream::new(client);
    js.create_stream(config.clone()).await.unwrap();
    for _ in 0..100 {
        let acknowledged = js.publish("s", "x".into()).await.unwrap();
        acknowledged.await.unwrap();
    }
    kill(&mut server);
    disk.cut_power(|| false);

    let mut server = start(&path);
    let js = jetstream::new(connect(&listen).await);
    // It may have lost the stream, too.
    let stream = js.get_or_create_stream(config).await.unwrap();
    let left = stream.cached_info().state.messages;
    kill(&mut server);
    left
}

fn start(configuration: &Path) -> Child {
    Command::new(nats_server().unwrap())
        .arg("-c")
        .arg(configuration)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn kill(server: &mut Child) {
    server.kill().unwrap();
    server.wait().unwrap();
}

async fn connect(listen: &str) -> async_nats::Client {
    let began = Instant::now();
    loop {
        match async_nats::connect(listen).await {
            Ok(client) => break client,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
