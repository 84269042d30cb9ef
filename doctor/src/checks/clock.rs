//! Whether this machine and the other nodes agree on the time: JWTs, TOTP codes
//! and certificates are good for a time.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::finding::{Check, Finding};

/// A difference above this is a warning, and above that a problem.
const WARNING: SignedDuration = SignedDuration::from_secs(2);
const PROBLEM: SignedDuration = SignedDuration::from_secs(30);
/// There when systemd's own client has set the clock.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";
const ADVICE: &str = "have both machines set their clocks by NTP: `timedatectl set-ntp true`, then `timedatectl` must say that the clock is synchronized";

/// The clock of another machine, beside that of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reading {
    node: String,
    /// How far it is ahead.
    ahead: SignedDuration,
    /// How wrong that may be: half of what the answer took.
    within: SignedDuration,
}

impl Reading {
    /// Of a node that said `time` between these two moments.
    pub fn of(node: String, asked: Timestamp, time: Timestamp, heard: Timestamp) -> Self {
        let within = heard.duration_since(asked) / 2;
        Self {
            node,
            ahead: time.duration_since(asked) - within,
            within: within.abs(),
        }
    }
}

/// What to say of all.
pub(crate) fn judge_all(readings: &[Reading]) -> Vec<Finding> {
    match readings.is_empty() {
        true => vec![alone("no other node is there to compare with")],
        false => readings.iter().map(judge).collect(),
    }
}

fn judge(reading: &Reading) -> Finding {
    let Reading {
        node,
        ahead,
        within,
    } = reading;
    let seconds = ahead.abs().as_secs_f64();
    let direction = match ahead.is_negative() {
        true => "behind",
        false => "ahead of",
    };
    let what = format!("the clock of {node} is {seconds:.2} s {direction} the one of this machine");
    // What may be the network's is not held against a clock.
    let certain = ahead.abs() - *within;
    if certain > PROBLEM {
        return Finding::problem(Check::Clock, what, ADVICE);
    }
    match certain > WARNING {
        true => Finding::warning(Check::Clock, what, ADVICE),
        false => Finding::ok(Check::Clock, what),
    }
}

/// What to say when there is nothing to compare with.
pub(crate) fn alone(why: &str) -> Finding {
    judge_alone(why, Path::new(SYNCHRONISED).exists())
}

fn judge_alone(why: &str, synchronised: bool) -> Finding {
    match synchronised {
        true => Finding::ok(
            Check::Clock,
            format!("systemd has set the clock by NTP ({why})"),
        ),
        false => Finding::not_checked(
            Check::Clock,
            why,
            "see that `timedatectl` says that the clock is synchronized",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    fn reading(ahead_ms: i64, took_ms: i64) -> Reading {
        let at = |ms| Timestamp::from_millisecond(1_700_000_000_000 + ms).unwrap();
        Reading::of(
            "n2".to_owned(),
            at(0),
            at(took_ms / 2 + ahead_ms),
            at(took_ms),
        )
    }

    #[test]
    fn a_clock_may_differ_a_little() {
        for (ahead_ms, level) in [
            (0, Level::Ok),
            (1_900, Level::Ok),
            (-1_900, Level::Ok),
            (2_200, Level::Warning),
            (-2_200, Level::Warning),
            (31_000, Level::Problem),
            (-3_600_000, Level::Problem),
        ] {
            assert_eq!(judge(&reading(ahead_ms, 100)).level, level, "{ahead_ms}");
        }
        let behind = judge(&reading(-3_000, 0));
        assert!(behind.what.contains("3.00 s behind"), "{}", behind.what);
    }

    #[test]
    fn a_slow_network_is_no_wrong_clock() {
        assert_eq!(judge(&reading(2_900, 2_000)).level, Level::Ok);
    }

    #[test]
    fn alone_only_the_system_knows() {
        assert_eq!(judge_alone("x", true).level, Level::Ok);
        assert_eq!(judge_alone("x", false).level, Level::NotChecked);
        assert_eq!(judge_all(&[reading(0, 0)]).len(), 1);
    }
}
