//! Enrolling a user's further devices, and revoking them.

use sotto_jwt_accounts::directory::{Actor, By, Command};
use sotto_proto::DeviceId;
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire::{DeviceEnrol, DeviceGone, DeviceRevoke, Session};

use crate::caller::{EnrolledDevice, LoggedIn};
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::proofs::{self, Which};
use crate::records::{KeyPackagesRecord, VERSION};
use crate::refusal::Refusal;
use crate::sessions::{self, Opened};

impl Serve for DeviceEnrol {
    type Caller = LoggedIn;

    /// The directory checks that the certificate is by the caller's identity
    /// key; so a stolen session alone enrols nothing.
    async fn serve(self, gateway: &Gateway, caller: LoggedIn) -> Result<Session, Refusal> {
        let LoggedIn { org, user, opened } = caller;
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
            let by = By::from(Actor::User(user.clone()));
            org.append(&by, add, now_ms).await?;
        }
        let device = certificate.device;
        if let Opened::Password { at_ms } = opened {
            proofs::remember(&org, device, Which::Password, at_ms).await?;
        }
        sessions::open(&org, &user, Opened::Device(device), now_ms).await
    }
}

impl Serve for DeviceRevoke {
    type Caller = EnrolledDevice;

    /// From the directory's event on the device's sessions are refused, it gets
    /// no JWT, and its key packages are not handed out. All that follows the
    /// event is done again when the call is repeated.
    async fn serve(self, gateway: &Gateway, caller: EnrolledDevice) -> Result<DeviceGone, Refusal> {
        let org = &caller.org;
        let device = DeviceId::try_from(&self.device)?;
        let revoke = Command::RevokeDevice { device };
        let state = org.append(&caller.by(), revoke, gateway.now_ms()).await?;
        org.is_in_force(state.head().length).await?;
        let emptied = KeyPackagesRecord {
            version: VERSION,
            ..KeyPackagesRecord::default()
        };
        let discard = |stored: Option<KeyPackagesRecord>| {
            let left = stored.filter(|record| *record != emptied);
            Ok((left.map(|_| emptied.clone()), ()))
        };
        let bucket = &org.buckets().key_packages;
        bucket.change(&device.to_string(), discard).await?;
        Ok(DeviceGone {})
    }
}
