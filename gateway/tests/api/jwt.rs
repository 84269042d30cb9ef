//! What a device gets from the gateway opens NATS, and only for its holder.

use std::sync::Arc;

use nkeys::KeyPair;
use sotto_gateway::clock::Clock;
use sotto_proto::wire::{JoinRule, JwtRequest};
use sotto_proto::{RoomAddress, Submission, limits};

use super::nats::connect;
use super::person::Person;
use super::server::{PATIENCE, Server};

#[tokio::test]
async fn nats_takes_the_jwt_from_its_device_only() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let room = alice.create_room(&server, JoinRule::Invite).await;
    let answer = alice.call(&server, &JwtRequest {}).await.unwrap();
    let lifetime = answer.expires_ms - server.clock.now_ms();
    let hour = limits::JWT.as_millis() as i64;
    assert!((hour - 1_000..=hour).contains(&lifetime), "{lifetime}");

    let key = Arc::new(KeyPair::from_seed(&alice.device.nats.seed().unwrap()).unwrap());
    let (client, mut refusals) = connect(&server, &alice.device, &answer.jwt, key)
        .await
        .unwrap();
    let address = RoomAddress::try_from(&answer.rooms[0]).unwrap();
    assert_eq!(address.room, room);
    let subject = address.messages();
    let device = alice.device.id;
    let allowed = Submission { device, subject }.to_string();
    client.publish(allowed, "sealed".into()).await.unwrap();
    let _live = client.subscribe(address.live_wildcard()).await.unwrap();
    client.flush().await.unwrap();
    assert!(refusals.try_recv().is_err());

    client.publish("directory", "forged".into()).await.unwrap();
    let refusal = tokio::time::timeout(PATIENCE, refusals.recv())
        .await
        .unwrap()
        .unwrap();
    assert!(
        refusal.to_lowercase().contains("permissions violation"),
        "{refusal}"
    );
    assert!(refusal.contains("directory"), "{refusal}");

    // Somebody who got hold of the JWT, but not of the key.
    let thief = Arc::new(KeyPair::new_user());
    assert!(
        connect(&server, &alice.device, &answer.jwt, thief)
            .await
            .is_err()
    );
}
