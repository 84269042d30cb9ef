//! One connection to one machine, by the system's `ssh`: the user's own
//! configuration, keys, agent, known hosts and jump hosts are what counts.
//!
//! The connection ends with this process, however that ends: it is an `ssh`
//! that runs `cat` at the other end for as long as our end of a pipe is open.
//! All that follows shares it.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};
use zeroize::Zeroizing;

use crate::Destination;

/// What our output begins behind: a login shell may say something before.
const MARK: &[u8] = b"sotto-bootstrap-begins-here\n";
/// Longest output of a script, in bytes.
const OUTPUT_MAX: u64 = 2 * 1024 * 1024;
/// Longest text of an error that is kept, in bytes.
const ERROR_MAX: u64 = 8 * 1024;
/// Longest answer of `ssh -G`, in bytes.
const CONFIGURATION_MAX: u64 = 256 * 1024;

/// Exit codes of [`WRAPPER`].
const NO_SUDO: i32 = 96;
const SUDO_ASKS: i32 = 97;
const BUSY: i32 = 98;
/// Exit code of ssh itself.
const SSH_FAILED: i32 = 255;

/// Runs its first argument as a script, with the others as the script's, as
/// root and one at a time: what a run that was cut off had begun is finished
/// before the next looks.
const WRAPPER: &str = r#"
script="set -eu; $1"
shift
as_root=
if [ "$(id -u)" != 0 ]; then
    command -v sudo > /dev/null 2>&1 || exit 96
    sudo -n true > /dev/null 2>&1 || exit 97
    as_root="sudo -n"
fi
export LC_ALL=C
echo sotto-bootstrap-begins-here
exec $as_root flock -w 300 -E 98 /run/sotto-bootstrap.lock sh -c "$script" sh "$@"
"#;

/// A connection. Ends when it is dropped.
#[derive(Debug)]
pub struct Ssh {
    destination: Destination,
    socket: PathBuf,
    _holder: Child,
    _held_by: ChildStdin,
}

/// What a script reads.
#[derive(Debug)]
pub enum Input<'a> {
    /// Nothing.
    Nothing,
    /// This.
    Bytes(&'a [u8]),
    /// A whole file.
    File(&'a Path),
}

/// What went wrong between here and a machine.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// No ssh.
    #[error("cannot start `ssh`: install OpenSSH's client ({0})")]
    NoSsh(std::io::Error),
    /// Something of this machine.
    #[error("ssh cannot be talked to: {0}")]
    Local(#[from] std::io::Error),
    /// It cannot be reached, or does not let us in.
    #[error("no connection: {0}. Does `ssh {1}` work?")]
    NoConnection(String, Destination),
    /// Neither root nor sudo.
    #[error("not root, and there is no sudo: name the machine as root@HOST, or install sudo there")]
    NoSudo,
    /// sudo wants a password.
    #[error(
        "sudo asks for a password: name the machine as root@HOST, or let this user use sudo without one"
    )]
    SudoAsks,
    /// Another run holds the lock.
    #[error("another `sotto bootstrap` is at work there: wait until it has ended")]
    Busy,
    /// The script failed.
    #[error("{0}")]
    Failed(String),
    /// It says too much.
    #[error("it answers with more than {OUTPUT_MAX} bytes: is it the right machine?")]
    TooMuch,
    /// Its words are not for us.
    #[error("its shell does not run commands: is {0} a login shell with `sh` at hand?")]
    NoShell(Destination),
    /// It cannot be quoted.
    #[error("a null byte cannot be passed on")]
    NullByte,
}

impl Ssh {
    /// Connects; whatever ssh has to ask it asks at the terminal, if there is
    /// one. The control socket is made in `folder`, under this number.
    ///
    /// # Errors
    /// When it does not work out.
    pub async fn connect(
        destination: &Destination,
        folder: &Path,
        number: usize,
    ) -> Result<Self, SshError> {
        let socket = folder.join(number.to_string());
        let said = folder.join(format!("{number}.said"));
        let mut command = Command::new("ssh");
        command
            .args(["-M", "-T", "-a", "-x", "-S"])
            .arg(&socket)
            .args(["-o", "ControlPersist=no", "-o", "ClearAllForwardings=yes"])
            .args(["-o", "RemoteCommand=none", "-o", "ConnectTimeout=20"])
            .args([
                "-o",
                "ServerAliveInterval=15",
                "-o",
                "ServerAliveCountMax=4",
            ]);
        if !std::io::stdin().is_terminal() {
            command.args(["-o", "BatchMode=yes"]);
        }
        let hold = remote_command("echo sotto-bootstrap-begins-here; exec cat", &[])?;
        let mut holder = command
            .args(["--", destination.as_str()])
            .arg(hold)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&said)?)
            .kill_on_drop(true)
            .spawn()
            .map_err(SshError::NoSsh)?;
        let (Some(held_by), Some(stdout)) = (holder.stdin.take(), holder.stdout.take()) else {
            return Err(SshError::Local(std::io::ErrorKind::BrokenPipe.into()));
        };
        if !begins(stdout).await? {
            let status = holder.wait().await?;
            let why = last_line(&read_start(&said)?);
            return Err(match status.code() {
                Some(SSH_FAILED) => SshError::NoConnection(why, destination.clone()),
                _ => SshError::NoShell(destination.clone()),
            });
        }
        Ok(Self {
            destination: destination.clone(),
            socket,
            _holder: holder,
            _held_by: held_by,
        })
    }

    /// Runs a script there, as root, and returns what it prints.
    ///
    /// # Errors
    /// When it fails, with what it said last.
    pub async fn run(
        &self,
        script: &str,
        arguments: &[&str],
        input: Input<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, SshError> {
        let mut words = vec![script];
        words.extend(arguments);
        let mut child = Command::new("ssh")
            .args(["-T", "-a", "-x", "-S"])
            .arg(&self.socket)
            .args(["-o", "ControlMaster=no", "-o", "BatchMode=yes"])
            .args(["-o", "RemoteCommand=none", "-o", "ClearAllForwardings=yes"])
            .args(["--", self.destination.as_str()])
            .arg(remote_command(WRAPPER, &words)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(SshError::NoSsh)?;
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
            return Err(SshError::Local(std::io::ErrorKind::BrokenPipe.into()));
        };
        let (sent, output, error) = tokio::join!(
            send(stdin, input),
            bounded(stdout, OUTPUT_MAX),
            bounded(stderr, ERROR_MAX),
        );
        let (output, error) = (output?, error?);
        let status = child.wait().await?;
        match status.code() {
            Some(0) => sent?,
            Some(NO_SUDO) => return Err(SshError::NoSudo),
            Some(SUDO_ASKS) => return Err(SshError::SudoAsks),
            Some(BUSY) => return Err(SshError::Busy),
            Some(SSH_FAILED) => {
                let why = last_line(&error);
                return Err(SshError::NoConnection(why, self.destination.clone()));
            }
            _ => return Err(SshError::Failed(last_line(&error))),
        }
        if output.len() as u64 > OUTPUT_MAX {
            return Err(SshError::TooMuch);
        }
        let mark = output.windows(MARK.len()).position(|window| window == MARK);
        let ours = mark.and_then(|at| output.get(at + MARK.len()..));
        let ours = ours.ok_or_else(|| SshError::NoShell(self.destination.clone()))?;
        Ok(Zeroizing::new(ours.to_vec()))
    }
}

