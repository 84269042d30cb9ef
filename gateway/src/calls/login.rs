//! Logging in: by password, in two calls, or by proof of a device's key.

use prost::Message;
use rand::rngs::OsRng;
use sotto_proto::wire::{
    LoginFinish, LoginFinished, LoginStart, LoginStarted, Session, SessionOpen, SessionStatement,
};
use sotto_proto::{DeviceId, UserName, limits, signed};

use crate::caller::Anyone;
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::refusal::Refusal;
use crate::sessions::Opened;
use crate::{accounts, sessions};

impl Serve for LoginStart {
    type Caller = Anyone;
    const COST: u32 = 10;

    /// Answers alike whether or not there is such a user.
    async fn serve(self, gateway: &Gateway, _: Anyone) -> Result<LoginStarted, Refusal> {
        let org = gateway.org(&self.org)?;
        let user: UserName = self.user.parse()?;
        let account = accounts::find(org, &user).await?;
        let (login, opaque_response) = gateway.passwords().start_login(
            (org.name(), &user),
            account
                .as_ref()
                .map(|account| account.registration.as_ref()),
            &self.opaque_request,
            gateway.now_ms(),
            &mut OsRng,
        )?;
        Ok(LoginStarted {
            login,
            opaque_response,
        })
    }
}

impl Serve for LoginFinish {
    type Caller = Anyone;

    async fn serve(self, gateway: &Gateway, _: Anyone) -> Result<LoginFinished, Refusal> {
        let now_ms = gateway.now_ms();
        let (org, user) =
            gateway
                .passwords()
                .finish_login(&self.login, &self.opaque_finalization, now_ms)?;
        let org = gateway.org(org.as_str())?;
        let account = accounts::find(org, &user).await?;
        let account = account.ok_or(Refusal::WrongPassword)?;
        Ok(LoginFinished {
            session: Some(
                sessions::open(org, &user, Opened::Password { at_ms: now_ms }, now_ms).await?,
            ),
            identity_backup: account.identity_backup,
        })
    }
}

impl Serve for SessionOpen {
    type Caller = Anyone;

    async fn serve(self, gateway: &Gateway, _: Anyone) -> Result<Session, Refusal> {
        let signed = self.statement.unwrap_or_default();
        // Read once to learn whose key to check it with, believed only then.
        let claimed =
            SessionStatement::decode(signed.statement.clone()).map_err(Refusal::malformed)?;
        let org = gateway.org(&claimed.org)?;
        let device = DeviceId::try_from(&claimed.device)?;
        let state = org.state_where(|state| state.device(device).is_some());
        let state = state.await?.ok_or_else(not_enrolled)?;
        let device = state.device(device).ok_or_else(not_enrolled)?;
        let statement: SessionStatement =
            signed::verify(&signed, &device.certificate.signature_key)
                .map_err(|_| not_enrolled())?;
        if statement.server_name != gateway.server().name {
            return Err(Refusal::Denied(
                "the proof was made for another server: update Sotto and try again".to_owned(),
            ));
        }
        let now_ms = gateway.now_ms();
        let skew_ms = u128::from(now_ms.abs_diff(statement.now_ms));
        if skew_ms > limits::SESSION_SKEW.as_millis() {
            return Err(Refusal::ClockOff);
        }
        let certificate = &device.certificate;
        certificate.check_time(now_ms).map_err(|_| not_enrolled())?;
        let opened = Opened::Device(certificate.device);
        sessions::open(org, &certificate.user, opened, now_ms).await
    }
}

fn not_enrolled() -> Refusal {
    Refusal::Denied(
        "this device is not enrolled, or not any more: link it again from another device, \
         or log in with your password"
            .to_owned(),
    )
}
