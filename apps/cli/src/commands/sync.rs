//! `sotto sync`: sends what is queued, files too, and gets what is new.

use std::cell::Cell;

use serde_json::json;
use sotto_client_native::files::Upload;
use sotto_client_native::session::CommandError;
use sotto_proto::FileId;
use tokio::time::{Instant, sleep_until};

use crate::device::{Context, Device};

pub async fn run(context: &Context) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let before = totals(&device).await?;
    let settled = device.settle("Getting what is new").await;
    // It does not keep files from being sent elsewhere.
    let held = match settled {
        Err(error) if matches!(error.downcast_ref(), Some(CommandError::Held(_))) => Some(error),
        settled => {
            settled?;
            None
        }
    };
    let uploads = device.session.look(|engine, _| {
        let uploads = engine.uploads().map(|upload| upload.file);
        uploads.collect::<Vec<_>>()
    });
    for file in uploads.await? {
        let reopened = Upload::reopen(&device.session, file);
        let upload = context
            .output
            .patiently("Reading the file", reopened)
            .await?;
        let name = upload.name().to_owned();
        let Some(file) = transfer(context, &mut device, upload).await? else {
            return Err(device.reports.away("the file stays queued"));
        };
        context.output.say(
            &json!({ "event": "file_sent", "file": file, "name": name }),
            format_args!("Sent {name}."),
        )?;
    }
    let after = totals(&device).await?;
    let sent = before.queued.saturating_sub(after.queued);
    let received = after.history.saturating_sub(before.history + sent);
    let mut news = Vec::new();
    if sent > 0 {
        news.push(format!("Sent {sent} that waited."));
    }
    if received > 0 {
        news.push(format!("{received} new: `sotto rooms` shows where."));
    }
    if news.is_empty() {
        news.push("Nothing new.".to_owned());
    }
    context.output.say(
        &json!({
            "event": "synced", "requests": device.reports.requests, "sent": sent,
            "received": received, "queued": after.queued,
        }),
        news.join(" "),
    )?;
    device.session.stop().await;
    held.map_or(Ok(()), Err)
}

/// Sends a file, or what is missing of it; the id that it has in the room, or
/// `None` when nothing had moved for as long as a person wants to wait.
pub async fn transfer(
    context: &Context,
    device: &mut Device,
    upload: Upload,
) -> anyhow::Result<Option<FileId>> {
    let (output, wait) = (context.output, context.global.wait);
    let bar = output.transfer(upload.name(), upload.size());
    let moved = Cell::new(Instant::now());
    let Device {
        session, reports, ..
    } = device;
    let transfer = upload.transfer(session, |stored| {
        bar.set_position(stored);
        moved.set(Instant::now());
    });
    let stuck = async {
        while moved.get().elapsed() < wait {
            sleep_until(moved.get() + wait).await;
        }
    };
    let transferred = async {
        tokio::select! {
            result = transfer => result.map(Some),
            () = stuck => Ok(None),
        }
    };
    let transferred = reports.meanwhile(transferred).await;
    bar.finish_and_clear();
    Ok(transferred??)
}

/// Sums over all rooms.
struct Totals {
    history: u64,
    queued: u64,
}

async fn totals(device: &Device) -> anyhow::Result<Totals> {
    let rooms = device.session.look(|engine, _| engine.rooms()).await?;
    Ok(Totals {
        history: rooms.iter().map(|room| room.history_length).sum(),
        queued: rooms.iter().map(|room| room.queued).sum(),
    })
}
