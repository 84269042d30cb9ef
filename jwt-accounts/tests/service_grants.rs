//! What relays and gateways may and may not do, by the word of a real nats-server.

#![allow(clippy::unwrap_used, reason = "a test, with functions of its own")]

mod server;

use async_nats::jetstream;
use futures::StreamExt;
use nkeys::KeyPair;
use server::{Directory, Person, Probe, SERVICES, Server, now_ms, submission, user};
use sotto_jwt_accounts::claims::{Account, Claims, Permissions, Rights, SigningKey};
use sotto_jwt_accounts::{grants, held_accounts, push_account};
use sotto_proto::DIRECTORY_SUBJECT;

#[tokio::test]
async fn a_gateway_uses_its_buckets_and_no_others() {
    let server = Server::start().await;
    let js = jetstream::new(server.gateway().await);
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
    let credentials = server.signer.gateway(now_ms()).unwrap();
    let mut gateway =
        Probe::with_credentials(&server.url, &credentials, grants::GATEWAY_INBOX).await;
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
async fn a_relay_stores_for_devices_and_writes_nothing_else() {
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
        .request(submission(alice.device, room.messages()), "sealed".into())
        .await
        .unwrap();
    assert_eq!(mail.direct_get(1).await.unwrap().payload, "sealed");

    let credentials = server.signer.relay(now_ms()).unwrap();
    let mut relay = Probe::with_credentials(&server.url, &credentials, grants::RELAY_INBOX).await;
    let answer = relay.client.request(subject, "sealed".into()).await;
    let answer = answer.unwrap().payload;
    assert!(answer.starts_with(b"{\"stream\":\"MAIL-0\""), "{answer:?}");
    for subject in [
        "live.r.0.field.x.msg",
        "live.r.0.field.x.presence",
        "directory",
        "_INBOX.x.y",
        "$KV.sessions.x",
        "$JS.API.DIRECT.GET.KV_sessions",
        "$JS.API.DIRECT.GET.MAIL-1",
        "$JS.API.STREAM.DELETE.MAIL-0",
        "$JS.API.STREAM.PURGE.BLOB-0",
        "$JS.API.STREAM.PURGE.DIRECTORY",
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

/// Every signing key of a store but that of devices: whoever has one gets no
/// more than the role that it is for.
#[tokio::test]
async fn a_leaked_key_of_a_role_makes_no_wider_user() {
    let server = Server::start().await;
    let [own, devices] = server.keys.account_jwts(&server.org).unwrap();
    let system = server.keys.system_account_jwt().to_owned();
    let mut roles = Vec::new();
    for jwt in [own, devices, system] {
        let account = Claims::<Account>::verify(&jwt).unwrap().claims;
        for key in &account.nats.signing_keys {
            let SigningKey::Role(key) = key else { continue };
            roles.push(format!("{} {}", account.name, key.role));
            let leaked = server.key(&key.key);
            let connect = async |rights: Option<Rights>| {
                let key = KeyPair::new_user();
                let claims = user(&key, &account.subject, rights);
                let jwt = claims.sign(&leaked, now_ms() / 1_000).unwrap();
                Probe::connect(&server.url, jwt, key, "_INBOX.relay").await
            };
            // Rights of its own, the wildest or none: the server lets nobody in.
            let mut everything = grants::relay(1);
            everything.permissions = Permissions::default();
            everything.permissions.publish.allow = vec![">".to_owned()];
            let mut nothing = everything.clone();
            nothing.permissions = Permissions::nothing();
            for rights in [everything, nothing] {
                let refused = connect(Some(rights)).await;
                assert!(refused.is_err(), "{}: own rights were taken", key.role);
            }
            // As the role's user it is held to the role.
            let mut held = connect(None).await.unwrap();
            // A relay of the org stores messages, and nothing in the directory.
            let of_another = match roles.last().map(String::as_str) {
                Some("acme relay") => DIRECTORY_SUBJECT,
                _ => "r.0.field.x.msg",
            };
            for subject in [of_another, "$JS.API.STREAM.DELETE.DIRECTORY", "x"] {
                held.client.publish(subject, "x".into()).await.unwrap();
                let refusal = held.refusal().await;
                assert!(refusal.contains("Publish"), "{}: {refusal}", key.role);
            }
            let _refused = held.client.subscribe(">").await.unwrap();
            let refusal = held.refusal().await;
            assert!(refusal.contains("Subscription"), "{}: {refusal}", key.role);
        }
    }
    let expected = [
        "acme relay",
        "acme gateway",
        "acme devices relay",
        "SYS admin",
        "SYS gateway",
    ];
    assert_eq!(roles, expected);

    // Nor does an account's own key sign: the operator's JWT says so.
    let own = server.key(server.signer.account());
    let key = KeyPair::new_user();
    let claims = user(&key, server.signer.account(), Some(grants::relay(1)));
    let jwt = claims.sign(&own, now_ms() / 1_000).unwrap();
    let refused = Probe::connect(&server.url, jwt, key, "_INBOX.relay").await;
    assert!(refused.is_err(), "the account's identity signed a user");
}

#[tokio::test]
async fn a_gateway_only_pushes_accounts_and_asks_for_them() {
    let server = Server::start().await;
    let credentials = server.keys.gateway_system_credentials(now_ms()).unwrap();
    let mut gateway =
        Probe::with_credentials(&server.url, &credentials, grants::SYSTEM_INBOX).await;
    let held = held_accounts(&gateway.client, server.signer.account()).await;
    assert_eq!(held.unwrap().len(), 1);
    let [own, _] = server.keys.account_jwts(&server.org).unwrap();
    push_account(&gateway.client, &own).await.unwrap();
    for subject in [
        "$SYS.REQ.SERVER.PING.CONNZ",
        "$SYS.REQ.SERVER.PING.VARZ",
        "$SYS.REQ.CLAIMS.DELETE",
        "$SYS.REQ.SERVER.x.RELOAD",
        "$SYS.REQ.SERVER.x.KICK",
        "$SYS.REQ.ACCOUNT.x.CLAIMS.LOOKUP",
    ] {
        gateway.client.publish(subject, "x".into()).await.unwrap();
        let refusal = gateway.refusal().await;
        assert!(refusal.contains(subject), "{refusal}");
    }
    let _refused = gateway.client.subscribe("$SYS.>").await.unwrap();
    let refusal = gateway.refusal().await;
    assert!(refusal.contains("Subscription"), "{refusal}");
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
    server.keys.add_org(&org, SERVICES, now_ms()).unwrap();
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
