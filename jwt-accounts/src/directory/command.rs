//! What can be asked of the directory, and the changes that answer it.

mod plan;

use std::num::NonZeroU8;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use sotto_proto::wire::{JoinRule, Signed};
use sotto_proto::{DeviceId, FactorId, GroupName, OrgName, ProjectName, RoomId, Title, UserName};

use super::event::{Change, Event, InviteHash};
use super::rule::Rule;
use super::state::State;
use super::terms::{By, ExternalId, Holder, Intervention, Role, Scope, Status, Titled};
use crate::policy::{self, BadPolicy, Denied, Factor, LevelPolicy, LockedOut};

/// Commands in one [`Command::All`].
pub const COMMANDS_MAX: usize = 500;
/// Changes of one decision: what JetStream stores as one atomic batch.
pub const CHANGES_MAX: usize = 1_000;

/// Something asked of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Begins the log. The gateway only.
    CreateOrg {
        /// Its name.
        org: OrgName,
        /// The key that signs the log.
        gateway_key: VerifyingKey,
    },
    /// Makes a project.
    CreateProject {
        /// Its name.
        project: ProjectName,
    },
    /// Lets someone sign up, once. One for a user by name needs the right to
    /// invite to the org, whatever its scope: whoever has it becomes that user.
    IssueInvite {
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
    /// Signs up the actor with a first device, whose certificate names them.
    Enrol {
        /// What allows it.
        invite: InviteHash,
        /// A `DeviceCertificate`.
        certificate: Signed,
    },
    /// Adds a device of the actor.
    AddDevice {
        /// A `DeviceCertificate`.
        certificate: Signed,
    },
    /// Takes everything from a device: the actor's own, or anyone's when the
    /// actor manages the org. Changes nothing when it was revoked before.
    RevokeDevice {
        /// Which one.
        device: DeviceId,
    },
    /// Makes a room, which the actor owns.
    CreateRoom {
        /// Its id, drawn by the client.
        room: RoomId,
        /// The project it belongs to.
        project: ProjectName,
        /// Who may join.
        join_rule: JoinRule,
        /// How many shards there are; the room's follows from its id.
        shards: NonZeroU8,
    },
    /// Gives the actor the role `user` in an open room. Changes nothing when
    /// they have a role there.
    JoinRoom {
        /// Which one.
        room: RoomId,
    },
    /// Gives a user or a group at least this role. Changes nothing when they
    /// have it, or a greater one, in just this place.
    GrantRole {
        /// Who.
        holder: Holder,
        /// Where.
        scope: Scope,
        /// Which.
        role: Role,
    },
    /// Takes the role that a user or a group was granted in just this place.
    RevokeRole {
        /// Who.
        holder: Holder,
        /// Where.
        scope: Scope,
    },
    /// Sets what people read in place of a name. Changes nothing when they
    /// read it already.
    SetTitle {
        /// Whose.
        of: Titled,
        /// `None`: the name is shown.
        title: Option<Title>,
    },
    /// Archives, restores or deletes a project; only an empty one is deleted.
    /// Changes nothing when it has that status.
    SetProjectStatus {
        /// Which one.
        project: ProjectName,
        /// From now on.
        status: Status,
    },
    /// Archives, restores or deletes a room. Changes nothing when it has that
    /// status.
    SetRoomStatus {
        /// Which one.
        room: RoomId,
        /// From now on.
        status: Status,
    },
    /// Has a room inherit from another project. The actor manages both.
    /// Changes nothing when it is there.
    MoveRoom {
        /// Which one.
        room: RoomId,
        /// Where to.
        project: ProjectName,
    },
    /// Keeps a name for a user, who can have roles and groups before they sign up.
    AddUser {
        /// The name.
        user: UserName,
        /// What people read in place of it.
        title: Option<Title>,
        /// Where they come from.
        external_id: Option<ExternalId>,
    },
    /// Takes everything from a user, for good. Changes nothing when that was
    /// done before.
    RevokeUser {
        /// Who.
        user: UserName,
    },
    /// Makes a group.
    CreateGroup {
        /// Its name.
        group: GroupName,
        /// What people read in place of it.
        title: Option<Title>,
        /// Where it comes from.
        external_id: Option<ExternalId>,
    },
    /// Ends a group, and what its members had through it.
    DeleteGroup {
        /// Which one.
        group: GroupName,
    },
    /// Gives a user what the group has. Changes nothing for a member.
    AddGroupMember {
        /// Which one.
        group: GroupName,
        /// Who.
        user: UserName,
    },
    /// Takes from a user what the group has.
    RemoveGroupMember {
        /// Which one.
        group: GroupName,
        /// Who.
        user: UserName,
    },
    /// Makes a user a guest until a time, or no guest any more. Changes nothing
    /// when that is so.
    SetGuestUntil {
        /// Who.
        user: UserName,
        /// In ms since 1970; `None`: no guest.
        until_ms: Option<i64>,
    },
    /// Sets what a level demands of its own, unless no owner could manage the
    /// org then. Changes nothing when it demands just that.
    SetPolicy {
        /// Which level.
        scope: Scope,
        /// `None`: nothing.
        policy: Option<Arc<LevelPolicy>>,
    },
    /// The actor vouches for a user. Changes nothing when they do already.
    Introduce {
        /// For whom.
        user: UserName,
        /// The actor, by name.
        by: UserName,
    },
    /// The actor does not vouch for a user any more; who manages the org may
    /// end anyone's introduction. Changes nothing when there is none.
    WithdrawIntroduction {
        /// For whom.
        user: UserName,
        /// Who vouched.
        by: UserName,
    },
    /// Notes that the actor can prove a factor.
    EnrolFactor {
        /// Which kind.
        factor: Factor,
        /// Which one of that kind.
        id: FactorId,
    },
    /// Notes that a user cannot prove a factor any more: the actor, or anyone
    /// when the actor manages the org. Changes nothing when that was done before.
    RemoveFactor {
        /// Who.
        user: UserName,
        /// Which one.
        id: FactorId,
    },
    /// Steps in for an owner who cannot get in any more. The gateway only, for
    /// whoever runs the server; every member is told. Changes nothing when there
    /// is nothing to reset or to lift.
    Intervene {
        /// How.
        what: Intervention,
        /// Why, for every member to read.
        reason: Title,
    },
    /// Does all of these in order or none, each decided on what those before
    /// have changed. At most [`COMMANDS_MAX`], none of them another `All`.
    All(Vec<Command>),
}

