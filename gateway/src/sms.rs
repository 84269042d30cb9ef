//! The factor SMS: a code goes to a telephone number, and comes back from
//! whoever reads it there. Numbers are sealed at rest and never logged; how
//! often anything is sent is limited by user, by number and by address, at all
//! gateways together.
//!
//! It is the weakest of the factors: who can read or redirect text messages
//! (SS7, a second SIM, malware on the telephone) can prove it.

mod codes;
mod number;
mod webhook;

use std::net::IpAddr;

use ed25519_dalek::SigningKey;
use futures::future::BoxFuture;
use rand::rngs::OsRng;
use sotto_proto::{FactorId, UserName};

use crate::factors::{self, NewFactor};
use crate::org::Org;
use crate::records::FactorsRecord;
use crate::refusal::Refusal;
use crate::throttle::{NUMBER, Subject, TEXTS, TEXTS_OF_ADDRESS, Throttle};
use crate::totp::Outcome;

pub use codes::CODE_MS;
use codes::{Codes, Draft};
pub use number::Number;
pub use webhook::Webhook;

/// Who can send text messages.
pub trait Provider: Send + Sync {
    /// Sends one; done when the provider has taken it in.
    fn send<'a>(&'a self, number: &'a Number, text: &'a str) -> BoxFuture<'a, Result<(), NotSent>>;
}

/// A text message was not sent; says why, without number or text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotSent(pub String);

sotto_log::log_safe!(NotSent);

/// Sends codes and checks them.
pub struct Sms {
    codes: Codes,
    provider: Box<dyn Provider>,
}

/// A code that was sent.
pub struct Sent {
    /// For which factor.
    pub id: FactorId,
    /// To which number, as far as it is shown.
    pub hint: String,
}

/// Who wants a code, from where.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// The org.
    pub org: &'a Org,
    /// The user.
    pub user: &'a UserName,
    /// The address that the call came from.
    pub address: IpAddr,
    /// In ms since 1970.
    pub now_ms: i64,
}

impl Sms {
    /// `gateway` is the key that signs for it.
    pub fn new(gateway: &SigningKey, provider: impl Provider + 'static) -> Self {
        Self {
            codes: Codes::new(gateway),
            provider: Box::new(provider),
        }
    }

    /// Begins to enrol a number, and sends it a code.
    ///
    /// # Errors
    /// [`Refusal::TooMany`], [`Refusal::NotYet`] when it was not sent.
    pub async fn enrol(
        &self,
        asking: Asking<'_>,
        throttle: &Throttle,
        new: NewFactor,
        number: &Number,
    ) -> Result<Sent, Refusal> {
        let Asking {
            org, user, now_ms, ..
        } = asking;
        let is_enrolled = factors::is_enrolled(org, user)?;
        let id = new.id();
        let decide = |stored: Option<FactorsRecord>| {
            let (owner, what) = ((org.name(), user), (id, number));
            let record = self
                .codes
                .enrol(owner, what, stored, &is_enrolled, now_ms, &mut OsRng)?;
            Ok((Some(record), ()))
        };
        let bucket = &org.buckets().factors;
        bucket.change(user.as_str(), decide).await?;
        self.send(asking, throttle, Some(id)).await
    }

    /// Sends a code to one of the user's numbers: `only` this one, or the newest
    /// that is enrolled. It is stored, and counted, before it is sent.
    ///
    /// # Errors
    /// [`Refusal::TooMany`], [`Refusal::NotFound`], [`Refusal::NotYet`] when it
    /// was not sent.
    pub async fn send(
        &self,
        asking: Asking<'_>,
        throttle: &Throttle,
        only: Option<FactorId>,
    ) -> Result<Sent, Refusal> {
        let Asking {
            org,
            user,
            address,
            now_ms,
        } = asking;
        let by_address = Subject::Address(address);
        throttle
            .count(org, by_address, TEXTS_OF_ADDRESS, now_ms)
            .await?;
        throttle
            .count(org, Subject::Texts(user), TEXTS, now_ms)
            .await?;
        let is_enrolled = factors::is_enrolled(org, user)?;
        let decide = |stored: Option<FactorsRecord>| {
            let owner = (org.name(), user);
            let drawn = self
                .codes
                .draw(owner, only, stored, &is_enrolled, now_ms, &mut OsRng)?;
            let (record, draft) = drawn;
            Ok((Some(record), draft))
        };
        let bucket = &org.buckets().factors;
        let Draft { id, number, code } = bucket.change(user.as_str(), decide).await?;
        throttle
            .count(org, Subject::Number(&number), NUMBER, now_ms)
            .await?;
        let text = zeroize::Zeroizing::new(format!(
            "{} is the code of {user}@{} for Sotto, good for 5 minutes. Tell it to nobody.",
            *code,
            org.name()
        ));
        self.provider.send(&number, &text).await.map_err(|error| {
            sotto_log::warn!(error, "a text message was not sent");
            Refusal::NotYet(
                "the text message could not be sent: try again in a minute, and tell your admin if that does not help"
                    .to_owned(),
            )
        })?;
        Ok(Sent {
            id,
            hint: number.hint(),
        })
    }

    /// Takes a code in, for good: right or wrong, it is counted when this
    /// returns.
    ///
    /// # Errors
    /// [`Refusal::WrongCode`], [`Refusal::TooMany`], [`Refusal::NotFound`].
    pub async fn prove(
        &self,
        org: &Org,
        user: &UserName,
        (only, code): (Option<FactorId>, &str),
        now_ms: i64,
    ) -> Result<FactorId, Refusal> {
        let is_enrolled = factors::is_enrolled(org, user)?;
        let decide = |stored: Option<FactorsRecord>| {
            let (owner, asked) = ((org.name(), user), (only, code));
            let proved = self.codes.prove(owner, stored, &is_enrolled, asked, now_ms);
            let (record, outcome) = proved?;
            Ok((Some(record), outcome))
        };
        let bucket = &org.buckets().factors;
        match bucket.change(user.as_str(), decide).await? {
            Outcome::Right(id) => Ok(id),
            Outcome::Wrong => Err(Refusal::WrongCode),
        }
    }
}
