//! `sotto send`: texts and files. Everything is durable on this device before
//! the network is touched; what does not get through in time stays queued and
//! goes with the next command.

use std::io::{IsTerminal, Read};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use sotto_client_core::engine::RoomSummary;
use sotto_client_core::io::Command;
use sotto_client_native::files::Upload;
use sotto_client_native::session::Progress;
use sotto_proto::limits;
use tokio::time::{Instant, sleep_until};

use crate::arguments;
use crate::commands::{rooms, sync};
use crate::device::{Context, Device, Report};

/// Longest standard input, in bytes.
const INPUT: u64 = 64 * 1024 * 1024;

pub async fn run(context: &Context, what: &arguments::Send) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let room = device.room(&what.room).await?;
    match (&what.text, &what.file) {
        (Some(text), _) => texts(context, &mut device, &room, vec![text.clone()]).await?,
        (None, Some(path)) => file(context, &mut device, &room, path).await?,
        (None, None) => texts(context, &mut device, &room, lines()?).await?,
    }
    device.session.stop().await;
    Ok(())
}

fn lines() -> anyhow::Result<Vec<String>> {
    let stdin = std::io::stdin().lock();
    if stdin.is_terminal() {
        bail!("standard input is the terminal: give the text itself, or pipe lines in");
    }
    let mut input = String::new();
    stdin
        .take(INPUT + 1)
        .read_to_string(&mut input)
        .context("standard input does not read as UTF-8 text")?;
    ensure!(
        input.len() as u64 <= INPUT,
        "standard input is longer than {} MiB: send it in parts, or as a file",
        INPUT >> 20
    );
    let lines = input.lines().filter(|line| !line.is_empty());
    let texts: Vec<String> = lines.map(str::to_owned).collect();
    if let Some(long) = texts.iter().position(|text| text.len() > limits::TEXT) {
        bail!(
            "text {} is longer than {} bytes, so nothing was sent: shorten it, or send a file",
            long + 1,
            limits::TEXT
        );
    }
    ensure!(
        !texts.is_empty(),
        "standard input holds no text: nothing was sent"
    );
    Ok(texts)
}

async fn texts(
    context: &Context,
    device: &mut Device,
    room: &RoomSummary,
    texts: Vec<String>,
) -> anyhow::Result<()> {
    let (output, wait) = (context.output, context.global.wait);
    let command = Command::SendTexts {
        room: room.room,
        texts,
    };
    let mut running = device.session.command(command).await;
    let Progress::Queued { first, last } = running.next().await? else {
        bail!("the texts were not queued: run the command again");
    };
    let count = last - first + 1;
    output.say_json(&json!({
        "event": "queued", "queued": count, "room": room.room, "first": first, "last": last,
    }))?;
    device.session.go_online().await;
    let bar = output.count("Sending", count);
    let deadline = Instant::now() + wait;
    let done = loop {
        tokio::select! {
            biased;
            report = device.reports.next() => match report? {
                Report::Sent { room: sent_in, through } if sent_in == room.room && through >= first => {
                    let through = through.min(last);
                    output.say_json(&json!({ "event": "sent", "sent": through, "room": room.room }))?;
                    bar.set_position(through + 1 - first);
                }
                _ => {}
            },
            progress = running.next() => match progress {
                Ok(Progress::Done { .. }) => break true,
                Ok(_) => {}
                // They stay in the outbox, whatever the reason.
                Err(error) => {
                    output.say_json(&kept(room))?;
                    return Err(error.into());
                }
            },
            () = sleep_until(deadline) => break false,
        }
    };
    bar.finish_and_clear();
    let what = match count {
        1 => "Sent".to_owned(),
        count => format!("Sent all {count}"),
    };
    match done {
        true => output.say(
            &json!({ "event": "done", "done": "sent", "room": room.room }),
            format_args!("{what} to {}.", rooms::name(room)),
        )?,
        false => queued(
            context,
            device,
            room,
            "it goes with the next command, or with `sotto sync`",
        )?,
    }
    Ok(())
}

/// What programs are told when nothing more goes out now.
fn kept(room: &RoomSummary) -> Value {
    json!({ "event": "done", "done": "queued", "room": room.room })
}

/// The time is over; everything is safe here.
fn queued(
    context: &Context,
    device: &Device,
    room: &RoomSummary,
    next: &str,
) -> anyhow::Result<()> {
    let why = match device.reports.is_online() {
        true => "the server is slow",
        false => "the server is not there",
    };
    context.output.say(
        &kept(room),
        format_args!("Queued on this device ({why}): {next}."),
    )?;
    Ok(())
}

async fn file(
    context: &Context,
    device: &mut Device,
    room: &RoomSummary,
    path: &Path,
) -> anyhow::Result<()> {
    let output = context.output;
    let begun = Upload::begin(&device.session, room.room, path);
    let upload = output.patiently("Reading the file", begun).await?;
    let (file, name) = (upload.file(), upload.name().to_owned());
    output.say_json(&json!({
        "event": "queued", "queued": 1, "room": room.room, "file": file, "name": name,
        "size": upload.size(),
    }))?;
    device.session.go_online().await;
    match sync::transfer(context, device, upload).await? {
        Some(file) => output.say(
            &json!({ "event": "done", "done": "sent", "room": room.room, "file": file }),
            format_args!("Sent {name} to {}.", rooms::name(room)),
        )?,
        None => queued(context, device, room, "`sotto sync` goes on")?,
    }
    Ok(())
}
