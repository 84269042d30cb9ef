//! A real nats-server in operator mode, with one org, for the tests here.

#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "shared by several tests, each of which uses a part"
)]

mod cluster;
mod directory;
mod root;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::{Client, ConnectOptions, Event, jetstream};
use futures::StreamExt;
use nkeys::KeyPair;
use sotto_jwt_accounts::grants::Services;
use sotto_jwt_accounts::keystore::KeyStore;
use sotto_jwt_accounts::{AccountSigner, Credentials, grants, policy, push_account};
use sotto_proto::{
    DeviceId, OrgName, SUBMISSIONS, Shard, Subject, Submission, mail_stream, mail_stream_subjects,
    reply_prefix,
};
use tokio::sync::mpsc;

pub use cluster::Cluster;
pub use directory::{Directory, Person, create_room, enrolment, first_commands, gateway_key};
pub use root::user;
pub use wire::{Heard, Wire};

/// How long anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What the relays and gateways of the tests are there for.
pub const SERVICES: Services<'static> = Services {
    shards: 1,
    buckets: &["accounts", "sessions"],
};

pub struct Server {
    pub url: String,
    pub keys: KeyStore,
    pub org: OrgName,
    pub signer: AccountSigner,
    child: Child,
    dir: tempfile::TempDir,
}

