//! A user's factors beyond the password: what the directory says is enrolled,
//! and what the gateway checks it by.

use std::collections::BTreeSet;

use rand::rngs::OsRng;
use sotto_jwt_accounts::directory::{self, Command, State};
use sotto_jwt_accounts::policy::Factor;
use sotto_proto::{FactorId, UserName};

use crate::caller::EnrolledDevice;
use crate::org::Org;
use crate::records::FactorsRecord;
use crate::refusal::Refusal;
use crate::totp::{NewApp, Outcome, Totps};

/// A factor that its user may enrol: they have just proven what that takes.
#[derive(Debug)]
#[must_use = "it is there to be enrolled"]
pub struct NewFactor {
    id: FactorId,
}

impl NewFactor {
    /// Draws an id, and asks the directory whether the caller might enrol it.
    ///
    /// # Errors
    /// What the directory refuses.
    pub fn draw(caller: &EnrolledDevice, factor: Factor, now_ms: i64) -> Result<Self, Refusal> {
        let id = FactorId::random(&mut OsRng);
        let enrol = Command::EnrolFactor { factor, id };
        directory::decide(&*caller.org.state()?, &caller.by(), enrol, now_ms)?;
        Ok(Self { id })
    }

    /// Its id.
    pub fn id(&self) -> FactorId {
        self.id
    }
}

/// Which ids the directory knows as factors of this user now.
///
/// # Errors
/// [`Refusal::Unavailable`].
pub fn is_enrolled(
    org: &Org,
    user: &UserName,
) -> Result<impl Fn(FactorId) -> bool + use<>, Refusal> {
    let known: BTreeSet<_> = enrolled(&*org.state()?, user).map(|(id, _)| id).collect();
    Ok(move |id| known.contains(&id))
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

/// What the gateway checks a user's factors by, enrolled or about to be.
///
/// # Errors
/// [`Refusal::Unavailable`].
pub async fn stored(org: &Org, user: &UserName) -> Result<FactorsRecord, Refusal> {
    let record: Option<FactorsRecord> = org.buckets().factors.get(user.as_str()).await?;
    Ok(record.unwrap_or_default())
}

/// Begins to enrol an authenticator app.
///
/// # Errors
/// [`Refusal::TooMany`], [`Refusal::Unavailable`].
pub async fn begin_totp(
    org: &Org,
    totps: &Totps,
    user: &UserName,
    new: NewFactor,
    now_ms: i64,
) -> Result<NewApp, Refusal> {
    let is_enrolled = is_enrolled(org, user)?;
    let decide = |stored: Option<FactorsRecord>| {
        let owner = (org.name(), user);
        let (record, app) = totps.enrol(owner, new.id, stored, &is_enrolled, now_ms, &mut OsRng)?;
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
    let is_enrolled = is_enrolled(org, user)?;
    let decide = |stored: Option<FactorsRecord>| {
        let owner = (org.name(), user);
        let (record, outcome) = totps.prove(owner, stored, &is_enrolled, (only, code), now_ms)?;
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
        let parts = |record: &FactorsRecord| {
            record.totps.len() + record.credentials.len() + record.phones.len()
        };
        let (before, id) = (parts(&record), id.to_bytes());
        record.totps.retain(|app| app.id != id);
        record.credentials.retain(|key| key.id != id);
        record.phones.retain(|phone| phone.id != id);
        Ok(((parts(&record) < before).then_some(record), ()))
    };
    let bucket = &org.buckets().factors;
    bucket.change(user.as_str(), decide).await
}
