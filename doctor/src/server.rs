//! What every check starts from: the directory, what its files say, and what
//! runs.

use std::fs;

use sotto_service::cluster::{Cluster, Member};
use sotto_service::config::{ConfigError, Sources};
use sotto_service::{Layout, ServerConfig};

use crate::checks::programs::Standing;
use crate::finding::{Check, Finding};
use crate::programs::Programs;

/// A server, running or not.
pub(crate) struct Server {
    /// Where its files are; the root is an absolute path.
    pub layout: Layout,
    /// What is in force, when it reads: `server.toml`, and what the environment
    /// and flags say here as the server's programs hear it.
    pub settings: Option<ServerConfig>,
    /// The nodes, when it is one of several.
    pub cluster: Option<Cluster>,
    /// What runs.
    pub programs: Programs,
}

impl Server {
    /// Reads what is there; nothing when no server is.
    pub fn look(sources: &Sources) -> (Option<Self>, Vec<Finding>) {
        // One that is missing is told of below.
        let dir = fs::canonicalize(&sources.dir).unwrap_or_else(|_| sources.dir.clone());
        let layout = Layout::new(dir);
        let mut findings = Vec::new();
        let settings = match sources.load() {
            Ok(effective) => {
                let text = valid(&layout, &effective.origins);
                findings.push(Finding::ok(Check::Directory, text));
                Some(effective.config)
            }
            Err(error) => {
                findings.push(unreadable(&layout, &error));
                if matches!(error, ConfigError::NotInitialised(_)) {
                    return (None, findings);
                }
                None
            }
        };
        let cluster = Cluster::load(&layout).unwrap_or_else(|error| {
            findings.push(Finding::problem(
                Check::Directory,
                format!("what this node knows of its cluster cannot be used: {error}"),
                "restore the folder `cluster` from a backup of this node, or join again into a new directory",
            ));
            None
        });
        let server = Self {
            programs: Programs::find(&layout),
            settings,
            cluster,
            layout,
        };
        (Some(server), findings)
    }

    /// Whether this machine can be a gateway.
    pub fn keeps_keys(&self) -> bool {
        self.layout.accounts().is_dir()
    }

    /// The nodes that are other machines.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.cluster.iter().flat_map(Cluster::others)
    }

    /// What is to be judged about the programs.
    pub fn standing(&self) -> Standing {
        Standing {
            programs: self.programs,
            keeps_keys: self.keeps_keys(),
            is_node: self.cluster.is_some(),
        }
    }
}

/// What the checks say that need the settings.
pub(crate) fn without_settings(check: Check) -> Vec<Finding> {
    vec![Finding::not_checked(
        check,
        "server.toml does not read",
        "repair server.toml first, and run this again",
    )]
}

/// Says also what is in force in place of the file.
fn valid(layout: &Layout, origins: &[(String, String)]) -> String {
    let file = layout.config();
    let file = file.display();
    if origins.is_empty() {
        return format!("{file} is valid");
    }
    let said = origins.iter().map(|(_, origin)| origin.as_str());
    let said: Vec<&str> = said.collect();
    format!(
        "{file} is valid, and so is what replaces it in part: {}",
        said.join(", ")
    )
}

fn unreadable(layout: &Layout, error: &ConfigError) -> Finding {
    let root = layout.root().display();
    match error {
        ConfigError::NotInitialised(_) => Finding::problem(
            Check::Directory,
            format!("there is no Sotto server in {root}, or it cannot be seen from here"),
            format!(
                "name its directory with --dir, as the user that it belongs to, or make a server with `sotto up {root}`"
            ),
        ),
        ConfigError::File(error) => Finding::problem(
            Check::Directory,
            error.to_string(),
            "run this as the user that the server runs as",
        ),
        ConfigError::Invalid { path, problem } => Finding::problem(
            Check::Directory,
            format!("{path} is not a valid configuration: {}", one_line(problem)),
            format!("correct {path}, or put back the copy that last worked"),
        ),
        ConfigError::Override { .. } => Finding::problem(
            Check::Directory,
            one_line(&error.to_string()),
            "correct what it names",
        ),
    }
}

/// The lines of a text as one, without those that show a piece of the file:
/// in a table a finger that points up points at nothing.
fn one_line(text: &str) -> String {
    let shows = |line: &str| {
        let number = line.split_once('|').map(|(number, _)| number.trim());
        number.is_some_and(|number| number.bytes().all(|c| c.is_ascii_digit()))
    };
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !shows(line));
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use sotto_service::private_files::FileError;

    use super::*;
    use crate::finding::Level;

    #[test]
    fn settings_that_do_not_read_are_named_on_one_line() {
        let layout = Layout::new("/srv/sotto");
        let invalid = ConfigError::Invalid {
            path: "/srv/sotto/server.toml".to_owned(),
            problem: "line 3\n  |\n3 | x = 1\n  | ^\n  unknown field `x`,\n  did you mean `y`?\n"
                .to_owned(),
        };
        let finding = unreadable(&layout, &invalid);
        assert_eq!(finding.level, Level::Problem);
        assert!(
            finding
                .what
                .ends_with("line 3 unknown field `x`, did you mean `y`?")
        );
        assert!(finding.advice.unwrap().contains("/srv/sotto/server.toml"));
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        let file = ConfigError::File(FileError::new("read", "/srv/sotto/server.toml", denied));
        assert!(unreadable(&layout, &file).advice.unwrap().contains("user"));
    }
}
