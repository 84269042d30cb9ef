//! The rules that hold for the directory whoever asks.

use sotto_proto::{ProjectName, UserName, limits};

/// A rule of the directory that a change would break.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// The first event must create the org, and no other may.
    #[error("an organisation is created once, before anything else in it")]
    OrgOnce,
    /// Project names are unique.
    #[error("there is already a project `{0}`: choose another name")]
    ProjectTaken(ProjectName),
    /// There is no such project.
    #[error("there is no project `{0}`: ask an owner of the organisation for its name")]
    UnknownProject(ProjectName),
    /// User names are unique, for ever.
    #[error("the name `{0}` is taken: choose another one")]
    UserTaken(UserName),
    /// There is no such user.
    #[error("there is no user `{0}`: check the spelling, or invite them to sign up")]
    UnknownUser(UserName),
    /// Device ids and their keys are unique, for ever.
    #[error("this device, or its key, is already enrolled: start with a new device")]
    DeviceTaken,
    /// There is no such device, or it is revoked.
    #[error("there is no such device, or it was revoked")]
    UnknownDevice,
    /// A user has as many devices as allowed.
    #[error("a user has at most {max} devices: revoke one first", max = limits::DEVICES_PER_USER)]
    TooManyDevices,
    /// The certificate is not one for this org, user, key or time.
    #[error("the device's certificate does not fit ({0}): link or log in the device again")]
    Certificate(&'static str),
    /// Room ids are unique.
    #[error("there is already a room with this id: try again")]
    RoomTaken,
    /// There is no such room.
    #[error("there is no such room, or you may not see it: ask an owner of it for an invitation")]
    UnknownRoom,
    /// Invites are unique.
    #[error("this invite was already issued: issue a new one")]
    InviteTaken,
    /// There is no such invite, or it was used.
    #[error("this invite was used or never issued: ask for a new one")]
    InviteInvalid,
    /// The invite's time is over.
    #[error("this invite has expired: ask for a new one")]
    InviteExpired,
    /// The user has this role there, or a greater one.
    #[error("the user has this role already")]
    RoleHeld,
    /// The user has no role of their own there.
    #[error("the user has no role there that could be revoked")]
    NoRole,
    /// The org would be left without an owner.
    #[error("the organisation would be left without an owner: make someone else owner first")]
    LastOwner,
}
