//! The gateway's word that a device may be a member of a room.

use ed25519_dalek::SigningKey;
use sotto_jwt_accounts::directory::{Device, State};
use sotto_jwt_accounts::policy::{Permit, Read};
use sotto_proto::signed::JoinGrant;
use sotto_proto::{limits, wire};

use crate::refusal::Refusal;

/// Signs that `device`, one of the user's who holds the permit, may join, as
/// this state's policy has it.
///
/// # Errors
/// [`Refusal::Unavailable`] when the device is somebody else's.
pub fn join(
    state: &State,
    permit: &Permit<Read>,
    device: &Device,
    gateway: &SigningKey,
    now_ms: i64,
) -> Result<wire::Signed, Refusal> {
    let certificate = &device.certificate;
    if certificate.user != *permit.user() {
        return Err(Refusal::unavailable("a permit was used for another user"));
    }
    let lifetime_ms = i64::try_from(limits::JOIN_GRANT.as_millis()).unwrap_or(i64::MAX);
    let grant = JoinGrant {
        org: certificate.org.clone(),
        room: *permit.object(),
        user: certificate.user.clone(),
        device: certificate.device,
        identity_key: certificate.identity_key,
        policy_version: state.policy_version(permit.object()),
        not_after_ms: now_ms.saturating_add(lifetime_ms),
    };
    Ok(grant.sign(gateway))
}
