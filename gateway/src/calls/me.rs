//! What a device must know: its user's rooms and devices, other users' keys,
//! and its NATS JWT.

use std::time::Duration;

use prost::Message;
use sotto_jwt_accounts::directory::{Scope, State};
use sotto_jwt_accounts::policy;
use sotto_proto::wire::{self, Jwt, JwtRequest, Me, MeRequest, Signed, UserRequest, WithheldRoom};
use sotto_proto::{UserName, signed};

use crate::caller::EnrolledDevice;
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::records::KeyPackagesRecord;
use crate::refusal::Refusal;

impl Serve for MeRequest {
    type Caller = EnrolledDevice;

    async fn serve(self, gateway: &Gateway, caller: EnrolledDevice) -> Result<Me, Refusal> {
        let EnrolledDevice {
            org, user, device, ..
        } = caller;
        let buckets = org.buckets();
        let packages: Option<KeyPackagesRecord> =
            buckets.key_packages.get(&device.to_string()).await?;
        let state = org.state()?;
        let log = org.directory().log();
        let mut interventions = Vec::new();
        for index in state.interventions(gateway.now_ms()) {
            let entry = log.entries(index, 0).await.map_err(Refusal::unavailable)?;
            let entry = entry.first().ok_or(Refusal::Unavailable)?;
            let entry = Signed::decode(entry.as_ref()).map_err(Refusal::unavailable)?;
            interventions.push(entry);
        }
        let rooms = state.rooms_of(&user);
        let projects = state.projects().map(|(project, _)| project);
        let projects = projects.filter(|project| {
            let scope = Scope::Project((*project).clone());
            state.effective_role(&user, &scope).is_some()
        });
        Ok(Me {
            org: org.name().to_string(),
            user: user.to_string(),
            rooms: rooms.iter().map(|room| (&room.address).into()).collect(),
            devices: describe(&state, &user)?.devices,
            projects: projects.map(ToString::to_string).collect(),
            key_packages: packages.map_or(0, |packages| packages.count()),
            interventions,
        })
    }
}

impl Serve for JwtRequest {
    type Caller = EnrolledDevice;

    /// The time is taken before the directory is asked for its newest state: a
    /// JWT that still grants what is taken back meanwhile is as old as that, and
    /// void with the others.
    async fn serve(self, gateway: &Gateway, caller: EnrolledDevice) -> Result<Jwt, Refusal> {
        let mut now_ms = gateway.now_ms();
        let mut state = caller.org.newest().await?;
        // NATS counts in seconds: one issued in the second of a restriction is
        // void with those from before it.
        let restricted_ms = state.restricted_at_ms(&caller.user);
        if restricted_ms.map(second) >= Some(second(now_ms)) {
            tokio::time::sleep(until_next_second(now_ms)).await;
            now_ms = gateway.now_ms();
            state = caller.org.newest().await?;
        }
        let access = policy::nats_access(&state, caller.device, &caller.proven, now_ms)?;
        let signed = caller.org.signer().device_jwt(&access, now_ms);
        let signed = signed.map_err(Refusal::unavailable)?;
        let gated = access.rooms().iter().filter(|room| room.gated);
        let withheld = access.withheld().iter();
        Ok(Jwt {
            jwt: signed.jwt,
            expires_ms: signed.expires_ms,
            now_ms,
            rooms: access
                .rooms()
                .iter()
                .map(|room| (&room.address).into())
                .collect(),
            gated_rooms: gated.map(|room| room.address.room.to_bytes()).collect(),
            withheld: withheld
                .map(|(address, denied)| WithheldRoom {
                    room: Some(address.into()),
                    missing: denied.missing().iter().map(Into::into).collect(),
                })
                .collect(),
        })
    }
}

fn second(at_ms: i64) -> i64 {
    at_ms.div_euclid(1_000)
}

fn until_next_second(now_ms: i64) -> Duration {
    let into_it = u64::try_from(now_ms.rem_euclid(1_000)).unwrap_or_default();
    Duration::from_millis(1_000 - into_it)
}

impl Serve for UserRequest {
    type Caller = EnrolledDevice;

    /// Every member of an org may look up every other: that is how keys are
    /// known and compared.
    async fn serve(self, _: &Gateway, caller: EnrolledDevice) -> Result<wire::User, Refusal> {
        let state = caller.org.state()?;
        describe(&state, &self.user.parse()?)
    }
}

/// A user as others see them.
///
/// # Errors
/// [`Refusal::NotFound`].
pub fn describe(state: &State, user: &UserName) -> Result<wire::User, Refusal> {
    let found = state.user(user);
    let found = found.and_then(|found| Some((found, found.identity_key?)));
    let (found, identity_key) = found.ok_or_else(|| {
        Refusal::NotFound(format!(
            "there is no user `{user}`: check the spelling, or invite them to sign up"
        ))
    })?;
    Ok(wire::User {
        user: user.to_string(),
        identity_key: signed::key_bytes(&identity_key),
        devices: found
            .devices()
            .map(|device| device.signed.clone())
            .collect(),
    })
}
