//! The time of day, for what is stored or judged by it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since_1970.unwrap_or_default().as_millis();
    i64::try_from(millis).unwrap_or(i64::MAX)
}
