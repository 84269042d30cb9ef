//! Who may announce which name: what `names.toml` says.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

use nkeys::KeyPairType;
use serde::{Deserialize, Serialize};
use sotto_proto::OrgName;

use crate::name::{HostName, LINK_NAME, Pattern};

/// Most connections at a time of an org for which nothing is said.
pub const ORG_CONNECTIONS: u32 = 10_000;
/// Most connections at a time of all, if nothing is said.
const CONNECTIONS: u32 = 50_000;
/// Most connections of which no whole ClientHello has come, if nothing is said.
const WAITING: u32 = 10_000;

/// `names.toml`, as people write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamesFile {
    /// Of the whole public end.
    #[serde(default)]
    pub limits: Limits,
    /// One table each.
    #[serde(default, rename = "org")]
    pub orgs: Vec<Org>,
}

/// What the whole public end may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connections at a time, of all orgs.
    pub connections: u32,
    /// Connections of which no whole ClientHello has come yet; one more ends
    /// the oldest.
    pub waiting: u32,
}

/// One org that has dialers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Org {
    /// What logs and metrics call it.
    pub name: OrgName,
    /// The public nkeys of its dialers, of the kind "server" (`N…`).
    pub keys: BTreeSet<String>,
    /// What they may announce.
    pub names: BTreeSet<Pattern>,
    /// Connections at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Bytes that pass in a day (UTC), both ways together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_day: Option<NonZeroU64>,
}

/// The file, checked, as it is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameTable {
    limits: Limits,
    orgs: BTreeMap<OrgName, Org>,
    keys: BTreeMap<String, OrgName>,
    names: BTreeMap<Pattern, OrgName>,
}

/// Why a file is not in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// No TOML, or with other keys than expected; the message names the line.
    #[error("{0}")]
    Unreadable(String),
    /// The same org twice.
    #[error("the org `{0}` is there twice")]
    OrgTwice(OrgName),
    /// A key of two orgs.
    #[error("the key {0} is there for two orgs")]
    KeyTwice(String),
    /// Not a key of a dialer.
    #[error("`{0}` is not a dialer's public key: `sotto-tunnel key` prints it, it begins with N")]
    Key(String),
    /// A name of two orgs.
    #[error("the name `{0}` is there for two orgs")]
    NameTwice(Pattern),
    /// The public end's own.
    #[error("the name `{LINK_NAME}` is the tunnel's own")]
    OwnName,
}

sotto_log::log_safe!(TableError);

/// Why a dialer is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nobody knows its key.
    #[error("the key {0} is in no entry of names.toml")]
    Key(String),
    /// It announced what it may not.
    #[error("the org `{org}` may not announce `{pattern}`: names.toml does not give it that name")]
    Name {
        /// The org of the key.
        org: OrgName,
        /// What was announced.
        pattern: Pattern,
    },
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: CONNECTIONS,
            waiting: WAITING,
        }
    }
}

impl Org {
    /// Connections at a time.
    pub fn connections(&self) -> u32 {
        self.connections.unwrap_or(ORG_CONNECTIONS)
    }
}

impl NameTable {
    /// Reads what `names.toml` says.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn parse(text: &str) -> Result<Self, TableError> {
        let file: NamesFile =
            toml::from_str(text).map_err(|error| TableError::Unreadable(error.to_string()))?;
        Self::new(file)
    }

    /// Checks a file.
    ///
    /// # Errors
    /// [`TableError`].
    pub fn new(file: NamesFile) -> Result<Self, TableError> {
        let mut table = Self {
            limits: file.limits,
            ..Self::default()
        };
        for org in file.orgs {
            for key in &org.keys {
                if !is_dialer_key(key) {
                    return Err(TableError::Key(key.chars().take(80).collect()));
                }
                if table.keys.insert(key.clone(), org.name.clone()).is_some() {
                    return Err(TableError::KeyTwice(key.clone()));
                }
            }
            for pattern in &org.names {
                if LINK_NAME.parse().is_ok_and(|own| pattern.matches(&own)) {
                    return Err(TableError::OwnName);
                }
                let before = table.names.insert(pattern.clone(), org.name.clone());
                if before.is_some() {
                    return Err(TableError::NameTwice(pattern.clone()));
                }
            }
            if let Some(org) = table.orgs.insert(org.name.clone(), org) {
                return Err(TableError::OrgTwice(org.name));
            }
        }
        Ok(table)
    }

    /// The limits of the whole public end.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The org whose name this is: an exact name goes before a wildcard.
    pub fn owner(&self, name: &HostName) -> Option<&Org> {
        let exact = self.names.get(&Pattern::Exact(name.clone()));
        let owner = exact.or_else(|| self.names.get(&Pattern::Wildcard(name.parent()?)));
        self.orgs.get(owner?)
    }

    /// Whether nobody may announce anything.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// What is said of an org.
    pub fn org(&self, name: &OrgName) -> Option<&Org> {
        self.orgs.get(name)
    }

    /// The org of a dialer that has this key and announces these names, all
    /// of which it must be given.
    ///
    /// # Errors
    /// [`Denied`].
    pub fn admit<'a>(
        &self,
        key: &str,
        announced: impl IntoIterator<Item = &'a Pattern>,
    ) -> Result<&Org, Denied> {
        let unknown = || Denied::Key(key.chars().take(80).collect());
        let org = self.keys.get(key).and_then(|org| self.orgs.get(org));
        let org = org.ok_or_else(unknown)?;
        let stolen = |pattern: &&Pattern| !self.may_announce(org, pattern);
        match announced.into_iter().find(stolen) {
            None => Ok(org),
            Some(pattern) => Err(Denied::Name {
                org: org.name.clone(),
                pattern: pattern.clone(),
            }),
        }
    }

    /// Covered by what the org is given, and by no exact name of another.
    fn may_announce(&self, org: &Org, pattern: &Pattern) -> bool {
        let others = self
            .names
            .get(pattern)
            .is_some_and(|owner| *owner != org.name);
        !others && org.names.iter().any(|given| given.covers(pattern))
    }
}

/// A public nkey of the kind "server".
pub(crate) fn is_dialer_key(key: &str) -> bool {
    key.len() <= 80
        && nkeys::KeyPair::from_public_key(key)
            .is_ok_and(|key| matches!(key.key_pair_type(), KeyPairType::Server))
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
