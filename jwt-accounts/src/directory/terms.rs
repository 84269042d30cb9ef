//! What the directory speaks of: who, where, as what.

use std::fmt;
use std::str::FromStr;

use sotto_proto::{GroupName, ProjectName, RoomId, UserName};

use crate::policy::Proven;

/// Who wants something of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// The gateway itself: whoever runs the server.
    Gateway,
    /// A user, proven by a session.
    User(UserName),
}

/// Who wants something, and what they have proven to be them.
#[derive(Debug, Clone, PartialEq)]
pub struct By {
    /// Who.
    pub actor: Actor,
    /// The factors proven on the device that asks.
    pub proven: Proven,
}

impl From<Actor> for By {
    /// With nothing proven but the session itself.
    fn from(actor: Actor) -> Self {
        Self {
            actor,
            proven: Proven::none(),
        }
    }
}

/// Where a role or a policy holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The whole org.
    Org,
    /// One project.
    Project(ProjectName),
    /// One room.
    Room(RoomId),
}

/// What a user is, somewhere. The greater one includes the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes part.
    User,
    /// Takes part and manages.
    Owner,
}

/// Who can have a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// One user.
    User(UserName),
    /// Everyone in a group.
    Group(GroupName),
}

/// What whoever runs the server can do to an org beside serving it: let an
/// owner back in. Nothing of it reads or writes a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intervention {
    /// Every factor of this user is forgotten; they prove their password and
    /// enrol new ones.
    FactorsReset(UserName),
    /// What this level demands of its own is lifted.
    PolicyLifted(Scope),
}

/// What can have a title.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Titled {
    /// The org.
    Org,
    /// A project.
    Project(ProjectName),
    /// A user.
    User(UserName),
    /// A group.
    Group(GroupName),
}

/// What may happen in a project or a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Everything.
    Active,
    /// It is read, and nothing new happens.
    Archived,
    /// It is gone for good; its name or id is never used again.
    Deleted,
}

/// Where a user or a group comes from, such as an LDAP `entryUUID`: 1 to 128
/// visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExternalId(String);

/// Longest [`ExternalId`], in bytes.
const EXTERNAL_ID_MAX: usize = 128;

/// A text that is no [`ExternalId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an external id is 1 to {EXTERNAL_ID_MAX} visible ASCII characters, such as an entryUUID")]
pub struct ExternalIdError;

impl ExternalId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExternalId {
    type Err = ExternalIdError;

    fn from_str(text: &str) -> Result<Self, ExternalIdError> {
        let fits = (1..=EXTERNAL_ID_MAX).contains(&text.len());
        if fits && text.bytes().all(|c| c.is_ascii_graphic()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ExternalIdError)
        }
    }
}

impl fmt::Display for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("the gateway"),
            Self::User(user) => user.fmt(f),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Org => f.write_str("the organisation"),
            Self::Project(project) => write!(f, "project {project}"),
            Self::Room(room) => write!(f, "room {room}"),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Owner => "owner",
        })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(user) => user.fmt(f),
            Self::Group(group) => write!(f, "group {group}"),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Archived => "archived",
            Self::Deleted => "deleted",
        })
    }
}
