//! A revoked device is out: of NATS at once, and of the gateway for good.

use std::sync::Arc;
use std::time::Instant;

use async_nats::Client;
use nkeys::KeyPair;
use sotto_gateway::clock::Clock;
use sotto_jwt_accounts::directory::{Actor, By, Command};
use sotto_proto::wire::{
    ApiErrorCode, DeviceGone, DeviceRevoke, JoinRule, JwtRequest, KeyPackagesClaim,
    KeyPackagesUpload, MeRequest, Role, UserRequest,
};
use sotto_proto::{DeviceId, RoomId};
use tokio::sync::mpsc;

use super::nats::connect;
use super::person::{Device, Person};
use super::server::{PATIENCE, Server, code};

fn revocation(device: DeviceId) -> DeviceRevoke {
    DeviceRevoke {
        device: device.to_bytes(),
    }
}

/// A device on NATS, as its user connected it.
pub struct Online {
    pub client: Client,
    pub refusals: mpsc::UnboundedReceiver<String>,
    pub jwt: String,
}

impl Online {
    pub async fn connect(server: &Server, person: &Person) -> Self {
        let jwt = person.call(server, &JwtRequest {}).await.unwrap().jwt;
        let (client, refusals) = connect(server, &person.device, &jwt, nats_key(&person.device))
            .await
            .unwrap();
        client.flush().await.unwrap();
        Self {
            client,
            refusals,
            jwt,
        }
    }

    /// Waits for nats-server to close the connection because of a revocation.
    pub async fn is_cut(&mut self) {
        let refusal = tokio::time::timeout(PATIENCE, self.refusals.recv()).await;
        let refusal = refusal.expect("still connected").unwrap();
        assert!(refusal.to_lowercase().contains("revoked"), "{refusal}");
    }
}

pub fn nats_key(device: &Device) -> Arc<KeyPair> {
    Arc::new(KeyPair::from_seed(&device.nats.seed().unwrap()).unwrap())
}

/// Alice, and Alice with a second device.
async fn two_devices(server: &Server) -> (Person, Person) {
    let first = Person::first(server, "acme", "alice").await;
    let second = first.on_another_device(server).await;
    (first, second)
}

async fn claim(server: &Server, by: &Person, room: RoomId, of: &Device) -> usize {
    let call = KeyPackagesClaim {
        room: room.to_bytes(),
        devices: vec![of.id.to_bytes()],
    };
    by.call(server, &call).await.unwrap().packages.len()
}

#[tokio::test]
async fn a_revoked_device_is_cut_off_and_the_users_other_one_goes_on() {
    let server = Server::start().await;
    let (first, second) = two_devices(&server).await;
    let room = first.create_room(&server, JoinRule::Invite).await;
    let upload = KeyPackagesUpload {
        key_packages: vec!["one".into()],
        last_resort: "last".into(),
    };
    second.call(&server, &upload).await.unwrap();
    assert_eq!(claim(&server, &first, room, &second.device).await, 1);
    let goes_on = Online::connect(&server, &first).await;
    let mut lost = Online::connect(&server, &second).await;

    let revoke = revocation(second.device.id);
    let asked = Instant::now();
    let answer = first.call(&server, &revoke).await.unwrap();
    let answered = asked.elapsed();
    lost.is_cut().await;
    println!(
        "answered after {answered:?}, cut {:?} after the call",
        asked.elapsed()
    );
    assert_eq!(answer, DeviceGone {});

    let again = connect(&server, &second.device, &lost.jwt, nats_key(&second.device)).await;
    assert!(again.is_err(), "a revoked device came back");
    for refused in [
        code(second.call(&server, &MeRequest {}).await),
        code(second.call(&server, &JwtRequest {}).await),
        code(second.call(&server, &upload).await),
    ] {
        assert_eq!(refused, ApiErrorCode::SessionExpired);
    }
    let proof = second.proof(&server, 0);
    let session = second.open_session(&server, &proof).await;
    assert_eq!(code(session), ApiErrorCode::Denied);
    assert_eq!(claim(&server, &first, room, &second.device).await, 0);
    let call = UserRequest {
        user: "alice".to_owned(),
    };
    let seen = first.call(&server, &call).await.unwrap();
    assert_eq!(seen.devices.len(), 1);

    goes_on.client.flush().await.unwrap();
    assert!(goes_on.refusals.is_empty());
    first.call(&server, &JwtRequest {}).await.unwrap();
    // Again, as the answer may have got lost.
    first.call(&server, &revoke).await.unwrap();
    // And after nats-server and the gateway were started anew.
    server.directory.crash_nats_server();
    let fresh = Server::start_on(server.directory.clone()).await;
    let again = connect(&fresh, &second.device, &lost.jwt, nats_key(&second.device)).await;
    assert!(again.is_err(), "a revoked device came back");
    Online::connect(&fresh, &first).await;
}

