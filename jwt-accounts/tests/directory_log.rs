//! The directory log in a real JetStream stream.

#![allow(clippy::unwrap_used, reason = "a test, with functions of its own")]

mod server;

use std::sync::Arc;

use async_nats::{Client, HeaderMap, jetstream};
use ed25519_dalek::SigningKey;
use server::{
    PATIENCE, Person, Server, create_room, enrolment, first_commands, gateway_key, now_ms,
};
use sotto_jwt_accounts::claims::{Permissions, Subjects, User};
use sotto_jwt_accounts::directory::{
    Actor, AppendError, Command, DirectoryLog, DirectoryWriter, LogError, Refusal, Rule, State,
};
use sotto_jwt_accounts::grants;
use sotto_proto::{DIRECTORY_STREAM, OrgName, ProjectName, RoomId};

async fn writer(server: &Server) -> DirectoryWriter {
    let js = jetstream::new(server.gateway(&[]).await);
    DirectoryWriter::open(&js, server.org.clone(), gateway_key())
        .await
        .unwrap()
}

async fn reader(client: Client, org: &OrgName) -> Result<DirectoryLog, LogError> {
    let key = gateway_key().verifying_key();
    DirectoryLog::open(&jetstream::new(client), org.clone(), key).await
}

async fn found(writer: &DirectoryWriter) -> Arc<State> {
    let mut state = writer.log().state().unwrap();
    for command in first_commands() {
        let by = Actor::Gateway.into();
        state = writer.append(&by, command, now_ms()).await.unwrap().state;
    }
    state
}

async fn enrol(writer: &DirectoryWriter, who: &Person) {
    for (actor, command) in enrolment(who) {
        writer
            .append(&actor.into(), command, now_ms())
            .await
            .unwrap();
    }
}

/// Waits until a log knows this many entries.
async fn await_length(log: &DirectoryLog, length: u64) -> Arc<State> {
    let mut known = log.subscribe();
    let grown = known.wait_for(|known| known.as_ref().is_ok_and(|s| s.head().length >= length));
    let known = tokio::time::timeout(PATIENCE, grown)
        .await
        .unwrap()
        .unwrap();
    known.clone().unwrap()
}

