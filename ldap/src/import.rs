//! Reads the users and groups that a mapping asks for, over TLS and in pages.
//! What comes back is all of it or an error: an incomplete list would look
//! like people who left.

use std::collections::BTreeSet;
use std::time::Duration;

use data_encoding::HEXLOWER;
use ldap3::controls::{Control, ControlType, MakeCritical, PagedResults, RawControl};
use ldap3::{Ldap, LdapError, LdapResult, Scope, SearchEntry};
use tokio::time::timeout;

use crate::connection;
use crate::dn::{Dn, shown};
use crate::mapping::{Attribute, Mapping, MembersAre, Whose};
use crate::messages::BadMessage;

/// Most entries of one kind that are read.
const ENTRIES_MAX: usize = 250_000;
/// Longest id, in bytes: an entryUUID has 36, an objectGUID 16.
const ID_MAX: usize = 64;
/// The filter that every entry passes.
const ANY: &str = "(objectClass=*)";

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The file of authorities.
    #[error("cannot use `ca_file` {path}: {why}; it must hold PEM certificates")]
    Authorities {
        /// Which file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// No connection, or it broke.
    #[error("cannot talk to the LDAP server: {0}; check `url` and the network")]
    Unreachable(String),
    /// No TLS that can be trusted.
    #[error("no trusted TLS with the LDAP server: {0}; check `ca_file` and the host in `url`")]
    Tls(String),
    /// The server has no StartTLS.
    #[error("the LDAP server refuses StartTLS: use `ldaps://` in `url`, or have it set up there")]
    NoStartTls,
    /// It accepted the connection, and then nothing came.
    #[error("the LDAP server has been silent for {} s: it hangs, or `url` is no LDAP server", .0.as_secs())]
    Silent(Duration),
    /// It answers too slowly.
    #[error("the LDAP server took longer than {} s: set `patience_seconds` or narrow the filters", .0.as_secs())]
    Slow(Duration),
    /// It closed the connection before it was done.
    #[error(
        "the LDAP server closed the connection before it was done: try again, then see its log"
    )]
    Closed,
    /// It does not speak LDAP, or lies.
    #[error("the LDAP server cannot be believed: {0}; check that `url` is an LDAP server")]
    BadAnswer(#[from] BadMessage),
    /// It sends and sends.
    #[error("the LDAP server sends more than an import can be: narrow the bases and filters")]
    TooMuch,
    /// This machine.
    #[error("this machine cannot do it: {0}")]
    Local(#[source] std::io::Error),
    /// ldap3 could not.
    #[error("the LDAP library failed: {0}")]
    Library(#[from] LdapError),
    /// A `bind_dn` without a password would be an anonymous login (RFC 4513, 5.1.2).
    #[error("the password of `bind_dn` is empty: give it, or remove `bind_dn` to read anonymously")]
    NoPassword,
    /// The login.
    #[error("the LDAP server does not let `bind_dn` in: check it and the password")]
    WrongPassword,
    /// Something named in the mapping is not there.
    #[error(
        "the LDAP server has no entry `{0}`, or hides it: check the mapping and its access rules"
    )]
    NoSuchEntry(Dn),
    /// The list would be cut.
    #[error(
        "the LDAP server sends only a part of what is below `{0}`: lift its size and time limits \
         for this login (OpenLDAP: `limits … size.prtotal=unlimited`)"
    )]
    Partial(Dn),
    /// Whether the list is cut cannot be known.
    #[error("the LDAP server does not send pages (RFC 2696), so a cut list would not be noticed")]
    NotPaged,
    /// Any other refusal.
    #[error("the LDAP server refuses to read below `{base}`: {code}, `{text}`")]
    Refused {
        /// Where.
        base: Dn,
        /// RFC 4511 result code.
        code: u32,
        /// Its own words, shortened.
        text: String,
    },
    /// A part of it is on another server.
    #[error("a part of `{base}` is on another server, `{url}`: choose a narrower base")]
    Elsewhere {
        /// What was asked for.
        base: Dn,
        /// The other server.
        url: String,
    },
    /// An answer to another question.
    #[error("the LDAP server cannot be believed: it sent `{0}`, which was not asked for")]
    Unasked(String),
    /// The same entry twice.
    #[error("the LDAP server cannot be believed: it sent `{0}` twice; try again")]
    Twice(Dn),
    /// Active Directory's way to send only some of many members.
    #[error(
        "the LDAP server sends only some of the members of `{0}` at once: raise its limit of \
         values per answer (Active Directory: MaxValRange)"
    )]
    MembersCut(Dn),
    /// A list is empty.
    #[error("the LDAP server found nobody below `{0}`: check base, filter and its access rules")]
    Nothing(Dn),
}

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

/// A search of a whole subtree, page by page.
struct Search<'a> {
    base: &'a Dn,
    filter: &'a str,
    attributes: Vec<&'a str>,
    page_size: u16,
}