/// The host name or address that ssh makes of a destination.
///
/// # Errors
/// When ssh does not understand it.
pub async fn host_of(destination: &Destination) -> Result<String, SshError> {
    let output = Command::new("ssh")
        .args(["-G", "--", destination.as_str()])
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(SshError::NoSsh)?;
    let fits = output.stdout.len() as u64 <= CONFIGURATION_MAX;
    if !output.status.success() || !fits {
        return Err(SshError::Failed(last_line(&output.stderr)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let host = lines.find_map(|line| line.strip_prefix("hostname "));
    host.map(str::to_owned)
        .ok_or_else(|| SshError::Failed("`ssh -G` names no host".to_owned()))
}

/// `sh -c SCRIPT sh ARGUMENTS…`, for whatever shell the user has there.
fn remote_command(script: &str, arguments: &[&str]) -> Result<OsString, SshError> {
    let mut words = vec!["sh", "-c", script, "sh"];
    words.extend(arguments);
    let quoted = words.into_iter().map(quoted);
    let quoted: Vec<_> = quoted.collect::<Result<_, _>>()?;
    Ok(quoted.join(" ").into())
}

fn quoted(word: &str) -> Result<Cow<'_, str>, SshError> {
    shlex::try_quote(word).map_err(|_| SshError::NullByte)
}

async fn begins(mut stdout: impl AsyncReadExt + Unpin) -> Result<bool, SshError> {
    let mut seen = Vec::new();
    let mut buffer = [0; 1024];
    while !seen.ends_with(MARK) {
        let read = stdout.read(&mut buffer).await?;
        if read == 0 || seen.len() as u64 > OUTPUT_MAX {
            return Ok(false);
        }
        seen.extend(buffer.iter().take(read));
    }
    Ok(true)
}

async fn send(mut stdin: ChildStdin, input: Input<'_>) -> Result<(), SshError> {
    match input {
        Input::Nothing => {}
        Input::Bytes(bytes) => stdin.write_all(bytes).await?,
        Input::File(path) => {
            let mut file = tokio::fs::File::open(path).await?;
            tokio::io::copy(&mut file, &mut stdin).await?;
        }
    }
    Ok(stdin.shutdown().await?)
}

/// At most one byte more than `max`; the rest is read and thrown away.
async fn bounded(
    mut from: impl AsyncReadExt + Unpin,
    max: u64,
) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut kept = Zeroizing::new(Vec::new());
    (&mut from).take(max + 1).read_to_end(&mut kept).await?;
    tokio::io::copy(&mut from, &mut tokio::io::sink()).await?;
    Ok(kept)
}

fn read_start(path: &Path) -> Result<Vec<u8>, SshError> {
    let mut text = Vec::new();
    File::open(path)?.take(ERROR_MAX).read_to_end(&mut text)?;
    Ok(text)
}

/// What was said last is why it ended.
fn last_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    let line = line.unwrap_or("it does not say why");
    line.trim_end_matches('.').chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_passed_on_arrives_as_it_is() {
        let words = [
            "",
            " ",
            "a'b",
            "$HOME `id` $(id)",
            "\\",
            "-n",
            "*",
            "\"",
            "!x",
            "~",
            "ü\n",
        ];
        let script = r#"for word in "$@"; do printf '%s|' "$word"; done"#;
        let line = remote_command(script, &words).unwrap();
        let output = std::process::Command::new("sh")
            .arg("-c")
            .arg(line)
            .output()
            .unwrap();
        let expected: String = words.iter().map(|word| format!("{word}|")).collect();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        assert!(remote_command(script, &["a\0b"]).is_err());
    }

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(
            last_line(b"Warning: x\nPermission denied.\n\n"),
            "Permission denied"
        );
        assert_eq!(last_line(b""), "it does not say why");
        assert_eq!(last_line(&[b'x'; 9_000]).len(), 500);
    }
}
