//! Rooms that demand more than a role: withheld until it is proven, in the JWT
//! only as long as it counts, and joined only with it.

use std::time::Duration;

use sotto_gateway::clock::Clock;
use sotto_proto::signed::JoinGrant;
use sotto_proto::wire::directory_command::Ask;
use sotto_proto::wire::{
    ApiErrorCode, Demand, Factor, GroupInfoPut, JoinRule, Jwt, JwtRequest, Policy, PolicyAction,
    PolicySet, Role, RoleRevoked, RoomJoin, Scope, directory_event::Body, scope::Place,
};
use sotto_proto::{RoomId, limits};

use super::factors::App;
use super::nats::connect;
use super::person::Person;
use super::revocation::{Online, nats_key};
use super::server::{Server, code};

const HOURS_8: u32 = 8 * 3_600;

pub fn demand(factor: Factor, max_age_seconds: u32, actions: &[PolicyAction]) -> Demand {
    Demand {
        actions: actions.iter().map(|&action| action.into()).collect(),
        factor: factor.into(),
        max_age_seconds,
        ..Demand::default()
    }
}

pub fn set_policy(place: Place, demands: Vec<Demand>) -> Ask {
    Ask::SetPolicy(PolicySet {
        scope: Some(Scope { place: Some(place) }),
        policy: Some(Policy {
            demands,
            cedar: String::new(),
        }),
    })
}

fn reading_needs(room: RoomId, factor: Factor) -> Ask {
    let actions = [PolicyAction::Read, PolicyAction::Post, PolicyAction::Join];
    set_policy(
        Place::Room(room.to_bytes()),
        vec![demand(factor, HOURS_8, &actions)],
    )
}

async fn jwt(server: &Server, person: &Person) -> Jwt {
    person.call(server, &JwtRequest {}).await.unwrap()
}

fn ids(jwt: &Jwt) -> Vec<RoomId> {
    let rooms = jwt.rooms.iter();
    rooms
        .map(|room| RoomId::try_from(&room.room).unwrap())
        .collect()
}

#[tokio::test]
async fn a_room_is_withheld_until_its_factor_is_proven() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let [plain, gated] = [
        alice.create_room(&server, JoinRule::Invite).await,
        alice.create_room(&server, JoinRule::Invite).await,
    ];
    for room in [plain, gated] {
        alice.grant(&server, room, &bob, Role::User).await.unwrap();
    }
    let policy = reading_needs(gated, Factor::Totp);
    alice.change(&server, [policy]).await.unwrap();

    let before = jwt(&server, &bob).await;
    assert_eq!(ids(&before), [plain]);
    assert!(before.gated_rooms.is_empty());
    let [withheld] = &before.withheld[..] else {
        panic!("{:?}", before.withheld);
    };
    assert_eq!(withheld.room.as_ref().unwrap().room, gated.to_bytes());
    let missing = &withheld.missing[0];
    assert_eq!(missing.demand.as_ref().unwrap().factor(), Factor::Totp);
    assert_eq!(missing.demand.as_ref().unwrap().max_age_seconds, HOURS_8);
    let level = Some(Place::Room(gated.to_bytes()));
    assert_eq!(missing.level.as_ref().unwrap().place, level);
    assert!(!missing.enrolled);

    let app = App::enrol(&server, &bob).await;
    let mut both = [plain, gated];
    both.sort();
    let proven = jwt(&server, &bob).await;
    assert_eq!(ids(&proven), both);
    assert_eq!(proven.gated_rooms, [gated.to_bytes()]);
    assert!(proven.withheld.is_empty());
    // Not on a device that has not proven it.
    let second = bob.on_another_device(&server).await;
    let there = jwt(&server, &second).await;
    assert_eq!(ids(&there), [plain]);
    assert!(there.withheld[0].missing[0].enrolled);

    // Within its last hour the JWT ends with it.
    server
        .clock
        .advance(Duration::from_secs(u64::from(HOURS_8) - 900));
    let short = jwt(&server, &bob).await;
    assert_eq!(ids(&short), both);
    let lasts = short.expires_ms - server.clock.now_ms();
    assert!(lasts <= 900_000, "{lasts}");
    assert!(lasts < limits::JWT.as_millis() as i64);
    server.clock.advance(Duration::from_secs(901));
    assert_eq!(ids(&jwt(&server, &bob).await), [plain]);
    app.prove(&server, &bob).await.unwrap();
    assert_eq!(ids(&jwt(&server, &bob).await), both);
}

