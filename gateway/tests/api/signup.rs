//! Signing up: invites, names, and what a lost answer costs.

use std::time::Duration;

use nkeys::KeyPair;
use sotto_proto::InviteToken;
use sotto_proto::wire::{ApiErrorCode, InviteCreate, MeRequest, Role};

use super::person::{Device, Login, PASSWORD, Person, log_in};
use super::server::{PATIENCE, Server, code};

#[tokio::test]
async fn the_first_invite_makes_an_owner_and_goes_away() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let me = alice.call(&server, &MeRequest {}).await.unwrap();
    assert_eq!((me.org.as_str(), me.user.as_str()), ("acme", "alice"));
    assert_eq!(me.projects, ["field"]);
    let state = server.org("acme").state().unwrap();
    let device = state.device(alice.device.id).unwrap();
    assert_eq!(me.devices, std::slice::from_ref(&device.signed));
    assert!(state.has_owner());

    let file = server.directory.layout.first_invite(&alice.org);
    let gone = async {
        while file.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    // The other org still waits for its first owner.
    server.first_invite("other");
}

#[tokio::test]
async fn an_invite_works_once_in_its_org_and_in_time() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let invite = alice.invite(&server, "field").await;

    let elsewhere = Person::sign_up(&server, "other", "mallory", &invite).await;
    assert_eq!(code(elsewhere.map(drop)), ApiErrorCode::InviteInvalid);
    let wrong = InviteToken::random(&mut rand::rngs::OsRng);
    let guessed = Person::sign_up(&server, "acme", "mallory", &wrong).await;
    assert_eq!(code(guessed.map(drop)), ApiErrorCode::InviteInvalid);

    // Somebody who has come halfway loses against who finishes first.
    let slow = Person::new("acme", "carol");
    let halfway = slow.signup(&server, &invite, PASSWORD).await.unwrap();
    Person::sign_up(&server, "acme", "bob", &invite)
        .await
        .unwrap();
    let late = server.call(None, &halfway).await;
    assert_eq!(code(late), ApiErrorCode::InviteInvalid);
    let used = Person::sign_up(&server, "acme", "carol", &invite).await;
    assert_eq!(code(used.map(drop)), ApiErrorCode::InviteInvalid);

    let invite = alice.invite(&server, "field").await;
    let halfway = slow.signup(&server, &invite, PASSWORD).await.unwrap();
    server.clock.advance(Duration::from_secs(601));
    let late = server.call(None, &halfway).await;
    assert_eq!(code(late), ApiErrorCode::InviteExpired);
    let expired = Person::sign_up(&server, "acme", "carol", &invite).await;
    let error = expired.map(drop).unwrap_err();
    assert_eq!(error.code(), ApiErrorCode::InviteExpired);
    assert!(
        error.message.contains("ask for a new one"),
        "{}",
        error.message
    );
}

#[tokio::test]
async fn a_name_belongs_to_the_first() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let invite = alice.invite(&server, "field").await;
    let taken = Person::sign_up(&server, "acme", "alice", &invite).await;
    assert_eq!(code(taken.map(drop)), ApiErrorCode::NameTaken);
    // Nor after the first call was answered for a name that was free then.
    let [one, two] = [Person::new("acme", "bob"), Person::new("acme", "bob")];
    let other_invite = alice.invite(&server, "field").await;
    let first = one.signup(&server, &invite, PASSWORD).await.unwrap();
    let second = two.signup(&server, &other_invite, PASSWORD).await.unwrap();
    server.call(None, &first).await.unwrap();
    assert_eq!(
        code(server.call(None, &second).await),
        ApiErrorCode::NameTaken
    );
    // And whose password counts is decided with the name.
    let login = log_in(&server, ("acme", "bob"), PASSWORD, Duration::ZERO).await;
    assert!(matches!(login, Login::Finished(Ok(_))), "{login:?}");
}

