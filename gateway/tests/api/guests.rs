//! Guests, and users who are expected by name.

use sotto_gateway::clock::Clock;
use sotto_gateway::guests::revoke_those_over;
use sotto_jwt_accounts::directory::{InviteHash, UserStatus};
use sotto_proto::InviteToken;
use sotto_proto::wire::directory_command::Ask;
use sotto_proto::wire::{
    ApiErrorCode, GuestUntilSet, InviteIssued, JoinRule, MeRequest, Role, RoleGranted, Scope,
    UserAdded, scope::Place,
};

use super::orders::{rooms, settled};
use super::person::Person;
use super::revocation::Online;
use super::server::{Server, code};

fn issue(server: &Server, place: Place, for_user: &str, guest_s: i64) -> (InviteToken, Ask) {
    let token = InviteToken::random(&mut rand::rngs::OsRng);
    let now_ms = server.clock.now_ms();
    let issue = Ask::IssueInvite(InviteIssued {
        invite_hash: InviteHash::from(&token).0.to_vec().into(),
        expires_ms: now_ms + 600_000,
        scope: Some(Scope { place: Some(place) }),
        role: Role::User.into(),
        for_user: for_user.to_owned(),
        guest_until_ms: match guest_s {
            0 => 0,
            guest_s => now_ms + guest_s * 1_000,
        },
    });
    (token, issue)
}

#[tokio::test]
async fn a_guest_is_out_of_everything_when_their_time_is_over() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let room = alice.create_room(&server, JoinRule::Invite).await;
    let place = Place::Room(room.to_bytes());
    let (invite, issue) = issue(&server, place, "", 120);
    alice.change(&server, [issue]).await.unwrap();
    let gus = Person::sign_up(&server, "acme", "gus", &invite)
        .await
        .unwrap();
    let me = gus.call(&server, &MeRequest {}).await.unwrap();
    assert_eq!(me.rooms.len(), 1);
    let mut online = Online::connect(&server, &gus).await;

    // Both look; the directory lets one of them.
    let now_ms = server.clock.now_ms() + 121_000;
    let next = Server::start_on(server.directory.clone()).await;
    let rooms = rooms(&server, "acme").await;
    let orgs = [server.org("acme"), next.org("acme")];
    revoke_those_over(&orgs[0], now_ms - 2_000).await.unwrap();
    gus.call(&server, &MeRequest {}).await.unwrap();
    let looks = orgs.iter().map(|org| revoke_those_over(org, now_ms));
    for look in futures::future::join_all(looks).await {
        look.unwrap();
    }
    let state = orgs[1].state().unwrap();
    assert_eq!(state.user(&gus.user).unwrap().status, UserStatus::Revoked);
    online.is_cut().await;
    let refused = gus.call(&server, &MeRequest {}).await;
    assert_eq!(code(refused), ApiErrorCode::SessionExpired);
    let told = settled(&server, &rooms, 1).await;
    assert_eq!((told[0].room, &told[0].user), (room, &gus.user));
}

#[tokio::test]
async fn a_user_who_was_added_signs_up_with_their_own_invite_only() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let add = Ask::AddUser(UserAdded {
        user: "bob".to_owned(),
        title: "Bob Builder".to_owned(),
        external_id: "1".to_owned(),
    });
    let grant = Ask::GrantRole(RoleGranted {
        user: "bob".to_owned(),
        scope: Some(Scope {
            place: Some(Place::Project("field".to_owned())),
        }),
        role: Role::Owner.into(),
        group: String::new(),
    });
    let (invite, issue) = issue(&server, Place::Org(true), "bob", 0);
    alice.change(&server, [add, grant, issue]).await.unwrap();

    let anyones = alice.invite(&server, "field").await;
    let taken = Person::sign_up(&server, "acme", "bob", &anyones).await;
    assert_eq!(code(taken.map(drop)), ApiErrorCode::Denied);
    let other = Person::sign_up(&server, "acme", "mallory", &invite).await;
    assert_eq!(code(other.map(drop)), ApiErrorCode::Denied);
    let bob = Person::sign_up(&server, "acme", "bob", &invite)
        .await
        .unwrap();
    let me = bob.call(&server, &MeRequest {}).await.unwrap();
    assert_eq!(me.projects, ["field"]);
    bob.create_room(&server, JoinRule::Invite).await;
    let again = Ask::SetGuestUntil(GuestUntilSet {
        user: "bob".to_owned(),
        until_ms: server.clock.now_ms() + 1_000,
    });
    // Owners are no guests.
    let refused = alice.change(&server, [again]).await;
    assert_eq!(code(refused), ApiErrorCode::Conflict);
}
