//! What of the policy reaches nats-server: which rooms a device's JWT grants,
//! for how long, and which keys are void.
//!
//! Between two JWTs nats-server asks nobody. So a JWT ends before anything it
//! grants does, and what is taken away earlier is taken by voiding keys.

use std::collections::BTreeMap;
use std::time::Duration;

use sotto_proto::signed::DeviceCertificate;
use sotto_proto::{DeviceId, RoomAddress, limits};

use super::Asking;
use super::demand::ActionKind;
use super::denied::Denied;
use super::factor::Proven;
use super::judge;
use super::question::World;
use crate::directory::{Rule, Scope, State, User};

/// A JWT issued this long after a device was revoked is void, too: another
/// gateway may have heard of it late, or have another clock.
const REVOCATION_MARGIN: Duration = Duration::from_secs(300);

/// How long a JWT may hold, the longest first. What would end before the
/// shortest is not granted at all.
const LIFETIMES: [Duration; 4] = [
    limits::JWT,
    Duration::from_secs(30 * 60),
    Duration::from_secs(10 * 60),
    SHORTEST,
];
const SHORTEST: Duration = Duration::from_secs(2 * 60);

/// Keys voided one by one at most; when there are more, every key is.
const KEYS: usize = 1_000;

/// What NATS calls every key.
const EVERY_KEY: &str = "*";

/// Proof of what a device may reach on NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "it is there to be made into a JWT"]
pub struct NatsAccess {
    certificate: DeviceCertificate,
    rooms: Vec<RoomAccess>,
    withheld: Vec<(RoomAddress, Denied)>,
    expires_ms: i64,
}

/// A room that a device may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomAccess {
    /// Where it is.
    pub address: RoomAddress,
    /// Whether the device may post there, too.
    pub post: bool,
    /// Whether it could not read with nothing proven.
    pub gated: bool,
}

impl NatsAccess {
    /// The device.
    pub fn certificate(&self) -> &DeviceCertificate {
        &self.certificate
    }

    /// The rooms that it may read, by id.
    pub fn rooms(&self) -> &[RoomAccess] {
        &self.rooms
    }

    /// The rooms in which its user has a role and may not read, or not post
    /// although factors would help, each with why.
    pub fn withheld(&self) -> &[(RoomAddress, Denied)] {
        &self.withheld
    }

    /// Until when all of it is permitted, at most the lifetime of a JWT; in ms
    /// since 1970.
    pub fn expires_ms(&self) -> i64 {
        self.expires_ms
    }
}

/// What a device may reach on NATS, with these factors proven.
///
/// # Errors
/// When the device is unknown or revoked, or its certificate has run out.
pub fn nats_access(
    state: &State,
    device: DeviceId,
    proven: &Proven,
    now_ms: i64,
) -> Result<NatsAccess, Rule> {
    let found = state.device(device).ok_or(Rule::UnknownDevice)?;
    let certificate = found.certificate.clone();
    if now_ms > certificate.not_after_ms {
        return Err(Rule::Certificate("not valid any more"));
    }
    let asking = Asking {
        user: &certificate.user,
        proven,
        now_ms,
    };
    let mut rooms = Vec::new();
    let mut withheld = Vec::new();
    let mut lifetime = limits::JWT;
    for room in state.rooms_of(asking.user) {
        let address = &room.address;
        match Reach::of(state, asking, address) {
            Ok(reach) => {
                lifetime = lifetime.min(reach.lifetime);
                rooms.push(RoomAccess {
                    address: address.clone(),
                    post: reach.no_post.is_none(),
                    gated: reach.gated,
                });
                let helped = reach.no_post.filter(|denied| !denied.missing().is_empty());
                withheld.extend(helped.map(|denied| (address.clone(), denied)));
            }
            Err(denied) => withheld.push((address.clone(), denied)),
        }
    }
    let user = state.user(asking.user);
    let guest_until_ms = user.and_then(|user| user.guest_until_ms);
    let expires_ms = later(now_ms, lifetime).min(guest_until_ms.unwrap_or(i64::MAX));
    Ok(NatsAccess {
        rooms,
        withheld,
        expires_ms,
        certificate,
    })
}

/// How far a device's user gets in one room.
struct Reach {
    gated: bool,
    no_post: Option<Denied>,
    lifetime: Duration,
}

