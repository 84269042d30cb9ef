//! What a snapshot holds: everything that does not follow from the rest of it.

use bytes::Bytes;
use sotto_proto::signed;
use sotto_proto::wire::{self, Signed};

use super::super::taken::Covered;
use super::super::{State, UserStatus};
use crate::directory::Actor;

/// One record.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11")]
    pub kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    /// Always the first.
    #[prost(message, tag = "1")]
    Org(OrgRecord),
    #[prost(message, tag = "2")]
    Project(ProjectRecord),
    #[prost(message, tag = "3")]
    Room(RoomRecord),
    /// Before the users in it.
    #[prost(message, tag = "4")]
    Group(GroupRecord),
    #[prost(message, tag = "5")]
    User(Box<UserRecord>),
    #[prost(message, tag = "6")]
    RevokedDevice(RevokedDeviceRecord),
    #[prost(message, tag = "7")]
    Invite(InviteRecord),
    #[prost(message, tag = "8")]
    Policy(PolicyRecord),
    #[prost(message, tag = "9")]
    Departure(DepartureRecord),
    #[prost(message, tag = "10")]
    Restriction(RestrictionRecord),
    #[prost(message, tag = "11")]
    Intervention(InterventionRecord),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InterventionRecord {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(int64, tag = "2")]
    pub at_ms: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct OrgRecord {
    #[prost(string, tag = "1")]
    pub org: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub gateway_key: Bytes,
    #[prost(string, tag = "3")]
    pub title: String,
    #[prost(uint64, tag = "4")]
    pub length: u64,
    /// Empty for a state that was not read from a log.
    #[prost(bytes = "bytes", tag = "5")]
    pub hash: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProjectRecord {
    #[prost(string, tag = "1")]
    pub project: String,
    #[prost(string, tag = "2")]
    pub title: String,
    #[prost(enumeration = "wire::Status", tag = "3")]
    pub status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RoomRecord {
    #[prost(message, optional, tag = "1")]
    pub address: Option<wire::RoomAddress>,
    #[prost(string, tag = "2")]
    pub project: String,
    #[prost(enumeration = "wire::JoinRule", tag = "3")]
    pub join_rule: i32,
    #[prost(enumeration = "wire::Status", tag = "4")]
    pub status: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct GroupRecord {
    #[prost(string, tag = "1")]
    pub group: String,
    #[prost(string, tag = "2")]
    pub title: String,
    #[prost(string, tag = "3")]
    pub external_id: String,
    #[prost(message, repeated, tag = "4")]
    pub roles: Vec<RoleRecord>,
    #[prost(bool, tag = "5")]
    pub deleted: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RoleRecord {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<wire::Scope>,
    #[prost(enumeration = "wire::Role", tag = "2")]
    pub role: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct UserRecord {
    #[prost(string, tag = "1")]
    pub user: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub identity_key: Bytes,
    #[prost(string, tag = "3")]
    pub title: String,
    /// 0 added, 1 active, 2 revoked.
    #[prost(uint32, tag = "4")]
    pub status: u32,
    #[prost(int64, optional, tag = "5")]
    pub guest_until_ms: Option<i64>,
    #[prost(string, tag = "6")]
    pub external_id: String,
    #[prost(string, repeated, tag = "7")]
    pub groups: Vec<String>,
    #[prost(message, repeated, tag = "8")]
    pub devices: Vec<Signed>,
    #[prost(message, repeated, tag = "9")]
    pub roles: Vec<RoleRecord>,
    #[prost(string, repeated, tag = "10")]
    pub introductions: Vec<String>,
    #[prost(message, repeated, tag = "11")]
    pub factors: Vec<FactorRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FactorRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    #[prost(enumeration = "wire::Factor", tag = "2")]
    pub factor: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RevokedDeviceRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub device: Bytes,
    #[prost(string, tag = "2")]
    pub user: String,
    #[prost(string, tag = "3")]
    pub nats_key: String,
    #[prost(int64, tag = "4")]
    pub at_ms: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InviteRecord {
    #[prost(message, optional, tag = "1")]
    pub issued: Option<wire::InviteIssued>,
    /// Empty: the gateway.
    #[prost(string, tag = "2")]
    pub issued_by: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct PolicyRecord {
    #[prost(message, optional, tag = "1")]
    pub set: Option<wire::PolicySet>,
    #[prost(uint64, tag = "2")]
    pub index: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DepartureRecord {
    #[prost(uint64, tag = "1")]
    pub index: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub room: Bytes,
    #[prost(string, tag = "3")]
    pub user: String,
    /// Empty: all of them.
    #[prost(bytes = "bytes", tag = "4")]
    pub device: Bytes,
    #[prost(int64, tag = "5")]
    pub at_ms: i64,
}

/// `users`, or one of the others.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RestrictionRecord {
    #[prost(int64, tag = "1")]
    pub at_ms: i64,
    #[prost(string, repeated, tag = "2")]
    pub users: Vec<String>,
    #[prost(message, optional, tag = "3")]
    pub scope: Option<wire::Scope>,
    #[prost(string, tag = "4")]
    pub introduced_by: String,
}

/// A state, record by record; `None` when it has no org.
pub(super) fn records(state: &State) -> Option<impl Iterator<Item = Record>> {
    let org = OrgRecord {
        org: state.org()?.to_string(),
        gateway_key: signed::key_bytes(state.gateway_key()?),
        title: text(state.org_title()),
        length: state.head.length,
        hash: state
            .head
            .hash
            .map(|hash| Bytes::copy_from_slice(&hash))
            .unwrap_or_default(),
    };
    let kinds = std::iter::once(Kind::Org(org))
        .chain(projects(state))
        .chain(rooms(state))
        .chain(groups(state))
        .chain(users(state))
        .chain(revoked_devices(state))
        .chain(invites(state))
        .chain(policies(state))
        .chain(departures(state))
        .chain(restrictions(state))
        .chain(interventions(state));
    Some(kinds.map(|kind| Record { kind: Some(kind) }))
}

fn projects(state: &State) -> impl Iterator<Item = Kind> {
    state.projects.iter().map(|(name, project)| {
        Kind::Project(ProjectRecord {
            project: name.to_string(),
            title: text(project.title.as_ref()),
            status: wire::Status::from(project.status).into(),
        })
    })
}

fn rooms(state: &State) -> impl Iterator<Item = Kind> {
    state.rooms.values().map(|room| {
        Kind::Room(RoomRecord {
            address: Some((&room.address).into()),
            project: room.project.to_string(),
            join_rule: room.join_rule.into(),
            status: wire::Status::from(room.status).into(),
        })
    })
}

fn groups(state: &State) -> impl Iterator<Item = Kind> {
    let deleted = state.deleted_groups.iter().map(|name| {
        Kind::Group(GroupRecord {
            group: name.to_string(),
            deleted: true,
            ..GroupRecord::default()
        })
    });
    let living = state.groups.iter().map(|(name, group)| {
        Kind::Group(GroupRecord {
            group: name.to_string(),
            title: text(group.title.as_ref()),
            external_id: text(group.external_id.as_ref()),
            roles: roles(group.roles()),
            deleted: false,
        })
    });
    deleted.chain(living)
}

fn users(state: &State) -> impl Iterator<Item = Kind> {
    state.users.iter().map(|(name, user)| {
        let identity_key = user.identity_key.as_ref();
        let factors = user.factors().map(|(id, factor)| FactorRecord {
            id: id.to_bytes(),
            factor: wire::Factor::from(factor).into(),
        });
        Kind::User(Box::new(UserRecord {
            user: name.to_string(),
            identity_key: identity_key.map(signed::key_bytes).unwrap_or_default(),
            title: text(user.title.as_ref()),
            status: match user.status {
                UserStatus::Added => 0,
                UserStatus::Active => 1,
                UserStatus::Revoked => 2,
            },
            guest_until_ms: user.guest_until_ms,
            external_id: text(user.external_id.as_ref()),
            groups: user.groups.iter().map(ToString::to_string).collect(),
            devices: user.devices().map(|device| device.signed.clone()).collect(),
            roles: roles(user.roles()),
            introductions: user.introductions.iter().map(ToString::to_string).collect(),
            factors: factors.collect(),
        }))
    })
}

fn revoked_devices(state: &State) -> impl Iterator<Item = Kind> {
    state.revoked.iter().map(|(id, device)| {
        Kind::RevokedDevice(RevokedDeviceRecord {
            device: id.to_bytes(),
            user: text(state.device_users.get(id)),
            nats_key: device.nats_key.clone(),
            at_ms: device.at_ms,
        })
    })
}

fn invites(state: &State) -> impl Iterator<Item = Kind> {
    state.invites.iter().map(|(hash, invite)| {
        Kind::Invite(InviteRecord {
            issued: Some(wire::InviteIssued {
                invite_hash: Bytes::copy_from_slice(&hash.0),
                expires_ms: invite.expires_ms,
                scope: Some((&invite.scope).into()),
                role: wire::Role::from(invite.role).into(),
                for_user: text(invite.for_user.as_ref()),
                guest_until_ms: invite.guest_until_ms.unwrap_or_default(),
            }),
            issued_by: match &invite.issued_by {
                Actor::Gateway => String::new(),
                Actor::User(user) => user.to_string(),
            },
        })
    })
}

fn policies(state: &State) -> impl Iterator<Item = Kind> {
    state.policies.iter().map(|(scope, setting)| {
        Kind::Policy(PolicyRecord {
            set: Some(wire::PolicySet {
                scope: Some(scope.into()),
                policy: setting.policy.as_ref().map(|policy| policy.to_wire()),
            }),
            index: setting.index,
        })
    })
}

fn departures(state: &State) -> impl Iterator<Item = Kind> {
    state.departures.iter().map(|departure| {
        Kind::Departure(DepartureRecord {
            index: departure.index,
            room: departure.room.to_bytes(),
            user: departure.user.to_string(),
            device: departure.device.map(|id| id.to_bytes()).unwrap_or_default(),
            at_ms: departure.at_ms,
        })
    })
}

fn restrictions(state: &State) -> impl Iterator<Item = Kind> {
    state.restrictions.iter().map(|restriction| {
        let mut record = RestrictionRecord {
            at_ms: restriction.at_ms,
            ..RestrictionRecord::default()
        };
        match &restriction.from {
            Covered::Users(users) => record.users = users.iter().map(ToString::to_string).collect(),
            Covered::Scope(scope) => record.scope = Some(scope.into()),
            Covered::IntroducedBy(user) => record.introduced_by = user.to_string(),
        }
        Kind::Restriction(record)
    })
}

fn interventions(state: &State) -> impl Iterator<Item = Kind> {
    state.interventions.iter().map(|intervened| {
        Kind::Intervention(InterventionRecord {
            index: intervened.index,
            at_ms: intervened.at_ms,
        })
    })
}

fn roles<'a>(
    roles: impl Iterator<Item = (&'a crate::directory::Scope, crate::directory::Role)>,
) -> Vec<RoleRecord> {
    let roles = roles.map(|(scope, role)| RoleRecord {
        scope: Some(scope.into()),
        role: wire::Role::from(role).into(),
    });
    roles.collect()
}

/// Nothing is an empty text.
fn text<T: ToString>(part: Option<&T>) -> String {
    part.map(T::to_string).unwrap_or_default()
}
