//! Keeping the public key of open rooms up to date.

use sotto_jwt_accounts::policy::{self, Post};
use sotto_proto::wire::{GroupInfoPut, GroupInfoStored, JoinRule};
use sotto_proto::{RoomId, limits};

use crate::caller::EnrolledDevice;
use crate::gateway::Gateway;
use crate::group_infos::{self, PublicKey};
use crate::http::Serve;
use crate::refusal::Refusal;

impl Serve for GroupInfoPut {
    type Caller = EnrolledDevice;
    const BODY: usize = limits::RATCHET_TREE + limits::HTTP_BODY;

    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<GroupInfoStored, Refusal> {
        let room = RoomId::try_from(&self.room)?;
        let state = caller.org.state()?;
        let asking = caller.asking(gateway.now_ms());
        let permit = policy::check(&state, asking, Post, &room)?;
        let found = state.room(room).ok_or(Refusal::Unavailable)?;
        if found.join_rule != JoinRule::Open {
            return Err(Refusal::Denied(
                "this room is not open, so its public key is not kept".to_owned(),
            ));
        }
        let key = PublicKey {
            epoch: self.epoch,
            commit_sequence: self.commit_sequence,
            group_info: self.group_info,
            ratchet_tree: self.ratchet_tree,
        };
        let org = caller.org;
        // A task of its own: a client that hangs up must not leave chunks behind.
        let storing = tokio::spawn(async move { group_infos::store(&org, &permit, &key).await });
        storing.await.map_err(Refusal::unavailable)??;
        Ok(GroupInfoStored {})
    }
}
