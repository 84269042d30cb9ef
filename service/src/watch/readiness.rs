//! Whether a program serves, as it says so itself.

use std::fmt;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a program waits for that has no connection to nats-server.
pub const NO_NATS: &str = "NATS is not reachable";
const STARTING: &str = "starting";
const DRAINING: &str = "draining";

/// Whether a program serves; every clone is the same one.
///
/// It starts, it serves whenever nothing is missing, and it drains: for good,
/// and from the moment at which it is asked to stop, before anything that
/// listens has heard of it.
#[derive(Debug, Clone)]
pub struct Readiness {
    stop: CancellationToken,
    state: Arc<watch::Sender<State>>,
    notice: Arc<watch::Sender<Option<String>>>,
}

#[derive(Clone)]
enum State {
    Starting(Option<&'static str>),
    /// What is missing is looked at when somebody asks.
    Serving(Arc<dyn Fn() -> Vec<String> + Send + Sync>),
    Draining,
}

impl Readiness {
    /// Of a program that starts, and drains once `stop` is cancelled.
    pub fn starting(stop: CancellationToken) -> Self {
        Self {
            stop,
            state: Arc::new(watch::Sender::new(State::Starting(None))),
            notice: Arc::default(),
        }
    }

    /// It cannot serve before it has this: a few words, without data of users.
    pub fn waits_for(&self, what: &'static str) {
        self.state.send_replace(State::Starting(Some(what)));
    }

    /// It serves from now on, while `missing` names nothing. That must answer
    /// at once, in a few words each, without data of users.
    pub fn serves(&self, missing: impl Fn() -> Vec<String> + Send + Sync + 'static) {
        let missing = Arc::new(missing);
        self.state.send_replace(State::Serving(missing));
    }

    /// It ends, though nobody asked it to.
    pub fn drains(&self) {
        self.state.send_replace(State::Draining);
    }

    /// Something that whoever runs it should know though it serves: a few
    /// words, without data of users; nothing, once it is over.
    pub fn notices(&self, what: Option<String>) {
        self.notice.send_replace(what);
    }

    /// The same, for who asks.
    pub fn notice(&self) -> Option<String> {
        self.notice.borrow().clone()
    }

    /// Why it does not serve at this moment; nothing when it does.
    pub fn reasons(&self) -> Vec<String> {
        if self.stop.is_cancelled() {
            return vec![DRAINING.to_owned()];
        }
        // Copied: whoever looks for what is missing holds no lock meanwhile.
        let state = self.state.borrow().clone();
        match state {
            State::Starting(what) => {
                let what = what.map(str::to_owned);
                [STARTING.to_owned()].into_iter().chain(what).collect()
            }
            State::Serving(missing) => missing(),
            State::Draining => vec![DRAINING.to_owned()],
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Starting(what) => f.debug_tuple("Starting").field(what).finish(),
            Self::Serving(_) => f.write_str("Serving"),
            Self::Draining => f.write_str("Draining"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn it_starts_serves_and_drains() {
        let stop = CancellationToken::new();
        let readiness = Readiness::starting(stop.clone());
        assert_eq!(readiness.reasons(), ["starting"]);
        readiness.waits_for(NO_NATS);
        assert_eq!(readiness.reasons(), ["starting", NO_NATS]);

        let away = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&away);
        let missing = move || match seen.load(Ordering::Relaxed) {
            true => vec![NO_NATS.to_owned()],
            false => Vec::new(),
        };
        readiness.clone().serves(missing);
        assert!(readiness.reasons().is_empty());
        away.store(true, Ordering::Relaxed);
        assert_eq!(readiness.reasons(), [NO_NATS]);

        let ended = Readiness::starting(CancellationToken::new());
        ended.drains();
        assert_eq!(ended.reasons(), ["draining"]);

        stop.cancel();
        away.store(false, Ordering::Relaxed);
        assert_eq!(readiness.reasons(), ["draining"]);
        readiness.serves(Vec::new);
        assert_eq!(readiness.reasons(), ["draining"]);
    }
}
