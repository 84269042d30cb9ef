//! Many senders, each in a room of their own, until all that they said is
//! acknowledged, beside as many connections that publish.

use std::time::Instant;

use futures::future::try_join_all;

use super::raw::{self, Raw};
use super::stage::{Device, Stage};
use super::{Load, TEXT, Turns, per_second, text};
use crate::figures::Figures;

/// Publishes of one raw connection that wait for their acknowledgement.
const OUTSTANDING: usize = 256;

pub(super) async fn measure(
    stage: &mut Stage,
    load: &Load,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let mut senders = Vec::new();
    for _ in 0..load.senders {
        let (_, person) = stage.person()?;
        let mut device = Device::start(&person).await?;
        let room = device.make_room("bench").await?;
        senders.push((device, room));
    }
    let shards = usize::from(load.shards.get());
    let raw = Raw::start_on(load.nodes, shards).await?;
    let each = load.messages.div_ceil(load.senders.max(1));
    let count = each * load.senders;
    let mut turns = Turns::default();
    let mut last = None;
    for _ in 0..load.runs {
        let (cpu, began) = (stage.cpu()?, Instant::now());
        let sending = senders
            .iter()
            .map(|(device, room)| device.send(*room, (0..each).map(text)));
        try_join_all(sending).await?;
        let took = began.elapsed();
        last = Some((cpu, stage.cpu()?, took));
        turns.ours.push(per_second(count, took));

        let mut clients = Vec::new();
        for number in 0..load.senders {
            clients.push(raw.connect_to(number).await?);
        }
        let began = Instant::now();
        let publishing = clients.into_iter().enumerate().map(|(number, client)| {
            let subject = format!("raw.{}.{number}", number % shards);
            raw::publish(client, subject, each, TEXT, OUTSTANDING)
        });
        try_join_all(publishing).await?;
        turns.raw.push(per_second(count, began.elapsed()));
    }
    let what = format!(
        "{} senders in as many rooms, nodes {}, shards {}",
        load.senders, load.nodes, load.shards
    );
    turns.note(&what, "1/s", 1.0, figures);
    if let Some((before, after, took)) = last {
        after.note(before, took, &what, figures);
    }
    for (device, _) in senders {
        device.session.stop().await;
    }
    Ok(())
}
