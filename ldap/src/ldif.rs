//! The org's tree as LDIF (RFC 2849), for LDAP servers with the usual schemas
//! (core, cosine, inetorgperson):
//!
//! ```text
//! BASE                                     the org
//! uid=USER,ou=users,BASE                   inetOrgPerson
//! cn=GROUP,ou=groups,BASE                  groupOfNames
//! ou=PROJECT,ou=projects,BASE              organizationalUnit
//! ou=ROOM,ou=PROJECT,ou=projects,BASE      organizationalUnit; its id, for names are its members'
//! cn=owner,… and cn=user,…                 groupOfNames: who holds that role just there
//! ```
//!
//! Users who were revoked and whatever was deleted are left out. Holds no key
//! and nothing secret.

use std::collections::BTreeMap;
use std::io::{self, Write};

use data_encoding::BASE64;
use sotto_jwt_accounts::directory::{Role, Scope, State, Status, User, UserStatus};
use sotto_proto::{GroupName, ProjectName, RoomId, UserName};

use crate::dn::Dn;

/// Longest line, in bytes, as RFC 2849 advises.
const LINE_MAX: usize = 76;

/// Why the tree was not written.
#[derive(Debug, thiserror::Error)]
pub enum LdifError {
    /// No entry can be made there.
    #[error(
        "an org's entry cannot be `{0}`: use a base like `dc=example,dc=org`, `o=Example` or `ou=sotto,dc=example,dc=org`"
    )]
    Base(Dn),
    /// The org's log is empty.
    #[error("there is no organisation to export: its directory is empty")]
    NoOrg,
    /// It cannot be written.
    #[error("cannot write the LDIF: {0}")]
    Write(#[from] io::Error),
}

/// Writes the whole tree below `base`, with its entry, parents first.
///
/// # Errors
/// When an org cannot be at `base`, or writing fails.
pub fn write(state: &State, base: &Dn, out: impl Write) -> Result<(), LdifError> {
    let mut tree = Tree { base, out };
    tree.org(state)?;
    for unit in ["users", "groups", "projects"] {
        let entry = Entry::new(format!("ou={unit},{base}"), "organizationalUnit");
        tree.put(entry.with("ou", unit))?;
    }
    for (name, user) in living(state) {
        tree.user(name, user)?;
    }
    for (name, group) in state.groups() {
        let members = group
            .members
            .iter()
            .map(|user| tree.user_dn(user))
            .collect();
        let entry = Entry::group(tree.group_dn(name), name.as_str(), members);
        tree.put(entry.with_some("description", group.title.as_ref()))?;
    }
    for (name, project) in state.projects() {
        let entry = Entry::new(tree.project_dn(name), "organizationalUnit")
            .with("ou", name.as_str())
            .with_some("description", project.title.as_ref());
        tree.put(entry.with_status(project.status))?;
    }
    for (id, room) in state.rooms() {
        let entry = Entry::new(tree.room_dn(id, &room.project), "organizationalUnit");
        tree.put(entry.with("ou", &id.to_string()).with_status(room.status))?;
    }
    tree.roles(state)
}

fn living(state: &State) -> impl Iterator<Item = (&UserName, &User)> {
    let users = state.users();
    users.filter(|(_, user)| user.status != UserStatus::Revoked)
}

struct Tree<'a, W> {
    base: &'a Dn,
    out: W,
}

impl<W: Write> Tree<'_, W> {
    fn org(&mut self, state: &State) -> Result<(), LdifError> {
        let name = state.org().ok_or(LdifError::NoOrg)?.as_str();
        let bad = || LdifError::Base(self.base.clone());
        let (kind, value) = self.base.named_by().ok_or_else(bad)?;
        let dn = self.base.to_string();
        let entry = match kind {
            "dc" => Entry::new(dn, "organization")
                .with("objectClass", "dcObject")
                .with("dc", &value)
                .with("o", name),
            "o" => Entry::new(dn, "organization").with("o", &value),
            "ou" => Entry::new(dn, "organizationalUnit").with("ou", &value),
            _ => return Err(bad()),
        };
        self.put(entry.with_some("description", state.org_title()))?;
        Ok(())
    }

    fn user(&mut self, name: &UserName, user: &User) -> io::Result<()> {
        let title = user.title.as_ref().map(ToString::to_string);
        let shown = title.clone().unwrap_or_else(|| name.to_string());
        let last_word = shown.split(' ').next_back().unwrap_or_default().to_owned();
        let guest = user.guest_until_ms.map(|_| "guest");
        let entry = Entry::new(self.user_dn(name), "inetOrgPerson")
            .with("uid", name.as_str())
            .with("cn", &shown)
            .with("sn", &last_word)
            .with_some("displayName", title)
            .with_some("employeeType", guest);
        self.put(entry)
    }

    /// Who holds which role where.
    fn roles(&mut self, state: &State) -> Result<(), LdifError> {
        let mut held: BTreeMap<(&Scope, Role), Vec<String>> = BTreeMap::new();
        for (name, user) in living(state) {
            for role in user.roles() {
                held.entry(role).or_default().push(self.user_dn(name));
            }
        }
        for (name, group) in state.groups() {
            for role in group.roles() {
                held.entry(role).or_default().push(self.group_dn(name));
            }
        }
        for ((scope, role), holders) in held {
            if let Some(parent) = self.scope_dn(state, scope) {
                let role = role.to_string();
                self.put(Entry::group(format!("cn={role},{parent}"), &role, holders))?;
            }
        }
        Ok(())
    }

    /// `None` for what was deleted.
    fn scope_dn(&self, state: &State, scope: &Scope) -> Option<String> {
        match scope {
            Scope::Org => Some(self.base.to_string()),
            Scope::Project(project) => {
                state.project(project)?;
                Some(self.project_dn(project))
            }
            Scope::Room(room) => Some(self.room_dn(*room, &state.room(*room)?.project)),
        }
    }

    fn user_dn(&self, user: &UserName) -> String {
        format!("uid={user},ou=users,{}", self.base)
    }

    fn group_dn(&self, group: &GroupName) -> String {
        format!("cn={group},ou=groups,{}", self.base)
    }

    fn project_dn(&self, project: &ProjectName) -> String {
        format!("ou={project},ou=projects,{}", self.base)
    }

    fn room_dn(&self, room: RoomId, project: &ProjectName) -> String {
        format!("ou={room},{}", self.project_dn(project))
    }

    fn put(&mut self, entry: Entry) -> io::Result<()> {
        for (attribute, value) in &entry.lines {
            write_line(&mut self.out, attribute, value)?;
        }
        self.out.write_all(b"\n")
    }
}

