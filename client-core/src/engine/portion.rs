//! How much is asked for at once when catching up: what takes about a minute,
//! by how long the answer before took. Live messages, acknowledgements and the
//! answers to pings wait behind it.

use crate::io::Timestamp;
use crate::pace::Pace;

/// Payload bytes at least, and at most.
const LEAST: u32 = 4 * 1024;
const MOST: u32 = 4 * 1024 * 1024;

/// An answer of less says nothing about the link.
const TELLING: u32 = 4 * 1024;

/// How long an answer should take, in ms.
const GOAL_MS: u64 = 60_000;

/// By how much one answer lets the next grow.
const GROWTH: u32 = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Portion {
    bytes: u32,
    asked_at: Option<Timestamp>,
    arrived: u32,
}

impl Default for Portion {
    fn default() -> Self {
        Self {
            bytes: MOST,
            asked_at: None,
            arrived: 0,
        }
    }
}

impl Portion {
    /// A connection was made that may be slower than the one before.
    pub(super) fn connected(&mut self, pace: Pace) {
        self.bytes = self.bytes.min(pace.catch_up_bytes()).max(LEAST);
    }

    /// Something is asked for; so much.
    pub(super) fn asked(&mut self, now: Timestamp) -> u32 {
        self.asked_at = Some(now);
        self.arrived = 0;
        self.bytes
    }

    /// So much of the answer has come.
    pub(super) fn arrived(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.arrived = self.arrived.saturating_add(bytes);
    }

    /// The answer has ended, or does not go on.
    pub(super) fn ended(&mut self, now: Timestamp) {
        let Some(asked_at) = self.asked_at.take() else {
            return;
        };
        let took = now.0.saturating_sub(asked_at.0);
        let took = u64::try_from(took).unwrap_or_default().max(1);
        if self.arrived < TELLING && took < GOAL_MS {
            return;
        }
        let bytes = u64::from(self.arrived) * GOAL_MS / took;
        let bytes = u32::try_from(bytes).unwrap_or(MOST);
        let most = self.bytes.saturating_mul(GROWTH).min(MOST);
        self.bytes = bytes.clamp(LEAST, most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(portion: &mut Portion, seconds: i64, bytes: usize) -> u32 {
        portion.asked(Timestamp(0));
        portion.arrived(bytes);
        portion.ended(Timestamp(seconds * 1_000));
        portion.bytes
    }

    #[test]
    fn it_is_what_takes_a_minute() {
        let mut portion = Portion::default();
        portion.connected(Pace::SLOWEST);
        assert_eq!(portion.bytes, 4_096);
        assert_eq!(after(&mut portion, 30, 4_096), 8_192);
        // At most four times as much, however fast it was.
        assert_eq!(after(&mut portion, 0, 8_192), 32_768);
        for _ in 0..10 {
            after(&mut portion, 0, 32_768);
        }
        assert_eq!(portion.bytes, MOST);
        // An answer that broke off says as much.
        assert_eq!(after(&mut portion, 135, 270_000), 120_000);
        assert_eq!(after(&mut portion, 135, 0), LEAST);
    }

    #[test]
    fn little_says_nothing() {
        let mut portion = Portion::default();
        portion.connected(Pace::ORDINARY);
        let before = portion.bytes;
        assert_eq!(after(&mut portion, 3, 100), before);
        // A clock that was set back is no reason for anything.
        assert_eq!(after(&mut portion, -3, 100), before);
    }
}
