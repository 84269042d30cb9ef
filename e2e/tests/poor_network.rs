//! The worst network that Sotto promises to work on: 2 kbit/s, 600 ms round
//! trip, 30 % loss.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test"
)]

use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use sotto_e2e::case::Case;
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::network::Network;
use sotto_e2e::person::Person;
use sotto_e2e::process::Running;
use sotto_faults::Conditions;

/// Texts that each device has queued while it was offline.
const TEXTS: usize = 50;

/// How long it may take until everything is everywhere: several times what it
/// takes, as a link loses a connection now and then.
const PATIENCE: Duration = Duration::from_secs(1_200);

#[test]
fn what_five_devices_queued_offline_arrives_once_and_in_order() {
    let case = Case::new().unwrap();
    let mut people = vec![case.alice.clone()];
    for name in ["bob", "carol", "dave", "erin"] {
        people.push(case.member(case.device(name).unwrap(), name).unwrap());
    }
    for person in &people {
        person.does(&["sync"]).unwrap();
    }
    let layout = case.server.layout();
    let networks: Vec<Network> = (1..=5)
        .map(|seed| Network::new(layout, Conditions::POOR, seed).unwrap())
        .collect();
    networks.iter().for_each(Network::cut);
    let people: Vec<Person> = people
        .into_iter()
        .zip(&networks)
        .map(|(person, network)| person.behind(network))
        .collect();

    let said: Vec<Vec<String>> = (0..people.len())
        .map(|person| {
            (0..TEXTS)
                .map(|n| format!("p{person} says {n:03}"))
                .collect()
        })
        .collect();
    for (person, texts) in people.iter().zip(&said) {
        let sending = person
            .starts(
                &["--wait", "1", "send", "barn", "--stdin"],
                Some(texts.join("\n")),
            )
            .unwrap();
        let lines = sending.finish().unwrap().success().unwrap();
        let done = lines.iter().any(|line| line["done"] == "queued");
        assert!(done, "{lines:?}");
    }

    networks.iter().for_each(Network::heal);
    let started = Instant::now();
    let mut following: Vec<Running> = people
        .iter()
        .map(|person| person.starts(&["recv", "barn", "--follow"], None).unwrap())
        .collect();
    let mut finished = vec![None; people.len()];
    while finished.contains(&None) && started.elapsed() < PATIENCE {
        thread::sleep(Duration::from_millis(500));
        for (running, finished) in following.iter_mut().zip(&mut finished) {
            let messages = running
                .seen()
                .iter()
                .filter(|line| is_message(line))
                .count();
            if messages >= people.len() * TEXTS {
                finished.get_or_insert(started.elapsed());
            }
        }
    }
    for ((running, network), finished) in following.into_iter().zip(&networks).zip(&finished) {
        let outcome = running.interrupt().unwrap();
        let others = outcome.lines.iter().filter(|line| !is_message(line));
        let [gateway, nats] = network.traffic();
        eprintln!("all there after {finished:?}; gateway {gateway:?}; nats {nats:?}");
        others.for_each(|line| eprintln!("  {line}"));
        eprintln!("  {}", outcome.stderr.trim());
    }
    for person in &people {
        let seen = history(person, "barn").unwrap();
        for (sender, texts) in said.iter().enumerate() {
            assert_eq!(difference(&seen, &format!("p{sender} says"), texts), None);
        }
    }
}

fn is_message(line: &Value) -> bool {
    line.get("counter").is_some()
}
