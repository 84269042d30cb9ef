//! Structured logs on standard error, in words or as lines of JSON. What may
//! stand in them is `sotto_log`'s to say.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use clap::ValueEnum;
use sotto_log::log_safe;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt as lines, reload};

/// Longest text that says how much our programs log, in bytes.
pub const LEVELS_MAX: usize = 512;
/// Most parts that it has.
const PARTS_MAX: usize = 16;
/// What the targets of our own programs begin with.
const OURS: &str = "sotto";

/// What is logged, and how, as whoever starts a program says.
#[derive(Debug, Clone, clap::Args)]
pub struct LogArgs {
    /// How much to log: a level (error, warn, info, debug) or a filter.
    #[arg(long, env = "SOTTO_LOG", default_value = "info", value_name = "FILTER")]
    log: String,

    /// How it is written.
    #[arg(
        long,
        env = "SOTTO_LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    log_format: Format,
}

/// How a log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// A line of words for each event.
    #[default]
    Text,
    /// An object for each event, on a line.
    Json,
}

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

/// Starts logging, once per process, as it was said.
///
/// # Errors
/// When the filter does not read.
pub fn start(args: &LogArgs) -> Result<LogFilter, LogFilterError> {
    start_with(&args.log, args.log_format)
}

/// Starts logging for a command that does one thing, and says by itself how that
/// went.
///
/// # Errors
/// None: what is logged is known to read.
pub fn start_quietly() -> Result<LogFilter, LogFilterError> {
    start_with("warn", Format::Text)
}

/// `filter` is a level, or directives as `tracing_subscriber::EnvFilter` takes
/// them.
fn start_with(filter: &str, format: Format) -> Result<LogFilter, LogFilterError> {
    let (layer, handle) = reload::Layer::new(env_filter(filter, None)?);
    let text = (format == Format::Text).then(|| {
        let lines = lines::layer().with_writer(std::io::stderr);
        lines.with_ansi(false)
    });
    let json = (format == Format::Json).then(|| {
        let lines = lines::layer().with_writer(std::io::stderr);
        lines.json().flatten_event(true)
    });
    let log = tracing_subscriber::registry().with(layer);
    log.with(text).with(json).init();
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

log_safe!(Levels);

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
