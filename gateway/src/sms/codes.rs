//! Codes by text message. Pure, as codes of authenticator apps are: what is
//! stored of a user goes in, what is to be stored comes out, and storing that
//! by compare-and-set is what makes a code count once and every guess count, at
//! however many gateways. The code goes to the number and to nobody else; what
//! is stored is a keyed hash of it.

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use hmac::{Hmac, Mac};
use rand::{CryptoRng, Rng, RngCore};
use sha2::Sha256;
use sotto_proto::{FactorId, OrgName, UserName};
use zeroize::Zeroizing;

use super::number::Number;
use crate::records::{FactorsRecord, PhoneRecord, VERSION};
use crate::refusal::Refusal;
use crate::sealing::{Sealer, bound_to, derive};
use crate::totp::Outcome;

/// Numbers of one user, those that are being enrolled among them.
const PHONES: usize = 3;
/// How long a code counts, in ms.
pub const CODE_MS: i64 = 5 * 60_000;
/// How long after one the next may be sent, in ms.
const RESEND_MS: i64 = 30_000;
/// How long an enrolment may take, in ms.
const ENROLMENT_MS: i64 = 15 * 60_000;
/// Guesses of one code.
const GUESSES: u32 = 5;
const CODES: u32 = 1_000_000;
const SEAL_LABEL: &[u8] = b"sotto v1 sms numbers";
const CODE_LABEL: &[u8] = b"sotto v1 sms codes";

/// Makes and checks codes; seals numbers. All gateways of a server have the
/// same keys.
pub struct Codes {
    numbers: Sealer,
    key: Zeroizing<[u8; 32]>,
}

/// A code on its way.
pub struct Draft {
    /// For which factor.
    pub id: FactorId,
    /// To whom.
    pub number: Number,
    /// Six digits; a secret.
    pub code: Zeroizing<String>,
}

impl Codes {
    /// Derives the keys from the key that signs for the gateway.
    pub fn new(gateway: &SigningKey) -> Self {
        Self {
            numbers: Sealer::new(gateway, SEAL_LABEL),
            key: derive(gateway, CODE_LABEL),
        }
    }

