//! What a slow link changes. The shell measures how much longer things take on
//! it than they ordinarily do; how much is asked for and said at once there,
//! and how long is waited before something is asked for or said again, is
//! decided here.

use std::time::Duration;

use sotto_proto::limits;

/// How many times longer than ordinarily things take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pace(u32);

impl Default for Pace {
    fn default() -> Self {
        Self::ORDINARY
    }
}

impl Pace {
    /// Of most links.
    pub const ORDINARY: Self = Self(1);

    /// Of the slowest link on which everything works: 2 kbit/s, 600 ms round
    /// trip, 30 % loss.
    pub const SLOWEST: Self = Self(16);

    /// From a slow link on, only what is asked for is worth its bytes.
    const SLOW: Self = Self(4);

    /// What takes about half a minute on the slowest link, times
    /// [`Pace::SLOWEST`].
    const AT_ONCE: u32 = 64 * 1024;

    /// Things take so many times longer than ordinarily.
    pub fn new(times: u32) -> Self {
        Self(times).clamp(Self::ORDINARY, Self::SLOWEST)
    }

    /// Whether what nobody waits for is left out.
    pub fn is_slow(self) -> bool {
        self >= Self::SLOW
    }

    /// A wait that is ordinarily so long.
    pub fn wait(self, ordinarily: Duration) -> Duration {
        ordinarily.saturating_mul(self.0)
    }

    /// The same, in ticks.
    pub(crate) fn ticks(self, ordinarily: u32) -> u32 {
        ordinarily.saturating_mul(self.0)
    }

    /// Bytes of entries that travel in one frame: while it is on its way
    /// nothing else of the room is, and what a broken connection loses of it is
    /// sent again.
    pub(crate) fn frame_bytes(self) -> usize {
        match self {
            Self::ORDINARY => limits::FRAME,
            _ => (Self::AT_ONCE / self.0) as usize,
        }
    }

    /// Bytes that the first catch-up request of a connection asks for.
    pub(crate) fn catch_up_bytes(self) -> u32 {
        match self {
            Self::ORDINARY => 16 * Self::AT_ONCE,
            _ => Self::AT_ONCE / self.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_link_carries_less_at_once_and_is_waited_for_longer() {
        let slowest = Pace::new(1_000);
        assert_eq!(slowest, Pace::SLOWEST);
        assert!(slowest.is_slow() && !Pace::ORDINARY.is_slow());
        assert_eq!(
            (slowest.frame_bytes(), slowest.catch_up_bytes()),
            (4_096, 4_096)
        );
        assert_eq!(slowest.ticks(4), 64);
        assert_eq!(Pace::new(0), Pace::ORDINARY);
        assert_eq!(Pace::ORDINARY.ticks(4), 4);
        assert_eq!(Pace::ORDINARY.frame_bytes(), limits::FRAME);
    }
}
