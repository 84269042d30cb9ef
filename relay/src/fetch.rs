//! Catch-up: what a device asks on `fetch.<device>`, or for a room that demands
//! factors on `fetch.<device>.<room>`, and what it is answered.
//!
//! | part | what | I/O |
//! |---|---|---|
//! | `plan` | a request and the directory give what to read and whom to refuse | none |
//! | `merge` | a room's two subjects become one list in the order of the stream | none |
//! | `answer` | messages become frames within the limits | none |
//! | `direct_get` | reads one literal subject of a stream | NATS |
//! | `stored` | which chunks of a file a stream keeps | NATS |
//! | `exchange` | one request: reads what is planned, sends the frames | NATS |
//! | `turns` | whose request is next | none |
//! | `service` | which requests are answered, and how many at a time | NATS |
//!
//! The device is the one in the request's subject, which its JWT binds it to.
//! Nothing is answered outside that device's own reply subjects, and no room
//! is read without a permit.

mod answer;
mod direct_get;
mod exchange;
mod merge;
mod plan;
mod service;
mod stored;
mod turns;

pub use answer::PAYLOAD_MAX;
pub use direct_get::Reader;
pub use plan::is_own_reply;
pub use service::FetchService;
