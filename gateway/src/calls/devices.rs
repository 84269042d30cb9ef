//! Enrolling a user's further devices.

use sotto_jwt_accounts::directory::{Actor, Command};
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::{DeviceEnrol, Session};

use crate::caller::LoggedIn;
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::refusal::Refusal;
use crate::sessions;

impl Serve for DeviceEnrol {
    type Caller = LoggedIn;

    /// The directory checks that the certificate is by the caller's identity
    /// key; so a stolen session alone enrols nothing.
    async fn serve(self, gateway: &Gateway, caller: LoggedIn) -> Result<Session, Refusal> {
        let LoggedIn { org, user, .. } = caller;
        let signed = self.certificate.unwrap_or_default();
        let certificate = DeviceCertificate::verify(&signed).map_err(Refusal::malformed)?;
        let now_ms = gateway.now_ms();
        let state = org.state()?;
        let enrolled = state.device(certificate.device);
        let again = enrolled
            .is_some_and(|device| device.signed == signed && device.certificate.user == user);
        if !again {
            let add = Command::AddDevice {
                certificate: signed,
            };
            org.append(Actor::User(user.clone()), add, now_ms).await?;
        }
        sessions::open(&org, &user, Some(certificate.device), now_ms).await
    }
}
