//! Batched Direct Get on one literal subject: as fast anywhere in a stream,
//! where a wildcard would be searched for from the first message.

use std::time::Duration;

use async_nats::header::{NATS_LAST_SEQUENCE, NATS_SEQUENCE, NATS_SUBJECT, NATS_TIME_STAMP};
use async_nats::jetstream;
use async_nats::{Client, HeaderMap, HeaderName, HeaderValue, Message, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use jiff::Timestamp;
use serde::Serialize;
use sotto_proto::Subject;

use super::merge::{Page, Stored};

/// How long nats-server may take from one message to the next.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Messages of one page at most.
const PAGE_MESSAGES: usize = 512;
/// After so many bytes a page ends; one message goes beyond.
const PAGE_BYTES: usize = 128 * 1024;
/// How many messages the subject still has after this one, or after the batch.
const NUM_PENDING: &str = "Nats-Num-Pending";

/// The status that ends a batch.
const END_OF_BATCH: u16 = 204;

/// Why a stream was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no, or no complete, answer.
    #[error("nats-server does not answer a read of {0}")]
    Unanswered(String),
    /// Something is missing from the answer, or it is not an answer.
    #[error("nats-server's answer to a read of {0} is incomplete: {1}")]
    Incomplete(String, &'static str),
    /// The server said no.
    #[error("nats-server refuses a read of {stream}: {status} {description}")]
    Refused {
        /// Of which stream.
        stream: String,
        /// Its code.
        status: StatusCode,
        /// Its reason.
        description: String,
    },
}

sotto_log::log_safe!(ReadError);

/// Reads the streams of one org.
#[derive(Debug, Clone)]
pub struct Reader {
    client: Client,
    jetstream: jetstream::Context,
}

#[derive(Serialize)]
struct NextBySubject<'a> {
    seq: u64,
    next_by_subj: &'a str,
    batch: usize,
    max_bytes: usize,
}

#[derive(Serialize)]
struct LastBySubject<'a> {
    last_by_subj: &'a str,
}

impl Reader {
    /// Reads with this connection's grants.
    pub fn new(client: Client) -> Self {
        Self {
            jetstream: jetstream::new(client.clone()),
            client,
        }
    }

    /// What streams are asked about themselves through.
    pub(super) fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// The last sequence that a stream has given out.
    ///
    /// # Errors
    /// [`ReadError::Unanswered`].
    pub async fn last_sequence(&self, stream: &str) -> Result<u64, ReadError> {
        let info = self.jetstream.get_stream(stream).await;
        let info = info.map_err(|_| ReadError::Unanswered(stream.to_owned()))?;
        Ok(info.cached_info().state.last_sequence)
    }

    /// The next messages of a subject after a sequence.
    ///
    /// # Errors
    /// [`ReadError`]; never less than was read without saying so.
    pub async fn page(
        &self,
        stream: &str,
        subject: &Subject,
        after: u64,
    ) -> Result<Page, ReadError> {
        let subject = subject.to_string();
        let request = NextBySubject {
            seq: after.saturating_add(1),
            next_by_subj: &subject,
            batch: PAGE_MESSAGES,
            max_bytes: PAGE_BYTES,
        };
        let mut answers = self.ask(stream, &request).await?;
        let mut batch = Batch::new(stream, &subject);
        loop {
            let answer = tokio::time::timeout(TIMEOUT, answers.next()).await;
            let answer = answer.ok().flatten();
            let answer = answer.ok_or_else(|| ReadError::Unanswered(stream.to_owned()))?;
            if let Some(page) = batch.take(answer)? {
                // When this fails the connection is gone, and the subscription with it.
                let _ = answers.unsubscribe().await;
                return Ok(page);
            }
        }
    }

    /// The last message of a subject.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn last(&self, stream: &str, subject: &Subject) -> Result<Option<Stored>, ReadError> {
        let subject = subject.to_string();
        let request = LastBySubject {
            last_by_subj: &subject,
        };
        let request = self
            .client
            .request(direct_get(stream), encode(stream, &request)?);
        let answer = tokio::time::timeout(TIMEOUT, request).await;
        let answer = answer
            .ok()
            .and_then(Result::ok)
            .ok_or_else(|| ReadError::Unanswered(stream.to_owned()))?;
        match own_status(&answer) {
            None => stored(stream, &subject, answer).map(|(stored, _)| Some(stored)),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => Err(refused(stream, status, answer.description)),
        }
    }

    async fn ask(
        &self,
        stream: &str,
        request: &impl Serialize,
    ) -> Result<async_nats::Subscriber, ReadError> {
        let unanswered = || ReadError::Unanswered(stream.to_owned());
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(inbox.clone()).await;
        let answers = answers.map_err(|_| unanswered())?;
        self.client
            .publish_with_reply(direct_get(stream), inbox, encode(stream, request)?)
            .await
            .map_err(|_| unanswered())?;
        Ok(answers)
    }
}

/// The answers to one batch while they come. Each names the one before, so
/// that one that was dropped on the way shows.
struct Batch<'a> {
    stream: &'a str,
    subject: &'a str,
    messages: Vec<Stored>,
    last_sequence: u64,
}

impl<'a> Batch<'a> {
    fn new(stream: &'a str, subject: &'a str) -> Self {
        Self {
            stream,
            subject,
            messages: Vec::new(),
            last_sequence: 0,
        }
    }

