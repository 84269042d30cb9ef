//! Who may do what. For now roles decide; what a session has proven comes later.
//!
//! [`check`] answers with a [`Permit`], which only this module can make: code
//! that acts for a user takes one, so that forgetting to ask does not compile.
//! A permit is true of the state it was asked of, so ask again for each act.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::JoinRule;
use sotto_proto::{DeviceId, ProjectName, RoomAddress, RoomId, UserName};

use crate::directory::{Actor, Role, Rule, Scope, State};

mod demand;
mod factor;
mod level;

pub use demand::{ActionKind, BadDemand, Demand, INTRODUCTIONS_WINDOW};
pub use factor::{Factor, Proven, UnknownFactor};
pub use level::{BadPolicy, LevelPolicy};

/// Who asks, with what proven, and when.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Who.
    pub user: &'a UserName,
    /// What the session has proven.
    pub proven: &'a Proven,
    /// By the asked program's clock, in ms since 1970.
    pub now_ms: i64,
}

/// Proof that `A` was allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a permit is there to be handed to what acts"]
pub struct Permit<A: Action> {
    user: UserName,
    object: A::Object,
}

impl<A: Action> Permit<A> {
    /// Who may.
    pub fn user(&self) -> &UserName {
        &self.user
    }

    /// On what.
    pub fn object(&self) -> &A::Object {
        &self.object
    }
}

/// Who lacks what, where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{actor} may not {action} in {place}: {needs}")]
pub struct Denied {
    actor: String,
    action: &'static str,
    place: String,
    needs: &'static str,
}

/// Something a user may want to do.
pub trait Action: Copy + fmt::Debug + sealed::Sealed {
    /// What it is done to.
    type Object: Clone + fmt::Debug + PartialEq + Eq;
    /// For messages: "may not …".
    const NAME: &'static str;
    /// For messages: what a user needs.
    const NEEDS: &'static str;

    /// The place whose roles count.
    fn scope(object: &Self::Object) -> Scope;
    /// Whether it is allowed there.
    fn allowed(state: &State, user: &UserName, object: &Self::Object) -> bool;
}

/// Whether a user may do something to an object.
///
/// # Errors
/// [`Denied`]; unknown users and objects are denied, not told apart.
pub fn check<A: Action>(
    state: &State,
    user: &UserName,
    _action: A,
    object: &A::Object,
) -> Result<Permit<A>, Denied> {
    if A::allowed(state, user, object) {
        Ok(Permit {
            user: user.clone(),
            object: object.clone(),
        })
    } else {
        Err(denied::<A>(user.to_string(), object))
    }
}

/// As [`check`], where the gateway itself may too.
pub(crate) fn check_actor<A: Action>(
    state: &State,
    actor: &Actor,
    action: A,
    object: &A::Object,
) -> Result<(), Denied> {
    match actor {
        Actor::Gateway => Ok(()),
        Actor::User(user) => check(state, user, action, object).map(drop),
    }
}

/// As [`check`], where only a user makes sense.
pub(crate) fn check_user<A: Action>(
    state: &State,
    actor: &Actor,
    action: A,
    object: &A::Object,
) -> Result<UserName, Denied> {
    match actor {
        Actor::Gateway => Err(denied::<A>(actor.to_string(), object)),
        Actor::User(user) => check(state, user, action, object).map(|permit| permit.user),
    }
}

/// What is the gateway's alone.
pub(crate) fn check_gateway(actor: &Actor, action: &'static str) -> Result<(), Denied> {
    match actor {
        Actor::Gateway => Ok(()),
        Actor::User(user) => Err(Denied {
            actor: user.to_string(),
            action,
            place: Scope::Org.to_string(),
            needs: "only whoever runs the server can",
        }),
    }
}

fn denied<A: Action>(actor: String, object: &A::Object) -> Denied {
    Denied {
        actor,
        action: A::NAME,
        place: A::scope(object).to_string(),
        needs: A::NEEDS,
    }
}

mod sealed {
    /// Actions are defined here only.
    pub trait Sealed {}
}

