//! How events and commands are written in protobuf, and read from it.

mod terms;

use std::sync::Arc;

use bytes::Bytes;
use sotto_proto::signed::{self, DeviceCertificate, SignedError};
use sotto_proto::wire::operator_intervened::What;
use sotto_proto::wire::{self, directory_command::Ask, directory_event::Body};
use sotto_proto::{
    DeviceId, FactorId, GroupName, IdError, NameError, RoomId, Shard, TitleError, UserName,
};

use super::command::Command;
use super::event::{Change, Event, InviteHash};
use super::terms::{Actor, ExternalIdError, Holder, Intervention};
use crate::policy::{BadPolicy, Factor, LevelPolicy, UnknownFactor};

/// An event or a command that does not read, or is of a kind that this version
/// does not know. Of a log, believing the rest without it would be guessing, so
/// nothing is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A part of it.
    #[error("its {0} is missing, malformed or newer than this version: update Sotto")]
    Part(&'static str),
    /// A name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An id.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A key or a certificate.
    #[error("its key or certificate is malformed: {0}")]
    Signed(#[from] SignedError),
    /// A title.
    #[error(transparent)]
    Title(#[from] TitleError),
    /// Where a user or group comes from.
    #[error(transparent)]
    ExternalId(#[from] ExternalIdError),
    /// What a level demands.
    #[error(transparent)]
    Policy(#[from] BadPolicy),
    /// A way of proving who one is.
    #[error(transparent)]
    Factor(#[from] UnknownFactor),
}

impl TryFrom<wire::DirectoryEvent> for Event {
    type Error = Malformed;

    fn try_from(event: wire::DirectoryEvent) -> Result<Self, Malformed> {
        Ok(Self {
            index: event.index,
            previous: match event.previous_hash.as_ref() {
                [] => None,
                hash => Some(
                    hash.try_into()
                        .map_err(|_| Malformed::Part("previous hash"))?,
                ),
            },
            at_ms: event.at_ms,
            actor: match event.actor.as_str() {
                "" => Actor::Gateway,
                user => Actor::User(user.parse()?),
            },
            change: event.body.ok_or(Malformed::Part("kind"))?.try_into()?,
        })
    }
}

impl From<&Event> for wire::DirectoryEvent {
    fn from(event: &Event) -> Self {
        Self {
            index: event.index,
            previous_hash: event.previous.map(hash_bytes).unwrap_or_default(),
            at_ms: event.at_ms,
            actor: match &event.actor {
                Actor::Gateway => String::new(),
                Actor::User(user) => user.to_string(),
            },
            body: Some(Body::from(&event.change)),
        }
    }
}

impl TryFrom<Body> for Change {
    type Error = Malformed;

    fn try_from(body: Body) -> Result<Self, Malformed> {
        Ok(match body {
            Body::OrgCreated(body) => Self::OrgCreated {
                org: body.org.parse()?,
                gateway_key: signed::public_key(&body.gateway_key)?,
            },
            Body::ProjectCreated(body) => Self::ProjectCreated {
                project: body.project.parse()?,
            },
            Body::InviteIssued(body) => Self::InviteIssued {
                invite: invite_hash(&body.invite_hash)?,
                expires_ms: body.expires_ms,
                role: body.role().try_into()?,
                scope: body.scope.try_into()?,
                for_user: unless_empty(&body.for_user)?,
                guest_until_ms: guest_until(body.guest_until_ms)?,
            },
            Body::UserEnrolled(body) => Self::UserEnrolled {
                user: body.user.parse()?,
                identity_key: signed::public_key(&body.identity_key)?,
                invite: invite_hash(&body.invite_hash)?,
            },
            Body::DeviceAdded(body) => {
                let signed = body.certificate.ok_or(Malformed::Part("certificate"))?;
                Self::DeviceAdded {
                    certificate: DeviceCertificate::verify(&signed)?,
                    signed,
                }
            }
            Body::DeviceRevoked(body) => Self::DeviceRevoked {
                device: DeviceId::try_from(&body.device)?,
            },
            Body::RoomCreated(body) => Self::RoomCreated {
                room: RoomId::try_from(&body.room)?,
                shard: Shard(
                    body.shard
                        .try_into()
                        .map_err(|_| Malformed::Part("shard"))?,
                ),
                join_rule: wire::JoinRule::try_from(body.join_rule)
                    .map_err(|_| Malformed::Part("join rule"))?,
                project: body.project.parse()?,
            },
            Body::RoleGranted(body) => Self::RoleGranted {
                role: body.role().try_into()?,
                holder: holder(&body.user, &body.group)?,
                scope: body.scope.try_into()?,
            },
            Body::RoleRevoked(body) => Self::RoleRevoked {
                holder: holder(&body.user, &body.group)?,
                scope: body.scope.try_into()?,
            },
            Body::TitleSet(body) => Self::TitleSet {
                of: body.of.try_into()?,
                title: unless_empty(&body.title)?,
            },
            Body::ProjectStatusSet(body) => Self::ProjectStatusSet {
                status: body.status().try_into()?,
                project: body.project.parse()?,
            },
            Body::RoomStatusSet(body) => Self::RoomStatusSet {
                status: body.status().try_into()?,
                room: RoomId::try_from(&body.room)?,
            },
            Body::RoomMoved(body) => Self::RoomMoved {
                room: RoomId::try_from(&body.room)?,
                project: body.project.parse()?,
            },
            Body::UserAdded(body) => Self::UserAdded {
                user: body.user.parse()?,
                title: unless_empty(&body.title)?,
                external_id: unless_empty(&body.external_id)?,
            },
            Body::UserRevoked(body) => Self::UserRevoked {
                user: body.user.parse()?,
            },
            Body::GroupCreated(body) => Self::GroupCreated {
                group: body.group.parse()?,
                title: unless_empty(&body.title)?,
                external_id: unless_empty(&body.external_id)?,
            },
            Body::GroupDeleted(body) => Self::GroupDeleted {
                group: body.group.parse()?,
            },
            Body::GroupMemberAdded(body) => Self::GroupMemberAdded {
                group: body.group.parse()?,
                user: body.user.parse()?,
            },
            Body::GroupMemberRemoved(body) => Self::GroupMemberRemoved {
                group: body.group.parse()?,
                user: body.user.parse()?,
            },
            Body::GuestUntilSet(body) => Self::GuestUntilSet {
                user: body.user.parse()?,
                until_ms: guest_until(body.until_ms)?,
            },
            Body::PolicySet(body) => Self::PolicySet {
                scope: body.scope.try_into()?,
                policy: match body.policy {
                    Some(policy) => Some(Arc::new(LevelPolicy::try_from(policy)?)),
                    None => None,
                },
            },
            Body::IntroductionGiven(body) => Self::IntroductionGiven {
                user: body.user.parse()?,
                by: body.by.parse()?,
            },
            Body::IntroductionWithdrawn(body) => Self::IntroductionWithdrawn {
                user: body.user.parse()?,
                by: body.by.parse()?,
            },
            Body::FactorEnrolled(body) => Self::FactorEnrolled {
                factor: Factor::try_from(body.factor())?,
                user: body.user.parse()?,
                id: FactorId::try_from(&body.id)?,
            },
            Body::FactorRemoved(body) => Self::FactorRemoved {
                user: body.user.parse()?,
                id: FactorId::try_from(&body.id)?,
            },
            Body::OperatorIntervened(body) => Self::Intervened {
                reason: body.reason.parse()?,
                what: match body.what.ok_or(Malformed::Part("intervention"))? {
                    What::FactorsOf(user) => Intervention::FactorsReset(user.parse()?),
                    What::PolicyOf(scope) => Intervention::PolicyLifted(Some(scope).try_into()?),
                },
            },
        })
    }
}

impl From<&Change> for Body {
    fn from(change: &Change) -> Self {
        match change {
            Change::OrgCreated { org, gateway_key } => Self::OrgCreated(wire::OrgCreated {
                org: org.to_string(),
                gateway_key: signed::key_bytes(gateway_key),
            }),
            Change::ProjectCreated { project } => Self::ProjectCreated(wire::ProjectCreated {
                project: project.to_string(),
            }),
            Change::InviteIssued {
                invite,
                expires_ms,
                scope,
                role,
                for_user,
                guest_until_ms,
            } => Self::InviteIssued(wire::InviteIssued {
                invite_hash: hash_bytes(invite.0),
                expires_ms: *expires_ms,
                scope: Some(scope.into()),
                role: wire::Role::from(*role).into(),
                for_user: or_empty(for_user.as_ref()),
                guest_until_ms: guest_until_ms.unwrap_or_default(),
            }),
            Change::UserEnrolled {
                user,
                identity_key,
                invite,
            } => Self::UserEnrolled(wire::UserEnrolled {
                user: user.to_string(),
                identity_key: signed::key_bytes(identity_key),
                invite_hash: hash_bytes(invite.0),
            }),
            Change::DeviceAdded { signed, .. } => Self::DeviceAdded(wire::DeviceAdded {
                certificate: Some(signed.clone()),
            }),
            Change::DeviceRevoked { device } => Self::DeviceRevoked(wire::DeviceRevoked {
                device: device.to_bytes(),
            }),
            Change::RoomCreated {
                room,
                project,
                shard,
                join_rule,
            } => Self::RoomCreated(wire::DirectoryRoomCreated {
                room: room.to_bytes(),
                project: project.to_string(),
                shard: shard.0.into(),
                join_rule: (*join_rule).into(),
            }),
            Change::RoleGranted {
                holder,
                scope,
                role,
            } => {
                let (user, group) = user_and_group(holder);
                Self::RoleGranted(wire::RoleGranted {
                    user,
                    scope: Some(scope.into()),
                    role: wire::Role::from(*role).into(),
                    group,
                })
            }
            Change::RoleRevoked { holder, scope } => {
                let (user, group) = user_and_group(holder);
                Self::RoleRevoked(wire::RoleRevoked {
                    user,
                    scope: Some(scope.into()),
                    group,
                })
            }
            Change::TitleSet { of, title } => Self::TitleSet(wire::TitleSet {
                of: Some(of.into()),
                title: or_empty(title.as_ref()),
            }),
            Change::ProjectStatusSet { project, status } => {
                Self::ProjectStatusSet(wire::ProjectStatusSet {
                    project: project.to_string(),
                    status: wire::Status::from(*status).into(),
                })
            }
            Change::RoomStatusSet { room, status } => Self::RoomStatusSet(wire::RoomStatusSet {
                room: room.to_bytes(),
                status: wire::Status::from(*status).into(),
            }),
            Change::RoomMoved { room, project } => Self::RoomMoved(wire::RoomMoved {
                room: room.to_bytes(),
                project: project.to_string(),
            }),
            Change::UserAdded {
                user,
                title,
                external_id,
            } => Self::UserAdded(wire::UserAdded {
                user: user.to_string(),
                title: or_empty(title.as_ref()),
                external_id: or_empty(external_id.as_ref()),
            }),
            Change::UserRevoked { user } => Self::UserRevoked(wire::UserRevoked {
                user: user.to_string(),
            }),
            Change::GroupCreated {
                group,
                title,
                external_id,
            } => Self::GroupCreated(wire::GroupCreated {
                group: group.to_string(),
                title: or_empty(title.as_ref()),
                external_id: or_empty(external_id.as_ref()),
            }),
            Change::GroupDeleted { group } => Self::GroupDeleted(wire::GroupDeleted {
                group: group.to_string(),
            }),
            Change::GroupMemberAdded { group, user } => {
                Self::GroupMemberAdded(wire::GroupMemberAdded {
                    group: group.to_string(),
                    user: user.to_string(),
                })
            }
            Change::GroupMemberRemoved { group, user } => {
                Self::GroupMemberRemoved(wire::GroupMemberRemoved {
                    group: group.to_string(),
                    user: user.to_string(),
                })
            }
            Change::GuestUntilSet { user, until_ms } => Self::GuestUntilSet(wire::GuestUntilSet {
                user: user.to_string(),
                until_ms: until_ms.unwrap_or_default(),
            }),
            Change::PolicySet { scope, policy } => Self::PolicySet(wire::PolicySet {
                scope: Some(scope.into()),
                policy: policy.as_ref().map(|policy| policy.to_wire()),
            }),
            Change::IntroductionGiven { user, by } => {
                Self::IntroductionGiven(wire::IntroductionGiven {
                    user: user.to_string(),
                    by: by.to_string(),
                })
            }
            Change::IntroductionWithdrawn { user, by } => {
                Self::IntroductionWithdrawn(wire::IntroductionWithdrawn {
                    user: user.to_string(),
                    by: by.to_string(),
                })
            }
            Change::FactorEnrolled { user, factor, id } => {
                Self::FactorEnrolled(wire::FactorEnrolled {
                    user: user.to_string(),
                    factor: wire::Factor::from(*factor).into(),
                    id: id.to_bytes(),
                })
            }
            Change::FactorRemoved { user, id } => Self::FactorRemoved(wire::FactorRemoved {
                user: user.to_string(),
                id: id.to_bytes(),
            }),
            Change::Intervened { what, reason } => {
                Self::OperatorIntervened(wire::OperatorIntervened {
                    what: Some(match what {
                        Intervention::FactorsReset(user) => What::FactorsOf(user.to_string()),
                        Intervention::PolicyLifted(scope) => What::PolicyOf(scope.into()),
                    }),
                    reason: reason.to_string(),
                })
            }
        }
    }
}

impl TryFrom<wire::DirectoryCommand> for Command {
    type Error = Malformed;

    fn try_from(command: wire::DirectoryCommand) -> Result<Self, Malformed> {
        // What is asked for reads as the event that it would become.
        let body = match command.ask.ok_or(Malformed::Part("kind"))? {
            Ask::CreateProject(ask) => Body::ProjectCreated(ask),
            Ask::SetTitle(ask) => Body::TitleSet(ask),
            Ask::SetProjectStatus(ask) => Body::ProjectStatusSet(ask),
            Ask::SetRoomStatus(ask) => Body::RoomStatusSet(ask),
            Ask::MoveRoom(ask) => Body::RoomMoved(ask),
            Ask::AddUser(ask) => Body::UserAdded(ask),
            Ask::RevokeUser(ask) => Body::UserRevoked(ask),
            Ask::CreateGroup(ask) => Body::GroupCreated(ask),
            Ask::DeleteGroup(ask) => Body::GroupDeleted(ask),
            Ask::AddGroupMember(ask) => Body::GroupMemberAdded(ask),
            Ask::RemoveGroupMember(ask) => Body::GroupMemberRemoved(ask),
            Ask::GrantRole(ask) => Body::RoleGranted(ask),
            Ask::RevokeRole(ask) => Body::RoleRevoked(ask),
            Ask::SetGuestUntil(ask) => Body::GuestUntilSet(ask),
            Ask::SetPolicy(ask) => Body::PolicySet(ask),
            Ask::Introduce(ask) => Body::IntroductionGiven(ask),
            Ask::WithdrawIntroduction(ask) => Body::IntroductionWithdrawn(ask),
            Ask::IssueInvite(ask) => Body::InviteIssued(ask),
            Ask::RevokeDevice(ask) => Body::DeviceRevoked(ask),
        };
        Command::for_change(body.try_into()?).ok_or(Malformed::Part("kind"))
    }
}

fn holder(user: &str, group: &str) -> Result<Holder, Malformed> {
    match (user, group) {
        (user, "") => Ok(Holder::User(user.parse::<UserName>()?)),
        ("", group) => Ok(Holder::Group(group.parse::<GroupName>()?)),
        _ => Err(Malformed::Part("user or group (it names both)")),
    }
}

fn user_and_group(holder: &Holder) -> (String, String) {
    match holder {
        Holder::User(user) => (user.to_string(), String::new()),
        Holder::Group(group) => (String::new(), group.to_string()),
    }
}

/// What a text says, where an empty one says nothing.
pub(super) fn unless_empty<T: std::str::FromStr>(text: &str) -> Result<Option<T>, T::Err> {
    (!text.is_empty()).then(|| text.parse()).transpose()
}

fn or_empty<T: ToString>(part: Option<&T>) -> String {
    part.map(T::to_string).unwrap_or_default()
}

/// 0 is for somebody who is no guest.
fn guest_until(until_ms: i64) -> Result<Option<i64>, Malformed> {
    match until_ms {
        ..0 => Err(Malformed::Part("time a guest stays until")),
        0 => Ok(None),
        _ => Ok(Some(until_ms)),
    }
}

fn invite_hash(bytes: &Bytes) -> Result<InviteHash, Malformed> {
    let hash = bytes.as_ref().try_into();
    hash.map(InviteHash)
        .map_err(|_| Malformed::Part("invite hash"))
}

fn hash_bytes(hash: [u8; 32]) -> Bytes {
    Bytes::copy_from_slice(&hash)
}