/// Why the directory does not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The actor may not.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Nobody may: a rule of the directory forbids it.
    #[error(transparent)]
    Rule(#[from] Rule),
    /// The policy to be set is none.
    #[error(transparent)]
    Policy(#[from] BadPolicy),
    /// No owner could change the policy to be set any more.
    #[error(transparent)]
    LockedOut(#[from] LockedOut),
    /// One of several commands, so that none was carried out.
    #[error("command {number}: {refusal}")]
    Nth {
        /// Which one, from 1.
        number: usize,
        /// Why.
        refusal: Box<Refusal>,
    },
}

impl Refusal {
    /// Says which of `several` commands it is about.
    fn of_nth(self, number: usize, several: bool) -> Self {
        if !several {
            return self;
        }
        let refusal = Box::new(self);
        Self::Nth { number, refusal }
    }
}

/// The changes that carry out a command at `now_ms`, or why not. They hold
/// together: append all of them or none.
///
/// # Errors
/// [`Refusal`].
pub fn decide(
    state: &State,
    by: &By,
    command: Command,
    now_ms: i64,
) -> Result<Vec<Change>, Refusal> {
    let mut trial = Trial {
        state: state.clone(),
        by,
        now_ms,
        changes: Vec::new(),
    };
    match command {
        Command::All(commands) if commands.len() > COMMANDS_MAX => {
            return Err(Rule::TooManyAtOnce.into());
        }
        Command::All(commands) => {
            let several = commands.len() > 1;
            for (number, command) in (1..).zip(commands) {
                let done = trial.carry_out(command);
                done.map_err(|refusal| refusal.of_nth(number, several))?;
            }
        }
        command => trial.carry_out(command)?,
    }
    Ok(trial.changes)
}

/// A copy of the state on which changes are tried as they are decided.
struct Trial<'a> {
    state: State,
    by: &'a By,
    now_ms: i64,
    changes: Vec<Change>,
}

impl Trial<'_> {
    fn carry_out(&mut self, command: Command) -> Result<(), Refusal> {
        for change in plan::plan(&self.state, self.by, command, self.now_ms)? {
            if self.changes.len() >= CHANGES_MAX {
                return Err(Rule::TooManyAtOnce.into());
            }
            let decided = u64::try_from(self.changes.len()).unwrap_or(u64::MAX);
            let event = Event {
                index: self.state.head().length.saturating_add(decided),
                previous: None,
                at_ms: self.now_ms,
                actor: self.by.actor.clone(),
                change,
            };
            let before = may_lock_out(&event.change).then(|| self.state.clone());
            self.state.apply(&event)?;
            self.check_lockout(before.as_ref(), &event.change)?;
            self.changes.push(event.change);
        }
        Ok(())
    }

    /// No change may leave an org that none of its owners could manage. One
    /// that is so already must not keep every other change from happening.
    fn check_lockout(&self, before: Option<&State>, change: &Change) -> Result<(), LockedOut> {
        let locked_out = |state, scope| policy::lockout(state, scope, self.now_ms);
        match (change, before) {
            (Change::PolicySet { scope, .. }, _) => locked_out(&self.state, scope),
            (_, Some(before)) => match locked_out(&self.state, &Scope::Org) {
                Err(_) if locked_out(before, &Scope::Org).is_err() => Ok(()),
                answer => answer,
            },
            (_, None) => Ok(()),
        }
    }
}

