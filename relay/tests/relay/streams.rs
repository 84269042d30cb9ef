//! The streams that the relay makes.

use std::time::Duration;

use async_nats::jetstream::{self, stream};
use futures::StreamExt;
use sotto_proto::{Subject, limits};

use crate::org::{Org, store, submission};
use crate::server::{Server, within};

const MONTH: Duration = Duration::from_secs(30 * 24 * 3_600);

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_made_as_designed_and_put_right_again() {
    let server = Server::new();
    let relay = server.start().await;
    let js = jetstream::new(server.relay().await);
    let config = async |name: &str| {
        js.get_stream(name)
            .await
            .unwrap()
            .cached_info()
            .config
            .clone()
    };

    let mail = config("MAIL-0").await;
    assert_eq!(mail.subjects, ["r.0.>"]);
    assert_eq!(mail.storage, stream::StorageType::File);
    assert!(mail.allow_direct && mail.allow_message_ttl);
    assert_eq!(mail.max_age, Duration::ZERO);
    let republish = mail.republish.clone().unwrap();
    assert_eq!(republish.source, "r.0.>");
    assert_eq!(republish.destination, "live.r.0.>");

    let blobs = config("BLOB-0").await;
    assert_eq!(blobs.subjects, ["blob.0.>"]);
    assert_eq!((blobs.allow_direct, blobs.max_age), (true, MONTH));
    assert_eq!(blobs.republish, None);

    let inbox = config("INBOX").await;
    assert_eq!(inbox.subjects, ["inbox.*"]);
    assert_eq!((inbox.allow_direct, inbox.max_age), (true, MONTH));

    // Whoever changes one finds it changed back at the next start.
    let changed = stream::Config {
        republish: None,
        ..mail
    };
    js.update_stream(changed).await.unwrap();
    assert!(relay.stop().await.success());
    let _relay = server.start().await;
    assert_eq!(config("MAIL-0").await.republish, Some(republish));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_republished_with_its_place() {
    let server = Server::new();
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;
    let mut live = client.subscribe(room.live_wildcard()).await.unwrap();
    let inbox = Subject::Inbox(alice.id);
    let mut live_inbox = client.subscribe(inbox.live()).await.unwrap();

    let first = store(&client, &room.messages(), "one").await;
    let commit = store(&client, &room.handshakes(), "commit").await;
    let second = store(&client, &room.messages(), "two").await;
    let header = |message: &async_nats::Message, name: &str| -> u64 {
        let headers = message.headers.as_ref().unwrap();
        headers.get(name).unwrap().as_str().parse().unwrap()
    };
    for (subject, sequence, before) in [
        (room.messages(), first, 0),
        (room.handshakes(), commit, 0),
        (room.messages(), second, first),
    ] {
        let message = within(live.next()).await.unwrap();
        assert_eq!(Subject::from_live(&message.subject).unwrap(), subject);
        assert_eq!(header(&message, "Nats-Sequence"), sequence);
        assert_eq!(header(&message, "Nats-Last-Sequence"), before);
    }

    let sequence = store(&client, &inbox, "welcome").await;
    let message = within(live_inbox.next()).await.unwrap();
    assert_eq!(message.subject.as_str(), inbox.live());
    assert_eq!(header(&message, "Nats-Sequence"), sequence);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_catch_up_could_not_carry_is_not_stored() {
    let server = Server::new();
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;
    store(&client, &room.messages(), vec![7; limits::PAYLOAD]).await;
    let to = submission(&client, &room.messages());
    let js = jetstream::new(client);
    let too_long = vec![7; limits::PAYLOAD + 1].into();
    let ack = within(js.publish(to, too_long).await.unwrap()).await;
    let error = std::error::Error::source(&ack.unwrap_err())
        .unwrap()
        .to_string();
    assert!(error.contains("too large"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_on_an_old_epoch_is_refused() {
    let server = Server::new();
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;
    let to = submission(&client, &room.handshakes());
    let js = jetstream::new(client);
    let commit = async |expected: u64| {
        let message = jetstream::message::PublishMessage::build()
            .expected_last_subject_sequence(expected)
            .payload("commit".into());
        let ack = js.send_publish(to.clone(), message);
        within(ack.await.unwrap()).await
    };
    let first = commit(0).await.unwrap().sequence;
    let error = commit(0).await.unwrap_err();
    let code = std::error::Error::source(&error).unwrap().to_string();
    assert!(code.contains("10071"), "{code}");
    commit(first).await.unwrap();
}
