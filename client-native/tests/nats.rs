//! Connections to a real nats-server, with the grants that devices have.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::{ConnectOptions, jetstream};
use futures::StreamExt;
use nkeys::KeyPair;
use prost::Message as _;
use sotto_client_core::io::{LiveMessage, PublishFailure};
use sotto_client_core::pace::Pace;
use sotto_client_native::clock::Clock;
use sotto_client_native::nats::{ConnectError, Connection, Message, Presence, Settings};
use sotto_client_native::tls;
use sotto_jwt_accounts::grants::Services;
use sotto_jwt_accounts::keystore::KeyStore;
use sotto_jwt_accounts::policy::RoomAccess;
use sotto_jwt_accounts::{AccountSigner, Credentials, grants};
use sotto_proto::wire::{self, FetchRequest};
use sotto_proto::{DeviceId, OrgName, RoomAddress, RoomId, SUBMISSIONS, Shard, Subject};
use sotto_proto::{mail_stream, mail_stream_subjects};
use sotto_service::Layout;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// How long anything here may take that should happen at once.
const SOON: Duration = Duration::from_secs(5);

struct Server {
    url: String,
    layout: Layout,
    signer: AccountSigner,
    child: Child,
    _directory: tempfile::TempDir,
}

impl Server {
    /// TLS first, operator mode, one org with the stream of shard 0.
    async fn start() -> Self {
        tls::install_provider();
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path().join("server"));
        layout.create().unwrap();
        sotto_service::tls::create_authority(&layout, "test").unwrap();
        sotto_service::tls::issue_server_certificate(&layout, &["127.0.0.1".to_owned()]).unwrap();
        let keys = KeyStore::create(&directory.path().join("keys"), now_ms()).unwrap();
        let org: OrgName = "acme".parse().unwrap();
        let services = Services {
            shards: 1,
            buckets: &[],
        };
        keys.add_org(&org, services, now_ms()).unwrap();
        let config = layout.nats_config();
        fs::write(&config, configuration(&layout, &keys)).unwrap();
        let child = Command::new(binary())
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(fs::File::create(layout.nats_log()).unwrap())
            .spawn()
            .expect("nats-server is installed by `cargo xtask setup`");
        let url = await_url(&layout, child.id()).await;
        let server = Self {
            url,
            signer: keys.account_signer(&org).unwrap(),
            layout,
            child,
            _directory: directory,
        };
        server.make_stream().await;
        server
    }

    /// A client of one of the relay's accounts.
    async fn relay(&self, credentials: &Credentials) -> async_nats::Client {
        ConnectOptions::with_credentials(credentials.expose())
            .unwrap()
            .custom_inbox_prefix(grants::RELAY_INBOX)
            .require_tls(true)
            .tls_first()
            .tls_client_config(sotto_service::tls::client_config(&self.layout).unwrap())
            .connect(&self.url)
            .await
            .unwrap()
    }

    /// A stream, and who stores there what devices submit, as a relay would
    /// that looks at nothing.
    async fn make_stream(&self) {
        let client = self.relay(&self.signer.relay(now_ms()).unwrap()).await;
        let of_devices = self.signer.relay_of_devices().unwrap();
        let devices = self.relay(&of_devices).await;
        let mut submissions = devices.subscribe(SUBMISSIONS).await.unwrap();
        devices.flush().await.unwrap();
        let storing = client.clone();
        tokio::spawn(async move {
            while let Some(message) = submissions.next().await {
                let subject = message.subject.splitn(3, '.').nth(2).unwrap().to_owned();
                let (headers, reply) = (message.headers.unwrap(), message.reply.unwrap());
                let stored = storing.request_with_headers(subject, headers, message.payload);
                if let Ok(answer) = stored.await {
                    devices.publish(reply, answer.payload).await.unwrap();
                }
            }
        });
        let subjects = mail_stream_subjects(Shard(0));
        jetstream::new(client)
            .create_stream(jetstream::stream::Config {
                name: mail_stream(Shard(0)),
                subjects: vec![subjects.clone()],
                republish: Some(jetstream::stream::Republish {
                    source: subjects.clone(),
                    destination: format!("live.{subjects}"),
                    headers_only: false,
                }),
                ..jetstream::stream::Config::default()
            })
            .await
            .unwrap();
    }

    fn authority(&self) -> [u8; 32] {
        sotto_service::tls::authority_fingerprint(&self.layout).unwrap()
    }

    /// The JWT and the key of a device that may use one room.
    fn device(&self, device: DeviceId, room: &RoomAddress) -> (String, KeyPair) {
        let access = RoomAccess {
            address: room.clone(),
            post: true,
            gated: false,
        };
        let rights = grants::device(device, &[access]);
        let credentials = self.signer.user_of_devices(rights, now_ms()).unwrap();
        let block = |kind: &str| {
            let text = credentials.expose();
            let start = format!("-----BEGIN {kind}-----\n");
            let rest = text.split_once(&start).unwrap().1;
            rest.split_once('\n').unwrap().0.to_owned()
        };
        let key = KeyPair::from_seed(&block("USER NKEY SEED")).unwrap();
        (block("NATS USER JWT"), key)
    }

    async fn connect(&self) -> Result<Connected, ConnectError> {
        self.connect_at(Pace::ORDINARY).await
    }

    async fn connect_at(&self, pace: Pace) -> Result<Connected, ConnectError> {
        let (jwt, key) = self.device(device(), &room(1));
        self.connect_with(self.authority(), jwt, key, pace).await
    }

    async fn connect_with(
        &self,
        authority: [u8; 32],
        jwt: String,
        key: KeyPair,
        pace: Pace,
    ) -> Result<Connected, ConnectError> {
        let settings = Settings {
            urls: vec![self.url.clone()],
            tls: tls::pinned_client(authority, Arc::new(Clock::default())).unwrap(),
            device: device(),
            jwt,
            rooms: vec![room(1)],
            gated: BTreeSet::new(),
            patience: Duration::from_secs(15),
            pace,
        };
        let key = Arc::new(key);
        let sign = move |nonce: Vec<u8>| {
            let key = Arc::clone(&key);
            async move { key.sign(&nonce).ok() }
        };
        let (sender, live) = mpsc::channel(16);
        let (presences, presence) = mpsc::channel(16);
        let connection = Connection::open(settings, sign, sender, presences).await?;
        Ok(Connected {
            connection,
            live,
            presence,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Connected {
    connection: Connection,
    live: mpsc::Receiver<LiveMessage>,
    presence: mpsc::Receiver<Presence>,
}

fn device() -> DeviceId {
    DeviceId::try_from(&[7u8; 16][..]).unwrap()
}

fn room(number: u8) -> RoomAddress {
    RoomAddress {
        shard: Shard(0),
        project: "field".parse().unwrap(),
        room: RoomId::try_from(&[number; 16][..]).unwrap(),
    }
}

fn message(subject: Subject, id: &str, expected: Option<u64>) -> Message {
    Message {
        subject,
        message_id: id.to_owned(),
        expected_last_sequence: expected,
        payload: format!("payload of {id}").into(),
    }
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

fn configuration(layout: &Layout, keys: &KeyStore) -> String {
    let nats = layout.nats().display().to_string();
    let mut preload = String::new();
    for account in keys.resolver_preload().unwrap() {
        preload.push_str(&format!("  {}: {}\n", account.id, account.jwt));
    }
    format!(
        "listen: \"127.0.0.1:-1\"\n\
         ports_file_dir: \"{nats}\"\n\
         max_control_line: 128KB\n\
         tls {{ cert_file: \"{certificate}\", key_file: \"{key}\", handshake_first: true, min_version: \"1.3\" }}\n\
         jetstream {{ store_dir: \"{nats}/jetstream\", sync_interval: always }}\n\
         operator: {operator}\n\
         system_account: {system}\n\
         resolver {{ type: full, dir: \"{nats}/jwt\", allow_delete: false }}\n\
         resolver_preload {{\n{preload}}}\n",
        certificate = layout.server_certificate().display(),
        key = layout.server_key().display(),
        operator = keys.operator_jwt(),
        system = keys.system_account(),
    )
}

fn binary() -> PathBuf {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/nats-server");
    match std::env::var_os("SOTTO_NATS_SERVER") {
        Some(path) => path.into(),
        None if installed.exists() => installed,
        None => "nats-server".into(),
    }
}

async fn await_url(layout: &Layout, pid: u32) -> String {
    let ports = layout.nats().join(format!("nats-server_{pid}.ports"));
    let deadline = Instant::now() + 2 * SOON;
    loop {
        let text = fs::read_to_string(&ports).unwrap_or_default();
        let port = text.split("127.0.0.1:").nth(1);
        if let Some(port) = port.and_then(|rest| rest.split('"').next()) {
            return format!("tls://127.0.0.1:{port}");
        }
        let log = || fs::read_to_string(layout.nats_log()).unwrap_or_default();
        assert!(Instant::now() < deadline, "no nats-server: {}", log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_is_published_is_acknowledged_and_comes_back() {
    let server = Server::start().await;
    let Connected {
        connection,
        mut live,
        ..
    } = server.connect().await.unwrap();
    let answers = ["a", "b"].map(|id| connection.publish(message(room(1).messages(), id, None)));
    let [first, second] = answers;
    assert_eq!((first.await, second.await), (Ok(1), Ok(2)));
    for (sequence, id) in [(1, "a"), (2, "b")] {
        let message = timeout(SOON, live.recv()).await.unwrap().unwrap();
        assert_eq!(message.subject, room(1).messages());
        assert_eq!(
            (message.sequence, message.last_sequence),
            (sequence, sequence - 1)
        );
        assert_eq!(message.payload, format!("payload of {id}"));
    }
    let again = connection.publish(message(room(1).messages(), "a", None));
    assert_eq!(again.await, Ok(1), "a message id is stored once");
}

#[tokio::test]
async fn a_commit_that_lost_a_race_is_a_conflict() {
    let server = Server::start().await;
    let Connected { connection, .. } = server.connect().await.unwrap();
    let handshakes = || room(1).handshakes();
    let winner = connection.publish(message(handshakes(), "winner", Some(0)));
    let loser = connection.publish(message(handshakes(), "loser", Some(0)));
    assert_eq!(winner.await, Ok(1));
    assert_eq!(loser.await, Err(PublishFailure::Conflict));
    let next = connection.publish(message(handshakes(), "next", Some(1)));
    assert_eq!(next.await, Ok(2));
}

#[tokio::test]
async fn a_denied_publish_fails_at_once_and_alone() {
    let server = Server::start().await;
    let Connected { connection, .. } = server.connect().await.unwrap();
    let answers = [(1, "a"), (2, "b"), (1, "c"), (2, "d")]
        .map(|(number, id)| connection.publish(message(room(number).messages(), id, None)));
    let answered = timeout(SOON, futures::future::join_all(answers))
        .await
        .unwrap();
    let denied = Err(PublishFailure::Denied);
    assert_eq!(answered, [Ok(1), denied.clone(), Ok(2), denied]);
}

#[tokio::test]
async fn a_request_that_no_relay_hears_ends_at_once() {
    let server = Server::start().await;
    let Connected { connection, .. } = server.connect().await.unwrap();
    let mut frames = connection.fetch(None, FetchRequest::default());
    assert_eq!(timeout(SOON, frames.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn a_gated_room_without_a_grant_is_refused_at_once() {
    let server = Server::start().await;
    let Connected { connection, .. } = server.connect().await.unwrap();
    let gated = Some(room(1).room);
    let mut frames = connection.fetch(gated, FetchRequest::default());
    assert_eq!(timeout(SOON, frames.recv()).await.unwrap(), None);
}

#[tokio::test]
async fn a_broken_connection_says_so_and_does_not_come_back() {
    let mut server = Server::start().await;
    let Connected {
        connection,
        mut live,
        ..
    } = server.connect().await.unwrap();
    server.child.kill().unwrap();
    timeout(SOON, connection.closed()).await.unwrap();
    let lost = connection.publish(message(room(1).messages(), "a", None));
    assert_eq!(
        timeout(SOON, lost).await.unwrap(),
        Err(PublishFailure::Lost)
    );
    assert!(timeout(SOON, live.recv()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_dropped_connection_finishes_what_is_outstanding() {
    let server = Server::start().await;
    let Connected { connection, .. } = server.connect().await.unwrap();
    let answer = connection.publish(message(room(1).messages(), "a", None));
    drop(connection);
    assert_eq!(timeout(SOON, answer).await.unwrap(), Ok(1));
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let server = Server::start().await;
    let (jwt, key) = server.device(device(), &room(1));
    let mut authority = server.authority();
    authority[0] ^= 1;
    let refused = server
        .connect_with(authority, jwt, key, Pace::ORDINARY)
        .await;
    let Err(ConnectError::Unreachable(reason)) = refused.map(drop) else {
        panic!("connected to a server of another authority");
    };
    assert!(reason.contains("certificate"), "{reason}");
}

#[tokio::test]
async fn a_jwt_without_its_key_is_refused() {
    let server = Server::start().await;
    let (jwt, _) = server.device(device(), &room(1));
    let (authority, stranger) = (server.authority(), KeyPair::new_user());
    let refused = server.connect_with(authority, jwt, stranger, Pace::ORDINARY);
    assert_eq!(refused.await.map(drop).unwrap_err(), ConnectError::Refused);
}

#[tokio::test]
async fn on_a_slow_link_nobody_is_told_who_is_there() {
    let server = Server::start().await;
    let of_devices = server.signer.relay_of_devices().unwrap();
    let relay = server.relay(&of_devices).await;
    let presence = wire::Presence {
        device: vec![9; 16].into(),
        here: true,
        at_ms: 7,
    };
    let mut slow = server.connect_at(Pace::SLOWEST).await.unwrap();
    let mut ordinary = server.connect_at(Pace::ORDINARY).await.unwrap();
    // Until the server has the subscription.
    let told = async {
        loop {
            let subject = Subject::Presence(room(1)).live();
            let payload = presence.encode_to_vec().into();
            relay.publish(subject, payload).await.unwrap();
            let told = timeout(Duration::from_millis(200), ordinary.presence.recv());
            if let Ok(told) = told.await {
                return told;
            }
        }
    };
    assert!(timeout(SOON, told).await.unwrap().unwrap().here);
    // Messages and handshakes come all the same, and come after it.
    for subject in [room(1).messages(), room(1).handshakes()] {
        let id = subject.to_string();
        let publish = slow.connection.publish(message(subject, &id, None));
        publish.await.unwrap();
        let live = timeout(SOON, slow.live.recv()).await.unwrap();
        assert!(live.is_some());
    }
    assert!(slow.presence.try_recv().is_err());
}
