//! What each command comes down to when the actor may ask for it. Whether the
//! rules allow the changes is seen when they are applied.

use std::num::NonZeroU8;

use sha2::{Digest, Sha256};
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::Signed;
use sotto_proto::{FactorId, ProjectName, RoomId, Shard, UserName};

use super::super::event::{Change, InviteHash};
use super::super::rule::Rule;
use super::super::state::{Invite, State, UserStatus};
use super::super::terms::{Actor, By, Holder, Intervention, Role, Scope, Status, Titled};
use super::{Command, Refusal};
use crate::policy::{self, Factor};

pub(super) fn plan(
    state: &State,
    by: &By,
    command: Command,
    now_ms: i64,
) -> Result<Vec<Change>, Refusal> {
    let may_manage = |scope: &Scope| policy::check_actor(state, by, now_ms, policy::Manage, scope);
    let actor = &by.actor;
    match command {
        Command::All(_) => Err(Rule::TooManyAtOnce.into()),
        Command::CreateOrg { org, gateway_key } => {
            policy::check_gateway(actor, "create an organisation")?;
            Ok(vec![Change::OrgCreated { org, gateway_key }])
        }
        Command::CreateProject { project } => {
            policy::check_actor(state, by, now_ms, policy::CreateProject, &())?;
            Ok(vec![Change::ProjectCreated { project }])
        }
        Command::IssueInvite {
            invite,
            expires_ms,
            scope,
            role,
            for_user,
            guest_until_ms,
        } => {
            policy::check_actor(state, by, now_ms, policy::CreateInvite, &scope)?;
            if for_user.is_some() {
                // Whoever holds it takes over what that user was given anywhere.
                policy::check_actor(state, by, now_ms, policy::CreateInvite, &Scope::Org)?;
            }
            Ok(vec![Change::InviteIssued {
                invite,
                expires_ms,
                scope,
                role,
                for_user,
                guest_until_ms,
            }])
        }
        Command::Enrol {
            invite,
            certificate,
        } => plan_enrolment(state, actor, invite, certificate, now_ms),
        Command::AddDevice { certificate } => Ok(vec![device_of(actor, certificate)?.1]),
        Command::RevokeDevice { device } => {
            let owner = state.device_user(device).ok_or(Rule::UnknownDevice)?;
            if !is(actor, owner) {
                may_manage(&Scope::Org)?;
            }
            let enrolled = state.device(device);
            Ok(change_if(
                enrolled.is_some(),
                Change::DeviceRevoked { device },
            ))
        }
        Command::CreateRoom {
            room,
            project,
            join_rule,
            shards,
        } => {
            let user = policy::check_user(state, by, now_ms, policy::CreateRoom, &project)?;
            let created = Change::RoomCreated {
                room,
                project,
                shard: shard(room, shards),
                join_rule,
            };
            let owner = Change::RoleGranted {
                holder: Holder::User(user),
                scope: Scope::Room(room),
                role: Role::Owner,
            };
            Ok(vec![created, owner])
        }
        Command::JoinRoom { room } => {
            let user = policy::check_user(state, by, now_ms, policy::Join, &room)?;
            let scope = Scope::Room(room);
            if state.granted_role(&user, &scope).is_some() {
                return Ok(Vec::new());
            }
            Ok(grant(state, Holder::User(user), scope, Role::User))
        }
        Command::GrantRole {
            holder,
            scope,
            role,
        } => {
            match role {
                Role::User => policy::check_actor(state, by, now_ms, policy::Invite, &scope)?,
                Role::Owner => may_manage(&scope)?,
            }
            Ok(grant(state, holder, scope, role))
        }
        Command::RevokeRole { holder, scope } => {
            may_manage(&scope)?;
            Ok(vec![Change::RoleRevoked { holder, scope }])
        }
        Command::SetTitle { of, title } => {
            may_manage(&match &of {
                Titled::Project(project) => Scope::Project(project.clone()),
                Titled::Org | Titled::User(_) | Titled::Group(_) => Scope::Org,
            })?;
            let has_it = state.title(&of)? == title.as_ref();
            Ok(change_if(!has_it, Change::TitleSet { of, title }))
        }
        Command::SetProjectStatus { project, status } => {
            may_manage(&Scope::Project(project.clone()))?;
            let has_it = status_of_project(state, &project)? == status;
            Ok(change_if(
                !has_it,
                Change::ProjectStatusSet { project, status },
            ))
        }
        Command::SetRoomStatus { room, status } => {
            may_manage(&Scope::Room(room))?;
            let found = state.room(room).ok_or(Rule::UnknownRoom)?;
            let change = Change::RoomStatusSet { room, status };
            Ok(change_if(found.status != status, change))
        }
        Command::MoveRoom { room, project } => {
            may_manage(&Scope::Room(room))?;
            let found = state.room(room).ok_or(Rule::UnknownRoom)?;
            may_manage(&Scope::Project(found.project.clone()))?;
            may_manage(&Scope::Project(project.clone()))?;
            let moves = found.project != project;
            Ok(change_if(moves, Change::RoomMoved { room, project }))
        }
        Command::AddUser {
            user,
            title,
            external_id,
        } => {
            may_manage(&Scope::Org)?;
            Ok(vec![Change::UserAdded {
                user,
                title,
                external_id,
            }])
        }
        Command::RevokeUser { user } => {
            may_manage(&Scope::Org)?;
            let found = state.known_user(&user)?;
            let revoked = found.status == UserStatus::Revoked;
            Ok(change_if(!revoked, Change::UserRevoked { user }))
        }
        Command::CreateGroup {
            group,
            title,
            external_id,
        } => {
            may_manage(&Scope::Org)?;
            Ok(vec![Change::GroupCreated {
                group,
                title,
                external_id,
            }])
        }
        Command::DeleteGroup { group } => {
            may_manage(&Scope::Org)?;
            Ok(vec![Change::GroupDeleted { group }])
        }
        Command::AddGroupMember { group, user } => {
            may_manage(&Scope::Org)?;
            let member = state.known_group(&group)?.members.contains(&user);
            Ok(change_if(!member, Change::GroupMemberAdded { group, user }))
        }
        Command::RemoveGroupMember { group, user } => {
            may_manage(&Scope::Org)?;
            Ok(vec![Change::GroupMemberRemoved { group, user }])
        }
        Command::SetGuestUntil { user, until_ms } => {
            may_manage(&Scope::Org)?;
            let has_it = state.known_user(&user)?.guest_until_ms == until_ms;
            Ok(change_if(!has_it, Change::GuestUntilSet { user, until_ms }))
        }
        Command::SetPolicy { scope, policy } => {
            may_manage(&scope)?;
            if let Some(policy) = &policy {
                policy.validate()?;
            }
            let has_it = state.policy(&scope) == policy.as_ref();
            Ok(change_if(!has_it, Change::PolicySet { scope, policy }))
        }
        Command::Introduce { user, by: voucher } => {
            policy::check_user(state, by, now_ms, policy::Introduce, &())?;
            if !is(actor, &voucher) {
                return Err(Rule::IntroductionByAnother.into());
            }
            let given = state.introductions(&user).any(|by| *by == voucher);
            let by = voucher;
            Ok(change_if(!given, Change::IntroductionGiven { user, by }))
        }
        Command::WithdrawIntroduction { user, by: voucher } => {
            if !is(actor, &voucher) {
                may_manage(&Scope::Org)?;
            }
            let given = state.introductions(&user).any(|by| *by == voucher);
            let by = voucher;
            Ok(change_if(given, Change::IntroductionWithdrawn { user, by }))
        }
        Command::EnrolFactor { factor, id } => plan_factor(state, by, factor, id, now_ms),
        Command::RemoveFactor { user, id } => {
            if is(actor, &user) {
                policy::check_fresh(state, by, &user, now_ms)?;
            } else {
                may_manage(&Scope::Org)?;
            }
            let enrolled = state.known_user(&user)?.factors().any(|(of, _)| of == id);
            Ok(change_if(enrolled, Change::FactorRemoved { user, id }))
        }
        Command::Intervene { what, reason } => {
            policy::check_gateway(actor, "step in for an owner")?;
            let needed = match &what {
                Intervention::FactorsReset(user) => {
                    state.known_user(user)?.factors().next().is_some()
                }
                Intervention::PolicyLifted(scope) => state.policy(scope).is_some(),
            };
            Ok(change_if(needed, Change::Intervened { what, reason }))
        }
    }
}

