//! So much at once, and so much with time: a token bucket, kept as the time at
//! which it would be full again (the generic cell rate algorithm of ITU-T
//! I.371), so that a bucket that nobody draws from need not exist.

use std::collections::BTreeMap;
use std::time::Duration;

use sotto_proto::DeviceId;
use tokio::time::Instant;

/// A size and the time in which an empty bucket fills.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    size: f64,
    fills_in: Duration,
}

/// One bucket for each device.
#[derive(Debug)]
pub struct Buckets {
    bucket: Bucket,
    full_at: BTreeMap<DeviceId, Instant>,
}

impl Bucket {
    /// Holds `size` and fills in `fills_in`.
    pub fn new(size: u64, fills_in: Duration) -> Self {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a bit more or less of 2^53 bytes"
        )]
        let size = size as f64;
        Self { size, fills_in }
    }

    /// How long it takes to refill `amount`.
    fn refill(self, amount: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "as for the size")]
        let part = amount as f64 / self.size.max(1.0);
        self.fills_in.mul_f64(part.min(1.0))
    }
}

impl Buckets {
    /// Every one full.
    pub fn new(bucket: Bucket) -> Self {
        Self {
            bucket,
            full_at: BTreeMap::new(),
        }
    }

    /// How long this device must wait before it may draw `amount`, which is
    /// never more than a full bucket; none when it may now.
    pub fn wait(&self, device: DeviceId, amount: u64, now: Instant) -> Option<Duration> {
        let full_at = self.full_at.get(&device)?;
        let after = full_at.saturating_duration_since(now) + self.bucket.refill(amount);
        let wait = after.saturating_sub(self.bucket.fills_in);
        (!wait.is_zero()).then_some(wait)
    }

    /// Draws.
    pub fn draw(&mut self, device: DeviceId, amount: u64, now: Instant) {
        let full_at = self.full_at.entry(device).or_insert(now);
        *full_at = (*full_at).max(now) + self.bucket.refill(amount);
    }

    /// Forgets the full ones.
    pub fn sweep(&mut self, now: Instant) {
        self.full_at.retain(|_, full_at| *full_at > now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device(number: u8) -> DeviceId {
        DeviceId::try_from(&[number; 16][..]).unwrap()
    }

    #[test]
    fn a_burst_then_a_rate() {
        let mut now = Instant::now();
        let mut buckets = Buckets::new(Bucket::new(10, Duration::from_secs(5)));
        for _ in 0..10 {
            assert_eq!(buckets.wait(device(1), 1, now), None);
            buckets.draw(device(1), 1, now);
        }
        let half = Duration::from_millis(500);
        assert_eq!(buckets.wait(device(1), 1, now), Some(half));
        assert_eq!(buckets.wait(device(2), 1, now), None);
        now += half;
        assert_eq!(buckets.wait(device(1), 1, now), None);
        buckets.sweep(now);
        assert_eq!(buckets.full_at.len(), 1);
        buckets.sweep(now + Duration::from_secs(5));
        assert!(buckets.full_at.is_empty());
    }

    #[test]
    fn what_is_larger_than_the_bucket_empties_it() {
        let now = Instant::now();
        let fills_in = Duration::from_secs(5);
        let mut buckets = Buckets::new(Bucket::new(10, fills_in));
        assert_eq!(buckets.wait(device(1), 50, now), None);
        buckets.draw(device(1), 50, now);
        assert_eq!(buckets.wait(device(1), 50, now), Some(fills_in));
    }

    proptest! {
        /// Over any time, no more goes through than a full bucket and what it
        /// was refilled with.
        #[test]
        fn the_rate_holds(steps in proptest::collection::vec((1u64..5, 0u64..3_000), 1..300)) {
            let start = Instant::now();
            let mut now = start;
            let mut buckets = Buckets::new(Bucket::new(100, Duration::from_secs(100)));
            let mut drawn = 0;
            for (amount, pause) in steps {
                now += Duration::from_millis(pause);
                if buckets.wait(device(1), amount, now).is_none() {
                    buckets.draw(device(1), amount, now);
                    drawn += amount;
                }
                prop_assert!(drawn as f64 <= 100.1 + (now - start).as_secs_f64());
            }
        }
    }
}
