//! The mapping file: where the people and groups of an LDAP server are, and
//! what they become. TOML, written by an admin; `docs/ldap.md` explains it.
//!
//! Holds no password, and nothing of it is ever sent to a gateway.

mod values;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sotto_jwt_accounts::directory::{Role, Scope};
use sotto_proto::{GroupName, ProjectName, UserName};

use crate::dn::Dn;

pub use values::{Attribute, Filter};
pub(crate) use values::{PageSize, Patience, ServerUrl, SourceName};

/// Longest mapping file that is read, in bytes.
const FILE_MAX: u64 = 1024 * 1024;

/// Why a mapping cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadMapping {
    /// The file cannot be read.
    #[error("cannot read the mapping file {path}: {why}")]
    Unreadable {
        /// Which.
        path: String,
        /// What the system says.
        why: std::io::Error,
    },
    /// It is no mapping: the text names the line and what is expected there.
    #[error("the mapping file does not say what an import needs: {0}")]
    Malformed(#[from] toml::de::Error),
    /// It is longer than a mapping can be.
    #[error("the mapping file is longer than {FILE_MAX} bytes: split the import")]
    TooLong,
    /// A rule is for groups, and none are read.
    #[error("a rule names a group, so the mapping needs a section [groups]")]
    NoGroups,
}

