//! What each level demands.

use std::sync::Arc;

use sotto_proto::RoomId;

use super::super::event::Event;
use super::super::rule::Rule;
use super::super::terms::Scope;
use super::State;
use super::taken::Covered;
use crate::policy::LevelPolicy;

/// What a level demands now, and since which event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LevelSetting {
    pub(super) policy: Option<Arc<LevelPolicy>>,
    pub(super) index: u64,
}

impl State {
    /// What a level demands of its own.
    pub fn policy(&self, scope: &Scope) -> Option<&Arc<LevelPolicy>> {
        self.policies.get(scope)?.policy.as_ref()
    }

    /// The index of the newest event that changed what a room, or a level above
    /// it, demands; 0 before there was one.
    pub fn policy_version(&self, room: &RoomId) -> u64 {
        let project = self.room(*room).map(|room| room.project.clone());
        let levels = [Scope::Org, Scope::Room(*room)].into_iter();
        let levels = levels.chain(project.map(Scope::Project));
        let settings = levels.filter_map(|level| self.policies.get(&level));
        settings.map(|setting| setting.index).max().unwrap_or(0)
    }

    pub(super) fn set_policy(
        &mut self,
        scope: &Scope,
        policy: Option<&Arc<LevelPolicy>>,
        event: &Event,
    ) -> Result<(), Rule> {
        self.check_scope(scope)?;
        if self.policy(scope) == policy {
            return Err(Rule::Unchanged);
        }
        let setting = LevelSetting {
            policy: policy.cloned(),
            index: event.index,
        };
        self.policies.insert(scope.clone(), setting);
        if policy.is_some() {
            self.restrict(Covered::Scope(scope.clone()), event.at_ms);
        }
        Ok(())
    }
}
