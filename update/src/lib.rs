//! Updates that can be trusted: finds out whether there is a newer release,
//! verifies it by the rules of The Update Framework (crate `tough`) and against
//! a release log, puts it in place of the program that runs, and takes it back
//! when it does not serve.
//!
//! It knows no program of Sotto: what is updated is a file, a version, and a
//! [`Service`] that can be restarted and asked whether it is ready.
//!
//! It must never install what is not signed, and never leave a machine without
//! a whole program: whenever it is killed, the old one or the new one is there.

pub mod command;
pub mod digest;
pub mod gate;
pub mod journal;
pub mod log;
pub mod publish;
pub mod refusal;
pub mod slot;
pub mod source;
pub mod trust;
pub mod updater;

pub use digest::Digest;
pub use gate::{Bounds, Outcome, Service, Serving};
pub use log::{ReleaseLog, platform};
pub use refusal::{Refusal, UpdateError};
pub use slot::Slot;
pub use source::{Pace, Source};
pub use trust::{RootOfTrust, TrustFile};
pub use updater::{Checked, Program, check};
