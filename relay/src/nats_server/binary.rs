//! Which nats-server to run.

use std::env;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;

use sotto_service::Layout;
use sotto_service::nats::demands::{OLDEST, is_new_enough};

use super::carried::{CARRIED, Carried, CarriedError};

const NAME: &str = "nats-server";

/// A nats-server that is new enough.
#[derive(Debug, Clone)]
pub struct NatsBinary {
    /// Where it is.
    pub path: PathBuf,
    /// Its version, as it says itself.
    pub version: String,
    /// Where it comes from, when this program carries it, and the folder that it
    /// is unpacked into.
    carried: Option<(Carried, PathBuf)>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// It is nowhere.
    #[error(
        "nats-server was not found beside sotto-relay, in target/tools or on PATH: install version {}.{} or newer, or name it with --nats-server",
        OLDEST.0, OLDEST.1
    )]
    NotFound,
    /// The one that this program carries.
    #[error(transparent)]
    Carried(#[from] CarriedError),
    /// No program may be started from where it was unpacked.
    #[error(
        "nothing may be started from {0}: mount its file system without `noexec`, or name a nats-server elsewhere with --nats-server"
    )]
    MayNotStart(String),
    /// It does not run, or it is something else.
    #[error("{0} is not a nats-server that runs here: {1}")]
    NotOne(String, String),
    /// It is too old.
    #[error(
        "{path} is nats-server {version}, which is too old: install {}.{} or newer, or name another with --nats-server",
        OLDEST.0, OLDEST.1
    )]
    TooOld {
        /// Which one.
        path: String,
        /// What it says it is.
        version: String,
    },
}

impl NatsBinary {
    /// The one that is named, or else the one that this build carries, unpacked
    /// into the server's directory. A build that carries none takes the first
    /// of: beside this program, in `target/tools` of the build that it is from,
    /// on `PATH`.
    ///
    /// # Errors
    /// When there is none, or it is too old.
    pub fn find(named: Option<&Path>, layout: &Layout) -> Result<Self, BinaryError> {
        let carried = CARRIED.filter(|_| named.is_none());
        let carried = carried.map(|carried| (carried, layout.nats_programs()));
        let path = match (&carried, named) {
            (Some((carried, folder)), _) => carried.unpack(folder)?,
            (None, Some(named)) => named.to_owned(),
            (None, None) => search().ok_or(BinaryError::NotFound)?,
        };
        let version = ask(&path).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied if carried.is_some() => {
                BinaryError::MayNotStart(path.display().to_string())
            }
            _ => BinaryError::NotOne(path.display().to_string(), error.to_string()),
        })?;
        if !is_new_enough(&version) {
            let path = path.display().to_string();
            return Err(BinaryError::TooOld { path, version });
        }
        if let Some((carried, folder)) = &carried {
            carried.remove_others(folder)?;
        }
        Ok(Self {
            path,
            version,
            carried,
        })
    }

    /// Where it is, to be asked right before each start: what this program
    /// carries is then whole and as it was built in.
    ///
    /// # Errors
    /// When it is not, and cannot be made so.
    pub fn checked(&self) -> Result<PathBuf, BinaryError> {
        match &self.carried {
            Some((carried, folder)) => Ok(carried.unpack(folder)?),
            None => Ok(self.path.clone()),
        }
    }
}

/// Its version, as it says itself.
fn ask(path: &Path) -> io::Result<String> {
    let output = Command::new(path).arg("--version").output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = version(&said).map(str::to_owned);
    version.ok_or_else(|| io::Error::other("it does not say its version"))
}

/// The version in `nats-server: v2.15.1`.
fn version(said: &str) -> Option<&str> {
    said.trim().strip_prefix("nats-server: v")
}

fn search() -> Option<PathBuf> {
    let beside = env::current_exe().ok()?.parent()?.to_owned();
    let tools = beside.join("../tools");
    let path = env::var_os("PATH").unwrap_or_default();
    [beside, tools]
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(NAME))
        .find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_nats_server_says() {
        assert_eq!(version("nats-server: v2.15.1\n"), Some("2.15.1"));
        assert_eq!(version("GNU coreutils 9"), None);
    }

    #[test]
    fn another_program_is_no_nats_server() {
        let layout = Layout::new("/nowhere");
        let error = NatsBinary::find(Some(Path::new("/bin/true")), &layout).unwrap_err();
        assert!(matches!(error, BinaryError::NotOne(..)), "{error}");
    }
}
