//! Changing one's own factors: whoever does it has just proven one that they
//! have, or the password if they have none, so that neither a device left
//! unlocked nor a session taken over can bring factors of its own.

use std::num::NonZeroU32;

use sotto_proto::UserName;

use super::demand::Demand;
use super::denied::{Denied, Missing};
use super::factor::Factor;
use crate::directory::{By, Scope, State};

/// How long ago that may have been, in seconds.
const FRESH_S: NonZeroU32 = NonZeroU32::new(600).unwrap();

/// Whether what `by` has proven is enough to change the factors of `user`, who
/// they are.
///
/// # Errors
/// [`Denied`], with one factor that would do.
pub(crate) fn check_fresh(
    state: &State,
    by: &By,
    user: &UserName,
    now_ms: i64,
) -> Result<(), Denied> {
    let factors = state.user(user).into_iter().flat_map(|user| user.factors());
    let enrolled: Vec<Factor> = factors.map(|(_, factor)| factor).collect();
    let wanted = match enrolled.as_slice() {
        [] => &[Factor::Password],
        enrolled => enrolled,
    };
    let oldest_ms = now_ms.saturating_sub(i64::from(FRESH_S.get()) * 1_000);
    let is_fresh = |factor: &Factor| by.proven.at_ms(*factor) >= Some(oldest_ms);
    if wanted.iter().any(is_fresh) {
        return Ok(());
    }
    let first = wanted.first().copied().unwrap_or(Factor::Password);
    let missing = Missing {
        demand: Demand::within(first, FRESH_S),
        level: Scope::Org,
        enrolled: true,
    };
    Err(Denied::stale(by.actor.to_string(), missing))
}