#[tokio::test]
async fn what_is_appended_is_heard_and_found_again() {
    let mut server = Server::start().await;
    let gateway = writer(&server).await;
    let relay = reader(server.relay().await, &server.org).await.unwrap();
    assert_eq!(relay.state().unwrap().head().length, 0);

    found(&gateway).await;
    let alice = Person::new("alice", 1);
    enrol(&gateway, &alice).await;
    let room = RoomId::try_from(&[7; 16][..]).unwrap();
    let state = gateway
        .append(&alice.actor().into(), create_room(room), now_ms())
        .await
        .unwrap()
        .state;
    assert_eq!(state.head().length, 8);
    assert_eq!(await_length(&relay, 8).await, state);

    server.kill_and_restart().await;
    let again = reader(server.relay().await, &server.org).await.unwrap();
    assert_eq!(again.state().unwrap(), state);
    // And the connections from before go on.
    let invite = enrolment(&Person::new("bob", 2));
    let [(actor, command), _] = invite;
    let by = actor.into();
    let state = loop {
        match gateway.append(&by, command.clone(), now_ms()).await {
            Ok(appended) => break appended.state,
            Err(AppendError::Log(LogError::Unavailable(_))) => {}
            // Stored by an attempt that was not answered.
            Err(AppendError::Refused(Refusal::Rule(Rule::InviteTaken))) => {
                break gateway.log().state().unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(await_length(&relay, 9).await, state);
}

#[tokio::test]
async fn of_many_gateways_at_once_each_gets_through_or_is_told_why() {
    let server = Server::start().await;
    let mut gateways = Vec::new();
    for _ in 0..4 {
        gateways.push(writer(&server).await);
    }
    found(&gateways[0]).await;
    let project = |number: usize| -> ProjectName { format!("p{number}").parse().unwrap() };
    // Each project is made by two gateways.
    let appends = (0..40).map(|number| {
        let command = Command::CreateProject {
            project: project(number / 2),
        };
        // At times of their own: the same entry twice would count as one.
        let at_ms = now_ms() + i64::try_from(number).unwrap();
        let gateway = &gateways[number % 4];
        async move { gateway.append(&Actor::Gateway.into(), command, at_ms).await }
    });
    let answers = futures::future::join_all(appends).await;
    let made = answers.iter().filter(|answer| answer.is_ok()).count();
    let taken = answers.iter().filter(|answer| {
        matches!(
            answer,
            Err(AppendError::Refused(Refusal::Rule(Rule::ProjectTaken(_))))
        )
    });
    assert_eq!((made, taken.count()), (20, 20));

    let mut states = Vec::new();
    for gateway in &gateways {
        states.push(gateway.log().refresh().await.unwrap());
    }
    assert_eq!(states[0].projects().count(), 21);
    assert!(states.iter().all(|state| *state == states[0]));
}

#[tokio::test]
async fn a_decision_is_stored_whole_or_not_at_all() {
    let server = Server::start().await;
    let gateway = writer(&server).await;
    found(&gateway).await;
    let alice = Person::new("alice", 1);
    let [(actor, invite), (_, sign_up)] = enrolment(&alice);
    gateway
        .append(&actor.into(), invite, now_ms())
        .await
        .unwrap();
    let before = gateway.log().state().unwrap();

    // A batch whose last message does not come.
    let client = server.gateway(&[]).await;
    for place in 1..=2 {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Batch-Id", "unfinished");
        headers.insert("Nats-Batch-Sequence", place.to_string());
        let part = client.publish_with_headers("directory", headers, "part".into());
        part.await.unwrap();
    }
    client.flush().await.unwrap();
    assert_eq!(gateway.log().refresh().await.unwrap(), before);

    let after = gateway
        .append(&alice.actor().into(), sign_up.clone(), now_ms())
        .await
        .unwrap()
        .state;
    assert_eq!(after.head().length, before.head().length + 3);
    // Asked again, as after an answer that was lost: refused, nothing stored.
    let again = gateway
        .append(&alice.actor().into(), sign_up, now_ms())
        .await;
    assert!(matches!(
        again,
        Err(AppendError::Refused(Refusal::Rule(Rule::InviteInvalid)))
    ));
    assert_eq!(gateway.log().refresh().await.unwrap(), after);
}

#[tokio::test]
async fn a_foreign_entry_breaks_the_log_for_good() {
    let server = Server::start().await;
    let gateway = writer(&server).await;
    let state = found(&gateway).await;
    let relay = reader(server.relay().await, &server.org).await.unwrap();

    let forger = server.gateway(&[]).await;
    forger
        .request("directory", "not an entry".into())
        .await
        .unwrap();
    let mut known = relay.subscribe();
    let broken = tokio::time::timeout(PATIENCE, known.wait_for(Result::is_err)).await;
    drop(broken.unwrap().unwrap());
    let error = relay.state().unwrap_err();
    assert!(
        matches!(&error, LogError::Broken { index: 2, .. }),
        "{error}"
    );
    assert!(gateway.log().refresh().await.is_err());
    let append = gateway
        .append(
            &Actor::Gateway.into(),
            first_commands()[1].clone(),
            now_ms(),
        )
        .await;
    assert!(matches!(
        append,
        Err(AppendError::Log(LogError::Broken { .. }))
    ));
    let reopened = reader(server.relay().await, &server.org).await;
    assert!(matches!(reopened, Err(LogError::Broken { .. })));
    drop(state);
}

#[tokio::test]
async fn a_log_of_another_key_or_org_is_not_believed() {
    let server = Server::start().await;
    found(&writer(&server).await).await;
    let other_key = SigningKey::from_bytes(&[1; 32]).verifying_key();
    let js = jetstream::new(server.relay().await);
    let read = DirectoryLog::open(&js, server.org.clone(), other_key).await;
    assert!(matches!(read, Err(LogError::Broken { index: 0, .. })));
    let read = reader(server.relay().await, &"other".parse().unwrap()).await;
    assert!(matches!(read, Err(LogError::OtherOrg)));
}

#[tokio::test]
async fn nothing_is_deleted_from_the_log() {
    let server = Server::start().await;
    let gateway = writer(&server).await;
    found(&gateway).await;
    // Not even by who may do anything in the account.
    let everything = || Subjects::only(vec![">".to_owned()]);
    let user = User {
        permissions: Permissions {
            publish: everything(),
            subscribe: everything(),
        },
        ..grants::gateway(server.signer.account(), &[])
    };
    let credentials = server.signer.credentials("root", user, now_ms()).unwrap();
    let js = jetstream::new(server.service(&credentials, "_INBOX.root").await);
    let stream = js.get_stream(DIRECTORY_STREAM).await.unwrap();
    assert!(stream.delete_message(1).await.is_err());
    assert!(stream.purge().await.is_err());
    assert_eq!(gateway.log().refresh().await.unwrap().head().length, 2);
}

#[tokio::test]
async fn a_long_log_is_read_in_portions() {
    let server = Server::start().await;
    let gateway = writer(&server).await;
    found(&gateway).await;
    for number in 0..1_100 {
        let project = format!("p{number}").parse().unwrap();
        let command = Command::CreateProject { project };
        gateway
            .append(&Actor::Gateway.into(), command, now_ms())
            .await
            .unwrap();
    }
    let relay = reader(server.relay().await, &server.org).await.unwrap();
    assert_eq!(relay.state().unwrap(), gateway.log().state().unwrap());
}