/// What allows this is the invite, which the rules look at, as long as who
/// issued it may: an owner who is one no more leaves no way back in.
fn plan_enrolment(
    state: &State,
    actor: &Actor,
    invite: InviteHash,
    certificate: Signed,
    now_ms: i64,
) -> Result<Vec<Change>, Refusal> {
    let issued = state.invite(&invite).ok_or(Rule::InviteInvalid)?;
    check_issuer(state, issued, now_ms)?;
    let (certificate, device) = device_of(actor, certificate)?;
    let enrolled = Change::UserEnrolled {
        user: certificate.user.clone(),
        identity_key: certificate.identity_key,
        invite,
    };
    let mut changes = vec![enrolled, device];
    let holder = Holder::User(certificate.user);
    changes.extend(grant(state, holder, issued.scope.clone(), issued.role));
    Ok(changes)
}

fn check_issuer(state: &State, issued: &Invite, now_ms: i64) -> Result<(), Rule> {
    let Actor::User(issuer) = &issued.issued_by else {
        return Ok(());
    };
    let may_still =
        |scope| policy::standing(state, issuer, now_ms, policy::CreateInvite, scope).is_ok();
    let anybody = issued.for_user.is_none();
    if may_still(&issued.scope) && (anybody || may_still(&Scope::Org)) {
        Ok(())
    } else {
        Err(Rule::InviteOutlived)
    }
}

