//! A device at work: one task owns the engine and its store, and moves inputs
//! and outputs; this is the handle on it.
//!
//! Without [`Session::go_online`] nothing touches the network, so that history
//! can be read and messages can be queued anywhere.

mod administration;
mod driver;
mod factors;
mod link;
mod writer;

use std::time::Duration;

use sotto_client_core::engine::Engine;
use sotto_client_core::io::{Command, Event, FactorNeeded};
use sotto_client_core::store::Store;
use sotto_proto::api::Call;
use sotto_proto::refusals::Refusal;
use sotto_proto::{FileId, RoomId};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot, watch};

use crate::access::Access;
use crate::clock::Clock;
use crate::gateway::{Gateway, GatewayError};
use crate::home::Opened;
use crate::nats::Connection;

use driver::Driver;

pub use administration::DirectoryReadError;
pub use factors::{ProveError, TotpEnrolment};

/// Something that happened without being asked for.
#[derive(Debug)]
pub enum Notice {
    /// Messages flow.
    Online,
    /// They do not; it is tried again.
    Offline {
        /// One sentence: why, and what to do.
        reason: String,
    },
    /// A room of this user is closed to this device until factors are proven.
    Withheld {
        /// The room.
        room: RoomId,
        /// Why, and what to prove.
        needed: FactorNeeded,
    },
    /// From the engine, about no command in particular.
    Event(Event),
    /// The store failed. The engine was opened again from what is durable;
    /// commands that were under way have failed.
    StoreFailed {
        /// One sentence: why, and what to do.
        reason: String,
    },
}

/// How far a command has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Texts are durable on this device under these counters (inclusive).
    Queued {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The upload is remembered.
    UploadBegun(FileId),
    /// All that it should do is done.
    Done {
        /// The room that it made or changed.
        room: Option<RoomId>,
    },
}

/// Why a command did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The engine says why.
    #[error("{0}")]
    Failed(String),
    /// The gateway says no until factors are proven.
    #[error(transparent)]
    FactorNeeded(#[from] FactorNeeded),
    /// The server does not take what was said, for now: it stays queued.
    #[error("{0}")]
    Held(Refusal),
    /// The session has ended.
    #[error("sotto is stopping: run the command again")]
    Stopped,
}

/// A command under way.
#[derive(Debug)]
pub struct Running {
    updates: mpsc::UnboundedReceiver<Result<Progress, CommandError>>,
}

impl Running {
    /// The next step.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn next(&mut self) -> Result<Progress, CommandError> {
        match self.updates.recv().await {
            Some(update) => update,
            None => Err(CommandError::Stopped),
        }
    }

    /// Whether it has ended; does not wait.
    ///
    /// # Errors
    /// [`CommandError`], when that is how it ended.
    pub fn has_ended(&mut self) -> Result<bool, CommandError> {
        loop {
            match self.updates.try_recv() {
                Ok(Ok(Progress::Done { .. })) | Err(TryRecvError::Disconnected) => return Ok(true),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(TryRecvError::Empty) => return Ok(false),
            }
        }
    }

    /// Waits for the end; the room that the command made or changed.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn done(&mut self) -> Result<Option<RoomId>, CommandError> {
        loop {
            if let Progress::Done { room } = self.next().await? {
                return Ok(room);
            }
        }
    }
}

/// Looks at the engine and its store, and answers by itself.
type Look = Box<dyn FnOnce(&Engine, &dyn Store) + Send>;

/// What the task is asked for.
enum Request {
    Command {
        command: Command,
        updates: mpsc::UnboundedSender<Result<Progress, CommandError>>,
    },
    Look(Look),
    GoOnline,
    RefreshGrants,
}

/// A handle on the task of one device. The task ends with it.
pub struct Session {
    requests: mpsc::Sender<Request>,
    access: Access,
    connection: watch::Receiver<Option<Connection>>,
    settled: watch::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Session {
    /// Starts the task, offline.
    ///
    /// # Errors
    /// When TLS cannot be set up on this machine.
    pub fn start(
        opened: Opened,
        clock: Clock,
    ) -> Result<(Self, mpsc::UnboundedReceiver<Notice>), GatewayError> {
        let account = opened.engine.account();
        let gateway = Gateway::new(account.gateway.clone(), clock)?;
        let (key_sender, keys) = mpsc::channel(16);
        let access = Access::new(gateway, account.session().cloned(), key_sender);
        let (request_sender, requests) = mpsc::channel(16);
        let (connection_sender, connection) = watch::channel(None);
        let (settled_sender, settled) = watch::channel(false);
        let (notices, noticed) = mpsc::unbounded_channel();
        let driver = Driver::new(
            opened,
            clock,
            access.clone(),
            notices,
            connection_sender,
            settled_sender,
        );
        let session = Self {
            requests: request_sender,
            access,
            connection,
            settled,
            task: tokio::spawn(driver.run(requests, keys)),
        };
        Ok((session, noticed))
    }

    /// Connects, and keeps connecting from now on.
    pub async fn go_online(&self) {
        // An error means that the task has ended, which every other call says.
        let _ = self.requests.send(Request::GoOnline).await;
    }

    /// Has a connection made with the grants that the gateway gives now.
    async fn refresh_grants(&self) {
        let _ = self.requests.send(Request::RefreshGrants).await;
    }

    /// Gives a command to the engine.
    pub async fn command(&self, command: Command) -> Running {
        let (sender, updates) = mpsc::unbounded_channel();
        let request = Request::Command {
            command,
            updates: sender,
        };
        let _ = self.requests.send(request).await;
        Running { updates }
    }

    /// Looks at the engine and its store.
    ///
    /// # Errors
    /// [`CommandError::Stopped`].
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine, &dyn Store) -> T + Send + 'static,
    ) -> Result<T, CommandError> {
        let (answer, answered) = oneshot::channel();
        let look = Box::new(move |engine: &Engine, store: &dyn Store| {
            // Nobody waits any more: nothing is lost.
            let _ = answer.send(look(engine, store));
        });
        let _ = self.requests.send(Request::Look(look)).await;
        answered.await.map_err(|_| CommandError::Stopped)
    }

    /// Makes a call to the gateway, with the device's session.
    ///
    /// # Errors
    /// Every kind of [`GatewayError`].
    pub async fn call<C: Call>(&self, request: &C) -> Result<C::Answer, GatewayError> {
        self.access.call(request).await
    }

    /// The connection in force, or the next one when there is none.
    ///
    /// # Errors
    /// [`CommandError::Stopped`].
    pub async fn connection(&self) -> Result<Connection, CommandError> {
        let mut connection = self.connection.clone();
        let connected = connection.wait_for(Option::is_some).await;
        connected
            .ok()
            .and_then(|connection| connection.clone())
            .ok_or(CommandError::Stopped)
    }

    /// Waits until this device is connected, has everything that the server
    /// had for it, and has nothing left to do there.
    ///
    /// # Errors
    /// [`CommandError::Stopped`].
    pub async fn settled(&self) -> Result<(), CommandError> {
        let mut settled = self.settled.clone();
        match settled.wait_for(|settled| *settled).await {
            Ok(_) => Ok(()),
            Err(_) => Err(CommandError::Stopped),
        }
    }

    /// Ends the task, after what is going out now or a moment at most.
    pub async fn stop(self) {
        let Self { requests, task, .. } = self;
        drop(requests);
        let _ = tokio::time::timeout(Duration::from_secs(5), task).await;
    }
}
