//! `sotto files`: the files that were sent to a room.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use data_encoding::HEXLOWER;
use serde_json::json;
use sotto_client_core::engine::RoomSummary;
use sotto_client_core::history::{Content, HistoryRecord};
use sotto_client_native::files::{download, download_range, safe_name};
use sotto_proto::{FileId, RoomAddress, RoomId, wire};

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
    range: Option<ByteRange>,
) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let room = device.room(room).await?;
    let file = find(&device, &room, name).await?;
    let output = target.clone();
    let target = match target {
        Some(path) if path.is_dir() => path.join(safe_name(&file.name)),
        Some(path) => path,
        None => PathBuf::from(safe_name(&file.name)),
    };
    let address = room
        .address
        .as_ref()
        .context("the room is not on the server yet")?;
    if let Some(range) = range {
        if output.is_none() && context.global.json {
            bail!("bytes and JSON lines do not go together: name a file with -o");
        }
        part(&mut device, address, &file, range, output).await?;
        device.session.stop().await;
        return Ok(());
    }

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

/// Bytes of a file, the last left out.
#[derive(Debug, Clone, Copy)]
pub struct ByteRange {
    first: u64,
    /// Without it, to the end.
    end: Option<u64>,
}

impl std::str::FromStr for ByteRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "a range is FIRST- or FIRST-LAST, in bytes from 0, like 0-1023";
        let (first, last) = text.split_once('-').ok_or(wrong)?;
        let first: u64 = first.parse().map_err(|_| wrong)?;
        if last.is_empty() {
            return Ok(Self { first, end: None });
        }
        let last: u64 = last.parse().map_err(|_| wrong)?;
        let end = last
            .checked_add(1)
            .filter(|end| *end > first)
            .ok_or(wrong)?;
        let end = Some(end);
        Ok(Self { first, end })
    }
}

/// Writes part of a file, to a new file or to standard output.
async fn part(
    device: &mut Device,
    address: &RoomAddress,
    file: &wire::File,
    range: ByteRange,
    target: Option<PathBuf>,
) -> anyhow::Result<()> {
    let output: Box<dyn Write> = match &target {
        Some(path) => Box::new(
            std::fs::File::create_new(path)
                .with_context(|| format!("{}: choose another name with -o", path.display()))?,
        ),
        None => Box::new(std::io::stdout().lock()),
    };
    device.session.go_online().await;
    let range = range.first..range.end.unwrap_or(file.size);
    let Device {
        session, reports, ..
    } = &mut *device;
    let got = download_range(session, address, file, range, output);
    let got = reports.meanwhile(got).await?;
    if let (Err(_), Some(path)) = (&got, &target) {
        // It would look like the whole part, and be in the way of the next try.
        std::fs::remove_file(path).ok();
    }
    Ok(got?)
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
    match found.next() {
        // It may have been sent to the room more than once.
        Some(file) if found.all(|other| is_same(&file, &other)) => Ok(file),
        None => bail!(
            "there is no file `{name}` in this room on this device: `sotto files list` shows them, `sotto sync` gets new ones"
        ),
        Some(_) => {
            bail!(
                "several files are called `{name}`: name one by its id, which `sotto files list` shows"
            )
        }
    }
}

/// Whether the same chunks give the same content.
fn is_same(one: &wire::File, other: &wire::File) -> bool {
    let what = |file: &wire::File| (file.file.clone(), file.key.clone(), file.sha256.clone());
    what(one) == what(other)
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
