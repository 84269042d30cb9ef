//! How long nothing is tried again after a failure. Pure.

use std::time::Duration;

use rand::Rng;

/// The first pause, before chance makes it shorter.
const FIRST: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST: Duration = Duration::from_secs(30);

/// Pauses that double with each failure, and are not the same for everybody:
/// a Consul that comes back is not asked by all at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after one more failure.
    pub(super) fn failed(&mut self, rng: &mut impl Rng) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let whole = FIRST.saturating_mul(factor).min(LONGEST);
        whole.mul_f64(rng.gen_range(0.5..=1.0))
    }

    /// It went well: the next failure is the first.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn pauses_double_stay_bounded_and_begin_again() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::default();
        for n in 0..100_u32 {
            let whole = Duration::from_secs(1 << n.min(5)).min(LONGEST);
            let pause = backoff.failed(&mut rng);
            assert!(whole / 2 <= pause && pause <= whole, "{n}: {pause:?}");
        }
        backoff.succeeded();
        assert!(backoff.failed(&mut rng) <= FIRST);
    }

    #[test]
    fn two_do_not_come_back_at_the_same_moment() {
        let pause = |seed| Backoff::default().failed(&mut StdRng::seed_from_u64(seed));
        assert_ne!(pause(1), pause(2));
    }
}
