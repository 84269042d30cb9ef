//! What is tried again because the nodes of a cluster have not agreed on
//! leaders yet. A program that ended then would take its node's copies from
//! those that wait for them.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamError, CreateStreamErrorKind};
use sotto_log::LogSafe;
use sotto_proto::OrgName;

/// Pause between attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether a stream is not made only because the nodes agree on no leader, or
/// one is away without which there are not enough copies of it.
pub fn lacks_nodes(error: &CreateStreamError) -> bool {
    match error.kind() {
        CreateStreamErrorKind::JetStream(error) => [
            ErrorCode::CLUSTER_NO_PEERS,
            ErrorCode::CLUSTER_NOT_AVAILABLE,
            ErrorCode::CLUSTER_NOT_LEADER,
        ]
        .contains(&error.error_code()),
        _ => false,
    }
}

/// Starts to serve an org, however long it takes until somebody answers.
///
/// # Errors
/// What `start` fails with, unless it `passes`.
pub async fn start<T, E: LogSafe>(
    org: &OrgName,
    passes: impl Fn(&E) -> bool,
    start: impl AsyncFn() -> Result<T, E>,
) -> Result<T, E> {
    loop {
        match start().await {
            Err(error) if passes(&error) => {
                sotto_log::warn!(org, error, "an organisation cannot be served yet");
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}
