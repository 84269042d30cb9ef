//! Enrolling, proving and removing what proves users beyond their devices.

use sotto_jwt_accounts::directory::{self, Command};
use sotto_jwt_accounts::policy::Factor;
use sotto_proto::FactorId;
use sotto_proto::wire::{
    self, FactorGone, FactorProven, FactorRemove, FactorStanding, Factors, FactorsRequest,
    LoginStarted, PasswordProve, PasswordProveStart, TotpEnrol, TotpEnrolled, TotpProve,
};

use crate::caller::EnrolledDevice;
use crate::calls::{login, proving::Proving};
use crate::factors::{self, NewFactor};
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::proofs::{self, Proofs, Which};
use crate::records::FactorsRecord;
use crate::refusal::Refusal;
use crate::throttle::{PASSWORD, Subject};

impl Serve for TotpEnrol {
    type Caller = EnrolledDevice;

    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<TotpEnrolled, Refusal> {
        let now_ms = gateway.now_ms();
        let new = NewFactor::draw(&caller, Factor::Totp, now_ms)?;
        let (org, user) = (&caller.org, &caller.user);
        let app = factors::begin_totp(org, gateway.totps(), user, new, now_ms).await?;
        Ok(TotpEnrolled {
            id: app.id.to_bytes(),
            url: app.url.to_string(),
        })
    }
}

impl Serve for TotpProve {
    type Caller = EnrolledDevice;

    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<FactorProven, Refusal> {
        let now_ms = gateway.now_ms();
        let asked = (self.id.as_ref(), self.code.as_str());
        let proving = Proving::begin(&caller, Factor::Totp, asked, now_ms)?;
        let (org, user) = (&caller.org, &caller.user);
        let code = (proving.only, self.code.as_str());
        let id = factors::use_code(org, gateway.totps(), user, code, now_ms).await?;
        proving.complete(id).await
    }
}

impl FactorsRecord {
    /// What is known of a factor, but for when it was proven.
    fn standing(&self, id: FactorId) -> FactorStanding {
        let id = id.to_bytes();
        let app = self.totps.iter().find(|app| app.id == id);
        let app = app.map(|app| FactorStanding {
            enrolled_ms: app.begun_ms,
            ..FactorStanding::default()
        });
        let key = self.credentials.iter().find(|key| key.id == id);
        let key = key.map(|key| FactorStanding {
            enrolled_ms: key.begun_ms,
            name: key.name.clone(),
            cloned_ms: key.cloned_ms,
            ..FactorStanding::default()
        });
        let phone = self.phones.iter().find(|phone| phone.id == id);
        let phone = phone.map(|phone| FactorStanding {
            enrolled_ms: phone.begun_ms,
            ..FactorStanding::default()
        });
        app.or(key).or(phone).unwrap_or_default()
    }
}

impl Serve for PasswordProveStart {
    type Caller = EnrolledDevice;

    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<LoginStarted, Refusal> {
        let (org, user) = (&caller.org, &caller.user);
        let subject = Subject::Device(caller.device);
        let now_ms = gateway.now_ms();
        let throttle = gateway.throttle();
        throttle.count(org, subject, PASSWORD, now_ms).await?;
        login::start(gateway, org, user, &self.opaque_request).await
    }
}

impl Serve for PasswordProve {
    type Caller = EnrolledDevice;

    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<FactorProven, Refusal> {
        let now_ms = gateway.now_ms();
        let (org, user) =
            gateway
                .passwords()
                .finish_login(&self.login, &self.opaque_finalization, now_ms)?;
        if (&org, &user) != (caller.org.name(), &caller.user) {
            return Err(Refusal::WrongPassword);
        }
        let subject = Subject::Device(caller.device);
        gateway.throttle().forgive(&caller.org, subject).await?;
        proofs::remember(&caller.org, caller.device, Which::Password, now_ms).await?;
        Ok(FactorProven { proven_ms: now_ms })
    }
}

impl Serve for FactorRemove {
    type Caller = EnrolledDevice;

    /// One of the caller's own, or anyone's when the caller manages the org:
    /// who lost theirs has to ask. The secret goes first, so that what the
    /// directory calls removed can never be proven again.
    async fn serve(self, gateway: &Gateway, caller: EnrolledDevice) -> Result<FactorGone, Refusal> {
        let id = FactorId::try_from(&self.id)?;
        let now_ms = gateway.now_ms();
        let (org, by) = (&caller.org, caller.by());
        let state = org.newest().await?;
        let user = factors::user_of(&state, &caller.user, id).ok_or_else(|| {
            Refusal::NotFound(
                "there is no such factor, or it was removed: list those that there are".to_owned(),
            )
        })?;
        let remove = Command::RemoveFactor {
            user: user.clone(),
            id,
        };
        directory::decide(&state, &by, remove.clone(), now_ms)?;
        factors::forget(org, &user, id).await?;
        org.append(&by, remove, now_ms).await?;
        Ok(FactorGone {})
    }
}

impl Serve for FactorsRequest {
    type Caller = EnrolledDevice;

    async fn serve(self, _: &Gateway, caller: EnrolledDevice) -> Result<Factors, Refusal> {
        let state = caller.org.state()?;
        let proofs = Proofs::of(&caller.org, &caller.user, caller.device).await?;
        let proven_ms = |factor, id: &[u8]| proofs.proven_ms(factor, id).unwrap_or_default();
        let password = FactorStanding {
            factor: wire::Factor::Password.into(),
            proven_ms: proven_ms(wire::Factor::Password, &[]),
            ..FactorStanding::default()
        };
        let stored = factors::stored(&caller.org, &caller.user).await?;
        let others = factors::enrolled(&state, &caller.user).map(|(id, factor)| {
            let factor = wire::Factor::from(factor);
            FactorStanding {
                factor: factor.into(),
                id: id.to_bytes(),
                proven_ms: proven_ms(factor, id.as_bytes()),
                ..stored.standing(id)
            }
        });
        Ok(Factors {
            factors: std::iter::once(password).chain(others).collect(),
        })
    }
}
