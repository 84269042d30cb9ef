//! What an event of the directory says, parsed from and written to the wire.

use std::fmt;

use bytes::Bytes;
use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};
use sotto_proto::signed::{self, DeviceCertificate, SignedError};
use sotto_proto::wire::{self, Signed, directory_event::Body};
use sotto_proto::{
    DeviceId, IdError, InviteToken, NameError, OrgName, ProjectName, RoomId, Shard, UserName,
};

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

/// Who wants something of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// The gateway itself: whoever runs the server.
    Gateway,
    /// A user, proven by a session.
    User(UserName),
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
        join_rule: wire::JoinRule,
    },
    /// A user has this role there now, instead of any other.
    RoleGranted {
        /// Who.
        user: UserName,
        /// Where.
        scope: Scope,
        /// Which.
        role: Role,
    },
    /// A user has no role of their own there any more.
    RoleRevoked {
        /// Who.
        user: UserName,
        /// Where.
        scope: Scope,
    },
}

/// Where a role holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The whole org.
    Org,
    /// One project.
    Project(ProjectName),
    /// One room.
    Room(RoomId),
}

/// What a user is, somewhere. The greater one includes the smaller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Takes part.
    User,
    /// Takes part and manages.
    Owner,
}

/// SHA-256 of an invite: the log must not give invites away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InviteHash(pub [u8; 32]);

impl From<&InviteToken> for InviteHash {
    fn from(invite: &InviteToken) -> Self {
        Self(Sha256::digest(invite.as_bytes()).into())
    }
}

/// An event that does not read, or is of a kind that this version does not
/// know. Believing the rest without it would be guessing, so nothing is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its {0} is missing, malformed or newer than this version")]
pub struct Malformed(pub(super) &'static str);

impl TryFrom<wire::DirectoryEvent> for Event {
    type Error = Malformed;

    fn try_from(event: wire::DirectoryEvent) -> Result<Self, Malformed> {
        Ok(Self {
            index: event.index,
            previous: match event.previous_hash.as_ref() {
                [] => None,
                hash => Some(hash.try_into().map_err(|_| Malformed("previous hash"))?),
            },
            at_ms: event.at_ms,
            actor: match event.actor.as_str() {
                "" => Actor::Gateway,
                user => Actor::User(user.parse()?),
            },
            change: event.body.ok_or(Malformed("kind"))?.try_into()?,
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
            },
            Body::UserEnrolled(body) => Self::UserEnrolled {
                user: body.user.parse()?,
                identity_key: signed::public_key(&body.identity_key)?,
                invite: invite_hash(&body.invite_hash)?,
            },
            Body::DeviceAdded(body) => {
                let signed = body.certificate.ok_or(Malformed("certificate"))?;
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
                shard: Shard(body.shard.try_into().map_err(|_| Malformed("shard"))?),
                join_rule: wire::JoinRule::try_from(body.join_rule)
                    .map_err(|_| Malformed("join rule"))?,
                project: body.project.parse()?,
            },
            Body::RoleGranted(body) => Self::RoleGranted {
                role: body.role().try_into()?,
                user: body.user.parse()?,
                scope: body.scope.try_into()?,
            },
            Body::RoleRevoked(body) => Self::RoleRevoked {
                user: body.user.parse()?,
                scope: body.scope.try_into()?,
            },
            _ => return Err(Malformed("kind")),
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
            } => Self::InviteIssued(wire::InviteIssued {
                invite_hash: hash_bytes(invite.0),
                expires_ms: *expires_ms,
                scope: Some(scope.into()),
                role: wire::Role::from(*role).into(),
                for_user: String::new(),
                guest_until_ms: 0,
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
            Change::RoleGranted { user, scope, role } => Self::RoleGranted(wire::RoleGranted {
                user: user.to_string(),
                scope: Some(scope.into()),
                role: wire::Role::from(*role).into(),
                group: String::new(),
            }),
            Change::RoleRevoked { user, scope } => Self::RoleRevoked(wire::RoleRevoked {
                user: user.to_string(),
                scope: Some(scope.into()),
                group: String::new(),
            }),
        }
    }
}

impl TryFrom<Option<wire::Scope>> for Scope {
    type Error = Malformed;

    fn try_from(scope: Option<wire::Scope>) -> Result<Self, Malformed> {
        use wire::scope::Place;
        match scope.and_then(|scope| scope.place) {
            Some(Place::Org(true)) => Ok(Self::Org),
            Some(Place::Project(project)) => Ok(Self::Project(project.parse()?)),
            Some(Place::Room(room)) => Ok(Self::Room(RoomId::try_from(&room)?)),
            Some(Place::Org(false)) | None => Err(Malformed("scope")),
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

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Org => f.write_str("the organisation"),
            Self::Project(project) => write!(f, "project {project}"),
            Self::Room(room) => write!(f, "room {room}"),
        }
    }
}

impl TryFrom<wire::Role> for Role {
    type Error = Malformed;

    fn try_from(role: wire::Role) -> Result<Self, Malformed> {
        match role {
            wire::Role::User => Ok(Self::User),
            wire::Role::Owner => Ok(Self::Owner),
            wire::Role::Unspecified => Err(Malformed("role")),
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

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "user",
            Self::Owner => "owner",
        })
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("the gateway"),
            Self::User(user) => user.fmt(f),
        }
    }
}

impl From<NameError> for Malformed {
    fn from(_: NameError) -> Self {
        Self("name")
    }
}

impl From<IdError> for Malformed {
    fn from(_: IdError) -> Self {
        Self("id")
    }
}

impl From<SignedError> for Malformed {
    fn from(_: SignedError) -> Self {
        Self("key or certificate")
    }
}

fn invite_hash(bytes: &Bytes) -> Result<InviteHash, Malformed> {
    let hash = bytes.as_ref().try_into();
    hash.map(InviteHash).map_err(|_| Malformed("invite hash"))
}

fn hash_bytes(hash: [u8; 32]) -> Bytes {
    Bytes::copy_from_slice(&hash)
}
