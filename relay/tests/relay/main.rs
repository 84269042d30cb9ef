//! The relay as a process, with the real nats-server under it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests may fail"
)]

mod direct_get;
mod fetch;
mod life;
mod org;
mod server;
mod settings;
mod streams;
