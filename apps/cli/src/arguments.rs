//! What can be typed after `sotto`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use sotto_bootstrap::Wish;
use sotto_proto::{
    DeviceId, DeviceLink, GatewayAddress, InviteLink, OrgName, ProjectName, RoomId, UserName,
};
use sotto_update::command::tool::ToolUpdateArgs;

use crate::commands::admin::Admin;
use crate::commands::factor::Factor;
use crate::commands::files::ByteRange;

/// Sotto: messages and files that only their readers can read, over a server
/// of your own.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Exit codes: 0 done (also: queued on this device, to be sent with the next command), \
1 not done, 2 wrong usage, 3 the server could not be reached, 4 something must be proven first, \
5 the server does not take it for now.\n\
With --json every line on standard output is one JSON object with an `event`."
)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub struct Global {
    /// The folder of this device.
    #[arg(long, global = true, env = "SOTTO_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,

    /// Print JSON lines instead of text.
    #[arg(long, global = true)]
    pub json: bool,

    /// Read the passphrase of the folder from this file [env: SOTTO_PASSPHRASE=the passphrase itself].
    #[arg(long, global = true, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,

    /// Read the account's password from this file [env: SOTTO_PASSWORD=the password itself].
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,

    /// How long to wait for the server, in seconds.
    #[arg(long, global = true, default_value = "30", value_parser = seconds, value_name = "SECONDS")]
    pub wait: Duration,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a complete private server on this machine until Ctrl-C.
    Up(Up),
    /// Make bare Linux machines a server, over SSH: one a complete one, three a
    /// cluster. Run again, it completes what is missing and changes nothing else.
    Bootstrap(Box<Wish>),
    /// Make an account with an invitation, and this its first device.
    Signup {
        /// The invitation, sotto://…
        invite: InviteLink,
        /// The name that others see.
        user: UserName,
    },
    /// Add this device to an account by its password; renew the session of one that is.
    Login {
        /// The account.
        user: UserName,
        /// The gateway's address, sotto://…, as `sotto up` prints it.
        #[arg(long, value_name = "ADDRESS")]
        gateway: Option<GatewayAddress>,
    },
    /// Invite somebody to the organisation.
    Invite {
        /// What they will be.
        #[arg(long, value_enum, default_value_t = Role::User)]
        role: Role,
        /// Where; without it, in the whole organisation.
        #[arg(long, value_name = "PROJECT")]
        project: Option<ProjectName>,
        /// How long the invitation is good for, such as 12h or 7d.
        #[arg(long, default_value = "7d", value_parser = duration, value_name = "TIME")]
        valid: Duration,
    },
    /// Link devices of one account.
    #[command(subcommand)]
    Device(Device),
    /// List the devices of this account.
    Devices,
    /// List the rooms of this device.
    Rooms,
    /// Make rooms, and let people in.
    #[command(subcommand)]
    Room(Room),
    /// Send a text, several, or a file.
    Send(Send),
    /// Show what is new in a room.
    Recv {
        /// Its name or id.
        room: String,
        /// Go on showing what comes, until Ctrl-C.
        #[arg(long)]
        follow: bool,
        /// Show everything that this device has, from the beginning; without
        /// --follow the server is not asked for more.
        #[arg(long)]
        all: bool,
    },
    /// Send what is queued and get what is new, then exit.
    Sync,
    /// List and get the files of a room.
    #[command(subcommand)]
    Files(Files),
    /// Prove who you are, where a policy demands more than this device.
    #[command(subcommand)]
    Factor(Factor),
    /// Manage an organisation: projects, rooms, users, groups, roles, policies.
    #[command(subcommand)]
    Admin(Admin),
    /// Update this program, and return to the old one.
    Update(Update),
    /// Look at the server of this machine: what is wrong with it, or would be
    /// when it starts, and what to do about it. Changes nothing.
    Doctor(Doctor),
    /// Show the number by which to make sure that a user is who they say:
    /// compare it with what they see for themselves.
    Safety {
        /// Whose.
        user: UserName,
    },
}

#[derive(Debug, Args)]
pub struct Update {
    /// The folder in which updates are remembered; without it,
    /// .local/share/sotto-update in the home directory.
    #[arg(long, env = "SOTTO_UPDATE_DIR", value_name = "DIR")]
    pub state: Option<PathBuf>,
    #[command(flatten)]
    pub what: ToolUpdateArgs,
}