/// A certificate of the actor's own device, and the change that adds it.
fn device_of(actor: &Actor, signed: Signed) -> Result<(DeviceCertificate, Change), Refusal> {
    let certificate = DeviceCertificate::verify(&signed)
        .map_err(|_| Rule::Certificate("its signature is wrong"))?;
    if !is(actor, &certificate.user) {
        return Err(Rule::Certificate("another user").into());
    }
    let change = Change::DeviceAdded {
        certificate: certificate.clone(),
        signed,
    };
    Ok((certificate, change))
}

fn grant(state: &State, holder: Holder, scope: Scope, role: Role) -> Vec<Change> {
    let held = state.own_role(&holder, &scope) >= Some(role);
    let change = Change::RoleGranted {
        holder,
        scope,
        role,
    };
    change_if(!held, change)
}

fn plan_factor(
    state: &State,
    by: &By,
    factor: Factor,
    id: FactorId,
    now_ms: i64,
) -> Result<Vec<Change>, Refusal> {
    let Actor::User(user) = &by.actor else {
        return Err(Rule::FactorOfGateway.into());
    };
    policy::check_fresh(state, by, user, now_ms)?;
    let user = user.clone();
    Ok(vec![Change::FactorEnrolled { user, factor, id }])
}

fn status_of_project(state: &State, project: &ProjectName) -> Result<Status, Rule> {
    let unknown = || Rule::UnknownProject(project.clone());
    let found = state.project(project).ok_or_else(unknown)?;
    Ok(found.status)
}

fn is(actor: &Actor, user: &UserName) -> bool {
    matches!(actor, Actor::User(actor) if actor == user)
}

fn change_if(wanted: bool, change: Change) -> Vec<Change> {
    if wanted { vec![change] } else { Vec::new() }
}

/// Spreads rooms evenly; ids are drawn by clients, so they are hashed first.
pub(super) fn shard(room: RoomId, shards: NonZeroU8) -> Shard {
    let hash: [u8; 32] = Sha256::digest(room.as_bytes()).into();
    let [first, second, ..] = hash;
    let shard = u16::from_be_bytes([first, second]) % u16::from(shards.get());
    Shard(u8::try_from(shard).unwrap_or_default())
}
