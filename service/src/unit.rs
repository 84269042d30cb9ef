//! systemd units for the server programs: as little as each needs, and nothing
//! more. The program runs as a user of its own, who can write nothing but the
//! server's directory; so it is root that replaces it when it is updated, by a
//! unit of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

/// Where updates are remembered, for root alone, unless it is said.
pub const UPDATE_DIR: &str = "/var/lib/sotto-update";

/// The arguments of `unit`.
#[derive(Debug, Args)]
pub struct UnitArgs {
    /// Which unit to print.
    #[arg(value_enum, default_value = "service")]
    kind: Kind,
    /// The server's data directory, an absolute path.
    #[arg(long, env = "SOTTO_SERVER_DIR", value_name = "DIR", value_parser = plain_path)]
    dir: PathBuf,
    /// Where updates are remembered, an absolute path; for root alone.
    #[arg(
        long,
        env = "SOTTO_UPDATE_DIR",
        default_value = UPDATE_DIR,
        value_name = "DIR",
        value_parser = plain_path
    )]
    update_dir: PathBuf,
    /// The program's file, instead of the one that prints this.
    #[arg(long, value_name = "FILE", value_parser = plain_path)]
    program: Option<PathBuf>,
    /// Whom it runs as.
    #[arg(long, default_value = "sotto", value_parser = plain_word)]
    user: String,
    /// Memory that it may take at most, in MiB.
    #[arg(long, default_value = "2048", value_name = "MIB")]
    memory: u32,
    /// Where it listens, when that is a port below 1024.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Where releases are, for the update: https://…, or a folder.
    #[arg(long, env = "SOTTO_UPDATE_SOURCE", value_name = "ADDRESS", value_parser = plain_word)]
    source: Option<String>,
    /// Authorities of that server's certificate, PEM, instead of the system's;
    /// an absolute path.
    #[arg(long, env = "SOTTO_UPDATE_CA_FILE", value_name = "FILE", value_parser = plain_path)]
    ca_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Runs the program.
    Service,
    /// Updates it, once.
    Update,
    /// Updates it daily.
    Timer,
}

/// What cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// The program's own file is not known.
    #[error("this program's file is not known: say --program FILE")]
    Program,
    /// No address.
    #[error("say where releases are: --source https://…, or a folder")]
    Source,
}

/// Prints a unit. `name` is what the unit is called, `role` which file says in
/// the server's directory that it is ready.
///
/// # Errors
/// When something has to be said that was not.
#[expect(clippy::print_stdout, reason = "what was asked for")]
pub fn print(args: &UnitArgs, name: &str, role: &str) -> Result<(), UnitError> {
    print!("{}", text(args, name, role)?);
    Ok(())
}

fn text(args: &UnitArgs, name: &str, role: &str) -> Result<String, UnitError> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => std::env::current_exe()
            .and_then(std::fs::canonicalize)
            .map_err(|_| UnitError::Program)?,
    };
    let paths = Paths {
        program: program.display().to_string(),
        folder: program
            .parent()
            .unwrap_or(Path::new("/"))
            .display()
            .to_string(),
        dir: args.dir.display().to_string(),
        updates: args.update_dir.display().to_string(),
    };
    match args.kind {
        Kind::Service => Ok(service(args, name, &paths)),
        Kind::Update => {
            let source = args.source.as_ref().ok_or(UnitError::Source)?;
            let from = match &args.ca_file {
                Some(file) => format!("{source} --ca-file {}", file.display()),
                None => source.clone(),
            };
            Ok(update(&from, name, role, &paths))
        }
        Kind::Timer => Ok(timer(name)),
    }
}

struct Paths {
    program: String,
    folder: String,
    dir: String,
    updates: String,
}

fn service(args: &UnitArgs, name: &str, paths: &Paths) -> String {
    let Paths {
        program,
        dir,
        updates,
        ..
    } = paths;
    let low_port = args.listen.is_some_and(|listen| listen.port() < 1024);
    let capabilities = if low_port { "CAP_NET_BIND_SERVICE" } else { "" };
    let UnitArgs { user, memory, .. } = args;
    format!(
        "\
# Made by `{name} unit`.
[Unit]
Description={name}
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
User={user}
# As root: takes back an update that is started again and again.
ExecStartPre=-+{program}.previous update --state {updates} guard --program {program}
ExecStart={program} run --dir {dir}
# Starts a successor, which takes over; it becomes the main process.
ExecReload=/bin/kill -HUP $MAINPID
NotifyAccess=main
Restart=on-failure
RestartSec=2
TimeoutStopSec=90
KillMode=mixed
LimitNOFILE=65536
MemoryMax={memory}M
TasksMax=4096
UMask=0077
ReadWritePaths={dir}
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
{CONFINED}PrivateUsers={private_users}
ProtectProc=invisible

[Install]
WantedBy=multi-user.target
",
        private_users = if low_port { "no" } else { "yes" },
    )
}

