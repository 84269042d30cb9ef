//! What lets a machine update itself, from the first day.

use sotto_update::Digest;

use super::roles::Roles;
use super::{Action, Machine, Place, Steps};
use crate::facts::Facts;
use crate::updates::Updates;
use crate::{Destination, UPDATE_DIR};

impl Steps {
    pub(super) fn update(
        &mut self,
        number: usize,
        facts: &Facts,
        place: &Place,
        updates: &Updates,
    ) {
        if facts.pinned.is_none() {
            let fingerprint = updates.root.fingerprint;
            let why = "no release is trusted there";
            self.add(number, Action::PinRoot { fingerprint }, why);
        }
        let sum = |pem: &String| Digest::of(pem.as_bytes());
        let wanted = updates.authorities.as_ref().map(sum);
        if wanted.is_some() && wanted != facts.authorities {
            let why = "they are not there, or others";
            self.add(number, Action::SendAuthorities, why);
        }
        for (role, _) in place.listens() {
            let unit = facts.unit_of(role);
            if !unit.updater_printed {
                let why = "they are not there, or not what the program prints";
                self.add(number, Action::WriteUpdater { role }, why);
            }
            if !unit.updater_printed || !unit.timer_runs {
                let why = "nothing updates it";
                self.add(number, Action::StartTimer { role }, why);
            }
        }
    }
}

/// Whoever is trusted already is replaced by nobody.
pub(super) fn check(facts: &Facts, updates: &Updates, say: &mut impl FnMut(String)) {
    let ours = updates.root.fingerprint;
    if let Some(pinned) = facts.pinned.filter(|pinned| *pinned != ours) {
        say(format!(
            "it trusts other releases, of the root {pinned}: leave --updates out, or remove {UPDATE_DIR}/trust.json there if they are not to be trusted any more"
        ));
    }
}

/// Those that stay as they are until somebody updates them.
pub(super) fn without(machines: &[Machine], roles: &Roles) -> Vec<Destination> {
    let all_timed = |(machine, place): &(&Machine, &Place)| {
        let mut roles = place.listens().into_iter();
        roles.all(|(role, _)| machine.facts.unit_of(role).timer_runs)
    };
    let machines = machines.iter().zip(&roles.places);
    let without = machines.filter(|machine| !all_timed(machine));
    without
        .map(|(machine, _)| machine.destination.clone())
        .collect()
}
