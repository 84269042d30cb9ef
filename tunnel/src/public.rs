//! The public end while it serves: what its connections share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sotto_proto::OrgName;
use sotto_service::watch::OfOrg;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsAcceptor;

use crate::budget::Budget;
use crate::link::Opener;
use crate::lobby::SharedLobby;
use crate::metrics::PublicMetrics;
use crate::refusal::Refusal;
use crate::registry::{Entry, Registry, TooManyLinks};
use crate::table::{NameTable, Org};

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a whole ClientHello.
    pub hello: Duration,
    /// For anything to pass; `None`: for ever.
    pub idle: Option<Duration>,
    /// For anything to pass once one side has ended.
    pub half_closed: Duration,
}

/// A link, and what its dialer wants to know.
#[derive(Debug, Clone)]
pub struct DialerLink {
    /// Where streams are opened.
    pub opener: Opener,
    /// It is told the addresses of clients.
    pub wants_addresses: bool,
    retiring: Arc<AtomicBool>,
}

impl DialerLink {
    /// One of which nothing is known yet.
    pub fn new(opener: Opener, wants_addresses: bool) -> Self {
        Self {
            opener,
            wants_addresses,
            retiring: Arc::default(),
        }
    }

    /// Notes whether its dialer sends connections to other links.
    pub fn retires(&self, retiring: bool) {
        self.retiring.store(retiring, Ordering::Relaxed);
    }

    /// How much is asked of it: one whose dialer retires comes last.
    pub fn load(&self) -> usize {
        match self.retiring.load(Ordering::Relaxed) {
            true => usize::MAX,
            false => self.opener.streams(),
        }
    }
}

/// What the connections of a public end share. One lock each, never two at a
/// time, and none across an await.
pub struct Public {
    /// Who may announce what.
    pub table: watch::Receiver<Arc<NameTable>>,
    /// What is counted.
    pub metrics: PublicMetrics,
    /// How long things may take.
    pub patience: Patience,
    /// For dialers.
    pub acceptor: TlsAcceptor,
    /// Of whom no whole ClientHello has come.
    pub waiting: SharedLobby,
    /// Those of them whose ClientHello is long.
    pub long_hellos: SharedLobby,
    /// Dialers that have not proved who they are.
    pub unproved: SharedLobby,
    /// Told when a link was added.
    pub link_added: Notify,
    links: Mutex<Registry<DialerLink>>,
    budget: Mutex<Budget>,
}

/// A connection that is counted, until this is dropped.
pub struct Counted {
    public: Arc<Public>,
    org: OrgName,
}

impl Public {
    /// With nobody there.
    pub fn new(
        table: watch::Receiver<Arc<NameTable>>,
        acceptor: TlsAcceptor,
        patience: Patience,
        metrics: PublicMetrics,
    ) -> Self {
        Self {
            table,
            metrics,
            patience,
            acceptor,
            waiting: SharedLobby::default(),
            long_hellos: SharedLobby::default(),
            unproved: SharedLobby::default(),
            link_added: Notify::new(),
            links: Mutex::default(),
            budget: Mutex::default(),
        }
    }

    /// The table in force.
    pub fn table(&self) -> Arc<NameTable> {
        Arc::clone(&self.table.borrow())
    }

    /// The links.
    pub fn links(&self) -> MutexGuard<'_, Registry<DialerLink>> {
        locked(&self.links)
    }

    /// Adds a link, and tells those who wait for one.
    ///
    /// # Errors
    /// [`TooManyLinks`].
    pub fn add_link(&self, entry: Entry<DialerLink>) -> Result<u64, TooManyLinks> {
        let org = OfOrg::from(&entry.org);
        let number = self.links().add(entry)?;
        self.metrics.links.get_or_create(&org).inc();
        self.link_added.notify_waiters();
        Ok(number)
    }

    /// Forgets a link that has ended.
    pub fn remove_link(&self, number: u64, org: &OrgName) {
        self.links().remove(number);
        let org = OfOrg::from(org);
        self.metrics.links.get_or_create(&org).dec();
    }

    /// Ends the links that the table in force does not admit.
    pub fn end_unadmitted(&self) {
        let table = self.table();
        let admitted = |entry: &Entry<DialerLink>| {
            let patterns = entry.routes.iter().map(|route| &route.pattern);
            let admitted = table.admit(&entry.key, patterns);
            admitted.is_ok_and(|org| org.name == entry.org)
        };
        for entry in self.links().take_unless(admitted) {
            sotto_log::info!(org = entry.org, "a link is not admitted any more");
            entry.link.opener.end();
        }
    }

    /// Counts a connection.
    ///
    /// # Errors
    /// When there are too many, or too much has passed.
    pub fn open(self: &Arc<Self>, table: &NameTable, org: &Org) -> Result<Counted, Refusal> {
        locked(&self.budget).open(table, org, now())?;
        let label = OfOrg::from(&org.name);
        self.metrics.connections.get_or_create(&label).inc();
        Ok(Counted {
            public: Arc::clone(self),
            org: org.name.clone(),
        })
    }

    /// Counts bytes of an org against what the table in force lets it pass.
    ///
    /// # Errors
    /// [`Refusal::QuotaUsed`].
    pub fn pass(&self, org: &OrgName, bytes: u64) -> Result<(), Refusal> {
        match self.table.borrow().org(org) {
            Some(org) => locked(&self.budget).pass(org, bytes, now()),
            // Its connections are about to end.
            None => Ok(()),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        locked(&self.public.budget).close(&self.org);
        let label = OfOrg::from(&self.org);
        self.public.metrics.connections.get_or_create(&label).dec();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since 1970.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}
