//! What was taken from whom, and when: members of rooms are told to remove
//! devices, and JWTs that say too much are void.

use std::collections::BTreeMap;
use std::sync::Arc;

use ed25519_dalek::VerifyingKey;
use imbl::{OrdSet, Vector};
use sotto_proto::{DeviceId, RoomAddress, RoomId, UserName, limits};

use super::super::event::Event;
use super::super::terms::Scope;
use super::{State, User};

/// How long a departure is remembered, in ms: as long as an order to remove
/// somebody is believed.
const DEPARTURES_KEPT_MS: i64 = 31 * 24 * 3_600 * 1_000;

/// Somebody who may not be in a room any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// Of the event that did it.
    pub index: u64,
    /// From which room.
    pub room: RoomId,
    /// Where it is on NATS.
    pub address: RoomAddress,
    /// Who.
    pub user: UserName,
    /// Their identity key.
    pub identity_key: VerifyingKey,
    /// Which device; `None`: all of the user's.
    pub device: Option<DeviceId>,
    /// When, in ms since 1970.
    pub at_ms: i64,
}

/// Something that was taken from what users may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Restriction {
    pub(super) at_ms: i64,
    pub(super) from: Covered,
}

/// Whom a restriction concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Covered {
    /// These.
    Users(OrdSet<UserName>),
    /// Whoever has something there.
    Scope(Scope),
    /// Whoever this user vouched for.
    IntroducedBy(UserName),
}

impl State {
    /// Who may not be in which room any more because of the events from
    /// `index` on, oldest first. Kept for 31 days.
    pub fn departures_since(&self, index: u64) -> impl Iterator<Item = &Departure> {
        let newest_first = self.departures.iter().rev();
        let newer = newest_first.take_while(|departure| departure.index >= index);
        let older = self.departures.len() - newer.count();
        self.departures.iter().skip(older).map(Arc::as_ref)
    }

    /// When something was taken last from what a user's devices may reach, in
    /// ms since 1970; forgotten when JWTs from before have run out.
    pub fn restricted_at_ms(&self, user: &UserName) -> Option<i64> {
        let found = self.user(user)?;
        let restrictions = self.restrictions.iter();
        let theirs = restrictions.filter(|restriction| self.covers(restriction, user, found));
        theirs.map(|restriction| restriction.at_ms).max()
    }

    /// The users from whom something was taken at `since_ms` or later, each
    /// with the last time. Costs little when that is nobody.
    pub fn restricted_since(&self, since_ms: i64) -> BTreeMap<UserName, i64> {
        let restrictions = self.restrictions.iter();
        let recent = restrictions.filter(|restriction| restriction.at_ms >= since_ms);
        let mut found: BTreeMap<UserName, i64> = BTreeMap::new();
        let mut note = |user: &UserName, at_ms: i64| {
            let known = found.entry(user.clone()).or_insert(at_ms);
            *known = at_ms.max(*known);
        };
        let mut wide = Vec::new();
        for restriction in recent {
            match &restriction.from {
                Covered::Users(users) => {
                    users.iter().for_each(|user| note(user, restriction.at_ms))
                }
                Covered::Scope(_) | Covered::IntroducedBy(_) => wide.push(restriction),
            }
        }
        if !wide.is_empty() {
            for (name, user) in self.users() {
                let theirs = wide.iter().filter(|wide| self.covers(wide, name, user));
                theirs.for_each(|wide| note(name, wide.at_ms));
            }
        }
        found
    }

    fn covers(&self, restriction: &Restriction, name: &UserName, user: &User) -> bool {
        match &restriction.from {
            Covered::Users(users) => users.contains(name),
            Covered::Scope(scope) => self.has_something_in(user, scope),
            Covered::IntroducedBy(by) => user.introductions.contains(by),
        }
    }

    /// Whether a user was granted a role in a place, or in something in it,
    /// even if that place is gone.
    fn has_something_in(&self, user: &User, place: &Scope) -> bool {
        let is_in = |scope: &Scope| match (place, scope) {
            (Scope::Org, _) => true,
            (Scope::Project(project), Scope::Room(room)) => {
                let room = self.rooms.get(room);
                room.is_some_and(|room| room.project == *project)
            }
            _ => scope == place,
        };
        let roles = self.groups_of(user).map(|group| &group.roles);
        let mut scopes = roles.chain([&user.roles]).flat_map(BTreeMap::keys);
        scopes.any(is_in)
    }

    /// Notes that something was taken.
    pub(super) fn restrict(&mut self, from: Covered, at_ms: i64) {
        let kept_ms = i64::try_from(limits::JWT.as_millis()).unwrap_or(i64::MAX);
        // Twice as long as a JWT lasts, for clocks that differ.
        let oldest_ms = at_ms.saturating_sub(kept_ms.saturating_mul(2));
        forget(&mut self.restrictions, |restriction| {
            restriction.at_ms < oldest_ms
        });
        self.restrictions
            .push_back(Arc::new(Restriction { at_ms, from }));
    }

    /// Notes that a user may not be in a room any more, if that is so.
    pub(super) fn depart_unless_granted(&mut self, user: &UserName, room: RoomId, event: &Event) {
        if self.granted_role(user, &Scope::Room(room)).is_none() {
            self.depart(user, room, None, event);
        }
    }

    /// Notes that a user, or one of their devices, may not be in a room any more.
    pub(super) fn depart(
        &mut self,
        user: &UserName,
        room: RoomId,
        device: Option<DeviceId>,
        event: &Event,
    ) {
        let identity_key = self.users.get(user).and_then(|user| user.identity_key);
        let (Some(identity_key), Some(found)) = (identity_key, self.room(room)) else {
            return;
        };
        let departure = Departure {
            index: event.index,
            room,
            address: found.address.clone(),
            user: user.clone(),
            identity_key,
            device,
            at_ms: event.at_ms,
        };
        let oldest_ms = event.at_ms.saturating_sub(DEPARTURES_KEPT_MS);
        forget(&mut self.departures, |departure| {
            departure.at_ms < oldest_ms
        });
        self.departures.push_back(Arc::new(departure));
    }
}

fn forget<T: Clone>(entries: &mut Vector<Arc<T>>, is_old: impl Fn(&T) -> bool) {
    while entries.front().is_some_and(|oldest| is_old(oldest)) {
        entries.pop_front();
    }
}
