//! From Cedar's answers to ours: what decides, and which factors would help.

use super::Asking;
use super::demand::{ActionKind, Demand};
use super::denied::{Denied, Missing, Why};
use super::factor::Factor;
use super::facts::Facts;
use super::question::{Broken, Forbid, Question, World};
use super::roles::{self, Answer};
use crate::directory::{Scope, State};

/// Whether the user may, and if not, why.
///
/// # Errors
/// [`Denied`].
pub(super) fn judge(
    state: &State,
    asking: Asking<'_>,
    action: ActionKind,
    object: &Scope,
) -> Result<(), Denied> {
    let facts = facts(state, asking, action, object)?;
    let judged = judge_facts(&facts, asking.into(), action);
    judged.map_err(|why| Denied::new(asking.user.to_string(), action, object.clone(), why))
}

/// What is known about a user before an object.
///
/// # Errors
/// [`Denied`], when that is nothing.
pub(super) fn facts<'a>(
    state: &'a State,
    asking: Asking<'a>,
    action: ActionKind,
    object: &Scope,
) -> Result<Facts<'a>, Denied> {
    let facts = Facts::of(state, asking.user, asking.now_ms, object);
    facts.ok_or_else(|| {
        let why = Why::Needs(action.needs());
        Denied::new(asking.user.to_string(), action, object.clone(), why)
    })
}

/// As [`judge`], for facts that may be supposed.
pub(super) fn judge_facts(
    facts: &Facts<'_>,
    world: World<'_>,
    action: ActionKind,
) -> Result<(), Why> {
    let question = Question::new(facts, action)?;
    if let Answer::Denied(advice) = roles::answer(&question)? {
        return Err(Why::Needs(advice.unwrap_or(action.needs())));
    }
    let forbids = question.forbids(world)?;
    if forbids.is_empty() {
        Ok(())
    } else {
        Err(what_would_help(&question, facts, world, &forbids)?)
    }
}

/// Asked only after a refusal, so it may take its time.
fn what_would_help(
    question: &Question<'_>,
    facts: &Facts<'_>,
    world: World<'_>,
    forbids: &[Forbid],
) -> Result<Why, Broken> {
    let mut supposed = Factor::ALL.to_vec();
    if let Some(forbid) = question.forbids_supposing(world, &supposed)?.first() {
        return Ok(forbidden(facts, forbid));
    }
    let mut missing = demanded(facts, forbids);
    // What the levels' own Cedar wants is found by leaving factors out, those
    // first that are harder to come by.
    supposed.sort_by_key(|factor| (facts.enrolled(*factor), *factor != Factor::Introductions));
    for factor in supposed.clone() {
        let without: Vec<_> = supposed
            .iter()
            .copied()
            .filter(|other| *other != factor)
            .collect();
        let forbids = question.forbids_supposing(world, &without)?;
        let Some(forbid) = forbids.first() else {
            supposed = without;
            continue;
        };
        if missing
            .iter()
            .any(|missing| missing.demand.factor() == factor)
        {
            continue;
        }
        // How many introductions the text wants, nobody can read out of it.
        let Some(demand) = Demand::of_any_age(question.action(), factor) else {
            return Ok(forbidden(facts, forbid));
        };
        let level = facts.level(forbid.level).map(|level| level.scope.clone());
        missing.push(Missing {
            demand,
            level: level.unwrap_or(Scope::Org),
            enrolled: facts.enrolled(factor),
        });
    }
    Ok(Why::Missing(missing))
}

/// The demands, made in the form, that are not met.
fn demanded(facts: &Facts<'_>, forbids: &[Forbid]) -> Vec<Missing> {
    let missing = forbids.iter().filter_map(|forbid| {
        let level = facts.level(forbid.level)?;
        let demand = level.policy?.demand(&forbid.policy)?.clone();
        Some(Missing {
            enrolled: facts.enrolled(demand.factor()),
            level: level.scope.clone(),
            demand,
        })
    });
    missing.collect()
}

fn forbidden(facts: &Facts<'_>, forbid: &Forbid) -> Why {
    let level = facts.level(forbid.level).map(|level| level.scope.clone());
    Why::Forbidden {
        level: level.unwrap_or(Scope::Org),
        policy: forbid.policy.to_string(),
    }
}
