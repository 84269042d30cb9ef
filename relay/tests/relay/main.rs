//! The relay as a process, with the real nats-server under it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests may fail"
)]

mod beacons;
mod copy;
mod direct_get;
mod fetch;
mod full_disk;
mod ingest;
mod life;
#[path = "../../../service/tests/watch/look.rs"]
mod look;
mod metrics;
mod org;
mod quota;
mod server;
mod settings;
mod streams;
