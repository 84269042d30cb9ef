//! What devices store: they submit it to `in.<device>.<subject>` in their own
//! account, and a relay publishes it to the stream.
//!
//! | part | what | I/O |
//! |---|---|---|
//! | `submission` | a message is one that a stream may see, or why not | none |
//! | `flight` | what waits for JetStream, within bounds | none |
//! | `copy` | a file that one room has, for another | NATS |
//! | `service` | submissions in, acknowledgements out | NATS |
//!
//! A device is told that something is stored when JetStream says so, with
//! JetStream's own words, and never before. Nothing of a device's message
//! reaches a stream but its payload and two checked headers, and nothing is
//! answered outside that device's own reply subjects.
//! docs/adr/0012 says why devices do not publish to streams themselves.

mod copy;
mod flight;
mod service;
mod submission;

use sotto_service::nats::Queues;

pub use service::IngestService;

/// Of the connection through which submissions come. They are read as fast as
/// they come; what nobody reads is bounded by this many messages.
pub const SUBMISSIONS: Queues = Queues {
    incoming: 1_024,
    outgoing: flight::MESSAGES,
};

/// Of the connection through which streams are written.
pub const ACKNOWLEDGEMENTS: Queues = Queues {
    incoming: 2 * flight::MESSAGES,
    outgoing: flight::MESSAGES,
};
