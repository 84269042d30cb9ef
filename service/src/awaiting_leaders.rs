//! What is tried again because the nodes of a cluster have not agreed on
//! leaders yet. A program that ended then would take its node's copies from
//! those that wait for them.

use std::time::Duration;

use sotto_log::LogSafe;
use sotto_proto::OrgName;

/// Pause between attempts.
const PAUSE: Duration = Duration::from_secs(1);

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
