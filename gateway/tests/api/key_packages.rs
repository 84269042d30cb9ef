//! Key packages are handed out once, each with the gateway's word.

use std::collections::BTreeSet;

use bytes::Bytes;
use sotto_gateway::clock::Clock;
use sotto_proto::signed::JoinGrant;
use sotto_proto::wire::{
    ApiErrorCode, JoinRule, KeyPackagesClaim, KeyPackagesUpload, MeRequest, Role,
};
use sotto_proto::{RoomId, limits};

use super::person::Person;
use super::server::{Server, code};

fn upload(range: std::ops::Range<u8>, last_resort: &'static [u8]) -> KeyPackagesUpload {
    KeyPackagesUpload {
        key_packages: range.map(|n| Bytes::from(vec![n; 3_000])).collect(),
        last_resort: Bytes::from_static(last_resort),
    }
}

async fn claim(server: &Server, by: &Person, room: RoomId, of: &Person) -> Option<Bytes> {
    let call = KeyPackagesClaim {
        room: room.to_bytes(),
        devices: vec![of.device.id.to_bytes()],
    };
    let claimed = by.call(server, &call).await.unwrap();
    let package = claimed.packages.first()?;
    let key = server.gateway.key().verifying_key();
    let grant = JoinGrant::verify(package.grant.as_ref().unwrap(), &key).unwrap();
    assert_eq!(
        (grant.room, &grant.user, grant.device),
        (room, &of.user, of.device.id)
    );
    assert_eq!(grant.identity_key, of.identity.verifying_key());
    let lifetime = grant.not_after_ms - server.clock.now_ms();
    assert_eq!(lifetime, limits::JOIN_GRANT.as_millis() as i64);
    Some(package.key_package.clone())
}

#[tokio::test]
async fn many_at_once_never_get_the_same_one() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let room = alice.create_room(&server, JoinRule::Invite).await;
    alice.grant(&server, room, &bob, Role::User).await.unwrap();
    assert_eq!(claim(&server, &alice, room, &bob).await, None);

    let uploaded = bob.call(&server, &upload(0..20, b"last")).await.unwrap();
    assert_eq!(uploaded.unused, 20);
    // Through two gateways, which know nothing of each other.
    let other = Server::start_on(server.directory.clone()).await;
    let claims = (0..30).map(|n| {
        let server = if n % 2 == 0 { &server } else { &other };
        claim(server, &alice, room, &bob)
    });
    let claimed = futures::future::join_all(claims).await;
    let mut distinct = BTreeSet::new();
    let mut last_resorts = 0;
    for package in claimed.into_iter().flatten() {
        if package == "last" {
            last_resorts += 1;
        } else {
            assert!(distinct.insert(package), "handed out twice");
        }
    }
    assert_eq!((distinct.len(), last_resorts), (20, 10));
}

#[tokio::test]
async fn a_repeated_upload_brings_nothing_back() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let room = alice.create_room(&server, JoinRule::Invite).await;
    alice.call(&server, &upload(0..3, b"last")).await.unwrap();
    let first = claim(&server, &alice, room, &alice).await.unwrap();
    assert_eq!(first, vec![0; 3_000]);
    let again = alice.call(&server, &upload(0..3, b"")).await.unwrap();
    assert_eq!(again.unused, 2);
    let me = alice.call(&server, &MeRequest {}).await.unwrap();
    assert_eq!(me.key_packages, 2);
    for expected in [
        vec![1; 3_000],
        vec![2; 3_000],
        b"last".to_vec(),
        b"last".to_vec(),
    ] {
        assert_eq!(
            claim(&server, &alice, room, &alice).await.unwrap(),
            expected
        );
    }
}

#[tokio::test]
async fn uploads_are_bounded() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let too_large = KeyPackagesUpload {
        key_packages: vec![Bytes::from(vec![0; 8 * 1024 + 1])],
        last_resort: Bytes::new(),
    };
    let empty = KeyPackagesUpload {
        key_packages: vec![Bytes::new()],
        last_resort: Bytes::new(),
    };
    for bad in [upload(0..21, b""), too_large, empty] {
        assert_eq!(
            code(alice.call(&server, &bad).await),
            ApiErrorCode::Malformed
        );
    }
    let largest = KeyPackagesUpload {
        key_packages: (0..20).map(|n| Bytes::from(vec![n; 8 * 1024])).collect(),
        last_resort: Bytes::from(vec![99; 8 * 1024]),
    };
    assert_eq!(alice.call(&server, &largest).await.unwrap().unused, 20);
}
