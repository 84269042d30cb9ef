//! What devices send to a service of this relay, until the relay retires: then
//! what has come by then, and no more.

use async_nats::{Client, Message, Subscriber};
use futures::StreamExt;
use futures::stream::SelectAll;
use tokio_util::sync::CancellationToken;

/// Any one relay of the group takes a message: the one on the device's own
/// node, as long as it is there.
const QUEUE_GROUP: &str = "relay";

/// The connection to NATS was closed, which it never is while the relay runs.
#[derive(Debug, thiserror::Error)]
#[error("the connection to NATS is closed")]
pub struct ConnectionClosed;

/// What comes on some subjects, each message to one relay of the cluster.
pub struct Intake {
    subscriptions: SelectAll<Subscriber>,
    end: End,
}

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Messages come.
    NotYet,
    /// nats-server was told to send no more.
    Near,
    /// There are no more.
    Here,
}

impl Intake {
    /// What arrives from now on will be given out by [`Self::next`].
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn start(client: &Client, subjects: &[&str]) -> Result<Self, ConnectionClosed> {
        let mut subscriptions = SelectAll::new();
        for &subject in subjects {
            let subscribed = client.queue_subscribe(subject.to_owned(), QUEUE_GROUP.to_owned());
            subscriptions.push(subscribed.await.map_err(|_| ConnectionClosed)?);
        }
        client.flush().await.map_err(|_| ConnectionClosed)?;
        Ok(Self {
            subscriptions,
            end: End::NotYet,
        })
    }

    /// Whether everything was given out, and nothing more comes.
    pub fn has_ended(&self) -> bool {
        self.end == End::Here
    }

    /// The next message; `None` at the end, which is near once `retire` is
    /// cancelled. Nothing is lost when this is dropped while it waits.
    ///
    /// # Errors
    /// When the connection is closed.
    pub async fn next(
        &mut self,
        retire: &CancellationToken,
    ) -> Result<Option<Message>, ConnectionClosed> {
        loop {
            tokio::select! {
                () = retire.cancelled(), if self.end == End::NotYet => {
                    // Told twice when this is dropped before all were told,
                    // which changes nothing.
                    for subscription in self.subscriptions.iter_mut() {
                        subscription.drain().await.map_err(|_| ConnectionClosed)?;
                    }
                    self.end = End::Near;
                }
                message = self.subscriptions.next(), if self.end != End::Here => {
                    return match (message, self.end) {
                        (Some(message), _) => Ok(Some(message)),
                        (None, End::NotYet) => Err(ConnectionClosed),
                        (None, _) => {
                            self.end = End::Here;
                            Ok(None)
                        }
                    };
                }
                else => return Ok(None),
            }
        }
    }
}
