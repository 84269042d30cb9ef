//! Structured logs on standard error. Log ids, counts and times; never a
//! name, an address, a payload or a secret of a user.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt as lines, reload};

/// Longest text that says how much our programs log, in bytes.
pub const LEVELS_MAX: usize = 512;
/// Most parts that it has.
const PARTS_MAX: usize = 16;
/// What the targets of our own programs begin with.
const OURS: &str = "sotto";

/// The filter does not read.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a log filter: use error, warn, info or debug")]
pub struct LogFilterError(String);

/// What is logged, which can be changed while the program runs.
#[derive(Clone)]
pub struct LogFilter {
    /// What was said at the start.
    start: Arc<str>,
    handle: reload::Handle<EnvFilter, Registry>,
}

/// How much our own programs log: a level, or `sotto_relay=debug` and the like
/// with commas between. It never reaches what libraries log, which may be what
/// they send and receive, and always leaves errors in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels(String);

/// Starts logging, once per process. `filter` is a level, or directives as
/// `tracing_subscriber::EnvFilter` takes them.
///
/// # Errors
/// When the filter does not read.
pub fn start(filter: &str) -> Result<LogFilter, LogFilterError> {
    let (layer, handle) = reload::Layer::new(env_filter(filter, None)?);
    tracing_subscriber::registry()
        .with(layer)
        .with(lines::layer().with_writer(std::io::stderr).with_ansi(false))
        .init();
    Ok(LogFilter {
        start: filter.into(),
        handle,
    })
}

fn env_filter(start: &str, levels: Option<&Levels>) -> Result<EnvFilter, LogFilterError> {
    // The NATS library reports every reconnection itself; ours say it once.
    let mut directives = format!("async_nats=error,{start}");
    if let Some(Levels(levels)) = levels {
        directives = format!("{directives},{levels}");
    }
    EnvFilter::try_new(directives).map_err(|_| LogFilterError(start.escape_default().to_string()))
}

impl LogFilter {
    /// Has our own programs log so much, or again as at the start; whether that
    /// was possible.
    pub fn follow(&self, levels: Option<&Levels>) -> bool {
        let filter = env_filter(&self.start, levels).ok();
        filter.is_some_and(|filter| self.handle.reload(filter).is_ok())
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogFilter").field(&self.start).finish()
    }
}

impl FromStr for Levels {
    type Err = LogFilterError;

    fn from_str(text: &str) -> Result<Self, LogFilterError> {
        let parts: Option<Vec<String>> = text.split(',').map(directive).collect();
        let parts = parts.filter(|parts| text.len() <= LEVELS_MAX && parts.len() <= PARTS_MAX);
        parts.map(|parts| Self(parts.join(","))).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            LogFilterError(shown.escape_default().to_string())
        })
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn directive(part: &str) -> Option<String> {
    let (target, level) = match part.split_once('=') {
        Some((target, level)) => (target.trim(), level.trim()),
        None => (OURS, part.trim()),
    };
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"_:".contains(&c);
    let fits = target.starts_with(OURS)
        && target.bytes().all(plain)
        && ["error", "warn", "info", "debug"].contains(&level);
    fits.then(|| format!("{target}={level}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_for_our_own_programs_only() {
        for (said, meant) in [
            ("debug", "sotto=debug"),
            (" warn\n", "sotto=warn"),
            (
                "info, sotto_relay::serve=debug",
                "sotto=info,sotto_relay::serve=debug",
            ),
        ] {
            assert_eq!(said.parse::<Levels>().unwrap().to_string(), meant);
        }
    }

    #[test]
    fn nothing_else_is_a_level() {
        let long = ["sotto=info"; PARTS_MAX + 1].join(",");
        let longer = format!("sotto{}=info", "a".repeat(LEVELS_MAX));
        for wrong in [
            "",
            ",",
            "off",
            "trace",
            "DEBUG",
            "h2=debug",
            "sotto_relay=trace",
            "sotto[span{user=alice}]=debug",
            "sotto_relay=info=debug",
            "debug,",
            "info\nwarn",
            &long,
            &longer,
        ] {
            assert!(wrong.parse::<Levels>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_said_later_is_added_to_what_was_said_at_the_start() {
        let levels: Levels = "debug".parse().unwrap();
        let filter = env_filter("info,sotto_update=error", Some(&levels)).unwrap();
        let text = filter.to_string();
        for directive in [
            "async_nats=error",
            "sotto_update=error",
            "sotto=debug",
            "info",
        ] {
            assert!(text.contains(directive), "{text}");
        }
        let start = env_filter("info", None).unwrap().to_string();
        assert!(!start.contains("sotto"), "{start}");
        assert!(env_filter("nonsense=nonsense=1", None).is_err());
    }
}
