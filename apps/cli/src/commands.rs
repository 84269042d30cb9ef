//! One file per command.

pub mod admin;
mod bootstrap;
mod devices;
mod doctor;
pub mod factor;
pub mod files;
mod invite;
mod link;
mod login;
mod recv;
mod rooms;
mod safety;
mod send;
mod signup;
mod sync;
mod up;
mod update;

use crate::arguments::{Arguments, Command, Device, Files, Room};
use crate::device::Context;
use crate::output::Output;

/// Does what was typed.
pub async fn run(arguments: Arguments, output: Output) -> anyhow::Result<()> {
    let Arguments { global, command } = arguments;
    let context = Context::new(global, output)?;
    let context = &context;
    match command {
        Command::Up(up) => up::run(context, &up).await,
        Command::Bootstrap(wish) => bootstrap::run(context, *wish).await,
        Command::Signup { invite, user } => signup::run(context, &invite, user).await,
        Command::Login { user, gateway } => login::run(context, user, gateway).await,
        Command::Invite {
            role,
            project,
            valid,
        } => invite::run(context, role, project, valid).await,
        Command::Device(Device::Link { gateway }) => link::new_device(context, gateway).await,
        Command::Device(Device::Approve { link }) => link::old_device(context, link).await,
        Command::Device(Device::Revoke { device }) => devices::revoke(context, device).await,
        Command::Devices => devices::run(context).await,
        Command::Rooms => rooms::list(context).await,
        Command::Room(Room::Create {
            name,
            project,
            open,
        }) => rooms::create(context, name, project, open).await,
        Command::Room(Room::Invite { room, user, owner }) => {
            rooms::invite(context, &room, user, owner).await
        }
        Command::Room(Room::Join { room }) => rooms::join(context, room).await,
        Command::Send(what) => send::run(context, &what).await,
        Command::Recv { room, follow, all } => recv::run(context, &room, follow, all).await,
        Command::Sync => sync::run(context).await,
        Command::Files(Files::List { room }) => files::list(context, &room).await,
        Command::Files(Files::Get {
            room,
            file,
            output,
            range,
        }) => files::get(context, &room, &file, output, range).await,
        Command::Factor(command) => factor::run(context, command).await,
        Command::Admin(command) => admin::run(context, command).await,
        Command::Update(what) => update::run(context, what).await,
        Command::Doctor(doctor) => doctor::run(context, &doctor).await,
        Command::Safety { user } => safety::run(context, user).await,
    }
}
