//! Reads what a NATS server says: acknowledgements, violations, republished
//! messages. Nothing of it is trusted to be well formed.

use async_nats::Message;
use prost::Message as _;
use sotto_client_core::io::{LiveMessage, PublishFailure, Timestamp};
use sotto_proto::refusals::{PublishAnswer, Refusal};
use sotto_proto::{DeviceId, RoomId, Subject, wire};

/// Reads the answer to a publish.
pub(super) fn acknowledgement(message: &Message) -> Result<u64, PublishFailure> {
    // No stream listens: the payload is empty and does not decode.
    match PublishAnswer::from_json(&message.payload) {
        Some(PublishAnswer::Stored { sequence, .. }) => Ok(sequence),
        Some(PublishAnswer::Refused(Refusal::WrongLastSequence)) => Err(PublishFailure::Conflict),
        Some(PublishAnswer::Refused(refusal)) => Err(PublishFailure::Refused(refusal)),
        None => Err(PublishFailure::Lost),
    }
}

/// What came on a subscription to rooms and the inbox.
#[derive(Debug)]
pub(super) enum Live {
    /// A stored message.
    Stored(LiveMessage),
    /// Who is there.
    Presence(Presence),
}

impl Live {
    /// For the log.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Stored(message) => match message.subject {
                Subject::Messages(_) => "a message",
                Subject::Handshakes(_) => "a handshake",
                _ => "the inbox",
            },
            Self::Presence(_) => "presence",
        }
    }
}

/// A relay's word that a device is there, or is not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// In which room.
    pub room: RoomId,
    /// Who.
    pub device: DeviceId,
    /// Whether it is there.
    pub here: bool,
}

/// Reads what came on a subscription; `None` when it is nothing of ours.
pub(super) fn live(message: Message) -> Option<Live> {
    match Subject::from_live(&message.subject).ok()? {
        Subject::Presence(address) => {
            let presence = wire::Presence::decode(message.payload).ok()?;
            Some(Live::Presence(Presence {
                room: address.room,
                device: DeviceId::try_from(&presence.device).ok()?,
                here: presence.here,
            }))
        }
        subject => live_message(subject, message).map(Live::Stored),
    }
}

/// The subject of `Permissions Violation for Publish to "<subject>"`.
pub(super) fn denied_publish(error: &str) -> Option<&str> {
    let rest = error.strip_prefix("Permissions Violation for Publish to \"")?;
    rest.split_once('"').map(|(subject, _)| subject)
}

