//! Who in the directory an entry is: by its id, or because the mapping file
//! says so, and else somebody new.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::str::FromStr;

use sotto_jwt_accounts::directory::{ExternalId, State, UserStatus};
use sotto_proto::{GroupName, NameError, Title, UserName, skeleton};
use unicode_normalization::UnicodeNormalization;

use super::{Draft, Step};
use crate::dn::{Dn, shown};
use crate::import::Entry;
use crate::mapping::{Mapping, Whose};
use crate::names::transliterate;

/// What differs between users and groups.
pub(super) trait Kind {
    type Name: Clone + Ord + Display + FromStr<Err = NameError> + 'static;

    /// Where the mapping file names them.
    const NAMES: &'static str;

    /// All that the directory knows.
    fn all(state: &State) -> impl Iterator<Item = (&Self::Name, Known)>;
    /// What the mapping file calls an entry.
    fn named(mapping: &Mapping, dn: &Dn) -> Option<Self::Name>;
    fn title(state: &State, name: &Self::Name) -> Option<String>;
    fn add(name: Self::Name, title: Option<String>, external_id: String) -> Step;
    fn set_title(name: Self::Name, title: String) -> Step;
}

/// Somebody, or a group, as the directory has it.
pub(super) struct Known {
    external_id: Option<String>,
    is_revoked: bool,
}

pub(super) struct Users;
pub(super) struct Groups;

impl Kind for Users {
    type Name = UserName;

    const NAMES: &'static str = "[users.names]";

    fn all(state: &State) -> impl Iterator<Item = (&UserName, Known)> {
        state.users().map(|(name, user)| {
            let known = Known {
                external_id: user.external_id.as_ref().map(ExternalId::to_string),
                is_revoked: user.status == UserStatus::Revoked,
            };
            (name, known)
        })
    }

    fn named(mapping: &Mapping, dn: &Dn) -> Option<UserName> {
        mapping.users.names.get(dn).cloned()
    }

    fn title(state: &State, name: &UserName) -> Option<String> {
        Some(state.user(name)?.title.as_ref()?.to_string())
    }

    fn add(user: UserName, title: Option<String>, external_id: String) -> Step {
        Step::AddUser {
            user,
            title,
            external_id,
        }
    }

    fn set_title(user: UserName, title: String) -> Step {
        Step::TitleUser { user, title }
    }
}

impl Kind for Groups {
    type Name = GroupName;

    const NAMES: &'static str = "[groups.names], or as the `name` of a rule for an OU";

    fn all(state: &State) -> impl Iterator<Item = (&GroupName, Known)> {
        state.groups().map(|(name, group)| {
            let known = Known {
                external_id: group.external_id.as_ref().map(ExternalId::to_string),
                is_revoked: false,
            };
            (name, known)
        })
    }

    fn named(mapping: &Mapping, dn: &Dn) -> Option<GroupName> {
        let by_rule = mapping.rules.iter().find_map(|rule| match &rule.whose {
            Whose::Below(unit, name) if unit == dn => name.clone(),
            _ => None,
        });
        by_rule.or_else(|| mapping.groups.as_ref()?.names.get(dn).cloned())
    }

    fn title(state: &State, name: &GroupName) -> Option<String> {
        Some(state.group(name)?.title.as_ref()?.to_string())
    }

    fn add(group: GroupName, title: Option<String>, external_id: String) -> Step {
        Step::CreateGroup {
            group,
            title,
            external_id,
        }
    }

    fn set_title(group: GroupName, title: String) -> Step {
        Step::TitleGroup { group, title }
    }
}

/// An entry, and who it is.
pub(super) struct Identity<'e, K: Kind> {
    pub(super) entry: &'e Entry,
    pub(super) name: K::Name,
    external_id: String,
    is_new: bool,
    /// What people should read, in the order of preference.
    titles: Vec<String>,
}

/// All entries of a kind.
pub(super) struct Identified<'e, K: Kind> {
    identities: Vec<Identity<'e, K>>,
    names: HashMap<&'e Dn, K::Name>,
    /// Of every entry that has one, even when it was refused.
    external_ids: BTreeSet<String>,
    /// Entries without an id.
    pub(super) unidentified: usize,
}

impl<'e, K: Kind> Identified<'e, K> {
    pub(super) fn new(
        entries: impl Iterator<Item = &'e Entry>,
        mapping: &Mapping,
        draft: &mut Draft,
    ) -> Self {
        let directory = Directory::<K>::new(draft.state());
        let mut entries: Vec<&Entry> = entries.collect();
        entries.sort_by_key(|entry| &entry.dn);
        let mut all = Self {
            identities: Vec::new(),
            names: HashMap::new(),
            external_ids: BTreeSet::new(),
            unidentified: 0,
        };
        let mut claimed: BTreeMap<K::Name, &Dn> = BTreeMap::new();
        for entry in entries {
            let Some(id) = &entry.id else {
                all.unidentified += 1;
                let why = "it has no usable id: check `id` in the mapping, and the access rules";
                draft.refuse(&entry.dn, why.to_owned());
                continue;
            };
            let external_id = mapping.external_id(id);
            if !all.external_ids.insert(external_id.clone()) {
                let why = "another entry has the same id: choose an `id` that tells them apart";
                draft.refuse(&entry.dn, why.to_owned());
                continue;
            }
            let identified = directory.identify(entry, &external_id, mapping);
            let (name, is_new) = match identified {
                Ok(identified) => identified,
                Err(why) => {
                    draft.refuse(&entry.dn, why);
                    continue;
                }
            };
            if let Some(other) = claimed.insert(name.clone(), &entry.dn) {
                let why = format!(
                    "it would be `{name}`, as {} is: name one of them in {}",
                    shown(&other.to_string()),
                    K::NAMES
                );
                draft.refuse(&entry.dn, why);
                claimed.insert(name, other);
                continue;
            }
            all.names.insert(&entry.dn, name.clone());
            all.identities.push(Identity {
                titles: titles(entry, &name, draft),
                entry,
                name,
                external_id,
                is_new,
            });
        }
        all
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Identity<'e, K>> {
        self.identities.iter()
    }

