//! A ceremony from its first call to its end. It is begun on a device, by its
//! session; it takes place wherever its ticket is, which is in a browser, or
//! on the device itself. Any gateway can go on with what another one began: the
//! record in the bucket `ceremonies` is all there is.

use std::sync::Arc;

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use sha2::{Digest, Sha256};
use sotto_jwt_accounts::directory::Command;
use sotto_jwt_accounts::policy::Factor;
use sotto_proto::{DeviceId, FactorId, wire};

use super::{ANSWER, Challenge, NAME, Outcome, RelyingParty};
use crate::caller::EnrolledDevice;
use crate::factors::{self, NewFactor};
use crate::gateway::Gateway;
use crate::org::Org;
use crate::proofs::{self, Which};
use crate::records::{CeremonyRecord, CredentialRecord, FactorsRecord, VERSION};
use crate::refusal::Refusal;
use crate::sessions::Token;

/// How long a ceremony may take, in ms.
const LIFETIME_MS: i64 = 10 * 60_000;
/// Challenges of one ceremony: people press the wrong button.
const CHALLENGES: u32 = 8;

/// A ceremony that was begun.
pub struct Begun {
    /// What lets somebody go on with it.
    pub ticket: Token,
    /// Shown at both ends, for the person to compare.
    pub code: String,
    /// Not valid after, in ms since 1970.
    pub expires_ms: i64,
}

impl Begun {
    /// Where a browser goes on. The ticket is in the fragment, which browsers
    /// send to nobody.
    pub fn url(&self, party: &RelyingParty) -> String {
        let ticket = BASE64URL_NOPAD.encode(self.ticket.as_bytes());
        format!("{}{}#{ticket}", party.origin(), super::page::PATH)
    }
}

/// Begins one for the caller's device: to enrol a key called `name`, or to
/// prove one.
///
/// # Errors
/// [`Refusal::FactorNeeded`] when factors may not be changed,
/// [`Refusal::NotFound`] when there is nothing to prove, and others.
pub async fn begin(
    gateway: &Gateway,
    caller: &EnrolledDevice,
    factor: Factor,
    enrol: Option<&str>,
) -> Result<Begun, Refusal> {
    let now_ms = gateway.now_ms();
    let org = &caller.org;
    let id = match enrol {
        Some(name) if name.len() > NAME || name.chars().any(char::is_control) => {
            return Err(Refusal::malformed("name of the key"));
        }
        Some(_) => Some(NewFactor::draw(caller, factor, now_ms)?.id()),
        None => {
            let party = gateway.provable().relying_party()?;
            challenge(party, caller, factor, false).await?;
            None
        }
    };
    let ticket = Token::draw(org.name());
    let record = CeremonyRecord {
        version: VERSION,
        user: caller.user.to_string(),
        device: caller.device.to_bytes(),
        factor: wire::Factor::from(factor).into(),
        id: id.map(|id| id.to_bytes()).unwrap_or_default(),
        name: enrol.unwrap_or_default().to_owned(),
        expires_ms: now_ms.saturating_add(LIFETIME_MS),
        ..CeremonyRecord::default()
    };
    org.buckets().ceremonies.put(&ticket.key(), &record).await?;
    Ok(Begun {
        code: code(&ticket),
        ticket,
        expires_ms: record.expires_ms,
    })
}

/// A ceremony in which something can still happen.
pub struct Ceremony {
    /// Whose, and on which device.
    pub caller: EnrolledDevice,
    /// Of what.
    pub factor: Factor,
    /// What is enrolled; `None`: something is proven.
    pub enrols: Option<FactorId>,
    /// Shown at both ends.
    pub code: String,
    ticket: Token,
    name: String,
}

impl Ceremony {
    /// The one that a ticket is of.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when it is over, or was none.
    pub async fn find(gateway: &Gateway, ticket: &[u8]) -> Result<Self, Refusal> {
        let ticket = Token::new(ticket).ok_or_else(over)?;
        let org = org_of(gateway, &ticket)?;
        let record = read(org, &ticket, gateway.now_ms()).await?;
        let device = DeviceId::try_from(&record.device).map_err(Refusal::unavailable)?;
        let user = record
            .user
            .parse()
            .map_err(|_| Refusal::unavailable("a stored name is none"))?;
        let enrols = match record.id.as_ref() {
            [] => None,
            id => Some(FactorId::try_from(id).map_err(Refusal::unavailable)?),
        };
        Ok(Self {
            caller: EnrolledDevice::of(org, user, device).await?,
            factor: Factor::try_from(record.factor()).map_err(Refusal::unavailable)?,
            enrols,
            code: code(&ticket),
            name: record.name,
            ticket,
        })
    }

