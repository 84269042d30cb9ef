//! What an event of the directory says. How it is written stands in `wire`.

use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::{JoinRule, Signed};
use sotto_proto::{
    DeviceId, FactorId, GroupName, InviteToken, OrgName, ProjectName, RoomId, Shard, Title,
    UserName,
};

use super::terms::{Actor, ExternalId, Holder, Intervention, Role, Scope, Status, Titled};
use crate::policy::{Factor, LevelPolicy};

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its place, from 0.
    pub index: u64,
    /// Hash of the entry before; `None` for the first.
    pub previous: Option<[u8; 32]>,
    /// When it was decided, in ms since 1970, by the gateway's clock.
    pub at_ms: i64,
    /// Who wanted it.
    pub actor: Actor,
    /// What it changes.
    pub change: Change,
}

/// What one event changes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "a certificate is the common case; changes are short-lived"
)]
pub enum Change {
    /// The org begins; always the first event.
    OrgCreated {
        /// Its name.
        org: OrgName,
        /// The key that signs the log.
        gateway_key: VerifyingKey,
    },
    /// A project begins.
    ProjectCreated {
        /// Its name.
        project: ProjectName,
    },
    /// Someone may sign up, once.
    InviteIssued {
        /// Of the invite.
        invite: InviteHash,
        /// Not accepted after, in ms since 1970.
        expires_ms: i64,
        /// Where the new user gets a role.
        scope: Scope,
        /// Which role.
        role: Role,
        /// Only this user may use it; `None`: any new one.
        for_user: Option<UserName>,
        /// Whoever uses it is a guest until then, in ms since 1970.
        guest_until_ms: Option<i64>,
    },
    /// A user begins; the invite is used up.
    UserEnrolled {
        /// The name.
        user: UserName,
        /// The identity key.
        identity_key: VerifyingKey,
        /// What allowed it.
        invite: InviteHash,
    },
    /// A user has one more device.
    DeviceAdded {
        /// By the user's identity key.
        certificate: DeviceCertificate,
        /// The certificate as it was signed.
        signed: Signed,
    },
    /// A device may do nothing any more.
    DeviceRevoked {
        /// Which one.
        device: DeviceId,
    },
    /// A room begins.
    RoomCreated {
        /// Its id.
        room: RoomId,
        /// The project it belongs to.
        project: ProjectName,
        /// Where its messages are kept.
        shard: Shard,
        /// Who may join.
        join_rule: JoinRule,
    },
    /// A user or a group has this role there now, instead of any other.
    RoleGranted {
        /// Who.
        holder: Holder,
        /// Where.
        scope: Scope,
        /// Which.
        role: Role,
    },
    /// A user or a group has no role of its own there any more.
    RoleRevoked {
        /// Who.
        holder: Holder,
        /// Where.
        scope: Scope,
    },
    /// What people read in place of a name.
    TitleSet {
        /// Whose.
        of: Titled,
        /// `None`: the name is shown.
        title: Option<Title>,
    },
    /// A project is used, kept or gone.
    ProjectStatusSet {
        /// Which one.
        project: ProjectName,
        /// From now on.
        status: Status,
    },
    /// A room is used, kept or gone.
    RoomStatusSet {
        /// Which one.
        room: RoomId,
        /// From now on.
        status: Status,
    },
    /// A room inherits from another project now; its subjects stay.
    RoomMoved {
        /// Which one.
        room: RoomId,
        /// Where to.
        project: ProjectName,
    },
    /// A user is expected, who has yet to sign up.
    UserAdded {
        /// The name that is kept for them.
        user: UserName,
        /// What people read in place of it.
        title: Option<Title>,
        /// Where they come from.
        external_id: Option<ExternalId>,
    },
    /// Everything is taken from a user, for good.
    UserRevoked {
        /// Who.
        user: UserName,
    },
    /// A group begins.
    GroupCreated {
        /// Its name.
        group: GroupName,
        /// What people read in place of it.
        title: Option<Title>,
        /// Where it comes from.
        external_id: Option<ExternalId>,
    },
    /// A group ends, and what its members had through it.
    GroupDeleted {
        /// Which one.
        group: GroupName,
    },
    /// A user has what the group has.
    GroupMemberAdded {
        /// Which one.
        group: GroupName,
        /// Who.
        user: UserName,
    },
    /// A user has nothing through the group any more.
    GroupMemberRemoved {
        /// Which one.
        group: GroupName,
        /// Who.
        user: UserName,
    },
    /// A user is a guest, until a time, or is none any more.
    GuestUntilSet {
        /// Who.
        user: UserName,
        /// In ms since 1970; `None`: no guest.
        until_ms: Option<i64>,
    },
    /// What a level demands of its own.
    PolicySet {
        /// Which level.
        scope: Scope,
        /// `None`: nothing.
        policy: Option<Arc<LevelPolicy>>,
    },
    /// One user vouches for another.
    IntroductionGiven {
        /// For whom.
        user: UserName,
        /// Who does.
        by: UserName,
    },
    /// One user does not vouch for another any more.
    IntroductionWithdrawn {
        /// For whom.
        user: UserName,
        /// Who did.
        by: UserName,
    },
    /// A user can prove a factor.
    FactorEnrolled {
        /// Who.
        user: UserName,
        /// Which kind.
        factor: Factor,
        /// Which one of that kind.
        id: FactorId,
    },
    /// A user cannot prove a factor any more.
    FactorRemoved {
        /// Who.
        user: UserName,
        /// Which one.
        id: FactorId,
    },
    /// Whoever runs the server stepped in; the gateway's own only.
    Intervened {
        /// How.
        what: Intervention,
        /// Why, for every member to read.
        reason: Title,
    },
}

/// SHA-256 of an invite: the log must not give invites away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InviteHash(pub [u8; 32]);

impl From<&InviteToken> for InviteHash {
    fn from(invite: &InviteToken) -> Self {
        Self(Sha256::digest(invite.as_bytes()).into())
    }
}
