//! Enrolling devices, and sessions by proof of a device's key.

use ed25519_dalek::SigningKey;
use rand::rngs::OsRng;
use sotto_jwt_accounts::directory::{Actor, By, Command};
use sotto_proto::wire::{
    ApiErrorCode, DeviceEnrol, MeRequest, SessionOpen, SessionStatement, UserRequest,
};
use sotto_proto::{DeviceId, limits, signed};

use super::person::{Device, Person};
use super::server::{Server, code};
use sotto_gateway::clock::Clock;

#[tokio::test]
async fn only_a_users_own_certificate_enrols_a_device() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;

    let second = Device::new();
    let certificate = Some(alice.certificate(&server, &second));
    let call = DeviceEnrol { certificate };
    let by_bob = bob.call(&server, &call).await;
    assert_eq!(code(by_bob), ApiErrorCode::Denied);
    alice.call(&server, &call).await.unwrap();
    // Again, as the answer may have got lost.
    alice.call(&server, &call).await.unwrap();
    // But not by Bob, who can look the certificate up.
    assert_eq!(code(bob.call(&server, &call).await), ApiErrorCode::Denied);

    // Alice's session with another identity key, or another org's name.
    let mut thief = Person::new("acme", "alice");
    thief.token = alice.token.clone();
    assert_eq!(
        code(thief.enrol(&server, &Device::new()).await),
        ApiErrorCode::Denied
    );
    thief.identity = alice.identity.clone();
    thief.org = "other".parse().unwrap();
    assert_eq!(
        code(thief.enrol(&server, &Device::new()).await),
        ApiErrorCode::Denied
    );
    // An id that is taken.
    let stolen = Device {
        id: second.id,
        ..Device::new()
    };
    assert_eq!(
        code(alice.enrol(&server, &stolen).await),
        ApiErrorCode::Conflict
    );

    let call = UserRequest {
        user: "alice".to_owned(),
    };
    let seen = bob.call(&server, &call).await.unwrap();
    assert_eq!(seen.devices.len(), 2);
    assert_eq!(
        seen.identity_key,
        signed::key_bytes(&alice.identity.verifying_key())
    );
    let call = UserRequest {
        user: "nobody".to_owned(),
    };
    assert_eq!(code(bob.call(&server, &call).await), ApiErrorCode::NotFound);
}

#[tokio::test]
async fn devices_are_bounded() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    for _ in 1..limits::DEVICES_PER_USER {
        alice.enrol(&server, &Device::new()).await.unwrap();
    }
    let one_more = alice.enrol(&server, &Device::new()).await;
    assert_eq!(code(one_more), ApiErrorCode::TooMany);
}

#[tokio::test]
async fn a_device_opens_sessions_by_its_key() {
    let server = Server::start().await;
    let mut alice = Person::first(&server, "acme", "alice").await;
    for off_s in [0, 299, -299] {
        let proof = alice.proof(&server, off_s);
        let session = alice.open_session(&server, &proof).await.unwrap();
        assert_eq!(session.now_ms, server.clock.now_ms());
        alice.token = session.token;
        alice.call(&server, &MeRequest {}).await.unwrap();
    }
    for off_s in [301, -301, i64::MAX / 2_000] {
        let proof = alice.proof(&server, off_s);
        let error = alice.open_session(&server, &proof).await.unwrap_err();
        assert_eq!(error.code(), ApiErrorCode::SessionExpired);
        assert!(error.message.contains("clock"), "{}", error.message);
    }
}

#[tokio::test]
async fn a_proof_is_for_this_device_org_and_server() {
    let server = Server::start().await;
    let mut alice = Person::first(&server, "acme", "alice").await;
    let proof = alice.proof(&server, 0);
    let elsewhere = |change: fn(&mut SessionStatement)| {
        let mut proof = proof.clone();
        change(&mut proof);
        proof
    };
    for (proof, expected) in [
        (
            elsewhere(|p| p.org = "other".to_owned()),
            ApiErrorCode::Denied,
        ),
        (
            elsewhere(|p| p.org = "nowhere".to_owned()),
            ApiErrorCode::NotFound,
        ),
        (
            elsewhere(|p| p.server_name = "another".to_owned()),
            ApiErrorCode::Denied,
        ),
        (
            elsewhere(|p| p.device = DeviceId::random(&mut OsRng).to_bytes()),
            ApiErrorCode::Denied,
        ),
        (elsewhere(|p| p.device.clear()), ApiErrorCode::Malformed),
    ] {
        let refused = alice.open_session(&server, &proof).await;
        assert_eq!(code(refused), expected, "{proof:?}");
    }
    // Changed after signing.
    let mut statement = signed::sign(&proof, &alice.device.signature_key);
    let later = alice.proof(&server, 1);
    statement.statement = prost::Message::encode_to_vec(&later).into();
    let call = SessionOpen {
        statement: Some(statement),
    };
    assert_eq!(code(server.call(None, &call).await), ApiErrorCode::Denied);
    assert_eq!(
        code(server.call(None, &SessionOpen { statement: None }).await),
        ApiErrorCode::Malformed
    );
    // By another key.
    alice.device.signature_key = SigningKey::generate(&mut OsRng);
    assert_eq!(
        code(alice.open_session(&server, &proof).await),
        ApiErrorCode::Denied
    );
}

#[tokio::test]
async fn sessions_end_with_their_time_and_with_their_device() {
    let server = Server::start().await;
    let mut alice = Person::first(&server, "acme", "alice").await;
    server.clock.advance(limits::SESSION);
    alice.call(&server, &MeRequest {}).await.unwrap();
    server.clock.advance(std::time::Duration::from_millis(1));
    assert_eq!(
        code(alice.call(&server, &MeRequest {}).await),
        ApiErrorCode::SessionExpired
    );

    let proof = alice.proof(&server, 0);
    alice.token = alice.open_session(&server, &proof).await.unwrap().token;
    alice.call(&server, &MeRequest {}).await.unwrap();
    let revoke = Command::RevokeDevice {
        device: alice.device.id,
    };
    let by = By::from(Actor::User(alice.user.clone()));
    let org = server.org("acme");
    org.append(&by, revoke, server.clock.now_ms())
        .await
        .unwrap();
    assert_eq!(
        code(alice.call(&server, &MeRequest {}).await),
        ApiErrorCode::SessionExpired
    );
    let proof = alice.proof(&server, 0);
    assert_eq!(
        code(alice.open_session(&server, &proof).await),
        ApiErrorCode::Denied
    );
}

#[tokio::test]
async fn what_one_gateway_did_another_knows() {
    let one = Server::start().await;
    let two = Server::start_on(one.directory.clone()).await;
    let mut alice = Person::first(&one, "acme", "alice").await;
    let second = Device::new();
    for (here, there) in [(&one, &two), (&two, &one)] {
        alice.call(there, &MeRequest {}).await.unwrap();
        alice.token = alice.enrol(here, &Device::new()).await.unwrap().token;
        alice.call(there, &MeRequest {}).await.unwrap();
    }
    alice.token = alice.enrol(&one, &second).await.unwrap().token;
    alice.device = second;
    let proof = alice.proof(&two, 0);
    alice.open_session(&two, &proof).await.unwrap();
    let invite = alice.invite(&one, "field").await;
    Person::sign_up(&two, "acme", "bob", &invite).await.unwrap();
}
