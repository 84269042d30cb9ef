//! One direction of a link, as TCP sees it: when does a segment that is sent
//! now arrive? Pure: time and randomness are arguments.
//!
//! Above TCP a lost packet is not missing, it is late, and everything behind
//! it is late, too. So loss is modelled as RFC 6298 retransmits: each loss of a
//! segment costs its time on the wire again and a timeout that doubles, and a
//! segment that is lost too often breaks the connection.

use std::time::Duration;

use rand::{Rng, RngCore};

/// Bytes that travel together: small enough that a slow link is felt evenly.
pub const SEGMENT: usize = 536;

/// The shortest retransmission timeout (RFC 6298, 2.4).
const TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// A segment that is lost so often in a row breaks its connection.
const LOSSES_MAX: u32 = 6;

/// How bad a link is. Every direction of it is as bad as the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions {
    /// Bits per second, each way; `None`: as fast as the machine.
    pub bits_per_second: Option<u32>,
    /// One way: half of the round trip.
    pub delay: Duration,
    /// Up to so much more delay, evenly distributed.
    pub jitter: Duration,
    /// The share of segments that is lost, 0 to 1.
    pub loss: f64,
    /// Connections live so long on average, then they break; `None`: as long
    /// as their ends want.
    pub life: Option<Duration>,
    /// The share of breaking connections that nobody is told about: both ends
    /// hear nothing any more.
    pub half_open: f64,
}

impl Conditions {
    /// Nothing is wrong.
    pub const GOOD: Self = Self {
        bits_per_second: None,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: 0.0,
        life: None,
        half_open: 0.0,
    };

    /// The link that Sotto promises to work on: 2 kbit/s, 600 ms round trip,
    /// 30 % loss.
    pub const POOR: Self = Self {
        bits_per_second: Some(2_000),
        delay: Duration::from_millis(300),
        jitter: Duration::from_millis(100),
        loss: 0.3,
        life: None,
        half_open: 0.5,
    };

    /// How long a new connection lives; `None`: nothing breaks it.
    pub fn life(&self, rng: &mut impl RngCore) -> Option<Duration> {
        let mean = self.life?;
        let uniform: f64 = rng.gen_range(f64::EPSILON..1.0);
        Some(mean.mul_f64(-uniform.ln()))
    }

    /// How long `bytes` keep the wire busy.
    fn on_the_wire(&self, bytes: usize) -> Duration {
        match self.bits_per_second {
            Some(rate) if rate > 0 => Duration::from_secs_f64(bytes as f64 * 8.0 / f64::from(rate)),
            _ => Duration::ZERO,
        }
    }
}

/// What becomes of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It arrives at this time.
    Arrives(Duration),
    /// TCP gives up at this time.
    Breaks(Duration),
}

/// One direction. Times are since any moment, the same one for all calls.
#[derive(Debug, Default)]
pub struct Lane {
    /// The wire is busy until then.
    busy_until: Duration,
}

impl Lane {
    /// Sends a segment of so many bytes at `now`. Segments arrive in the order
    /// in which they are sent as long as jitter is less than what separates
    /// them: whoever delivers keeps the order of a connection.
    pub fn send(
        &mut self,
        bytes: usize,
        now: Duration,
        conditions: &Conditions,
        rng: &mut impl RngCore,
    ) -> Fate {
        let on_the_wire = conditions.on_the_wire(bytes);
        let mut sent = self.busy_until.max(now) + on_the_wire;
        let mut timeout = TIMEOUT_MIN.max(3 * conditions.delay);
        let mut losses = 0;
        while conditions.loss > 0.0 && rng.gen_bool(conditions.loss.min(1.0)) {
            losses += 1;
            sent += timeout + on_the_wire;
            timeout *= 2;
            if losses == LOSSES_MAX {
                // The next connection does not wait for a dead one.
                return Fate::Breaks(sent);
            }
        }
        self.busy_until = sent;
        let jitter = conditions.jitter.mul_f64(rng.gen_range(0.0..1.0));
        Fate::Arrives(sent + conditions.delay + jitter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn send_all(conditions: &Conditions, segments: usize, seed: u64) -> Vec<Fate> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut lane = Lane::default();
        (0..segments)
            .map(|_| lane.send(SEGMENT, Duration::ZERO, conditions, &mut rng))
            .collect()
    }

    #[test]
    fn a_good_link_takes_no_time() {
        let fates = send_all(&Conditions::GOOD, 100, 1);
        assert!(
            fates
                .iter()
                .all(|fate| *fate == Fate::Arrives(Duration::ZERO))
        );
    }

    #[test]
    fn a_slow_link_is_as_slow_as_it_is_told_to_be() {
        let conditions = Conditions {
            bits_per_second: Some(8 * SEGMENT as u32),
            delay: Duration::from_millis(300),
            ..Conditions::GOOD
        };
        let fates = send_all(&conditions, 10, 1);
        assert_eq!(fates[9], Fate::Arrives(Duration::from_millis(10_300)));
    }

    #[test]
    fn a_loss_costs_a_timeout_and_some_break_the_connection() {
        let conditions = Conditions {
            loss: 0.3,
            ..Conditions::GOOD
        };
        let fates = send_all(&conditions, 20_000, 1);
        let broken = fates
            .iter()
            .filter(|fate| matches!(fate, Fate::Breaks(_)))
            .count();
        // 0.3 to the sixth of 20,000 is 14.6.
        assert!((5..30).contains(&broken), "{broken}");
        let Some(Fate::Arrives(last)) = fates
            .iter()
            .rev()
            .find(|fate| matches!(fate, Fate::Arrives(_)))
        else {
            panic!("nothing arrived");
        };
        // Each segment waits 0.3 * 1 s + 0.09 * 2 s + 0.027 * 4 s + ... = 0.72 s on average.
        let mean = last.as_secs_f64() / 20_000.0;
        assert!((0.5..1.0).contains(&mean), "{mean}");
    }

    #[test]
    fn connections_live_as_long_as_they_are_told_to_on_average() {
        let conditions = Conditions {
            life: Some(Duration::from_secs(10)),
            ..Conditions::GOOD
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let lives: f64 = (0..5_000)
            .filter_map(|_| conditions.life(&mut rng))
            .map(|life| life.as_secs_f64())
            .sum();
        assert!((9.0..11.0).contains(&(lives / 5_000.0)), "{lives}");
        assert_eq!(Conditions::GOOD.life(&mut rng), None);
    }

    proptest! {
        #[test]
        fn the_same_seed_gives_the_same_fates(seed: u64, loss in 0.0..0.9f64) {
            let conditions = Conditions { loss, ..Conditions::POOR };
            prop_assert_eq!(send_all(&conditions, 50, seed), send_all(&conditions, 50, seed));
        }
    }
}
