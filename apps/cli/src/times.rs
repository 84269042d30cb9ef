//! Times as a person reads them.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A moment by the clock on this machine's wall.
pub fn local(ms: i64) -> Zoned {
    let moment = Timestamp::from_millisecond(ms).unwrap_or_default();
    moment.to_zoned(TimeZone::system())
}

/// The day, for a line of its own.
pub fn day(moment: &Zoned) -> String {
    moment.strftime("%A, %-d %B %Y").to_string()
}

/// Hours and minutes.
pub fn clock(moment: &Zoned) -> String {
    moment.strftime("%H:%M").to_string()
}
