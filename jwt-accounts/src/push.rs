//! Handing an account to the server's resolver.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

/// Where a server takes accounts.
pub(crate) const PUSH_ACCOUNT: &str = "$SYS.REQ.CLAIMS.UPDATE";
/// How long a server may take to store an account.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why an account was not pushed.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// No answer.
    #[error(
        "the NATS server did not answer: is it running, and are these system credentials? ({0})"
    )]
    NoAnswer(String),
    /// The server said no.
    #[error("the NATS server did not take the account: {0}")]
    Refused(String),
}

sotto_log::log_safe!(PushError);

/// Stores an account's JWT in the resolver of the server that `system`, a
/// client of the system account, is connected to. Returns when it is in force.
/// The resolver does not check who signed it, and an account of ours replaced
/// by a stranger's JWT lets nobody in: push only what the key store made.
///
/// # Errors
/// [`PushError`].
pub async fn push_account(system: &async_nats::Client, jwt: &str) -> Result<(), PushError> {
    let payload = Bytes::copy_from_slice(jwt.as_bytes());
    let request = system.request(PUSH_ACCOUNT, payload);
    let answer = tokio::time::timeout(TIMEOUT, request)
        .await
        .map_err(|elapsed| PushError::NoAnswer(elapsed.to_string()))?
        .map_err(|error| PushError::NoAnswer(error.to_string()))?;
    let answer: Answer = serde_json::from_slice(&answer.payload)
        .map_err(|_| PushError::Refused("its answer does not read".to_owned()))?;
    match (answer.data, answer.error) {
        (_, Some(error)) => Err(PushError::Refused(error.description)),
        (Some(data), None) if data.code == 200 => Ok(()),
        _ => Err(PushError::Refused("no reason was given".to_owned())),
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Option<Stored>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Stored {
    code: u16,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    description: String,
}
