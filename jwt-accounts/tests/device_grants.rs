//! What a device may and may not do, by the word of a real nats-server.

#![allow(clippy::unwrap_used, reason = "a test, with functions of its own")]

mod server;

use async_nats::{ConnectOptions, HeaderMap, jetstream};
use futures::{FutureExt, StreamExt};
use nkeys::{KeyPair, KeyPairType};
use server::{Directory, PATIENCE, Person, Probe, SERVICES, Server, now_ms, submission, user};
use sotto_jwt_accounts::claims::{Claims, User};
use sotto_jwt_accounts::keystore::KeyStore;
use sotto_jwt_accounts::policy::{self, Proven};
use sotto_jwt_accounts::{PushError, grants, push_account};
use sotto_proto::{FileId, RoomAddress, Subject, limits, reply_prefix};

/// Alice in a room of her own, bob in another one.
struct Case {
    server: Server,
    directory: Directory,
    alice: Person,
    hers: RoomAddress,
    his: RoomAddress,
    bob: Person,
    mail: jetstream::stream::Stream,
}

impl Case {
    async fn new() -> Self {
        let server = Server::start().await;
        let mail = server.mail_stream().await;
        let mut directory = Directory::new();
        let [alice, bob] = [Person::new("alice", 1), Person::new("bob", 2)];
        directory.enrol(&alice);
        directory.enrol(&bob);
        Self {
            hers: directory.room(&alice, 11),
            his: directory.room(&bob, 12),
            server,
            directory,
            alice,
            bob,
            mail,
        }
    }

    async fn alice(&self) -> Probe {
        self.server.device(&self.directory, &self.alice).await
    }

    /// Where alice submits what is to be stored under a subject.
    fn to(&self, subject: &Subject) -> String {
        submission(self.alice.device, subject.clone())
    }

    /// Number of stored messages.
    async fn stored(&mut self) -> u64 {
        self.mail.info().await.unwrap().state.messages
    }
}

