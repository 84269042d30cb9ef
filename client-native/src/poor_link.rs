//! How patient a client is, so that everything works on the slowest link that
//! is promised to work: 2 kbit/s of which 30 % are lost.

use std::time::Duration;

use sotto_client_core::pace::Pace;

/// Bytes that such a link carries in a second at least, what is sent again
/// left out.
const BYTES_PER_SECOND: usize = 100;

/// How long so many bytes may take.
pub(crate) fn time_for(bytes: usize) -> Duration {
    Duration::from_secs((bytes / BYTES_PER_SECOND) as u64)
}

/// How often a message server is asked whether it is there. The answer waits
/// behind whatever else is on its way; a connection that owes three is dead.
pub(crate) fn ping(pace: Pace) -> Duration {
    Duration::from_secs(if pace.is_slow() { 60 } else { 45 })
}

/// A connection that brings nothing for so long is dead, when so many bytes are
/// on their way up, or nothing but a ping. On a slow link five losses in a row
/// take 40 s, and another connection takes a minute and a half.
pub(crate) fn silence(pace: Pace, outstanding: Option<usize>) -> Duration {
    let silence = Duration::from_secs(if pace.is_slow() { 75 } else { 30 });
    silence + outstanding.map_or(ping(pace), time_for)
}

/// How long a step may take. At first little, so that a server that is gone
/// does not hold up who has others to try; more after each step that took all
/// of it, and where steps take long. For connections it is also the measure of
/// how slow the link is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    first: Duration,
    now: Duration,
}

impl Patience {
    const LAST: Duration = Duration::from_secs(240);

    /// For a connection to a message server, over a link of which nothing is
    /// known.
    pub(crate) fn for_a_connection() -> Self {
        Self::beginning_with(Duration::from_secs(15))
    }

    /// For an answer of the gateway, which itself holds a request for at most
    /// 25 s.
    pub(crate) fn for_an_answer() -> Self {
        Self::beginning_with(Duration::from_secs(60))
    }

    const fn beginning_with(first: Duration) -> Self {
        Self { first, now: first }
    }

    /// For the next attempt.
    pub(crate) fn duration(self) -> Duration {
        self.now
    }

    /// How slow the link is, by what it took to connect.
    pub(crate) fn pace(self) -> Pace {
        let times = self.now.as_secs() / self.first.as_secs().max(1);
        Pace::new(u32::try_from(times).unwrap_or(u32::MAX))
    }

    /// Learns from a step that succeeded: answers of the gateway, or a
    /// connection, which are about as many bytes. One that was faster than
    /// those before counts half: it may have resumed what they began.
    pub(crate) fn took(&mut self, taken: Duration) {
        let wanted = (4 * taken).clamp(self.first, Self::LAST);
        self.now = wanted.max(self.now / 2);
    }

    /// Learns from an attempt that failed after so long.
    pub(crate) fn failed_after(&mut self, taken: Duration) {
        if taken >= self.now {
            self.now = (4 * self.now).min(Self::LAST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_slow_step_makes_patient_and_fast_ones_impatient_again() {
        let mut patience = Patience::for_a_connection();
        patience.took(seconds(1));
        assert_eq!(patience.duration(), seconds(15));
        assert_eq!(patience.pace(), Pace::ORDINARY);
        patience.took(seconds(30));
        assert_eq!(patience.duration(), seconds(120));
        assert_eq!(patience.pace(), Pace::new(8));
        patience.took(seconds(500));
        assert_eq!(patience.pace(), Pace::SLOWEST);
        for expected in [120, 60, 30, 15, 15] {
            patience.took(seconds(1));
            assert_eq!(patience.duration(), seconds(expected));
        }
    }

    #[test]
    fn what_is_on_its_way_up_a_slow_link_is_given_its_time() {
        let ordinary = silence(Pace::ORDINARY, Some(1_600));
        assert_eq!(ordinary, seconds(46));
        assert_eq!(silence(Pace::SLOWEST, Some(1_600)), seconds(91));
        assert_eq!(silence(Pace::ORDINARY, None), seconds(75));
        assert_eq!(silence(Pace::SLOWEST, None), seconds(135));
    }

    #[test]
    fn only_slow_attempts_make_patient() {
        let mut patience = Patience::for_a_connection();
        patience.failed_after(seconds(1));
        assert_eq!(patience.duration(), seconds(15));
        for expected in [60, 240, 240] {
            patience.failed_after(seconds(500));
            assert_eq!(patience.duration(), seconds(expected));
        }
    }
}