#[tokio::test]
async fn a_lost_answer_does_not_cost_the_invite() {
    let server = Server::start().await;
    let invite = server.first_token("acme");
    let mut alice = Person::new("acme", "alice");
    let finish = alice.signup(&server, &invite, PASSWORD).await.unwrap();
    server.call(None, &finish).await.unwrap();
    alice.token = server.call(None, &finish).await.unwrap().token;
    let me = alice.call(&server, &MeRequest {}).await.unwrap();
    assert_eq!(me.devices.len(), 1);
}

#[tokio::test]
async fn a_certificate_of_somebody_else_opens_nothing() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let state = server.org("acme").state().unwrap();
    let known = state.device(alice.device.id).unwrap().signed.clone();

    // Mallory has an invite of her own, Alice's certificate, and a password.
    let invite = alice.invite(&server, "field").await;
    let mallory = Person::new("acme", "mallory");
    let mut finish = mallory.signup(&server, &invite, "mine").await.unwrap();
    finish.user = "alice".to_owned();
    finish.certificate = Some(known.clone());
    finish.identity_backup = alice.backup();
    assert_eq!(
        code(server.call(None, &finish).await),
        ApiErrorCode::NameTaken
    );
    // Nor does it go with her own name, or unsigned by its key.
    finish.user = "mallory".to_owned();
    assert_eq!(
        code(server.call(None, &finish).await),
        ApiErrorCode::Malformed
    );
    let mut forged = mallory.certificate(&server, &Device::new());
    forged.signature = known.signature;
    finish.certificate = Some(forged);
    assert_eq!(
        code(server.call(None, &finish).await),
        ApiErrorCode::Malformed
    );
    finish.certificate = None;
    assert_eq!(
        code(server.call(None, &finish).await),
        ApiErrorCode::Malformed
    );

    let login = log_in(&server, ("acme", "alice"), "mine", Duration::ZERO).await;
    assert!(matches!(login, Login::WrongAtClient(_)));
    let login = log_in(&server, ("acme", "alice"), PASSWORD, Duration::ZERO).await;
    assert!(matches!(login, Login::Finished(Ok(_))));
}

#[tokio::test]
async fn a_refused_sign_up_leaves_nothing_behind() {
    let server = Server::start().await;
    let invite = server.first_token("acme");
    let mut alice = Person::new("acme", "alice");
    let mut finish = alice.signup(&server, &invite, "first").await.unwrap();
    let account = Device {
        nats: KeyPair::new_account(),
        ..Device::new()
    };
    finish.certificate = Some(alice.certificate(&server, &account));
    assert_eq!(code(server.call(None, &finish).await), ApiErrorCode::Denied);
    // A record of the refused one would stand in the way of this one.
    let finish = alice.signup(&server, &invite, PASSWORD).await.unwrap();
    alice.token = server.call(None, &finish).await.unwrap().token;
    alice.call(&server, &MeRequest {}).await.unwrap();
}

#[tokio::test]
async fn only_owners_invite_and_within_bounds() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let call = |project: &str, role: Role, valid_seconds| InviteCreate {
        role: role.into(),
        project: project.to_owned(),
        valid_seconds,
    };
    let denied = bob.call(&server, &call("field", Role::User, 600)).await;
    let error = denied.unwrap_err();
    assert_eq!(error.code(), ApiErrorCode::Denied);
    assert!(error.message.contains("owner"), "{}", error.message);
    for (bad, expected) in [
        (call("field", Role::User, 0), ApiErrorCode::Malformed),
        (call("field", Role::User, u32::MAX), ApiErrorCode::Malformed),
        (
            call("field", Role::Unspecified, 60),
            ApiErrorCode::Malformed,
        ),
        (call("Field!", Role::User, 60), ApiErrorCode::Malformed),
        (call("elsewhere", Role::User, 60), ApiErrorCode::Denied),
    ] {
        assert_eq!(code(alice.call(&server, &bad).await), expected, "{bad:?}");
    }
    alice
        .call(&server, &call("", Role::Owner, 60))
        .await
        .unwrap();
}
