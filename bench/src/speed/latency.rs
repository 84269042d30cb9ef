//! From a text that is given to the sender's client to the same text in the
//! receiver's store, beside a request and its reply.

use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::time::sleep;

use super::raw::Raw;
use super::stage::Stage;
use super::{Load, text};
use crate::figures::{Figures, percentile};

/// Texts that are timed.
const SAMPLES: usize = 300;

/// Between two of them.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) async fn measure(
    stage: &mut Stage,
    load: &Load,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (sender, mut receiver, room) = stage.pair().await?;
    let (loud, mut heard, other) = stage.pair().await?;
    for busy in [false, true] {
        let mut length = receiver.length(room).await.unwrap_or_default();
        let timed = async {
            let mut times = Vec::new();
            for number in 0..SAMPLES {
                length += 1;
                let began = Instant::now();
                let sending = sender.send(room, std::iter::once(text(number)));
                let shown = receiver.wait_for_length(room, length);
                let (sent, shown) = tokio::join!(sending, shown);
                sent?;
                shown?;
                times.push(began.elapsed());
                sleep(PAUSE).await;
            }
            anyhow::Ok(times)
        };
        let noise = async {
            // Half of the time as much as goes through.
            let portion = load.messages / 20;
            if !busy {
                return std::future::pending().await;
            }
            loop {
                let before = heard.length(other).await.unwrap_or_default();
                let began = Instant::now();
                loud.send(other, (0..portion).map(text)).await?;
                heard
                    .wait_for_length(other, before + portion as u64)
                    .await?;
                sleep(began.elapsed()).await;
            }
        };
        let mut times = tokio::select! {
            times = timed => times?,
            failed = noise => return failed,
        };
        let when = if busy { "at half load" } else { "idle" };
        let p50 = percentile(&mut times, 0.5);
        let p99 = percentile(&mut times, 0.99);
        figures.note(format!("send to shown, {when}: p50"), p50, "us", None);
        figures.note(format!("send to shown, {when}: p99"), p99, "us", None);
    }
    let mut times = request_reply().await?;
    figures.note(
        "raw request and reply: p50",
        percentile(&mut times, 0.5),
        "us",
        None,
    );
    figures.note(
        "raw request and reply: p99",
        percentile(&mut times, 0.99),
        "us",
        None,
    );
    for device in [sender, receiver, loud, heard] {
        device.session.stop().await;
    }
    Ok(())
}

async fn request_reply() -> anyhow::Result<Vec<Duration>> {
    let raw = Raw::start(0).await?;
    let (asking, answering) = (raw.connect().await?, raw.connect().await?);
    let mut requests = answering.subscribe("echo").await?;
    answering.flush().await?;
    tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            if let Some(reply) = request.reply {
                // An error means that the measurement is over.
                let _ = answering.publish(reply, request.payload).await;
            }
        }
    });
    let mut times = Vec::new();
    for number in 0..SAMPLES {
        let began = Instant::now();
        asking.request("echo", text(number).into()).await?;
        times.push(began.elapsed());
        sleep(PAUSE).await;
    }
    Ok(times)
}