#[tokio::test]
async fn only_its_user_and_owners_of_the_org_revoke_a_device() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let mut bob = alice.invite_new(&server, "bob").await;
    let carol = alice.invite_new(&server, "carol").await;
    let room = alice.create_room(&server, JoinRule::Invite).await;
    alice
        .grant(&server, room, &carol, Role::Owner)
        .await
        .unwrap();
    let revoke = revocation(bob.device.id);
    assert_eq!(
        code(carol.call(&server, &revoke).await),
        ApiErrorCode::Denied
    );
    bob.call(&server, &MeRequest {}).await.unwrap();

    let stranger = Person::first(&server, "other", "mallory").await;
    let unknown = revocation(Device::new().id);
    for (by, revoke) in [(&stranger, &revoke), (&alice, &unknown)] {
        let refused = by.call(&server, revoke).await;
        assert_eq!(code(refused), ApiErrorCode::NotFound);
    }
    let nonsense = DeviceRevoke {
        device: "too short".into(),
    };
    assert_eq!(
        code(alice.call(&server, &nonsense).await),
        ApiErrorCode::Malformed
    );

    // Bob his own, even the one that he calls with: it is the last call of it.
    let one_more = Device::new();
    let token = bob.enrol(&server, &one_more).await.unwrap().token;
    bob.call(&server, &revoke).await.unwrap();
    assert_eq!(
        code(bob.call(&server, &revoke).await),
        ApiErrorCode::SessionExpired
    );
    (bob.device, bob.token) = (one_more, token);
    bob.call(&server, &revoke).await.unwrap();
    // Carol may not repeat it either; the org's owner may take Bob's last.
    assert_eq!(
        code(carol.call(&server, &revoke).await),
        ApiErrorCode::Denied
    );
    let last = revocation(bob.device.id);
    alice.call(&server, &last).await.unwrap();
    assert_eq!(
        code(bob.call(&server, &MeRequest {}).await),
        ApiErrorCode::SessionExpired
    );
}

/// The directory has the revocation, but the gateway that put it there died
/// before nats-server heard of it.
#[tokio::test]
async fn a_half_done_revocation_is_completed_by_another_gateway_or_the_next_start() {
    let server = Server::start().await;
    let (first, mut second) = two_devices(&server).await;
    let writer = server.directory.writer("acme").await;
    let by = By::from(Actor::User(first.user.clone()));
    let now_ms = server.clock.now_ms();
    let revoke = async |person: &Person| {
        let device = person.device.id;
        let command = Command::RevokeDevice { device };
        writer.append(&by, command, now_ms).await.unwrap();
    };
    let mut lost = Online::connect(&server, &second).await;
    revoke(&second).await;
    lost.is_cut().await;

    second = first.on_another_device(&server).await;
    let mut lost = Online::connect(&server, &second).await;
    let directory = server.directory.clone();
    drop(server);
    revoke(&second).await;
    lost.client.flush().await.unwrap();
    assert!(lost.refusals.is_empty());
    let _next = Server::start_on(directory).await;
    lost.is_cut().await;
}

#[tokio::test]
async fn two_gateways_revoke_at_once_and_both_hold() {
    let one = Server::start().await;
    let two = Server::start_on(one.directory.clone()).await;
    let alice = Person::first(&one, "acme", "alice").await;
    let mut online = Vec::new();
    for _ in 0..8 {
        let person = alice.on_another_device(&one).await;
        online.push((Online::connect(&one, &person).await, person.device));
    }
    // Both must know the devices before they can revoke them.
    let invite = alice.invite(&two, "field").await;
    Person::sign_up(&two, "acme", "bob", &invite).await.unwrap();
    let revocations = online.iter().enumerate().map(async |(n, (_, device))| {
        let server = if n % 2 == 0 { &one } else { &two };
        alice.call(server, &revocation(device.id)).await.unwrap();
    });
    futures::future::join_all(revocations).await;
    for (lost, device) in &mut online {
        lost.is_cut().await;
        let again = connect(&one, device, &lost.jwt, nats_key(device)).await;
        assert!(again.is_err(), "a revoked device came back");
    }
}