#[derive(Debug, Args)]
pub struct Doctor {
    /// The server's folder; without it, this one. Not the folder of a device:
    /// SOTTO_DIR says nothing here.
    // The same name as that of all commands, so that it is read in its place.
    #[arg(long, env = "SOTTO_SERVER_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// A key as the server's programs are told it, instead of what server.toml
    /// says; what the environment says counts as well.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Up {
    /// The server's folder; made when it is missing.
    #[arg(value_name = "DIR")]
    pub server: PathBuf,
    /// The first organisation of a new server.
    #[arg(long, default_value = "home", value_name = "NAME")]
    pub org: OrgName,
    /// Its first project.
    #[arg(long, default_value = "general", value_name = "NAME")]
    pub project: ProjectName,
    /// Where the gateway of a new server listens.
    #[arg(long, default_value = "127.0.0.1:8443", value_name = "IP:PORT")]
    pub listen: SocketAddr,
    /// Where nats-server of a new server listens; a port that is free without it.
    #[arg(long, value_name = "IP:PORT")]
    pub nats_listen: Option<SocketAddr>,
    /// Host name or IP address by which people reach a new server; the
    /// address of --listen without it.
    #[arg(long, value_name = "HOST")]
    pub public_host: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Device {
    /// On the new device: show a link for a device that has the account.
    Link {
        /// The gateway's address, sotto://…, as `sotto up` prints it.
        #[arg(long, value_name = "ADDRESS")]
        gateway: GatewayAddress,
    },
    /// On a device that has the account: let the new one in. Asks for the code
    /// that the new device shows (or reads it from standard input).
    Approve {
        /// What the new device shows, sotto://…
        link: DeviceLink,
    },
    /// A device is lost: shut it out of the account and of every room, for good.
    Revoke {
        /// Which, as `sotto devices` shows it.
        device: DeviceId,
    },
}

#[derive(Debug, Subcommand)]
pub enum Room {
    /// Make a room.
    Create {
        /// What members call it.
        name: String,
        /// Where; needed only if you have several.
        #[arg(long, value_name = "PROJECT")]
        project: Option<ProjectName>,
        /// Let everybody of the project join, without an invitation.
        #[arg(long)]
        open: bool,
    },
    /// Let a user into a room, with all their devices.
    Invite {
        /// Its name or id.
        room: String,
        /// Whom.
        user: UserName,
        /// Let them invite others, too.
        #[arg(long)]
        owner: bool,
    },
    /// Join an open room.
    Join {
        /// Its id.
        room: RoomId,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true))]
pub struct Send {
    /// Its name or id.
    pub room: String,
    /// The text.
    #[arg(group = "what")]
    pub text: Option<String>,
    /// Send every line of standard input as a text; empty lines are left out.
    #[arg(long, group = "what")]
    pub stdin: bool,
    /// Send this file. One that this device has sent before, to whatever room,
    /// is not uploaded again as long as the server has it.
    #[arg(long, group = "what", value_name = "FILE")]
    pub file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Files {
    /// List the files that were sent to a room.
    List {
        /// Its name or id.
        room: String,
    },
    /// Get a file.
    Get {
        /// The room's name or id.
        room: String,
        /// The file's id, or its name if just one has it.
        file: String,
        /// Where to; without it, under its own name in this folder.
        #[arg(short, long, value_name = "PATH")]
        output: Option<PathBuf>,
        /// Only these bytes, from 0: to PATH, else to standard output.
        #[arg(long, value_name = "FIRST-LAST")]
        range: Option<ByteRange>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Takes part.
    User,
    /// Also invites and manages.
    Owner,
}

impl From<Role> for sotto_proto::wire::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::User => Self::User,
            Role::Owner => Self::Owner,
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "give a number of seconds")?;
    Ok(Duration::from_secs(seconds))
}

/// A number and a unit: `90s`, `15m`, `12h`, `7d`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let problem = || "give a number and a unit, such as 90s, 15m, 12h or 7d".to_owned();
    let units = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400)];
    let mut fitting = units.into_iter();
    let (number, unit) = fitting
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .ok_or_else(problem)?;
    let number: u64 = number.parse().map_err(|_| problem())?;
    let seconds = number.checked_mul(unit).filter(|&seconds| seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(problem)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn times_are_read() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2d"), Ok(Duration::from_secs(172_800)));
        for bad in [
            "",
            "7",
            "d",
            "0h",
            "-1d",
            "1w",
            "99999999999999999999d",
            "1dd",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn one_thing_is_sent_at_a_time() {
        let parse =
            |rest: &[&str]| Arguments::try_parse_from([&["sotto", "send", "room"], rest].concat());
        assert!(parse(&["hello"]).is_ok());
        assert!(parse(&["--stdin"]).is_ok());
        assert!(parse(&[]).is_err());
        assert!(parse(&["hello", "--stdin"]).is_err());
    }
}
