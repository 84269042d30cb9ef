//! `sotto files`: the files that were sent to a room.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use data_encoding::HEXLOWER;
use serde_json::json;
use sotto_client_core::engine::RoomSummary;
use sotto_client_core::history::{Content, HistoryRecord};
use sotto_client_native::files::{download, safe_name};
use sotto_proto::{FileId, RoomId, wire};

use crate::device::{Context, Device};
use crate::times;

/// Records that are read at a time.
const PAGE: u64 = 500;

pub async fn list(context: &Context, room: &str) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let room = device.room(room).await?;
    let files = files(&device, room.room).await?;
    for (record, file) in &files {
        let moment = times::local(record.sent_at.0);
        let id = FileId::try_from(&file.file)?;
        context.output.say(
            &json!({
                "event": "file", "file": id, "name": file.name, "size": file.size,
                "sha256": HEXLOWER.encode(&file.sha256), "user": record.user,
                "sent_at": record.sent_at.0, "position": record.position,
            }),
            format_args!(
                "{}\n    {} bytes, from {}, {}, {}\n    {id}",
                file.name,
                file.size,
                record.user,
                times::day(&moment),
                times::clock(&moment),
            ),
        )?;
    }
    if files.is_empty() {
        context
            .output
            .note("No files here; `sotto sync` gets what is new.");
    }
    Ok(())
}

pub async fn get(
    context: &Context,
    room: &str,
    name: &str,
    target: Option<PathBuf>,
) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let room = device.room(room).await?;
    let file = find(&device, &room, name).await?;
    let target = match target {
        Some(path) if path.is_dir() => path.join(safe_name(&file.name)),
        Some(path) => path,
        None => PathBuf::from(safe_name(&file.name)),
    };
    let address = room
        .address
        .as_ref()
        .context("the room is not on the server yet")?;

    device.session.go_online().await;
    let bar = context.output.transfer(&file.name, file.size);
    let Device {
        session, reports, ..
    } = &mut device;
    let got = download(session, address, &file, &target, |here| {
        bar.set_position(here)
    });
    let got = reports.meanwhile(got).await;
    bar.finish_and_clear();
    got??;
    say_saved(context, &file, &target)?;
    device.session.stop().await;
    Ok(())
}

fn say_saved(context: &Context, file: &wire::File, target: &Path) -> anyhow::Result<()> {
    let target = target.display().to_string();
    context.output.say(
        &json!({
            "event": "saved", "path": target, "size": file.size,
            "sha256": HEXLOWER.encode(&file.sha256),
        }),
        format_args!("Saved {target}."),
    )?;
    Ok(())
}

async fn find(device: &Device, room: &RoomSummary, name: &str) -> anyhow::Result<wire::File> {
    let id: Option<FileId> = name.parse().ok();
    let fits = |file: &wire::File| match id {
        Some(id) => file.file == id.as_bytes()[..] || file.name == name,
        None => file.name == name,
    };
    let files = files(device, room.room).await?;
    let mut found = files.into_iter().map(|(_, file)| file).filter(fits);
    match (found.next(), found.next()) {
        (Some(file), None) => Ok(file),
        (None, _) => bail!(
            "there is no file `{name}` in this room on this device: `sotto files list` shows them, `sotto sync` gets new ones"
        ),
        (Some(_), Some(_)) => {
            bail!(
                "several files are called `{name}`: name one by its id, which `sotto files list` shows"
            )
        }
    }
}

/// Every file of a room, oldest first.
async fn files(device: &Device, room: RoomId) -> anyhow::Result<Vec<(HistoryRecord, wire::File)>> {
    let mut files = Vec::new();
    let mut next = 0;
    loop {
        let range = next..next + PAGE;
        let page = device
            .session
            .look(move |engine, store| engine.history(store, room, range));
        let page = page.await??;
        let Some(last) = page.last() else {
            return Ok(files);
        };
        next = last.position + 1;
        for record in page {
            if let Content::File(file) = &record.content {
                let file = file.clone();
                files.push((record, file));
            }
        }
    }
}
