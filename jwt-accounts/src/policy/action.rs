//! What a user may want to do, as types: a permit for one is none for another.

use std::fmt;

use sotto_proto::{ProjectName, RoomId};

use super::demand::ActionKind;
use crate::directory::Scope;

/// Something a user may want to do.
pub trait Action: Copy + fmt::Debug + sealed::Sealed {
    /// What it is done to.
    type Object: Clone + fmt::Debug + PartialEq + Eq;
    /// Which one it is.
    const KIND: ActionKind;

    /// The object's place.
    fn scope(object: &Self::Object) -> Scope;
}

mod sealed {
    /// Actions are defined here only.
    pub trait Sealed {}
}

macro_rules! action {
    ($(#[$doc:meta])* $action:ident on $object:ty, $scope:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $action;

        impl sealed::Sealed for $action {}

        impl Action for $action {
            type Object = $object;
            const KIND: ActionKind = ActionKind::$action;

            fn scope(object: &$object) -> Scope {
                let scope: fn(&$object) -> Scope = $scope;
                scope(object)
            }
        }
    };
}

action!(
    /// See the messages of a room.
    Read on RoomId,
    |room| Scope::Room(*room)
);
action!(
    /// Send messages to a room.
    Post on RoomId,
    |room| Scope::Room(*room)
);
action!(
    /// Become a member of an open room without being invited.
    Join on RoomId,
    |room| Scope::Room(*room)
);
action!(
    /// Give others the role `user`.
    Invite on Scope,
    Scope::clone
);
action!(
    /// Give and take any role, revoke devices, change what is there.
    Manage on Scope,
    Scope::clone
);
action!(
    /// Let someone sign up with a role.
    CreateInvite on Scope,
    Scope::clone
);
action!(
    /// Make a room in a project.
    CreateRoom on ProjectName,
    |project| Scope::Project(project.clone())
);
action!(
    /// Make a project in the org.
    CreateProject on (),
    |()| Scope::Org
);
action!(
    /// Vouch for another user.
    Introduce on (),
    |()| Scope::Org
);

impl ActionKind {
    /// Whether it can be done to what is in such a place.
    pub fn applies_to(self, object: &Scope) -> bool {
        match self {
            Self::Read | Self::Post | Self::Join => matches!(object, Scope::Room(_)),
            Self::Invite | Self::Manage | Self::CreateInvite => true,
            Self::CreateRoom => matches!(object, Scope::Project(_)),
            Self::CreateProject | Self::Introduce => *object == Scope::Org,
        }
    }

    /// For messages: "may not …".
    pub(super) const fn phrase(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Post => "post",
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Manage => "manage",
            Self::CreateInvite => "create invites",
            Self::CreateRoom => "create rooms",
            Self::CreateProject => "create projects",
            Self::Introduce => "introduce users",
        }
    }

    /// For messages: which role a user needs, and what to do without.
    pub(super) const fn needs(self) -> &'static str {
        match self {
            Self::Read | Self::Post => {
                "a role in the room is needed; ask one of its owners for an invitation"
            }
            Self::Join => {
                "the room must be open, and a role in its project is needed; ask one of its owners for an invitation"
            }
            Self::Invite | Self::Manage | Self::CreateInvite | Self::CreateProject => {
                "the role owner is needed there; ask an owner"
            }
            Self::CreateRoom => "a role in the project is needed; ask an owner of it",
            Self::Introduce => "guests and strangers cannot; ask a member to do it",
        }
    }
}
