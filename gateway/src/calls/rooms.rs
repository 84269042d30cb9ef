//! Making rooms, letting users in, joining open ones, and saying which are lost.

use sotto_jwt_accounts::directory::{Command, Holder, Role, Scope, State};
use sotto_jwt_accounts::policy::{self, Read};
use sotto_proto::signed::RemovalOrder;
use sotto_proto::wire::{
    JoinRule, RoomCreate, RoomCreated, RoomGrant, RoomGranted, RoomJoin, RoomJoinable, RoomsCheck,
    RoomsChecked,
};
use sotto_proto::{ProjectName, RoomId, UserName, limits};

use super::me;
use crate::caller::EnrolledDevice;
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::refusal::Refusal;
use crate::{grant, group_infos};

impl Serve for RoomCreate {
    type Caller = EnrolledDevice;

    /// May be repeated, as its answer may get lost: who owns just this room
    /// gets the same answer.
    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<RoomCreated, Refusal> {
        let (org, user) = (&caller.org, &caller.user);
        let room = RoomId::try_from(&self.room)?;
        let project: ProjectName = self.project.parse()?;
        let join_rule =
            JoinRule::try_from(self.join_rule).map_err(|_| Refusal::malformed("join rule"))?;
        let again = |state: &State| {
            let made = state
                .room(room)
                .is_some_and(|made| made.address.project == project && made.join_rule == join_rule);
            made && state.granted_role(user, &Scope::Room(room)) == Some(Role::Owner)
        };
        let mut state = org.state()?;
        if !again(&state) {
            let create = Command::CreateRoom {
                room,
                project: project.clone(),
                join_rule,
                shards: gateway.server().shards,
            };
            state = org.append(&caller.by(), create, gateway.now_ms()).await?;
        }
        let made = state.room(room).ok_or(Refusal::Unavailable)?;
        Ok(RoomCreated {
            address: Some((&made.address).into()),
        })
    }
}

impl Serve for RoomGrant {
    type Caller = EnrolledDevice;

    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<RoomGranted, Refusal> {
        let room = RoomId::try_from(&self.room)?;
        let role = self.role().try_into()?;
        let user: UserName = self.user.parse()?;
        let grant = Command::GrantRole {
            holder: Holder::User(user.clone()),
            scope: Scope::Room(room),
            role,
        };
        let now_ms = gateway.now_ms();
        let state = caller.org.append(&caller.by(), grant, now_ms).await?;
        Ok(RoomGranted {
            user: Some(me::describe(&state, &user)?),
        })
    }
}

impl Serve for RoomJoin {
    type Caller = EnrolledDevice;

    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<RoomJoinable, Refusal> {
        let org = &caller.org;
        let room = RoomId::try_from(&self.room)?;
        let now_ms = gateway.now_ms();
        let join = Command::JoinRoom { room };
        org.append(&caller.by(), join, now_ms).await?;
        let state = org.newest().await?;
        let permit = policy::check(&state, caller.asking(now_ms), Read, &room)?;
        let found = state.room(room).ok_or(Refusal::Unavailable)?;
        if found.join_rule != JoinRule::Open {
            return Err(Refusal::Denied(
                "this room is not open: ask one of its owners to add you".to_owned(),
            ));
        }
        let device = state.device(caller.device).ok_or(Refusal::SessionExpired)?;
        let grant = grant::join(&state, &permit, device, gateway.key(), now_ms)?;
        let key = group_infos::find(org, &permit).await?.ok_or_else(|| {
            Refusal::NotYet(
                "no member of the room has stored its public key yet: try again when one was online"
                    .to_owned(),
            )
        })?;
        Ok(RoomJoinable {
            address: Some((&found.address).into()),
            group_info: key.group_info,
            ratchet_tree: key.ratchet_tree,
            commit_sequence: key.commit_sequence,
            grant: Some(grant),
        })
    }
}

impl Serve for RoomsCheck {
    type Caller = EnrolledDevice;

    /// An order to whom it names does no harm to anybody else, and says the
    /// same as the one in the room's stream, which the caller may not read.
    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<RoomsChecked, Refusal> {
        if self.rooms.len() > limits::FETCH_ROOMS {
            return Err(Refusal::malformed("number of rooms"));
        }
        let (org, user) = (&caller.org, &caller.user);
        let state = org.newest().await?;
        let device = state.device(caller.device).ok_or(Refusal::SessionExpired)?;
        let at_ms = gateway.now_ms();
        let mut removal_orders = Vec::new();
        for room in &self.rooms {
            let room = RoomId::try_from(room)?;
            let role = state.granted_role(user, &Scope::Room(room));
            if role.is_none() && state.was_room(room) {
                let order = RemovalOrder {
                    org: org.name().clone(),
                    room,
                    user: user.clone(),
                    identity_key: device.certificate.identity_key,
                    device: None,
                    at_ms,
                };
                removal_orders.push(order.sign(gateway.key()));
            }
        }
        Ok(RoomsChecked { removal_orders })
    }
}
