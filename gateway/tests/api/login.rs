//! Logging in by password.

use std::time::Duration;

use bytes::Bytes;
use sotto_proto::wire::{ApiErrorCode, JwtRequest, LoginFinish, LoginStart, MeRequest};

use super::person::{Device, Login, PASSWORD, Person, log_in};
use super::server::{Server, code};

#[tokio::test]
async fn the_password_gives_the_backup_and_a_session_that_only_enrols() {
    let server = Server::start().await;
    let mut alice = Person::first(&server, "acme", "alice").await;
    let login = log_in(&server, ("acme", "alice"), PASSWORD, Duration::ZERO).await;
    let Login::Finished(Ok(finished)) = login else {
        panic!("{login:?}");
    };
    assert_eq!(finished.identity_backup, alice.backup());
    alice.token = finished.session.unwrap().token;
    assert_eq!(
        code(alice.call(&server, &MeRequest {}).await),
        ApiErrorCode::Denied
    );
    assert_eq!(
        code(alice.call(&server, &JwtRequest {}).await),
        ApiErrorCode::Denied
    );

    let second = Device::new();
    alice.token = alice.enrol(&server, &second).await.unwrap().token;
    let me = alice.call(&server, &MeRequest {}).await.unwrap();
    assert_eq!(me.devices.len(), 2);
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_user_are_not_told_apart() {
    let server = Server::start().await;
    Person::first(&server, "acme", "alice").await;
    let mut seen = Vec::new();
    for user in ["alice", "nobod"] {
        let login = log_in(&server, ("acme", user), "wrong", Duration::ZERO).await;
        let Login::WrongAtClient(started) = login else {
            panic!("{login:?}");
        };
        let lengths = (started.login.len(), started.opaque_response.len());
        // A client that goes on regardless.
        let forged = LoginFinish {
            login: started.login,
            opaque_finalization: Bytes::from_static(&[7; 64]),
        };
        let refused = server.call(None, &forged).await.unwrap_err();
        assert_eq!(refused.code(), ApiErrorCode::WrongPassword);
        seen.push((lengths, refused));
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn a_login_must_be_finished_in_time_and_by_the_right_message() {
    let server = Server::start().await;
    Person::first(&server, "acme", "alice").await;
    let late = Duration::from_secs(61);
    let login = log_in(&server, ("acme", "alice"), PASSWORD, late).await;
    let Login::Finished(refused) = login else {
        panic!("{login:?}");
    };
    assert_eq!(code(refused), ApiErrorCode::WrongPassword);
    for garbage in [
        Bytes::new(),
        Bytes::from_static(&[0; 64]),
        Bytes::from(vec![1; 2_000]),
    ] {
        let call = LoginFinish {
            login: garbage.clone(),
            opaque_finalization: garbage,
        };
        assert_eq!(
            code(server.call(None, &call).await),
            ApiErrorCode::WrongPassword
        );
    }
}

#[tokio::test]
async fn what_is_no_login_is_said_so() {
    let server = Server::start().await;
    let call = |org: &str, user: &str, request: &'static [u8]| LoginStart {
        org: org.to_owned(),
        user: user.to_owned(),
        opaque_request: Bytes::from_static(request),
    };
    for (bad, expected) in [
        (call("nowhere", "alice", &[0; 96]), ApiErrorCode::NotFound),
        (call("acme", "Al ice", &[0; 96]), ApiErrorCode::Malformed),
        (call("acme", "alice", b"short"), ApiErrorCode::Malformed),
        (call("acme", "alice", &[0xff; 96]), ApiErrorCode::Malformed),
    ] {
        assert_eq!(code(server.call(None, &bad).await), expected, "{bad:?}");
    }
}

#[tokio::test]
async fn guessing_from_one_address_is_slowed_down() {
    let server = Server::start().await;
    let call = LoginStart::default();
    let mut refusals = Vec::new();
    for _ in 0..80 {
        refusals.push(code(server.call(None, &call).await));
    }
    let allowed = refusals
        .iter()
        .take_while(|&&code| code == ApiErrorCode::Malformed);
    assert_eq!(allowed.count(), 60);
    assert_eq!(refusals[60], ApiErrorCode::TooMany);
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(
        code(server.call(None, &call).await),
        ApiErrorCode::Malformed
    );
}
