//! Units of systemd, as it says itself how they are: `systemctl show`.

use std::io;
use std::process::Stdio;

use tokio::process::Command;

/// What is asked of each unit.
const PROPERTIES: [&str; 5] = [
    "LoadState",
    "UnitFileState",
    "ActiveState",
    "Result",
    "ExecStart",
];

/// What systemd says of a unit; one that is not there says nothing of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    /// It is loaded.
    pub is_there: bool,
    /// It is started with the machine.
    pub is_enabled: bool,
    /// Running, or waiting for its time.
    pub is_active: bool,
    /// The last time that it ran.
    pub has_failed: bool,
    /// How its program is started.
    pub command: String,
}

impl Unit {
    /// What follows an option in how its program is started: our units have no
    /// quoting.
    pub fn word_after(&self, option: &str) -> Option<&str> {
        let mut words = self.command.split_whitespace();
        words.find(|word| *word == option)?;
        words.next()
    }
}

/// Asks after these units.
///
/// # Errors
/// When systemd does not answer.
pub(crate) async fn ask<const N: usize>(units: &[String; N]) -> io::Result<[Unit; N]> {
    let said = Command::new("systemctl")
        .arg("show")
        .args(["--property", &PROPERTIES.join(",")])
        .args(units)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let text = String::from_utf8_lossy(&said.stdout);
    let units: Vec<Unit> = text.split("\n\n").map(unit).collect();
    units
        .try_into()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

/// One of the paragraphs that `systemctl show` prints.
fn unit(said: &str) -> Unit {
    let of = |name: &str| {
        let mut lines = said.lines().filter_map(|line| line.split_once('='));
        let found = lines.find(|(key, _)| *key == name);
        found.map_or("", |(_, value)| value)
    };
    Unit {
        is_there: of("LoadState") == "loaded",
        is_enabled: of("UnitFileState") == "enabled",
        is_active: matches!(of("ActiveState"), "active" | "activating"),
        has_failed: of("ActiveState") == "failed" || !matches!(of("Result"), "" | "success"),
        command: of("ExecStart").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_says_is_read() {
        let shown = unit(
            "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nResult=success\n\
             ExecStart={ path=/usr/local/bin/sotto-relay ; argv[]=/usr/local/bin/sotto-relay update \
             --state /var/lib/sotto-update apply ; ignore_errors=no }",
        );
        assert!(shown.is_there && shown.is_enabled && shown.is_active && !shown.has_failed);
        assert_eq!(shown.word_after("--state"), Some("/var/lib/sotto-update"));
        assert_eq!(shown.word_after("--dir"), None);
        let missing = unit("LoadState=not-found\nUnitFileState=\nActiveState=inactive");
        assert_eq!(missing, Unit::default());
        let failed = unit("LoadState=loaded\nActiveState=failed\nResult=exit-code");
        assert!(failed.has_failed);
    }
}
