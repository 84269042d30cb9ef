//! One sender to one receiver: from the first command to the last text in the
//! receiver's store, beside publishing as many messages to a stream.

use std::time::Instant;

use super::raw::Raw;
use super::stage::Stage;
use super::{Load, Turns, per_second, text};
use crate::figures::Figures;

pub(super) async fn measure(
    stage: &mut Stage,
    load: &Load,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (sender, mut receiver, room) = stage.pair().await?;
    let raw = Raw::start(1).await?;
    let mut turns = Turns::default();
    let count = load.messages;
    let mut length = receiver.length(room).await.unwrap_or_default();
    let mut last = None;
    for _ in 0..load.runs {
        length += count as u64;
        let (cpu, began) = (stage.cpu()?, Instant::now());
        let sending = sender.send(room, (0..count).map(text));
        let (sent, received) = tokio::join!(sending, receiver.wait_for_length(room, length));
        sent?;
        received?;
        let took = began.elapsed();
        last = Some((cpu, stage.cpu()?, took));
        turns.ours.push(per_second(count, took));
        turns.raw.push(per_second(count, raw.publish(count).await?));
    }
    let what = "burst of 1 KiB, one to one";
    turns.note(what, "1/s", 1.0, figures);
    if let Some((before, after, took)) = last {
        after.note(before, took, what, figures);
    }
    sender.session.stop().await;
    receiver.session.stop().await;
    Ok(())
}