    /// Fails for everybody but the device that began it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn check_begun_by(&self, caller: &EnrolledDevice) -> Result<(), Refusal> {
        let (org, device) = (self.caller.org.name(), self.caller.device);
        match (org, device) == (caller.org.name(), caller.device) {
            true => Ok(()),
            false => Err(over()),
        }
    }

    /// A new challenge, in place of one that was not answered: JSON.
    ///
    /// # Errors
    /// [`Refusal::TooMany`] after a few.
    pub async fn ask(&self, party: &RelyingParty) -> Result<Vec<u8>, Refusal> {
        let caller = &self.caller;
        let asked = challenge(party, caller, self.factor, self.enrols.is_some()).await?;
        let Challenge { options, state } = asked;
        self.change(|record| {
            if record.challenges >= CHALLENGES || record.proven_ms != 0 {
                return Err(over());
            }
            record.challenges += 1;
            record.state = state.clone();
            Ok(())
        })
        .await?;
        Ok(options)
    }

    /// Takes an answer in. Its challenge is used up first, for good: whatever
    /// fails after that, no answer to it counts again.
    async fn take(
        &self,
        gateway: &Gateway,
        party: &RelyingParty,
        answer: &[u8],
    ) -> Result<i64, Refusal> {
        if answer.len() > ANSWER {
            return Err(Refusal::TooLarge(ANSWER));
        }
        let state = self
            .change(|record| Ok(std::mem::take(&mut record.state)))
            .await?;
        if state.is_empty() {
            return Err(Refusal::Conflict(
                "this challenge was answered already: try again with a new one".to_owned(),
            ));
        }
        let now_ms = gateway.now_ms();
        let (org, device) = (&self.caller.org, self.caller.device);
        let id = match self.enrols {
            Some(id) => {
                self.enrol(party, id, answer, &state, now_ms).await?;
                id
            }
            None => self.prove(party, answer, &state, now_ms).await?,
        };
        let which = Which::Factor(self.factor, id);
        proofs::remember(org, device, which, now_ms).await?;
        self.change(|record| {
            record.proven_ms = now_ms;
            record.id = id.to_bytes();
            record.trouble.clear();
            Ok(())
        })
        .await?;
        Ok(now_ms)
    }

    /// The key is stored first: one that the directory knows can be checked.
    async fn enrol(
        &self,
        party: &RelyingParty,
        id: FactorId,
        answer: &[u8],
        state: &[u8],
        now_ms: i64,
    ) -> Result<(), Refusal> {
        let EnrolledDevice { org, user, .. } = &self.caller;
        let factor = self.factor;
        let enrol = Command::EnrolFactor { factor, id };
        let new = CredentialRecord {
            id: id.to_bytes(),
            factor: wire::Factor::from(factor).into(),
            name: self.name.clone(),
            begun_ms: now_ms,
            ..CredentialRecord::default()
        };
        let is_enrolled = factors::is_enrolled(org, user)?;
        let decide = |stored: Option<FactorsRecord>| {
            let record = party.add(new.clone(), answer, state, stored, &is_enrolled)?;
            Ok((Some(record), ()))
        };
        let bucket = &org.buckets().factors;
        bucket.change(user.as_str(), decide).await?;
        org.append(&self.caller.by(), enrol, now_ms).await?;
        Ok(())
    }

    async fn prove(
        &self,
        party: &RelyingParty,
        answer: &[u8],
        state: &[u8],
        now_ms: i64,
    ) -> Result<FactorId, Refusal> {
        let EnrolledDevice { org, user, .. } = &self.caller;
        let is_enrolled = factors::is_enrolled(org, user)?;
        let decide = |stored: Option<FactorsRecord>| {
            let factor = self.factor;
            let (record, outcome) =
                party.check(factor, answer, state, stored, &is_enrolled, now_ms)?;
            Ok((Some(record), outcome))
        };
        let bucket = &org.buckets().factors;
        match bucket.change(user.as_str(), decide).await? {
            Outcome::Proven(id) => Ok(id),
            Outcome::Cloned => {
                sotto_log::warn!("the counter of a security key went backwards: it is blocked");
                Err(Refusal::Denied(
                    "the counter of this key went backwards, so there may be a copy of it: it is \
                     not believed any more; remove it and enrol another one"
                        .to_owned(),
                ))
            }
        }
    }

    async fn change<T>(
        &self,
        mut with: impl FnMut(&mut CeremonyRecord) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let decide = |stored: Option<CeremonyRecord>| {
            let mut record = stored.ok_or_else(over)?;
            let result = with(&mut record)?;
            Ok((Some(record), result))
        };
        let bucket = &self.caller.org.buckets().ceremonies;
        bucket.change(&self.ticket.key(), decide).await
    }
}

