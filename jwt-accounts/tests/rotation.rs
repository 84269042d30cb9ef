//! Keys and limits of an org change while people write.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test, with functions of its own"
)]

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, HeaderMap, jetstream};
use server::{
    Cluster, Directory, Person, Probe, SERVICES, Server, now_ms, store_submissions, submission,
};
use sotto_jwt_accounts::claims::Limit;
use sotto_jwt_accounts::keystore::{Accounts, Identity, KeyStore, StorageLimits};
use sotto_jwt_accounts::{connections_by, grants, held_accounts, push_account, trusted_operators};
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

/// Stores values for as long as it is told to, from whichever node is there, and
/// says each again until it is acknowledged.
struct Writer {
    task: tokio::task::JoinHandle<Written>,
    stop: Arc<AtomicBool>,
}

struct Written {
    values: u64,
    connections: u64,
    longest: Duration,
}

impl Writer {
    async fn start(urls: &[String], credentials: &sotto_jwt_accounts::Credentials) -> Self {
        let client = ConnectOptions::with_credentials(credentials.expose())
            .unwrap()
            .custom_inbox_prefix(grants::GATEWAY_INBOX)
            .reconnect_delay_callback(|_| Duration::from_millis(50))
            .connect(urls)
            .await
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let (mut values, mut longest) = (0, Duration::ZERO);
            while !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                while !stores(&client, values).await {}
                longest = longest.max(begun.elapsed());
                values += 1;
            }
            Written {
                values,
                connections: client.statistics().connects.load(Ordering::Relaxed),
                longest,
            }
        });
        Self { task, stop }
    }

    async fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap()
    }
}

/// Whether a value is acknowledged.
async fn stores(client: &Client, number: u64) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", number.to_string());
    let subject = format!("$KV.sessions.{number}");
    let stored = client.request_with_headers(subject, headers, "x".into());
    match tokio::time::timeout(PATIENCE, stored).await {
        Ok(Ok(ack)) => std::str::from_utf8(&ack.payload)
            .unwrap()
            .contains("\"seq\""),
        _ => false,
    }
}

async fn sessions(client: Client) -> jetstream::kv::Store {
    let config = jetstream::kv::Config {
        bucket: "sessions".to_owned(),
        num_replicas: 3,
        limit_markers: Some(Duration::from_secs(1)),
        ..Default::default()
    };
    jetstream::new(client)
        .create_key_value(config)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_above_an_org_changes_on_three_nodes_while_gateways_write() {
    let mut cluster = Cluster::start().await;
    let gateway = cluster.signer.gateway(now_ms()).unwrap();
    let client = cluster.service(0, &gateway, grants::GATEWAY_INBOX).await;
    let bucket = sessions(client).await;
    let writer = Writer::start(&cluster.urls(), &gateway).await;

    // A server that runs trusts whom it was started with.
    let before = cluster.keys.operator_jwt().to_owned();
    let prepared = cluster.keys.prepare_operator(Identity::Draw, now_ms());
    let prepared = prepared.unwrap();
    let next = cluster.keys.next_operator_key().unwrap().unwrap();
    let system = cluster.system(1).await;
    for trust in trusted_operators(&system).await.unwrap() {
        assert!(trust.is(&before) && !trust.has(&next), "{}", trust.server);
    }
    // Started anew, one after the other, they trust both.
    for node in 0..3 {
        cluster.update(node).await;
    }
    let system = cluster.system(1).await;
    let trust = trusted_operators(&system).await.unwrap();
    assert_eq!(trust.len(), 3);
    for trust in trust {
        assert!(trust.is(&prepared) && trust.has(&next), "{}", trust.server);
    }
    let taken = cluster.keys.take_next_key(now_ms()).unwrap();
    for jwt in &taken {
        push_account(&system, jwt).await.unwrap();
    }
    let own = cluster.signer.account();
    for held in held_accounts(&system, own).await.unwrap() {
        assert!(held.version.is_none() || held.is(&taken[1]), "{held:?}");
    }
    let alone = cluster.keys.drop_old_operator_keys(now_ms()).unwrap();
    for node in 0..3 {
        cluster.update(node).await;
    }
    let system = cluster.system(2).await;
    for trust in trusted_operators(&system).await.unwrap() {
        assert!(trust.is(&alone), "{}", trust.server);
    }

    // The system account's keys, which need no restart.
    let old = cluster.keys.system_credentials(now_ms()).unwrap();
    let mut commanding =
        Probe::with_credentials(&cluster.urls()[0], &old, grants::SYSTEM_INBOX).await;
    for jwt in cluster
        .keys
        .rotate(Accounts::System, SERVICES, now_ms())
        .unwrap()
    {
        push_account(&system, &jwt).await.unwrap();
    }
    let old = cluster.keys.old_keys(Accounts::System).unwrap().unwrap();
    let by_old = connections_by(&system, &old.accounts[0], &old.keys).await;
    assert!(
        !by_old.unwrap().is_empty(),
        "nobody is connected by an old key"
    );
    let system = cluster.system(1).await;
    for jwt in cluster
        .keys
        .drop_old_keys(Accounts::System, now_ms())
        .unwrap()
    {
        push_account(&system, &jwt).await.unwrap();
    }
    commanding.is_shut_out().await;
    let by_old = connections_by(&system, &old.accounts[0], &old.keys).await;
    assert_eq!(by_old.unwrap(), []);

    let written = writer.finish().await;
    // Not `bucket.status()`, which tells what was when the bucket was made.
    let stored = bucket.stream.get_info().await.unwrap().state.messages;
    println!(
        "{} values, {} connections, the longest took {:?}",
        written.values, written.connections, written.longest
    );
    assert!(written.values > 100);
    assert_eq!(stored, written.values, "each is stored once");
    // The first, and one for each time that its node was started anew.
    assert!(written.connections <= 1 + 6, "{}", written.connections);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_which_of_three_nodes_is_behind() {
    let mut cluster = Cluster::start().await;
    let own = cluster.signer.account().to_owned();
    cluster.kill(2);
    let limits = StorageLimits {
        bytes: Limit::AtMost(64 * 1024 * 1024),
        streams: Limit::AtMost(8),
    };
    // Newer by the second, so that no server takes the older one for it.
    let keys = KeyStore::open(&cluster.accounts()).unwrap();
    let jwt = keys.limit_storage(&cluster.org, limits, now_ms() + 1_000);
    let jwt = jwt.unwrap();
    let system = cluster.system(0).await;
    push_account(&system, &jwt).await.unwrap();
    let held = held_accounts(&system, &own).await.unwrap();
    let names: Vec<&str> = held.iter().map(|held| held.server.as_str()).collect();
    assert_eq!(names, ["n0", "n1"], "the third is away");
    assert!(held.iter().all(|held| held.is(&jwt)), "{held:?}");

    cluster.restart(2).await;
    // Somebody uses the account there, from what the node has kept.
    let _relay = cluster.relay(2).await;
    let behind = loop {
        let held = held_accounts(&system, &own).await.unwrap();
        if let [_, _, third] = held.as_slice()
            && third.version.is_some()
        {
            assert!(held[0].is(&jwt) && held[1].is(&jwt));
            break third.clone();
        }
    };
    assert!(!behind.is(&jwt), "it cannot know");
    push_account(&system, &jwt).await.unwrap();
    let held = held_accounts(&system, &own).await.unwrap();
    assert!(held.iter().all(|held| held.is(&jwt)), "{held:?}");
}