/// One entry; first its name, then its attributes in order.
struct Entry {
    lines: Vec<(&'static str, String)>,
}

impl Entry {
    fn new(dn: String, class: &str) -> Self {
        Self {
            lines: vec![("dn", dn), ("objectClass", class.to_owned())],
        }
    }

    fn group(dn: String, name: &str, mut members: Vec<String>) -> Self {
        if members.is_empty() {
            // The class demands one, and the empty name is nobody's.
            members.push(String::new());
        }
        let mut group = Self::new(dn, "groupOfNames").with("cn", name);
        let members = members.into_iter().map(|member| ("member", member));
        group.lines.extend(members);
        group
    }

    fn with(mut self, attribute: &'static str, value: &str) -> Self {
        self.lines.push((attribute, value.to_owned()));
        self
    }

    fn with_some(mut self, attribute: &'static str, value: Option<impl ToString>) -> Self {
        let value = value.map(|value| (attribute, value.to_string()));
        self.lines.extend(value);
        self
    }

    fn with_status(self, status: Status) -> Self {
        let archived = (status == Status::Archived).then_some("archived");
        self.with_some("businessCategory", archived)
    }
}

/// `attribute: value`, or `attribute:: BASE64` where LDIF cannot hold the value
/// itself, folded.
fn write_line(out: &mut impl Write, attribute: &str, value: &str) -> io::Result<()> {
    let line = if is_safe(value) {
        format!("{attribute}: {value}")
    } else {
        format!("{attribute}:: {}", BASE64.encode(value.as_bytes()))
    };
    let mut rest = line.as_bytes();
    let mut room = LINE_MAX;
    while let Some((now, later)) = rest.split_at_checked(room) {
        out.write_all(now)?;
        if later.is_empty() {
            return out.write_all(b"\n");
        }
        out.write_all(b"\n ")?;
        rest = later;
        // The space at the beginning counts.
        room = LINE_MAX - 1;
    }
    out.write_all(rest)?;
    out.write_all(b"\n")
}

/// `SAFE-STRING` of RFC 2849, and not ending in a space, which is easily lost.
fn is_safe(value: &str) -> bool {
    let printable = |c: u8| (0x20..0x7f).contains(&c);
    value.bytes().all(printable) && !value.starts_with([' ', ':', '<']) && !value.ends_with(' ')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(attribute: &str, value: &str) -> String {
        let mut out = Vec::new();
        write_line(&mut out, attribute, value).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_that_ldif_cannot_hold_are_encoded() {
        assert_eq!(line("cn", "Alice"), "cn: Alice\n");
        assert_eq!(line("cn", ""), "cn: \n");
        assert_eq!(line("cn", "a: b #c"), "cn: a: b #c\n");
        for value in ["Zoë", " a", "a ", ":a", "<a", "a\nb", "a\0"] {
            let encoded = BASE64.encode(value.as_bytes());
            assert_eq!(line("cn", value), format!("cn:: {encoded}\n"));
        }
    }

    proptest! {
        #[test]
        fn unfolding_gives_the_value_back(value in "(\\PC|[ :<\n]){0,300}") {
            let text = line("cn", &value);
            prop_assert!(text.lines().all(|line| line.len() <= LINE_MAX && line.is_ascii()));
            let unfolded = text.replace("\n ", "");
            let unfolded = unfolded.strip_suffix('\n').unwrap();
            let read = match unfolded.strip_prefix("cn:: ") {
                Some(encoded) => BASE64.decode(encoded.as_bytes()).unwrap(),
                None => unfolded.strip_prefix("cn: ").unwrap().as_bytes().to_vec(),
            };
            prop_assert_eq!(read, value.as_bytes());
        }
    }
}
