//! What nodes say to one that keeps the keys: one question and one answer per
//! TLS connection, JSON behind a length of four bytes, big-endian.

use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sotto_service::Layout;
use sotto_service::cluster::{self, Endpoint, Member, Members, NodeName};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use zeroize::Zeroizing;

use super::bundle::{Bundle, KeeperFiles};

/// How long a question with its answer may take.
pub const TIMEOUT: Duration = Duration::from_secs(20);
/// Longest question, in bytes.
pub const QUESTION_MAX: u32 = 64 * 1024;
/// Longest answer, in bytes: two credentials and two accounts per org, and the
/// sealed key store.
pub const ANSWER_MAX: u32 = 64 * 1024 * 1024;

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Question {
    /// To be let in.
    Join(Box<Join>),
    /// What is new, by a node.
    Sync {
        /// The serial of the list of nodes that is known.
        serial: u64,
        /// The digest of the bundle that is known.
        digest: String,
    },
}

/// A node that wants to be one.
#[derive(Serialize, Deserialize)]
pub struct Join {
    /// The secret of its token, base64url.
    pub secret: String,
    /// The name that it chose.
    pub name: NodeName,
    /// Where the other nodes will reach its nats-server.
    pub routes: Endpoint,
    /// Where they will reach its relay.
    pub admission: Endpoint,
    /// Where clients will reach its nats-server.
    pub clients: Endpoint,
    /// The hosts that its certificate for clients must be for.
    pub hosts: Vec<String>,
    /// Its public key among nodes, PEM.
    pub node_key: String,
    /// Its public key for clients, PEM.
    pub server_key: String,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The node is one now.
    Admitted(Box<Admitted>),
    /// What is new; nothing where nothing is.
    Synced {
        /// The list of nodes.
        members: Option<Members>,
        /// What relays need.
        bundle: Option<Box<Bundle>>,
    },
    /// No, and why: a sentence for people.
    Refused(String),
    /// Not now, and why: it may be asked again.
    Later(String),
}

/// All that makes a machine a node.
#[derive(Serialize, Deserialize)]
pub struct Admitted {
    /// All nodes, the new one among them.
    pub members: Members,
    /// The keeper's `server.toml`.
    pub config: String,
    /// The certificate of the authority that clients know, PEM.
    pub authority: String,
    /// The certificate of the cluster's authority, PEM.
    pub cluster_authority: String,
    /// The node's certificate for clients and what is behind it, PEM.
    pub server_certificate: String,
    /// The node's certificate among nodes, PEM.
    pub node_certificate: String,
    /// What relays need.
    pub bundle: Bundle,
    /// What gateways need besides, for one that joins as a gateway.
    pub keys: Option<KeeperFiles>,
}

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The connection.
    #[error("the connection broke: {0}")]
    Io(#[from] std::io::Error),
    /// It takes too long.
    #[error("there is no answer within {} s", TIMEOUT.as_secs())]
    Slow,
    /// The other side says something that cannot be.
    #[error("what the other side says does not read: do both run the same version of Sotto?")]
    Garbage,
}

sotto_log::log_safe!(ExchangeError);

/// A connection to a node of the cluster, which the node shows to be called
/// `name`: any node, or one that keeps the keys.
///
/// # Errors
/// When it is not there, or is another machine.
pub async fn reach(
    layout: &Layout,
    node: &Member,
    name: &'static str,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let tls = TlsConnector::from(Arc::new(cluster::client_config(layout)?));
    let tcp = TcpStream::connect(node.admission.to_string()).await?;
    Ok(tls.connect(ServerName::try_from(name)?, tcp).await?)
}

/// Writes one message.
///
/// # Errors
/// When the connection breaks.
pub async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &impl Serialize,
) -> Result<(), ExchangeError> {
    let json = serde_json::to_vec(message).map_err(|_| ExchangeError::Garbage)?;
    let json = Zeroizing::new(json);
    let length = u32::try_from(json.len()).map_err(|_| ExchangeError::Garbage)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&json).await?;
    stream.flush().await?;
    Ok(())
}

/// Reads one message of at most `max` bytes.
///
/// # Errors
/// When it is longer, does not read, or does not come whole.
pub async fn receive<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
    max: u32,
) -> Result<T, ExchangeError> {
    let length = stream.read_u32().await?;
    if length > max {
        return Err(ExchangeError::Garbage);
    }
    // Grows with what comes, not with what is announced.
    let mut json = Zeroizing::new(Vec::new());
    let read = stream.take(length.into()).read_to_end(&mut json).await?;
    if u32::try_from(read).ok() != Some(length) {
        return Err(ExchangeError::Garbage);
    }
    serde_json::from_slice(&json).map_err(|_| ExchangeError::Garbage)
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Admitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admitted")
            .field("members", &self.members)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// JSON as somebody might write who knows the names.
    const ALIKE: &str = r#"[\[\]{}:,"0-9 ]|"(Join|Sync|serial|digest|secret|name|routes|Admitted|Synced|members|nodes|bundle|Refused)":?"#;

    proptest! {
        #[test]
        fn whatever_comes_is_a_message_or_garbage(
            announced in 0..200u32,
            words in proptest::collection::vec(ALIKE, 0..40),
            noise in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let json = [words.concat().as_bytes(), &noise].concat();
            let length = announced.to_be_bytes();
            let wire = [&length[..], &json].concat();
            let (mut asked, mut answered) = (&wire[..], &wire[..]);
            let (question, answer) = futures::executor::block_on(async {
                (
                    receive::<Question>(&mut asked, 100).await,
                    receive::<Answer>(&mut answered, 100).await,
                )
            });
            if announced > 100 || usize::try_from(announced).unwrap() > json.len() {
                prop_assert!(question.is_err() && answer.is_err());
            }
            prop_assert_eq!(asked.len(), answered.len());
        }
    }

    #[tokio::test]
    async fn messages_come_back_and_long_or_broken_ones_are_refused() {
        let mut wire = Vec::new();
        let question = Question::Sync {
            serial: 3,
            digest: "d".to_owned(),
        };
        send(&mut wire, &question).await.unwrap();
        let read: Question = receive(&mut wire.as_slice(), QUESTION_MAX).await.unwrap();
        assert!(matches!(read, Question::Sync { serial: 3, .. }));
        assert!(receive::<Question>(&mut wire.as_slice(), 4).await.is_err());
        let short = wire.get(..wire.len() - 1).unwrap();
        assert!(
            receive::<Question>(&mut &*short, QUESTION_MAX)
                .await
                .is_err()
        );
        let huge = u32::MAX.to_be_bytes();
        assert!(
            receive::<Answer>(&mut huge.as_slice(), ANSWER_MAX)
                .await
                .is_err()
        );
    }
}
