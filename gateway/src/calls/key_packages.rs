//! Key packages: devices leave them here, members take one per device out to
//! add it to a room.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sotto_jwt_accounts::directory::{Device, Scope};
use sotto_jwt_accounts::policy::{self, Invite, Read};
use sotto_proto::wire::{
    ClaimedKeyPackage, KeyPackagesClaim, KeyPackagesClaimed, KeyPackagesUpload, KeyPackagesUploaded,
};
use sotto_proto::{DeviceId, RoomId};

use crate::caller::EnrolledDevice;
use crate::gateway::Gateway;
use crate::grant;
use crate::http::Serve;
use crate::org::Org;
use crate::records::KeyPackagesRecord;
use crate::refusal::Refusal;

/// Devices of one claim; the answer stays within an HTTP body.
const CLAIM: usize = 100;
/// How many are taken out at a time.
const CLAIM_AT_ONCE: usize = 8;

impl Serve for KeyPackagesUpload {
    type Caller = EnrolledDevice;

    async fn serve(
        self,
        _: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<KeyPackagesUploaded, Refusal> {
        let decide = |stored: Option<KeyPackagesRecord>| {
            let mut record = stored.unwrap_or_default();
            record.add(&self)?;
            let unused = record.count();
            Ok((Some(record), KeyPackagesUploaded { unused }))
        };
        let bucket = &caller.org.buckets().key_packages;
        bucket.change(&caller.device.to_string(), decide).await
    }
}

impl Serve for KeyPackagesClaim {
    type Caller = EnrolledDevice;

    /// Judged with what the caller has proven: they read the room, and to add
    /// another's device they may invite there. A device that is not enrolled, whose user has no role in the room, or
    /// that has left nothing here, is not in the answer.
    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<KeyPackagesClaimed, Refusal> {
        let org = &caller.org;
        let room = RoomId::try_from(&self.room)?;
        if self.devices.len() > CLAIM {
            return Err(Refusal::malformed("number of devices"));
        }
        let devices = self.devices.iter().map(DeviceId::try_from);
        let devices: BTreeSet<DeviceId> = devices.collect::<Result<_, _>>()?;
        let state = org.newest().await?;
        let now_ms = gateway.now_ms();
        let asking = caller.asking(now_ms);
        let may_read = policy::check(&state, asking, Read, &room)?;
        let found = devices.into_iter().filter_map(|id| state.device(id));
        let found: Vec<&Device> = found.collect();
        let is_own = |device: &Device| device.certificate.user == caller.user;
        if !found.iter().all(|device| is_own(device)) {
            let _may_add = policy::check(&state, asking, Invite, &Scope::Room(room))?;
        }
        let mut grants = Vec::with_capacity(found.len());
        for device in found {
            let permit = if is_own(device) {
                may_read.clone()
            } else {
                // What they have proven counts when they want to read.
                let user = &device.certificate.user;
                let Ok(permit) = policy::standing(&state, user, now_ms, Read, &room) else {
                    continue;
                };
                permit
            };
            let signed = grant::join(&state, &permit, device, gateway.key(), now_ms)?;
            grants.push((device.certificate.device, signed));
        }
        let claims = grants.into_iter().map(async |(device, grant)| {
            let package = take(org, device).await?;
            Ok::<_, Refusal>(package.map(|key_package| ClaimedKeyPackage {
                device: device.to_bytes(),
                key_package,
                grant: Some(grant),
            }))
        });
        let packages: Vec<Option<ClaimedKeyPackage>> = stream::iter(claims)
            .buffered(CLAIM_AT_ONCE)
            .try_collect()
            .await?;
        Ok(KeyPackagesClaimed {
            packages: packages.into_iter().flatten().collect(),
        })
    }
}

/// Takes one package of the device out. When this fails one may be lost, but
/// none is ever given to two.
async fn take(org: &Org, device: DeviceId) -> Result<Option<Bytes>, Refusal> {
    let decide = |stored: Option<KeyPackagesRecord>| {
        let mut record = stored.unwrap_or_default();
        Ok(match record.take() {
            Some((package, true)) => (Some(record), Some(package)),
            Some((last_resort, false)) => (None, Some(last_resort)),
            None => (None, None),
        })
    };
    let bucket = &org.buckets().key_packages;
    bucket.change(&device.to_string(), decide).await
}
