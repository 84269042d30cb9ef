//! One search, page by page, and the entries that it finds.

use std::collections::BTreeSet;

use data_encoding::HEXLOWER;
use ldap3::controls::{Control, ControlType, MakeCritical, PagedResults, RawControl};
use ldap3::{Ldap, LdapResult, Scope, SearchEntry};

use super::{Entry, FetchError, Member};
use crate::dn::{Dn, shown};
use crate::mapping::{Attribute, MembersAre};

/// Most entries of one kind that are read.
const ENTRIES_MAX: usize = 250_000;
/// Longest id, in bytes: an entryUUID has 36, an objectGUID 16.
const ID_MAX: usize = 64;

/// A search of a whole subtree, page by page.
pub(super) struct Search<'a> {
    pub(super) base: &'a Dn,
    pub(super) filter: &'a str,
    pub(super) attributes: Vec<&'a str>,
    pub(super) page_size: u16,
}

impl Search<'_> {
    /// All of it, at least one, each once, and nothing else.
    pub(super) async fn all(&self, ldap: &mut Ldap) -> Result<Vec<Found>, FetchError> {
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

/// What a result code means for an import.
pub(super) fn refused(base: &Dn, result: LdapResult) -> FetchError {
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
pub(super) struct Found {
    pub(super) dn: Dn,
    attributes: Vec<(String, Vec<Vec<u8>>)>,
}

impl Found {
    pub(super) fn parse(answer: ldap3::ResultEntry, base: &Dn) -> Result<Self, FetchError> {
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

    pub(super) fn entry(
        &self,
        name: &Attribute,
        title: Option<&Attribute>,
        id: &Attribute,
    ) -> Entry {
        Entry {
            dn: self.dn.clone(),
            id: self.values(id).first().and_then(|bytes| id_text(bytes)),
            name: self.text(name),
            title: title.and_then(|title| self.text(title)),
        }
    }

    pub(super) fn members(
        &self,
        member: &Attribute,
        are: MembersAre,
    ) -> Result<Vec<Member>, FetchError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn found(attributes: &[(&str, &[&[u8]])]) -> Found {
        let attributes = attributes.iter().map(|(name, values)| {
            (
                (*name).to_owned(),
                values.iter().map(|value| value.to_vec()).collect(),
            )
        });
        Found {
            dn: "cn=x".parse().unwrap(),
            attributes: attributes.collect(),
        }
    }

    fn attribute(name: &str) -> Attribute {
        name.to_owned().try_into().unwrap()
    }

    #[test]
    fn ids_are_text_or_hex() {
        for (id, text) in [
            (b"4b9ad71e-0b6f-103f".as_slice(), Some("4b9ad71e-0b6f-103f")),
            (b"\x00\xffguid", Some("00ff67756964")),
            (b"a b", Some("612062")),
            (b"a:b", Some("613a62")),
            (b"", None),
            (&[b'x'; 65], None),
        ] {
            let entry = found(&[("EntryUUID", &[id])]);
            let entry = entry.entry(&attribute("cn"), None, &attribute("entryuuid"));
            assert_eq!(entry.id.as_deref(), text, "{id:?}");
        }
    }

    #[test]
    fn members_that_were_cut_are_no_members() {
        let member = attribute("member");
        let cut = found(&[("member", &[]), ("Member;Range=0-1499", &[b"cn=a"])]);
        let error = cut.members(&member, MembersAre::Dn).unwrap_err();
        assert!(matches!(error, FetchError::MembersCut(_)), "{error}");
        let whole = found(&[("member", &[b"cn=a", b""])]);
        let members = whole.members(&member, MembersAre::Dn).unwrap();
        assert_eq!(members.len(), 2);
        let names = whole.members(&member, MembersAre::Name).unwrap();
        assert_eq!(names[0], Member::Name("cn=a".to_owned()));
        let error = found(&[("member", &[b"no name"])]).members(&member, MembersAre::Dn);
        assert!(matches!(error, Err(FetchError::Unasked(_))));
    }
}
