//! What can be changed in Consul while programs run: how much they log, under
//! `<prefix>log`.
//!
//! Nonsense there changes nothing. While Consul is away, what it said last
//! stays; when the key is removed, it is again as the program was started.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use tokio::time::sleep;

use super::answers::next_index;
use super::client::Client;
use super::{PAUSE_MAX, PAUSES};
use crate::logging::{LEVELS_MAX, Levels, LogFilter};

const KEY: &str = "log";
/// Pause between two answers: whatever answers at once each time, it is not
/// asked more often.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows the key, for ever.
pub(super) async fn follow(client: Arc<Client>, log: LogFilter) {
    let mut pauses = PAUSES.build();
    let mut index = 0;
    let mut known = None;
    loop {
        match client.read(KEY, index, LEVELS_MAX).await {
            Ok(read) => {
                pauses = PAUSES.build();
                index = next_index(index, read.index);
                if known.as_ref() != Some(&read.value) {
                    apply(&log, read.value.as_deref(), known.is_none());
                    known = Some(read.value);
                }
                sleep(PAUSE).await;
            }
            Err(error) => {
                sotto_log::debug!(error, "Consul does not say how much is to be logged");
                // It may be another Consul that answers next.
                index = 0;
                sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
            }
        }
    }
}

fn apply(log: &LogFilter, value: Option<&[u8]>, is_first: bool) {
    let Some(value) = value else {
        if log.follow(None) && !is_first {
            sotto_log::info!("Consul says no more how much is logged: it is as at the start");
        }
        return;
    };
    let levels = str::from_utf8(value).ok().map(str::parse::<Levels>);
    match levels {
        Some(Ok(levels)) => {
            // Before and after: one of them may be filtered out.
            sotto_log::info!(levels, "Consul says how much is logged");
            if log.follow(Some(&levels)) {
                sotto_log::info!(levels, "so much is logged now, as Consul says");
            }
        }
        _ => {
            sotto_log::warn!(
                "what Consul says of how much is logged does not read, and changes nothing: \
                 write error, warn, info or debug"
            );
        }
    }
}
