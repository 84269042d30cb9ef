//! The gateway's API over real TLS, on a real nats-server, driven by real
//! OPAQUE clients.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails"
)]

mod administration;
mod bodies;
mod crash;
mod device_sessions;
mod factors;
mod gated;
mod guests;
mod jwt;
mod key_packages;
mod linking;
mod login;
#[path = "../../../service/tests/watch/look.rs"]
mod look;
mod nats;
mod nsc;
mod open_rooms;
mod orders;
mod person;
mod program;
mod proxies;
mod releases;
mod revocation;
mod rooms;
mod server;
mod signup;
mod sms;
mod unauthorized;
mod watch;
