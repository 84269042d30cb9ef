//! Places, roles and the like in protobuf.

use sotto_proto::RoomId;
use sotto_proto::wire::{self, title_set};

use super::super::terms::{Role, Scope, Status, Titled};
use super::Malformed;

impl TryFrom<Option<wire::Scope>> for Scope {
    type Error = Malformed;

    fn try_from(scope: Option<wire::Scope>) -> Result<Self, Malformed> {
        use wire::scope::Place;
        match scope.and_then(|scope| scope.place) {
            Some(Place::Org(true)) => Ok(Self::Org),
            Some(Place::Project(project)) => Ok(Self::Project(project.parse()?)),
            Some(Place::Room(room)) => Ok(Self::Room(RoomId::try_from(&room)?)),
            Some(Place::Org(false)) | None => Err(Malformed::Part("scope")),
        }
    }
}

impl From<&Scope> for wire::Scope {
    fn from(scope: &Scope) -> Self {
        use wire::scope::Place;
        Self {
            place: Some(match scope {
                Scope::Org => Place::Org(true),
                Scope::Project(project) => Place::Project(project.to_string()),
                Scope::Room(room) => Place::Room(room.to_bytes()),
            }),
        }
    }
}

impl TryFrom<Option<title_set::Of>> for Titled {
    type Error = Malformed;

    fn try_from(of: Option<title_set::Of>) -> Result<Self, Malformed> {
        match of {
            Some(title_set::Of::Org(true)) => Ok(Self::Org),
            Some(title_set::Of::Project(project)) => Ok(Self::Project(project.parse()?)),
            Some(title_set::Of::User(user)) => Ok(Self::User(user.parse()?)),
            Some(title_set::Of::Group(group)) => Ok(Self::Group(group.parse()?)),
            Some(title_set::Of::Org(false)) | None => Err(Malformed::Part("place for a title")),
        }
    }
}

impl From<&Titled> for title_set::Of {
    fn from(of: &Titled) -> Self {
        match of {
            Titled::Org => Self::Org(true),
            Titled::Project(project) => Self::Project(project.to_string()),
            Titled::User(user) => Self::User(user.to_string()),
            Titled::Group(group) => Self::Group(group.to_string()),
        }
    }
}

impl TryFrom<wire::Role> for Role {
    type Error = Malformed;

    fn try_from(role: wire::Role) -> Result<Self, Malformed> {
        match role {
            wire::Role::User => Ok(Self::User),
            wire::Role::Owner => Ok(Self::Owner),
            wire::Role::Unspecified => Err(Malformed::Part("role")),
        }
    }
}

impl From<Role> for wire::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::User => Self::User,
            Role::Owner => Self::Owner,
        }
    }
}

impl TryFrom<wire::Status> for Status {
    type Error = Malformed;

    fn try_from(status: wire::Status) -> Result<Self, Malformed> {
        match status {
            wire::Status::Active => Ok(Self::Active),
            wire::Status::Archived => Ok(Self::Archived),
            wire::Status::Deleted => Ok(Self::Deleted),
            wire::Status::Unspecified => Err(Malformed::Part("status")),
        }
    }
}

impl From<Status> for wire::Status {
    fn from(status: Status) -> Self {
        match status {
            Status::Active => Self::Active,
            Status::Archived => Self::Archived,
            Status::Deleted => Self::Deleted,
        }
    }
}
