//! Codes by text message: asking for them, and proving them.

use bytes::Bytes;
use sotto_jwt_accounts::directory::{self, Command};
use sotto_jwt_accounts::policy::Factor;
use sotto_proto::FactorId;
use sotto_proto::wire::{FactorProven, SmsEnrol, SmsProve, SmsSend, SmsSent};

use super::factors::is_enrolled;
use crate::caller::{EnrolledDevice, Located};
use crate::factors::NewFactor;
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::proofs::{self, Which};
use crate::refusal::Refusal;
use crate::sms::{Asking, CODE_MS, Number, Sent};

/// Longest code that is looked at, in bytes.
const CODE: usize = 16;

impl Serve for SmsEnrol {
    type Caller = Located<EnrolledDevice>;

    async fn serve(
        self,
        gateway: &Gateway,
        from: Located<EnrolledDevice>,
    ) -> Result<SmsSent, Refusal> {
        let sms = gateway.provable().sms()?;
        let number: Number = self.number.parse().map_err(Refusal::malformed)?;
        let now_ms = gateway.now_ms();
        let new = NewFactor::draw(&from.caller, Factor::Sms, now_ms)?;
        let throttle = gateway.throttle();
        let asking = asking(&from, now_ms);
        let sent = sms.enrol(asking, throttle, new, &number).await?;
        Ok(answer(sent, now_ms))
    }
}

impl Serve for SmsSend {
    type Caller = Located<EnrolledDevice>;

    async fn serve(
        self,
        gateway: &Gateway,
        from: Located<EnrolledDevice>,
    ) -> Result<SmsSent, Refusal> {
        let sms = gateway.provable().sms()?;
        let only = only(&self.id)?;
        let now_ms = gateway.now_ms();
        let throttle = gateway.throttle();
        let sent = sms.send(asking(&from, now_ms), throttle, only).await?;
        Ok(answer(sent, now_ms))
    }
}

impl Serve for SmsProve {
    type Caller = EnrolledDevice;

    /// The code is used up first: whatever fails after that, it counts at most
    /// once.
    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<FactorProven, Refusal> {
        let sms = gateway.provable().sms()?;
        if self.code.len() > CODE {
            return Err(Refusal::malformed("length of the code"));
        }
        let only = only(&self.id)?;
        let now_ms = gateway.now_ms();
        let (org, user) = (&caller.org, &caller.user);
        let complete = |id| Command::EnrolFactor {
            factor: Factor::Sms,
            id,
        };
        // An enrolment that may not be completed uses up no code.
        if let Some(id) = only
            && !is_enrolled(&caller, id)?
        {
            directory::decide(&*org.state()?, &caller.by(), complete(id), now_ms)?;
        }
        let id = sms.prove(org, user, (only, &self.code), now_ms).await?;
        if !is_enrolled(&caller, id)? {
            org.append(&caller.by(), complete(id), now_ms).await?;
        }
        let which = Which::Factor(Factor::Sms, id);
        proofs::remember(org, caller.device, which, now_ms).await?;
        Ok(FactorProven { proven_ms: now_ms })
    }
}

fn asking(from: &Located<EnrolledDevice>, now_ms: i64) -> Asking<'_> {
    Asking {
        org: &from.caller.org,
        user: &from.caller.user,
        address: from.address,
        now_ms,
    }
}

fn only(id: &Bytes) -> Result<Option<FactorId>, Refusal> {
    match id.as_ref() {
        [] => Ok(None),
        id => Ok(Some(FactorId::try_from(id)?)),
    }
}

fn answer(sent: Sent, now_ms: i64) -> SmsSent {
    SmsSent {
        id: sent.id.to_bytes(),
        hint: sent.hint,
        expires_ms: now_ms.saturating_add(CODE_MS),
    }
}