    /// Takes in one answer; the page when it was the last.
    fn take(&mut self, answer: Message) -> Result<Option<Page>, ReadError> {
        match own_status(&answer) {
            None => {
                let (stored, before) = stored(self.stream, self.subject, answer)?;
                if before != self.last_sequence || stored.sequence <= self.last_sequence {
                    return Err(self.incomplete("a message is missing"));
                }
                self.last_sequence = stored.sequence;
                self.messages.push(stored);
                Ok(None)
            }
            Some(StatusCode::NOT_FOUND) => Ok(Some(Page::default())),
            Some(status) if status.as_u16() == END_OF_BATCH => {
                let headers = answer.headers.unwrap_or_default();
                if number(&headers, NATS_LAST_SEQUENCE) != Some(self.last_sequence) {
                    return Err(self.incomplete("the last message is missing"));
                }
                let pending = number(&headers, HeaderName::from_static(NUM_PENDING))
                    .ok_or_else(|| self.incomplete("it does not say what is left"))?;
                Ok(Some(Page {
                    messages: std::mem::take(&mut self.messages),
                    more: pending > 0,
                }))
            }
            Some(status) => Err(refused(self.stream, status, answer.description)),
        }
    }

    fn incomplete(&self, what: &'static str) -> ReadError {
        ReadError::Incomplete(self.stream.to_owned(), what)
    }
}

/// The status of an answer that is the server's own. A stored message comes as
/// it was sent, perhaps with a status that its sender made up.
fn own_status(answer: &Message) -> Option<StatusCode> {
    let headers = answer.headers.as_ref();
    let is_stored = headers.is_some_and(|headers| headers.get_last(NATS_SUBJECT).is_some());
    answer.status.filter(|_| !is_stored)
}

/// A message of the expected subject, and the sequence of the one before it in
/// its batch.
fn stored(stream: &str, subject: &str, answer: Message) -> Result<(Stored, u64), ReadError> {
    let incomplete = |what| ReadError::Incomplete(stream.to_owned(), what);
    let headers = answer.headers.unwrap_or_default();
    if by_server(&headers, NATS_SUBJECT) != Some(subject) {
        return Err(incomplete("a message is of another subject"));
    }
    let sequence = number(&headers, NATS_SEQUENCE);
    let stored_at = by_server(&headers, NATS_TIME_STAMP);
    let stored_at = stored_at.and_then(|time| time.parse::<Timestamp>().ok());
    let (Some(sequence), Some(stored_at)) = (sequence, stored_at) else {
        return Err(incomplete("a message has no sequence or time"));
    };
    let stored = Stored {
        sequence,
        stored_at_ms: stored_at.as_millisecond(),
        payload: answer.payload,
    };
    let before = number(&headers, NATS_LAST_SEQUENCE);
    Ok((stored, before.unwrap_or_default()))
}

/// What the server says of a message. It appends its headers after the
/// sender's, so only the last of a name is to be believed.
fn by_server(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get_last(name).map(HeaderValue::as_str)
}

fn number(headers: &HeaderMap, name: HeaderName) -> Option<u64> {
    by_server(headers, name)?.parse().ok()
}

fn refused(stream: &str, status: StatusCode, description: Option<String>) -> ReadError {
    ReadError::Refused {
        stream: stream.to_owned(),
        status,
        description: description.unwrap_or_default(),
    }
}

fn direct_get(stream: &str) -> String {
    format!("$JS.API.DIRECT.GET.{stream}")
}

fn encode(stream: &str, request: &impl Serialize) -> Result<Bytes, ReadError> {
    let json = serde_json::to_vec(request);
    Ok(json
        .map_err(|_| ReadError::Unanswered(stream.to_owned()))?
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = "MAIL-0";
    const SUBJECT: &str = "r.0.field.x.msg";

    fn answer(status: Option<StatusCode>, headers: &[(&str, &str)]) -> Message {
        let mut map = HeaderMap::new();
        for &(name, value) in headers {
            map.append(name, value);
        }
        Message {
            subject: "_INBOX.relay.x".into(),
            reply: None,
            payload: Bytes::from_static(b"said"),
            headers: Some(map),
            status,
            description: None,
            length: 0,
        }
    }

    fn servers(sequence: &'static str, before: &'static str) -> [(&'static str, &'static str); 5] {
        [
            ("Nats-Stream", STREAM),
            ("Nats-Subject", SUBJECT),
            ("Nats-Sequence", sequence),
            ("Nats-Last-Sequence", before),
            ("Nats-Time-Stamp", "1970-01-01T00:00:01.5Z"),
        ]
    }

    #[test]
    fn a_sender_cannot_say_where_a_message_is_stored() {
        let forged = [
            ("Nats-Stream", "MAIL-9"),
            ("Nats-Subject", "r.0.field.y.msg"),
            ("Nats-Sequence", "900"),
            ("Nats-Last-Sequence", "800"),
            ("Nats-Time-Stamp", "never"),
        ];
        let headers = [forged, servers("7", "0")].concat();
        let mut batch = Batch::new(STREAM, SUBJECT);
        assert!(batch.take(answer(None, &headers)).unwrap().is_none());
        let [stored] = batch.messages.as_slice() else {
            panic!("one message");
        };
        assert_eq!((stored.sequence, stored.stored_at_ms), (7, 1_500));
    }

    #[test]
    fn a_sender_cannot_end_the_answer() {
        for status in [204, 404, 408, 503] {
            let status = StatusCode::from_u16(status).ok();
            let mut batch = Batch::new(STREAM, SUBJECT);
            let taken = batch.take(answer(status, &servers("7", "0")));
            assert!(taken.unwrap().is_none());
            assert_eq!(batch.messages.len(), 1);
        }
        let nothing = answer(Some(StatusCode::NOT_FOUND), &[]);
        let ended = Batch::new(STREAM, SUBJECT).take(nothing).unwrap();
        assert!(ended.is_some_and(|page| page.messages.is_empty() && !page.more));
    }
}
