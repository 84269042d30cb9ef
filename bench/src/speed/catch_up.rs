//! A device that was away while much was said in many rooms, beside reading as
//! many messages from a stream.

use std::time::Instant;

use async_nats::jetstream;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures::StreamExt;

use super::raw::Raw;
use super::stage::{Device, Stage};
use super::{Load, Turns, per_second, text};
use crate::figures::Figures;

pub(super) async fn measure(
    stage: &mut Stage,
    load: &Load,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (_, sender) = stage.person()?;
    let mut sender = Device::start(&sender).await?;
    let mut rooms = Vec::new();
    for number in 0..load.backlog_rooms {
        rooms.push(sender.make_room(&format!("room {number}")).await?);
    }
    let mut away = Vec::new();
    for _ in 0..load.runs {
        let (name, person) = stage.person()?;
        for &room in &rooms {
            sender.invite(room, &name).await?;
        }
        let device = Device::start(&person).await?;
        device.session.stop().await;
        away.push(person);
    }
    let each = load.backlog.div_ceil(rooms.len().max(1));
    for &room in &rooms {
        sender.send(room, (0..each).map(text)).await?;
    }
    sender.session.stop().await;
    let count = each * rooms.len();

    let raw = Raw::start(1).await?;
    raw.publish(count).await?;
    let mut turns = Turns::default();
    let mut last = None;
    for person in away {
        let device = Device::open(&person)?;
        let (cpu, began) = (stage.cpu()?, Instant::now());
        device.session.go_online().await;
        device.session.settled().await?;
        let took = began.elapsed();
        last = Some((cpu, stage.cpu()?, took));
        turns.ours.push(per_second(count, took));
        device.session.stop().await;

        let began = Instant::now();
        read(&raw, count).await?;
        turns.raw.push(per_second(count, began.elapsed()));
    }
    let what = format!("catch-up of {count} over {} rooms", rooms.len());
    turns.note(&what, "1/s", 0.8, figures);
    if let Some((before, after, took)) = last {
        after.note(before, took, &what, figures);
    }
    Ok(())
}

async fn read(raw: &Raw, count: usize) -> anyhow::Result<()> {
    let js = jetstream::new(raw.connect().await?);
    let stream = js.get_stream("RAW-0").await?;
    let consumer = stream
        .create_consumer(pull::OrderedConfig {
            deliver_policy: DeliverPolicy::All,
            ..pull::OrderedConfig::default()
        })
        .await?;
    let mut messages = consumer.messages().await?.take(count);
    while let Some(message) = messages.next().await {
        message?;
    }
    Ok(())
}
