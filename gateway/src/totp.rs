//! Codes of authenticator apps (TOTP, RFC 6238: SHA-1, 6 digits, 30 seconds,
//! what every app can do). Pure: what is stored of a user's apps goes in, what
//! is to be stored comes out, and storing it by compare-and-set is what makes
//! a code count once and every guess count, at however many gateways.
//!
//! Secrets are sealed at rest, each for the one place where it belongs, and
//! must never be logged or shown again after enrolment.

use ed25519_dalek::SigningKey;
use rand::{CryptoRng, RngCore};
use sotto_proto::{FactorId, OrgName, UserName};
use totp_rs::{Builder, Totp};
use zeroize::Zeroizing;

use crate::records::{FactorsRecord, TotpRecord, VERSION};
use crate::refusal::Refusal;
use crate::sealing::{Place, Sealer};

/// Apps of one user, those that are being enrolled among them.
const APPS: usize = 8;
/// How long an enrolment may take, in ms.
const ENROLMENT_MS: i64 = 15 * 60_000;
/// Wrong codes in a row before the next must wait.
const FREE_GUESSES: u32 = 5;
/// The first such wait, in ms; each one is twice the one before.
const WAIT_MS: i64 = 30_000;
/// The longest, in ms: 24 guesses of one in 333,333 each day.
const WAIT_MAX_MS: i64 = 3_600_000;
const SECRET: usize = 20;
const SEAL_LABEL: &[u8] = b"sotto v1 totp secrets";

/// Makes and checks apps; seals their secrets. All gateways of a server have
/// the same key.
pub struct Totps {
    secrets: Sealer,
}

/// An app to be, as its user must be told, once.
pub struct NewApp {
    /// Its id.
    pub id: FactorId,
    /// `otpauth://…`, a secret.
    pub url: Zeroizing<String>,
}

/// What became of a code. Either way the record must be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is the code of this app, for the first time.
    Right(FactorId),
    /// It is not, or was used.
    Wrong,
}

impl Totps {
    /// Derives the sealing key from the key that signs for the gateway.
    pub fn new(gateway: &SigningKey) -> Self {
        Self {
            secrets: Sealer::new(gateway, SEAL_LABEL),
        }
    }

    /// Adds an app to what is stored of a user; `is_enrolled` says of which
    /// the directory knows.
    ///
    /// # Errors
    /// [`Refusal::TooMany`].
    pub fn enrol(
        &self,
        (org, user): (&OrgName, &UserName),
        id: FactorId,
        stored: Option<FactorsRecord>,
        is_enrolled: impl Fn(FactorId) -> bool,
        now_ms: i64,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(FactorsRecord, NewApp), Refusal> {
        let mut record = stored.unwrap_or_default();
        record.version = VERSION;
        let pending = |app: &TotpRecord| now_ms.saturating_sub(app.begun_ms) <= ENROLMENT_MS;
        record.totps.retain(|app| {
            let id = FactorId::try_from(&app.id);
            pending(app) || id.is_ok_and(&is_enrolled)
        });
        if record.totps.len() >= APPS {
            return Err(Refusal::TooMany(format!(
                "a user has at most {APPS} authenticator apps: remove one, or wait a quarter of an hour if they were never confirmed"
            )));
        }
        let mut secret = Zeroizing::new(vec![0; SECRET]);
        rng.fill_bytes(&mut secret);
        let url = Builder::new()
            .with_secret(secret.to_vec())
            .with_issuer(Some(format!("Sotto {org}")))
            .with_account_name(user.as_str())
            .build()
            .and_then(|totp| totp.to_url())
            .map_err(|_| Refusal::unavailable("an authenticator app cannot be enrolled"))?;
        record.totps.push(TotpRecord {
            id: id.to_bytes(),
            sealed: self.secrets.seal((org, user, id), &secret, rng)?,
            begun_ms: now_ms,
            last_step: 0,
        });
        let url = Zeroizing::new(url);
        Ok((record, NewApp { id, url }))
    }

    /// Whether `code` is one of an app's now: of `only`, or else of any that
    /// the directory knows. What comes back must be stored before anybody
    /// hears of it.
    ///
    /// # Errors
    /// [`Refusal::TooMany`] after wrong codes, [`Refusal::NotFound`] when there
    /// is no such app.
    pub fn prove(
        &self,
        (org, user): (&OrgName, &UserName),
        stored: Option<FactorsRecord>,
        is_enrolled: impl Fn(FactorId) -> bool,
        (only, code): (Option<FactorId>, &str),
        now_ms: i64,
    ) -> Result<(FactorsRecord, Outcome), Refusal> {
        let mut record = stored.unwrap_or_default();
        if now_ms < record.wait_until_ms {
            return Err(Refusal::TooMany(format!(
                "too many wrong codes: try again in {} s",
                (record.wait_until_ms - now_ms).div_euclid(1_000) + 1
            )));
        }
        let now_s = u64::try_from(now_ms.div_euclid(1_000)).unwrap_or_default();
        let (mut asked, mut right) = (false, None);
        for app in &mut record.totps {
            let id = FactorId::try_from(&app.id).map_err(Refusal::unavailable)?;
            let pending = only == Some(id) && now_ms.saturating_sub(app.begun_ms) <= ENROLMENT_MS;
            if only.is_some_and(|only| only != id) || !(pending || is_enrolled(id)) {
                continue;
            }
            asked = true;
            let totp = self.open((org, user, id), &app.sealed)?;
            let step = totp.check(code, now_s).filter(|step| *step > app.last_step);
            if let (None, Some(step)) = (right, step) {
                app.last_step = step;
                right = Some(id);
            }
        }
        if !asked {
            return Err(Refusal::NotFound(
                "there is no such authenticator app: enrol one first".to_owned(),
            ));
        }
        let Some(id) = right else {
            record.wrong = record.wrong.saturating_add(1);
            record.wait_until_ms = wait_until_ms(record.wrong, now_ms);
            return Ok((record, Outcome::Wrong));
        };
        (record.wrong, record.wait_until_ms) = (0, 0);
        Ok((record, Outcome::Right(id)))
    }

    fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Totp, Refusal> {
        let secret = self.secrets.open(place, sealed)?;
        let totp = Builder::new().with_secret(secret.to_vec()).build();
        totp.map_err(|_| Refusal::unavailable("a stored secret is none of an authenticator app"))
    }
}

/// Before which time nothing is looked at after so many wrong codes in a row, in
/// ms since 1970. Without a wait it is none: clocks of gateways differ.
fn wait_until_ms(wrong: u32, now_ms: i64) -> i64 {
    let Some(doublings) = wrong.checked_sub(FREE_GUESSES) else {
        return 0;
    };
    let factor = 1i64.checked_shl(doublings.min(32)).unwrap_or(i64::MAX);
    now_ms.saturating_add(WAIT_MS.saturating_mul(factor).min(WAIT_MAX_MS))
}

#[cfg(test)]
mod tests;
