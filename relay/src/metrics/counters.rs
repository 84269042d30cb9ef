//! What the relay counts of itself, over all orgs.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sotto_proto::refusals::{Measure, Refusal};

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ForReason {
    reason: &'static str,
}

/// Counters that every part of the relay adds to.
#[derive(Debug)]
pub struct Metrics {
    stored: Counter,
    stored_bytes: Counter,
    duplicates: Counter,
    refused: Family<ForReason, Counter>,
    unacknowledged: Counter,
    in_flight: Gauge,
    answers: Counter,
    answers_failed: Counter,
    beacons: Counter,
    deleted: Counter,
    said_again: Counter,
    rewound: Counter,
    rooms_counted: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let refused = Family::<ForReason, Counter>::default();
        // From the start: who watches how much comes of a reason sees the first.
        for reason in REASONS {
            drop(refused.get_or_create(&ForReason { reason }));
        }
        Self {
            refused,
            stored: Counter::default(),
            stored_bytes: Counter::default(),
            duplicates: Counter::default(),
            unacknowledged: Counter::default(),
            in_flight: Gauge::default(),
            answers: Counter::default(),
            answers_failed: Counter::default(),
            beacons: Counter::default(),
            deleted: Counter::default(),
            said_again: Counter::default(),
            rewound: Counter::default(),
            rooms_counted: Counter::default(),
        }
    }
}

impl Metrics {
    /// JetStream has stored a message of this length.
    pub fn stored(&self, bytes: u64, duplicate: bool) {
        if duplicate {
            self.duplicates.inc();
        } else {
            self.stored.inc();
            self.stored_bytes.inc_by(bytes);
        }
    }

    /// A submission was refused.
    pub fn refused(&self, refusal: &Refusal) {
        let reason = reason(refusal);
        self.refused.get_or_create(&ForReason { reason }).inc();
    }

    /// A stream said nothing about this many submissions.
    pub fn unacknowledged(&self, count: u64) {
        self.unacknowledged.inc_by(count);
    }

    /// One submission more is on its way to a stream.
    pub fn departed(&self) {
        self.in_flight.inc();
    }

    /// One submission less is on its way.
    pub fn arrived(&self) {
        self.in_flight.dec();
    }

    /// A catch-up request was answered, or the answer broke off.
    pub fn answered(&self, whole: bool) {
        let counter = match whole {
            true => &self.answers,
            false => &self.answers_failed,
        };
        counter.inc();
    }

    /// A device has said something of itself.
    pub fn beacon(&self) {
        self.beacons.inc();
    }

    /// The janitor has deleted this many messages.
    pub fn deleted(&self, messages: u64) {
        self.deleted.inc_by(messages);
    }

    /// Devices have said this many entries again that somebody lacked.
    pub fn said_again(&self, entries: u32) {
        self.said_again.inc_by(entries.into());
    }

    /// A stream has less than it had, or than devices have.
    pub fn rewound(&self) {
        self.rewound.inc();
    }

    /// A room is counted for its quota.
    pub fn room_counted(&self) {
        self.rooms_counted.inc();
    }

    /// Adds them all.
    pub fn register(&self, all: &mut Registry) {
        let help = "Submissions of devices that were refused, by the limit or rule";
        all.register("ingest_refused", help, self.refused.clone());
        let help = "Submissions on their way to a stream";
        all.register("ingest_in_flight", help, self.in_flight.clone());
        for (name, help, counter) in [
            (
                "ingest_stored",
                "Submissions of devices that JetStream has stored",
                &self.stored,
            ),
            (
                "ingest_stored_bytes",
                "Payload bytes of these",
                &self.stored_bytes,
            ),
            (
                "ingest_duplicates",
                "Submissions that were stored before",
                &self.duplicates,
            ),
            (
                "ingest_unacknowledged",
                "Submissions about which a stream said nothing in time",
                &self.unacknowledged,
            ),
            (
                "fetch_answers",
                "Catch-up requests that were answered",
                &self.answers,
            ),
            (
                "fetch_answers_failed",
                "Catch-up answers that broke off",
                &self.answers_failed,
            ),
            (
                "beacons",
                "Beacons of devices that were heard",
                &self.beacons,
            ),
            (
                "janitor_deleted_messages",
                "Messages deleted because every device of their room has them",
                &self.deleted,
            ),
            (
                "repair_said_again",
                "Entries that devices have said again because somebody lacked them",
                &self.said_again,
            ),
            (
                "repair_streams_rewound",
                "Times that a stream was found to have lost something",
                &self.rewound,
            ),
            (
                "quota_rooms_counted",
                "Times that a room was counted for its quota",
                &self.rooms_counted,
            ),
        ] {
            all.register(name, help, counter.clone());
        }
    }
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
    use prometheus_client::encoding::text::encode;

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
        let mut all = Registry::with_prefix("sotto");
        metrics.register(&mut all);
        let mut text = String::new();
        encode(&mut text, &all).unwrap();
        for line in [
            "sotto_ingest_refused_total{reason=\"room_bytes\"} 1",
            "sotto_ingest_refused_total{reason=\"not_allowed\"} 2",
            "sotto_ingest_refused_total{reason=\"other\"} 1",
            "sotto_ingest_refused_total{reason=\"busy\"} 0",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let series = text.matches("sotto_ingest_refused_total{").count();
        assert_eq!(series, REASONS.len());
    }
}
