//! The one clock that the client reads.

use std::env;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;
use sotto_client_core::io::Timestamp;

/// Shifts [`Clock`] by this many seconds, for tests of clocks that are wrong.
const OFFSET: &str = "SOTTO_CLOCK_OFFSET_SECONDS";

/// What this machine believes the time is; it may be wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    offset_ms: i64,
}

impl Clock {
    /// The system's clock, shifted as the environment says.
    pub fn from_environment() -> Self {
        let seconds = env::var(OFFSET)
            .ok()
            .and_then(|text| text.parse::<i64>().ok());
        Self {
            offset_ms: seconds.unwrap_or_default().saturating_mul(1_000),
        }
    }

    /// Now.
    pub fn now(self) -> Timestamp {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
        Timestamp(now.saturating_add(self.offset_ms))
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        let milliseconds = u64::try_from(self.now().0).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(
            milliseconds,
        )))
    }
}
