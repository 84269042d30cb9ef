//! Ceremonies of passkeys and security keys, as the device that begins them
//! sees them.

use std::time::Duration;

use bytes::Bytes;
use sotto_jwt_accounts::policy::Factor;
use sotto_proto::wire::{
    CeremonyBegin, CeremonyBegun, CeremonyFinish, CeremonyStanding, CeremonyWait, FactorProven,
};
use tokio::time::{Instant, sleep};

use crate::caller::EnrolledDevice;
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::refusal::Refusal;
use crate::webauthn::{self, Ceremony};

/// Longest wait for a ceremony to end.
const WAIT: Duration = Duration::from_secs(25);
/// How often one that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(300);

impl Serve for CeremonyBegin {
    type Caller = EnrolledDevice;

    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<CeremonyBegun, Refusal> {
        let factor = Factor::try_from(self.factor()).map_err(Refusal::malformed)?;
        let native = match factor {
            Factor::Webauthn => false,
            Factor::Fido2 => true,
            Factor::Password | Factor::Totp | Factor::Sms | Factor::Introductions => {
                return Err(Refusal::malformed("factor of the ceremony"));
            }
        };
        let party = gateway.provable().relying_party()?;
        let begun = webauthn::begin(gateway, &caller, factor, self.enrol.as_deref()).await?;
        let ticket = Bytes::copy_from_slice(begun.ticket.as_bytes());
        let (url, options) = if native {
            let ceremony = Ceremony::find(gateway, &ticket).await?;
            (String::new(), ceremony.ask(party).await?)
        } else {
            (begun.url(party), Vec::new())
        };
        Ok(CeremonyBegun {
            ticket,
            code: begun.code,
            url,
            origin: party.origin().to_owned(),
            options: options.into(),
            expires_ms: begun.expires_ms,
        })
    }
}

impl Serve for CeremonyFinish {
    type Caller = EnrolledDevice;

    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<FactorProven, Refusal> {
        let ceremony = Ceremony::find(gateway, &self.ticket).await?;
        ceremony.check_begun_by(&caller)?;
        let proven_ms = webauthn::finish(gateway, &ceremony, &self.credential).await?;
        Ok(FactorProven { proven_ms })
    }
}

impl Serve for CeremonyWait {
    type Caller = EnrolledDevice;

    /// Answers when it is proven, or something went wrong with it since.
    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<CeremonyStanding, Refusal> {
        let wait = Duration::from_millis(self.wait_ms.into()).min(WAIT);
        let until = Instant::now() + wait;
        let _waiting = gateway.waits().try_acquire().map_err(|_| {
            Refusal::TooMany(
                "too many keys are being waited for at this moment: try again in a minute"
                    .to_owned(),
            )
        })?;
        let before = webauthn::standing(gateway, &caller, &self.ticket).await?;
        let mut standing = before.clone();
        while standing.proven_ms == 0 && standing == before && Instant::now() + LOOK <= until {
            sleep(LOOK).await;
            standing = webauthn::standing(gateway, &caller, &self.ticket).await?;
        }
        Ok(standing)
    }
}
