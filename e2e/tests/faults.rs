//! Everything goes wrong at once, for as long as `SOTTO_FAULTS_SECONDS` says,
//! from the seed of `SOTTO_SEED` on: `cargo xtask faults` sets both.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test"
)]

use std::env;
use std::time::{Duration, Instant};

use sotto_e2e::{chaos, mounts};

/// How long one seed is played.
const EACH: Duration = Duration::from_secs(60);

#[test]
fn whatever_goes_wrong_on_one_node_every_text_arrives_once_and_in_order() {
    if mounts::are_own("whatever_goes_wrong_on_one_node_every_text_arrives_once_and_in_order")
        .unwrap()
    {
        play(1);
    }
}

#[test]
fn whatever_goes_wrong_on_three_nodes_every_text_arrives_once_and_in_order() {
    if mounts::are_own("whatever_goes_wrong_on_three_nodes_every_text_arrives_once_and_in_order")
        .unwrap()
    {
        play(3);
    }
}

fn play(nodes: usize) {
    let number = |name| {
        env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().expect("a number"))
    };
    let total = Duration::from_secs(number("SOTTO_FAULTS_SECONDS").unwrap_or(60));
    let mut seed = number("SOTTO_SEED").unwrap_or(1);
    let began = Instant::now();
    while began.elapsed() < total {
        let verdict = chaos::play(seed, nodes, EACH.min(total)).unwrap();
        eprintln!("{verdict}");
        assert!(verdict.findings.is_empty(), "{verdict}");
        seed += 1;
    }
}
