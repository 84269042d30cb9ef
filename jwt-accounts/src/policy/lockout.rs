//! No policy may take an org from all of its owners.

use sotto_proto::UserName;

use super::action::Manage;
use super::factor::{Factor, Proven};
use super::{Asking, check};
use crate::directory::{Scope, State};

const HOUR_MS: i64 = 3_600_000;
/// Times of the week at which somebody could be able to manage.
const HOURS: i64 = 7 * 24;
/// A policy that speaks of the time must leave the org manageable then, too.
const LATER_MS: i64 = 10 * 365 * 24 * HOUR_MS;

/// A level that nobody could manage any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "after that no owner of the organisation could manage {0}, whatever they proved: \
     let an owner set up the factors that its policy demands first, or demand less"
)]
pub struct LockedOut(Scope);

/// Whether a level's policy can hold, seen from the state in which it does:
/// some owner of the org, with every factor they have enrolled freshly proven
/// and the introductions they have, could manage both the org and that level.
///
/// # Errors
/// [`LockedOut`].
pub(crate) fn lockout(after: &State, scope: &Scope, now_ms: i64) -> Result<(), LockedOut> {
    let Some(policy) = after.policy(scope) else {
        return Ok(());
    };
    let can = |now_ms| someone_manages(after, scope, now_ms);
    let holds = if policy.asks_now() {
        let some_time_from = |start_ms: i64| (0..HOURS).any(|hour| can(start_ms + hour * HOUR_MS));
        some_time_from(now_ms) && some_time_from(now_ms + LATER_MS)
    } else {
        can(now_ms)
    };
    if holds {
        Ok(())
    } else {
        Err(LockedOut(scope.clone()))
    }
}

fn someone_manages(state: &State, scope: &Scope, now_ms: i64) -> bool {
    state.org_owners().any(|owner| {
        let asking = Asking {
            user: owner,
            proven: &enrolled(state, owner, now_ms),
            now_ms,
        };
        let manages = |scope| check(state, asking, Manage, scope).is_ok();
        manages(&Scope::Org) && manages(scope)
    })
}

/// Everything that a user could prove, proven at this time.
fn enrolled(state: &State, user: &UserName, now_ms: i64) -> Proven {
    let factors = state.user(user).into_iter().flat_map(|user| user.factors());
    let password = Proven::none().with(Factor::Password, now_ms);
    factors.fold(password, |proven, (_, factor)| proven.with(factor, now_ms))
}
