//! The directory log in a real JetStream stream.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test, with functions of its own"
)]

mod server;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, jetstream};
use ed25519_dalek::SigningKey;
use server::{
    PATIENCE, Person, Server, create_room, enrolment, first_commands, gateway_key, now_ms,
};
use sotto_jwt_accounts::directory::{
    Actor, AppendError, Command, DirectoryLog, DirectoryWriter, Holder, LogError, Refusal, Role,
    Rule, Scope, State,
};
use sotto_proto::{DIRECTORY_STREAM, OrgName, ProjectName, RoomId};

async fn writer(server: &Server) -> DirectoryWriter {
    let js = jetstream::new(server.gateway().await);
    DirectoryWriter::open(&js, 1, server.org.clone(), gateway_key(), None)
        .await
        .unwrap()
}

async fn reader(client: Client, org: &OrgName) -> Result<DirectoryLog, LogError> {
    let key = gateway_key().verifying_key();
    DirectoryLog::open(&jetstream::new(client), 1, org.clone(), key, None).await
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
    for gateway in &gateways {
        gateway.log().refresh().await.unwrap();
    }
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
    assert_eq!((made, taken.count()), (20, 20), "{answers:?}");

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
    let client = server.gateway().await;
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

    let forger = server.gateway().await;
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
    let read = DirectoryLog::open(&js, 1, server.org.clone(), other_key, None).await;
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
    let js = jetstream::new(server.root().await);
    let stream = js.get_stream(DIRECTORY_STREAM).await.unwrap();
    assert!(stream.delete_message(1).await.is_err());
    assert!(stream.purge().await.is_err());
    assert_eq!(gateway.log().refresh().await.unwrap().head().length, 2);
}

/// Two gateways that change the same things at the same time, for so long.
async fn append_at_once(duration: Duration) {
    let server = Server::start().await;
    let gateways = [writer(&server).await, writer(&server).await];
    found(&gateways[0]).await;
    let alice = Person::new("alice", 1);
    enrol(&gateways[0], &alice).await;
    gateways[1].log().refresh().await.unwrap();
    let until = Instant::now() + duration;
    let work = |number: usize| {
        let gateway = &gateways[number];
        async move {
            let (mut done, mut refused) = (0_u32, 0_u32);
            let by = Actor::Gateway.into();
            for round in 0.. {
                if Instant::now() > until {
                    break;
                }
                // Both make the same project, then one wants what the other takes.
                let project: ProjectName = format!("p{round}").parse().unwrap();
                let scope = Scope::Project(project.clone());
                let holder = Holder::User("alice".parse().unwrap());
                let grant = Command::GrantRole {
                    holder: holder.clone(),
                    scope: scope.clone(),
                    role: Role::User,
                };
                let revoke = Command::RevokeRole { holder, scope };
                let both = Command::All(vec![grant, revoke]);
                for command in [Command::CreateProject { project }, both] {
                    // The same at the same time would count as one.
                    let at_ms = now_ms() / 2 * 2 + i64::try_from(number).unwrap();
                    match gateway.append(&by, command, at_ms).await {
                        Ok(_) => done += 1,
                        Err(AppendError::Refused(_)) => refused += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            (done, refused)
        }
    };
    let (one, other) = tokio::join!(work(0), work(1));
    assert!(one.0 > 0 && other.0 > 0, "{one:?} {other:?}");

    let mut states = Vec::new();
    for gateway in &gateways {
        states.push(gateway.log().refresh().await.unwrap());
    }
    assert_eq!(states[0], states[1]);
    // Each project was made once, and each pair of changes is whole.
    let made = states[0].projects().count() - 1;
    let changes = usize::try_from(states[0].head().length).unwrap() - 6 - made;
    assert_eq!(changes % 2, 0);
    assert_eq!(
        usize::try_from(one.0 + other.0).unwrap(),
        made + changes / 2
    );
    // And whoever starts anew reads just that.
    let again = reader(server.relay().await, &server.org).await.unwrap();
    assert_eq!(again.state().unwrap(), states[0]);
}

#[tokio::test]
async fn two_gateways_append_at_once() {
    append_at_once(Duration::from_secs(5)).await;
}

#[tokio::test]
#[ignore = "takes a minute"]
async fn two_gateways_append_at_once_for_a_minute() {
    append_at_once(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_snapshot_shortens_the_way_and_a_bad_one_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/acme.relay.snapshot");
    let server = Server::start().await;
    let gateway = writer(&server).await;
    found(&gateway).await;
    let by = Actor::Gateway.into();
    for hundred in 0..11 {
        let create = (0..500).map(|number| Command::CreateProject {
            project: format!("p{hundred}-{number}").parse().unwrap(),
        });
        let all = Command::All(create.collect());
        gateway.append(&by, all, now_ms()).await.unwrap();
    }
    let state = gateway.log().state().unwrap();
    let open = async |path: &Path| {
        let js = jetstream::new(server.relay().await);
        let key = gateway_key().verifying_key();
        DirectoryLog::open(&js, 1, server.org.clone(), key, Some(path.to_owned())).await
    };
    // The way was long, so it is kept.
    let relay = open(&path).await.unwrap();
    assert_eq!(relay.state().unwrap(), state);
    let kept = tokio::time::timeout(PATIENCE, async {
        while !path.is_file() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::fs::read(&path).unwrap()
    });
    let kept = kept.await.unwrap();
    drop(relay);

    // Only what came after it is read.
    let create = Command::CreateProject {
        project: "after".parse().unwrap(),
    };
    let state = gateway.append(&by, create, now_ms()).await.unwrap().state;
    let began = Instant::now();
    let relay = open(&path).await.unwrap();
    let with_it = began.elapsed();
    assert_eq!(relay.state().unwrap(), state);
    drop(relay);
    std::fs::remove_file(&path).unwrap();
    let began = Instant::now();
    drop(open(&path).await.unwrap());
    assert!(with_it < began.elapsed(), "{with_it:?}");

    // A damaged one, half of one, and one of another log are as good as none.
    let other = Server::start().await;
    let elsewhere = writer(&other).await;
    found(&elsewhere).await;
    let mut flipped = kept.clone();
    flipped[1_000] ^= 1;
    for content in [&flipped[..], &kept[..kept.len() / 2], b""] {
        std::fs::write(&path, content).unwrap();
        let relay = open(&path).await.unwrap();
        assert_eq!(relay.state().unwrap(), state);
    }
    std::fs::write(&path, &kept).unwrap();
    let js = jetstream::new(other.relay().await);
    let key = gateway_key().verifying_key();
    let log = DirectoryLog::open(&js, 1, other.org.clone(), key, Some(path)).await;
    assert_eq!(
        log.unwrap().state().unwrap(),
        elsewhere.log().state().unwrap()
    );
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