/// A mapping file, checked as far as it can be without the server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    pub(crate) server: Server,
    pub(crate) users: Users,
    pub(crate) groups: Option<Groups>,
    #[serde(default)]
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Server {
    pub(crate) url: ServerUrl,
    /// PEM certificates of the authorities that may vouch for the server.
    pub(crate) ca_file: PathBuf,
    /// `None`: anonymous.
    pub(crate) bind_dn: Option<Dn>,
    /// Set before the ids of its entries.
    pub(crate) source: Option<SourceName>,
    /// Entries asked for at once.
    #[serde(default)]
    pub(crate) page_size: PageSize,
    /// How long all of it may take.
    #[serde(default, rename = "patience_seconds")]
    pub(crate) patience: Patience,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Users {
    pub(crate) base: Dn,
    pub(crate) filter: Filter,
    pub(crate) name: Attribute,
    pub(crate) title: Option<Attribute>,
    pub(crate) id: Attribute,
    #[serde(default)]
    pub(crate) names: BTreeMap<Dn, UserName>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Groups {
    pub(crate) base: Dn,
    pub(crate) filter: Filter,
    pub(crate) name: Attribute,
    pub(crate) title: Option<Attribute>,
    pub(crate) id: Attribute,
    pub(crate) member: Attribute,
    #[serde(default)]
    pub(crate) members_are: MembersAre,
    #[serde(default)]
    pub(crate) names: BTreeMap<Dn, GroupName>,
}

/// What the values of a group's member attribute are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum MembersAre {
    /// Distinguished names, of users or of groups whose members count too.
    #[default]
    Dn,
    /// Values of the users' name attribute.
    Name,
}

/// Who gets what.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "RuleText")]
pub(crate) struct Rule {
    pub(crate) whose: Whose,
    /// What they get, if they are more than a group.
    pub(crate) grant: Option<Grant>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Everybody below an entry; a group of this name, or of the entry's.
    Below(Dn, Option<GroupName>),
    /// The members of a group entry.
    Group(Dn),
}

impl Whose {
    /// The entry that the rule names.
    pub(crate) fn dn(&self) -> &Dn {
        match self {
            Self::Below(dn, _) | Self::Group(dn) => dn,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) scope: Scope,
    pub(crate) role: Role,
}

impl Grant {
    /// Without a project, in the org.
    fn new(project: Option<ProjectName>, role: Role) -> Self {
        let scope = project.map_or(Scope::Org, Scope::Project);
        Self { scope, role }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RoleText {
    User,
    Owner,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    ou: Option<Dn>,
    name: Option<GroupName>,
    group: Option<Dn>,
    project: Option<ProjectName>,
    role: Option<RoleText>,
}

impl Mapping {
    /// Reads a mapping file. A relative `ca_file` in it is beside it.
    ///
    /// # Errors
    /// When it cannot be read or is no mapping.
    pub fn read(path: &Path) -> Result<Self, BadMapping> {
        let unreadable = |why| BadMapping::Unreadable {
            path: path.display().to_string(),
            why,
        };
        let file = File::open(path).map_err(unreadable)?;
        let mut text = String::new();
        let mut bounded = file.take(FILE_MAX + 1);
        let length = bounded.read_to_string(&mut text).map_err(unreadable)?;
        if u64::try_from(length).is_ok_and(|length| length > FILE_MAX) {
            return Err(BadMapping::TooLong);
        }
        let mut mapping = Self::parse(&text)?;
        if let Some(folder) = path.parent() {
            mapping.server.ca_file = folder.join(&mapping.server.ca_file);
        }
        Ok(mapping)
    }

    /// Reads the text of a mapping file.
    ///
    /// # Errors
    /// When it is no mapping.
    pub fn parse(text: &str) -> Result<Self, BadMapping> {
        let mapping: Self = toml::from_str(text)?;
        let needs_groups = |rule: &Rule| matches!(rule.whose, Whose::Group(_));
        if mapping.groups.is_none() && mapping.rules.iter().any(needs_groups) {
            return Err(BadMapping::NoGroups);
        }
        Ok(mapping)
    }

    /// The id by which the directory knows an entry with this one.
    pub(crate) fn external_id(&self, id: &str) -> String {
        match &self.server.source {
            Some(SourceName(source)) => format!("{source}:{id}"),
            None => id.to_owned(),
        }
    }

    /// Whether something in the directory came by way of this mapping's server.
    pub(crate) fn is_source_of(&self, external_id: &str) -> bool {
        let prefix = external_id.split_once(':').map(|(prefix, _)| prefix);
        prefix
            == self
                .server
                .source
                .as_ref()
                .map(|SourceName(name)| name.as_str())
    }

    /// Whether the import logs in, and so needs the password of this entry.
    pub fn bind_dn(&self) -> Option<&Dn> {
        self.server.bind_dn.as_ref()
    }
}

impl TryFrom<RuleText> for Rule {
    type Error = &'static str;

    fn try_from(text: RuleText) -> Result<Self, Self::Error> {
        let whose = match (text.ou, text.group, text.name) {
            (Some(ou), None, name) => Whose::Below(ou, name),
            (None, Some(group), None) => Whose::Group(group),
            (None, Some(_), Some(_)) => {
                return Err("`name` goes with `ou`: groups are named in [groups.names]");
            }
            _ => return Err("a rule has either `ou` or `group`"),
        };
        let grant = match (text.project, text.role) {
            (project, Some(RoleText::User)) => Some(Grant::new(project, Role::User)),
            (project, Some(RoleText::Owner)) => Some(Grant::new(project, Role::Owner)),
            (Some(_), None) => return Err("a rule with a `project` needs a `role`"),
            (None, None) => None,
        };
        if grant.is_none() && matches!(whose, Whose::Group(_)) {
            return Err("a rule for a group needs a `role`: the group itself is imported anyway");
        }
        Ok(Self { whose, grant })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The example of the documentation, which must stay one.
    fn example() -> String {
        let page = include_str!("../../docs/ldap.md");
        let (_, from_here) = page.split_once("```toml\n").unwrap();
        from_here.split_once("```").unwrap().0.to_owned()
    }

    fn refusal(text: &str) -> String {
        Mapping::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_documented_example_is_a_mapping() {
        let mapping = Mapping::parse(&example()).unwrap();
        assert_eq!(mapping.server.url.port, 636);
        assert!(!mapping.server.url.start_tls);
        assert_eq!(mapping.server.page_size, PageSize(500));
        let dn = "uid=алиса,ou=people,dc=example,dc=org".parse().unwrap();
        assert_eq!(mapping.users.names[&dn].as_str(), "alisa");
        let [below, group] = mapping.rules.as_slice() else {
            panic!("{:?}", mapping.rules);
        };
        assert!(matches!(&below.whose, Whose::Below(_, None)));
        assert_eq!(below.grant.as_ref().unwrap().role, Role::User);
        let project = Scope::Project("research".parse().unwrap());
        assert_eq!(below.grant.as_ref().unwrap().scope, project);
        assert!(matches!(&group.whose, Whose::Group(_)));
        assert_eq!(group.grant.as_ref().unwrap().scope, Scope::Org);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (right, wrong, named) in [
            ("filter =", "fliter =", "fliter"),
            ("[server]", "[sever]", "sever"),
            ("ldaps://", "http://", "ldaps://ldap.example.org"),
            ("example.org\"   #", "example.org/dc=x\" #", "is not like"),
            (
                "(objectClass=inetOrgPerson)",
                "(objectClass=",
                "is not an LDAP filter",
            ),
            (
                "\"displayName\"",
                "\"display name\"",
                "is not the name of an attribute",
            ),
            (
                "\"ou=people,dc=example,dc=org\"",
                "\"people\"",
                "not a distinguished name",
            ),
            ("= \"alisa\"", "= \"Alisa\"", "not a valid user name"),
            ("role = \"owner\"", "role = \"king\"", "king"),
            ("role = \"user\"", "", "needs a `role`"),
            ("role = \"owner\"", "", "needs a `role`"),
            (
                "group = \"cn",
                "ou = \"ou=x\"\ngroup = \"cn",
                "either `ou` or `group`",
            ),
            (
                "group = \"cn",
                "name = \"x\"\ngroup = \"cn",
                "[groups.names]",
            ),
            ("\"head-office\"", "\"head:office\"", "is no source"),
            ("[users]  ", "page_size = 0\n[users]", "a page has"),
            (
                "[users]  ",
                "patience_seconds = 3601\n[users]",
                "an import takes",
            ),
        ] {
            let text = example().replacen(right, wrong, 1);
            assert_ne!(text, example(), "{right} is not in the example");
            let refusal = refusal(&text);
            assert!(refusal.contains(named), "{wrong}: {refusal}");
        }
    }

    #[test]
    fn a_rule_for_a_group_needs_groups() {
        let text = example();
        let (before, rest) = text.split_once("[groups]").unwrap();
        let (_, after) = rest.split_once("[[rules]]").unwrap();
        let refusal = refusal(&format!("{before}[[rules]]{after}"));
        assert!(refusal.contains("needs a section [groups]"), "{refusal}");
    }

    #[test]
    fn sources_tell_their_ids_from_those_of_others() {
        let mapping = Mapping::parse(&example()).unwrap();
        let plain = example().replace("source = ", "# source = ");
        let plain = Mapping::parse(&plain).unwrap();
        let id = mapping.external_id("1-2");
        assert_eq!(
            (id.as_str(), plain.external_id("1-2").as_str()),
            ("head-office:1-2", "1-2")
        );
        assert!(mapping.is_source_of(&id) && !mapping.is_source_of("1-2"));
        assert!(plain.is_source_of("1-2") && !plain.is_source_of(&id));
    }

    #[test]
    fn urls_name_a_server_and_nothing_else() {
        let url = |text: &str| ServerUrl::try_from(text.to_owned());
        let start_tls = url("ldap://10.0.0.1:1389/").unwrap();
        assert_eq!((start_tls.port, start_tls.start_tls), (1389, true));
        assert_eq!(
            url("ldaps://[::1]").unwrap().host,
            "::1".try_into().unwrap()
        );
        for bad in [
            "ldaps://",
            "ldapi:///x",
            "ldaps://a@b",
            "ldaps://a?x",
            "ldaps://a b",
            "",
        ] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_relative_authority_is_beside_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mapping.toml");
        std::fs::write(&path, example()).unwrap();
        let mapping = Mapping::read(&path).unwrap();
        assert_eq!(mapping.server.ca_file, folder.path().join("ldap-ca.pem"));

        std::fs::write(&path, " ".repeat(1024 * 1024 + 1)).unwrap();
        assert!(matches!(Mapping::read(&path), Err(BadMapping::TooLong)));
        let error = Mapping::read(&folder.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text: String, at in 0..900_usize) {
            let example = example();
            let (before, after) = example.split_at(example.floor_char_boundary(at));
            let _ = Mapping::parse(&format!("{before}{text}{after}"));
        }
    }
}