macro_rules! action {
    ($(#[$doc:meta])* $type:ident on $object:ty, $name:literal, $needs:literal,
     $scope:expr, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $type;

        impl sealed::Sealed for $type {}

        impl Action for $type {
            type Object = $object;
            const NAME: &'static str = $name;
            const NEEDS: &'static str = $needs;

            fn scope(object: &$object) -> Scope {
                let scope: fn(&$object) -> Scope = $scope;
                scope(object)
            }

            fn allowed(state: &State, user: &UserName, object: &$object) -> bool {
                let allowed: fn(&State, &UserName, &$object) -> bool = $allowed;
                allowed(state, user, object)
            }
        }
    };
}

action!(
    /// See the messages of a room.
    Read on RoomId,
    "read",
    "a role in the room is needed; ask one of its owners for an invitation",
    |room| Scope::Room(*room),
    takes_part
);
action!(
    /// Send messages to a room.
    Post on RoomId,
    "post",
    "a role in the room is needed; ask one of its owners for an invitation",
    |room| Scope::Room(*room),
    takes_part
);
action!(
    /// Become a member of an open room without being invited.
    Join on RoomId,
    "join",
    "the room must be open, and a role in its project is needed; ask one of its owners for an invitation",
    |room| Scope::Room(*room),
    |state, user, room| {
        takes_part(state, user, room)
            || state.room(*room).is_some_and(|found| {
                let project = Scope::Project(found.address.project.clone());
                found.join_rule == JoinRule::Open
                    && state.effective_role(user, &project).is_some()
            })
    }
);
action!(
    /// Give others the role `user`.
    Invite on Scope,
    "invite",
    "the role owner is needed there; ask an owner",
    Scope::clone,
    owns
);
action!(
    /// Give and take any role, revoke devices.
    Manage on Scope,
    "manage",
    "the role owner is needed there; ask an owner",
    Scope::clone,
    owns
);
action!(
    /// Let someone sign up with a role.
    CreateInvite on Scope,
    "create invites",
    "the role owner is needed there; ask an owner",
    Scope::clone,
    owns
);
action!(
    /// Make a room in a project.
    CreateRoom on ProjectName,
    "create rooms",
    "a role in the project is needed; ask an owner of it",
    |project| Scope::Project(project.clone()),
    |state, user, project| {
        state
            .effective_role(user, &Scope::Project(project.clone()))
            .is_some()
    }
);
action!(
    /// Make a project in the org.
    CreateProject on (),
    "create projects",
    "the role owner is needed there; ask an owner",
    |()| Scope::Org,
    |state, user, ()| owns(state, user, &Scope::Org)
);

/// Reading and posting need a role that was granted in the room itself: who
/// manages from above can give themselves one, and the log then shows it.
fn takes_part(state: &State, user: &UserName, room: &RoomId) -> bool {
    state.granted_role(user, &Scope::Room(*room)).is_some()
}

fn owns(state: &State, user: &UserName, scope: &Scope) -> bool {
    state.effective_role(user, scope) == Some(Role::Owner)
}

/// A JWT issued this long after a device was revoked is void, too: another
/// gateway may have heard of it late, or have another clock.
const REVOCATION_MARGIN: Duration = Duration::from_secs(300);

/// Proof of what a device may reach on NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it is there to be made into a JWT"]
pub struct NatsAccess {
    certificate: DeviceCertificate,
    rooms: Vec<RoomAddress>,
}

impl NatsAccess {
    /// The device.
    pub fn certificate(&self) -> &DeviceCertificate {
        &self.certificate
    }

    /// The rooms that its user may read and post to, by id.
    pub fn rooms(&self) -> &[RoomAddress] {
        &self.rooms
    }
}

/// What a device may reach on NATS at this time.
///
/// # Errors
/// When the device is unknown or revoked, or its certificate has run out.
pub fn nats_access(state: &State, device: DeviceId, now_ms: i64) -> Result<NatsAccess, Rule> {
    let found = state.device(device).ok_or(Rule::UnknownDevice)?;
    let certificate = found.certificate.clone();
    if now_ms > certificate.not_after_ms {
        return Err(Rule::Certificate("not valid any more"));
    }
    let user = &certificate.user;
    let reachable = |room: &RoomId| {
        check(state, user, Read, room).is_ok() && check(state, user, Post, room).is_ok()
    };
    let rooms = state.rooms_of(user).into_iter();
    let addresses = rooms.map(|room| room.address.clone());
    Ok(NatsAccess {
        rooms: addresses.filter(|room| reachable(&room.room)).collect(),
        certificate,
    })
}

/// The NATS keys of revoked devices, each with the time until which the JWTs
/// issued to it are void, in seconds since 1970.
pub fn revoked_nats_keys(state: &State) -> BTreeMap<String, i64> {
    let margin_s = i64::try_from(REVOCATION_MARGIN.as_secs()).unwrap_or(i64::MAX);
    let revoked = state.revoked_devices().map(|device| {
        let at_s = device.at_ms.div_euclid(1_000);
        (device.nats_key.clone(), at_s.saturating_add(margin_s))
    });
    revoked.collect()
}

#[cfg(test)]
mod tests;
