//! What every call can reach.

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use sotto_proto::OrgName;
use tokio::sync::{Semaphore, watch};

use crate::client_address::Proxies;
use crate::clock::Clock;
use crate::limiter::{Limiter, Rate};
use crate::org::Org;
use crate::passwords::Passwords;
use crate::provable::Provable;
use crate::refusal::Refusal;
use crate::revocations::Revocations;
use crate::throttle::Throttle;
use crate::totp::Totps;

/// How much of what needs no session one address may do; a login counts 10.
const RATE: Rate = Rate {
    burst: 600,
    per_second: 20,
};
/// All request bodies together, in bytes.
const BODY_MEMORY: usize = 256 * 1024 * 1024;
/// Requests that wait for somebody else.
const WAITS: usize = 512;

/// What is the same for all orgs.
#[derive(Debug, Clone)]
pub struct Server {
    /// The name that devices put into their proofs.
    pub name: String,
    /// Where clients reach NATS: any of these, which change with the nodes.
    pub nats_urls: watch::Receiver<Vec<String>>,
    /// How many streams an org's rooms are spread over.
    pub shards: NonZeroU8,
    /// The folder of releases that is handed out.
    pub releases: Option<PathBuf>,
    /// Who may say whom a connection counts for.
    pub proxies: Proxies,
}

/// One gateway: its keys, its orgs, its limits.
pub struct Gateway {
    server: Server,
    key: SigningKey,
    passwords: Passwords,
    totps: Totps,
    throttle: Throttle,
    provable: Provable,
    orgs: Vec<Arc<Org>>,
    accounts: Arc<Revocations>,
    clock: Arc<dyn Clock>,
    limiter: Limiter,
    body_memory: Semaphore,
    waits: Semaphore,
}

impl Gateway {
    /// A gateway that signs with `key` and serves these orgs.
    pub fn new(
        server: Server,
        key: SigningKey,
        passwords: Passwords,
        orgs: Vec<Arc<Org>>,
        clock: Arc<dyn Clock>,
        provable: Provable,
        accounts: Arc<Revocations>,
    ) -> Self {
        Self {
            server,
            accounts,
            totps: Totps::new(&key),
            throttle: Throttle::new(&key),
            provable,
            key,
            passwords,
            orgs,
            clock,
            limiter: Limiter::new(RATE),
            body_memory: Semaphore::new(BODY_MEMORY),
            waits: Semaphore::new(WAITS),
        }
    }

    /// What is the same for all orgs.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Signs grants and directory events.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// OPAQUE's keys.
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// The folder of releases that is handed out.
    pub fn releases(&self) -> Option<&Path> {
        self.server.releases.as_deref()
    }

    /// Makes and checks authenticator apps.
    pub fn totps(&self) -> &Totps {
        &self.totps
    }

    /// Which factors can be proven here.
    pub fn provable(&self) -> &Provable {
        &self.provable
    }

    /// The NATS accounts of the orgs.
    pub fn accounts(&self) -> &Revocations {
        &self.accounts
    }

    /// Counts what may be tried so and so often.
    pub fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// Every org served here.
    pub fn orgs(&self) -> impl Iterator<Item = &Arc<Org>> {
        self.orgs.iter()
    }

    /// The org that a client names.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when it is not served here.
    pub fn org(&self, name: &str) -> Result<&Arc<Org>, Refusal> {
        let name: OrgName = name.parse()?;
        let found = self.orgs().find(|org| *org.name() == name);
        found.ok_or_else(|| {
            Refusal::NotFound(format!(
                "the organisation `{name}` is not served here: check the link"
            ))
        })
    }

    /// Milliseconds since 1970.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// Whether an address may do one more thing of this cost.
    pub fn allow(&self, address: IpAddr, cost: u32) -> bool {
        let now_ms = u64::try_from(self.now_ms()).unwrap_or_default();
        self.limiter.allow(address, cost, now_ms)
    }

    /// What request bodies may take together, in bytes.
    pub fn body_memory(&self) -> &Semaphore {
        &self.body_memory
    }

    /// How many requests may wait for somebody else.
    pub fn waits(&self) -> &Semaphore {
        &self.waits
    }
}
