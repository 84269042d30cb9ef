//! What nats-server has acknowledged, and does not have any more, comes back
//! from who said it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use async_nats::jetstream;
use serde_json::Value;
use sotto_e2e::case::{Case, PASSWORD, meet};
use sotto_e2e::cluster::Cluster;
use sotto_e2e::conversation::history;
use sotto_e2e::person::Person;
use sotto_proto::{Shard, mail_stream};

const SAID: [&str; 5] = ["said 0", "said 1", "said 2", "said 3", "said 4"];

#[test]
fn texts_that_every_node_has_lost_come_back_from_their_sender() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::create(folder.path(), "acme", "field", 3).unwrap();
    let device = |name| Person::new(folder.path().join(name), PASSWORD).unwrap();
    let (alice, bob) = (device("alice"), device("bob"));
    let room = meet(&alice, &bob, &cluster.first_invite().unwrap()).unwrap();

    let lost = say(&alice);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let layout = cluster.nodes()[0].layout();
        let relay = cluster.relay_client(layout).await.unwrap();
        let js = jetstream::new(relay);
        let stream = js.get_stream(mail_stream(Shard(0)));
        // With the rights of a relay, whose janitor deletes what all have.
        let stream = stream.await.unwrap();
        let messages = format!("r.*.field.{room}.msg");
        let purge = stream.purge().filter(messages).sequence(lost + 1);
        assert!(purge.await.unwrap().purged >= 3);
    });
    come_back("three nodes", &alice, &bob, &SAID[..3]);
}

#[test]
fn a_text_in_a_damaged_file_comes_back_from_its_sender() {
    let mut case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let lost = say(&case.alice);
    assert!(case.server.stop().unwrap().status.success());
    flip_a_bit(&case.server.layout().jetstream(), lost);
    case.server.start().unwrap();
    come_back("one node", &case.alice, &bob, &SAID[2..3]);
}

/// Alice says five things, one message each, while bob is away; where the
/// third stands in the stream.
fn say(alice: &Person) -> u64 {
    for text in SAID {
        let sent = alice.does(&["send", "barn", text]).unwrap();
        assert!(sent.iter().any(|line| line["done"] == "sent"), "{sent:?}");
    }
    // She has read it back: it was there.
    alice.does(&["sync"]).unwrap();
    let history = history(alice, "barn").unwrap();
    let third = history
        .iter()
        .find(|said| said.text.as_deref() == Some(SAID[2]));
    third.unwrap().sequence
}

/// Bob comes, misses them, asks, and gets everything, once.
fn come_back(lost_by: &str, alice: &Person, bob: &Person, lost: &[&str]) {
    let began = Instant::now();
    let follow = ["recv", "barn", "--follow"];
    let alices = alice.starts(&follow, None).unwrap();
    let mut bobs = bob.starts(&follow, None).unwrap();
    for text in lost {
        let shown = |line: &Value| (line["text"] == *text).then_some(());
        bobs.wait_for("a text that was lost", shown).unwrap();
    }
    let took = began.elapsed();
    alices.interrupt().unwrap();
    bobs.interrupt().unwrap();
    let seen = history(bob, "barn").unwrap();
    let texts = seen.iter().filter_map(|said| said.text.as_deref());
    let mut texts: Vec<&str> = texts.collect();
    texts.sort_unstable();
    assert_eq!(texts, SAID);
    let late = seen.iter().filter(|said| said.late).count();
    println!(
        "{lost_by}: {lost:?} lost, back after {:.1} s; {late} of {} came late",
        took.as_secs_f64(),
        SAID.len()
    );
}

/// Flips a bit in the content of a message, in nats-server's own file.
fn flip_a_bit(streams: &Path, sequence: u64) {
    let path = file_of_messages(streams).expect("no file of messages");
    let mut content = fs::read(&path).unwrap();
    let mut at = 0;
    // Length, sequence, time, length of the subject, subject, and so on.
    while let Some(head) = content.get(at..at + 12) {
        let (length, number) = head.split_at(4);
        let length = u32::from_le_bytes(length.try_into().unwrap()) & 0x7fff_ffff;
        let length = usize::try_from(length).unwrap();
        if u64::from_le_bytes(number.try_into().unwrap()) == sequence {
            content[at + length / 2] ^= 1;
            return fs::write(&path, content).unwrap();
        }
        at += length;
    }
    panic!("message {sequence} is not in {path:?}");
}

fn file_of_messages(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).find_map(|path| {
        if path.is_dir() {
            return file_of_messages(&path);
        }
        let name = path.to_string_lossy();
        (name.contains("/MAIL-0/") && name.ends_with(".blk")).then(|| path.clone())
    })
}
