//! Where settings come from, the strongest first:
//!
//! 1. flags: `--set gateway.listen=…`, and `--gateway-listen`, which is short for it;
//! 2. the environment: `SOTTO__GATEWAY__LISTEN`, and `SOTTO_GATEWAY_LISTEN`;
//! 3. `server.toml`;
//! 4. what is in force where nothing is said.
//!
//! Every key of `server.toml` can be said in each of them. A value is TOML; what
//! does not read as TOML is a text, so that an address needs no quotes.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use toml::{Table, Value};

use super::{ConfigError, FILE_MAX, ServerConfig, nearest};
use crate::Layout;
use crate::handover::HandoverArgs;
use crate::logging::LogArgs;
use crate::private_files::{self, FileError};

/// What all variables begin with that name a key.
const PREFIX: &str = "SOTTO__";
/// Variables with a name of their own, and the keys that they set.
const SHORT: [(&str, &str); 2] = [
    ("SOTTO_GATEWAY_LISTEN", "gateway.listen"),
    ("SOTTO_NATS_LISTEN", "nats.listen"),
];

/// The flags that say what is configured, and how.
#[derive(Debug, Clone, clap::Args)]
pub struct Sources {
    /// The server's data directory.
    #[arg(long, env = "SOTTO_SERVER_DIR", value_name = "DIR")]
    pub dir: PathBuf,

    /// Where the gateway listens, instead of what server.toml says [env: SOTTO_GATEWAY_LISTEN]
    #[arg(long, value_name = "IP:PORT")]
    gateway_listen: Option<SocketAddr>,

    /// Where nats-server listens, instead of what server.toml says [env: SOTTO_NATS_LISTEN]
    #[arg(long, value_name = "IP:PORT")]
    nats_listen: Option<SocketAddr>,

    /// Any key, instead of what server.toml says, as in relay.metrics=127.0.0.1:9464
    /// [env: SOTTO__RELAY__METRICS]
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// The flags that every server binary's `run` has.
#[derive(Debug, Clone, clap::Args)]
pub struct ServerArgs {
    /// What is configured.
    #[command(flatten)]
    pub sources: Sources,

    /// What is logged.
    #[command(flatten)]
    pub log: LogArgs,

    /// Stop when standard input ends, which it does when the parent is gone.
    #[arg(long)]
    pub exit_with_parent: bool,

