//! Joining an open room by its public key.

use bytes::Bytes;
use rand::rngs::OsRng;
use sotto_proto::signed::JoinGrant;
use sotto_proto::wire::{ApiErrorCode, GroupInfoPut, JoinRule, MeRequest, RoomJoin, RoomJoinable};
use sotto_proto::{RoomId, limits};

use super::person::Person;
use super::server::{Server, code};

fn put(room: RoomId, epoch: u64, tree: Vec<u8>) -> GroupInfoPut {
    GroupInfoPut {
        room: room.to_bytes(),
        epoch,
        group_info: format!("group info of {epoch}").into(),
        ratchet_tree: tree.into(),
        commit_sequence: 100 + epoch,
    }
}

async fn join(server: &Server, who: &Person, room: RoomId) -> Result<RoomJoinable, ApiErrorCode> {
    let call = RoomJoin {
        room: room.to_bytes(),
    };
    who.call(server, &call).await.map_err(|error| error.code())
}

#[tokio::test]
async fn whoever_has_a_role_in_the_project_joins() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let room = alice.create_room(&server, JoinRule::Open).await;
    assert_eq!(
        join(&server, &bob, room).await,
        Err(ApiErrorCode::Unavailable)
    );

    let tree: Vec<u8> = (0..3_000_000u32)
        .map(|n| n.to_le_bytes()[n as usize % 4])
        .collect();
    alice
        .call(&server, &put(room, 1, tree.clone()))
        .await
        .unwrap();
    let joinable = join(&server, &bob, room).await.unwrap();
    assert_eq!(joinable.group_info, "group info of 1");
    assert!(joinable.ratchet_tree == tree, "the tree came back changed");
    assert_eq!(joinable.commit_sequence, 101);
    let key = server.gateway.key().verifying_key();
    let grant = JoinGrant::verify(&joinable.grant.unwrap(), &key).unwrap();
    assert_eq!(
        (grant.room, grant.user, grant.device),
        (room, bob.user.clone(), bob.device.id)
    );
    let me = bob.call(&server, &MeRequest {}).await.unwrap();
    assert_eq!(me.rooms, [joinable.address.unwrap()]);

    // Bob is a member now and may keep the key up to date; older ones do not count.
    bob.call(&server, &put(room, 3, vec![3; 300_000]))
        .await
        .unwrap();
    alice
        .call(&server, &put(room, 2, vec![2; 300_000]))
        .await
        .unwrap();
    bob.call(&server, &put(room, 3, vec![9; 300_000]))
        .await
        .unwrap();
    let newest = join(&server, &bob, room).await.unwrap();
    assert_eq!(newest.commit_sequence, 103);
    assert!(newest.ratchet_tree == vec![3; 300_000]);
}

#[tokio::test]
async fn of_many_writers_the_newest_epoch_stays_whole() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let room = alice.create_room(&server, JoinRule::Open).await;
    let puts: Vec<_> = (1..=8)
        .map(|epoch| put(room, epoch, vec![epoch as u8; 600_000]))
        .collect();
    let stored = futures::future::join_all(puts.iter().map(|put| alice.call(&server, put)));
    for stored in stored.await {
        stored.unwrap();
    }
    let joinable = join(&server, &alice, room).await.unwrap();
    assert_eq!(joinable.commit_sequence, 108);
    assert!(joinable.ratchet_tree == vec![8; 600_000]);
}

#[tokio::test]
async fn nobody_else_joins_or_writes() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let stranger = Person::first(&server, "other", "mallory").await;
    let open = alice.create_room(&server, JoinRule::Open).await;
    let closed = alice.create_room(&server, JoinRule::Invite).await;
    alice.call(&server, &put(open, 1, vec![1])).await.unwrap();

    assert_eq!(
        join(&server, &stranger, open).await,
        Err(ApiErrorCode::Denied)
    );
    assert_eq!(join(&server, &bob, closed).await, Err(ApiErrorCode::Denied));
    assert_eq!(
        join(&server, &alice, closed).await,
        Err(ApiErrorCode::Denied)
    );
    let unknown = RoomId::random(&mut OsRng);
    assert_eq!(
        join(&server, &bob, unknown).await,
        Err(ApiErrorCode::Denied)
    );

    for (who, room) in [(&bob, open), (&stranger, open), (&alice, closed)] {
        let refused = who.call(&server, &put(room, 9, vec![6])).await;
        assert_eq!(code(refused), ApiErrorCode::Denied);
    }
    let mut bad = put(open, 2, vec![0; limits::RATCHET_TREE]);
    assert_eq!(
        code(alice.call(&server, &bad).await),
        ApiErrorCode::Malformed
    );
    bad.group_info = Bytes::new();
    bad.ratchet_tree = Bytes::new();
    assert_eq!(
        code(alice.call(&server, &bad).await),
        ApiErrorCode::Malformed
    );
}
