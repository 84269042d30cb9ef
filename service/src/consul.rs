//! Consul, for those who run it: to be found, to change how much is logged
//! while a program runs, and to have once per cluster what once is enough for.
//!
//! Nothing waits for Consul and nothing depends on it. Each part is a task of
//! its own that tries again with growing pauses; a Consul that is away, hangs
//! or says nonsense costs a line in the log. Without `[consul]` in
//! `server.toml` there is no task at all.
//!
//! What Consul is told are addresses, and whether a program serves. What it
//! says is an address to try, how much our own programs log, and whose turn a
//! job is: each is bounded and checked, and decides nothing about who may do
//! what. Never put a secret, a key or anything of a user here.

mod answers;
mod client;
mod discovery;
mod error;
mod live;
mod registration;
mod settings;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBuilder;
use data_encoding::HEXLOWER;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::handover::Part;
use crate::logging::LogFilter;
use crate::watch::Readiness;

use client::Client;
pub use discovery::{ConsulArgs, admissions};
pub use error::ConsulError;
pub use registration::{ADMISSION, Service};
pub use settings::{Address, ConsulConfig, Prefix, SettingError};
pub use turn::Turn;

/// The longest pause before Consul is tried again, before chance makes it longer.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// The pauses before that, which are not the same for everybody: a Consul that
/// comes back is not asked by all at once.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(500))
    .with_max_delay(PAUSE_MAX)
    .with_jitter()
    .without_max_times();
/// How long it may take to say goodbye. One request has less.
const LEAVING: Duration = Duration::from_secs(3);
/// Bytes of the authority's fingerprint that tell one server's locks from
/// those of another.
const SERVER: usize = 8;

/// What a server program has of Consul: nothing where none is configured.
/// Dropping it ends everything without a goodbye.
#[derive(Debug)]
pub struct Consul(Option<Connected>);

#[derive(Debug)]
struct Connected {
    client: Arc<Client>,
    /// Who has the locks: this process.
    owner: String,
    /// Which server's jobs they are for.
    server: String,
    readiness: Readiness,
    stop: CancellationToken,
    tasks: TaskTracker,
    _ended: DropGuard,
}

/// A program that uses Consul.
#[derive(Debug, Clone)]
pub struct Program {
    /// As others find it.
    pub service: Service,
    /// Whether it serves.
    pub readiness: Readiness,
    /// What it logs.
    pub log: LogFilter,
    /// Its part in handing over.
    pub handover: Part,
    /// The fingerprint of its server's authority, which all nodes of a cluster
    /// have in common and no other server has.
    pub authority: [u8; 32],
}

impl Consul {
    /// No Consul.
    pub fn none() -> Self {
        Self(None)
    }

    /// Registers the program and follows what Consul says, where it is
    /// configured, until `stop`: then the program is taken out at once. One that
    /// has handed over is not: its successor is the same to Consul.
    ///
    /// # Errors
    /// When a file that the configuration names does not read; never because
    /// of what Consul does.
    pub fn start(
        config: Option<&ConsulConfig>,
        program: Program,
        stop: &CancellationToken,
    ) -> Result<Self, ConsulError> {
        let Some(config) = config else {
            return Ok(Self::none());
        };
        let client = Arc::new(Client::new(config)?);
        let Program {
            service,
            readiness,
            log,
            handover,
            authority,
        } = program;
        let stop = stop.child_token();
        let tasks = TaskTracker::new();
        let owner = service.id();
        let registered = registration::keep(
            Arc::clone(&client),
            service,
            readiness.clone(),
            handover.clone(),
            stop.clone(),
        );
        tasks.spawn(registered);
        let ended = stop.clone();
        let handing_over = async move {
            handover.handed_over().await;
            ended.cancel();
        };
        tasks.spawn(stop.clone().run_until_cancelled_owned(handing_over));
        let following = live::follow(Arc::clone(&client), log);
        tasks.spawn(stop.clone().run_until_cancelled_owned(following));
        let server = authority.first_chunk::<SERVER>();
        Ok(Self(Some(Connected {
            client,
            owner,
            server: server
                .map(|bytes| HEXLOWER.encode(bytes))
                .unwrap_or_default(),
            readiness,
            _ended: stop.clone().drop_guard(),
            stop,
            tasks,
        })))
    }

    /// Whose turn it is to do `job`, which one process of the cluster is enough
    /// for: this one's, as long as Consul does not say otherwise.
    pub fn turn(&self, job: &str) -> Turn {
        let Some(connected) = &self.0 else {
            return Turn::always();
        };
        let key = format!("locks/{}/{job}", connected.server);
        let (turn, holding) = turn::hold(
            Arc::clone(&connected.client),
            (key, connected.owner.clone()),
            connected.readiness.clone(),
            connected.stop.clone(),
        );
        connected.tasks.spawn(holding);
        turn
    }

    /// Takes the program out, if that is not done yet, and returns when Consul
    /// knows or has not answered in time.
    pub async fn leave(self) {
        let Some(connected) = self.0 else { return };
        connected.stop.cancel();
        connected.tasks.close();
        if tokio::time::timeout(LEAVING, connected.tasks.wait())
            .await
            .is_err()
        {
            sotto_log::warn!("Consul was not told in time that this program stops");
        }
    }
}
