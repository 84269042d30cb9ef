//! Several nodes: how they come together, and what one of them may do to the
//! others by not being there.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

use sotto_e2e::case::text;
use sotto_e2e::cluster::Cluster;
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::person::Person;

const PASSWORD: &str = "correct horse battery staple";

#[test]
fn messages_go_on_while_any_one_node_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::create(folder.path(), "acme", "field", 3).unwrap();
    let alice = Person::new(folder.path().join("alice"), PASSWORD).unwrap();
    alice
        .does(&["signup", &cluster.first_invite().unwrap(), "alice"])
        .unwrap();
    let made = alice.does(&["room", "create", "barn", "--project", "field"]);
    let room = text(&made.unwrap(), "room").unwrap();
    let mut expected = Vec::new();
    for number in [2, 1, 0] {
        cluster.kill(number).unwrap();
        let said = format!("said without node {number}");
        alice.does(&["send", &room, &said]).unwrap();
        expected.push(said);
        cluster.start(number).unwrap();
        cluster.is_settled().unwrap();
    }
    // What was only queued while there was no leader goes out now.
    alice.does(&["sync"]).unwrap();
    assert_eq!(
        difference(&history(&alice, &room).unwrap(), "said", &expected),
        None
    );
}
