//! One sender to many: a device that decrypts and connections that only count
//! what the stream republishes, beside core NATS to the same connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use async_nats::Client;
use futures::StreamExt;
use sotto_e2e::tap::{self, Crowd};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::stage::Stage;
use super::{Load, TEXT, Turns, per_second, text};
use crate::figures::Figures;

/// How long all that was sent may take to arrive.
const PATIENCE: Duration = Duration::from_secs(120);

/// Deliveries of one run.
const DELIVERIES: usize = 500_000;

pub(super) async fn measure(
    stage: &mut Stage,
    load: &Load,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let org = "acme".parse()?;
    let connections = Crowd::new(stage.layout()?, &org)?;
    let (sender, mut receiver, room) = stage.pair().await?;
    for listeners in [100, load.listeners] {
        let counted = Arc::new(Counted::default());
        let mut crowd = JoinSet::new();
        for _ in 0..listeners {
            let client = connections.hear().await?;
            listen(client, Arc::clone(&counted), &mut crowd).await?;
        }
        let raw_sender = connections.hear().await?;
        let count = (DELIVERIES / listeners).min(1_000);
        let mut turns = Turns::default();
        let mut length = receiver.length(room).await.unwrap_or_default();
        let mut last = None;
        for _ in 0..load.runs {
            length += count as u64;
            let (cpu, began) = (stage.cpu()?, Instant::now());
            let sending = sender.send(room, (0..count).map(text));
            let (sent, received) = tokio::join!(sending, receiver.wait_for_length(room, length));
            sent?;
            received?;
            // What comes last on a connection comes after all that was live.
            let before = counted.raw.load(Ordering::Relaxed);
            raw_sender.publish(tap::MARK, text(0).into()).await?;
            raw_sender.flush().await?;
            counted.raw_at_least(before + listeners as u64).await?;
            counted.live_is_alike(listeners)?;
            let took = began.elapsed();
            last = Some((cpu, stage.cpu()?, took));
            turns.ours.push(per_second(count * listeners, took));

            let before = counted.raw.load(Ordering::Relaxed);
            let began = Instant::now();
            for number in 0..count {
                raw_sender.publish(tap::MARK, text(number).into()).await?;
            }
            raw_sender.flush().await?;
            counted
                .raw_at_least(before + (count * listeners) as u64)
                .await?;
            turns
                .raw
                .push(per_second(count * listeners, began.elapsed()));
        }
        let what = format!("1 KiB to {listeners} listeners, deliveries");
        turns.note(&what, "1/s", 0.9, figures);
        if let Some((before, after, took)) = last {
            after.note(before, took, &what, figures);
        }
    }
    sender.session.stop().await;
    receiver.session.stop().await;
    Ok(())
}

/// What all connections have heard together.
#[derive(Default)]
struct Counted {
    live: AtomicU64,
    raw: AtomicU64,
}

impl Counted {
    /// That every connection has heard every frame.
    fn live_is_alike(&self, listeners: usize) -> anyhow::Result<()> {
        let live = self.live.load(Ordering::Relaxed);
        let whole = live > 0 && live.is_multiple_of(listeners as u64);
        ensure!(whole, "a connection has not heard everything");
        Ok(())
    }

    async fn raw_at_least(&self, least: u64) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.raw.load(Ordering::Relaxed) < least {
            ensure!(began.elapsed() < PATIENCE, "not everything was heard");
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }
}

async fn listen(
    client: Client,
    counted: Arc<Counted>,
    crowd: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let mut live = client.subscribe("live.r.>").await?;
    let mut raw = client.subscribe(tap::MARK).await?;
    client.flush().await?;
    crowd.spawn(async move {
        loop {
            tokio::select! {
                Some(message) = live.next() => {
                    // Commits are not what is measured.
                    if message.subject.ends_with(".msg") {
                        counted.live.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Some(message) = raw.next() => {
                    debug_assert_eq!(message.payload.len(), TEXT);
                    counted.raw.fetch_add(1, Ordering::Relaxed);
                }
                else => return,
            }
        }
    });
    Ok(())
}
