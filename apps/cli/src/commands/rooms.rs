//! `sotto rooms` and `sotto room`: what rooms there are, and who is in them.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use serde_json::json;
use sotto_client_core::engine::RoomSummary;
use sotto_client_core::io::Command;
use sotto_proto::{ProjectName, RoomId, UserName, wire};

use crate::device::{Context, Device};

pub async fn list(context: &Context) -> anyhow::Result<()> {
    let device = context.open()?;
    let rooms = device.session.look(|engine, _| engine.rooms()).await?;
    for room in &rooms {
        show(context, room)?;
    }
    if rooms.is_empty() {
        context.output.note(
            "No rooms yet: make one with `sotto room create`, or get the ones you were invited to with `sotto sync`.",
        );
    }
    Ok(())
}

fn show(context: &Context, room: &RoomSummary) -> anyhow::Result<()> {
    let name = name(room);
    let users: BTreeSet<&str> = room
        .members
        .iter()
        .map(|member| member.user.as_str())
        .collect();
    let unread = room.history_length.saturating_sub(room.read_position);
    let mut remarks = Vec::new();
    if !room.member {
        let remark = match room.removed {
            true => "you are not a member any more",
            false => "waits for the server",
        };
        remarks.push(remark.to_owned());
    }
    if unread > 0 {
        remarks.push(format!("{unread} new"));
    }
    if room.queued > 0 {
        remarks.push(format!("{} queued", room.queued));
    }
    let remarks = match remarks.is_empty() {
        true => String::new(),
        false => format!("  [{}]", remarks.join(", ")),
    };
    let people = users.iter().copied().collect::<Vec<_>>().join(", ");
    context.output.say(
        &json!({
            "event": "room",
            "room": room.room,
            "name": room.name,
            "project": room.address.as_ref().map(|address| &address.project),
            "open": room.join_rule == wire::JoinRule::Open,
            "member": room.member,
            "removed": room.removed,
            "owner": room.owner,
            "members": room.members.iter().map(|member| json!({
                "user": member.user, "device": member.device,
            })).collect::<Vec<_>>(),
            "epoch": room.epoch,
            "history_length": room.history_length,
            "read_position": room.read_position,
            "queued": room.queued,
        }),
        format_args!("{name}{remarks}\n    {people}\n    {}", room.room),
    )?;
    Ok(())
}

/// What to call a room whose name has not come yet.
pub fn name(room: &RoomSummary) -> &str {
    room.name.as_deref().unwrap_or("(no name yet)")
}

pub async fn create(
    context: &Context,
    name: String,
    project: Option<ProjectName>,
    open: bool,
) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let project = match project {
        Some(project) => project,
        None => only_project(context, &device).await?,
    };
    let join_rule = match open {
        true => wire::JoinRule::Open,
        false => wire::JoinRule::Invite,
    };
    let command = Command::CreateRoom {
        project: project.clone(),
        name: name.clone(),
        join_rule,
    };
    let room = device.carry_out("Making the room", command).await?;
    let room = room.context("the room has no id")?;
    context.output.say(
        &json!({ "event": "room_created", "room": room, "name": name, "project": project }),
        format_args!(
            "Made the room {name} in {project}.\n    {room}\nLet people in with `sotto room invite`."
        ),
    )?;
    device.session.stop().await;
    Ok(())
}

async fn only_project(context: &Context, device: &Device) -> anyhow::Result<ProjectName> {
    let asked = device.session.call(&wire::MeRequest {});
    let me = context.output.patiently("Asking the server", asked).await?;
    match me.projects.as_slice() {
        [only] => Ok(only.parse()?),
        [] => bail!("you are in no project yet: ask your administrator"),
        several => bail!(
            "say in which project with --project: {}",
            several.join(", ")
        ),
    }
}

pub async fn invite(
    context: &Context,
    room: &str,
    user: UserName,
    owner: bool,
) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let summary = device.room(room).await?;
    let role = match owner {
        true => wire::Role::Owner,
        false => wire::Role::User,
    };
    let command = Command::Invite {
        room: summary.room,
        user: user.clone(),
        role,
    };
    device.carry_out("Letting them in", command).await?;
    context.output.say(
        &json!({ "event": "invited", "room": summary.room, "user": user }),
        format_args!("{user} is in {} now.", name(&summary)),
    )?;
    device.session.stop().await;
    Ok(())
}

pub async fn join(context: &Context, room: RoomId) -> anyhow::Result<()> {
    let mut device = context.open()?;
    device
        .carry_out("Joining the room", Command::Join { room })
        .await?;
    let summary = device.room(&room.to_string()).await?;
    context.output.say(
        &json!({ "event": "room_joined", "room": room, "name": summary.name }),
        format_args!("You are in {} now.", name(&summary)),
    )?;
    device.session.stop().await;
    Ok(())
}
