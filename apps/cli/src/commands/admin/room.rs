//! `sotto admin room`: rooms as the directory knows them, without names.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::json;
use sotto_jwt_accounts::directory::Scope;
use sotto_proto::wire::directory_command::Ask;
use sotto_proto::{ProjectName, RoomId, wire};

use super::change::{Change, How};
use super::directory;
use super::place::RoomText;
use super::role::held;
use crate::device::Context;
use crate::table::Table;

/// What can be typed after `sotto admin room`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A room is named by its id, or by its name if this device is in it: the server knows no names.

Examples:
  sotto admin room list --project field
  sotto admin room move barn archive-2026")]
pub enum Room {
    /// List the rooms.
    List {
        /// Only those of this project.
        #[arg(long)]
        project: Option<ProjectName>,
    },
    /// Let nothing new into it; what is there can be read.
    Archive {
        /// Its id or name.
        room: RoomText,
        #[command(flatten)]
        how: How,
    },
    /// Take it out of the archive.
    Restore {
        /// Its id or name.
        room: RoomText,
        #[command(flatten)]
        how: How,
    },
    /// Delete it for everybody, for good.
    Delete {
        /// Its id or name.
        room: RoomText,
        #[command(flatten)]
        how: How,
    },
    /// Put it under another project, whose roles and policy then hold for it.
    Move {
        /// Its id or name.
        room: RoomText,
        /// Where to.
        project: ProjectName,
        #[command(flatten)]
        how: How,
    },
}

pub async fn run(context: &Context, command: Room) -> anyhow::Result<()> {
    match command {
        Room::List { project } => list(context, project.as_ref()).await,
        Room::Archive { room, how } => {
            let archived = |room| set_status(room, wire::Status::Archived);
            change(context, room, how, archived).await
        }
        Room::Restore { room, how } => {
            let restored = |room| set_status(room, wire::Status::Active);
            change(context, room, how, restored).await
        }
        Room::Delete { room, how } => {
            let deleted = |room| set_status(room, wire::Status::Deleted).for_good();
            change(context, room, how, deleted).await
        }
        Room::Move { room, project, how } => {
            change(context, room, how, |room| move_to(room, project)).await
        }
    }
}

async fn list(context: &Context, project: Option<&ProjectName>) -> anyhow::Result<()> {
    let state = directory::state(context).await?;
    let mut holders: BTreeMap<Scope, usize> = BTreeMap::new();
    for holder in held::holders(&state) {
        for role in held::of(&state, &holder) {
            *holders.entry(role.scope).or_default() += 1;
        }
    }
    let mut table = Table::new(["ROOM", "PROJECT", "STATUS", "JOINED BY", "ROLES"]);
    let rooms = state.rooms();
    for (id, room) in
        rooms.filter(|(_, room)| project.is_none_or(|project| room.project == *project))
    {
        let holders = holders.get(&Scope::Room(id)).copied().unwrap_or_default();
        let open = room.join_rule == wire::JoinRule::Open;
        table.row(
            json!({
                "event": "room", "room": id, "project": room.project,
                "status": room.status.to_string(), "open": open, "holders": holders,
            }),
            [
                id.to_string(),
                room.project.to_string(),
                room.status.to_string(),
                if open {
                    "anyone of the project"
                } else {
                    "invitation"
                }
                .to_owned(),
                holders.to_string(),
            ],
        );
    }
    let empty =
        "No rooms here: anyone with a role in a project makes them with `sotto room create`.";
    Ok(table.show(context.output, empty)?)
}

async fn change(
    context: &Context,
    room: RoomText,
    how: How,
    change: impl FnOnce(RoomId) -> Change,
) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let room = room.find(&mut device).await?;
    change(room).carry_out(context, &device, how).await?;
    device.session.stop().await;
    Ok(())
}

fn set_status(room: RoomId, status: wire::Status) -> Change {
    Change::one(Ask::SetRoomStatus(wire::RoomStatusSet {
        room: room.to_bytes(),
        status: status.into(),
    }))
}

fn move_to(room: RoomId, project: ProjectName) -> Change {
    Change::one(Ask::MoveRoom(wire::RoomMoved {
        room: room.to_bytes(),
        project: project.into(),
    }))
}
