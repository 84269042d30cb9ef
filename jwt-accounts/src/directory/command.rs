//! What can be asked of the directory, and the changes that answer it.

use std::num::NonZeroU8;

use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::{JoinRule, Signed};
use sotto_proto::{DeviceId, OrgName, ProjectName, RoomId, Shard, UserName};

use super::event::{Actor, Change, Event, InviteHash, Role, Scope};
use super::rule::Rule;
use super::state::State;
use crate::policy::{self, Denied};

/// Something asked of the directory.
#[derive(Debug, Clone)]
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
    /// Lets someone sign up, once.
    IssueInvite {
        /// Of the invite.
        invite: InviteHash,
        /// Not accepted after, in ms since 1970.
        expires_ms: i64,
        /// Where the new user gets a role.
        scope: Scope,
        /// Which role.
        role: Role,
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
    /// actor owns the org. Changes nothing when it was revoked before.
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
    /// Gives a user at least this role. Changes nothing when they have it, or
    /// a greater one, in just this place.
    GrantRole {
        /// Who.
        user: UserName,
        /// Where.
        scope: Scope,
        /// Which.
        role: Role,
    },
    /// Takes the role that a user was granted in just this place.
    RevokeRole {
        /// Who.
        user: UserName,
        /// Where.
        scope: Scope,
    },
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
}

/// The changes that carry out a command at `now_ms`, or why not. They hold
/// together: append all of them or none.
///
/// # Errors
/// [`Refusal`].
pub fn decide(
    state: &State,
    actor: &Actor,
    command: Command,
    now_ms: i64,
) -> Result<Vec<Change>, Refusal> {
    let changes = plan(state, actor, command)?;
    let mut after = state.clone();
    for change in &changes {
        let event = Event {
            index: after.head.length,
            previous: after.head.hash,
            at_ms: now_ms,
            actor: actor.clone(),
            change: change.clone(),
        };
        after.apply(&event)?;
    }
    Ok(changes)
}

/// What a command comes down to when the actor may ask for it; whether the
/// rules allow the changes is seen when they are applied.
fn plan(state: &State, actor: &Actor, command: Command) -> Result<Vec<Change>, Refusal> {
    match command {
        Command::CreateOrg { org, gateway_key } => {
            policy::check_gateway(actor, "create an organisation")?;
            Ok(vec![Change::OrgCreated { org, gateway_key }])
        }
        Command::CreateProject { project } => {
            policy::check_actor(state, actor, policy::CreateProject, &())?;
            Ok(vec![Change::ProjectCreated { project }])
        }
        Command::IssueInvite {
            invite,
            expires_ms,
            scope,
            role,
        } => {
            policy::check_actor(state, actor, policy::CreateInvite, &scope)?;
            Ok(vec![Change::InviteIssued {
                invite,
                expires_ms,
                scope,
                role,
            }])
        }
        Command::Enrol {
            invite,
            certificate,
        } => plan_enrolment(state, actor, invite, certificate),
        Command::AddDevice { certificate } => Ok(vec![device_of(actor, certificate)?.1]),
        Command::RevokeDevice { device } => {
            let owner = state.device_user(device).ok_or(Rule::UnknownDevice)?;
            if *actor != Actor::User(owner.clone()) {
                policy::check_actor(state, actor, policy::Manage, &Scope::Org)?;
            }
            let enrolled = state.device(device);
            let revoked = enrolled.map(|_| Change::DeviceRevoked { device });
            Ok(revoked.into_iter().collect())
        }
        Command::CreateRoom {
            room,
            project,
            join_rule,
            shards,
        } => {
            let user = policy::check_user(state, actor, policy::CreateRoom, &project)?;
            let created = Change::RoomCreated {
                room,
                project,
                shard: shard(room, shards),
                join_rule,
            };
            let owner = Change::RoleGranted {
                user,
                scope: Scope::Room(room),
                role: Role::Owner,
            };
            Ok(vec![created, owner])
        }
        Command::JoinRoom { room } => {
            let user = policy::check_user(state, actor, policy::Join, &room)?;
            Ok(grant(state, user, Scope::Room(room), Role::User))
        }
        Command::GrantRole { user, scope, role } => {
            match role {
                Role::User => policy::check_actor(state, actor, policy::Invite, &scope)?,
                Role::Owner => policy::check_actor(state, actor, policy::Manage, &scope)?,
            }
            Ok(grant(state, user, scope, role))
        }
        Command::RevokeRole { user, scope } => {
            policy::check_actor(state, actor, policy::Manage, &scope)?;
            Ok(vec![Change::RoleRevoked { user, scope }])
        }
    }
}

/// What allows this is the invite, which the rules look at.
fn plan_enrolment(
    state: &State,
    actor: &Actor,
    invite: InviteHash,
    certificate: Signed,
) -> Result<Vec<Change>, Refusal> {
    let issued = state.invite(&invite).ok_or(Rule::InviteInvalid)?;
    let (certificate, device) = device_of(actor, certificate)?;
    let enrolled = Change::UserEnrolled {
        user: certificate.user.clone(),
        identity_key: certificate.identity_key,
        invite,
    };
    let role = Change::RoleGranted {
        user: certificate.user,
        scope: issued.scope.clone(),
        role: issued.role,
    };
    Ok(vec![enrolled, device, role])
}

/// A certificate of the actor's own device, and the change that adds it.
fn device_of(actor: &Actor, signed: Signed) -> Result<(DeviceCertificate, Change), Refusal> {
    let certificate = DeviceCertificate::verify(&signed)
        .map_err(|_| Rule::Certificate("its signature is wrong"))?;
    if *actor != Actor::User(certificate.user.clone()) {
        return Err(Rule::Certificate("another user").into());
    }
    let change = Change::DeviceAdded {
        certificate: certificate.clone(),
        signed,
    };
    Ok((certificate, change))
}

fn grant(state: &State, user: UserName, scope: Scope, role: Role) -> Vec<Change> {
    if state.granted_role(&user, &scope) >= Some(role) {
        return Vec::new();
    }
    vec![Change::RoleGranted { user, scope, role }]
}

/// Spreads rooms evenly; ids are drawn by clients, so they are hashed first.
fn shard(room: RoomId, shards: NonZeroU8) -> Shard {
    let hash: [u8; 32] = Sha256::digest(room.as_bytes()).into();
    let [first, second, ..] = hash;
    let shard = u16::from_be_bytes([first, second]) % u16::from(shards.get());
    Shard(u8::try_from(shard).unwrap_or_default())
}

#[cfg(test)]
mod tests;
