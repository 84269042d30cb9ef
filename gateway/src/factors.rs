//! A user's factors beyond the password: what the directory says is enrolled,
//! and what the gateway checks it by.

use rand::rngs::OsRng;
use sotto_jwt_accounts::directory::State;
use sotto_jwt_accounts::policy::{FRESH_MS, Factor, Proven};
use sotto_proto::{FactorId, UserName, wire};

use crate::org::Org;
use crate::records::{FactorsRecord, TotpRecord};
use crate::refusal::Refusal;
use crate::totp::{NewApp, Outcome, Totps};

/// That somebody has just proven to be the user whose factors they change.
#[must_use = "it is there to be handed to what changes factors"]
pub struct Fresh(());

/// Whether what was proven is enough to change the user's factors: one that is
/// enrolled, or the password of a user who has enrolled none, so that a device
/// left unlocked enrols nothing.
///
/// # Errors
/// [`Refusal::FactorNeeded`].
pub fn check_fresh(
    state: &State,
    user: &UserName,
    proven: &Proven,
    now_ms: i64,
) -> Result<Fresh, Refusal> {
    let enrolled: Vec<Factor> = enrolled(state, user).map(|(_, factor)| factor).collect();
    let wanted = match enrolled.as_slice() {
        [] => &[Factor::Password],
        enrolled => enrolled,
    };
    let is_fresh = |factor: &Factor| proven.is_fresh(*factor, now_ms);
    if wanted.iter().any(is_fresh) {
        return Ok(Fresh(()));
    }
    let first = wanted.first().copied().unwrap_or(Factor::Password);
    Err(Refusal::FactorNeeded {
        sentence: format!(
            "changing factors needs the factor {first}, proven in the last ten minutes: prove it and try again"
        ),
        missing: vec![wire::MissingFactor {
            demand: Some(wire::Demand {
                factor: wire::Factor::from(first).into(),
                max_age_seconds: u32::try_from(FRESH_MS / 1_000).unwrap_or(u32::MAX),
                ..wire::Demand::default()
            }),
            level: Some(wire::Scope {
                place: Some(wire::scope::Place::Org(true)),
            }),
            enrolled: true,
        }],
    })
}

/// What the directory says that a user has enrolled.
pub fn enrolled<'a>(
    state: &'a State,
    user: &UserName,
) -> impl Iterator<Item = (FactorId, Factor)> + 'a {
    state.user(user).into_iter().flat_map(|user| user.factors())
}

/// Whose factor it is: the caller's, or else of whom in the whole org.
pub fn user_of(state: &State, caller: &UserName, id: FactorId) -> Option<UserName> {
    let has = |user: &UserName| enrolled(state, user).any(|(of, _)| of == id);
    if has(caller) {
        return Some(caller.clone());
    }
    let mut users = state.users().map(|(name, _)| name);
    users.find(|user| has(user)).cloned()
}

/// The authenticator apps that codes are checked by, enrolled or about to be.
///
/// # Errors
/// [`Refusal::Unavailable`].
pub async fn apps(org: &Org, user: &UserName) -> Result<Vec<TotpRecord>, Refusal> {
    let record: Option<FactorsRecord> = org.buckets().factors.get(user.as_str()).await?;
    Ok(record.unwrap_or_default().totps)
}

/// Begins to enrol an authenticator app.
///
/// # Errors
/// [`Refusal::TooMany`], [`Refusal::Unavailable`].
pub async fn begin_totp(
    org: &Org,
    totps: &Totps,
    user: &UserName,
    _: Fresh,
    now_ms: i64,
) -> Result<NewApp, Refusal> {
    let state = org.state()?;
    let is_enrolled = |id| enrolled(&state, user).any(|(of, _)| of == id);
    let decide = |stored: Option<FactorsRecord>| {
        let owner = (org.name(), user);
        let (record, app) = totps.enrol(owner, stored, is_enrolled, now_ms, &mut OsRng)?;
        Ok((Some(record), app))
    };
    let bucket = &org.buckets().factors;
    bucket.change(user.as_str(), decide).await
}

/// Takes a code in, for good: right or wrong, it is counted when this returns.
///
/// # Errors
/// [`Refusal::WrongCode`], and what [`Totps::prove`] refuses.
pub async fn use_code(
    org: &Org,
    totps: &Totps,
    user: &UserName,
    (only, code): (Option<FactorId>, &str),
    now_ms: i64,
) -> Result<FactorId, Refusal> {
    let state = org.state()?;
    let is_enrolled = |id| enrolled(&state, user).any(|(of, _)| of == id);
    let decide = |stored: Option<FactorsRecord>| {
        let owner = (org.name(), user);
        let (record, outcome) = totps.prove(owner, stored, is_enrolled, (only, code), now_ms)?;
        Ok((Some(record), outcome))
    };
    let bucket = &org.buckets().factors;
    match bucket.change(user.as_str(), decide).await? {
        Outcome::Right(id) => Ok(id),
        Outcome::Wrong => Err(Refusal::WrongCode),
    }
}

/// Destroys what a factor is checked by, if it is here.
///
/// # Errors
/// [`Refusal::Unavailable`].
pub async fn forget(org: &Org, user: &UserName, id: FactorId) -> Result<(), Refusal> {
    let decide = |stored: Option<FactorsRecord>| {
        let Some(mut record) = stored else {
            return Ok((None, ()));
        };
        let before = record.totps.len();
        record.totps.retain(|app| app.id != id.to_bytes());
        Ok(((record.totps.len() < before).then_some(record), ()))
    };
    let bucket = &org.buckets().factors;
    bucket.change(user.as_str(), decide).await
}
