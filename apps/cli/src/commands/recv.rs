//! `sotto recv`: what was said in a room. What this device has comes first,
//! with or without a network.

use data_encoding::HEXLOWER;
use jiff::civil::Date;
use serde_json::{Value, json};
use sotto_client_core::history::{Content, HistoryRecord, Note};
use sotto_client_core::io::Command;
use sotto_proto::{DeviceId, FileId, RoomId, UserName, wire};

use crate::device::{Context, Device, Report};
use crate::times;

/// Records that are read at a time.
const PAGE: u64 = 500;

pub async fn run(context: &Context, room: &str, follow: bool, all: bool) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let room = device.room(room).await?;
    let mut reader = Reader {
        context,
        room: room.room,
        next: if all { 0 } else { room.read_position },
        day: None,
    };
    reader.show_new(&device).await?;
    if follow {
        reader.follow(&mut device).await?;
    } else if !all {
        let before = reader.next;
        let settled = device.settle("Getting what is new").await;
        reader.show_new(&device).await?;
        match settled {
            Ok(()) if reader.next == before && before == room.read_position => {
                context.output.note("Nothing new.");
            }
            Ok(()) => {}
            Err(error) => context
                .output
                .note(format_args!("There may be more: {error}.")),
        }
    }
    device.session.stop().await;
    Ok(())
}

/// Columns before a text: the time and who says it.
const MARGIN: usize = 20;

/// Shows a room's history from a position on.
struct Reader<'a> {
    context: &'a Context,
    room: RoomId,
    /// The first position that was not shown yet.
    next: u64,
    /// Of the record that was shown last.
    day: Option<Date>,
}

impl Reader<'_> {
    /// Shows what comes, until Ctrl-C.
    async fn follow(&mut self, device: &mut Device) -> anyhow::Result<()> {
        device.session.go_online().await;
        let stopped = tokio::signal::ctrl_c();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                report = device.reports.next() => match report? {
                    Report::Received { room } if room == self.room => self.show_new(device).await?,
                    Report::Presence { room, user, device, here } if room == self.room => {
                        self.show_presence(&user, device, here)?;
                    }
                    _ => {}
                },
                stopped = &mut stopped => return Ok(stopped?),
            }
        }
    }

    /// Shows what was not shown yet, and remembers that it was.
    async fn show_new(&mut self, device: &Device) -> anyhow::Result<()> {
        let first = self.next;
        loop {
            let (room, range) = (self.room, self.next..self.next + PAGE);
            let page = device
                .session
                .look(move |engine, store| engine.history(store, room, range));
            let page = page.await??;
            let Some(last) = page.last() else { break };
            self.next = last.position + 1;
            page.iter().try_for_each(|record| self.show(record))?;
        }
        if self.next > first {
            let read = Command::MarkRead {
                room: self.room,
                position: self.next,
            };
            device.session.command(read).await.done().await?;
        }
        Ok(())
    }

    /// Says who has come or gone, as the server says.
    fn show_presence(&self, user: &UserName, device: DeviceId, here: bool) -> anyhow::Result<()> {
        let output = self.context.output;
        output.say_json(&json!({
            "event": "presence", "room": self.room, "user": user, "device": device, "here": here,
        }))?;
        match here {
            true => output.note(format_args!("{user} is there.")),
            false => output.note(format_args!("{user} has gone.")),
        }
        Ok(())
    }

    fn show(&mut self, record: &HistoryRecord) -> anyhow::Result<()> {
        let moment = times::local(record.sent_at.0);
        if self.day.replace(moment.date()) != Some(moment.date()) {
            self.context
                .output
                .say_text(format_args!("— {} —", times::day(&moment)))?;
        }
        let text = match &record.content {
            // Later lines of a text stand below its first.
            Content::Text(text) => text.replace('\n', &format!("\n{:MARGIN$}", "")),
            Content::File(file) => format!("[file {}, {} bytes]", file.name, file.size),
            Content::RoomState(state) => format!("[calls this room {}]", state.name),
            Content::Unknown { .. } => "[needs a newer version of sotto]".to_owned(),
            Content::Note(note) => noted(note),
        };
        let text = match record.late {
            true => format!("[came late] {text}"),
            false => text,
        };
        let head = format!("{}  {}", times::clock(&moment), record.user);
        let line = format!("{head:<width$}  {text}", width = MARGIN - 2);
        Ok(self.context.output.say(&as_json(self.room, record), line)?)
    }
}

/// The JSON line of a record.
fn as_json(room: RoomId, record: &HistoryRecord) -> Value {
    if let Content::RoomState(state) = &record.content {
        return json!({
            "event": "room_named", "room": room, "position": record.position,
            "user": record.user, "sent_at": record.sent_at.0, "name": state.name,
        });
    }
    if let Content::Note(note) = &record.content {
        return note_json(room, record, note);
    }
    let (text, file, kind) = match &record.content {
        Content::Text(text) => (Some(text), None, None),
        Content::File(file) => (None, Some(file_json(file)), None),
        Content::RoomState(_) | Content::Note(_) => (None, None, None),
        Content::Unknown { kind } => (None, None, Some(kind)),
    };
    json!({
        "event": "message",
        "room": room,
        "position": record.position,
        "sequence": record.sequence,
        "counter": record.counter,
        "user": record.user,
        "device": record.device,
        "sent_at": record.sent_at.0,
        "stored_at": record.stored_at.0,
        "text": text,
        "file": file,
        "unknown_kind": kind,
        "late": record.late,
    })
}

/// What is shown of a note.
fn noted(note: &Note) -> String {
    match note {
        Note::Missing { from, through } if from == through => {
            "[a message that was said did not come: it is asked for]".to_owned()
        }
        Note::Missing { from, through } => {
            let count = through - from + 1;
            format!("[{count} messages that were said did not come: they are asked for]")
        }
        Note::Contradicted { .. } => {
            "[WARNING: others were told something else under the same number]".to_owned()
        }
        Note::Rewound { .. } => {
            "[the server has lost the newest of this room: what you said is sent again]".to_owned()
        }
    }
}

/// The JSON line of a note.
fn note_json(room: RoomId, record: &HistoryRecord, note: &Note) -> Value {
    let (what, numbers) = match note {
        Note::Missing { from, through } => ("missing", json!([from, through])),
        Note::Contradicted { counter } => ("contradicted", json!([counter])),
        Note::Rewound { last_sequence } => ("rewound", json!([last_sequence])),
    };
    json!({
        "event": "note", "note": what, "numbers": numbers, "room": room,
        "position": record.position, "user": record.user, "device": record.device,
        "noticed_at": record.stored_at.0,
    })
}

/// What programs are told of a file.
pub fn file_json(file: &wire::File) -> Value {
    json!({
        "file": FileId::try_from(&file.file).ok(),
        "name": file.name,
        "size": file.size,
        "sha256": HEXLOWER.encode(&file.sha256),
    })
}
