//! Making user JWTs in the name of an org's accounts.

use std::fmt;

use nkeys::KeyPair;
use sotto_proto::limits;
use zeroize::Zeroizing;

use crate::accounts::Role;
use crate::claims::{Claims, ClaimsError, Rights, User};
use crate::credentials::Credentials;
use crate::grants;
use crate::policy::NatsAccess;

/// The year 2200, in ms since 1970. nats-server takes a JWT of the future.
const AHEAD_MS: i64 = 7_258_118_400_000;

/// Signs the users of an org: devices in the devices' account, gateways in the
/// org's own, relays in both.
#[derive(Debug)]
pub struct AccountSigner {
    pub(crate) relay: Signer,
    pub(crate) gateway: Signer,
    pub(crate) device: Signer,
    pub(crate) relay_of_devices: Signer,
}

/// An account's signing key. `Debug` shows only whose it is.
pub(crate) struct Signer {
    pub account: String,
    pub key: KeyPair,
}

/// What a device connects with, beside its own nkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceJwt {
    /// The JWT.
    pub jwt: String,
    /// Void from then on, in ms since 1970.
    pub expires_ms: i64,
}

impl AccountSigner {
    /// Public key of the org's account, which holds its streams.
    pub fn account(&self) -> &str {
        &self.relay.account
    }

    /// Public key of the account that devices are users of.
    pub fn device_account(&self) -> &str {
        &self.device.account
    }

    /// What a device may do for the next hour at most: for as long as all that
    /// it may is permitted.
    ///
    /// # Errors
    /// When the device's certificate names no NATS user key.
    pub fn device_jwt(&self, access: &NatsAccess, now_ms: i64) -> Result<DeviceJwt, ClaimsError> {
        let certificate = access.certificate();
        let now_s = now_ms.div_euclid(1_000);
        let lifetime = i64::try_from(limits::JWT.as_secs()).unwrap_or(i64::MAX);
        let permitted_s = access.expires_ms().div_euclid(1_000);
        let expires_s = now_s.saturating_add(lifetime).min(permitted_s);
        let claims = Claims {
            subject: certificate.nats_key.clone(),
            // The device's id; who the user is does not concern nats-server.
            name: certificate.device.to_string(),
            expires_s: Some(expires_s),
            nats: User {
                issuer_account: self.device.account.clone(),
                rights: Some(grants::device(certificate.device, access.rooms())),
            },
        };
        Ok(DeviceJwt {
            jwt: claims.sign(&self.device.key, now_s)?,
            expires_ms: expires_s.saturating_mul(1_000),
        })
    }

    /// Credentials, with a new nkey, of a relay in the org's account.
    ///
    /// # Errors
    /// When the signing key does not sign.
    pub fn relay(&self, now_ms: i64) -> Result<Credentials, ClaimsError> {
        self.relay.credentials(Role::Relay, None, now_ms)
    }

    /// Credentials, with a new nkey, of a relay in the devices' account. They
    /// are dated ahead: when every JWT issued until now is made void there,
    /// because too many devices are meant to name each, the relay stays.
    ///
    /// # Errors
    /// When the signing key does not sign.
    pub fn relay_of_devices(&self) -> Result<Credentials, ClaimsError> {
        self.relay_of_devices
            .credentials(Role::Relay, None, AHEAD_MS)
    }

    /// Credentials, with a new nkey, of a user of the devices' account who may do
    /// this. They do not expire: for whoever watches what a server sees.
    ///
    /// # Errors
    /// When the signing key does not sign.
    pub fn user_of_devices(&self, rights: Rights, now_ms: i64) -> Result<Credentials, ClaimsError> {
        self.device.credentials(Role::Device, Some(rights), now_ms)
    }

    /// Credentials, with a new nkey, of a gateway.
    ///
    /// # Errors
    /// When the signing key does not sign.
    pub fn gateway(&self, now_ms: i64) -> Result<Credentials, ClaimsError> {
        self.gateway.credentials(Role::Gateway, None, now_ms)
    }
}

impl Signer {
    /// Signs a user with a new nkey, who may do this or, with nothing said, what
    /// the key's role may do, and whose JWT does not expire.
    pub(crate) fn credentials(
        &self,
        role: Role,
        rights: Option<Rights>,
        now_ms: i64,
    ) -> Result<Credentials, ClaimsError> {
        let key = KeyPair::new_user();
        let claims = Claims {
            subject: key.public_key(),
            name: role.name().to_owned(),
            expires_s: None,
            nats: User {
                issuer_account: self.account.clone(),
                rights,
            },
        };
        let jwt = claims.sign(&self.key, now_ms.div_euclid(1_000))?;
        let seed = Zeroizing::new(key.seed().map_err(ClaimsError::Sign)?);
        Ok(Credentials::new(jwt, seed))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}
