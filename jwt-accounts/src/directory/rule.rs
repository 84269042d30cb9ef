//! The rules that hold for the directory whoever asks.

use sotto_proto::{GroupName, ProjectName, UserName, limits};

use super::command::{CHANGES_MAX, COMMANDS_MAX};
use super::terms::{ExternalId, Scope};

/// A rule of the directory that a change would break.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rule {
    /// The first event must create the org, and no other may.
    #[error("an organisation is created once, before anything else in it")]
    OrgOnce,
    /// Project names are unique, for ever.
    #[error("there is already, or was, a project `{0}`: choose another name")]
    ProjectTaken(ProjectName),
    /// There is no such project.
    #[error("there is no project `{0}`: ask an owner of the organisation for its name")]
    UnknownProject(ProjectName),
    /// Only an empty project is deleted.
    #[error("project `{0}` holds rooms: delete them or move them to another project first")]
    ProjectHoldsRooms(ProjectName),
    /// User names are unique, for ever.
    #[error("the name `{0}` is taken: choose another one")]
    UserTaken(UserName),
    /// The name is kept for somebody who is expected.
    #[error(
        "the name `{0}` is kept for somebody who is expected: use the invite made for them, or choose another name"
    )]
    UserExpected(UserName),
    /// There is no such user.
    #[error("there is no user `{0}`: check the spelling, or invite them to sign up")]
    UnknownUser(UserName),
    /// Nothing is given to a user who was revoked.
    #[error("everything was taken from the user `{0}`, for good: add them under another name")]
    UserRevoked(UserName),
    /// The user has not signed up.
    #[error("the user `{0}` has not signed up yet: give them an invite first")]
    UserNotEnrolled(UserName),
    /// Group names are unique, for ever.
    #[error("there is already, or was, a group `{0}`: choose another name")]
    GroupTaken(GroupName),
    /// There is no such group.
    #[error("there is no group `{0}`: check the spelling, or create it")]
    UnknownGroup(GroupName),
    /// The user is in the group.
    #[error("the user is in the group already")]
    AlreadyMember,
    /// The user is not in the group.
    #[error("the user is not in the group")]
    NotMember,
    /// External ids are unique among users and among groups.
    #[error("`{0}` is already there under another name: change that one instead of adding it")]
    ExternalIdTaken(ExternalId),
    /// A title passes for that of a sibling, or for its name.
    #[error("this title, or name, looks like that of `{0}`: choose one that cannot be mistaken")]
    Confusable(String),
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
    /// Room ids are unique, for ever.
    #[error("there is already, or was, a room with this id: try again")]
    RoomTaken,
    /// There is no such room.
    #[error("there is no such room, or you may not see it: ask an owner of it for an invitation")]
    UnknownRoom,
    /// Nothing new happens in what is archived.
    #[error("{0} is archived, so that nothing new happens there: restore it first")]
    Archived(Scope),
    /// It has this status, or this place, already.
    #[error("it is so already")]
    Unchanged,
    /// Nobody in the org can.
    #[error("only whoever runs the server can step in for an owner")]
    Intervention,
    /// Invites are unique.
    #[error("this invite was already issued: issue a new one")]
    InviteTaken,
    /// There is no such invite, or it was used.
    #[error("this invite was used or never issued: ask for a new one")]
    InviteInvalid,
    /// The invite's time is over.
    #[error("this invite has expired: ask for a new one")]
    InviteExpired,
    /// The invite is for another user.
    #[error("this invite is for somebody else: ask for one of your own")]
    InviteForAnother,
    /// Who issued the invite lost the right to.
    #[error("who issued this invite may not invite there any more: ask for a new one")]
    InviteOutlived,
    /// They have this role there, or a greater one.
    #[error("they have this role already")]
    RoleHeld,
    /// They have no role of their own there.
    #[error("there is no role of their own that could be revoked")]
    NoRole,
    /// Guests have the role `user` in single rooms, and no other.
    #[error(
        "a guest has the role user in single rooms and no other, neither of their own nor by a group: take the others from them, or make them no guest"
    )]
    Guest,
    /// The org would be left without an owner.
    #[error("the organisation would be left without an owner: make someone else owner first")]
    LastOwner,
    /// Nobody vouches for themselves, or in the name of others.
    #[error("you can vouch for others, in your own name only")]
    IntroductionByAnother,
    /// There is no such introduction, or there is one already.
    #[error("this introduction was withdrawn, never given, or is there already")]
    Introduction,
    /// Factor ids are unique to a user, and introductions are not enrolled.
    #[error("this factor is enrolled already, or cannot be: enrol another one")]
    FactorTaken,
    /// There is no such factor.
    #[error("there is no such factor, or it was removed: list yours to see their ids")]
    UnknownFactor,
    /// A user has as many factors as allowed.
    #[error("a user has at most {max} factors: remove one first", max = super::state::FACTORS_MAX)]
    TooManyFactors,
    /// The gateway proves nothing.
    #[error("only a user can enrol a factor: log in as one")]
    FactorOfGateway,
    /// More than is stored as one.
    #[error(
        "at most {COMMANDS_MAX} commands, which make at most {CHANGES_MAX} changes, are carried out together: ask for fewer at a time"
    )]
    TooManyAtOnce,
}
