//! Why the answer is what it is, for admins.

use std::fmt;

use cedar_policy::PolicyId;

use super::Asking;
use super::demand::ActionKind;
use super::denied::{Denied, Missing, Why};
use super::facts::Facts;
use super::judge::judge_facts;
use super::question::{Broken, Question};
use super::roles::{self, Answer};
use crate::directory::{Scope, State};

/// The answer to one question, with the rules that decide it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Why not; `None`: it is allowed.
    pub denied: Option<Denied>,
    /// The policies that decide. Allowed: those that allow. Denied by a level:
    /// those that allow, and those that forbid nevertheless.
    pub rules: Vec<DecidingRule>,
    user: String,
    action: ActionKind,
    object: Scope,
}

/// One policy that decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecidingRule {
    /// Whose it is; `None`: one of the fixed policies on roles.
    pub level: Option<Scope>,
    /// Its id, unique on its level.
    pub id: String,
    /// Whether it forbids; otherwise it allows.
    pub forbids: bool,
    /// Its Cedar.
    pub cedar: String,
}

impl Explanation {
    /// Whether it is allowed.
    pub fn allowed(&self) -> bool {
        self.denied.is_none()
    }

    /// What would have to be proven.
    pub fn missing(&self) -> &[Missing] {
        self.denied.as_ref().map_or(&[], Denied::missing)
    }
}

/// Why a user may or may not do something to what is in a place. An action
/// that does not apply there is denied like any other that nobody may.
pub fn explain(
    state: &State,
    asking: Asking<'_>,
    action: ActionKind,
    object: &Scope,
) -> Explanation {
    let facts = Facts::of(state, asking.user, asking.now_ms, object);
    let (judged, rules) = match &facts {
        Some(facts) => (
            judge_facts(facts, asking.into(), action),
            rules(facts, asking, action).unwrap_or_default(),
        ),
        None => (Err(Why::Needs(action.needs())), Vec::new()),
    };
    let user = asking.user.to_string();
    let denied = judged.err();
    Explanation {
        denied: denied.map(|why| Denied::new(user.clone(), action, object.clone(), why)),
        rules,
        user,
        action,
        object: object.clone(),
    }
}

fn rules(
    facts: &Facts<'_>,
    asking: Asking<'_>,
    action: ActionKind,
) -> Result<Vec<DecidingRule>, Broken> {
    let question = Question::new(facts, action)?;
    let Answer::Allowed(allows) = roles::answer(&question)? else {
        return Ok(Vec::new());
    };
    let role_rule = |id: &PolicyId| DecidingRule {
        level: None,
        id: id.to_string(),
        forbids: false,
        cedar: question.model().role_text(id),
    };
    let forbids = question.forbids(asking.into())?;
    let level_rules = forbids.iter().filter_map(|forbid| {
        let level = facts.level(forbid.level)?;
        Some(DecidingRule {
            level: Some(level.scope.clone()),
            id: forbid.policy.to_string(),
            forbids: true,
            cedar: level.policy?.text(&forbid.policy)?,
        })
    });
    Ok(allows.iter().map(role_rule).chain(level_rules).collect())
}

/// The answer in a sentence, then each rule with its level and its Cedar.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.denied {
            Some(denied) => writeln!(f, "{denied}")?,
            None => {
                let phrase = self.action.phrase();
                writeln!(f, "{} may {phrase} in {}", self.user, self.object)?;
            }
        }
        for rule in &self.rules {
            let verb = if rule.forbids { "forbids" } else { "allows" };
            match &rule.level {
                Some(level) => writeln!(f, "\n{} of {level} {verb} it:", rule.id)?,
                None => writeln!(f, "\n{} (roles) {verb} it:", rule.id)?,
            }
            for line in rule.cedar.lines() {
                writeln!(f, "  {line}")?;
            }
        }
        Ok(())
    }
}
