//! Keys and limits of an org change while people write.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test, with functions of its own"
)]

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, HeaderMap, jetstream};
use server::{Directory, Person, Probe, SERVICES, Server, now_ms, store_submissions, submission};
use sotto_jwt_accounts::claims::Limit;
use sotto_jwt_accounts::grants;
use sotto_jwt_accounts::held_accounts;
use sotto_jwt_accounts::keystore::{Accounts, StorageLimits};
use sotto_proto::{Shard, mail_stream, reply_prefix};

/// How long a writer waits before it says the same once more, as devices do:
/// while nats-server puts a new account JWT in force, an acknowledgement that
/// is on its way between the accounts can get lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// Publishes until it is told to stop, without ever connecting again; how many
/// messages the stream has acknowledged.
async fn write(client: Client, subject: String, stop: Arc<AtomicBool>) -> u64 {
    let js = jetstream::new(client.clone());
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", client.new_inbox());
        let acknowledged = async || {
            let publish = js.publish_with_headers(subject.clone(), headers.clone(), "x".into());
            tokio::time::timeout(PATIENCE, publish.await.unwrap()).await
        };
        match acknowledged().await {
            Ok(ack) => drop(ack.unwrap()),
            Err(_) => drop(acknowledged().await.unwrap().unwrap()),
        }
        written += 1;
    }
    assert_eq!(client.statistics().connects.load(Ordering::Relaxed), 1);
    written
}

#[tokio::test]
async fn an_orgs_signing_keys_change_while_people_write() {
    let server = Server::start().await;
    let _mail = server.mail_stream().await;
    let mut directory = Directory::new();
    let alice = Person::new("alice", 1);
    directory.enrol(&alice);
    let subject = submission(alice.device, directory.room(&alice, 11).messages());
    let system = server.system().await;
    let push = async |jwts: Vec<String>| {
        for jwt in jwts {
            sotto_jwt_accounts::push_account(&system, &jwt)
                .await
                .unwrap();
        }
    };
    let old_jwt = server.device_jwt(&directory, &alice);
    let inbox = reply_prefix(alice.device);
    let connect = async |jwt| Probe::connect(&server.url, jwt, alice.nats_key(), &inbox).await;

    let old = connect(old_jwt.clone()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let old_writer = tokio::spawn(write(old.client, subject.clone(), Arc::clone(&stop)));
    let accounts = Accounts::Org(&server.org);
    push(server.keys.rotate(accounts, SERVICES, now_ms()).unwrap()).await;
    // New credentials are by the new keys, beside the old ones.
    let signer = server.keys.account_signer(&server.org).unwrap();
    let of_devices = signer.relay_of_devices().unwrap();
    let of_devices = server.service(&of_devices, grants::RELAY_INBOX).await;
    let relay = signer.relay(now_ms()).unwrap();
    let relay = server.service(&relay, grants::RELAY_INBOX).await;
    store_submissions(of_devices, relay).await;
    let access = sotto_jwt_accounts::policy::nats_access(
        &directory.state,
        alice.device,
        &sotto_jwt_accounts::policy::Proven::none(),
        now_ms(),
    );
    let new_jwt = signer.device_jwt(&access.unwrap(), now_ms()).unwrap().jwt;
    let new = connect(new_jwt).await.unwrap();
    let stop_new = Arc::new(AtomicBool::new(false));
    let new_writer = tokio::spawn(write(new.client, subject, Arc::clone(&stop_new)));
    tokio::time::sleep(2 * PATIENCE).await;
    stop.store(true, Ordering::Relaxed);
    let by_old = old_writer.await.unwrap();

    push(server.keys.drop_old_keys(accounts, now_ms()).unwrap()).await;
    assert!(connect(old_jwt).await.is_err(), "an old key still signs");
    tokio::time::sleep(2 * PATIENCE).await;
    stop_new.store(true, Ordering::Relaxed);
    let by_new = new_writer.await.unwrap();
    assert!(by_old > 10 && by_new > 10, "{by_old} and {by_new}");
    let relay = signer.relay(now_ms()).unwrap();
    let relay = server.service(&relay, grants::RELAY_INBOX).await;
    let mail = jetstream::new(relay)
        .get_stream(mail_stream(Shard(0)))
        .await;
    let stored = mail.unwrap().cached_info().state.messages;
    assert_eq!(stored, by_old + by_new, "each is stored once");
}

#[tokio::test]
async fn an_org_stores_no_more_than_it_may_and_status_tells_who_knows() {
    let server = Server::start().await;
    let mail = server.mail_stream().await;
    drop(mail);
    let system = server.system().await;
    let limits = StorageLimits {
        bytes: Limit::AtMost(64 * 1024 * 1024),
        streams: Limit::AtMost(1),
    };
    let jwt = server
        .keys
        .limit_storage(&server.org, limits, now_ms() + 1_000)
        .unwrap();
    let account = server.signer.account();
    let held = held_accounts(&system, account).await.unwrap();
    assert_eq!(held.len(), 1);
    assert!(!held[0].is(&jwt), "not pushed yet");
    sotto_jwt_accounts::push_account(&system, &jwt)
        .await
        .unwrap();
    let held = held_accounts(&system, account).await.unwrap();
    assert!(held[0].is(&jwt), "{held:?}");

    let js = jetstream::new(server.relay().await);
    let another = js.create_stream(jetstream::stream::Config {
        name: "INBOX".to_owned(),
        subjects: vec!["inbox.*".to_owned()],
        ..Default::default()
    });
    assert!(another.await.is_err(), "a second stream was made");
}
