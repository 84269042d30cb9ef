//! One batched Direct Get: many entries for one round trip.

use std::time::Duration;

use async_nats::{Client, HeaderMap, Message, StatusCode, header};
use bytes::Bytes;
use futures::StreamExt;
use serde::Serialize;
use sotto_proto::DIRECTORY_STREAM;

use super::LogError;

/// Entries per request.
const ENTRIES: u32 = 512;
/// How long the next message of an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// What ends the answer: "end of batch".
const END_OF_BATCH: u16 = 204;

/// What a request was answered with.
pub(super) struct Batch {
    /// Stream sequence and payload, in order.
    pub entries: Vec<(u64, Bytes)>,
    /// Whether the stream had no more at that time.
    pub last: bool,
}

#[derive(Serialize)]
struct Request {
    seq: u64,
    batch: u32,
}

/// Reads from sequence `first` on.
pub(super) async fn read(client: &Client, first: u64) -> Result<Batch, LogError> {
    let inbox = client.new_inbox();
    let mut answers = client
        .subscribe(inbox.clone())
        .await
        .map_err(LogError::unavailable)?;
    let request = Request {
        seq: first,
        batch: ENTRIES,
    };
    let request = serde_json::to_vec(&request).map_err(LogError::unavailable)?;
    let subject = format!("$JS.API.DIRECT.GET.{DIRECTORY_STREAM}");
    client
        .publish_with_reply(subject, inbox, request.into())
        .await
        .map_err(LogError::unavailable)?;

    let mut entries = Vec::new();
    loop {
        let answer = tokio::time::timeout(PATIENCE, answers.next()).await;
        let answer = answer.map_err(LogError::unavailable)?;
        let message = answer.ok_or_else(|| LogError::unavailable("the connection was closed"))?;
        match message.status {
            None => {
                let sequence = number(&message, header::NATS_SEQUENCE)
                    .ok_or_else(|| LogError::unavailable("an answer without a sequence"))?;
                entries.push((sequence, message.payload));
                if entries.len() > ENTRIES as usize {
                    return Err(LogError::unavailable("more answers than asked for"));
                }
            }
            Some(StatusCode::NOT_FOUND) => {
                return Ok(Batch {
                    entries,
                    last: true,
                });
            }
            Some(status) if status.as_u16() == END_OF_BATCH => {
                let last = number(&message, "Nats-Num-Pending") == Some(0);
                return Ok(Batch { entries, last });
            }
            Some(status) => return Err(LogError::unavailable(status)),
        }
    }
}

/// The payload at one sequence, if there is one.
pub(super) async fn read_one(client: &Client, sequence: u64) -> Result<Option<Bytes>, LogError> {
    let batch = read(client, sequence).await?;
    let found = batch.entries.into_iter().find(|(at, _)| *at == sequence);
    Ok(found.map(|(_, entry)| entry))
}

/// A number in a header of the server, which stands after the sender's.
pub(super) fn number(message: &Message, name: impl header::IntoHeaderName) -> Option<u64> {
    let headers: &HeaderMap = message.headers.as_ref()?;
    headers.get_last(name)?.as_str().parse().ok()
}
