//! What whoever runs the server did to let an owner back in, remembered so that
//! every member can be told.

use super::super::event::Event;
use super::super::rule::Rule;
use super::super::terms::{Actor, Intervention};
use super::State;
use super::taken::Covered;

/// How long every member who connects is told, in ms.
const TOLD_MS: i64 = 90 * 24 * 3_600 * 1_000;
/// Interventions that are told at most, the newest.
const TOLD_MAX: usize = 8;

/// An entry of the log that is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Intervened {
    pub(super) index: u64,
    pub(super) at_ms: i64,
}

impl State {
    /// The entries of the log by which whoever runs the server stepped in and
    /// of which members are to be told at `now_ms`, oldest first: 8 at most, of
    /// the last 90 days.
    pub fn interventions(&self, now_ms: i64) -> impl Iterator<Item = u64> {
        let oldest_ms = now_ms.saturating_sub(TOLD_MS);
        let recent = self.interventions.iter();
        let recent = recent.filter(move |intervened| intervened.at_ms >= oldest_ms);
        recent.map(|intervened| intervened.index)
    }

    pub(super) fn intervene(&mut self, what: &Intervention, event: &Event) -> Result<(), Rule> {
        if event.actor != Actor::Gateway {
            return Err(Rule::Intervention);
        }
        match what {
            Intervention::FactorsReset(user) => {
                let found = self.living_user_mut(user)?;
                if found.factors.is_empty() {
                    return Err(Rule::Unchanged);
                }
                found.factors.clear();
                let theirs = Covered::Users(imbl::ordset![user.clone()]);
                self.restrict(theirs, event.at_ms);
            }
            Intervention::PolicyLifted(scope) => self.set_policy(scope, None, event)?,
        }
        if self.interventions.len() >= TOLD_MAX {
            self.interventions.pop_front();
        }
        self.interventions.push_back(Intervened {
            index: event.index,
            at_ms: event.at_ms,
        });
        Ok(())
    }
}
