//! What a device that publishes is answered: JetStream's acknowledgement, or
//! why the relay or JetStream did not take the message in.
//!
//! Both come as the JSON of a JetStream PubAck (NATS ADR-1), so that any NATS
//! client can read them. Codes from [`OURS`] on are the relay's; JetStream's
//! own lie between 10,000 and 11,000. A code that this version does not know
//! stays readable as [`Refusal::Other`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The first `err_code` that is not JetStream's.
pub const OURS: u64 = 21_000;

/// The longest answer that is looked at, in bytes.
const ANSWER_MAX: usize = 4_096;
/// What is kept of a description, in characters.
const DESCRIPTION_MAX: usize = 200;
/// The longest wait that a device lets itself be told.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// The answer to a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishAnswer {
    /// It is durable.
    Stored {
        /// Where in its stream.
        sequence: u64,
        /// Whether the same message was there before.
        duplicate: bool,
    },
    /// It is not stored.
    Refused(Refusal),
}

/// What there may be only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Stored messages.
    Messages,
    /// Their bytes, headers included.
    Bytes,
}

/// Why a message was not stored. The text is for the person who sent it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// The org's quota is used up.
    #[error(
        "your organisation keeps as many {} as it may: what waits is sent once older ones are gone, \
         or an administrator raises the quota",
        .0.name()
    )]
    OrgFull(Measure),
    /// The room's quota is used up.
    #[error(
        "this room keeps as many {} as it may: what waits is sent once older ones are gone, \
         or an administrator raises the quota",
        .0.name()
    )]
    RoomFull(Measure),
    /// What one device may send in a day is used up.
    #[error(
        "this device has sent as many {} as it may in a day: what waits is sent little by little, \
         or at once when an administrator raises the quota",
        .0.name()
    )]
    DeviceFull(Measure),
    /// The device publishes faster than it may.
    #[error("this device sends faster than the server allows: what waits is sent a little later")]
    TooFast {
        /// When the same message would be taken in. At most an hour.
        retry_after: Duration,
    },
    /// The server's disk is full, or its streams may not grow.
    #[error(
        "the server's disk is full: what waits is sent once there is space, tell your administrator"
    )]
    DiskFull,
    /// The server has more at hand than it can store at the moment, or a stream
    /// does not say whether it has stored the message: the same message id
    /// sent again is stored once.
    #[error("the server is busy: what waits is sent a little later")]
    Busy,
    /// A header that devices may not send, or one whose value does not read.
    #[error("the server takes no message with this header: update this client")]
    HeaderNotAllowed,
    /// A subject that is none of a room, an inbox or a file.
    #[error("the server takes no message on this subject: update this client")]
    SubjectNotAllowed,
    /// Longer than `limits::PAYLOAD`.
    #[error("the message is too large for the server: send it as a file")]
    TooLarge,
    /// What is to be copied is not there any more, or this device may not read
    /// it: the two are not told apart.
    #[error("the server does not have this file any more: send it again")]
    NothingToCopy,
    /// `Nats-Expected-Last-Subject-Sequence` names a message that is not the
    /// last one: somebody else was first.
    #[error("somebody else was first: read what is new, then try again")]
    WrongLastSequence,
    /// Something else.
    #[error("the server did not store the message (error {code}: {description})")]
    Other {
        /// The `err_code`.
        code: u64,
        /// What the server says, shortened, without control characters.
        description: String,
    },
}

impl Measure {
    fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Bytes => "bytes",
        }
    }
}

