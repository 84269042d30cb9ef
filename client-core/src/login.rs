//! Logging in with a password (OPAQUE, RFC 9807): proves it without sending
//! it, and recovers the user's identity key on a device that has none.

use bytes::Bytes;
use opaque_ke::{ClientLogin, ClientLoginFinishParameters, CredentialResponse};
use rand::{CryptoRng, RngCore};
use sotto_proto::password::{CONTEXT, PasswordSuite};
use sotto_proto::{GatewayAddress, UserName, wire};
use zeroize::Zeroizing;

use crate::account::{Account, AccountError, DeviceKeys, UserOf};
use crate::identity_backup;
use crate::io::Timestamp;

/// Waiting for the gateway's first answer.
pub struct Starting {
    gateway: GatewayAddress,
    user: UserName,
    password: Zeroizing<Vec<u8>>,
    state: ClientLogin<PasswordSuite>,
}

/// The password was right; waiting for the session and the backup.
pub struct Finishing {
    gateway: GatewayAddress,
    user: UserName,
    export_key: Zeroizing<Vec<u8>>,
}

/// Begins; the request goes to the gateway.
///
/// # Errors
/// [`AccountError::EmptyPassword`], or when OPAQUE refuses the password.
pub fn start(
    gateway: &GatewayAddress,
    user: UserName,
    password: &str,
    rng: &mut (impl RngCore + CryptoRng),
) -> Result<(Starting, wire::LoginStart), AccountError> {
    if password.is_empty() {
        return Err(AccountError::EmptyPassword);
    }
    let started =
        ClientLogin::start(rng, password.as_bytes()).map_err(|_| AccountError::WrongPassword)?;
    let request = wire::LoginStart {
        org: gateway.org.to_string(),
        user: user.to_string(),
        opaque_request: started.message.serialize().to_vec().into(),
    };
    let password = Zeroizing::new(password.as_bytes().to_vec());
    Ok((
        Starting {
            gateway: gateway.clone(),
            user,
            password,
            state: started.state,
        },
        request,
    ))
}

impl Starting {
    /// Proves the password; the request goes to the gateway.
    ///
    /// # Errors
    /// [`AccountError::WrongPassword`] also for a user that does not exist.
    pub fn finish(
        self,
        answer: &wire::LoginStarted,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<(Finishing, wire::LoginFinish), AccountError> {
        let (gateway, user) = (self.gateway.clone(), self.user.clone());
        let (opaque_finalization, export_key) = self.opaque_finish(answer, rng)?;
        let request = wire::LoginFinish {
            login: answer.login.clone(),
            opaque_finalization,
        };
        Ok((
            Finishing {
                gateway,
                user,
                export_key,
            },
            request,
        ))
    }

    /// Proves the password as a factor of a device that is enrolled already;
    /// the request goes to the gateway with that device's session.
    ///
    /// # Errors
    /// [`AccountError::WrongPassword`].
    pub fn prove(
        self,
        answer: &wire::LoginStarted,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<wire::PasswordProve, AccountError> {
        let (opaque_finalization, _) = self.opaque_finish(answer, rng)?;
        Ok(wire::PasswordProve {
            login: answer.login.clone(),
            opaque_finalization,
        })
    }

    /// OPAQUE's last message, and the export key.
    fn opaque_finish(
        self,
        answer: &wire::LoginStarted,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<(Bytes, Zeroizing<Vec<u8>>), AccountError> {
        let response = CredentialResponse::deserialize(&answer.opaque_response)
            .map_err(|_| AccountError::Server("its password proof does not read"))?;
        let parameters = ClientLoginFinishParameters {
            context: Some(CONTEXT),
            ..ClientLoginFinishParameters::default()
        };
        let finished = self
            .state
            .finish(rng, &self.password, response, parameters)
            .map_err(|_| AccountError::WrongPassword)?;
        let export_key = Zeroizing::new(finished.export_key.to_vec());
        Ok((finished.message.serialize().to_vec().into(), export_key))
    }
}

impl Finishing {
    /// Makes an account for a new device of the user, who then posts its
    /// [`Account::enrolment`] with the session of the login.
    ///
    /// # Errors
    /// [`AccountError::Server`] when the backup does not open.
    pub fn new_device(
        self,
        answer: &wire::LoginFinished,
        server: &wire::ServerInfo,
        now: Timestamp,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<Account, AccountError> {
        let Self {
            gateway,
            user,
            export_key,
        } = self;
        let identity =
            identity_backup::open(&export_key, &gateway.org, &user, &answer.identity_backup)?;
        let keys = DeviceKeys::generate(rng);
        let owner = UserOf {
            org: &gateway.org,
            user: &user,
            identity: &identity,
        };
        let certificate = keys.certificate(owner, now);
        Account::new(gateway, server, identity, keys, certificate)
    }
}
