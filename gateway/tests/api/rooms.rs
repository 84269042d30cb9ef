//! Making rooms and letting users in.

use rand::rngs::OsRng;
use sotto_proto::signed::RemovalOrder;
use sotto_proto::wire::{
    ApiErrorCode, JoinRule, JwtRequest, KeyPackagesClaim, KeyPackagesUpload, MeRequest, Role,
    RoleRevoked, RoomCreate, RoomGrant, RoomsCheck, Scope, directory_command::Ask, scope::Place,
};
use sotto_proto::{RoomAddress, RoomId};

use super::person::Person;
use super::server::{Server, code};

#[tokio::test]
async fn whoever_has_a_role_in_a_project_makes_rooms_there() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let room = RoomId::random(&mut OsRng);
    let call = RoomCreate {
        project: "field".to_owned(),
        room: room.to_bytes(),
        join_rule: JoinRule::Invite.into(),
    };
    let created = bob.call(&server, &call).await.unwrap().address.unwrap();
    let address = RoomAddress::try_from(&created).unwrap();
    assert_eq!((address.project.as_str(), address.room), ("field", room));
    // The same again, as the answer may have got lost; but by nobody else, and
    // not as something else.
    assert_eq!(
        bob.call(&server, &call).await.unwrap().address,
        Some(created.clone())
    );
    assert_eq!(
        code(alice.call(&server, &call).await),
        ApiErrorCode::Conflict
    );
    let mut other = call.clone();
    other.join_rule = JoinRule::Open.into();
    assert_eq!(
        code(bob.call(&server, &other).await),
        ApiErrorCode::Conflict
    );

    let me = bob.call(&server, &MeRequest {}).await.unwrap();
    assert_eq!(me.rooms, std::slice::from_ref(&created));
    let jwt = bob.call(&server, &JwtRequest {}).await.unwrap();
    assert_eq!(jwt.rooms, [created]);
    // Owning the org gives the right to manage, not to read.
    let jwt = alice.call(&server, &JwtRequest {}).await.unwrap();
    assert_eq!(jwt.rooms, []);

    for (project, expected) in [
        ("elsewhere", ApiErrorCode::Denied),
        ("a.b", ApiErrorCode::Malformed),
        ("", ApiErrorCode::Malformed),
    ] {
        let mut call = call.clone();
        call.project = project.to_owned();
        call.room = RoomId::random(&mut OsRng).to_bytes();
        assert_eq!(code(bob.call(&server, &call).await), expected, "{project}");
    }
    let mut bad = call.clone();
    bad.join_rule = 7;
    assert_eq!(code(bob.call(&server, &bad).await), ApiErrorCode::Malformed);
    bad.room.clear();
    assert_eq!(code(bob.call(&server, &bad).await), ApiErrorCode::Malformed);
}

#[tokio::test]
async fn only_owners_of_a_room_let_others_in() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let carol = alice.invite_new(&server, "carol").await;
    let stranger = Person::first(&server, "other", "mallory").await;
    let room = alice.create_room(&server, JoinRule::Invite).await;

    for outsider in [&bob, &stranger] {
        let denied = outsider.grant(&server, room, outsider, Role::User).await;
        assert_eq!(code(denied), ApiErrorCode::Denied);
    }
    let granted = alice.grant(&server, room, &bob, Role::User).await.unwrap();
    let granted = granted.user.unwrap();
    assert_eq!(granted.user, "bob");
    assert_eq!(granted.devices.len(), 1);
    alice.grant(&server, room, &bob, Role::User).await.unwrap();
    let denied = bob.grant(&server, room, &carol, Role::User).await;
    assert_eq!(code(denied), ApiErrorCode::Denied);

    alice.grant(&server, room, &bob, Role::Owner).await.unwrap();
    bob.grant(&server, room, &carol, Role::User).await.unwrap();
    let me = carol.call(&server, &MeRequest {}).await.unwrap();
    assert_eq!(me.rooms.len(), 1);

    let call = |user: &str, room: RoomId, role: Role| RoomGrant {
        room: room.to_bytes(),
        user: user.to_owned(),
        role: role.into(),
    };
    for (bad, expected) in [
        (call("nobody", room, Role::User), ApiErrorCode::NotFound),
        (call("mallory", room, Role::User), ApiErrorCode::NotFound),
        (
            call("bob", room, Role::Unspecified),
            ApiErrorCode::Malformed,
        ),
        (
            call("bob", RoomId::random(&mut OsRng), Role::User),
            ApiErrorCode::Denied,
        ),
    ] {
        assert_eq!(code(alice.call(&server, &bad).await), expected, "{bad:?}");
    }
}

