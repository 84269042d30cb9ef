//! How many device JWTs one core signs in a second.

use std::time::Instant;

use sotto_jwt_accounts::grants::Services;
use sotto_jwt_accounts::keystore::KeyStore;
use sotto_jwt_accounts::policy::{self, Proven};

use crate::figures::{Figures, Goal};
use crate::org::{NOW_MS, Org};

const JWTS: usize = 20_000;

pub(crate) fn measure(org: &Org, figures: &mut Figures) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let services = Services {
        shards: 1,
        buckets: &[],
    };
    let keys = KeyStore::create(&dir.path().join("accounts"), NOW_MS)?;
    keys.add_org(&org.name, services, NOW_MS)?;
    let signer = keys.account_signer(&org.name)?;
    let proven = Proven::all(NOW_MS);
    let devices: Vec<_> = org.devices().take(JWTS).collect();

    let started = Instant::now();
    let mut accesses = Vec::with_capacity(devices.len());
    for device in devices {
        accesses.push(policy::nats_access(&org.state, device, &proven, NOW_MS)?);
    }
    let decided = started.elapsed();
    let started = Instant::now();
    for access in &accesses {
        signer.device_jwt(access, NOW_MS)?;
    }
    let signed = started.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let per_second = |elapsed: std::time::Duration| accesses.len() as f64 / elapsed.as_secs_f64();
    let goal = Some(Goal::AtLeast(10_000.0));
    figures.note(
        "device JWTs signed, one core",
        per_second(signed),
        "/s",
        goal,
    );
    let both = per_second(signed + decided);
    figures.note("device JWTs decided and signed, one core", both, "/s", None);
    Ok(())
}