impl Server {
    /// Starts it with an org `acme` that only the resolver's preload knows.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyStore::create(&dir.path().join("accounts"), now_ms()).unwrap();
        let org: OrgName = "acme".parse().unwrap();
        keys.add_org(&org, SERVICES, now_ms()).unwrap();
        let (child, url) = launch(dir.path(), &keys, "127.0.0.1:-1").await;
        let signer = keys.account_signer(&org).unwrap();
        Self {
            url,
            keys,
            org,
            signer,
            child,
            dir,
        }
    }

    /// Kills it, as `kill -9` does, and starts it again where it was.
    pub async fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let listen = self.url.strip_prefix("nats://").unwrap().to_owned();
        (self.child, self.url) = launch(self.dir.path(), &self.keys, &listen).await;
    }

    /// A client of the system account.
    pub async fn system(&self) -> Client {
        let credentials = self.keys.system_credentials(now_ms()).unwrap();
        self.service(&credentials, grants::SYSTEM_INBOX).await
    }

    /// A client with the relay's grants in the devices' account.
    pub async fn relay_of_devices(&self) -> Client {
        let credentials = self.signer.relay_of_devices().unwrap();
        self.service(&credentials, grants::RELAY_INBOX).await
    }

    /// A client with the relay's grants in the org's account.
    pub async fn relay(&self) -> Client {
        let credentials = self.signer.relay(now_ms()).unwrap();
        self.service(&credentials, grants::RELAY_INBOX).await
    }

    /// A client with the gateway's grants.
    pub async fn gateway(&self) -> Client {
        let credentials = self.signer.gateway(now_ms()).unwrap();
        self.service(&credentials, grants::GATEWAY_INBOX).await
    }

    pub async fn service(&self, credentials: &Credentials, inbox: &str) -> Client {
        let options = ConnectOptions::with_credentials(credentials.expose()).unwrap();
        let options = options.custom_inbox_prefix(inbox);
        options.connect(&self.url).await.unwrap()
    }

    /// The stream of shard 0, made with the relay's grants; what devices submit
    /// is stored there from now on.
    pub async fn mail_stream(&self) -> jetstream::stream::Stream {
        store_submissions(self.relay_of_devices().await, self.relay().await).await;
        let js = jetstream::new(self.relay().await);
        let subjects = mail_stream_subjects(Shard(0));
        js.create_stream(jetstream::stream::Config {
            name: mail_stream(Shard(0)),
            subjects: vec![subjects.clone()],
            allow_direct: true,
            republish: Some(jetstream::stream::Republish {
                source: subjects.clone(),
                destination: format!("live.{subjects}"),
                headers_only: false,
            }),
            ..Default::default()
        })
        .await
        .unwrap()
    }

    /// Connects a device whose nkey is `key` with what the directory lets it do.
    pub async fn device(&self, directory: &Directory, who: &Person) -> Probe {
        let jwt = self.device_jwt(directory, who);
        let inbox = reply_prefix(who.device);
        Probe::connect(&self.url, jwt, who.nats_key(), &inbox)
            .await
            .unwrap()
    }

    pub fn device_jwt(&self, directory: &Directory, who: &Person) -> String {
        let proven = policy::Proven::none();
        let access = policy::nats_access(&directory.state, who.device, &proven, now_ms()).unwrap();
        self.signer.device_jwt(&access, now_ms()).unwrap().jwt
    }

    pub async fn push(&self, jwt: &str) {
        push_account(&self.system().await, jwt).await.unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A nats-server with a configuration of the test's own.
pub struct Running {
    pub url: String,
    child: Child,
}

impl Running {
    /// Starts it with its files in `dir`.
    pub async fn start(dir: &Path, configuration: &str) -> Self {
        let (child, url) = spawn(dir, configuration, "127.0.0.1:-1").await;
        Self { url, child }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client whose refusals can be awaited.
pub struct Probe {
    pub client: Client,
    pub events: mpsc::UnboundedReceiver<Event>,
}

impl Probe {
    /// Connects as the holder of a JWT and its key.
    pub async fn connect(
        url: &str,
        jwt: String,
        key: KeyPair,
        inbox: &str,
    ) -> Result<Self, async_nats::ConnectError> {
        let key = Arc::new(key);
        let options = ConnectOptions::with_jwt(jwt, move |nonce| {
            let key = Arc::clone(&key);
            async move { key.sign(&nonce).map_err(async_nats::AuthError::new) }
        });
        Self::with_options(url, options, inbox).await
    }

    pub async fn with_credentials(url: &str, credentials: &Credentials, inbox: &str) -> Self {
        let options = ConnectOptions::with_credentials(credentials.expose()).unwrap();
        Self::with_options(url, options, inbox).await.unwrap()
    }

    async fn with_options(
        url: &str,
        options: ConnectOptions,
        inbox: &str,
    ) -> Result<Self, async_nats::ConnectError> {
        let (sender, events) = mpsc::unbounded_channel();
        let options = options
            .custom_inbox_prefix(inbox)
            .event_callback(move |event| {
                let sender = sender.clone();
                async move {
                    let _ = sender.send(event);
                }
            });
        let client = options.connect(url).await?;
        Ok(Self { client, events })
    }

    /// Waits for the server's refusal of something.
    pub async fn refusal(&mut self) -> String {
        loop {
            let event = tokio::time::timeout(PATIENCE, self.events.recv()).await;
            let event = event.expect("the server refuses").expect("connected");
            if let Event::ServerError(error) = event {
                return error.to_string();
            }
        }
    }
}

/// Stores what devices submit, as a relay would that looks at nothing. Ends
/// with the test. What `devices` publishes from now on, nats-server passes on
/// when it has the subscription.
pub async fn store_submissions(devices: Client, org: Client) {
    let submissions = devices.queue_subscribe(SUBMISSIONS, "stand-in".to_owned());
    let mut submissions = submissions.await.unwrap();
    devices.flush().await.unwrap();
    tokio::spawn(async move {
        while let Some(message) = submissions.next().await {
            let subject = message.subject.splitn(3, '.').nth(2).unwrap().to_owned();
            let headers = message.headers.unwrap_or_default();
            let stored = org.request_with_headers(subject, headers, message.payload);
            let stored = tokio::time::timeout(Duration::from_secs(1), stored).await;
            if let (Ok(Ok(answer)), Some(reply)) = (stored, message.reply) {
                let _ = devices.publish(reply, answer.payload).await;
            }
        }
    });
}

/// Where a device submits what is to be stored under a subject.
pub fn submission(device: DeviceId, subject: Subject) -> String {
    Submission { device, subject }.to_string()
}

pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

async fn launch(dir: &Path, keys: &KeyStore, listen: &str) -> (Child, String) {
    spawn(dir, &accounts_configuration(dir, keys), listen).await
}

fn write_configuration(dir: &Path, configuration: &str, listen: &str) -> PathBuf {
    let config = dir.join("nats.conf");
    let text = format!(
        "listen: \"{listen}\"\nports_file_dir: \"{}\"\n{configuration}",
        dir.display()
    );
    fs::write(&config, text).unwrap();
    config
}

/// Starts a nats-server that keeps its files in `dir` and says where it listens.
async fn spawn(dir: &Path, configuration: &str, listen: &str) -> (Child, String) {
    let config = write_configuration(dir, configuration, listen);
    let child = Command::new(binary())
        .arg("--config")
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(fs::File::create(dir.join("log")).unwrap())
        .spawn()
        .expect("nats-server is installed by `cargo xtask setup`");
    let ports = dir.join(format!("nats-server_{}.ports", child.id()));
    let url = await_url(&ports, dir).await;
    (child, url)
}

/// JetStream and the accounts of a server that keeps its files in `dir`.
fn accounts_configuration(dir: &Path, keys: &KeyStore) -> String {
    let dir = dir.display();
    let mut preload = String::new();
    for account in keys.resolver_preload().unwrap() {
        preload.push_str(&format!("  {}: {}\n", account.id, account.jwt));
    }
    format!(
        "max_control_line: 128KB\n\
         jetstream {{ store_dir: \"{dir}/jetstream\", sync_interval: always }}\n\
         operator: {operator}\n\
         system_account: {system}\n\
         resolver {{ type: full, dir: \"{dir}/jwt\", allow_delete: false }}\n\
         resolver_preload {{\n{preload}}}\n",
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

async fn await_url(ports: &Path, dir: &Path) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let text = fs::read_to_string(ports).unwrap_or_default();
        let found = text.split('"').find(|part| part.starts_with("nats://"));
        if let Some(url) = found {
            return url.to_owned();
        }
        let log = || fs::read_to_string(dir.join("log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "no nats-server: {}", log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
