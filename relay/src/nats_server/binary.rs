//! Which nats-server to run.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest version that has all that we use of it.
const OLDEST: (u32, u32) = (2, 14);
const NAME: &str = "nats-server";

/// A nats-server that is new enough.
#[derive(Debug, Clone)]
pub struct NatsBinary {
    /// Where it is.
    pub path: PathBuf,
    /// Its version, as it says itself.
    pub version: String,
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
    /// The one that is named, or the first of: beside this program, in
    /// `target/tools` of the build that this program is from, on `PATH`.
    ///
    /// # Errors
    /// When there is none, or it is too old.
    pub fn find(named: Option<&Path>) -> Result<Self, BinaryError> {
        let path = named.map(Path::to_owned).or_else(search);
        let path = path.ok_or(BinaryError::NotFound)?;
        let shown = path.display().to_string();
        let output = Command::new(&path)
            .arg("--version")
            .output()
            .map_err(|error| BinaryError::NotOne(shown.clone(), error.to_string()))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let version = version(&said).ok_or_else(|| {
            let problem = "it does not say its version".to_owned();
            BinaryError::NotOne(shown.clone(), problem)
        })?;
        if is_new_enough(version) {
            Ok(Self {
                path,
                version: version.to_owned(),
            })
        } else {
            Err(BinaryError::TooOld {
                path: shown,
                version: version.to_owned(),
            })
        }
    }
}

/// Whether a version like `2.15.1` is one that we can use.
pub(super) fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= OLDEST,
        _ => false,
    }
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
    fn versions_are_compared_as_numbers() {
        for new in ["2.14.0", "2.15.1", "2.100.0", "3.0.0", "2.15.0-RC.1"] {
            assert!(is_new_enough(new), "{new}");
        }
        for old in ["2.9.10", "2.13.99", "1.99.0", "", "2", "dev", "2.x"] {
            assert!(!is_new_enough(old), "{old}");
        }
        assert_eq!(version("nats-server: v2.15.1\n"), Some("2.15.1"));
        assert_eq!(version("GNU coreutils 9"), None);
    }

    #[test]
    fn another_program_is_no_nats_server() {
        let error = NatsBinary::find(Some(Path::new("/bin/true"))).unwrap_err();
        assert!(matches!(error, BinaryError::NotOne(..)), "{error}");
    }
}
