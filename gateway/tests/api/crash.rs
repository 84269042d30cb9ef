//! nats-server dies under the gateway: what was acknowledged is still there.

use std::time::Duration;

use reqwest::StatusCode;
use sotto_proto::wire::{ApiErrorCode, JoinRule, KeyPackagesUpload, MeRequest};

use super::person::{Login, PASSWORD, Person, log_in};
use super::server::{PATIENCE, Server};

#[tokio::test]
async fn what_was_acknowledged_survives() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let room = alice.create_room(&server, JoinRule::Invite).await;
    let upload = KeyPackagesUpload {
        key_packages: vec!["one".into()],
        last_resort: "last".into(),
    };
    alice.call(&server, &upload).await.unwrap();
    server.directory.crash_nats_server();

    let back = async {
        loop {
            match alice.call(&server, &MeRequest {}).await {
                Ok(me) => return me,
                // Refused while it is away, never answered wrongly.
                Err(error) => assert_eq!(error.code(), ApiErrorCode::Unavailable),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let me = tokio::time::timeout(2 * PATIENCE, back).await.unwrap();
    assert_eq!(me.rooms[0].room, room.to_bytes());
    assert_eq!(me.key_packages, 1);
    let login = log_in(&server, ("acme", "alice"), PASSWORD, Duration::ZERO).await;
    assert!(matches!(login, Login::Finished(Ok(_))), "{login:?}");
    // And what comes next is written where the other left off.
    alice.invite_new(&server, "bob").await;
    let ready = server.http().get(server.url("/readyz")).send().await;
    assert_eq!(ready.unwrap().status(), StatusCode::OK);
    // A gateway that starts now reads the same.
    let fresh = Server::start_on(server.directory.clone()).await;
    assert_eq!(alice.call(&fresh, &MeRequest {}).await.unwrap(), me);
}
