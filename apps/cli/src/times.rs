//! Times as a person reads them.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use sotto_proto::limits;
use sotto_proto::signed::DeviceCertificate;

/// A moment by the clock on this machine's wall.
pub fn local(ms: i64) -> Zoned {
    let moment = Timestamp::from_millisecond(ms).unwrap_or_default();
    moment.to_zoned(TimeZone::system())
}

/// When a device was made. Its certificate begins a little before, for clocks
/// that are slow.
pub fn of_device(certificate: &DeviceCertificate) -> Zoned {
    let skew = i64::try_from(limits::CLOCK_SKEW.as_millis()).unwrap_or_default();
    local(certificate.not_before_ms.saturating_add(skew))
}

/// The day, for a line of its own.
pub fn day(moment: &Zoned) -> String {
    moment.strftime("%A, %-d %B %Y").to_string()
}

/// Hours and minutes.
pub fn clock(moment: &Zoned) -> String {
    moment.strftime("%H:%M").to_string()
}

/// The day and the minute, in columns.
pub fn minute(moment: &Zoned) -> String {
    moment.strftime("%Y-%m-%d %H:%M").to_string()
}

/// A length of time as it is typed: `8h`, or `90s` where no greater unit fits.
pub fn span(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
    let fits = |&(unit, _): &(u64, &str)| seconds >= unit && seconds.is_multiple_of(unit);
    match units.into_iter().find(fits) {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_shown_as_they_are_typed() {
        for (seconds, shown) in [
            (0, "0s"),
            (90, "90s"),
            (120, "2m"),
            (28_800, "8h"),
            (90_000, "25h"),
            (604_800, "7d"),
        ] {
            assert_eq!(span(seconds), shown);
        }
    }
}
