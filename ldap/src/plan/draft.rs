//! A plan in the making: the steps so far, and the directory as it would be
//! after them.

use sotto_jwt_accounts::directory::{Actor, By, Command, Event, State, decide};
use sotto_proto::wire::DirectoryCommand;

use super::{Diff, Remark, Step};
use crate::dn::shown;

pub(super) struct Draft {
    state: State,
    diff: Diff,
}

impl Draft {
    pub(super) fn new(state: &State) -> Self {
        Self {
            state: state.clone(),
            diff: Diff::default(),
        }
    }

    /// Forgets what was not done before: it may be done now. How many steps
    /// there are.
    pub(super) fn begin_round(&mut self) -> usize {
        self.diff.kept.clear();
        self.diff.refused.clear();
        self.diff.remarks.clear();
        self.steps()
    }

    pub(super) fn steps(&self) -> usize {
        self.diff.steps.len()
    }

    /// The directory after the steps so far.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Takes a step that the rules of the directory allow, or notes why they
    /// do not.
    pub(super) fn attempt(&mut self, about: impl ToString, step: Step) {
        if let Err(why) = self.take(step) {
            self.refuse(about, why);
        }
    }

    /// Takes a step that the rules of the directory allow; or says why they do
    /// not. Who may ask is not looked at: the gateway will.
    pub(super) fn take(&mut self, step: Step) -> Result<(), String> {
        let command = DirectoryCommand::from(&step);
        let command = Command::try_from(command).map_err(|error| error.to_string())?;
        let by = By::from(Actor::Gateway);
        // No rule for these commands looks at the time.
        let changes = decide(&self.state, &by, command, 0).map_err(|error| error.to_string())?;
        for change in changes {
            let event = Event {
                index: self.state.head().length,
                previous: None,
                at_ms: 0,
                actor: Actor::Gateway,
                change,
            };
            let applied = self.state.apply(&event);
            applied.map_err(|error| error.to_string())?;
        }
        self.diff.steps.push(step);
        Ok(())
    }

    /// Notes what would be taken away.
    pub(super) fn keep(&mut self, steps: Vec<Step>) {
        self.diff.kept = steps;
    }

    /// Notes what is not done.
    pub(super) fn refuse(&mut self, about: impl ToString, why: String) {
        self.diff.refused.push(remark(about, why));
    }

    /// Notes what is done in part.
    pub(super) fn remark(&mut self, about: impl ToString, why: String) {
        self.diff.remarks.push(remark(about, why));
    }

    pub(super) fn finish(self) -> Diff {
        self.diff
    }
}

fn remark(about: impl ToString, why: String) -> Remark {
    Remark {
        about: shown(&about.to_string()),
        why,
    }
}
