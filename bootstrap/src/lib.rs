//! `sotto bootstrap`: bare Linux machines become a server, over SSH.
//!
//! Each machine says what it is ([`facts`]); from that and from what is wanted
//! follows, without I/O, what speaks against it and what is to be done
//! ([`plan`]); each [`plan::Step`] leaves a machine as it should be, whether it
//! is done for the first time or again, so that an interrupted run is completed
//! by the next and a complete one leaves nothing to do.
//!
//! SSH is the machine's own `ssh` with whatever the user has set up for it. It
//! must never be told to accept an unknown host, and no secret may stand in a
//! command line, in what is printed, or in an error. What a machine answers is
//! bounded and believed in nothing but what concerns itself.

pub mod destination;
pub mod facts;
pub mod fleet;
pub mod plan;
pub mod programs;
mod scripts;
pub mod ssh;
pub mod updates;
pub mod wish;

pub use destination::Destination;
pub use facts::Facts;
pub use fleet::Fleet;
pub use plan::{Plan, Step};
pub use programs::{Program, Programs};
pub use updates::Updates;
pub use wish::Wish;

/// Whom the programs run as; made where there is no such user.
pub const USER: &str = "sotto";
/// Where the programs are put.
pub const PROGRAMS_DIR: &str = "/usr/local/bin";
/// Where updates are remembered.
pub use sotto_service::unit::UPDATE_DIR;
/// Where the authorities of the releases' source are put, in that folder.
pub const AUTHORITIES: &str = "/var/lib/sotto-update/ca.pem";