#[tokio::test]
async fn a_device_writes_to_its_room_and_hears_what_is_stored() {
    let mut case = Case::new().await;
    let alice = case.alice().await;
    let mut live = alice
        .client
        .subscribe(case.hers.live_wildcard())
        .await
        .unwrap();
    let js = jetstream::new(alice.client.clone());
    for (sequence, subject) in [(1, case.hers.messages()), (2, case.hers.handshakes())] {
        let ack = js
            .publish(case.to(&subject), "sealed".into())
            .await
            .unwrap();
        assert_eq!(ack.await.unwrap().sequence, sequence);
        let message = tokio::time::timeout(PATIENCE, live.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(message.subject.as_str(), subject.live());
        let headers = message.headers.unwrap();
        assert_eq!(
            headers.get("Nats-Sequence").unwrap().as_str(),
            sequence.to_string()
        );
    }
    // Compare-and-set reaches the stream, and its answer the device.
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", "0");
    let subject = case.to(&case.hers.handshakes());
    let answer = alice
        .client
        .request_with_headers(subject, headers, "late".into())
        .await;
    let answer = String::from_utf8(answer.unwrap().payload.to_vec()).unwrap();
    assert!(answer.contains("10071"), "{answer}");
    assert_eq!(case.stored().await, 2);
}

#[tokio::test]
async fn a_device_publishes_nowhere_else() {
    let mut case = Case::new().await;
    let file = FileId::try_from(&[5; 16][..]).unwrap();
    let other = case.bob.device;
    let mut alice = case.alice().await;
    for subject in [
        case.his.messages().to_string(),
        case.his.handshakes().to_string(),
        case.his.blob(file, 0).to_string(),
        // What a stream would hear, no device says: a relay does.
        case.hers.messages().to_string(),
        case.hers.handshakes().to_string(),
        case.hers.blob(file, 0).to_string(),
        case.hers.messages().live(),
        Subject::Inbox(other).to_string(),
        case.to(&case.his.messages()),
        case.to(&case.his.blob(file, 0)),
        submission(other, case.his.messages()),
        submission(other, case.hers.messages()),
        submission(other, Subject::Inbox(case.alice.device)),
        Subject::Beacon(other).to_string(),
        Subject::Presence(case.hers.clone()).to_string(),
        format!("r.{}.other", case.hers),
        "directory".to_owned(),
        "live.directory".to_owned(),
        format!("fetch.{other}"),
        format!("live.inbox.{other}"),
        format!("{}.x", reply_prefix(other)),
        format!("{}.x", reply_prefix(case.alice.device)),
        format!("{}.x", grants::RELAY_INBOX),
        "_R_.x.y".to_owned(),
        "$KV.accounts.bob".to_owned(),
        "$JS.API.INFO".to_owned(),
        "$JS.API.STREAM.INFO.MAIL-0".to_owned(),
        "$JS.API.STREAM.PURGE.MAIL-0".to_owned(),
        "$JS.API.DIRECT.GET.MAIL-0".to_owned(),
        "$SYS.REQ.CLAIMS.UPDATE".to_owned(),
    ] {
        alice
            .client
            .publish(subject.clone(), "x".into())
            .await
            .unwrap();
        let refusal = alice.refusal().await;
        let expected = format!("Permissions Violation for Publish to \"{subject}\"");
        assert!(refusal.contains(&expected), "{subject}: {refusal}");
    }
    assert_eq!(case.stored().await, 0);
}

#[tokio::test]
async fn a_device_hears_nothing_else() {
    let case = Case::new().await;
    let other = case.bob.device;
    let mut alice = case.alice().await;
    for subject in [
        ">".to_owned(),
        "*.>".to_owned(),
        "live.>".to_owned(),
        "live.r.>".to_owned(),
        "live.r.*.*.*.*".to_owned(),
        case.his.live_wildcard(),
        case.his.messages().live(),
        "live.directory".to_owned(),
        "live.inbox.*".to_owned(),
        format!("live.inbox.{other}"),
        "inbox.*".to_owned(),
        "r.>".to_owned(),
        "fetch.*".to_owned(),
        "directory".to_owned(),
        "_INBOX.>".to_owned(),
        format!("{}.>", reply_prefix(other)),
        format!("{}.>", grants::RELAY_INBOX),
        "_R_.>".to_owned(),
        "$JS.API.>".to_owned(),
        "$JS.EVENT.>".to_owned(),
        "$KV.>".to_owned(),
        "$SYS.>".to_owned(),
    ] {
        let _plain = alice.client.subscribe(subject.clone()).await.unwrap();
        let refusal = alice.refusal().await;
        let expected = format!("Permissions Violation for Subscription to \"{subject}\"");
        assert!(refusal.contains(&expected), "{subject}: {refusal}");

        let queue = alice
            .client
            .queue_subscribe(subject.clone(), "relay".to_owned());
        let _queue = queue.await.unwrap();
        let refusal = alice.refusal().await;
        assert!(
            refusal.contains(&expected),
            "{subject}, in a queue: {refusal}"
        );
    }
}

/// The server acknowledges to whatever subject the publisher names, with its
/// own rights. In one account with the streams, this filled other rooms and
/// broke the directory. Here not even a relay that answers wherever it is told
/// to can be made to.
#[tokio::test]
async fn an_acknowledgement_cannot_be_made_to_write() {
    let mut case = Case::new().await;
    let gateway = case.server.gateway().await;
    let js = jetstream::new(gateway);
    let bucket = js
        .create_key_value(jetstream::kv::Config {
            bucket: "accounts".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap();
    bucket.put("bob", "record".into()).await.unwrap();
    let mut relay = case
        .server
        .relay_of_devices()
        .await
        .subscribe("fetch.*")
        .await
        .unwrap();

    let alice = case.alice().await;
    for reply in [
        case.his.messages().to_string(),
        case.his.handshakes().to_string(),
        "$KV.accounts.bob".to_owned(),
        "$JS.API.STREAM.PURGE.MAIL-0".to_owned(),
        "$JS.API.STREAM.DELETE.MAIL-0".to_owned(),
        format!("fetch.{}", case.bob.device),
    ] {
        let publish =
            alice
                .client
                .publish_with_reply(case.to(&case.hers.messages()), reply, "x".into());
        publish.await.unwrap();
    }
    // An ordinary message behind them: when it is acknowledged, they were, too.
    let js = jetstream::new(alice.client.clone());
    let last = js
        .publish(case.to(&case.hers.messages()), "x".into())
        .await
        .unwrap();
    assert_eq!(last.await.unwrap().sequence, 7);

    assert_eq!(case.stored().await, 7);
    let subjects = case.mail.info_with_subjects("r.>").await.unwrap();
    let subjects: Vec<_> = subjects
        .map(|entry| entry.unwrap().0)
        .collect::<Vec<_>>()
        .await;
    assert_eq!(subjects, [case.hers.messages().to_string()]);
    assert_eq!(bucket.get("bob").await.unwrap().unwrap(), "record");
    let to_relay = relay.next().now_or_never();
    assert!(to_relay.is_none(), "{to_relay:?}");
}

#[tokio::test]
async fn a_device_asks_the_relay_and_only_it_hears_the_answer() {
    let case = Case::new().await;
    let relay = case.server.relay_of_devices().await;
    let mut requests = relay
        .queue_subscribe("fetch.*", "relay".to_owned())
        .await
        .unwrap();
    relay.flush().await.unwrap();
    let alice = case.alice().await;
    let inbox = alice.client.new_inbox();
    assert!(inbox.starts_with(&reply_prefix(case.alice.device)));
    let mut answers = alice.client.subscribe(inbox.clone()).await.unwrap();
    let fetch = format!("fetch.{}", case.alice.device);
    let ask = alice
        .client
        .publish_with_reply(fetch.clone(), inbox.clone(), "?".into());
    ask.await.unwrap();

    let request = tokio::time::timeout(PATIENCE, requests.next()).await;
    let request = request.unwrap().unwrap();
    assert_eq!(request.subject.as_str(), fetch);
    assert_eq!(request.reply.as_deref(), Some(inbox.as_str()));
    for part in ["one", "two", "three"] {
        relay.publish(inbox.clone(), part.into()).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, answers.next()).await;
        assert_eq!(answer.unwrap().unwrap().payload, part);
    }
}

#[tokio::test]
async fn after_a_crash_of_the_server_everything_goes_on() {
    let mut case = Case::new().await;
    let alice = case.alice().await;
    let mut live = alice
        .client
        .subscribe(case.hers.live_wildcard())
        .await
        .unwrap();
    for _ in 0..3 {
        let subject = case.to(&case.hers.messages());
        eventually(async || alice.client.request(subject.clone(), "x".into()).await.ok()).await;
        let message = tokio::time::timeout(PATIENCE, live.next()).await;
        assert_eq!(message.unwrap().unwrap().payload, "x");
        case.server.kill_and_restart().await;
    }
}

/// Tries until it works.
async fn eventually<T>(mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let trying = async {
        loop {
            if let Some(done) = attempt().await {
                return done;
            }
        }
    };
    tokio::time::timeout(PATIENCE, trying).await.unwrap()
}

#[tokio::test]
async fn a_message_has_a_largest_size_with_its_headers() {
    let mut case = Case::new().await;
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "1");
    let overhead = "NATS/1.0\r\nNats-Msg-Id: 1\r\n\r\n".len();
    let subject = case.to(&case.hers.messages());
    let alice = case.alice().await;
    let largest = vec![0; limits::NATS_MESSAGE - overhead];
    let stored =
        alice
            .client
            .request_with_headers(subject.clone(), headers.clone(), largest.into());
    let answer = String::from_utf8(stored.await.unwrap().payload.to_vec()).unwrap();
    assert!(answer.contains("\"seq\":1"), "{answer}");

    let mut alice = case.alice().await;
    let too_large = vec![0; limits::NATS_MESSAGE - overhead + 1];
    alice
        .client
        .publish_with_headers(subject, headers, too_large.into())
        .await
        .unwrap();
    let refusal = alice.refusal().await;
    assert!(
        refusal.to_lowercase().contains("maximum payload"),
        "{refusal}"
    );
    assert_eq!(case.stored().await, 1);
}

#[tokio::test]
async fn subscriptions_are_bounded() {
    let case = Case::new().await;
    let mut alice = case.alice().await;
    let mut kept = Vec::new();
    for _ in 0..=1_024 + 2 {
        kept.push(
            alice
                .client
                .subscribe(alice.client.new_inbox())
                .await
                .unwrap(),
        );
    }
    let refusal = alice.refusal().await;
    assert!(
        refusal.to_lowercase().contains("maximum subscriptions"),
        "{refusal}"
    );
}

#[tokio::test]
async fn a_device_without_rooms_has_its_inbox_and_no_more() {
    let mut case = Case::new().await;
    let carol = Person::new("carol", 3);
    case.directory.enrol(&carol);
    let mut probe = case.server.device(&case.directory, &carol).await;
    let own = format!("live.inbox.{}", carol.device);
    let _inbox = probe.client.subscribe(own).await.unwrap();
    probe
        .client
        .publish(submission(carol.device, case.hers.messages()), "x".into())
        .await
        .unwrap();
    let refusal = probe.refusal().await;
    // The first refusal is of the publish: the subscription was allowed.
    assert!(refusal.contains("for Publish"), "{refusal}");
}

#[tokio::test]
async fn a_revoked_device_is_cut_off_and_stays_out() {
    let case = Case::new().await;
    let jwt = case.server.device_jwt(&case.directory, &case.alice);
    let inbox = reply_prefix(case.alice.device);
    let mut alice = Probe::connect(&case.server.url, jwt.clone(), case.alice.nats_key(), &inbox)
        .await
        .unwrap();
    let bob = case.server.device(&case.directory, &case.bob).await;

    let key = case.alice.nats_key().public_key();
    let revoked = case
        .server
        .keys
        .revoke(
            &case.server.org,
            &[(key, now_ms() / 1_000)].into(),
            now_ms(),
        )
        .unwrap();
    case.server.push(&revoked).await;

    let refusal = alice.refusal().await;
    assert!(refusal.to_lowercase().contains("revoked"), "{refusal}");
    let again = Probe::connect(&case.server.url, jwt, case.alice.nats_key(), &inbox).await;
    assert!(again.is_err(), "a revoked device came back");
    bob.client.flush().await.unwrap();
    let answer = bob
        .client
        .request(submission(case.bob.device, case.his.messages()), "x".into())
        .await;
    assert!(answer.is_ok(), "bob was cut off, too: {answer:?}");
}

#[tokio::test]
async fn an_org_is_unknown_until_its_accounts_are_pushed() {
    let server = Server::start().await;
    let org = "late".parse().unwrap();
    server.keys.add_org(&org, SERVICES, now_ms()).unwrap();
    let signer = server.keys.account_signer(&org).unwrap();
    let credentials = signer.relay(now_ms()).unwrap();
    let connect = || async {
        let options = async_nats::ConnectOptions::with_credentials(credentials.expose()).unwrap();
        options.connect(&server.url).await
    };
    assert!(connect().await.is_err(), "an unknown account was let in");
    for jwt in server.keys.account_jwts(&org).unwrap() {
        server.push(&jwt).await;
    }
    assert!(connect().await.is_ok());
}

#[tokio::test]
async fn an_account_that_the_operator_did_not_sign_lets_nobody_in() {
    let server = Server::start().await;
    let system = server.system().await;
    for jwt in ["garbage", ""] {
        let pushed = push_account(&system, jwt).await;
        assert!(matches!(pushed, Err(PushError::Refused(_))), "{pushed:?}");
    }
    // The resolver stores what a stranger signed, but the server does not believe it.
    let strangers = tempfile::tempdir().unwrap();
    let strangers = KeyStore::create(&strangers.path().join("accounts"), now_ms()).unwrap();
    strangers.add_org(&server.org, SERVICES, now_ms()).unwrap();
    for jwt in strangers.account_jwts(&server.org).unwrap() {
        push_account(&system, &jwt).await.unwrap();
    }
    let signer = strangers.account_signer(&server.org).unwrap();
    let credentials = signer.relay(now_ms()).unwrap();
    let options = ConnectOptions::with_credentials(credentials.expose()).unwrap();
    assert!(options.connect(&server.url).await.is_err());
}

#[tokio::test]
async fn a_jwt_is_worth_nothing_without_its_key_its_time_and_the_right_signer() {
    let case = Case::new().await;
    let Case { server, alice, .. } = &case;
    let inbox = reply_prefix(alice.device);
    let connect = |jwt, key| Probe::connect(&server.url, jwt, key, &inbox);
    let good = server.device_jwt(&case.directory, alice);
    assert!(connect(good.clone(), alice.nats_key()).await.is_ok());

    let stolen = connect(good.clone(), KeyPair::new_user()).await;
    assert!(stolen.is_err(), "a JWT was accepted without its key");

    let state = &case.directory.state;
    let access = policy::nats_access(state, alice.device, &Proven::none(), now_ms());
    let long_ago = now_ms() - 3_700_000;
    let expired = server
        .signer
        .device_jwt(&access.unwrap(), long_ago)
        .unwrap();
    let expired = connect(expired.jwt, alice.nats_key()).await;
    assert!(expired.is_err(), "an expired JWT was accepted");

    let claims = Claims::<User>::verify(&good).unwrap().claims;
    let stranger = KeyPair::new_account();
    let forged = claims.sign(&stranger, now_ms() / 1_000).unwrap();
    let forged = connect(forged, alice.nats_key()).await;
    assert!(forged.is_err(), "a stranger's signature was accepted");

    // Devices of one org and its relays are users of different accounts.
    let key = KeyPair::new_from_raw(KeyPairType::User, [1; 32]).unwrap();
    let crossed = user(&key, server.signer.device_account(), Some(grants::relay(1)));
    let crossed = crossed.sign(&stranger, now_ms() / 1_000).unwrap();
    assert!(connect(crossed, key).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn when_every_jwt_is_void_the_relay_stays() {
    let case = Case::new().await;
    let mut alice = case.server.device(&case.directory, &case.alice).await;
    let relay = case.server.relay_of_devices().await;
    let mut requests = relay.subscribe("fetch.*").await.unwrap();
    relay.flush().await.unwrap();

    let everybody = [("*".to_owned(), now_ms() / 1_000)].into();
    let keys = &case.server.keys;
    let voided = keys.revoke(&case.server.org, &everybody, now_ms()).unwrap();
    case.server.push(&voided).await;
    let refusal = alice.refusal().await;
    assert!(refusal.to_lowercase().contains("revoked"), "{refusal}");

    // A JWT of the same second is void, too.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let bob = case.server.device(&case.directory, &case.bob).await;
    let asks = sotto_proto::Subject::Fetch(case.bob.device).to_string();
    bob.client.publish(asks, "x".into()).await.unwrap();
    let heard = tokio::time::timeout(server::PATIENCE, requests.next()).await;
    assert!(heard.unwrap().is_some(), "the relay was cut off, too");
    let again = case.server.relay_of_devices().await;
    again.flush().await.unwrap();
}
