//! Raw NATS: the same nats-server, no TLS, no accounts, nothing but the work.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use async_nats::jetstream::{self, stream};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::sleep;

use super::TEXT;
use crate::nats::NatsServer;

/// Publishes that wait for their acknowledgement at a time.
const OUTSTANDING: usize = 256;

/// How long servers may take to find each other and agree on a leader.
const ELECTIONS: Duration = Duration::from_secs(30);

/// Streams on servers of their own.
pub(super) struct Raw {
    servers: Vec<NatsServer>,
}

impl Raw {
    /// One server with so many streams, `RAW-n` for `raw.n.>`.
    pub(super) async fn start(streams: usize) -> anyhow::Result<Self> {
        Self::start_on(1, streams).await
    }

    /// So many servers, each with a copy of each stream.
    pub(super) async fn start_on(nodes: usize, streams: usize) -> anyhow::Result<Self> {
        let servers = NatsServer::start_cluster(nodes)?;
        let raw = Self { servers };
        let js = jetstream::new(raw.connect().await?);
        for number in 0..streams {
            let config = stream::Config {
                name: format!("RAW-{number}"),
                subjects: vec![format!("raw.{number}.>")],
                num_replicas: nodes,
                allow_direct: true,
                ..stream::Config::default()
            };
            let began = Instant::now();
            while let Err(error) = js.create_stream(config.clone()).await {
                ensure!(began.elapsed() < ELECTIONS, "no stream: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(raw)
    }

    /// A connection to one of the servers.
    pub(super) async fn connect(&self) -> anyhow::Result<async_nats::Client> {
        self.connect_to(0).await
    }

    /// A connection; by number they spread over the servers.
    pub(super) async fn connect_to(&self, number: usize) -> anyhow::Result<async_nats::Client> {
        let server = self
            .servers
            .iter()
            .cycle()
            .nth(number % self.servers.len().max(1));
        server.context("no server")?.connect().await
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
    let js = patient(client);
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

/// Many publishers at once wait for the disk for longer than the library does
/// of itself.
fn patient(client: async_nats::Client) -> jetstream::Context {
    let mut js = jetstream::new(client);
    js.set_timeout(Duration::from_secs(60));
    js
}
