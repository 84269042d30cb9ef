//! What the doctor finds: one fact, how bad it is, and what to do about it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The server's directory: its settings and who can read it.
    Directory,
    /// Which of the server's programs run.
    Programs,
    /// Names that must lead somewhere.
    Dns,
    /// Where the server listens, and where the other nodes do.
    Ports,
    /// The time of day.
    Clock,
    /// Room and speed of the disk.
    Disk,
    /// Certificates, and the gateway that shows one.
    Tls,
    /// nats-server and its streams.
    Nats,
    /// The versions of the accounts' JWTs.
    Accounts,
    /// Memory and open files.
    Memory,
    /// Whether the programs update themselves.
    Updates,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, and may not for long.
    Warning,
    /// Something does not work, or is about to be lost.
    Problem,
    /// Nobody knows.
    NotChecked,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// How bad it is.
    pub level: Level,
    /// What was found; of what was not checked, why not.
    pub what: String,
    /// What to do, in one sentence: with everything that is not ok.
    pub advice: Option<String>,
}

impl Finding {
    /// Something is as it should be.
    pub fn ok(check: Check, what: impl Into<String>) -> Self {
        Self {
            check,
            level: Level::Ok,
            what: what.into(),
            advice: None,
        }
    }

    /// Something works, and may not for long.
    pub fn warning(check: Check, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::advised(check, Level::Warning, what.into(), advice.into())
    }

    /// Something does not work.
    pub fn problem(check: Check, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::advised(check, Level::Problem, what.into(), advice.into())
    }

    /// Something is not known; `why` goes after "because".
    pub fn not_checked(check: Check, why: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::advised(check, Level::NotChecked, why.into(), advice.into())
    }

    fn advised(check: Check, level: Level, what: String, advice: String) -> Self {
        Self {
            check,
            level,
            what,
            advice: Some(advice),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Directory => "directory",
            Self::Programs => "programs",
            Self::Dns => "dns",
            Self::Ports => "ports",
            Self::Clock => "clock",
            Self::Disk => "disk",
            Self::Tls => "tls",
            Self::Nats => "nats",
            Self::Accounts => "accounts",
            Self::Memory => "memory",
            Self::Updates => "updates",
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
            Self::NotChecked => "not checked",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_read_the_names_that_people_do() {
        let finding = Finding::not_checked(Check::Dns, "there is no network", "plug it in");
        let json = serde_json::to_value(&finding).unwrap();
        assert_eq!(json["check"], Check::Dns.to_string());
        assert_eq!(json["level"], "not_checked");
        assert_eq!(json["advice"], "plug it in");
        assert_eq!(serde_json::from_value::<Finding>(json).unwrap(), finding);
        let fine = serde_json::to_value(Finding::ok(Check::Tls, "fine")).unwrap();
        assert!(fine["advice"].is_null());
    }
}