impl Search<'_> {
    /// All of it, at least one, each once, and nothing else.
    async fn all(&self, ldap: &mut Ldap) -> Result<Vec<Found>, FetchError> {
        let mut all = Vec::new();
        let mut seen = BTreeSet::new();
        let mut cookie = Vec::new();
        loop {
            let (page, next) = self.page(ldap, cookie).await?;
            for found in page {
                if found.dn != *self.base && !found.dn.is_below(self.base) {
                    return Err(FetchError::Unasked(shown(&found.dn.to_string())));
                }
                if !seen.insert(found.dn.clone()) {
                    return Err(FetchError::Twice(found.dn));
                }
                all.push(found);
            }
            if all.len() > ENTRIES_MAX {
                return Err(FetchError::TooMuch);
            }
            if next.is_empty() {
                break;
            }
            cookie = next;
        }
        if all.is_empty() {
            return Err(FetchError::Nothing(self.base.clone()));
        }
        Ok(all)
    }

    /// One page, and the cookie for the next.
    async fn page(
        &self,
        ldap: &mut Ldap,
        cookie: Vec<u8>,
    ) -> Result<(Vec<Found>, Vec<u8>), FetchError> {
        let control = PagedResults {
            size: self.page_size.into(),
            cookie,
        };
        let base = self.base.to_string();
        let attributes = self.attributes.clone();
        let mut answers = ldap
            .with_controls(RawControl::from(control.critical()))
            .streaming_search(&base, Scope::Subtree, self.filter, attributes)
            .await?;
        let mut page = Vec::new();
        while let Some(answer) = answers.next().await? {
            if answer.is_ref() {
                let urls = ldap3::parse_refs(answer.0);
                return Err(self.elsewhere(urls.first()));
            }
            page.push(Found::parse(answer, self.base)?);
            if page.len() > ENTRIES_MAX {
                return Err(FetchError::TooMuch);
            }
        }
        let done = answers.finish().await;
        if done.rc == 10 {
            return Err(self.elsewhere(done.refs.first()));
        }
        if done.rc != 0 {
            return Err(refused(self.base, done));
        }
        let paged = done.ctrls.iter().find_map(|control| match control {
            Control(Some(ControlType::PagedResults), raw) => Some(raw.parse::<PagedResults>()),
            _ => None,
        });
        Ok((page, paged.ok_or(FetchError::NotPaged)?.cookie))
    }

    fn elsewhere(&self, url: Option<&String>) -> FetchError {
        FetchError::Elsewhere {
            base: self.base.clone(),
            url: url.map(|url| shown(url)).unwrap_or_default(),
        }
    }
}

fn refused(base: &Dn, result: LdapResult) -> FetchError {
    match result.rc {
        // Limits of time, of size, and of the administrator.
        3 | 4 | 11 => FetchError::Partial(base.clone()),
        12 => FetchError::NotPaged,
        32 => FetchError::NoSuchEntry(base.clone()),
        code => FetchError::Refused {
            base: base.clone(),
            code,
            text: shown(&result.text),
        },
    }
}

/// An entry as the server sent it.
struct Found {
    dn: Dn,
    attributes: Vec<(String, Vec<Vec<u8>>)>,
}

impl Found {
    fn parse(answer: ldap3::ResultEntry, base: &Dn) -> Result<Self, FetchError> {
        if answer.is_ref() {
            let url = ldap3::parse_refs(answer.0).first().map(|url| shown(url));
            return Err(FetchError::Elsewhere {
                base: base.clone(),
                url: url.unwrap_or_default(),
            });
        }
        let entry = SearchEntry::construct(answer);
        let unasked = || FetchError::Unasked(shown(&entry.dn));
        let dn = entry.dn.parse().map_err(|_| unasked())?;
        let text = entry
            .attrs
            .into_iter()
            .map(|(name, values)| (name, values.into_iter().map(String::into_bytes).collect()));
        Ok(Self {
            dn,
            attributes: text.chain(entry.bin_attrs).collect(),
        })
    }

    fn entry(&self, name: &Attribute, title: Option<&Attribute>, id: &Attribute) -> Entry {
        Entry {
            dn: self.dn.clone(),
            id: self.values(id).first().and_then(|bytes| id_text(bytes)),
            name: self.text(name),
            title: title.and_then(|title| self.text(title)),
        }
    }

    fn members(&self, member: &Attribute, are: MembersAre) -> Result<Vec<Member>, FetchError> {
        let ranged = format!("{member};range=").to_ascii_lowercase();
        let is_ranged = |name: &str| name.to_ascii_lowercase().starts_with(&ranged);
        if self.attributes.iter().any(|(name, _)| is_ranged(name)) {
            return Err(FetchError::MembersCut(self.dn.clone()));
        }
        let texts = self
            .values(member)
            .iter()
            .map(|value| String::from_utf8_lossy(value));
        texts
            .map(|text| match are {
                MembersAre::Name => Ok(Member::Name(text.into_owned())),
                MembersAre::Dn => match text.parse() {
                    Ok(dn) => Ok(Member::Dn(dn)),
                    Err(_) => Err(FetchError::Unasked(shown(&text))),
                },
            })
            .collect()
    }

    fn text(&self, attribute: &Attribute) -> Option<String> {
        let first = self.values(attribute).first()?;
        String::from_utf8(first.clone()).ok()
    }

    fn values(&self, attribute: &Attribute) -> &[Vec<u8>] {
        let mut named = self.attributes.iter();
        let found = named.find(|(name, _)| name.eq_ignore_ascii_case(attribute.as_str()));
        found
            .map(|(_, values)| values.as_slice())
            .unwrap_or_default()
    }
}

fn id_text(bytes: &[u8]) -> Option<String> {
    if !(1..=ID_MAX).contains(&bytes.len()) {
        return None;
    }
    // A colon sets a source apart.
    let is_plain = |c: u8| c.is_ascii_graphic() && c != b':';
    match str::from_utf8(bytes) {
        Ok(text) if text.bytes().all(is_plain) => Some(text.to_owned()),
        _ => Some(HEXLOWER.encode(bytes)),
    }
}