impl Reach {
    fn of(state: &State, asking: Asking<'_>, address: &RoomAddress) -> Result<Self, Denied> {
        let room = Scope::Room(address.room);
        let facts = judge::facts(state, asking, ActionKind::Read, &room)?;
        let now = World::from(asking);
        let at = |lifetime| World {
            now_ms: later(asking.now_ms, lifetime),
            ..now
        };
        let may = |action, world| judge::judge_facts(&facts, world, action);
        let read = |world| may(ActionKind::Read, world);
        let post = |world| may(ActionKind::Post, world);
        let denied = |action| {
            let room = room.clone();
            move |why| Denied::new(asking.user.to_string(), action, room, why)
        };

        // Only what levels demand changes with the time and with what is proven.
        if !facts.has_policies() {
            read(now).map_err(denied(ActionKind::Read))?;
            return Ok(Self {
                gated: false,
                no_post: post(now).map_err(denied(ActionKind::Post)).err(),
                lifetime: limits::JWT,
            });
        }
        let both_read = read(now).and_then(|()| read(at(SHORTEST)));
        both_read.map_err(denied(ActionKind::Read))?;
        let both_post = post(now).and_then(|()| post(at(SHORTEST)));
        let no_post = both_post.map_err(denied(ActionKind::Post)).err();
        let holds = |lifetime: &Duration| {
            let then = at(*lifetime);
            read(then).is_ok() && (no_post.is_some() || post(then).is_ok())
        };
        let lifetime = LIFETIMES.into_iter().find(holds);
        let nothing_proven = World {
            proven: &Proven::none(),
            ..now
        };
        Ok(Self {
            gated: read(nothing_proven).is_err(),
            lifetime: lifetime.unwrap_or(SHORTEST),
            no_post,
        })
    }
}

/// The NATS keys that are void, each with the time until which the JWTs issued
/// to it are, in seconds since 1970: those of revoked devices, and those of
/// users from whom something was taken while JWTs may still grant it. `*` is
/// every key.
pub fn revoked_nats_keys(state: &State, now_ms: i64) -> BTreeMap<String, i64> {
    let revoked = state.revoked_devices().map(|device| Voided {
        nats_key: device.nats_key.clone(),
        at_ms: device.at_ms,
        margin: REVOCATION_MARGIN,
    });
    let lives = |voided: &Voided| later(voided.until_ms(), limits::JWT) >= now_ms;
    let mut voided: Vec<Voided> = revoked.filter(lives).collect();
    let lifetime_ms = later(0, limits::JWT);
    for (user, at_ms) in state.restricted_since(now_ms.saturating_sub(lifetime_ms)) {
        let devices = state.user(&user).into_iter().flat_map(User::devices);
        voided.extend(devices.map(|device| Voided {
            nats_key: device.certificate.nats_key.clone(),
            at_ms,
            margin: Duration::ZERO,
        }));
    }
    void(voided)
}

/// A key of which something was taken.
struct Voided {
    nats_key: String,
    at_ms: i64,
    /// JWTs issued so long after that are void, too.
    margin: Duration,
}

impl Voided {
    fn until_ms(&self) -> i64 {
        later(self.at_ms, self.margin)
    }
}

/// Every key as such has no margin: whoever is still there must be able to
/// connect again at once.
fn void(voided: Vec<Voided>) -> BTreeMap<String, i64> {
    let until_s = |until_ms: i64| until_ms.div_euclid(1_000);
    if voided.len() > KEYS {
        let latest_ms = voided.iter().map(|voided| voided.at_ms).max();
        let every_key = latest_ms.map(|at_ms| (EVERY_KEY.to_owned(), until_s(at_ms)));
        return every_key.into_iter().collect();
    }
    let keys = voided.into_iter().map(|voided| {
        let until_ms = voided.until_ms();
        (voided.nats_key, until_s(until_ms))
    });
    keys.collect()
}

fn later(at_ms: i64, by: Duration) -> i64 {
    let by_ms = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
    at_ms.saturating_add(by_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_every_key_is_void_those_who_stay_connect_again_at_once() {
        let voided = |count: usize| {
            let voided = (0..count).map(|n| Voided {
                nats_key: n.to_string(),
                at_ms: 7_000 + n as i64,
                margin: REVOCATION_MARGIN,
            });
            void(voided.collect())
        };
        let each = voided(KEYS);
        assert_eq!((each.len(), each["5"]), (KEYS, 307));
        assert_eq!(voided(KEYS + 1), [(EVERY_KEY.to_owned(), 8)].into());
    }
}