impl Refusal {
    /// Whether the same message is refused however often it comes.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::HeaderNotAllowed
                | Self::SubjectNotAllowed
                | Self::TooLarge
                | Self::NothingToCopy
                | Self::WrongLastSequence
        )
    }

    /// The `err_code`.
    pub fn code(&self) -> u64 {
        match self {
            Self::OrgFull(Measure::Messages) => OURS + 1,
            Self::OrgFull(Measure::Bytes) => OURS + 2,
            Self::RoomFull(Measure::Messages) => OURS + 3,
            Self::RoomFull(Measure::Bytes) => OURS + 4,
            Self::DeviceFull(Measure::Messages) => OURS + 5,
            Self::DeviceFull(Measure::Bytes) => OURS + 6,
            Self::TooFast { .. } => OURS + 10,
            Self::DiskFull => OURS + 11,
            Self::Busy => OURS + 12,
            Self::HeaderNotAllowed => OURS + 20,
            Self::SubjectNotAllowed => OURS + 21,
            Self::TooLarge => OURS + 22,
            Self::NothingToCopy => OURS + 23,
            Self::WrongLastSequence => WRONG_LAST_SEQUENCE,
            Self::Other { code, .. } => *code,
        }
    }

    /// The status of HTTP that says about the same, as JetStream's errors have.
    fn status(&self) -> u64 {
        match self {
            Self::TooFast { .. } => 429,
            Self::TooLarge => 413,
            Self::NothingToCopy => 404,
            Self::HeaderNotAllowed | Self::SubjectNotAllowed | Self::WrongLastSequence => 400,
            Self::Busy | Self::Other { .. } => 503,
            Self::OrgFull(_) | Self::RoomFull(_) | Self::DeviceFull(_) | Self::DiskFull => 507,
        }
    }

    /// What a code means. `retry_after` is only looked at for
    /// [`Refusal::TooFast`].
    fn of_code(code: u64, retry_after: Duration, description: &str) -> Self {
        match code {
            WRONG_LAST_SEQUENCE | WRONG_LAST_SEQUENCE_CONSTANT => Self::WrongLastSequence,
            ACCOUNT_RESOURCES_EXCEEDED
            | INSUFFICIENT_RESOURCES
            | STORAGE_RESOURCES_EXCEEDED
            | STREAM_STORE_FAILED => Self::DiskFull,
            MESSAGE_EXCEEDS_MAXIMUM => Self::TooLarge,
            CLUSTER_NOT_AVAILABLE | STREAM_OFFLINE | DUPLICATE_IN_PROCESS | TOO_MANY_REQUESTS => {
                Self::Busy
            }
            _ => match code.checked_sub(OURS) {
                Some(1) => Self::OrgFull(Measure::Messages),
                Some(2) => Self::OrgFull(Measure::Bytes),
                Some(3) => Self::RoomFull(Measure::Messages),
                Some(4) => Self::RoomFull(Measure::Bytes),
                Some(5) => Self::DeviceFull(Measure::Messages),
                Some(6) => Self::DeviceFull(Measure::Bytes),
                Some(10) => Self::TooFast {
                    retry_after: retry_after.min(RETRY_AFTER_MAX),
                },
                Some(11) => Self::DiskFull,
                Some(12) => Self::Busy,
                Some(20) => Self::HeaderNotAllowed,
                Some(21) => Self::SubjectNotAllowed,
                Some(22) => Self::TooLarge,
                Some(23) => Self::NothingToCopy,
                _ => Self::Other {
                    code,
                    description: readable(description),
                },
            },
        }
    }
}

/// Codes of JetStream (nats-server, `server/errors.json`).
const ACCOUNT_RESOURCES_EXCEEDED: u64 = 10_002;
const CLUSTER_NOT_AVAILABLE: u64 = 10_008;
const INSUFFICIENT_RESOURCES: u64 = 10_023;
const STORAGE_RESOURCES_EXCEEDED: u64 = 10_047;
const MESSAGE_EXCEEDS_MAXIMUM: u64 = 10_054;
const WRONG_LAST_SEQUENCE: u64 = 10_071;
const STREAM_STORE_FAILED: u64 = 10_077;
const STREAM_OFFLINE: u64 = 10_118;
/// The same message id came before, and a majority has not said yet whether
/// it is stored.
const DUPLICATE_IN_PROCESS: u64 = 10_158;
const WRONG_LAST_SEQUENCE_CONSTANT: u64 = 10_164;
const TOO_MANY_REQUESTS: u64 = 10_167;

/// The JSON of a PubAck, as far as anything of it counts.
#[derive(Serialize, Deserialize)]
struct PubAck<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Error<'a>>,
    #[serde(default)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(default)]
    seq: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

#[derive(Serialize, Deserialize)]
struct Error<'a> {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl PublishAnswer {
    /// Reads an answer; `None` when it is none, for example because nobody
    /// listens.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let json = json.get(..ANSWER_MAX).unwrap_or(json);
        let answer: PubAck<'_> = serde_json::from_slice(json).ok()?;
        match answer.error {
            Some(error) => {
                let retry_after = Duration::from_millis(error.retry_after_ms.unwrap_or_default());
                let refusal = Refusal::of_code(error.err_code, retry_after, &error.description);
                Some(Self::Refused(refusal))
            }
            None => (answer.seq > 0).then_some(Self::Stored {
                sequence: answer.seq,
                duplicate: answer.duplicate,
            }),
        }
    }

    /// Where the last message of the subject is, when JetStream has refused one
    /// more because another one was expected there. Not always said.
    pub fn last_sequence(json: &[u8]) -> Option<u64> {
        let json = json.get(..ANSWER_MAX).unwrap_or(json);
        let error = serde_json::from_slice::<PubAck<'_>>(json).ok()?.error?;
        let said = (error.err_code == WRONG_LAST_SEQUENCE).then_some(error.description)?;
        let (_, last) = said.rsplit_once(": ")?;
        last.parse().ok().filter(|last| *last > 0)
    }

    /// The answer as JetStream would give it for `stream`.
    pub fn to_json(&self, stream: &str) -> Vec<u8> {
        let answer = match self {
            Self::Stored {
                sequence,
                duplicate,
            } => PubAck {
                error: None,
                stream: stream.into(),
                seq: *sequence,
                duplicate: *duplicate,
            },
            Self::Refused(refusal) => PubAck {
                error: Some(Error {
                    code: refusal.status(),
                    err_code: refusal.code(),
                    description: refusal.to_string().into(),
                    retry_after_ms: match refusal {
                        Refusal::TooFast { retry_after } => {
                            Some(u64::try_from(retry_after.as_millis()).unwrap_or(u64::MAX))
                        }
                        _ => None,
                    },
                }),
                stream: stream.into(),
                seq: 0,
                duplicate: false,
            },
        };
        // Strings and numbers always encode.
        serde_json::to_vec(&answer).unwrap_or_default()
    }
}