    /// Adds a number to what is stored of a user; `is_enrolled` says of which
    /// the directory knows. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Refusal::TooMany`].
    pub fn enrol(
        &self,
        (org, user): (&OrgName, &UserName),
        (id, number): (FactorId, &Number),
        stored: Option<FactorsRecord>,
        is_enrolled: impl Fn(FactorId) -> bool,
        now_ms: i64,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<FactorsRecord, Refusal> {
        let mut record = stored.unwrap_or_default();
        record.version = VERSION;
        record.phones.retain(|phone| {
            let id = FactorId::try_from(&phone.id);
            is_pending(phone, now_ms) || id.is_ok_and(&is_enrolled)
        });
        if record.phones.len() >= PHONES {
            return Err(Refusal::TooMany(format!(
                "a user has at most {PHONES} telephone numbers: remove one, or wait a quarter of an hour if they were never confirmed"
            )));
        }
        record.phones.push(PhoneRecord {
            id: id.to_bytes(),
            sealed: self
                .numbers
                .seal((org, user, id), number.as_str().as_bytes(), rng)?,
            begun_ms: now_ms,
            ..PhoneRecord::default()
        });
        Ok(record)
    }

    /// Draws a code for one of a user's numbers, `only` this one or the newest
    /// that is enrolled, in place of the one before. It must be stored before it
    /// is sent.
    ///
    /// # Errors
    /// [`Refusal::TooMany`] right after another one, [`Refusal::NotFound`].
    pub fn draw(
        &self,
        (org, user): (&OrgName, &UserName),
        only: Option<FactorId>,
        stored: Option<FactorsRecord>,
        is_enrolled: impl Fn(FactorId) -> bool,
        now_ms: i64,
        rng: &mut (impl CryptoRng + RngCore),
    ) -> Result<(FactorsRecord, Draft), Refusal> {
        let mut record = stored.unwrap_or_default();
        let phones = record.phones.iter_mut().rev();
        let (phone, id) = find(phones, only, is_enrolled, now_ms).ok_or_else(no_number)?;
        let waited_ms = now_ms.saturating_sub(phone.sent_ms);
        if waited_ms < RESEND_MS {
            return Err(Refusal::TooMany(format!(
                "a code was sent just now: wait for it, or try again in {} s",
                (RESEND_MS - waited_ms).div_euclid(1_000) + 1
            )));
        }
        let place = (org, user, id);
        let number = self.numbers.open(place, &phone.sealed)?;
        let number = std::str::from_utf8(&number).map_err(Refusal::unavailable)?;
        let code = Zeroizing::new(format!("{:06}", rng.gen_range(0..CODES)));
        phone.code = self.hash(place, now_ms, &code).finalize();
        phone.sent_ms = now_ms;
        phone.guesses = 0;
        let draft = Draft {
            id,
            number: number.parse().map_err(Refusal::unavailable)?,
            code,
        };
        Ok((record, draft))
    }

    /// Whether `code` is the one that was sent last, to `only` this number or to
    /// any that is enrolled. What comes back must be stored before anybody hears
    /// of it.
    ///
    /// # Errors
    /// [`Refusal::TooMany`] after wrong ones, [`Refusal::NotFound`] when none
    /// was sent.
    pub fn prove(
        &self,
        (org, user): (&OrgName, &UserName),
        stored: Option<FactorsRecord>,
        is_enrolled: impl Fn(FactorId) -> bool,
        (only, code): (Option<FactorId>, &str),
        now_ms: i64,
    ) -> Result<(FactorsRecord, Outcome), Refusal> {
        let mut record = stored.unwrap_or_default();
        let sent = |phone: &&mut PhoneRecord| {
            !phone.code.is_empty() && now_ms.saturating_sub(phone.sent_ms) <= CODE_MS
        };
        let phones = record.phones.iter_mut().rev().filter(sent);
        let found = find(phones, only, is_enrolled, now_ms);
        let (phone, id) = found.ok_or_else(|| {
            Refusal::NotFound(
                "no code was sent in the last five minutes, or it was used: have one sent"
                    .to_owned(),
            )
        })?;
        if phone.guesses >= GUESSES {
            return Err(Refusal::TooMany(
                "too many wrong codes: have another one sent".to_owned(),
            ));
        }
        let hash = self.hash((org, user, id), phone.sent_ms, code);
        if hash.verify(&phone.code) {
            phone.code = Bytes::new();
            return Ok((record, Outcome::Right(id)));
        }
        phone.guesses += 1;
        Ok((record, Outcome::Wrong))
    }

    fn hash(&self, place: (&OrgName, &UserName, FactorId), sent_ms: i64, code: &str) -> CodeHash {
        // HMAC takes a key of any length.
        let mac = Hmac::<Sha256>::new_from_slice(self.key.as_ref()).ok();
        CodeHash(mac.map(|mac| {
            mac.chain_update(bound_to(place))
                .chain_update(sent_ms.to_be_bytes())
                .chain_update(code)
        }))
    }
}

struct CodeHash(Option<Hmac<Sha256>>);

impl CodeHash {
    fn finalize(self) -> Bytes {
        let hash = self.0.map(|mac| mac.finalize().into_bytes());
        hash.map(|hash| Bytes::copy_from_slice(&hash))
            .unwrap_or_default()
    }

    /// In constant time.
    fn verify(self, hash: &[u8]) -> bool {
        self.0.is_some_and(|mac| mac.verify_slice(hash).is_ok())
    }
}

fn is_pending(phone: &PhoneRecord, now_ms: i64) -> bool {
    now_ms.saturating_sub(phone.begun_ms) <= ENROLMENT_MS
}

fn find<'a>(
    mut phones: impl Iterator<Item = &'a mut PhoneRecord>,
    only: Option<FactorId>,
    is_enrolled: impl Fn(FactorId) -> bool,
    now_ms: i64,
) -> Option<(&'a mut PhoneRecord, FactorId)> {
    phones.find_map(|phone| {
        let id = FactorId::try_from(&phone.id).ok()?;
        let named = only.is_none_or(|only| only == id);
        let counts = is_enrolled(id) || (only.is_some() && is_pending(phone, now_ms));
        (named && counts).then_some((phone, id))
    })
}

