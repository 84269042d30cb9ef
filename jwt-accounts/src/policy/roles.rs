//! What roles allow. Cedar is asked once per combination of the few facts that
//! `roles.cedar` looks at; from then on the answer is known.

use std::sync::{LazyLock, OnceLock};

use cedar_policy::{Context, Decision, PolicyId};

use super::demand::ActionKind;
use super::facts::Facts;
use super::question::{Broken, Question};

/// What roles say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// Yes, by these policies.
    Allowed(Vec<PolicyId>),
    /// No; what to do about it, when it is not for want of a role.
    Denied(Option<&'static str>),
}

/// Combinations of the six yes-or-no facts.
const COMBINATIONS: usize = 1 << 6;
/// Levels that the object can be on.
const DEPTHS: usize = 3;

static ANSWERS: LazyLock<Vec<OnceLock<Result<Answer, Broken>>>> = LazyLock::new(|| {
    let slots = ActionKind::ALL.len() * DEPTHS * COMBINATIONS;
    (0..slots).map(|_| OnceLock::new()).collect()
});

/// What roles say to a question.
///
/// # Errors
/// When this program's own policies cannot be asked.
pub(super) fn answer(question: &Question<'_>) -> Result<&'static Answer, Broken> {
    let slot = ANSWERS.get(index(question.facts(), question.action()));
    let slot = slot.ok_or_else(|| Broken::new("an object on no level"))?;
    let answer = slot.get_or_init(|| ask(question));
    answer.as_ref().map_err(Broken::clone)
}

/// Everything that `roles.cedar` looks at, as a number.
fn index(facts: &Facts<'_>, action: ActionKind) -> usize {
    let depth = facts.levels.len().saturating_sub(1);
    let project = facts.level(1);
    let seen = [
        facts.object().is_some_and(|object| object.owner),
        facts.object().is_some_and(|object| object.member),
        facts.object().is_some_and(|object| object.archived),
        facts.object().is_some_and(|object| object.open),
        project.is_some_and(|project| project.member),
        facts.guest,
    ];
    let seen = seen
        .into_iter()
        .fold(0, |bits, fact| 2 * bits + usize::from(fact));
    (action as usize * DEPTHS + depth) * COMBINATIONS + seen
}

fn ask(question: &Question<'_>) -> Result<Answer, Broken> {
    let roles = question.model().roles();
    let response = question.ask(roles, Context::empty(), question.entities()?)?;
    let diagnostics = response.diagnostics();
    if let Some(error) = diagnostics.errors().next() {
        return Err(Broken::new(error));
    }
    let mut reasons: Vec<PolicyId> = diagnostics.reason().cloned().collect();
    reasons.sort();
    Ok(match response.decision() {
        Decision::Allow => Answer::Allowed(reasons),
        Decision::Deny => {
            let advice = |policy| roles.annotation(policy, "advice");
            Answer::Denied(reasons.iter().find_map(advice))
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::facts::tests::facts;
    use super::*;

    proptest! {
        /// Nothing that roles.cedar looks at is missing from the number.
        #[test]
        fn the_known_answer_is_cedars(facts in facts(), action in 0..ActionKind::ALL.len()) {
            let question = Question::new(&facts, ActionKind::ALL[action]).unwrap();
            prop_assert_eq!(answer(&question).cloned(), ask(&question));
        }
    }
}