/// A server's text as it may be shown to a person.
fn readable(text: &str) -> String {
    let kept = text.chars().filter(|c| !c.is_control());
    kept.take(DESCRIPTION_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_refusal() -> impl Strategy<Value = Refusal> {
        let measure = prop_oneof![Just(Measure::Messages), Just(Measure::Bytes)];
        prop_oneof![
            measure.clone().prop_map(Refusal::OrgFull),
            measure.clone().prop_map(Refusal::RoomFull),
            measure.prop_map(Refusal::DeviceFull),
            (0..3_600_000u64).prop_map(|ms| Refusal::TooFast {
                retry_after: Duration::from_millis(ms),
            }),
            Just(Refusal::DiskFull),
            Just(Refusal::Busy),
            Just(Refusal::HeaderNotAllowed),
            Just(Refusal::SubjectNotAllowed),
            Just(Refusal::TooLarge),
            Just(Refusal::NothingToCopy),
            Just(Refusal::WrongLastSequence),
        ]
    }

    proptest! {
        #[test]
        fn refusals_survive_json(refusal in any_refusal()) {
            let answer = PublishAnswer::Refused(refusal);
            prop_assert_eq!(PublishAnswer::from_json(&answer.to_json("MAIL-0")), Some(answer));
        }

        #[test]
        fn acknowledgements_survive_json(sequence in 1u64.., duplicate: bool) {
            let answer = PublishAnswer::Stored { sequence, duplicate };
            prop_assert_eq!(PublishAnswer::from_json(&answer.to_json("MAIL-0")), Some(answer));
        }

        #[test]
        fn no_answer_panics(bytes: Vec<u8>, code: u64, text: String) {
            let _ = PublishAnswer::from_json(&bytes);
            let refusal = Refusal::of_code(code, Duration::MAX, &text);
            prop_assert!(refusal.to_string().len() < 1_000);
        }
    }

    #[test]
    fn where_the_last_one_is_stands_in_the_answer() {
        let last = |code: u64, text: &str| {
            let json = format!(
                r#"{{"error":{{"code":400,"err_code":{code},"description":"{text}"}},"seq":0}}"#
            );
            PublishAnswer::last_sequence(json.as_bytes())
        };
        assert_eq!(last(10_071, "wrong last sequence: 7"), Some(7));
        assert_eq!(last(10_071, "wrong last sequence: 0"), None);
        assert_eq!(last(10_164, "wrong last sequence"), None);
        assert_eq!(last(10_077, "store failed: 7"), None);
        assert_eq!(PublishAnswer::last_sequence(b"{}"), None);
    }

    #[test]
    fn what_jetstream_says_is_read() {
        let read = |json: &str| PublishAnswer::from_json(json.as_bytes());
        let stored = |duplicate| PublishAnswer::Stored {
            sequence: 7,
            duplicate,
        };
        assert_eq!(read(r#"{"stream":"MAIL-0","seq":7}"#), Some(stored(false)));
        let domain = r#"{"stream":"MAIL-0","domain":"d","seq":7,"duplicate":true}"#;
        assert_eq!(read(domain), Some(stored(true)));
        let error = |code: u64| {
            let description = "a\\nb";
            let error =
                format!(r#"{{"code":400,"err_code":{code},"description":"{description}"}}"#);
            match read(&format!(r#"{{"error":{error},"stream":"S","seq":0}}"#)) {
                Some(PublishAnswer::Refused(refusal)) => refusal,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(error(10_071), Refusal::WrongLastSequence);
        assert_eq!(error(10_077), Refusal::DiskFull);
        assert_eq!(error(10_158), Refusal::Busy);
        let unknown = Refusal::Other {
            code: 29_999,
            description: "ab".to_owned(),
        };
        assert_eq!(error(29_999), unknown);
        for nothing in ["", "garbage", "{}", r#"{"stream":"S","seq":0}"#] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_wait_is_bounded() {
        let json = format!(
            r#"{{"error":{{"err_code":{},"retry_after_ms":{}}}}}"#,
            OURS + 10,
            u64::MAX
        );
        let answer = PublishAnswer::from_json(json.as_bytes());
        let retry_after = RETRY_AFTER_MAX;
        let expected = Refusal::TooFast { retry_after };
        assert_eq!(answer, Some(PublishAnswer::Refused(expected)));
    }
}
