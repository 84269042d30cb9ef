//! Making user JWTs in the name of an org's accounts.

use std::fmt;

use nkeys::KeyPair;
use sotto_proto::limits;
use zeroize::Zeroizing;

use crate::claims::{Claims, ClaimsError, User};
use crate::credentials::Credentials;
use crate::grants;
use crate::policy::NatsAccess;

/// The year 2200, in ms since 1970. nats-server takes a JWT of the future.
const AHEAD_MS: i64 = 7_258_118_400_000;

/// Signs the users of an org: devices in the devices' account, the rest in the
/// org's own.
#[derive(Debug)]
pub struct AccountSigner {
    pub(crate) org: Signer,
    pub(crate) devices: Signer,
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
        &self.org.account
    }

    /// Public key of the account that devices are users of.
    pub fn device_account(&self) -> &str {
        &self.devices.account
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
            nats: grants::device(&self.devices.account, certificate.device, access.rooms()),
        };
        Ok(DeviceJwt {
            jwt: claims.sign(&self.devices.key, now_s)?,
            expires_ms: expires_s.saturating_mul(1_000),
        })
    }

    /// Credentials, with a new nkey, of a relay that may keep this many shards,
    /// in the org's account.
    ///
    /// # Errors
    /// When the signing key does not sign.
    pub fn relay(&self, shards: u8, now_ms: i64) -> Result<Credentials, ClaimsError> {
        self.credentials("relay", grants::relay(self.account(), shards), now_ms)
    }

    /// Credentials, with a new nkey, of a relay in the devices' account. They
    /// are dated ahead: when every JWT issued until now is made void there,
    /// because too many devices are meant to name each, the relay stays.
    ///
    /// # Errors
    /// When the signing key does not sign.
    pub fn relay_of_devices(&self) -> Result<Credentials, ClaimsError> {
        let user = grants::relay_of_devices(self.device_account());
        self.credentials_of_devices("relay", user, AHEAD_MS)
    }

    /// Credentials, with a new nkey, of a gateway with these key-value buckets.
    ///
    /// # Errors
    /// When the signing key does not sign.
    pub fn gateway(&self, buckets: &[&str], now_ms: i64) -> Result<Credentials, ClaimsError> {
        self.credentials("gateway", grants::gateway(self.account(), buckets), now_ms)
    }

    /// Credentials of a user of the org's account, with a new nkey, that do not
    /// expire.
    ///
    /// # Errors
    /// When the signing key does not sign.
    pub fn credentials(
        &self,
        name: &str,
        user: User,
        now_ms: i64,
    ) -> Result<Credentials, ClaimsError> {
        self.org.credentials(name, user, now_ms)
    }

    /// The same of a user of the devices' account.
    ///
    /// # Errors
    /// When the signing key does not sign.
    pub fn credentials_of_devices(
        &self,
        name: &str,
        user: User,
        now_ms: i64,
    ) -> Result<Credentials, ClaimsError> {
        self.devices.credentials(name, user, now_ms)
    }
}

impl Signer {
    /// Signs a user with a new nkey.
    pub(crate) fn credentials(
        &self,
        name: &str,
        user: User,
        now_ms: i64,
    ) -> Result<Credentials, ClaimsError> {
        let key = KeyPair::new_user();
        let claims = Claims {
            subject: key.public_key(),
            name: name.to_owned(),
            expires_s: None,
            nats: user,
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
