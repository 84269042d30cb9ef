//! What relays and gateways may and may not do, by the word of a real nats-server.

#![allow(clippy::unwrap_used, reason = "a test, with functions of its own")]

mod server;

use async_nats::jetstream;
use futures::StreamExt;
use server::{Directory, Person, Probe, Server, now_ms};
use sotto_jwt_accounts::grants;

#[tokio::test]
async fn a_gateway_uses_its_buckets_and_no_others() {
    let server = Server::start().await;
    let js = jetstream::new(server.gateway(&["sessions"]).await);
    let config = |bucket: &str| jetstream::kv::Config {
        bucket: bucket.to_owned(),
        history: 1,
        limit_markers: Some(std::time::Duration::from_secs(1)),
        ..Default::default()
    };
    let sessions = js.create_key_value(config("sessions")).await.unwrap();
    let revision = sessions.create("a", "1".into()).await.unwrap();
    assert!(sessions.create("a", "2".into()).await.is_err());
    sessions.update("a", "2".into(), revision).await.unwrap();
    assert!(sessions.update("a", "3".into(), revision).await.is_err());
    assert_eq!(sessions.get("a").await.unwrap().unwrap(), "2");
    sessions
        .purge_with_ttl("a", std::time::Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(sessions.get("a").await.unwrap(), None);

    let other = tokio::time::timeout(
        std::time::Duration::from_millis(300),
        js.create_key_value(config("others")),
    );
    assert!(!matches!(other.await, Ok(Ok(_))), "another bucket was made");
}

#[tokio::test]
async fn a_gateway_reaches_no_room() {
    let server = Server::start().await;
    let _mail = server.mail_stream().await;
    let user = grants::gateway(server.signer.account(), &["sessions"]);
    let mut gateway = service(&server, user, grants::GATEWAY_INBOX).await;
    for subject in [
        "r.0.field.x.msg",
        "inbox.x",
        "$JS.API.DIRECT.GET.MAIL-0",
        "$JS.API.STREAM.MSG.GET.MAIL-0",
        "$JS.API.CONSUMER.CREATE.MAIL-0.x",
        "$JS.API.STREAM.DELETE.KV_sessions",
        "$JS.API.STREAM.DELETE.DIRECTORY",
        "$JS.API.STREAM.NAMES",
    ] {
        gateway.client.publish(subject, "x".into()).await.unwrap();
        let refusal = gateway.refusal().await;
        assert!(
            refusal.contains(&format!("Publish to \"{subject}\"")),
            "{refusal}"
        );
    }
    for subject in [">", "live.>", "live.r.>", "r.>", "fetch.*"] {
        let _refused = gateway.client.subscribe(subject).await.unwrap();
        let refusal = gateway.refusal().await;
        assert!(
            refusal.contains(&format!("Subscription to \"{subject}\"")),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn a_relay_reads_rooms_but_cannot_write_them() {
    let server = Server::start().await;
    let mail = server.mail_stream().await;
    let mut directory = Directory::new();
    let alice = Person::new("alice", 1);
    directory.enrol(&alice);
    let room = directory.room(&alice, 11);
    let device = server.device(&directory, &alice).await;
    let subject = room.messages().to_string();
    device
        .client
        .request(subject.clone(), "sealed".into())
        .await
        .unwrap();
    assert_eq!(mail.direct_get(1).await.unwrap().payload, "sealed");

    let user = grants::relay(server.signer.account(), 1);
    let mut relay = service(&server, user, grants::RELAY_INBOX).await;
    for subject in [
        subject.as_str(),
        "inbox.x",
        "directory",
        "_INBOX.x.y",
        "$KV.sessions.x",
        "$JS.API.DIRECT.GET.KV_sessions",
        "$JS.API.DIRECT.GET.MAIL-1",
        "$JS.API.STREAM.DELETE.MAIL-0",
        "$JS.API.STREAM.PURGE.MAIL-0",
        "$JS.API.CONSUMER.CREATE.MAIL-0.x",
    ] {
        relay
            .client
            .publish(subject.to_owned(), "x".into())
            .await
            .unwrap();
        let refusal = relay.refusal().await;
        assert!(
            refusal.contains(&format!("Publish to \"{subject}\"")),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn a_relay_among_devices_only_answers() {
    let server = Server::start().await;
    let credentials = server.signer.relay_of_devices().unwrap();
    let mut relay = Probe::with_credentials(&server.url, &credentials, grants::RELAY_INBOX).await;
    for subject in [
        "r.0.field.x.msg",
        "inbox.x",
        "live.r.x",
        "fetch.x",
        "$JS.API.INFO",
    ] {
        relay.client.publish(subject, "x".into()).await.unwrap();
        let refusal = relay.refusal().await;
        assert!(
            refusal.contains(&format!("Publish to \"{subject}\"")),
            "{refusal}"
        );
    }
    for subject in [">", "live.>", "r.>", "_INBOX.>"] {
        let _refused = relay.client.subscribe(subject).await.unwrap();
        let refusal = relay.refusal().await;
        assert!(
            refusal.contains(&format!("Subscription to \"{subject}\"")),
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn an_org_keeps_nothing_in_memory_only() {
    let server = Server::start().await;
    let js = jetstream::new(server.relay().await);
    let in_memory = js.create_stream(jetstream::stream::Config {
        name: "INBOX".to_owned(),
        subjects: vec!["inbox.*".to_owned()],
        storage: jetstream::stream::StorageType::Memory,
        ..Default::default()
    });
    assert!(in_memory.await.is_err());
}

#[tokio::test]
async fn orgs_do_not_hear_each_other() {
    let server = Server::start().await;
    let org = "other".parse().unwrap();
    server.keys.add_org(&org, now_ms()).unwrap();
    for jwt in server.keys.account_jwts(&org).unwrap() {
        server.push(&jwt).await;
    }
    let theirs = server.keys.account_signer(&org).unwrap();
    let theirs = theirs.relay_of_devices().unwrap();
    let theirs = server.service(&theirs, grants::RELAY_INBOX).await;
    let mut heard = theirs.subscribe("fetch.*").await.unwrap();
    theirs.flush().await.unwrap();

    let mut directory = Directory::new();
    let alice = Person::new("alice", 1);
    directory.enrol(&alice);
    let device = server.device(&directory, &alice).await;
    let fetch = format!("fetch.{}", alice.device);
    let answer = device.client.request(fetch, "?".into()).await;
    assert!(answer.is_err(), "another org's relay was asked: {answer:?}");
    theirs.flush().await.unwrap();
    let heard = tokio::time::timeout(std::time::Duration::from_millis(100), heard.next()).await;
    assert!(heard.is_err(), "{heard:?}");
}

async fn service(server: &Server, user: sotto_jwt_accounts::claims::User, inbox: &str) -> Probe {
    let credentials = server
        .signer
        .credentials("service", user, now_ms())
        .unwrap();
    Probe::with_credentials(&server.url, &credentials, inbox).await
}
