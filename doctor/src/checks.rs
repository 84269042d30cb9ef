//! One file for each subject: what is looked at, and how it is judged.

pub(crate) mod accounts;
pub(crate) mod certificates;
pub(crate) mod clock;
pub(crate) mod directory;
pub(crate) mod disk;
pub(crate) mod dns;
pub(crate) mod gateway;
pub(crate) mod limits;
pub(crate) mod nats;
pub(crate) mod peers;
pub(crate) mod ports;
pub(crate) mod programs;
pub(crate) mod speed;
pub(crate) mod streams;
pub(crate) mod updates;
