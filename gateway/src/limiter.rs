//! How often one address may call without a session.
//!
//! A fixed table of leaky buckets (GCRA): an address falls into one by a
//! keyed hash, so that nobody can aim at somebody else's and the memory does
//! not grow with the number of addresses.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::PoisonError;

use sotto_service::network::network;

/// Addresses that share a bucket are rarer than one in this many.
const BUCKETS: usize = 1 << 16;

/// How much an address may do.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// What can be done at once by somebody who did nothing for a while.
    pub burst: u32,
    /// What comes back each second.
    pub per_second: u32,
}

/// Counts what each address does.
#[derive(Debug)]
pub struct Limiter {
    hasher: RandomState,
    rate: Rate,
    /// Per bucket, the time in ms at which it is empty.
    empty_at: Mutex<Vec<u64>>,
}

impl Limiter {
    /// Nobody has done anything yet.
    pub fn new(rate: Rate) -> Self {
        Self {
            hasher: RandomState::new(),
            rate,
            empty_at: Mutex::new(vec![0; BUCKETS]),
        }
    }

    /// Whether `address` may do something of this cost at `now_ms`; if so it
    /// counts.
    pub fn allow(&self, address: IpAddr, cost: u32, now_ms: u64) -> bool {
        let bucket = self.hasher.hash_one(network(address)) as usize % BUCKETS;
        let drain_ms = |amount: u32| u64::from(amount) * 1_000 / u64::from(self.rate.per_second);
        let mut table = self.empty_at.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(empty_at) = table.get_mut(bucket) else {
            return false;
        };
        let filled = (*empty_at).max(now_ms) + drain_ms(cost);
        let allowed = filled <= now_ms + drain_ms(self.rate.burst);
        if allowed {
            *empty_at = filled;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        burst: 10,
        per_second: 2,
    };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_then_what_comes_back() {
        let limiter = Limiter::new(RATE);
        let calls = |now| {
            (0..100)
                .filter(|_| limiter.allow(address("192.0.2.1"), 1, now))
                .count()
        };
        assert_eq!(calls(5_000), 10);
        assert_eq!(calls(5_499), 0);
        assert_eq!(calls(5_500), 1);
        assert_eq!(calls(6_500), 2);
        assert_eq!(calls(1_000_000), 10);
    }

    #[test]
    fn costly_calls_count_more() {
        let limiter = Limiter::new(RATE);
        assert!(limiter.allow(address("192.0.2.1"), 8, 0));
        assert!(!limiter.allow(address("192.0.2.1"), 3, 0));
        assert!(limiter.allow(address("192.0.2.1"), 2, 0));
    }

    #[test]
    fn addresses_of_one_ipv6_network_share() {
        let limiter = Limiter::new(RATE);
        assert!(limiter.allow(address("2001:db8::1"), 10, 0));
        assert!(!limiter.allow(address("2001:db8::ffff:1"), 1, 0));
        assert!(!limiter.allow(address("2001:db8::2"), 1, 0));
    }

    #[test]
    fn one_address_does_not_use_up_anothers() {
        let limiter = Limiter::new(RATE);
        let others = (0..64).map(|n| IpAddr::from([192, 0, 2, n]));
        assert!(limiter.allow(address("198.51.100.1"), 10, 0));
        // A shared bucket is possible, two in 64 are as good as impossible.
        let refused = others.filter(|&other| !limiter.allow(other, 1, 0)).count();
        assert!(refused <= 1, "{refused}");
    }
}
