//! Logging in by password.

use std::time::Duration;

use bytes::Bytes;
use sotto_proto::wire::{ApiErrorCode, JwtRequest, LoginFinish, LoginStart, MeRequest};

use super::person::{Device, Login, PASSWORD, Person, log_in, start_login};
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

/// One user's password, over two gateways; nobody learns whether there is such
/// a user, and no stranger locks a user out of a device of theirs.
#[tokio::test]
async fn guessing_one_password_is_slowed_down_at_all_gateways_together() {
    let one = Server::start().await;
    let two = Server::start_on(one.directory.clone()).await;
    let alice = Person::first(&one, "acme", "alice").await;
    let mut refusals = Vec::new();
    for user in ["alice", "nobod"] {
        let mut allowed = 0;
        let refused = loop {
            let server = if allowed % 2 == 0 { &one } else { &two };
            match start_login(server, ("acme", user), "wrong").await {
                Ok((_, finalization)) => assert_eq!(finalization, None),
                Err(refused) => break refused,
            }
            allowed += 1;
        };
        assert_eq!(allowed, 10);
        refusals.push(refused);
    }
    assert_eq!(refusals[0].code(), ApiErrorCode::TooMany);
    assert_eq!(refusals[0], refusals[1]);

    alice.prove_password(&one, &alice.user).await.unwrap();
    one.clock.advance(Duration::from_secs(15 * 60));
    let login = log_in(&one, ("acme", "alice"), PASSWORD, Duration::ZERO).await;
    assert!(matches!(login, Login::Finished(Ok(_))), "{login:?}");
    // The right one lets the next ten be tried.
    start_login(&two, ("acme", "alice"), "wrong").await.unwrap();
}

#[tokio::test]
async fn guessing_on_a_device_is_slowed_down_too() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    for _ in 0..10 {
        alice.start_proof(&server, "wrong").await.unwrap();
    }
    let refused = alice.start_proof(&server, PASSWORD).await;
    assert_eq!(code(refused), ApiErrorCode::TooMany);
    let second = alice.on_another_device(&server).await;
    second.prove_password(&server, &alice.user).await.unwrap();
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
