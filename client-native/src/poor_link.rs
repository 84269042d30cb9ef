//! How patient a client is, so that everything works on the slowest link that
//! is promised to work: 2 kbit/s of which 30 % are lost.

use std::time::Duration;

/// Bytes that such a link carries in a second at least, what is sent again
/// left out.
const BYTES_PER_SECOND: usize = 100;

/// How long so many bytes may take.
pub(crate) fn time_for(bytes: usize) -> Duration {
    Duration::from_secs((bytes / BYTES_PER_SECOND) as u64)
}

/// How long an attempt to connect may take. At first little, so that a server
/// that is gone does not hold up who has others to try; more after each
/// attempt that took all of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience(Duration);

impl Patience {
    const FIRST: Duration = Duration::from_secs(15);
    const LAST: Duration = Duration::from_secs(240);

    /// Of who knows nothing of the link.
    pub(crate) fn new() -> Self {
        Self(Self::FIRST)
    }

    /// For the next attempt.
    pub(crate) fn duration(self) -> Duration {
        self.0
    }

    /// Learns from a gateway whose answers took so long, which are about as many
    /// bytes.
    pub(crate) fn answered_after(&mut self, taken: Duration) {
        self.0 = self.0.max(4 * taken).min(Self::LAST);
    }

    /// Learns from an attempt that failed after so long.
    pub(crate) fn failed_after(&mut self, taken: Duration) {
        if taken >= self.0 {
            self.0 = (4 * self.0).min(Self::LAST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_gateway_makes_patient() {
        let mut patience = Patience::new();
        patience.answered_after(Duration::from_secs(1));
        assert_eq!(patience.duration(), Patience::FIRST);
        patience.answered_after(Duration::from_secs(30));
        assert_eq!(patience.duration(), Duration::from_secs(120));
    }

    #[test]
    fn only_slow_attempts_make_patient() {
        let mut patience = Patience::new();
        patience.failed_after(Duration::from_secs(1));
        assert_eq!(patience.duration(), Patience::FIRST);
        for expected in [60, 240, 240] {
            patience.failed_after(Duration::from_secs(500));
            assert_eq!(patience.duration(), Duration::from_secs(expected));
        }
    }
}
