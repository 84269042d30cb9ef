//! What was published and is not acknowledged yet, within bounds: this is all
//! that a relay holds of messages that it takes in.

use std::collections::BTreeMap;
use std::time::Duration;

use sotto_proto::refusals::PublishAnswer;
use sotto_proto::{DeviceId, Subject};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Messages at most, of all devices.
pub const MESSAGES: usize = 16_384;
/// Their bytes.
const BYTES: usize = 64 * 1024 * 1024;
/// Messages of one device.
const MESSAGES_PER_DEVICE: usize = 1_024;
/// Their bytes.
const BYTES_PER_DEVICE: usize = 16 * 1024 * 1024;
/// After this long an acknowledgement does not come any more.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// One message on its way.
#[derive(Debug)]
pub struct Outstanding {
    /// Who sent it.
    pub device: DeviceId,
    /// Where the answer goes.
    pub reply: Reply,
    /// Where it is to be stored.
    pub subject: Subject,
    /// How long it is.
    pub bytes: usize,
    /// When it was published.
    pub since: Instant,
}

/// Who waits for the answer.
#[derive(Debug)]
pub enum Reply {
    /// The device that submitted it, on this subject.
    Device(String),
    /// A copy that is under way.
    Copy(oneshot::Sender<PublishAnswer>),
}

/// All that are on their way.
#[derive(Debug, Default)]
pub struct Flight {
    /// By number, which is also the order of time.
    outstanding: BTreeMap<u64, Outstanding>,
    next: u64,
    total: Share,
    per_device: BTreeMap<DeviceId, Share>,
}

/// A part of what is on its way.
#[derive(Debug, Default, Clone, Copy)]
struct Share {
    messages: usize,
    bytes: usize,
}

impl Share {
    fn fits(self, bytes: usize, messages_max: usize, bytes_max: usize) -> bool {
        self.messages < messages_max && self.bytes.saturating_add(bytes) <= bytes_max
    }

    fn add(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn take(&mut self, bytes: usize) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Flight {
    /// Whether nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// Whether there is room for a message of this length.
    pub fn fits(&self, device: DeviceId, bytes: usize) -> bool {
        let own = self.per_device.get(&device).copied().unwrap_or_default();
        self.total.fits(bytes, MESSAGES, BYTES)
            && own.fits(bytes, MESSAGES_PER_DEVICE, BYTES_PER_DEVICE)
    }

    /// Adds a message; its number.
    pub fn depart(&mut self, outstanding: Outstanding) -> u64 {
        let number = self.next;
        self.next += 1;
        self.total.add(outstanding.bytes);
        let own = self.per_device.entry(outstanding.device).or_default();
        own.add(outstanding.bytes);
        self.outstanding.insert(number, outstanding);
        number
    }

    /// Takes a message out, when it is still on its way.
    pub fn arrive(&mut self, number: u64) -> Option<Outstanding> {
        let outstanding = self.outstanding.remove(&number)?;
        self.total.take(outstanding.bytes);
        if let Some(own) = self.per_device.get_mut(&outstanding.device) {
            own.take(outstanding.bytes);
            if own.messages == 0 {
                self.per_device.remove(&outstanding.device);
            }
        }
        Some(outstanding)
    }

    /// Takes a message out that has waited too long.
    pub fn overdue(&mut self, now: Instant) -> Option<Outstanding> {
        let (&number, oldest) = self.outstanding.first_key_value()?;
        let waited = now.saturating_duration_since(oldest.since);
        (waited >= ANSWER_MAX).then(|| self.arrive(number))?
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn device(number: u8) -> DeviceId {
        DeviceId::try_from(&[number; 16][..]).unwrap()
    }

    fn outstanding(sender: u8, bytes: usize, since: Instant) -> Outstanding {
        Outstanding {
            device: device(sender),
            reply: Reply::Device(String::new()),
            subject: Subject::Inbox(device(0)),
            bytes,
            since,
        }
    }

    #[test]
    fn one_device_does_not_take_the_place_of_all() {
        let now = Instant::now();
        let mut flight = Flight::default();
        for _ in 0..MESSAGES_PER_DEVICE {
            assert!(flight.fits(device(1), 10));
            flight.depart(outstanding(1, 10, now));
        }
        assert!(!flight.fits(device(1), 10));
        assert!(flight.fits(device(2), BYTES_PER_DEVICE));
        assert!(!flight.fits(device(2), BYTES_PER_DEVICE + 1));
        flight.arrive(0).unwrap();
        assert!(flight.fits(device(1), 10));
        assert!(flight.arrive(0).is_none());
    }

    #[test]
    fn what_waits_too_long_is_taken_out_oldest_first() {
        let start = Instant::now();
        let mut flight = Flight::default();
        flight.depart(outstanding(1, 10, start));
        flight.depart(outstanding(2, 10, start + ANSWER_MAX / 2));
        assert!(flight.overdue(start + ANSWER_MAX / 2).is_none());
        let late = flight.overdue(start + ANSWER_MAX).unwrap();
        assert_eq!(late.device, device(1));
        assert!(flight.overdue(start + ANSWER_MAX).is_none());
        assert_eq!(flight.outstanding.len(), 1);
    }

    proptest! {
        /// Whatever happens, the sums are those of what is there.
        #[test]
        fn sums_hold(steps in proptest::collection::vec((0u8..3, 0usize..9_000_000, 0u64..40), 0..200)) {
            let now = Instant::now();
            let mut flight = Flight::default();
            for (sender, bytes, number) in steps {
                if flight.fits(device(sender), bytes) {
                    flight.depart(outstanding(sender, bytes, now));
                }
                flight.arrive(number);
                let sum: usize = flight.outstanding.values().map(|o| o.bytes).sum();
                prop_assert_eq!(flight.total.bytes, sum);
                prop_assert!(sum <= BYTES);
                prop_assert_eq!(flight.total.messages, flight.outstanding.len());
                let own: usize = flight.per_device.values().map(|own| own.bytes).sum();
                prop_assert_eq!(own, sum);
            }
        }
    }
}