/// Takes the answer of a key in; when that was, in ms since 1970. Whoever waits
/// for it learns what was wrong with it.
///
/// # Errors
/// [`Refusal::Denied`] when it does not fit, [`Refusal::Conflict`] when its
/// challenge was used, and others.
pub async fn finish(gateway: &Gateway, ceremony: &Ceremony, answer: &[u8]) -> Result<i64, Refusal> {
    let party = gateway.provable().relying_party()?;
    let taken = ceremony.take(gateway, party, answer).await;
    if let Err(refusal) = &taken {
        let trouble = refusal.to_string();
        let told = ceremony.change(|record| {
            record.trouble.clone_from(&trouble);
            Ok(())
        });
        told.await?;
    }
    taken
}

/// How far one is that the caller's device began.
///
/// # Errors
/// [`Refusal::NotFound`] when it is over, or was none of that device's.
pub async fn standing(
    gateway: &Gateway,
    caller: &EnrolledDevice,
    ticket: &[u8],
) -> Result<wire::CeremonyStanding, Refusal> {
    let ticket = Token::new(ticket).ok_or_else(over)?;
    let org = org_of(gateway, &ticket)?;
    let record = read(org, &ticket, gateway.now_ms()).await?;
    if org.name() != caller.org.name() || record.device != caller.device.to_bytes() {
        return Err(over());
    }
    Ok(wire::CeremonyStanding {
        proven_ms: record.proven_ms,
        id: record.id,
        trouble: record.trouble,
    })
}

async fn challenge(
    party: &RelyingParty,
    caller: &EnrolledDevice,
    factor: Factor,
    enrols: bool,
) -> Result<Challenge, Refusal> {
    let EnrolledDevice { org, user, .. } = caller;
    let stored: Option<FactorsRecord> = org.buckets().factors.get(user.as_str()).await?;
    let is_enrolled = factors::is_enrolled(org, user)?;
    if enrols {
        party.ask_for_new((org.name(), user), factor, stored.as_ref(), is_enrolled)
    } else {
        party.ask_for_proof(factor, stored.as_ref(), is_enrolled)
    }
}

fn org_of<'a>(gateway: &'a Gateway, ticket: &Token) -> Result<&'a Arc<Org>, Refusal> {
    let mut orgs = gateway.orgs();
    orgs.find(|org| ticket.is_of(org.name())).ok_or_else(over)
}

async fn read(org: &Org, ticket: &Token, now_ms: i64) -> Result<CeremonyRecord, Refusal> {
    let record: Option<CeremonyRecord> = org.buckets().ceremonies.get(&ticket.key()).await?;
    let record = record.filter(|record| now_ms <= record.expires_ms);
    record.ok_or_else(over)
}

/// Four letters and digits of what only the ticket's holders know.
fn code(ticket: &Token) -> String {
    let hash = Sha256::new()
        .chain_update(b"sotto v1 ceremony code")
        .chain_update(ticket.as_bytes())
        .finalize();
    let mut code = BASE32_NOPAD.encode(&hash);
    code.truncate(4);
    code
}

fn over() -> Refusal {
    Refusal::NotFound("this link is used or too old: run the command again".to_owned())
}
