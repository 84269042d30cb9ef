//! A person at a terminal: one folder, one password, and the `sotto` program.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::network::Network;
use crate::process::{Outcome, Running, binary};

/// One device of one user.
#[derive(Debug, Clone)]
pub struct Person {
    sotto: PathBuf,
    dir: PathBuf,
    password: String,
    clock_offset_seconds: i64,
    /// What comes before `sotto` on the command line.
    prefix: Vec<String>,
}

impl Person {
    /// A device that keeps everything in `dir`. The password is both that of
    /// the account and the passphrase of the folder.
    ///
    /// # Errors
    /// When `sotto` was not built.
    pub fn new(dir: impl Into<PathBuf>, password: &str) -> anyhow::Result<Self> {
        Ok(Self {
            sotto: binary("sotto")?,
            dir: dir.into(),
            password: password.to_owned(),
            clock_offset_seconds: 0,
            prefix: Vec::new(),
        })
    }

    /// The same person behind a network of their own.
    #[must_use]
    pub fn behind(self, network: &Network) -> Self {
        Self {
            prefix: network.enter().into(),
            ..self
        }
    }

    /// The same person, whose programs are started by this command.
    #[must_use]
    pub fn within(self, prefix: Vec<String>) -> Self {
        Self { prefix, ..self }
    }

    /// The same person with another idea of the time.
    #[must_use]
    pub fn with_clock_off_by(self, seconds: i64) -> Self {
        Self {
            clock_offset_seconds: seconds,
            ..self
        }
    }

    /// The same person with another password in mind.
    #[must_use]
    pub fn with_password(self, password: &str) -> Self {
        Self {
            password: password.to_owned(),
            ..self
        }
    }

    /// The folder of this device.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The password of the account, and the passphrase of the folder.
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Types a command and waits for its end, however it ends.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Outcome> {
        Running::start(self.command(arguments), Some(String::new()))?.finish()
    }

    /// Types a command that must succeed; what it printed.
    ///
    /// # Errors
    /// With what the program said.
    pub fn does(&self, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
        self.run(arguments)?.success()
    }

    /// Types a command and, while it runs, `input`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn starts(&self, arguments: &[&str], input: Option<String>) -> anyhow::Result<Running> {
        Running::start(self.command(arguments), input)
    }

    /// Types a command without `--json`: what it prints for people comes as
    /// lines of text.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn starts_for_people(&self, arguments: &[&str]) -> anyhow::Result<Running> {
        Running::start(self.sotto(arguments), None)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.sotto(arguments);
        command.arg("--json");
        command
    }

    fn sotto(&self, arguments: &[&str]) -> Command {
        let mut command = match self.prefix.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.sotto);
                command
            }
            None => Command::new(&self.sotto),
        };
        command
            .arg("--dir")
            .arg(&self.dir)
            .args(arguments)
            .env("SOTTO_PASSWORD", &self.password)
            .env("SOTTO_PASSPHRASE", &self.password)
            .env(
                "SOTTO_CLOCK_OFFSET_SECONDS",
                self.clock_offset_seconds.to_string(),
            );
        command
    }
}
