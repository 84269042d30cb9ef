//! Reads the users and groups that a mapping asks for, over TLS and in pages.
//! What comes back is all of it or an error: an incomplete list would look
//! like people who left.

mod error;
mod search;

use std::collections::BTreeSet;

use ldap3::{Ldap, Scope};
use tokio::time::timeout;

use crate::connection;
use crate::dn::{Dn, shown};
use crate::mapping::{Attribute, Mapping, Whose};

pub use error::FetchError;

use search::{Found, Search, refused};

/// The filter that every entry passes.
const ANY: &str = "(objectClass=*)";

/// What an LDAP server says, all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries {
    /// One per user; never empty when fetched.
    pub users: Vec<Entry>,
    /// One per group; empty when the mapping reads none.
    pub groups: Vec<GroupEntry>,
    /// The entries that rules name with `ou`.
    pub units: Vec<Entry>,
}

/// An entry as far as the mapping asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub dn: Dn,
    /// What stays when it is renamed or moved; bytes that are no text as hex.
    pub id: Option<String>,
    /// The first value of its name attribute.
    pub name: Option<String>,
    /// The first value of its title attribute.
    pub title: Option<String>,
}

/// An entry that has members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupEntry {
    /// The entry itself.
    pub entry: Entry,
    /// As the mapping's `members_are` says.
    pub members: Vec<Member>,
}

/// One value of a member attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// Another entry.
    Dn(Dn),
    /// A user's name, in the server's own words.
    Name(String),
}

/// Reads everything that the mapping asks for. `password` is that of its
/// `bind_dn`, and unused without one.
///
/// # Errors
/// When any of it cannot be had, is not believable, or may be incomplete.
pub async fn fetch(mapping: &Mapping, password: &str) -> Result<Entries, FetchError> {
    if mapping.bind_dn().is_some() && password.is_empty() {
        return Err(FetchError::NoPassword);
    }
    let patience = mapping.server.patience.0;
    let work = async {
        let stream = connection::open(&mapping.server).await?;
        connection::with_ldap(stream, async |ldap| read(mapping, password, ldap).await).await
    };
    match timeout(patience, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(FetchError::Slow(patience)),
    }
}

async fn read(mapping: &Mapping, password: &str, mut ldap: Ldap) -> Result<Entries, FetchError> {
    // Always, so that the message that `messages::BIND_ID` names is the bind.
    let bound = match mapping.bind_dn() {
        Some(dn) => ldap.simple_bind(&dn.to_string(), password).await?,
        None => ldap.simple_bind("", "").await?,
    };
    match bound.rc {
        0 => {}
        49 => return Err(FetchError::WrongPassword),
        _ => {
            return Err(refused(
                &mapping.bind_dn().cloned().unwrap_or_default(),
                bound,
            ));
        }
    }

    let mut entries = Entries::default();
    let mut seen = BTreeSet::new();
    for rule in &mapping.rules {
        if let Whose::Below(dn, _) = &rule.whose
            && seen.insert(dn)
        {
            entries.units.push(read_unit(mapping, &mut ldap, dn).await?);
        }
    }

    let users = &mapping.users;
    let search = Search {
        base: &users.base,
        filter: users.filter.as_str(),
        attributes: attributes([Some(&users.name), users.title.as_ref(), Some(&users.id)]),
        page_size: mapping.server.page_size.0,
    };
    for found in search.all(&mut ldap).await? {
        entries
            .users
            .push(found.entry(&users.name, users.title.as_ref(), &users.id));
    }

    if let Some(groups) = &mapping.groups {
        let title = groups.title.as_ref();
        let member = &groups.member;
        let search = Search {
            base: &groups.base,
            filter: groups.filter.as_str(),
            attributes: attributes([Some(&groups.name), title, Some(&groups.id), Some(member)]),
            page_size: mapping.server.page_size.0,
        };
        for found in search.all(&mut ldap).await? {
            entries.groups.push(GroupEntry {
                members: found.members(member, groups.members_are)?,
                entry: found.entry(&groups.name, title, &groups.id),
            });
        }
    }
    Ok(entries)
}

/// The entry that a rule names with `ou`.
async fn read_unit(mapping: &Mapping, ldap: &mut Ldap, dn: &Dn) -> Result<Entry, FetchError> {
    let name = Attribute::unit_name();
    let wanted = attributes([Some(&name), Some(&mapping.users.id)]);
    let search = ldap
        .search(&dn.to_string(), Scope::Base, ANY, wanted)
        .await?;
    if search.1.rc != 0 {
        return Err(refused(dn, search.1));
    }
    let [found] = <[_; 1]>::try_from(search.0).map_err(|_| FetchError::NoSuchEntry(dn.clone()))?;
    let found = Found::parse(found, dn)?;
    if found.dn != *dn {
        return Err(FetchError::Unasked(shown(&found.dn.to_string())));
    }
    Ok(found.entry(&name, None, &mapping.users.id))
}

fn attributes<const N: usize>(wanted: [Option<&Attribute>; N]) -> Vec<&str> {
    wanted
        .into_iter()
        .flatten()
        .map(Attribute::as_str)
        .collect()
}
