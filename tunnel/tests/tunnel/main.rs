//! Both ends of a tunnel as programs, with real clients before and real servers
//! behind them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what goes wrong fails a test, in helpers of tests, too"
)]

mod breaking;
mod limits;
#[path = "../../../service/tests/watch/look.rs"]
mod look;
mod passing;
mod program;
mod refusing;
mod secrecy;
mod stage;
mod watch;