/// Whether a change, without being a policy, can take from an owner what it
/// takes to manage.
fn may_lock_out(change: &Change) -> bool {
    matches!(
        change,
        Change::RoleRevoked { .. }
            | Change::UserRevoked { .. }
            | Change::GroupDeleted { .. }
            | Change::GroupMemberRemoved { .. }
            | Change::GuestUntilSet { .. }
            | Change::IntroductionWithdrawn { .. }
            | Change::FactorRemoved { .. }
    )
}

impl Command {
    /// The command that asks for just this change; `None` for changes that
    /// only come with others or are not for asking.
    pub(super) fn for_change(change: Change) -> Option<Self> {
        Some(match change {
            Change::ProjectCreated { project } => Self::CreateProject { project },
            Change::InviteIssued {
                invite,
                expires_ms,
                scope,
                role,
                for_user,
                guest_until_ms,
            } => Self::IssueInvite {
                invite,
                expires_ms,
                scope,
                role,
                for_user,
                guest_until_ms,
            },
            Change::DeviceRevoked { device } => Self::RevokeDevice { device },
            Change::RoleGranted {
                holder,
                scope,
                role,
            } => Self::GrantRole {
                holder,
                scope,
                role,
            },
            Change::RoleRevoked { holder, scope } => Self::RevokeRole { holder, scope },
            Change::TitleSet { of, title } => Self::SetTitle { of, title },
            Change::ProjectStatusSet { project, status } => {
                Self::SetProjectStatus { project, status }
            }
            Change::RoomStatusSet { room, status } => Self::SetRoomStatus { room, status },
            Change::RoomMoved { room, project } => Self::MoveRoom { room, project },
            Change::UserAdded {
                user,
                title,
                external_id,
            } => Self::AddUser {
                user,
                title,
                external_id,
            },
            Change::UserRevoked { user } => Self::RevokeUser { user },
            Change::GroupCreated {
                group,
                title,
                external_id,
            } => Self::CreateGroup {
                group,
                title,
                external_id,
            },
            Change::GroupDeleted { group } => Self::DeleteGroup { group },
            Change::GroupMemberAdded { group, user } => Self::AddGroupMember { group, user },
            Change::GroupMemberRemoved { group, user } => Self::RemoveGroupMember { group, user },
            Change::GuestUntilSet { user, until_ms } => Self::SetGuestUntil { user, until_ms },
            Change::PolicySet { scope, policy } => Self::SetPolicy { scope, policy },
            Change::IntroductionGiven { user, by } => Self::Introduce { user, by },
            Change::IntroductionWithdrawn { user, by } => Self::WithdrawIntroduction { user, by },
            Change::OrgCreated { .. }
            | Change::UserEnrolled { .. }
            | Change::DeviceAdded { .. }
            | Change::RoomCreated { .. }
            | Change::FactorEnrolled { .. }
            | Change::FactorRemoved { .. }
            | Change::Intervened { .. } => return None,
        })
    }
}

#[cfg(test)]
mod tests;