/// Reads a message that a stream republished; `None` when it is none. The
/// server appends its headers after the sender's, so only the last of a name
/// is to be believed.
fn live_message(subject: Subject, message: Message) -> Option<LiveMessage> {
    let headers = message.headers.as_ref()?;
    let header = |name: &str| headers.get_last(name).map(|value| value.as_str());
    let stored_at: jiff::Timestamp = header("Nats-Time-Stamp")?.parse().ok()?;
    Some(LiveMessage {
        subject,
        sequence: header("Nats-Sequence")?.parse().ok()?,
        last_sequence: header("Nats-Last-Sequence")?.parse().ok()?,
        stored_at: Timestamp(stored_at.as_millisecond()),
        payload: message.payload,
    })
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use proptest::prelude::*;

    use super::*;

    fn message(subject: &str, payload: &[u8], headers: &[(&str, &str)]) -> Message {
        let mut map = HeaderMap::new();
        for &(name, value) in headers {
            map.append(name, value);
        }
        Message {
            subject: subject.into(),
            reply: None,
            payload: payload.to_vec().into(),
            headers: Some(map),
            status: None,
            description: None,
            length: 0,
        }
    }

    fn answer(payload: &str) -> Result<u64, PublishFailure> {
        acknowledgement(&message("_INBOX.x", payload.as_bytes(), &[]))
    }

    #[test]
    fn acknowledgements_are_told_apart() {
        assert_eq!(answer(r#"{"stream":"MAIL-0","seq":7}"#), Ok(7));
        let duplicate = r#"{"stream":"MAIL-0","seq":7,"duplicate":true}"#;
        assert_eq!(answer(duplicate), Ok(7));
        let error = |code: u64| {
            answer(&format!(
                r#"{{"error":{{"code":400,"err_code":{code},"description":"d"}},"stream":"S","seq":0}}"#
            ))
        };
        assert_eq!(error(10_071), Err(PublishFailure::Conflict));
        let full = PublishFailure::Refused(Refusal::DiskFull);
        assert_eq!(error(10_047), Err(full.clone()));
        assert_eq!(error(10_077), Err(full));
        let busy = PublishFailure::Refused(Refusal::Busy);
        assert_eq!(error(10_008), Err(busy));
        assert_eq!(answer(""), Err(PublishFailure::Lost));
        assert_eq!(answer("garbage"), Err(PublishFailure::Lost));
    }

    fn stored(message: Message) -> Option<LiveMessage> {
        match live(message)? {
            Live::Stored(message) => Some(message),
            Live::Presence(_) => None,
        }
    }

    #[test]
    fn presence_is_read() {
        let id = "aaaaaaaaaaaaaaaaaaaaaaaaaa";
        let word = wire::Presence {
            device: vec![1; 16].into(),
            here: true,
            at_ms: 7,
        };
        let subject = format!("live.r.0.field.{id}.presence");
        let read = live(message(&subject, &word.encode_to_vec(), &[]));
        let Some(Live::Presence(presence)) = read else {
            panic!("{read:?}");
        };
        assert_eq!(presence.device, DeviceId::try_from(&[1; 16][..]).unwrap());
        assert_eq!(presence.room, id.parse().unwrap());
        assert!(presence.here);
        assert!(live(message(&subject, b"garbage", &[])).is_none());
    }

    #[test]
    fn a_denied_publish_names_its_subject() {
        let text = "Permissions Violation for Publish to \"r.0.field.x.msg\"";
        assert_eq!(denied_publish(text), Some("r.0.field.x.msg"));
        assert_eq!(
            denied_publish("Permissions Violation for Publish to \"r"),
            None
        );
        assert_eq!(
            denied_publish("Permissions Violation for Subscription to \"r\""),
            None
        );
    }

    #[test]
    fn a_republished_message_is_read() {
        let subject = "live.inbox.aaaaaaaaaaaaaaaaaaaaaaaaaa";
        let headers = [
            ("Nats-Sequence", "12"),
            ("Nats-Last-Sequence", "9"),
            ("Nats-Time-Stamp", "1970-01-01T00:00:01.5Z"),
        ];
        let read = stored(message(subject, b"payload", &headers)).unwrap();
        assert_eq!(read.subject.live(), subject);
        assert_eq!((read.sequence, read.last_sequence), (12, 9));
        assert_eq!(read.stored_at, Timestamp(1_500));
        for missing in 0..headers.len() {
            let mut headers = headers.to_vec();
            headers.remove(missing);
            assert!(stored(message(subject, b"", &headers)).is_none());
        }
        assert!(stored(message("inbox.x", b"", &headers)).is_none());
    }

    #[test]
    fn a_sender_cannot_say_where_a_message_is_stored() {
        let headers = [
            ("Nats-Sequence", "900"),
            ("Nats-Last-Sequence", "800"),
            ("Nats-Time-Stamp", "2100-01-01T00:00:00Z"),
            ("Nats-Sequence", "12"),
            ("Nats-Last-Sequence", "9"),
            ("Nats-Time-Stamp", "1970-01-01T00:00:01.5Z"),
        ];
        let subject = "live.inbox.aaaaaaaaaaaaaaaaaaaaaaaaaa";
        let read = stored(message(subject, b"", &headers)).unwrap();
        assert_eq!((read.sequence, read.last_sequence), (12, 9));
        assert_eq!(read.stored_at, Timestamp(1_500));
    }

    proptest! {
        #[test]
        fn nothing_that_a_server_says_panics(
            text: String,
            number in "[0-9-]{0,30}",
            payload: Vec<u8>,
        ) {
            let _ = denied_publish(&text);
            let _ = acknowledgement(&message("a", &payload, &[]));
            let headers = [
                ("Nats-Sequence", number.as_str()),
                ("Nats-Last-Sequence", "1"),
                ("Nats-Time-Stamp", number.as_str()),
            ];
            let _ = live(message("live.inbox.x", &payload, &headers));
            let presence = "live.r.0.field.aaaaaaaaaaaaaaaaaaaaaaaaaa.presence";
            let _ = live(message(presence, &payload, &headers));
        }
    }
}
