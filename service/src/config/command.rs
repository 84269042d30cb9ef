//! `config` as a subcommand of every server program.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;
use toml::{Table, Value};

use super::sources::Effective;
use super::{ConfigError, ServerConfig, SmsConfig, Sources};
use crate::consul::ConsulConfig;
use crate::private_files::FileError;

/// What stands in the place of a secret.
const HIDDEN: &str = "(hidden)";

/// The arguments of `config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether the configuration is one with which the server can start.
    Check(Common),
    /// Print the configuration, without secrets.
    Show(Show),
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    sources: Sources,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    common: Common,
    /// What is in force, and who said so, instead of what the file says.
    #[arg(long)]
    effective: bool,
}

/// Does what was asked.
///
/// # Errors
/// When the configuration is not valid, or a file that it names is missing.
pub fn run(args: &ConfigArgs) -> Result<(), ConfigError> {
    match &args.command {
        ConfigCommand::Check(common) => check(common),
        ConfigCommand::Show(args) => show(args),
    }
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn check(args: &Common) -> Result<(), ConfigError> {
    let effective = args.sources.load()?;
    let config = &effective.config;
    let passphrase = config.keys.passphrase_file.as_deref();
    let sms = config.sms.iter().flat_map(SmsConfig::files);
    let consul = config.consul.iter().flat_map(ConsulConfig::files);
    let mut named = passphrase.into_iter().chain(sms).chain(consul);
    named.try_for_each(readable)?;
    let path = effective.layout.config();
    match args.json {
        true => println!("{}", json!({ "valid": true, "file": path })),
        false => println!("{} is valid.", path.display()),
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn show(args: &Show) -> Result<(), ConfigError> {
    let effective = match args.effective {
        true => args.common.sources.load()?,
        false => {
            let layout = crate::Layout::new(&args.common.sources.dir);
            Effective {
                config: ServerConfig::load(&layout)?,
                layout,
                origins: Vec::new(),
            }
        }
    };
    let invalid = |problem: String| ConfigError::Invalid {
        path: effective.layout.config().display().to_string(),
        problem,
    };
    let table = without_secrets(&effective.config).map_err(invalid)?;
    if args.common.json {
        let origins: serde_json::Map<String, serde_json::Value> = effective
            .origins
            .into_iter()
            .map(|(key, origin)| (key, origin.into()))
            .collect();
        println!("{}", json!({ "config": table, "origins": origins }));
        return Ok(());
    }
    for (key, origin) in &effective.origins {
        println!("# {key}: from {origin}");
    }
    let text = toml::to_string(&table).map_err(|error| invalid(error.to_string()))?;
    println!("{}", text.trim_end());
    Ok(())
}

/// The files hold the secrets, and are only named; but the fields that are sent
/// to a provider of text messages, and its address, may hold a key.
fn without_secrets(config: &ServerConfig) -> Result<Table, String> {
    let mut config = config.clone();
    if let Some(sms) = &mut config.sms {
        hide(sms);
    }
    match Value::try_from(config) {
        Ok(Value::Table(table)) => Ok(table),
        Ok(_) => Err("it is no table".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn hide(sms: &mut SmsConfig) {
    for value in sms.fields.values_mut() {
        if value != "{number}" && value != "{text}" {
            HIDDEN.clone_into(value);
        }
    }
    let Some((scheme, rest)) = sms.url.split_once("://") else {
        HIDDEN.clone_into(&mut sms.url);
        return;
    };
    // Who logs in stands before the host, what else may be secret after it.
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    sms.url = format!("{scheme}://{host}/{HIDDEN}");
}

fn readable(file: &Path) -> Result<(), FileError> {
    match std::fs::File::open(file) {
        Ok(_) => Ok(()),
        Err(error) => Err(FileError::new("read", file, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;

    #[test]
    fn nothing_that_may_be_secret_is_shown() {
        let mut config = config();
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        config.sms = Some(SmsConfig {
            url: "https://acme:hunter2@sms.example:8443/v1/hunter3?key=hunter4".to_owned(),
            bearer_file: Some("/etc/sotto/bearer".into()),
            ca_file: None,
            fields: [
                field("to", "{number}"),
                field("body", "{text}"),
                field("api_key", "hunter5"),
            ]
            .into(),
        });
        let shown = toml::to_string(&without_secrets(&config).unwrap()).unwrap();
        assert!(!shown.contains("hunter"), "{shown}");
        for seen in [
            "sms.example:8443",
            "/etc/sotto/bearer",
            "{number}",
            "api_key",
        ] {
            assert!(shown.contains(seen), "{shown}");
        }
    }
}
