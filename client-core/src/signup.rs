//! Signing up: an invitation, a user name and a password become an account.
//! The password never leaves the device (OPAQUE registration, RFC 9807); the
//! identity key and the device's keys are drawn here.

use ed25519_dalek::SigningKey;
use opaque_ke::{ClientRegistration, ClientRegistrationFinishParameters, RegistrationResponse};
use rand::{CryptoRng, RngCore};
use sotto_proto::password::PasswordSuite;
use sotto_proto::{InviteLink, UserName, wire};
use zeroize::Zeroizing;

use crate::account::{Account, AccountError, DeviceKeys, UserOf};
use crate::identity_backup;
use crate::io::Timestamp;

/// Waiting for the gateway's first answer.
pub struct Starting {
    link: InviteLink,
    user: UserName,
    password: Zeroizing<Vec<u8>>,
    state: ClientRegistration<PasswordSuite>,
}

/// Begins; the request goes to the gateway.
///
/// # Errors
/// [`AccountError::EmptyPassword`], or when OPAQUE refuses the password.
pub fn start(
    link: &InviteLink,
    user: UserName,
    password: &str,
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<(Starting, wire::SignupStart), AccountError> {
    if password.is_empty() {
        return Err(AccountError::EmptyPassword);
    }
    let started = ClientRegistration::start(rng, password.as_bytes())
        .map_err(|_| AccountError::WrongPassword)?;
    let request = wire::SignupStart {
        org: link.gateway.org.to_string(),
        invite: link.invite.to_bytes(),
        user: user.to_string(),
        opaque_request: started.message.serialize().to_vec().into(),
    };
    let password = Zeroizing::new(password.as_bytes().to_vec());
    Ok((
        Starting {
            link: link.clone(),
            user,
            password,
            state: started.state,
        },
        request,
    ))
}

impl Starting {
    /// Draws all keys. The account must be durable before the request is sent:
    /// what it enrols could not be used otherwise.
    ///
    /// # Errors
    /// [`AccountError::Server`] when the answer makes no sense.
    pub fn finish(
        self,
        answer: &wire::SignupStarted,
        server: &wire::ServerInfo,
        now: Timestamp,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<(Account, wire::SignupFinish), AccountError> {
        let nonsense = |_| AccountError::Server("its password proof does not read");
        let answer =
            RegistrationResponse::deserialize(&answer.opaque_response).map_err(nonsense)?;
        let parameters = ClientRegistrationFinishParameters::default();
        let finished = self
            .state
            .finish(rng, &self.password, answer, parameters)
            .map_err(nonsense)?;

        let gateway = self.link.gateway;
        let identity = SigningKey::generate(rng);
        let keys = DeviceKeys::generate(rng);
        let user = UserOf {
            org: &gateway.org,
            user: &self.user,
            identity: &identity,
        };
        let certificate = keys.certificate(user, now);
        let request = wire::SignupFinish {
            org: gateway.org.to_string(),
            invite: self.link.invite.to_bytes(),
            user: self.user.to_string(),
            opaque_upload: finished.message.serialize().to_vec().into(),
            identity_backup: identity_backup::seal(
                &Zeroizing::new(finished.export_key.to_vec()),
                &gateway.org,
                &self.user,
                &identity,
                rng,
            )?,
            certificate: Some(certificate.clone()),
        };
        Ok((
            Account::new(gateway, server, identity, keys, certificate)?,
            request,
        ))
    }
}
