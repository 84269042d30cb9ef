//! How often something may be tried, counted by all gateways together in the
//! bucket `throttles`.
//!
//! A leaky bucket (GCRA) per subject: a burst, then one more each interval. A
//! name falls into one of a fixed number of counters by a keyed hash, whether
//! or not there is such a user: so guessing names tells nothing, fills no disk,
//! and nobody can aim at a counter other than that of the name itself.

use std::net::IpAddr;

use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use sotto_proto::{DeviceId, UserName};
use sotto_service::network::network;
use zeroize::Zeroizing;

use crate::org::Org;
use crate::records::{ThrottleRecord, VERSION};
use crate::refusal::Refusal;
use crate::sealing::derive;
use crate::sms::Number;

const LABEL: &[u8] = b"sotto v1 throttles";

/// How often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// What can be done at once by somebody who did nothing for a while.
    pub burst: u32,
    /// After that one more each so many ms.
    pub interval_ms: i64,
    /// What was done too often, for people to read.
    pub what: &'static str,
}

/// Guesses of one password: about a hundred a day.
pub const PASSWORD: Rate = Rate {
    burst: 10,
    interval_ms: 15 * 60_000,
    what: "too many tries of this password",
};

/// Text messages that one user has sent to them.
pub const TEXTS: Rate = Rate {
    burst: 5,
    interval_ms: 60 * 60_000,
    what: "too many text messages to you",
};
/// Text messages to one number, whoever asks for them.
pub const NUMBER: Rate = Rate {
    burst: 5,
    interval_ms: 2 * 60 * 60_000,
    what: "too many text messages to this number",
};
/// Text messages that are asked for from one address.
pub const TEXTS_OF_ADDRESS: Rate = Rate {
    burst: 20,
    interval_ms: 10 * 60_000,
    what: "too many text messages are asked for from this network",
};

/// Whose tries are counted.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// Of a user, by somebody without a session.
    Account(&'a UserName),
    /// Of a user, on a device of theirs: no stranger can use these up.
    Device(DeviceId),
    /// Text messages that a user asks for.
    Texts(&'a UserName),
    /// Text messages to a number.
    Number(&'a Number),
    /// Text messages that are asked for from an address.
    Address(IpAddr),
}

/// Counts; all gateways of a server have the same key.
pub struct Throttle {
    key: Zeroizing<[u8; 32]>,
}

impl Throttle {
    /// Derives its key from the key that signs for the gateway.
    pub fn new(gateway: &SigningKey) -> Self {
        Self {
            key: derive(gateway, LABEL),
        }
    }

    /// Counts one more try, durably, before it is made.
    ///
    /// # Errors
    /// [`Refusal::TooMany`], [`Refusal::Unavailable`].
    pub async fn count(
        &self,
        org: &Org,
        subject: Subject<'_>,
        rate: Rate,
        now_ms: i64,
    ) -> Result<(), Refusal> {
        let decide = |stored: Option<ThrottleRecord>| {
            let empty_at_ms = stored.map_or(0, |record| record.empty_at_ms);
            let record = ThrottleRecord {
                version: VERSION,
                empty_at_ms: rate.fill(empty_at_ms, now_ms)?,
            };
            Ok((Some(record), ()))
        };
        let bucket = &org.buckets().throttles;
        bucket.change(&self.counter(subject), decide).await
    }

    /// Forgets what was counted: whoever tried had the right to.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`].
    pub async fn forgive(&self, org: &Org, subject: Subject<'_>) -> Result<(), Refusal> {
        let forgiven = |stored: Option<ThrottleRecord>| {
            let counted = stored.filter(|record| record.empty_at_ms != 0);
            let nothing = counted.map(|record| ThrottleRecord {
                empty_at_ms: 0,
                ..record
            });
            Ok((nothing, ()))
        };
        let bucket = &org.buckets().throttles;
        bucket.change(&self.counter(subject), forgiven).await
    }

    fn counter(&self, subject: Subject<'_>) -> String {
        match subject {
            Subject::Account(user) => format!("account.{:04x}", self.slot(user.as_str())),
            Subject::Device(device) => format!("device.{device}"),
            Subject::Texts(user) => format!("texts.{user}"),
            Subject::Number(number) => {
                let hash = self.hash(number.as_str().as_bytes());
                format!("number.{}", HEXLOWER.encode(&hash))
            }
            Subject::Address(address) => {
                let network = network(address).to_string();
                format!("address.{:04x}", self.slot(&network))
            }
        }
    }

    fn slot(&self, name: &str) -> u16 {
        let [first, second, ..] = self.hash(name.as_bytes());
        u16::from_be_bytes([first, second])
    }

    fn hash(&self, name: &[u8]) -> [u8; 32] {
        // HMAC takes a key of any length.
        Hmac::<Sha256>::new_from_slice(self.key.as_ref())
            .map(|mac| mac.chain_update(name).finalize().into_bytes().into())
            .unwrap_or_default()
    }
}

impl Rate {
    /// When the bucket will be empty with one more in it, in ms since 1970.
    fn fill(self, empty_at_ms: i64, now_ms: i64) -> Result<i64, Refusal> {
        let filled = empty_at_ms.max(now_ms).saturating_add(self.interval_ms);
        let room = self.interval_ms.saturating_mul(i64::from(self.burst));
        let full = now_ms.saturating_add(room);
        if filled <= full {
            return Ok(filled);
        }
        let wait_s = filled.saturating_sub(full).div_euclid(1_000) + 1;
        Err(Refusal::TooMany(format!(
            "{}: try again in {}",
            self.what,
            Wait(wait_s)
        )))
    }
}

/// Seconds, or minutes of more than two.
struct Wait(i64);

impl std::fmt::Display for Wait {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            seconds @ ..=120 => write!(f, "{seconds} s"),
            seconds => write!(f, "{} minutes", seconds.div_euclid(60) + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        burst: 3,
        interval_ms: 60_000,
        what: "too many tries",
    };

    #[test]
    fn a_burst_then_one_each_interval() {
        let mut empty_at_ms = 0;
        let mut tries_at = |now_ms: i64| {
            let fits = |_: &i32| match RATE.fill(empty_at_ms, now_ms) {
                Ok(filled) => {
                    empty_at_ms = filled;
                    true
                }
                Err(_) => false,
            };
            (0..100).take_while(fits).count()
        };
        assert_eq!(tries_at(1_000_000), 3);
        assert_eq!(tries_at(1_059_999), 0);
        assert_eq!(tries_at(1_060_000), 1);
        assert_eq!(tries_at(1_180_000), 2);
        assert_eq!(tries_at(9_000_000), 3);
    }

    #[test]
    fn how_long_to_wait_is_told() {
        let refused = |ahead_ms: i64| RATE.fill(1_000_000 + ahead_ms, 1_000_000).unwrap_err();
        assert_eq!(
            refused(130_000).to_string(),
            "too many tries: try again in 11 s"
        );
        assert_eq!(
            refused(480_000).to_string(),
            "too many tries: try again in 7 minutes"
        );
    }

    #[test]
    fn names_spread_over_the_counters_by_the_key() {
        let user = |n: u32| format!("user{n}").parse::<UserName>().unwrap();
        let counters = |key: u8| -> std::collections::BTreeSet<_> {
            let throttle = Throttle::new(&SigningKey::from_bytes(&[key; 32]));
            let of = |n| throttle.counter(Subject::Account(&user(n)));
            (0..500).map(of).collect()
        };
        assert!(counters(1).len() > 480);
        assert!(counters(1).intersection(&counters(2)).count() < 50);
    }
}
