//! Ending guests whose time is over. From that time on the policy denies them
//! everything; what is done here takes their devices, roles and places in rooms.

use std::sync::Arc;
use std::time::Duration;

use sotto_jwt_accounts::directory::{Actor, By, Command, State, UserStatus};
use sotto_proto::UserName;
use sotto_service::consul::Turn;
use tokio::time::{MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::org::Org;
use crate::refusal::Refusal;

/// How often it is looked whether somebody's time is over.
const SWEEP: Duration = Duration::from_secs(60);

/// Looks once a minute whenever it is this gateway's turn, for ever.
pub async fn sweep(org: Arc<Org>, clock: Arc<dyn Clock>, mut turn: Turn) {
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !turn.is_mine() {
            continue;
        }
        if let Err(error) = revoke_those_over(&org, clock.now_ms()).await {
            let status = error.status().as_u16();
            sotto_log::warn!(status, "a guest whose time is over was not revoked");
        }
    }
}

/// Revokes every guest whose time is over. Several gateways may do it at once:
/// the directory revokes nobody twice.
///
/// # Errors
/// When the directory cannot be written; those that are left come next time.
pub async fn revoke_those_over(org: &Org, now_ms: i64) -> Result<(), Refusal> {
    for user in over(&*org.state()?, now_ms) {
        let revoke = Command::RevokeUser { user };
        org.append(&By::from(Actor::Gateway), revoke, now_ms)
            .await?;
    }
    Ok(())
}

fn over(state: &State, now_ms: i64) -> Vec<UserName> {
    let users = state.users();
    let living = users.filter(|(_, user)| user.status != UserStatus::Revoked);
    let over = living.filter(|(_, user)| user.guest_until_ms.is_some_and(|until| until < now_ms));
    over.map(|(name, _)| name.clone()).collect()
}
