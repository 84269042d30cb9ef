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
use crate::org::Org;
use crate::refusal::Refusal;
use crate::sessions::Opened;
use crate::throttle::{PASSWORD, Subject};
use crate::{accounts, sessions};

impl Serve for LoginStart {
    type Caller = Anyone;
    const COST: u32 = 10;

    /// Answers alike whether or not there is such a user.
    async fn serve(self, gateway: &Gateway, _: Anyone) -> Result<LoginStarted, Refusal> {
        let org = gateway.org(&self.org)?;
        let user: UserName = self.user.parse()?;
        let subject = Subject::Account(&user);
        let now_ms = gateway.now_ms();
        let throttle = gateway.throttle();
        throttle.count(org, subject, PASSWORD, now_ms).await?;
        start(gateway, org, &user, &self.opaque_request).await
    }
}

/// Begins to prove a password, whether or not there is such a user. Counts
/// nothing: OPAQUE's answer tells who asks whether the password is right, so
/// each is a guess and must have been counted.
///
/// # Errors
/// [`Refusal::Malformed`], [`Refusal::Unavailable`].
pub async fn start(
    gateway: &Gateway,
    org: &Org,
    user: &UserName,
    opaque_request: &[u8],
) -> Result<LoginStarted, Refusal> {
    let account = accounts::find(org, user).await?;
    let registration = account.as_ref();
    let registration = registration.map(|account| account.registration.as_ref());
    let now_ms = gateway.now_ms();
    let who = (org.name(), user);
    let passwords = gateway.passwords();
    let started = passwords.start_login(who, registration, opaque_request, now_ms, &mut OsRng);
    let (login, opaque_response) = started?;
    Ok(LoginStarted {
        login,
        opaque_response,
    })
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
        let subject = Subject::Account(&user);
        gateway.throttle().forgive(org, subject).await?;
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
