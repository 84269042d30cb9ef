//! Codes by text message: asking for them, and proving them.

use sotto_jwt_accounts::policy::Factor;
use sotto_proto::wire::{FactorProven, SmsEnrol, SmsProve, SmsSend, SmsSent};

use super::proving::{Proving, only_factor};
use crate::caller::{EnrolledDevice, Located};
use crate::factors::NewFactor;
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::refusal::Refusal;
use crate::sms::{Asking, CODE_MS, Number, Sent};

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
        let only = only_factor(&self.id)?;
        let now_ms = gateway.now_ms();
        let throttle = gateway.throttle();
        let sent = sms.send(asking(&from, now_ms), throttle, only).await?;
        Ok(answer(sent, now_ms))
    }
}

impl Serve for SmsProve {
    type Caller = EnrolledDevice;

    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<FactorProven, Refusal> {
        let sms = gateway.provable().sms()?;
        let now_ms = gateway.now_ms();
        let asked = (self.id.as_ref(), self.code.as_str());
        let proving = Proving::begin(&caller, Factor::Sms, asked, now_ms)?;
        let code = (proving.only, self.code.as_str());
        let id = sms.prove(&caller.org, &caller.user, code, now_ms).await?;
        proving.complete(id).await
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

fn answer(sent: Sent, now_ms: i64) -> SmsSent {
    SmsSent {
        id: sent.id.to_bytes(),
        hint: sent.hint,
        expires_ms: now_ms.saturating_add(CODE_MS),
    }
}
