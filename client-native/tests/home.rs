//! The folder of a device, and a session in it, without any server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod disk;

use std::fs;
use std::time::Duration;

use disk::SmallDisk;
use ed25519_dalek::SigningKey;
use opaque_ke::{RegistrationRequest, ServerRegistration, ServerSetup};
use rand::rngs::OsRng;
use sotto_client_core::account::Account;
use sotto_client_core::io::{Command, Timestamp};
use sotto_client_core::signup;
use sotto_client_core::store::StoreError;
use sotto_client_core::vault::VaultError;
use sotto_client_native::clock::Clock;
use sotto_client_native::home::{Home, HomeError};
use sotto_client_native::session::{Notice, Session};
use sotto_client_native::tls;
use sotto_proto::password::{PasswordSuite, credential_identifier};
use sotto_proto::{GatewayAddress, InviteLink, InviteToken, signed, wire};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

/// An account at a server that does not exist.
fn account() -> Account {
    let invite = InviteLink {
        gateway: GatewayAddress {
            host: "127.0.0.1".to_owned(),
            port: 1,
            org: "acme".parse().unwrap(),
            authority: [0; 32],
        },
        invite: InviteToken::try_from(&[1u8; 16][..]).unwrap(),
    };
    let (starting, start) =
        signup::start(&invite, "alice".parse().unwrap(), "password", &mut OsRng).unwrap();
    let setup = ServerSetup::<PasswordSuite>::new(&mut OsRng);
    let request = RegistrationRequest::deserialize(&start.opaque_request).unwrap();
    let name = credential_identifier(&"acme".parse().unwrap(), &"alice".parse().unwrap());
    let response = ServerRegistration::start(&setup, request, &name).unwrap();
    let started = wire::SignupStarted {
        opaque_response: response.message.serialize().to_vec().into(),
    };
    let info = wire::ServerInfo {
        gateway_key: signed::key_bytes(&SigningKey::from_bytes(&[2; 32]).verifying_key()),
        ..wire::ServerInfo::default()
    };
    let now = Timestamp(1_700_000_000_000);
    let finished = starting.finish(&started, &info, now, &mut OsRng);
    finished.unwrap().0
}

fn room(name: &str) -> Command {
    Command::CreateRoom {
        project: "field".parse().unwrap(),
        name: name.to_owned(),
        join_rule: wire::JoinRule::Invite,
    }
}

/// What opening said instead of opening.
fn refused(home: &Home, passphrase: &str) -> HomeError {
    match home.open(passphrase) {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

#[test]
fn an_account_is_found_again_with_its_passphrase_only() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path().join("new/folder"));
    assert!(matches!(refused(&home, "open"), HomeError::NoAccount(_)));
    let device = home
        .create(account(), "open")
        .unwrap()
        .engine
        .account()
        .device;

    let opened = home.open("open").unwrap();
    assert_eq!(opened.engine.account().device, device);
    let second = refused(&home, "open");
    assert!(
        matches!(second, HomeError::Store(StoreError::InUse)),
        "{second}"
    );
    drop(opened);

    let wrong = refused(&home, "close");
    assert!(
        matches!(wrong, HomeError::Vault(VaultError::WrongPassphrase)),
        "{wrong}"
    );
    let occupied = home.create(account(), "open").map(drop).unwrap_err();
    assert!(matches!(occupied, HomeError::Occupied(_)), "{occupied}");
    assert_eq!(home.open("open").unwrap().engine.account().device, device);
}

#[test]
fn what_an_attempt_left_behind_does_not_matter() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    drop(home.create(account(), "first").unwrap());
    // As if the power had failed before the last step.
    fs::rename(
        directory.path().join("key"),
        directory.path().join("key.new"),
    )
    .unwrap();
    let device = home
        .create(account(), "second")
        .unwrap()
        .engine
        .account()
        .device;
    assert_eq!(home.open("second").unwrap().engine.account().device, device);
}

#[test]
fn a_removed_account_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    home.remove(home.create(account(), "open").unwrap())
        .unwrap();
    assert!(matches!(refused(&home, "open"), HomeError::NoAccount(_)));
    home.check_vacant().unwrap();
}

#[test]
fn a_damaged_key_file_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    drop(home.create(account(), "open").unwrap());
    let key = directory.path().join("key");
    let whole = fs::read(&key).unwrap();
    for damaged in [&b""[..], b"garbage", &whole[..whole.len() - 1]] {
        fs::write(&key, damaged).unwrap();
        let error = refused(&home, "open");
        assert!(
            matches!(error, HomeError::Vault(VaultError::Damaged(_))),
            "{error}"
        );
    }
}

#[test]
fn a_store_that_is_gone_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let home = Home::new(directory.path());
    drop(home.create(account(), "open").unwrap());
    fs::remove_file(directory.path().join("store/store.redb")).unwrap();
    let error = refused(&home, "open");
    assert!(
        matches!(error, HomeError::Store(StoreError::Corrupt(_))),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_server_a_session_says_so_and_goes_on() {
    tls::install_provider();
    let directory = tempfile::tempdir().unwrap();
    let opened = Home::new(directory.path())
        .create(account(), "open")
        .unwrap();
    let (session, mut notices) = Session::start(opened, Clock::default()).unwrap();
    session.go_online().await;
    let notice = timeout(SOON, notices.recv()).await.unwrap().unwrap();
    let Notice::Offline { reason } = notice else {
        panic!("{notice:?}");
    };
    assert!(
        reason.contains("127.0.0.1:1") && reason.contains("check the network"),
        "{reason}"
    );
    let user = session
        .look(|engine, _| engine.account().user.clone())
        .await
        .unwrap();
    assert_eq!(user.as_str(), "alice");
    timeout(SOON, session.stop()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_fails_the_command_and_nothing_else() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    tls::install_provider();
    let home = Home::new(disk.path().join("alice"));
    let opened = home.create(account(), "open").unwrap();
    let (session, mut notices) = Session::start(opened, Clock::default()).unwrap();
    let rooms = || session.look(|engine, _| engine.rooms().len());

    let filler = disk.fill(1 << 20);
    let error = session
        .command(room("lost"))
        .await
        .done()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("disk is full"), "{error}");
    let notice = timeout(SOON, notices.recv()).await.unwrap().unwrap();
    assert!(matches!(notice, Notice::StoreFailed { .. }), "{notice:?}");
    assert_eq!(
        rooms().await.unwrap(),
        0,
        "what is not durable is not shown"
    );

    fs::remove_file(filler).unwrap();
    let _kept = session.command(room("kept")).await;
    assert_eq!(rooms().await.unwrap(), 1);
    session.stop().await;
    let names: Vec<_> = home
        .open("open")
        .unwrap()
        .engine
        .rooms()
        .into_iter()
        .map(|room| room.name)
        .collect();
    assert_eq!(names, [Some("kept".to_owned())]);
}
