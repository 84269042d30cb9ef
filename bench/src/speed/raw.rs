//! Raw NATS: the same nats-server, no TLS, no accounts, nothing but the work.

use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::TEXT;
use crate::nats::NatsServer;

/// Publishes that wait for their acknowledgement at a time.
const OUTSTANDING: usize = 256;

/// A stream on a server of its own.
pub(super) struct Raw {
    server: NatsServer,
}

impl Raw {
    pub(super) async fn start(streams: usize) -> anyhow::Result<Self> {
        let server = NatsServer::start()?;
        let js = jetstream::new(server.connect().await?);
        for number in 0..streams {
            js.create_stream(stream::Config {
                name: format!("RAW-{number}"),
                subjects: vec![format!("raw.{number}.>")],
                allow_direct: true,
                ..stream::Config::default()
            })
            .await?;
        }
        Ok(Self { server })
    }

    pub(super) async fn connect(&self) -> anyhow::Result<async_nats::Client> {
        self.server.connect().await
    }

    /// Publishes messages of 1 KiB, 256 outstanding; how long that took.
    pub(super) async fn publish(&self, messages: usize) -> anyhow::Result<Duration> {
        self.publish_sized(messages, TEXT, OUTSTANDING).await
    }

    /// Publishes messages of a size with so many outstanding; how long until
    /// the last is acknowledged.
    pub(super) async fn publish_sized(
        &self,
        messages: usize,
        size: usize,
        outstanding: usize,
    ) -> anyhow::Result<Duration> {
        let client = self.connect().await?;
        let began = Instant::now();
        publish(client, "raw.0.x".to_owned(), messages, size, outstanding).await?;
        Ok(began.elapsed())
    }
}

/// Publishes to one subject.
pub(super) async fn publish(
    client: async_nats::Client,
    subject: String,
    messages: usize,
    size: usize,
    outstanding: usize,
) -> anyhow::Result<()> {
    let js = jetstream::new(client);
    let payload = Bytes::from(vec![7; size]);
    let mut waiting = FuturesUnordered::new();
    for _ in 0..messages {
        waiting.push(
            js.publish(subject.clone(), payload.clone())
                .await?
                .into_future(),
        );
        if waiting.len() == outstanding
            && let Some(acknowledged) = waiting.next().await
        {
            acknowledged?;
        }
    }
    while let Some(acknowledged) = waiting.next().await {
        acknowledged?;
    }
    Ok(())
}