#[tokio::test]
async fn joining_obeys_the_policy_and_the_grant_names_it() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let room = alice.create_room(&server, JoinRule::Open).await;
    let put = GroupInfoPut {
        room: room.to_bytes(),
        epoch: 1,
        group_info: "group info".into(),
        ratchet_tree: "tree".into(),
        commit_sequence: 1,
    };
    alice.call(&server, &put).await.unwrap();
    let policy = [reading_needs(room, Factor::Totp)];
    let set = alice.change(&server, policy).await.unwrap();
    assert!(matches!(set.events[0].body, Some(Body::PolicySet(_))));
    let join = RoomJoin {
        room: room.to_bytes(),
    };
    let refused = bob.call(&server, &join).await.unwrap_err();
    assert_eq!(refused.code(), ApiErrorCode::FactorNeeded);
    let demand = refused.missing[0].demand.clone().unwrap();
    assert_eq!(demand.factor(), Factor::Totp);
    // The room's owner neither: what she has not proven she cannot do.
    let refused = alice.call(&server, &put).await;
    assert_eq!(code(refused), ApiErrorCode::FactorNeeded);

    App::enrol(&server, &bob).await;
    let joinable = bob.call(&server, &join).await.unwrap();
    let key = server.gateway.key().verifying_key();
    let grant = JoinGrant::verify(&joinable.grant.unwrap(), &key).unwrap();
    assert_eq!(grant.policy_version, set.events[0].index);
}

#[tokio::test]
async fn administration_obeys_the_policy_of_the_org() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    App::enrol(&server, &alice).await;
    let manage = [PolicyAction::Manage];
    let policy = vec![demand(Factor::Totp, 600, &manage)];
    let policy = set_policy(Place::Org(true), policy);
    alice.change(&server, [policy]).await.unwrap();
    let archive = || {
        Ask::SetProjectStatus(sotto_proto::wire::ProjectStatusSet {
            project: "field".to_owned(),
            status: sotto_proto::wire::Status::Archived.into(),
        })
    };
    let second = alice.on_another_device(&server).await;
    let refused = second.change(&server, [archive()]).await.unwrap_err();
    assert_eq!(refused.code(), ApiErrorCode::FactorNeeded);
    assert!(refused.missing[0].enrolled);
    alice.change(&server, [archive()]).await.unwrap();
}

/// Less than before: the connection is renewed, with what is left.
#[tokio::test]
async fn who_may_reach_less_is_connected_anew() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let room = alice.create_room(&server, JoinRule::Invite).await;
    alice.grant(&server, room, &bob, Role::User).await.unwrap();
    server.clock.advance(Duration::from_secs(1));
    let mut online = Online::connect(&server, &bob).await;
    let owner = Online::connect(&server, &alice).await;
    server.clock.advance(Duration::from_secs(1));
    let revoke = Ask::RevokeRole(RoleRevoked {
        user: "bob".to_owned(),
        scope: Some(Scope {
            place: Some(Place::Room(room.to_bytes())),
        }),
        group: String::new(),
    });
    alice.change(&server, [revoke]).await.unwrap();
    online.is_cut().await;
    let again = connect(&server, &bob.device, &online.jwt, nats_key(&bob.device)).await;
    assert!(again.is_err(), "the old grants still hold");
    server.clock.advance(Duration::from_secs(1));
    let renewed = jwt(&server, &bob).await;
    assert!(renewed.rooms.is_empty());
    connect(&server, &bob.device, &renewed.jwt, nats_key(&bob.device))
        .await
        .unwrap();
    owner.client.flush().await.unwrap();
    assert!(owner.refusals.is_empty());
}