/// What both units can do without.
const CONFINED: &str = "\
KeyringMode=private
LockPersonality=yes
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectSystem=strict
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallErrorNumber=EPERM
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
";

fn update(from: &str, name: &str, role: &str, paths: &Paths) -> String {
    let Paths {
        program,
        folder,
        dir,
        updates,
    } = paths;
    format!(
        "\
# Made by `{name} unit update`.
[Unit]
Description=Update of {name}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={program} update --state {updates} apply --source {from} --unit {name}.service \
--ready-file {dir}/run/{role}.json
UMask=0077
ReadWritePaths={folder} {updates}
# Reads what the program's user owns, and looks which file its process runs.
CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_SYS_PTRACE
{CONFINED}"
    )
}

fn timer(name: &str) -> String {
    format!(
        "\
# Made by `{name} unit timer`.
[Unit]
Description=Daily update of {name}

[Timer]
OnCalendar=daily
RandomizedDelaySec=4h
Persistent=yes

[Install]
WantedBy=timers.target
"
    )
}

/// A unit file has no quoting that is worth relying on.
///
/// # Errors
/// When the text would need some.
pub fn plain_word(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@[]".contains(c);
    match !text.is_empty() && text.chars().all(plain) && !text.starts_with('-') {
        true => Ok(text.to_owned()),
        false => Err("it may hold only letters, digits and /._-:@[]".to_owned()),
    }
}

fn plain_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(plain_word(text)?);
    match path.is_absolute() {
        true => Ok(path),
        false => Err("it must be an absolute path".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Binary {
        #[command(flatten)]
        unit: UnitArgs,
    }

    fn printed(args: &[&str]) -> Result<String, String> {
        let base = [
            "binary",
            "--dir",
            "/srv/sotto",
            "--program",
            "/opt/sotto/sotto-relay",
        ];
        let args = base.into_iter().chain(args.iter().copied());
        let args = Binary::try_parse_from(args).map_err(|error| error.to_string())?;
        text(&args.unit, "sotto-relay", "relay").map_err(|error| error.to_string())
    }

    #[test]
    fn only_a_low_port_needs_a_capability() {
        let high = printed(&["--listen", "0.0.0.0:8443"]).unwrap();
        assert!(high.contains("\nCapabilityBoundingSet=\n"), "{high}");
        let low = printed(&["--listen", "0.0.0.0:443"]).unwrap();
        assert!(low.contains("\nCapabilityBoundingSet=CAP_NET_BIND_SERVICE\n"));
    }

    #[test]
    fn a_reload_hands_over() {
        let unit = printed(&[]).unwrap();
        assert!(unit.contains("\nExecReload=/bin/kill -HUP $MAINPID\n"));
        assert!(unit.contains("\nNotifyAccess=main\n"), "{unit}");
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_unit() {
        for wrong in ["a b", "a\nUser=root", "%h", "", "$HOME", "-x"] {
            assert!(printed(&["--user", wrong]).is_err(), "{wrong:?}");
        }
        assert!(printed(&["--update-dir", "relative"]).is_err());
    }

    #[test]
    fn an_update_needs_to_know_from_where() {
        assert!(printed(&["update"]).unwrap_err().contains("--source"));
        let unit = printed(&["update", "--source", "https://chat.example/updates"]).unwrap();
        assert!(
            unit.contains("--ready-file /srv/sotto/run/relay.json\n"),
            "{unit}"
        );
        let own = ["--ca-file", "/srv/sotto/tls/ca.pem"];
        let unit = printed(&[&["update", "--source", "https://chat.example"][..], &own].concat());
        let unit = unit.unwrap();
        let from = "--source https://chat.example --ca-file /srv/sotto/tls/ca.pem --unit";
        assert!(unit.contains(from), "{unit}");
    }
}
