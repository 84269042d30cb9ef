//! What the server's programs may write into their logs. A log is kept for
//! long, and read by whoever runs a machine: nothing in it may tell of a user
//! more than that somebody's device has this id.
//!
//! The macros here ([`error`], [`warn`], [`info`], [`debug`]) take values of
//! types that are declared [`LogSafe`], and a message in which nothing is put
//! in; a value cannot begin another line. No program of the server logs in
//! another way: only this crate, and what
//! starts the log, depends on `tracing`.
//!
//! ```
//! let (error, orgs) = (std::io::Error::other("no more room"), 3);
//! sotto_log::warn!(error, orgs, what = "streams", "not everything is kept");
//! ```
//!
//! A text of whatever origin is not safe, nor is one put into the message:
//!
//! ```compile_fail
//! let name = String::from("alice");
//! sotto_log::info!(name, "somebody came");
//! ```
//! ```compile_fail
//! fn comes(name: &str) {
//!     sotto_log::info!(name, "somebody came");
//! }
//! ```
//! ```compile_fail
//! let name = "alice";
//! sotto_log::info!("{name} came");
//! ```

mod one_line;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sotto_proto::{DeviceId, IdError, OrgName};
use tracing::field::debug;

#[doc(hidden)]
pub use tracing;

pub use one_line::display;

/// A type whose every value may stand in a log: it holds no name, address,
/// payload or secret of a user.
///
/// Whoever declares one says so for all that it may ever hold. An error is safe
/// when the sentences of all its causes are.
pub trait LogSafe {
    /// As it is logged.
    fn value(&self) -> impl tracing::Value;
}

/// A text of another origin than this program, whose writer has looked at where
/// it comes from: it tells of machines, streams or settings, and of no user.
#[derive(Debug, Clone, Copy)]
pub struct Known<T>(pub T);

impl<T: fmt::Display> LogSafe for Known<T> {
    fn value(&self) -> impl tracing::Value {
        display(&self.0)
    }
}

impl<T: LogSafe + ?Sized> LogSafe for &T {
    fn value(&self) -> impl tracing::Value {
        T::value(self)
    }
}

impl<T: LogSafe + ?Sized> LogSafe for Arc<T> {
    fn value(&self) -> impl tracing::Value {
        T::value(self)
    }
}

impl<T: LogSafe> LogSafe for Option<T> {
    fn value(&self) -> impl tracing::Value {
        self.as_ref().map(LogSafe::value)
    }
}

/// What was written with the program.
impl LogSafe for &'static str {
    fn value(&self) -> impl tracing::Value {
        *self
    }
}

impl LogSafe for Path {
    fn value(&self) -> impl tracing::Value {
        display(self.display())
    }
}

impl LogSafe for PathBuf {
    fn value(&self) -> impl tracing::Value {
        display(self.display())
    }
}

impl LogSafe for Duration {
    fn value(&self) -> impl tracing::Value {
        debug(self)
    }
}

/// With its causes. Binaries fail with it at what machines, files and NATS do
/// wrong; what users do wrong ends in refusals, which are not logged.
impl LogSafe for anyhow::Error {
    fn value(&self) -> impl tracing::Value {
        display(format!("{self:#}"))
    }
}

/// Of a client of NATS: its words name subjects and servers, no payload.
impl<K> LogSafe for async_nats::error::Error<K>
where
    K: Clone + fmt::Debug + fmt::Display + PartialEq,
{
    fn value(&self) -> impl tracing::Value {
        display(self)
    }
}

/// Declares types that say themselves, by `Display`, what may be logged.
#[macro_export]
macro_rules! log_safe {
    ($($type:ty),+ $(,)?) => {
        $(impl $crate::LogSafe for $type {
            fn value(&self) -> impl $crate::tracing::Value {
                $crate::display(self)
            }
        })+
    };
}

// An id tells nothing but that it is the same one again; an organisation is who
// runs the server, or whom it is run for.
log_safe!(DeviceId, OrgName);
// The words of the operating system, of NATS's servers, and of what reads what
// was stored, which name places and no content.
log_safe!(
    io::Error,
    tokio::task::JoinError,
    tokio::sync::watch::error::RecvError,
    prost::DecodeError,
    IdError,
    std::str::Utf8Error,
    async_nats::ServerError,
    async_nats::ClientError,
    async_nats::Event
);

/// Where it is: its words may be what was to be read.
impl LogSafe for serde_json::Error {
    fn value(&self) -> impl tracing::Value {
        let (line, column) = (self.line(), self.column());
        let kind = self.classify();
        display(format!("{kind:?} at line {line}, column {column}"))
    }
}

macro_rules! numbers {
    ($($type:ty),+) => {
        $(impl LogSafe for $type {
            fn value(&self) -> impl tracing::Value {
                *self
            }
        })+
    };
}
numbers!(bool, u8, u16, u32, u64, usize, i32, i64);

/// Logs something that is wrong.
#[macro_export]
macro_rules! error {
    ($($what:tt)+) => { $crate::log!(ERROR, $($what)+) };
}

/// Logs something that may become wrong.
#[macro_export]
macro_rules! warn {
    ($($what:tt)+) => { $crate::log!(WARN, $($what)+) };
}

/// Logs what whoever runs the program wants to know.
#[macro_export]
macro_rules! info {
    ($($what:tt)+) => { $crate::log!(INFO, $($what)+) };
}

/// Logs what helps to find an error.
#[macro_export]
macro_rules! debug {
    ($($what:tt)+) => { $crate::log!(DEBUG, $($what)+) };
}

#[doc(hidden)]
#[macro_export]
macro_rules! log {
    ($level:ident, $($name:ident $(= $value:expr)?,)* $message:literal $(,)?) => {{
        const { $crate::assert_plain($message) };
        $crate::tracing::event!(
            $crate::tracing::Level::$level,
            $($name = $crate::LogSafe::value(&$crate::field!($name $(= $value)?)),)*
            $message
        )
    }};
}

#[doc(hidden)]
#[macro_export]
macro_rules! field {
    ($name:ident) => {
        $name
    };
    ($name:ident = $value:expr) => {
        $value
    };
}

/// Nothing is put into a message.
#[doc(hidden)]
pub const fn assert_plain(message: &str) {
    let mut rest = message.as_bytes();
    while let [first, others @ ..] = rest {
        assert!(
            *first != b'{',
            "a value is a field, and not put into the message"
        );
        rest = others;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn values_stand_beside_the_message() {
        let lines = Lines::default();
        let log = tracing_subscriber::fmt()
            .with_writer(lines.clone())
            .with_ansi(false);
        tracing::subscriber::with_default(log.finish(), || {
            let error = anyhow::Error::from(io::Error::other("no more room"));
            let error = error.context("a file is not written");
            let none: Option<u32> = None;
            warn!(
                error,
                orgs = 3,
                none,
                from = Known("n1\n2026 ERROR all is lost"),
                "not everything is kept"
            );
        });
        let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        for part in [
            "WARN sotto_log::tests: not everything is kept",
            "error=a file is not written: no more room",
            "orgs=3 from=n1\\n2026 ERROR all is lost\n",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}
