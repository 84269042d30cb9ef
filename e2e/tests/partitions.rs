//! Links between nodes that all live are cut, in every shape that three nodes
//! have.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

use std::thread;
use std::time::{Duration, Instant};

use sotto_e2e::case::{PASSWORD, meet};
use sotto_e2e::cluster::Cluster;
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::links::Links;
use sotto_e2e::person::Person;

/// Longer than nodes wait before they choose another leader.
const CUT: Duration = Duration::from_secs(12);

/// Cuts something.
type Shape = fn(&Links);

#[test]
fn no_cut_between_nodes_loses_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::apart(folder.path(), "acme", "field", 3).unwrap();
    let device = |name| Person::new(folder.path().join(name), PASSWORD).unwrap();
    let (alice, bob) = (device("alice"), device("bob"));
    meet(&alice, &bob, &cluster.first_invite().unwrap()).unwrap();

    // The gateway is beside the first node: what it needs is cut off with it.
    let shapes: [(&str, Shape); 7] = [
        ("the first alone", |links| links.isolate(0)),
        ("the second alone", |links| links.isolate(1)),
        ("the third alone", |links| links.isolate(2)),
        ("first and second", |links| links.cut(0, 1)),
        ("second and third", |links| links.cut(1, 2)),
        ("the second does not hear the third", |links| {
            links.deafen(1, 2)
        }),
        ("everybody alone", |links| {
            (0..3).for_each(|node| links.isolate(node))
        }),
    ];
    let mut expected = Vec::new();
    for (name, cut) in shapes {
        let links = cluster.links().unwrap();
        let began = Instant::now();
        cut(links);
        let mut ticked = 0;
        for number in 0..3 {
            let text = format!("said {name} {number}");
            let sent = alice.does(&["--wait", "8", "send", "barn", &text]).unwrap();
            ticked += usize::from(sent.iter().any(|line| line["done"] == "sent"));
            expected.push(text);
        }
        if name == "everybody alone" {
            assert_eq!(ticked, 0, "one node is no majority");
        }
        thread::sleep(CUT.saturating_sub(began.elapsed()));
        links.heal();
        let settled = cluster.is_settled().unwrap();
        println!(
            "{name}: {ticked} of 3 ticked meanwhile, all nodes current {:.1} s after",
            settled.as_secs_f64()
        );
    }
    alice.does(&["--wait", "60", "sync"]).unwrap();
    bob.does(&["--wait", "60", "sync"]).unwrap();
    for person in [&alice, &bob] {
        let seen = history(person, "barn").unwrap();
        assert_eq!(difference(&seen, "said", &expected), None);
    }
}
