//! A submission as it came, and what of it a stream may see.

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use sotto_proto::refusals::Refusal;
use sotto_proto::{DeviceId, Subject, Submission, limits};

use crate::fetch::is_own_reply;

/// Under what a stream stores a message once.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";
/// The compare-and-set of handshakes; of chunks the relay sets it.
pub const EXPECTED: &str = "Nats-Expected-Last-Subject-Sequence";
/// The longest message id, in bytes.
const MESSAGE_ID_MAX: usize = 64;

/// A submission that can be answered.
#[derive(Debug)]
pub struct Addressed {
    /// Who asks.
    pub device: DeviceId,
    /// Where the answer goes.
    pub reply: String,
    message: Message,
}

/// A message for a stream.
#[derive(Debug)]
pub struct Checked {
    /// Where it is to be stored.
    pub subject: Subject,
    /// Its message id and what it expects, when it has them.
    pub headers: HeaderMap,
    /// As the device sent it.
    pub payload: Bytes,
}

impl Addressed {
    /// `None` when the answer could reach somebody else, or nobody: then there
    /// is none, and nothing is stored.
    pub fn of(message: Message) -> Option<Self> {
        let device = Submission::device_of(&message.subject)?;
        let reply = message.reply.as_ref()?.to_string();
        is_own_reply(device, &reply).then_some(Self {
            device,
            reply,
            message,
        })
    }

    /// What of it a stream may see.
    ///
    /// # Errors
    /// What is wrong with it, as the device is told.
    pub fn check(self) -> Result<Checked, Refusal> {
        let submission: Submission = self
            .message
            .subject
            .parse()
            .map_err(|_| Refusal::SubjectNotAllowed)?;
        if self.message.payload.len() > limits::PAYLOAD {
            return Err(Refusal::TooLarge);
        }
        if self.message.status.is_some() {
            return Err(Refusal::HeaderNotAllowed);
        }
        let subject = submission.subject;
        let headers = match self.message.headers {
            Some(headers) => passed(&headers, &subject).ok_or(Refusal::HeaderNotAllowed)?,
            None => HeaderMap::new(),
        };
        Ok(Checked {
            subject,
            headers,
            payload: self.message.payload,
        })
    }
}

/// The headers of a message to `subject` that a stream may see; `None` when
/// there are others, one comes twice, or one does not read.
fn passed(headers: &HeaderMap, subject: &Subject) -> Option<HeaderMap> {
    let mut passed = HeaderMap::new();
    for (name, values) in headers.iter() {
        let name: &str = name.as_ref();
        let [value] = values.as_slice() else {
            return None;
        };
        let value = value.as_str();
        let fits = match name {
            MESSAGE_ID => {
                (1..=MESSAGE_ID_MAX).contains(&value.len())
                    && value.bytes().all(|c| c.is_ascii_graphic())
            }
            EXPECTED => {
                matches!(subject, Subject::Handshakes(_))
                    && value.bytes().all(|c| c.is_ascii_digit())
                    && value.parse::<u64>().is_ok()
            }
            _ => false,
        };
        if !fits {
            return None;
        }
        passed.insert(name, value);
    }
    Some(passed)
}

#[cfg(test)]
mod tests {
    use async_nats::StatusCode;
    use proptest::prelude::*;
    use sotto_proto::{RoomAddress, RoomId, Shard, reply_prefix};

    use super::*;

    fn device(number: u8) -> DeviceId {
        DeviceId::try_from(&[number; 16][..]).unwrap()
    }

    fn room() -> RoomAddress {
        RoomAddress {
            shard: Shard(0),
            project: "field".parse().unwrap(),
            room: RoomId::try_from(&[3; 16][..]).unwrap(),
        }
    }

    fn message(subject: &Subject, headers: &[(&str, &str)]) -> Message {
        let submission = Submission {
            device: device(1),
            subject: subject.clone(),
        };
        let mut map = HeaderMap::new();
        for &(name, value) in headers {
            map.append(name, value);
        }
        Message {
            subject: submission.to_string().into(),
            reply: Some(format!("{}.7", reply_prefix(device(1))).into()),
            payload: Bytes::from_static(b"sealed"),
            headers: Some(map),
            status: None,
            description: None,
            length: 0,
        }
    }

    fn checked(message: Message) -> Result<Checked, Refusal> {
        Addressed::of(message).unwrap().check()
    }

