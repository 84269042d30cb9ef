//! Whether something is taken in, or which limit is in the way.

use std::time::Duration;

use sotto_proto::refusals::{Measure, Refusal};
use sotto_proto::{DeviceId, RoomAddress, Subject};
use sotto_service::config::Limits;
use tokio::time::Instant;

use super::bucket::{Bucket, Buckets};
use super::usage::{Count, Counted, Usage, room_of};

/// What a device's daily quota fills in.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// What handshakes may take beyond an org's or a room's limit: this part of it,
/// and at least so much. Who leaves, or is made to, is not kept from it because
/// others have filled a room; but handshakes stay as long as their room, and
/// nobody may fill a disk with them.
const RESERVE_PART: u64 = 8;
/// See [`RESERVE_PART`].
const RESERVE_MESSAGES: u64 = 1_024;
/// See [`RESERVE_PART`]. Commits to large rooms have some 100 KiB.
const RESERVE_BYTES: u64 = 16 * 1024 * 1024;

/// What one device may put into inboxes in a day, whatever else is limited:
/// they are of no room, everybody may post to everybody's, and whoever owns one
/// reads all of it. Inviting 1,000 devices takes some 100 MiB.
const INBOXES_BYTES: u64 = 256 * 1024 * 1024;

/// The limits of one org, and what is used of them.
#[derive(Debug)]
pub struct Ledger {
    limits: Limits,
    rate: Buckets,
    day_messages: Option<Buckets>,
    day_bytes: Option<Buckets>,
    inboxes: Buckets,
    usage: Usage,
}

impl Ledger {
    /// With nothing used.
    pub fn new(limits: Limits) -> Self {
        let day = |size: u64| Buckets::new(Bucket::new(size, DAY));
        let fills_in = Duration::from_secs(limits.burst) / limits.messages_per_second.max(1);
        Self {
            rate: Buckets::new(Bucket::new(limits.burst, fills_in)),
            day_messages: limits.device_messages_per_day.map(day),
            day_bytes: limits.device_bytes_per_day.map(day),
            inboxes: day(INBOXES_BYTES),
            usage: Usage::default(),
            limits,
        }
    }

    /// Takes a message in, which then counts as sent, and as stored until it is
    /// known what came of it.
    ///
    /// # Errors
    /// Which limit is in the way.
    pub fn admit(
        &mut self,
        device: DeviceId,
        subject: &Subject,
        bytes: u64,
        now: Instant,
    ) -> Result<(), Refusal> {
        if let Some(retry_after) = self.rate.wait(device, 1, now) {
            return Err(Refusal::TooFast { retry_after });
        }
        let waits = |buckets: &Option<Buckets>, amount| {
            let buckets = buckets.as_ref();
            buckets.is_some_and(|buckets| buckets.wait(device, amount, now).is_some())
        };
        if waits(&self.day_messages, 1) {
            return Err(Refusal::DeviceFull(Measure::Messages));
        }
        let is_for_inbox = matches!(subject, Subject::Inbox(_));
        let inbox_waits = is_for_inbox && self.inboxes.wait(device, bytes, now).is_some();
        if waits(&self.day_bytes, bytes) || inbox_waits {
            return Err(Refusal::DeviceFull(Measure::Bytes));
        }
        let Limits {
            org_messages,
            org_bytes,
            room_messages,
            room_bytes,
            ..
        } = self.limits;
        let is_handshake = matches!(subject, Subject::Handshakes(_));
        let limit = |messages: Option<u64>, bytes: Option<u64>| match is_handshake {
            true => (
                messages.map(|max| with_reserve(max, RESERVE_MESSAGES)),
                bytes.map(|max| with_reserve(max, RESERVE_BYTES)),
            ),
            false => (messages, bytes),
        };
        let of_org = limit(org_messages, org_bytes);
        fits(self.usage.org(), bytes, of_org).map_err(Refusal::OrgFull)?;
        if let Some(room) = room_of(subject) {
            let used = self.usage.room(room.room);
            let of_room = limit(room_messages, room_bytes);
            fits(used, bytes, of_room).map_err(Refusal::RoomFull)?;
        }
        self.rate.draw(device, 1, now);
        for (buckets, amount) in [(&mut self.day_messages, 1), (&mut self.day_bytes, bytes)] {
            if let Some(buckets) = buckets {
                buckets.draw(device, amount, now);
            }
        }
        if is_for_inbox {
            self.inboxes.draw(device, bytes, now);
        }
        self.usage.departed(subject, bytes);
        Ok(())
    }

