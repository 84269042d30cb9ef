//! Whether a program's connections to nats-server are there.

use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::readiness::NO_NATS;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(200);
/// For so long a connection may be away without a word: a node that stops sends
/// its clients to others, and what is asked on the way there waits.
const MOMENT: Duration = Duration::from_secs(3);

/// Connections that are looked at until this is dropped.
#[derive(Debug)]
pub struct Connections {
    away_since: watch::Receiver<Option<Instant>>,
    _looking: JoinSet<()>,
}

impl Connections {
    /// Call it inside a tokio runtime.
    pub fn of(clients: Vec<Client>) -> Self {
        let (told, away_since) = watch::channel(None);
        let mut looking = JoinSet::new();
        looking.spawn(async move {
            loop {
                let away = !clients.iter().all(is_connected);
                told.send_if_modified(|since| {
                    let changed = since.is_some() != away;
                    if changed {
                        *since = away.then(Instant::now);
                    }
                    changed
                });
                sleep(LOOK).await;
            }
        });
        Self {
            away_since,
            _looking: looking,
        }
    }

    /// [`NO_NATS`] while one of them is away for more than a moment.
    pub fn missing(&self) -> Vec<String> {
        match *self.away_since.borrow() {
            Some(since) if since.elapsed() >= MOMENT => vec![NO_NATS.to_owned()],
            _ => Vec::new(),
        }
    }
}

/// Whether it is there at this moment.
pub fn is_connected(client: &Client) -> bool {
    client.connection_state() == State::Connected
}
