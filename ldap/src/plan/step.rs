//! One change that an import asks for.

use std::fmt;

use serde::Serialize;
use sotto_jwt_accounts::directory::{Role, Scope};
use sotto_proto::wire::directory_command::Ask;
use sotto_proto::wire::title_set::Of;
use sotto_proto::wire::{self, DirectoryCommand};
use sotto_proto::{GroupName, ProjectName, UserName};

/// One change, in the words of the admin; as JSON with the key `change`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Step {
    /// A project that rules name.
    CreateProject {
        /// Its name.
        project: ProjectName,
    },
    /// Somebody new is expected.
    AddUser {
        /// Their name.
        user: UserName,
        /// What people read in place of it.
        title: Option<String>,
        /// Their entry's id.
        external_id: String,
    },
    /// A new name of somebody.
    TitleUser {
        /// Who.
        user: UserName,
        /// What people will read.
        title: String,
    },
    /// A new group.
    CreateGroup {
        /// Its name.
        group: GroupName,
        /// What people read in place of it.
        title: Option<String>,
        /// Its entry's id.
        external_id: String,
    },
    /// A new name of a group.
    TitleGroup {
        /// Which.
        group: GroupName,
        /// What people will read.
        title: String,
    },
    /// Somebody is in a group.
    AddMember {
        /// Which.
        group: GroupName,
        /// Who.
        user: UserName,
    },
    /// What a rule gives to a group.
    GrantRole {
        /// Which group.
        group: GroupName,
        /// In which project; in the whole org without one.
        project: Option<ProjectName>,
        /// `user` or `owner`.
        role: String,
    },
    /// Somebody is in a group no more.
    RemoveMember {
        /// Which.
        group: GroupName,
        /// Who.
        user: UserName,
    },
    /// Somebody is gone: everything is taken from them, for good.
    RevokeUser {
        /// Who.
        user: UserName,
    },
    /// A group is gone.
    DeleteGroup {
        /// Which.
        group: GroupName,
    },
}

impl Step {
    /// Rules give roles in the org and in projects.
    pub(super) fn grant_role(group: GroupName, scope: &Scope, role: Role) -> Self {
        let project = match scope {
            Scope::Project(project) => Some(project.clone()),
            Scope::Org | Scope::Room(_) => None,
        };
        Self::GrantRole {
            group,
            project,
            role: role.to_string(),
        }
    }
}

impl From<&Step> for DirectoryCommand {
    fn from(step: &Step) -> Self {
        let titled = |of, title: &String| {
            Ask::SetTitle(wire::TitleSet {
                of: Some(of),
                title: title.clone(),
            })
        };
        let ask = match step {
            Step::CreateProject { project } => Ask::CreateProject(wire::ProjectCreated {
                project: project.to_string(),
            }),
            Step::AddUser {
                user,
                title,
                external_id,
            } => Ask::AddUser(wire::UserAdded {
                user: user.to_string(),
                title: title.clone().unwrap_or_default(),
                external_id: external_id.clone(),
            }),
            Step::TitleUser { user, title } => titled(Of::User(user.to_string()), title),
            Step::CreateGroup {
                group,
                title,
                external_id,
            } => Ask::CreateGroup(wire::GroupCreated {
                group: group.to_string(),
                title: title.clone().unwrap_or_default(),
                external_id: external_id.clone(),
            }),
            Step::TitleGroup { group, title } => titled(Of::Group(group.to_string()), title),
            Step::AddMember { group, user } => Ask::AddGroupMember(wire::GroupMemberAdded {
                group: group.to_string(),
                user: user.to_string(),
            }),
            Step::GrantRole {
                group,
                project,
                role,
            } => {
                let scope = project.clone().map_or(Scope::Org, Scope::Project);
                let is_owner = *role == Role::Owner.to_string();
                let role = if is_owner { Role::Owner } else { Role::User };
                Ask::GrantRole(wire::RoleGranted {
                    user: String::new(),
                    scope: Some((&scope).into()),
                    role: wire::Role::from(role).into(),
                    group: group.to_string(),
                })
            }
            Step::RemoveMember { group, user } => {
                Ask::RemoveGroupMember(wire::GroupMemberRemoved {
                    group: group.to_string(),
                    user: user.to_string(),
                })
            }
            Step::RevokeUser { user } => Ask::RevokeUser(wire::UserRevoked {
                user: user.to_string(),
            }),
            Step::DeleteGroup { group } => Ask::DeleteGroup(wire::GroupDeleted {
                group: group.to_string(),
            }),
        };
        Self { ask: Some(ask) }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let called = |title: &Option<String>| match title {
            Some(title) => format!(" ({title})"),
            None => String::new(),
        };
        match self {
            Self::CreateProject { project } => write!(f, "+ project {project}"),
            Self::AddUser { user, title, .. } => write!(f, "+ user {user}{}", called(title)),
            Self::TitleUser { user, title } => write!(f, "~ user {user} is called {title}"),
            Self::CreateGroup { group, title, .. } => {
                write!(f, "+ group {group}{}", called(title))
            }
            Self::TitleGroup { group, title } => write!(f, "~ group {group} is called {title}"),
            Self::AddMember { group, user } => write!(f, "+ user {user} in group {group}"),
            Self::GrantRole {
                group,
                project: Some(project),
                role,
            } => write!(f, "+ role {role} in project {project} for group {group}"),
            Self::GrantRole {
                group,
                project: None,
                role,
            } => write!(f, "+ role {role} in the organisation for group {group}"),
            Self::RemoveMember { group, user } => write!(f, "- user {user} in group {group}"),
            Self::RevokeUser { user } => write!(f, "- user {user}"),
            Self::DeleteGroup { group } => write!(f, "- group {group}"),
        }
    }
}