fn no_number() -> Refusal {
    Refusal::NotFound(
        "there is no such telephone number: enrol one with `sotto factor enrol sms`".to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use rand::rngs::OsRng;

    use super::*;

    const NOW_MS: i64 = 1_800_000_000_000;

    fn codes() -> Codes {
        Codes::new(&SigningKey::from_bytes(&[7; 32]))
    }

    fn alice() -> (OrgName, UserName) {
        ("acme".parse().unwrap(), "alice".parse().unwrap())
    }

    fn drawn(now_ms: i64) -> (FactorsRecord, Draft) {
        let (org, user) = alice();
        let owner = (&org, &user);
        let id = FactorId::random(&mut OsRng);
        let number = "+4930123456".parse().unwrap();
        let record = codes().enrol(owner, (id, &number), None, |_| false, now_ms, &mut OsRng);
        let record = Some(record.unwrap());
        let drawn = codes().draw(owner, Some(id), record, |_| false, now_ms, &mut OsRng);
        drawn.unwrap()
    }

    fn prove(
        record: &FactorsRecord,
        draft: &Draft,
        code: &str,
        now_ms: i64,
    ) -> Result<(FactorsRecord, Outcome), Refusal> {
        let (org, user) = alice();
        let record = Some(record.clone());
        let asked = (Some(draft.id), code);
        codes().prove((&org, &user), record, |_| false, asked, now_ms)
    }

    fn wrong(draft: &Draft) -> &'static str {
        if *draft.code == "000000" {
            "000001"
        } else {
            "000000"
        }
    }

    #[test]
    fn a_code_counts_once_and_for_five_minutes() {
        let (record, draft) = drawn(NOW_MS);
        assert_eq!(draft.number.as_str(), "+4930123456");
        assert!(draft.code.len() == 6 && draft.code.bytes().all(|c| c.is_ascii_digit()));
        let (after, outcome) = prove(&record, &draft, &draft.code, NOW_MS + CODE_MS).unwrap();
        assert_eq!(outcome, Outcome::Right(draft.id));
        let again = prove(&after, &draft, &draft.code, NOW_MS + 1);
        assert!(matches!(again, Err(Refusal::NotFound(_))));
        let late = prove(&record, &draft, &draft.code, NOW_MS + CODE_MS + 1);
        assert!(matches!(late, Err(Refusal::NotFound(_))));
    }

    #[test]
    fn after_five_wrong_guesses_the_right_one_is_none() {
        let (mut record, draft) = drawn(NOW_MS);
        for _ in 0..GUESSES {
            let (after, outcome) = prove(&record, &draft, wrong(&draft), NOW_MS).unwrap();
            assert_eq!(outcome, Outcome::Wrong);
            record = after;
        }
        let refused = prove(&record, &draft, &draft.code, NOW_MS);
        assert!(matches!(refused, Err(Refusal::TooMany(_))));
    }

    #[test]
    fn the_next_code_takes_the_place_of_the_last_and_not_at_once() {
        let (record, draft) = drawn(NOW_MS);
        let (org, user) = alice();
        let draw = |now_ms| {
            let record = Some(record.clone());
            codes().draw(
                (&org, &user),
                Some(draft.id),
                record,
                |_| false,
                now_ms,
                &mut OsRng,
            )
        };
        assert!(matches!(
            draw(NOW_MS + RESEND_MS - 1),
            Err(Refusal::TooMany(_))
        ));
        let (after, next) = draw(NOW_MS + RESEND_MS).unwrap();
        if *next.code != *draft.code {
            let (_, outcome) = prove(&after, &draft, &draft.code, NOW_MS + RESEND_MS).unwrap();
            assert_eq!(outcome, Outcome::Wrong);
        }
        let (_, outcome) = prove(&after, &next, &next.code, NOW_MS + RESEND_MS).unwrap();
        assert_eq!(outcome, Outcome::Right(draft.id));
    }

    #[test]
    fn neither_number_nor_code_is_stored_in_clear_and_each_opens_in_its_place_only() {
        let (record, draft) = drawn(NOW_MS);
        let phone = &record.phones[0];
        let holds = |bytes: &[u8], text: &str| {
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        assert!(!holds(&phone.sealed, "30123456") && !holds(&phone.code, &draft.code));
        let (org, _) = alice();
        let mallory: UserName = "mallory".parse().unwrap();
        let stolen = Some(record.clone());
        let asked = (Some(draft.id), draft.code.as_str());
        let (_, outcome) = codes()
            .prove((&org, &mallory), stolen, |_| false, asked, NOW_MS)
            .unwrap();
        assert_eq!(outcome, Outcome::Wrong);
    }

    #[test]
    fn a_number_that_is_not_enrolled_proves_nothing_unless_it_is_named() {
        let (record, draft) = drawn(NOW_MS);
        let (org, user) = alice();
        let asked = (None, draft.code.as_str());
        let refused = codes().prove((&org, &user), Some(record), |_| false, asked, NOW_MS);
        assert!(matches!(refused, Err(Refusal::NotFound(_))));
    }
}
