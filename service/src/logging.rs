//! Structured logs on standard error. Log ids, counts and times; never a
//! name, an address, a payload or a secret of a user.

use tracing_subscriber::EnvFilter;

/// The filter does not read.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a log filter: use error, warn, info or debug")]
pub struct LogFilterError(String);

/// Starts logging, once per process. `filter` is a level, or directives as
/// `tracing_subscriber::EnvFilter` takes them.
///
/// # Errors
/// When the filter does not read.
pub fn start(filter: &str) -> Result<(), LogFilterError> {
    // The NATS library reports every reconnection itself; ours say it once.
    let directives = format!("async_nats=error,{filter}");
    let filter = EnvFilter::try_new(directives)
        .map_err(|_| LogFilterError(filter.escape_default().to_string()))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    Ok(())
}
