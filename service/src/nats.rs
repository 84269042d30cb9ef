//! The connection of a server process to nats-server: TLS first, under the
//! server's own authority, with the credentials of one account.

mod credentials;
pub mod demands;
pub mod jetstream;

use std::path::Path;
use std::time::Duration;

use async_nats::client::SetServerPoolErrorKind;
use async_nats::{Client, ConnectOptions, Event};

use crate::cluster::{Cluster, ClusterError};
use crate::private_files::FileError;
use crate::tls::{self, TlsError};
use crate::{Layout, ServerConfig};
use credentials::CredentialsFile;

/// How long the first connection is tried for.
const FIRST_CONNECTION: Duration = Duration::from_secs(30);
/// How often it is looked who the nodes are.
const NODES: Duration = Duration::from_secs(2);
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// As whom a process connects.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// What monitoring shows.
    pub name: &'a str,
    /// The credentials file.
    pub credentials: &'a Path,
    /// The prefix of the replies' subjects that the credentials allow.
    pub inbox_prefix: &'a str,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum NatsError {
    /// The credentials file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The authority's certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The nodes of the cluster.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The credentials file does not hold credentials.
    #[error("{0} does not hold NATS credentials: restore it from a backup")]
    Credentials(String),
    /// nats-server does not answer, or refuses.
    #[error("cannot connect to NATS at {url}: {problem}; see the log in the server's nats folder")]
    Unreachable {
        /// Where.
        url: String,
        /// The last of the attempts' errors.
        problem: String,
    },
}

sotto_log::log_safe!(NatsError);

/// Connects, trying for half a minute; afterwards the connection is restored
/// for ever, and made anew when the credentials file is another one. It stays
/// until it is drained or the process ends.
///
/// # Errors
/// When the files do not read or nats-server cannot be reached.
pub async fn connect(
    layout: &Layout,
    config: &ServerConfig,
    login: Login<'_>,
) -> Result<Client, NatsError> {
    connect_bounded(layout, config, login, Queues::default()).await
}

/// How many messages wait in a process at most.
#[derive(Debug, Clone, Copy)]
pub struct Queues {
    /// For one subscription's reader; what comes beyond is dropped.
    pub incoming: usize,
    /// For the socket; whoever publishes beyond waits.
    pub outgoing: usize,
}

impl Default for Queues {
    /// What async-nats has.
    fn default() -> Self {
        Self {
            incoming: 65_536,
            outgoing: 2_048,
        }
    }
}

/// As [`connect`], with queues of these lengths.
///
/// # Errors
/// As [`connect`].
pub async fn connect_bounded(
    layout: &Layout,
    config: &ServerConfig,
    login: Login<'_>,
    queues: Queues,
) -> Result<Client, NatsError> {
    connect_to(layout, vec![config.local_nats_url()], login, queues).await
}

/// As [`connect`], to this machine or, while it does not answer, to any other
/// node of the cluster, whoever is one by then.
///
/// # Errors
/// As [`connect`].
pub async fn connect_to_any(
    layout: &Layout,
    config: &ServerConfig,
    login: Login<'_>,
) -> Result<Client, NatsError> {
    let urls = urls(layout, config)?;
    let client = connect_to(layout, urls.clone(), login, Queues::default()).await?;
    tokio::spawn(follow(client.clone(), layout.clone(), config.clone(), urls));
    Ok(client)
}

fn urls(layout: &Layout, config: &ServerConfig) -> Result<Vec<String>, ClusterError> {
    let mut urls = vec![config.local_nats_url()];
    if let Some(cluster) = Cluster::load(layout)? {
        urls.extend(cluster.others().map(|node| node.nats_url.clone()));
    }
    Ok(urls)
}

/// Tells a client of the nodes as they change, until it is closed for good.
async fn follow(client: Client, layout: Layout, config: ServerConfig, mut known: Vec<String>) {
    loop {
        tokio::time::sleep(NODES).await;
        let now = match urls(&layout, &config) {
            Ok(now) if now != known => now,
            Ok(_) => continue,
            Err(error) => {
                sotto_log::debug!(error, "the nodes are not known");
                continue;
            }
        };
        match client.set_server_pool(now.as_slice()).await {
            Ok(()) => known = now,
            Err(error) if error.kind() == SetServerPoolErrorKind::Send => return,
            Err(error) => sotto_log::warn!(error, "a connection does not learn of other nodes"),
        }
    }
}

async fn connect_to(
    layout: &Layout,
    urls: Vec<String>,
    login: Login<'_>,
    queues: Queues,
) -> Result<Client, NatsError> {
    let credentials = CredentialsFile::open(login.credentials.to_owned())?;
    let tls = tls::client_config(layout)?;
    let url = urls.join(", ");
    let deadline = tokio::time::Instant::now() + FIRST_CONNECTION;
    let mut attempt = 0;
    loop {
        let file = credentials.clone();
        let answer = move |nonce| file.clone().answer(nonce);
        let options = ConnectOptions::with_auth_callback(answer)
            .name(login.name)
            .custom_inbox_prefix(login.inbox_prefix)
            .tls_client_config(tls.clone())
            .tls_first()
            .ignore_discovered_servers()
            .retain_servers_order()
            .subscription_capacity(queues.incoming)
            .client_capacity(queues.outgoing)
            .reconnect_delay_callback(retry_delay)
            .event_callback(report);
        match options.connect(urls.as_slice()).await {
            Ok(client) => {
                tokio::spawn(credentials.follow(client.clone()));
                return Ok(client);
            }
            Err(error) if tokio::time::Instant::now() >= deadline => {
                return Err(NatsError::Unreachable {
                    url,
                    problem: error.to_string(),
                });
            }
            Err(_) => {
                attempt += 1;
                tokio::time::sleep(retry_delay(attempt)).await;
            }
        }
    }
}

/// Doubles from 50 ms to 2 s.
fn retry_delay(attempt: usize) -> Duration {
    let factor = 1 << attempt.saturating_sub(1).min(6);
    (RETRY_MIN * factor).min(RETRY_MAX)
}

async fn report(event: Event) {
    match event {
        Event::Connected => sotto_log::debug!("connected to NATS"),
        Event::Disconnected => sotto_log::warn!("the connection to NATS is lost"),
        Event::ServerError(error) => sotto_log::warn!(error, "NATS refuses something"),
        other => sotto_log::debug!(event = other, "NATS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_slow_down_and_stay_bounded() {
        assert_eq!(retry_delay(1), RETRY_MIN);
        assert_eq!(retry_delay(2), RETRY_MIN * 2);
        assert_eq!(retry_delay(usize::MAX), RETRY_MAX);
    }
}
