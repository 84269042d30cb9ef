//! Keeps one connection to NATS in force: gets a JWT, connects, gets the next
//! one before it expires, and tries again, ever more slowly, when that fails.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use sotto_client_core::io::{Grants, LiveMessage};
use sotto_client_core::pace::Pace;
use sotto_proto::{DeviceId, wire};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::access::{Access, KeyRequest};
use crate::gateway::GatewayError;
use crate::nats::{ConnectError, Connection, Presence, Settings};
use crate::poor_link::Patience;

/// The longest pause between two attempts, before chance makes it longer.
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// The pauses between attempts: not all devices come back at the same moment.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(25))
    .with_max_delay(PAUSE_MAX)
    .with_jitter()
    .without_max_times();
/// What lasted this long needs no pause after it.
const CALM: Duration = Duration::from_secs(10);
/// The shortest life of a connection that is replaced for its JWT's sake.
const REFRESH_MIN: Duration = Duration::from_secs(5);

/// What became of the link.
pub(super) enum LinkEvent {
    /// A new connection is in force; an earlier one is not any more.
    Up {
        connection: Connection,
        grants: Grants,
        pace: Pace,
    },
    /// There is none.
    Down { reason: String },
}

/// What a link needs.
pub(super) struct Link {
    pub(super) access: Access,
    pub(super) tls: rustls::ClientConfig,
    pub(super) device: DeviceId,
    pub(super) live: mpsc::Sender<LiveMessage>,
    pub(super) presence: mpsc::Sender<Presence>,
    pub(super) events: mpsc::Sender<LinkEvent>,
    /// Told when the grants have changed.
    pub(super) refresh: Arc<Notify>,
}

/// Why joining failed; each sentence says what to do.
#[derive(Debug, thiserror::Error)]
enum JoinError {
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Nats(#[from] ConnectError),
}

/// A connection with what its JWT says.
struct Joined {
    connection: Connection,
    grants: Grants,
    refresh_at: Instant,
}

/// What the gateway said last: with it any server lets this device in for as
/// long as the JWT is good, whether the gateway is there or not.
struct Pass {
    urls: Vec<String>,
    jwt: String,
    grants: Grants,
    got: Instant,
    /// How long it is good, by this machine's monotonic clock, so that its idea
    /// of the time does not matter.
    lifetime: Duration,
}

impl Pass {
    fn is_good(&self) -> bool {
        self.got.elapsed() < self.lifetime
    }

    fn refresh_at(&self) -> Instant {
        self.got + (self.lifetime / 4 * 3).max(REFRESH_MIN)
    }
}

impl Link {
    /// Runs until nobody listens to the events.
    pub(super) async fn keep(self) {
        let mut pauses = PAUSES.build();
        let mut patience = Patience::for_a_connection();
        // The connection in force, also while its successor is being made.
        let mut current: Option<Connection> = None;
        let mut pass = None;
        loop {
            let began = Instant::now();
            let (event, next) = match self.join(&mut patience, &mut pass, current.is_none()).await {
                Ok(joined) => {
                    let Joined {
                        connection,
                        grants,
                        refresh_at,
                    } = joined;
                    current = Some(connection.clone());
                    let pace = patience.pace();
                    let up = LinkEvent::Up {
                        connection,
                        grants,
                        pace,
                    };
                    (Some(up), refresh_at)
                }
                Err(error) => {
                    tracing::info!("not connected: {error}");
                    let reason = error.to_string();
                    let down = current.is_none().then_some(LinkEvent::Down { reason });
                    (down, Instant::now())
                }
            };
            if let Some(event) = event
                && !self.tell(event).await
            {
                return;
            }
            if !self.until_change(&mut current, next).await {
                return;
            }
            if began.elapsed() > CALM {
                pauses = PAUSES.build();
                continue;
            }
            let pausing_until = Instant::now() + pauses.next().unwrap_or(PAUSE_MAX);
            if !self.until_change(&mut current, pausing_until).await {
                return;
            }
        }
    }

    /// Waits until it is time to join again; whether anybody still listens.
    async fn until_change(&self, current: &mut Option<Connection>, time: Instant) -> bool {
        let closed = async {
            match &*current {
                Some(connection) => connection.closed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = closed => {
                *current = None;
                let reason = "the connection to the message server was lost: trying again".to_owned();
                self.tell(LinkEvent::Down { reason }).await
            }
            () = sleep_until(time) => true,
            () = self.refresh.notified() => true,
            () = self.events.closed() => false,
        }
    }

    async fn tell(&self, event: LinkEvent) -> bool {
        self.events.send(event).await.is_ok()
    }

    /// Connects with a new pass; with the last one when the gateway is away
    /// and this device `is_cut_off`.
    async fn join(
        &self,
        patience: &mut Patience,
        pass: &mut Option<Pass>,
        is_cut_off: bool,
    ) -> Result<Joined, JoinError> {
        match self.ask(patience).await {
            Ok(new) => *pass = Some(new),
            Err(error) => {
                let away = matches!(error, GatewayError::Unreachable { .. });
                let good = pass.as_ref().is_some_and(Pass::is_good);
                if !(away && is_cut_off && good) {
                    return Err(error.into());
                }
                tracing::info!("the gateway is away: the last JWT is used again");
            }
        }
        let Some(known) = &*pass else {
            return Err(ConnectError::Refused.into());
        };
        let settings = Settings {
            urls: known.urls.clone(),
            tls: self.tls.clone(),
            device: self.device,
            jwt: known.jwt.clone(),
            rooms: known.grants.rooms.clone(),
            gated: known.grants.gated.clone(),
            patience: patience.duration(),
            pace: patience.pace(),
        };
        let keys = self.access.keys().clone();
        let sign = move |nonce| sign_nonce(keys.clone(), nonce);
        let began = Instant::now();
        let (live, presence) = (self.live.clone(), self.presence.clone());
        let opened = Connection::open(settings, sign, live, presence).await;
        let connection = match opened {
            Ok(connection) => connection,
            Err(error) => {
                patience.failed_after(began.elapsed());
                if error == ConnectError::Refused {
                    *pass = None;
                }
                return Err(error.into());
            }
        };
        patience.took(began.elapsed());
        Ok(Joined {
            connection,
            grants: known.grants.clone(),
            refresh_at: known.refresh_at().max(Instant::now() + REFRESH_MIN),
        })
    }

    /// Asks the gateway for a pass.
    async fn ask(&self, patience: &mut Patience) -> Result<Pass, GatewayError> {
        let began = Instant::now();
        let info = self.access.server_info().await?;
        let jwt = self.access.call(&wire::JwtRequest {}).await?;
        patience.took(began.elapsed());
        let lifetime = u64::try_from(jwt.expires_ms.saturating_sub(jwt.now_ms)).unwrap_or_default();
        Ok(Pass {
            urls: info.nats_urls,
            grants: Grants::of(&jwt),
            jwt: jwt.jwt,
            got: Instant::now(),
            lifetime: Duration::from_millis(lifetime),
        })
    }
}

async fn sign_nonce(keys: mpsc::Sender<KeyRequest>, nonce: Vec<u8>) -> Option<Vec<u8>> {
    let (answer, signature) = oneshot::channel();
    keys.send(KeyRequest::SignNonce { nonce, answer })
        .await
        .ok()?;
    signature.await.ok().flatten()
}