    /// How a successor takes over.
    #[command(flatten)]
    pub handover: HandoverArgs,
}

impl ServerArgs {
    /// As [`Sources::load`], without who said what.
    ///
    /// # Errors
    /// As there.
    pub fn load(&self) -> Result<(Layout, ServerConfig), ConfigError> {
        let effective = self.sources.load()?;
        Ok((effective.layout, effective.config))
    }
}

/// What is in force, and who said so.
#[derive(Debug)]
pub struct Effective {
    /// With its one absolute path.
    pub layout: Layout,
    /// The configuration.
    pub config: ServerConfig,
    /// Of each key that is not as in the file: the key, and who said it.
    pub origins: Vec<(String, String)>,
}

/// One key, said in another place than the file.
#[derive(Debug, Clone, PartialEq)]
struct Override {
    key: String,
    value: Value,
    origin: String,
}

impl Sources {
    /// Of the server in `dir`, with what `--set` says.
    pub fn new(dir: impl Into<PathBuf>, set: Vec<String>) -> Self {
        Self {
            dir: dir.into(),
            gateway_listen: None,
            nats_listen: None,
            set,
        }
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// As [`ServerConfig::load`], and when the environment or a flag says what
    /// does not fit.
    pub fn load(&self) -> Result<Effective, ConfigError> {
        self.load_with(std::env::vars_os())
    }

    fn load_with(
        &self,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Effective, ConfigError> {
        let mut overrides = from_environment(environment)?;
        overrides.extend(self.flags()?);
        let layout = Layout::new(&self.dir);
        let config = if overrides.is_empty() {
            ServerConfig::load(&layout)?
        } else {
            merged(&layout, &overrides)?
        };
        let root = std::fs::canonicalize(&self.dir)
            .map_err(|error| FileError::new("find", &self.dir, error))?;
        let mut origins = Vec::new();
        for said in overrides {
            origins.retain(|(key, _)| *key != said.key);
            origins.push((said.key, said.origin));
        }
        Ok(Effective {
            layout: Layout::new(root),
            config,
            origins,
        })
    }

    fn flags(&self) -> Result<Vec<Override>, ConfigError> {
        let mut overrides = Vec::new();
        let short = [
            ("gateway.listen", "--gateway-listen", self.gateway_listen),
            ("nats.listen", "--nats-listen", self.nats_listen),
        ];
        for (key, flag, listen) in short {
            if let Some(listen) = listen {
                overrides.push(Override {
                    key: key.to_owned(),
                    value: Value::String(listen.to_string()),
                    origin: flag.to_owned(),
                });
            }
        }
        for said in &self.set {
            let Some((key, text)) = said.split_once('=') else {
                let origin = format!("--set {}", said.escape_default());
                let problem = "say KEY=VALUE".to_owned();
                return Err(ConfigError::Override { origin, problem });
            };
            overrides.push(Override {
                key: key.to_owned(),
                value: value(text),
                origin: format!("--set {key}"),
            });
        }
        Ok(overrides)
    }
}

/// The short names first, so that a long one wins, which is what says more.
fn from_environment(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Result<Vec<Override>, ConfigError> {
    let mut overrides = Vec::new();
    for (name, text) in variables {
        let Some(name) = name.to_str() else { continue };
        let short = SHORT.iter().find(|(short, _)| *short == name);
        let key = match (short, name.strip_prefix(PREFIX)) {
            (Some((_, key)), _) => (*key).to_owned(),
            (None, Some(path)) => path.to_ascii_lowercase().replace("__", "."),
            (None, None) => continue,
        };
        let Some(text) = text.to_str() else {
            let problem = "it is not text".to_owned();
            let origin = name.to_owned();
            return Err(ConfigError::Override { origin, problem });
        };
        overrides.push(Override {
            key,
            value: value(text),
            origin: name.to_owned(),
        });
    }
    overrides.sort_by_key(|said| said.origin.starts_with(PREFIX));
    Ok(overrides)
}

fn value(text: &str) -> Value {
    let read = toml::from_str::<Table>(&format!("value = {text}"));
    let value = read.ok().filter(|table| table.len() == 1);
    let value = value.and_then(|mut table| table.remove("value"));
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// The file, with what else was said in its place. Each is tried by itself, so
/// that an error names whose it is.
fn merged(layout: &Layout, overrides: &[Override]) -> Result<ServerConfig, ConfigError> {
    if !layout.is_initialised() {
        let root = layout.root().display().to_string();
        return Err(ConfigError::NotInitialised(root));
    }
    let path = layout.config();
    let text = private_files::read_text(&path, FILE_MAX)?;
    let invalid = |problem| ConfigError::Invalid {
        path: path.display().to_string(),
        problem,
    };
    let mut table: Table = toml::from_str(&text).map_err(|error| invalid(error.to_string()))?;
    let mut complete = ServerConfig::read(&text);
    for said in overrides {
        let refused = |problem| ConfigError::Override {
            origin: said.origin.clone(),
            problem,
        };
        insert(&mut table, &said.key, said.value.clone()).map_err(refused)?;
        let read = table.clone().try_into::<ServerConfig>();
        let read = read.map_err(|error| nearest::explain(&error));
        let read = read.and_then(ServerConfig::checked);
        if let (Ok(_), Err(problem)) = (&complete, &read) {
            return Err(refused(problem.trim_end().to_owned()));
        }
        complete = read;
    }
    complete.map_err(invalid)
}

fn insert(table: &mut Table, key: &str, value: Value) -> Result<(), String> {
    let Some((first, rest)) = key.split_once('.') else {
        table.insert(key.to_owned(), value);
        return Ok(());
    };
    let inner = table
        .entry(first)
        .or_insert_with(|| Value::Table(Table::new()));
    match inner {
        Value::Table(inner) => insert(inner, rest, value),
        _ => Err(format!("`{first}` is no table")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::tests::{config, saved};

    #[derive(Parser)]
    struct Binary {
        #[command(flatten)]
        sources: Sources,
    }

    fn load(
        dir: &std::path::Path,
        flags: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Effective, ConfigError> {
        let args = ["binary", "--dir", dir.to_str().unwrap()];
        let args = args.into_iter().chain(flags.iter().copied());
        let variables = variables
            .iter()
            .map(|(name, text)| (OsString::from(name), OsString::from(text)));
        Binary::parse_from(args).sources.load_with(variables)
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let (folder, _) = saved();
        let port = |flags: &[&str], variables: &[(&str, &str)]| {
            let effective = load(folder.path(), flags, variables).unwrap();
            effective.config.nats.listen.port()
        };
        let short = [("SOTTO_NATS_LISTEN", "[::]:5001")];
        let long = [
            ("SOTTO__NATS__LISTEN", "[::]:5002"),
            ("SOTTO_NATS_LISTEN", "[::]:5001"),
        ];
        assert_eq!(port(&[], &[]), 4222);
        assert_eq!(port(&[], &short), 5001);
        assert_eq!(port(&[], &long), 5002);
        assert_eq!(port(&["--nats-listen", "[::]:5003"], &long), 5003);
        let set = [
            "--nats-listen",
            "[::]:5003",
            "--set",
            "nats.listen=[::]:5004",
        ];
        assert_eq!(port(&set, &long), 5004);
    }

    #[test]
    fn every_key_can_be_said_everywhere_and_who_said_it_is_known() {
        let (folder, _) = saved();
        let flags = ["--set", "limits.burst=9"];
        let variables = [("SOTTO__RELAY__METRICS", "127.0.0.1:9"), ("PATH", "/bin")];
        let effective = load(folder.path(), &flags, &variables).unwrap();
        assert_eq!(effective.config.limits.burst.map(u64::from), Some(9));
        assert_eq!(effective.config.relay.metrics, "127.0.0.1:9".parse().ok());
        let said = |key: &str, origin: &str| (key.to_owned(), origin.to_owned());
        let expected = [
            said("relay.metrics", "SOTTO__RELAY__METRICS"),
            said("limits.burst", "--set limits.burst"),
        ];
        assert_eq!(effective.origins, expected);
    }

    #[test]
    fn nothing_said_is_the_file() {
        let (folder, _) = saved();
        let effective = load(folder.path(), &[], &[]).unwrap();
        assert_eq!(effective.config, config());
        assert!(effective.origins.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_named_with_who_said_it() {
        let (folder, _) = saved();
        let failed = |flags: &[&str], variables: &[(&str, &str)]| {
            let error = load(folder.path(), flags, variables).unwrap_err();
            error.to_string()
        };
        let text = failed(&[], &[("SOTTO__GATEWAY__LISTNE", "127.0.0.1:1")]);
        assert!(text.contains("SOTTO__GATEWAY__LISTNE"), "{text}");
        assert!(text.contains("did you mean `listen`?"), "{text}");
        let text = failed(&["--set", "shards=0"], &[]);
        assert!(text.contains("--set shards"), "{text}");
        let text = failed(&["--set", "shards"], &[]);
        assert!(text.contains("KEY=VALUE"), "{text}");
        let text = failed(&["--set", "shards.x=1"], &[]);
        assert!(text.contains("no table"), "{text}");
    }

    #[test]
    fn a_key_that_the_file_lacks_may_come_from_elsewhere() {
        let (folder, layout) = saved();
        let text = std::fs::read_to_string(layout.config()).unwrap();
        let text = text.replace("shards = 1\n", "");
        std::fs::write(layout.config(), text).unwrap();
        let missing = load(folder.path(), &[], &[]).unwrap_err().to_string();
        assert!(missing.contains("shards"), "{missing}");
        let effective = load(folder.path(), &["--set", "shards=3"], &[]).unwrap();
        assert_eq!(effective.config.shards.get(), 3);
    }

    #[test]
    fn values_are_toml_or_text() {
        assert_eq!(value("5"), Value::Integer(5));
        assert_eq!(value("\"5\""), Value::String("5".to_owned()));
        assert_eq!(
            value("127.0.0.1:5"),
            Value::String("127.0.0.1:5".to_owned())
        );
        assert!(value("[1, 2]").is_array());
        // Not a way to say more than one key.
        assert!(value("1\nshards = 2").is_str());
    }
}
