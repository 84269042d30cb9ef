//! What the relay counts of itself, over all orgs.

use std::sync::atomic::{AtomicU64, Ordering};

use sotto_proto::refusals::{Measure, Refusal};

use super::page::{Kind, Page};

/// Why submissions were refused, as labels.
const REASONS: [&str; 14] = [
    "org_messages",
    "org_bytes",
    "room_messages",
    "room_bytes",
    "device_messages",
    "device_bytes",
    "too_fast",
    "disk_full",
    "busy",
    "not_allowed",
    "too_large",
    "nothing_to_copy",
    "wrong_last_sequence",
    "other",
];

/// Counters that every part of the relay adds to.
#[derive(Debug, Default)]
pub struct Metrics {
    stored: AtomicU64,
    stored_bytes: AtomicU64,
    duplicates: AtomicU64,
    refused: [AtomicU64; REASONS.len()],
    unacknowledged: AtomicU64,
    in_flight: AtomicU64,
    answers: AtomicU64,
    answers_failed: AtomicU64,
    beacons: AtomicU64,
    deleted: AtomicU64,
    said_again: AtomicU64,
    rewound: AtomicU64,
    rooms_to_count: AtomicU64,
}

impl Metrics {
    /// JetStream has stored a message of this length.
    pub fn stored(&self, bytes: u64, duplicate: bool) {
        if duplicate {
            add(&self.duplicates, 1);
        } else {
            add(&self.stored, 1);
            add(&self.stored_bytes, bytes);
        }
    }

    /// A submission was refused.
    pub fn refused(&self, refusal: &Refusal) {
        let reason = reason(refusal);
        let counters = REASONS.iter().zip(&self.refused);
        if let Some((_, counter)) = counters.into_iter().find(|(name, _)| **name == reason) {
            add(counter, 1);
        }
    }

    /// A stream said nothing about this many submissions.
    pub fn unacknowledged(&self, count: u64) {
        add(&self.unacknowledged, count);
    }

    /// One submission more is on its way to a stream.
    pub fn departed(&self) {
        add(&self.in_flight, 1);
    }

    /// One submission less is on its way.
    pub fn arrived(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// A catch-up request was answered, or the answer broke off.
    pub fn answered(&self, whole: bool) {
        add(
            if whole {
                &self.answers
            } else {
                &self.answers_failed
            },
            1,
        );
    }

    /// A device has said something of itself.
    pub fn beacon(&self) {
        add(&self.beacons, 1);
    }

    /// The janitor has deleted this many messages.
    pub fn deleted(&self, messages: u64) {
        add(&self.deleted, messages);
    }

    /// Devices have said this many entries again that somebody lacked.
    pub fn said_again(&self, entries: u32) {
        add(&self.said_again, entries.into());
    }

    /// A stream has less than it had, or than devices have.
    pub fn rewound(&self) {
        add(&self.rewound, 1);
    }

    /// A room is counted for its quota.
    pub fn room_counted(&self) {
        add(&self.rooms_to_count, 1);
    }

    /// Writes them down.
    pub fn write(&self, page: &mut Page) {
        let refused = REASONS.iter().zip(&self.refused);
        let refused = refused.map(|(reason, count)| (vec![("reason", *reason)], read(count)));
        page.family(
            "ingest_refused",
            Kind::Counter,
            "Submissions of devices that were refused, by the limit or rule.",
            refused,
        );
        for (name, kind, help, value) in [
            (
                "ingest_stored",
                Kind::Counter,
                "Submissions of devices that JetStream has stored.",
                &self.stored,
            ),
            (
                "ingest_stored_bytes",
                Kind::Counter,
                "Payload bytes of these.",
                &self.stored_bytes,
            ),
            (
                "ingest_duplicates",
                Kind::Counter,
                "Submissions that were stored before.",
                &self.duplicates,
            ),
            (
                "ingest_unacknowledged",
                Kind::Counter,
                "Submissions about which a stream said nothing in time.",
                &self.unacknowledged,
            ),
            (
                "ingest_in_flight",
                Kind::Gauge,
                "Submissions on their way to a stream.",
                &self.in_flight,
            ),
            (
                "fetch_answers",
                Kind::Counter,
                "Catch-up requests that were answered.",
                &self.answers,
            ),
            (
                "fetch_answers_failed",
                Kind::Counter,
                "Catch-up answers that broke off.",
                &self.answers_failed,
            ),
            (
                "beacons",
                Kind::Counter,
                "Beacons of devices that were heard.",
                &self.beacons,
            ),
            (
                "janitor_deleted_messages",
                Kind::Counter,
                "Messages deleted because every device of their room has them.",
                &self.deleted,
            ),
            (
                "repair_said_again",
                Kind::Counter,
                "Entries that devices have said again because somebody lacked them.",
                &self.said_again,
            ),
            (
                "repair_streams_rewound",
                Kind::Counter,
                "Times that a stream was found to have lost something.",
                &self.rewound,
            ),
            (
                "quota_rooms_counted",
                Kind::Counter,
                "Times that a room was counted for its quota.",
                &self.rooms_to_count,
            ),
        ] {
            page.single(name, kind, help, read(value));
        }
    }
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn reason(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::OrgFull(Measure::Messages) => "org_messages",
        Refusal::OrgFull(Measure::Bytes) => "org_bytes",
        Refusal::RoomFull(Measure::Messages) => "room_messages",
        Refusal::RoomFull(Measure::Bytes) => "room_bytes",
        Refusal::DeviceFull(Measure::Messages) => "device_messages",
        Refusal::DeviceFull(Measure::Bytes) => "device_bytes",
        Refusal::TooFast { .. } => "too_fast",
        Refusal::DiskFull => "disk_full",
        Refusal::Busy => "busy",
        Refusal::HeaderNotAllowed | Refusal::SubjectNotAllowed => "not_allowed",
        Refusal::TooLarge => "too_large",
        Refusal::NothingToCopy => "nothing_to_copy",
        Refusal::WrongLastSequence => "wrong_last_sequence",
        Refusal::Other { .. } => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_counted_under_its_reason() {
        let metrics = Metrics::default();
        metrics.refused(&Refusal::RoomFull(Measure::Bytes));
        metrics.refused(&Refusal::HeaderNotAllowed);
        metrics.refused(&Refusal::SubjectNotAllowed);
        let other = Refusal::Other {
            code: 1,
            description: String::new(),
        };
        metrics.refused(&other);
        let mut page = Page::default();
        metrics.write(&mut page);
        let text = page.end();
        for line in [
            "sotto_ingest_refused_total{reason=\"room_bytes\"} 1",
            "sotto_ingest_refused_total{reason=\"not_allowed\"} 2",
            "sotto_ingest_refused_total{reason=\"other\"} 1",
            "sotto_ingest_refused_total{reason=\"busy\"} 0",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