    /// The room of a message, when it is to be counted now.
    pub fn count_due<'a>(&mut self, subject: &'a Subject, now: Instant) -> Option<&'a RoomAddress> {
        self.limits.room_messages.or(self.limits.room_bytes)?;
        let address = room_of(subject)?;
        self.usage.touch(address.room, now).then_some(address)
    }

    /// Notes what came of a message that was taken in.
    pub fn arrived(&mut self, subject: &Subject, bytes: u64, stored: bool) {
        self.usage.arrived(subject, bytes);
        if stored {
            self.usage.stored(subject, bytes);
        }
    }

    /// Takes in what streams say that they keep.
    pub fn counted(&mut self, counted: Counted) {
        self.usage.counted(counted);
    }

    /// Forgets what needs no remembering.
    pub fn sweep(&mut self, now: Instant) {
        self.rate.sweep(now);
        self.inboxes.sweep(now);
        let days = [&mut self.day_messages, &mut self.day_bytes];
        for buckets in days.into_iter().flatten() {
            buckets.sweep(now);
        }
        self.usage.sweep(now);
    }
}

/// A limit, for handshakes.
fn with_reserve(limit: u64, least: u64) -> u64 {
    limit.saturating_add(least.max(limit / RESERVE_PART))
}

/// Whether one message more fits into so many messages and bytes.
fn fits(
    used: Count,
    bytes: u64,
    (messages_max, bytes_max): (Option<u64>, Option<u64>),
) -> Result<(), Measure> {
    if messages_max.is_some_and(|max| used.messages >= max) {
        return Err(Measure::Messages);
    }
    if bytes_max.is_some_and(|max| used.bytes.saturating_add(bytes) > max) {
        return Err(Measure::Bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sotto_proto::{RoomId, Shard, limits};

    use super::*;

    fn device() -> DeviceId {
        DeviceId::try_from(&[1; 16][..]).unwrap()
    }

    fn room() -> RoomAddress {
        RoomAddress {
            shard: Shard(0),
            project: "field".parse().unwrap(),
            room: RoomId::try_from(&[3; 16][..]).unwrap(),
        }
    }

    /// Stores messages of 100 bytes until one is refused.
    fn filled(limits: Limits) -> (u64, Refusal) {
        let mut ledger = Ledger::new(limits);
        let now = Instant::now();
        let subject = room().messages();
        for stored in 0..1_000 {
            ledger.count_due(&subject, now);
            if let Err(refusal) = ledger.admit(device(), &subject, 100, now) {
                let commit = ledger.admit(device(), &room().handshakes(), 100, now);
                let full = matches!(refusal, Refusal::OrgFull(_) | Refusal::RoomFull(_));
                assert_eq!(commit.is_ok(), full, "{refusal:?}");
                return (stored, refusal);
            }
            ledger.arrived(&subject, 100, true);
        }
        panic!("everything was taken in");
    }

    #[test]
    fn each_limit_says_which_it_is() {
        let limits = Limits::default();
        let cases = [
            (
                Limits {
                    org_messages: Some(7),
                    ..limits
                },
                (7, Refusal::OrgFull(Measure::Messages)),
            ),
            (
                Limits {
                    org_bytes: Some(750),
                    ..limits
                },
                (7, Refusal::OrgFull(Measure::Bytes)),
            ),
            (
                Limits {
                    room_messages: Some(7),
                    ..limits
                },
                (7, Refusal::RoomFull(Measure::Messages)),
            ),
            (
                Limits {
                    room_bytes: Some(750),
                    ..limits
                },
                (7, Refusal::RoomFull(Measure::Bytes)),
            ),
            (
                Limits {
                    device_messages_per_day: Some(7),
                    ..limits
                },
                (7, Refusal::DeviceFull(Measure::Messages)),
            ),
            (
                Limits {
                    device_bytes_per_day: Some(750),
                    ..limits
                },
                (7, Refusal::DeviceFull(Measure::Bytes)),
            ),
            (
                Limits {
                    messages_per_second: 10,
                    burst: 7,
                    ..limits
                },
                (
                    7,
                    Refusal::TooFast {
                        retry_after: Duration::from_millis(100),
                    },
                ),
            ),
        ];
        for (limits, expected) in cases {
            assert_eq!(filled(limits), expected);
        }
    }

    #[test]
    fn handshakes_have_a_reserve_and_it_ends() {
        let limits = Limits {
            room_messages: Some(7),
            burst: 10_000,
            ..Limits::default()
        };
        let mut ledger = Ledger::new(limits);
        let now = Instant::now();
        let subject = room().handshakes();
        let mut stored = 0;
        let refusal = loop {
            ledger.count_due(&subject, now);
            match ledger.admit(device(), &subject, 100, now) {
                Ok(()) => ledger.arrived(&subject, 100, true),
                Err(refusal) => break refusal,
            }
            stored += 1;
        };
        assert_eq!(refusal, Refusal::RoomFull(Measure::Messages));
        assert_eq!(stored, 7 + RESERVE_MESSAGES);
        assert_eq!(with_reserve(80_000, RESERVE_MESSAGES), 90_000);
        assert_eq!(with_reserve(u64::MAX, RESERVE_BYTES), u64::MAX);
    }

    #[test]
    fn what_is_deleted_makes_room() {
        let limits = Limits {
            org_messages: Some(10),
            ..Limits::default()
        };
        let mut ledger = Ledger::new(limits);
        let now = Instant::now();
        let mut admit = |counted: u64| {
            ledger.counted(Counted::Org(Count {
                messages: counted,
                bytes: 0,
            }));
            ledger.admit(device(), &room().messages(), 1, now)
        };
        assert_eq!(admit(10), Err(Refusal::OrgFull(Measure::Messages)));
        assert_eq!(admit(9), Ok(()));
    }

    #[test]
    fn what_is_on_its_way_counts() {
        let limits = Limits {
            org_messages: Some(15),
            room_bytes: Some(1_000),
            ..Limits::default()
        };
        let mut ledger = Ledger::new(limits);
        let now = Instant::now();
        let subject = room().messages();
        ledger.count_due(&subject, now);
        for _ in 0..10 {
            ledger.admit(device(), &subject, 100, now).unwrap();
        }
        let full = Err(Refusal::RoomFull(Measure::Bytes));
        assert_eq!(ledger.admit(device(), &subject, 100, now), full);
        ledger.arrived(&subject, 100, false);
        ledger.admit(device(), &subject, 100, now).unwrap();
        ledger.arrived(&subject, 100, true);
        assert_eq!(ledger.admit(device(), &subject, 100, now), full);

        let elsewhere = Subject::Inbox(device());
        for _ in 0..5 {
            ledger.admit(device(), &elsewhere, 1, now).unwrap();
        }
        let full = Err(Refusal::OrgFull(Measure::Messages));
        assert_eq!(ledger.admit(device(), &elsewhere, 1, now), full);
    }

    #[test]
    fn one_device_does_not_fill_everybodys_inbox() {
        let mut ledger = Ledger::new(Limits::default());
        let now = Instant::now();
        let inbox = |number: u64| {
            let to = [u8::try_from(number % 7).unwrap(); 16];
            Subject::Inbox(DeviceId::try_from(&to[..]).unwrap())
        };
        let most = limits::PAYLOAD as u64;
        for number in 0..INBOXES_BYTES / most {
            ledger.admit(device(), &inbox(number), most, now).unwrap();
        }
        let full = Err(Refusal::DeviceFull(Measure::Bytes));
        assert_eq!(ledger.admit(device(), &inbox(0), most, now), full);
        // Others may, and it may say what it likes in rooms.
        let other = DeviceId::try_from(&[2; 16][..]).unwrap();
        ledger.admit(other, &inbox(0), most, now).unwrap();
        let text = room().messages();
        ledger.admit(device(), &text, most, now).unwrap();
        ledger.admit(device(), &inbox(0), most, now + DAY).unwrap();
    }
}
