//! Whose turn a job is that is enough to be done by one process of a cluster.
//!
//! A session's lock in Consul says so. What is given out here only ever saves
//! work: every job must be one that all processes may do at once, as they do
//! without Consul. While Consul is away, hangs or says nonsense, it is
//! everybody's turn; and should it say for ever that another has the lock who
//! does not do the job, it is everybody's turn now and then all the same.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder as _;
use sotto_log::Known;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::answers::SessionId;
use super::client::Client;
use super::error::ConsulError;
use super::{PAUSE_MAX, PAUSES};
use crate::watch::Readiness;

/// How often the lock is asked for, and kept.
const ASK: Duration = Duration::from_secs(10);
/// How long a session lives that is not renewed.
const TTL: Duration = Duration::from_secs(30);
/// How long it is believed that another has the lock.
const BELIEVED: Duration = Duration::from_secs(25);
/// How long nothing is done at most because another has the lock.
const PASSED_MAX: Duration = Duration::from_secs(300);

/// Asked before each go at a job.
#[derive(Debug)]
pub struct Turn {
    /// Until when another has the lock, as far as is known.
    other: Option<watch::Receiver<Option<Instant>>>,
    /// Since when every go was another's.
    passed_since: Option<Instant>,
}

impl Turn {
    /// Of who is alone, or knows no better.
    pub fn always() -> Self {
        Self {
            other: None,
            passed_since: None,
        }
    }

    /// Whether this process is to do the job this time.
    pub fn is_mine(&mut self) -> bool {
        self.decide(Instant::now())
    }

    fn decide(&mut self, now: Instant) -> bool {
        let other = self.other.as_ref().and_then(|other| *other.borrow());
        let since = *self.passed_since.get_or_insert(now);
        let mine = other.is_none_or(|until| until <= now)
            || now.saturating_duration_since(since) >= PASSED_MAX;
        if mine {
            self.passed_since = None;
        }
        mine
    }
}

impl Clone for Turn {
    /// A turn of its own at another job under the same lock.
    fn clone(&self) -> Self {
        Self {
            other: self.other.clone(),
            passed_since: None,
        }
    }
}

/// A turn, and what keeps it up to date until `stop`; `what` is the key and
/// what is written there.
pub(super) fn hold(
    client: Arc<Client>,
    what: (String, String),
    readiness: Readiness,
    stop: CancellationToken,
) -> (Turn, impl Future<Output = ()>) {
    let (sender, receiver) = watch::channel(None);
    let turn = Turn {
        other: Some(receiver),
        passed_since: None,
    };
    let (key, owner) = what;
    let mut holder = Holder {
        client,
        key,
        owner,
        readiness,
        session: None,
        mine: None,
        other: sender,
    };
    let holding = async move {
        stop.run_until_cancelled(holder.run()).await;
        holder.let_go().await;
    };
    (turn, holding)
}

struct Holder {
    client: Arc<Client>,
    key: String,
    owner: String,
    readiness: Readiness,
    session: Option<SessionId>,
    /// What the log says: nothing yet, or not known.
    mine: Option<bool>,
    other: watch::Sender<Option<Instant>>,
}

impl Holder {
    async fn run(&mut self) {
        let mut pauses = PAUSES.build();
        loop {
            if !self.readiness.reasons().is_empty() {
                // Who cannot do the job leaves the lock to others.
                self.let_go().await;
                self.other.send_replace(None);
                sleep(ASK).await;
                continue;
            }
            let pause = match self.ask().await {
                Ok(mine) => {
                    pauses = PAUSES.build();
                    let until = Instant::now() + BELIEVED;
                    self.other.send_replace((!mine).then_some(until));
                    if self.mine.replace(mine) != Some(mine) {
                        let key = Known(self.key.as_str());
                        sotto_log::debug!(key, mine, "who has a lock of Consul's");
                    }
                    ASK
                }
                Err(error) => {
                    self.other.send_replace(None);
                    if self.mine.take().is_some() {
                        sotto_log::debug!(error, "Consul does not say who has a lock");
                    }
                    pauses.next().unwrap_or(PAUSE_MAX)
                }
            };
            sleep(pause).await;
        }
    }

    async fn ask(&mut self) -> Result<bool, ConsulError> {
        let session = match &self.session {
            Some(session) => {
                if let Err(error) = self.client.renew_session(session).await {
                    // Consul may have forgotten it.
                    self.session = None;
                    return Err(error);
                }
                session
            }
            None => {
                let opened = self.client.open_session(&self.owner, TTL).await?;
                self.session.insert(opened)
            }
        };
        self.client.acquire(&self.key, session, &self.owner).await
    }

    async fn let_go(&mut self) {
        if let Some(session) = self.session.take()
            && let Err(error) = self.client.close_session(&session).await
        {
            sotto_log::debug!(error, "a session of Consul's ends by itself");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_has_the_lock_for_a_while_and_never_for_ever() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(Turn::always().decide(start));

        let (sender, receiver) = watch::channel(None);
        let mut turn = Turn {
            other: Some(receiver),
            passed_since: None,
        };
        assert!(turn.decide(at(0)));
        sender.send_replace(Some(at(25)));
        assert!(!turn.decide(at(1)));
        assert!(turn.clone().decide(at(25)), "not believed any longer");

        // It says so for ever.
        sender.send_replace(Some(at(100_000)));
        let goes = (1..=1_000)
            .filter(|&second| turn.decide(at(second)))
            .count();
        assert_eq!(goes, 3);

        // Nobody says anything any more.
        drop(sender);
        assert!(turn.decide(at(100_000)));
    }
}