    #[test]
    fn what_clients_send_passes() {
        let id = (MESSAGE_ID, "6f2c.0");
        for subject in [room().messages(), Subject::Inbox(device(2))] {
            let checked = checked(message(&subject, &[id])).unwrap();
            assert_eq!(checked.subject, subject);
            assert_eq!(checked.headers.get(MESSAGE_ID).unwrap().as_str(), "6f2c.0");
            assert_eq!(checked.headers.len(), 1);
        }
        let handshakes = room().handshakes();
        let checked = checked(message(&handshakes, &[id, (EXPECTED, "0")])).unwrap();
        assert_eq!(checked.headers.get(EXPECTED).unwrap().as_str(), "0");
    }

    #[test]
    fn no_other_header_passes() {
        let long = "x".repeat(MESSAGE_ID_MAX + 1);
        for headers in [
            &[("Nats-Expected-Last-Msg-Id", "other")][..],
            &[("Nats-Expected-Last-Sequence", "1")],
            &[("Nats-Expected-Stream", "MAIL-0")],
            &[("Nats-Rollup", "all")],
            &[("Nats-TTL", "1s")],
            &[("Nats-Batch-Id", "b")],
            &[("Nats-Schedule", "@every 1s")],
            &[("Nats-Incr", "1")],
            &[("Nats-Trace-Dest", "inbox.x")],
            &[("nats-msg-id", "lower")],
            &[(MESSAGE_ID, "a b")],
            &[(MESSAGE_ID, "")],
            &[(MESSAGE_ID, &long)],
            &[(MESSAGE_ID, "a"), (MESSAGE_ID, "b")],
            &[(EXPECTED, "+1")],
            &[(EXPECTED, "")],
            &[(EXPECTED, "99999999999999999999")],
        ] {
            let refused = checked(message(&room().handshakes(), headers));
            assert_eq!(
                refused.unwrap_err(),
                Refusal::HeaderNotAllowed,
                "{headers:?}"
            );
        }
        // Compare-and-set is for handshakes only.
        let refused = checked(message(&room().messages(), &[(EXPECTED, "1")]));
        assert_eq!(refused.unwrap_err(), Refusal::HeaderNotAllowed);
        let mut status = message(&room().messages(), &[]);
        status.status = StatusCode::from_u16(503).ok();
        assert_eq!(checked(status).unwrap_err(), Refusal::HeaderNotAllowed);
    }

    #[test]
    fn what_is_no_place_of_a_stream_is_refused() {
        let prefix = format!("in.{}", device(1));
        for rest in [
            format!("r.{}.presence", room()),
            format!("r.{}.msg.more", room()),
            format!("r.{}.*", room()),
            "inbox.*".to_owned(),
            "inbox.>".to_owned(),
            format!("fetch.{}", device(1)),
            "directory".to_owned(),
            "$JS.API.STREAM.PURGE.MAIL-0".to_owned(),
        ] {
            let mut message = message(&room().messages(), &[]);
            message.subject = format!("{prefix}.{rest}").into();
            let refused = checked(message);
            assert_eq!(refused.unwrap_err(), Refusal::SubjectNotAllowed, "{rest}");
        }
        let mut long = message(&room().messages(), &[]);
        long.payload = vec![0; limits::PAYLOAD + 1].into();
        assert_eq!(checked(long).unwrap_err(), Refusal::TooLarge);
    }

    #[test]
    fn who_cannot_be_answered_alone_is_not_answered() {
        let to = |reply: Option<String>| {
            let mut message = message(&room().messages(), &[]);
            message.reply = reply.map(Into::into);
            Addressed::of(message)
        };
        assert!(to(None).is_none());
        for other in [
            format!("{}.x", reply_prefix(device(2))),
            room().messages().to_string(),
            room().messages().live(),
            "directory".to_owned(),
        ] {
            assert!(to(Some(other)).is_none());
        }
    }

    proptest! {
        #[test]
        fn nothing_that_comes_panics(subject: String, name: String, value: String) {
            let mut message = message(&room().messages(), &[]);
            message.subject = subject.into();
            let _ = Addressed::of(message);
            if let (Ok(name), Ok(value)) = (
                name.parse::<async_nats::HeaderName>(),
                value.parse::<async_nats::HeaderValue>(),
            ) {
                let mut headers = HeaderMap::new();
                headers.insert(name, value);
                let _ = passed(&headers, &room().handshakes());
            }
        }
    }
}