    /// Who an entry is.
    pub(super) fn named(&self, dn: &Dn) -> Option<&K::Name> {
        self.names.get(dn)
    }

    /// Whether the server has an entry with this id.
    pub(super) fn has_external_id(&self, external_id: &str) -> bool {
        self.external_ids.contains(external_id)
    }

    /// Adds who is new, with a title that passes for nobody else's name, not
    /// even for that of somebody who is added later.
    pub(super) fn add_new(&self, draft: &mut Draft) {
        let new = || self.iter().filter(|identity| identity.is_new);
        let mut looks: BTreeMap<String, Vec<&K::Name>> = BTreeMap::new();
        for identity in new() {
            let look = skeleton(&identity.name.to_string());
            looks.entry(look).or_default().push(&identity.name);
        }
        for identity in new() {
            let is_own = |title: &&String| {
                let alike = looks.get(&skeleton(title));
                alike.is_none_or(|names| names.iter().all(|name| **name == identity.name))
            };
            let titles = identity.titles.iter().filter(is_own).cloned().map(Some);
            let mut outcome = Ok(());
            for title in titles.chain([None]) {
                let (name, external_id) = (identity.name.clone(), identity.external_id.clone());
                outcome = draft.take(K::add(name, title, external_id));
                if outcome.is_ok() {
                    break;
                }
            }
            if let Err(why) = outcome {
                draft.refuse(&identity.entry.dn, why);
            }
        }
    }

    /// Sets the titles that changed.
    pub(super) fn set_titles(&self, draft: &mut Draft) {
        for identity in &self.identities {
            if let Some(why) = identity.set_title(draft) {
                draft.remark(&identity.entry.dn, why);
            }
        }
    }
}

impl<K: Kind> Identity<'_, K> {
    /// The best title that the directory accepts, or why it accepts none.
    fn set_title(&self, draft: &mut Draft) -> Option<String> {
        let mut refusal = None;
        for title in &self.titles {
            if K::title(draft.state(), &self.name).as_ref() == Some(title) {
                return None;
            }
            match draft.take(K::set_title(self.name.clone(), title.clone())) {
                Ok(()) => return None,
                Err(why) => refusal = Some(why),
            }
        }
        refusal
    }
}

/// Who the directory knows, by name and by where they come from.
struct Directory<K: Kind> {
    by_name: BTreeMap<K::Name, Known>,
    by_external_id: HashMap<String, K::Name>,
}

impl<K: Kind> Directory<K> {
    fn new(state: &State) -> Self {
        let mut directory = Self {
            by_name: BTreeMap::new(),
            by_external_id: HashMap::new(),
        };
        for (name, known) in K::all(state) {
            if let (Some(id), false) = (&known.external_id, known.is_revoked) {
                directory.by_external_id.insert(id.clone(), name.clone());
            }
            directory.by_name.insert(name.clone(), known);
        }
        directory
    }

    /// The name, and whether it is a new one; or why there is none.
    fn identify(
        &self,
        entry: &Entry,
        external_id: &str,
        mapping: &Mapping,
    ) -> Result<(K::Name, bool), String> {
        if let Some(name) = self.by_external_id.get(external_id) {
            return Ok((name.clone(), false));
        }
        let given = K::named(mapping, &entry.dn);
        let is_given = given.is_some();
        let name = match given {
            Some(name) => name,
            None => name_of::<K>(entry)?,
        };
        match self.by_name.get(&name) {
            None => Ok((name, true)),
            Some(known) if known.is_revoked => Err(format!(
                "`{name}` was revoked, for good: give it another name in {}",
                K::NAMES
            )),
            Some(known) if known.external_id.is_some() => Err(format!(
                "`{name}` comes from another entry: give it another name in {}",
                K::NAMES
            )),
            Some(_) if is_given => Ok((name, false)),
            Some(_) => Err(format!(
                "`{name}` is there already and does not come from LDAP: name it in {}, with this \
                 name if it is the same, and with another if not",
                K::NAMES
            )),
        }
    }
}

/// The name that an entry has by the rules of [`transliterate`].
fn name_of<K: Kind>(entry: &Entry) -> Result<K::Name, String> {
    let text = entry.name.as_deref().unwrap_or_default();
    let name = transliterate(text).ok_or_else(|| {
        let text = shown(text);
        format!(
            "`{text}` cannot be written with a-z, 0-9 and -: name it in {}",
            K::NAMES
        )
    })?;
    name.parse()
        .map_err(|error: NameError| format!("{error}; or name it in {}", K::NAMES))
}

/// What people should read: the title, or, where that is another's, the title
/// with the name. None for an entry without a title, whose title is left alone.
fn titles(entry: &Entry, name: &impl Display, draft: &mut Draft) -> Vec<String> {
    let Some(text) = &entry.title else {
        return Vec::new();
    };
    let words: Vec<&str> = text.split_whitespace().collect();
    let title: String = words.join(" ").nfc().collect();
    if let Err(error) = title.parse::<Title>() {
        draft.remark(&entry.dn, error.to_string());
        return Vec::new();
    }
    let with_name = format!("{title} ({name})");
    let with_name = with_name
        .parse::<Title>()
        .ok()
        .map(|title| title.to_string());
    [title].into_iter().chain(with_name).collect()
}
