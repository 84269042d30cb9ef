//! Whom a beacon is told to: the rooms of its user, and not too often.

use std::collections::BTreeMap;
use std::time::Duration;

use sotto_jwt_accounts::directory::State;
use sotto_proto::{DeviceId, Subject};
use tokio::time::Instant;

/// A device is told to be there, or to leave, at most once in this time.
pub const INTERVAL: Duration = Duration::from_secs(30);
/// Rooms that are told of one device.
const ROOMS: usize = 64;

/// When each device was told of last.
#[derive(Debug, Default)]
pub struct Told {
    here: BTreeMap<DeviceId, Instant>,
    leaving: BTreeMap<DeviceId, Instant>,
}

impl Told {
    /// Whether a device is told of now, which then counts as done.
    pub fn now(&mut self, device: DeviceId, leaving: bool, now: Instant) -> bool {
        let times = match leaving {
            true => &mut self.leaving,
            false => &mut self.here,
        };
        let due = times
            .get(&device)
            .is_none_or(|last| now >= *last + INTERVAL);
        if due {
            times.insert(device, now);
        }
        due
    }

    /// Forgets what needs no remembering.
    pub fn sweep(&mut self, now: Instant) {
        for times in [&mut self.here, &mut self.leaving] {
            times.retain(|_, last| now < *last + INTERVAL);
        }
    }
}

/// Where it is told: the first rooms in which the device's user has a role.
pub fn rooms(state: &State, device: DeviceId) -> Vec<Subject> {
    let Some(user) = state.device_user(device) else {
        return Vec::new();
    };
    let rooms = state.rooms_of(user).into_iter().take(ROOMS);
    rooms
        .map(|room| Subject::Presence(room.address.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_told_of_once_in_a_while() {
        let device = DeviceId::try_from(&[1; 16][..]).unwrap();
        let start = Instant::now();
        let mut told = Told::default();
        assert!(told.now(device, false, start));
        assert!(!told.now(device, false, start));
        assert!(told.now(device, true, start), "leaving is news");
        assert!(!told.now(device, true, start));
        told.sweep(start + INTERVAL);
        assert!(told.here.is_empty() && told.leaving.is_empty());
        assert!(told.now(device, false, start + INTERVAL));
    }
}