#[tokio::test]
async fn key_packages_are_for_members_of_the_same_room() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let carol = alice.invite_new(&server, "carol").await;
    let stranger = Person::first(&server, "other", "mallory").await;
    let room = alice.create_room(&server, JoinRule::Invite).await;
    alice.grant(&server, room, &bob, Role::User).await.unwrap();

    let claim = |devices: &[&Person]| KeyPackagesClaim {
        room: room.to_bytes(),
        devices: devices.iter().map(|p| p.device.id.to_bytes()).collect(),
    };
    for outsider in [&carol, &stranger] {
        let denied = outsider.call(&server, &claim(&[&bob])).await;
        assert_eq!(code(denied), ApiErrorCode::Denied);
    }
    let too_many = alice.call(&server, &claim(&[&bob; 101])).await;
    assert_eq!(code(too_many), ApiErrorCode::Malformed);

    for person in [&alice, &bob, &carol, &stranger] {
        let upload = KeyPackagesUpload {
            key_packages: vec![person.user.to_string().into()],
            last_resort: "last".into(),
        };
        person.call(&server, &upload).await.unwrap();
    }
    // Carol has no role in the room, Mallory is of another org; and asking
    // twice for one device gives one.
    let call = claim(&[&carol, &bob, &stranger, &bob]);
    let claimed = alice.call(&server, &call).await.unwrap();
    let found: Vec<_> = claimed.packages.iter().map(|p| &p.key_package).collect();
    assert_eq!(found, ["bob"]);
    assert_eq!(claimed.packages[0].device, bob.device.id.to_bytes());
}

#[tokio::test]
async fn only_who_has_lost_a_room_is_told_so() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let [kept, lost] = [
        alice.create_room(&server, JoinRule::Invite).await,
        alice.create_room(&server, JoinRule::Invite).await,
    ];
    for room in [kept, lost] {
        let grant = RoomGrant {
            room: room.to_bytes(),
            user: "bob".to_owned(),
            role: Role::User.into(),
        };
        alice.call(&server, &grant).await.unwrap();
    }
    let unknown = RoomId::random(&mut OsRng);
    let check = RoomsCheck {
        rooms: [kept, lost, unknown].map(|room| room.to_bytes()).to_vec(),
    };
    let told = bob.call(&server, &check).await.unwrap();
    assert_eq!(told.removal_orders, []);

    let revoke = Ask::RevokeRole(RoleRevoked {
        user: "bob".to_owned(),
        scope: Some(Scope {
            place: Some(Place::Room(lost.to_bytes())),
        }),
        group: String::new(),
    });
    alice.change(&server, [revoke]).await.unwrap();
    let told = bob.call(&server, &check).await.unwrap();
    let [order] = &told.removal_orders[..] else {
        panic!("{told:?}");
    };
    let key = server.gateway.key().verifying_key();
    let order = RemovalOrder::verify(order, &key).unwrap();
    assert_eq!((order.room, order.device), (lost, None));
    assert_eq!(order.user, bob.user, "nobody is told of others");
    let told = alice.call(&server, &check).await.unwrap();
    assert_eq!(told.removal_orders, []);

    let many = RoomsCheck {
        rooms: vec![kept.to_bytes(); 4_097],
    };
    assert_eq!(
        code(bob.call(&server, &many).await),
        ApiErrorCode::Malformed
    );
}
