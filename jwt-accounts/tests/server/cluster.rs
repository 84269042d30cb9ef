//! Three nats-servers that are one cluster.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectOptions, jetstream};
use futures::StreamExt;
use sotto_faults::ports;
use sotto_jwt_accounts::keystore::KeyStore;
use sotto_jwt_accounts::{AccountSigner, Credentials, grants};
use sotto_proto::{
    INBOX_STREAM, INBOX_STREAM_SUBJECTS, OrgName, Shard, blob_stream, blob_stream_subjects,
    mail_stream, mail_stream_subjects,
};

use super::{SERVICES, accounts_configuration, now_ms, spawn};

/// How long three servers may take to agree on a leader.
const ELECTIONS: Duration = Duration::from_secs(60);

pub struct Cluster {
    pub nodes: Vec<Node>,
    pub keys: KeyStore,
    pub org: OrgName,
    pub signer: AccountSigner,
    routes: [u16; 3],
    dir: tempfile::TempDir,
}

pub struct Node {
    pub name: String,
    pub url: String,
    child: Option<Child>,
    configuration: String,
}

impl Cluster {
    /// Starts it with an org `acme` that only the resolvers' preload knows.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyStore::create(&dir.path().join("accounts"), now_ms()).unwrap();
        let org: OrgName = "acme".parse().unwrap();
        keys.add_org(&org, SERVICES, now_ms()).unwrap();
        let routes = [(); 3].map(|()| ports::free().unwrap().port());
        let mut nodes = Vec::new();
        for number in 0..routes.len() {
            let node = dir.path().join(format!("n{number}"));
            fs::create_dir(&node).unwrap();
            let configuration = configuration(&node, number, &routes, &keys);
            let (child, url) = spawn(&node, &configuration, "127.0.0.1:-1").await;
            nodes.push(Node {
                name: format!("n{number}"),
                url,
                child: Some(child),
                configuration,
            });
        }
        let signer = keys.account_signer(&org).unwrap();
        let cluster = Self {
            nodes,
            keys,
            org,
            signer,
            routes,
            dir,
        };
        cluster.elected().await;
        cluster
    }

    /// Kills a node, as `kill -9` does.
    pub fn kill(&mut self, number: usize) {
        let node = &mut self.nodes[number];
        let mut child = node.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Starts a killed node again where it was.
    pub async fn restart(&mut self, number: usize) {
        let dir = self.dir.path().join(format!("n{number}"));
        let node = &mut self.nodes[number];
        let listen = node.url.strip_prefix("nats://").unwrap();
        let (child, _) = spawn(&dir, &node.configuration, listen).await;
        node.child = Some(child);
    }

    /// Stops a node as an operator does and starts it again with the keys as
    /// they are now; returns when it has all that the others have.
    pub async fn update(&mut self, number: usize) {
        let keys = KeyStore::open(&self.dir.path().join("accounts")).unwrap();
        let dir = self.dir.path().join(format!("n{number}"));
        let node = &mut self.nodes[number];
        let mut child = node.child.take().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait().unwrap();
        node.configuration = configuration(&dir, number, &self.routes, &keys);
        self.restart(number).await;
        self.keys = keys;
        self.current().await;
    }

    /// Where the key store is.
    pub fn accounts(&self) -> std::path::PathBuf {
        self.dir.path().join("accounts")
    }

    /// Waits until every node has all that is stored in the cluster.
    async fn current(&self) {
        let system = self.system(0).await;
        let deadline = Instant::now() + ELECTIONS;
        while !self.is_current(&system).await {
            assert!(Instant::now() < deadline, "a node stays behind");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn is_current(&self, system: &Client) -> bool {
        let inbox = system.new_inbox();
        let mut answers = system.subscribe(inbox.clone()).await.unwrap();
        system
            .publish_with_reply("$SYS.REQ.SERVER.PING.HEALTHZ", inbox, "".into())
            .await
            .unwrap();
        let mut healthy = 0;
        let patience = Duration::from_secs(1);
        while let Ok(Some(answer)) = tokio::time::timeout(patience, answers.next()).await {
            let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
            healthy += usize::from(answer["data"]["status"] == "ok");
            if healthy == self.nodes.len() {
                return true;
            }
        }
        false
    }

    /// Where clients may connect, in this order.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }

    /// A client of the system account on one node.
    pub async fn system(&self, node: usize) -> Client {
        let credentials = self.keys.system_credentials(now_ms()).unwrap();
        self.service(node, &credentials, grants::SYSTEM_INBOX).await
    }

    /// A client with the relay's grants in the org's account.
    pub async fn relay(&self, node: usize) -> Client {
        let credentials = self.signer.relay(now_ms()).unwrap();
        self.service(node, &credentials, grants::RELAY_INBOX).await
    }

    /// Stores what devices submit, through one node; the connection by which
    /// they come.
    pub async fn store_submissions(&self, node: usize) -> Client {
        let of_devices = self.signer.relay_of_devices().unwrap();
        let devices = self.service(node, &of_devices, grants::RELAY_INBOX).await;
        super::store_submissions(devices.clone(), self.relay(node).await).await;
        devices
    }

    pub async fn service(&self, node: usize, credentials: &Credentials, inbox: &str) -> Client {
        let options = ConnectOptions::with_credentials(credentials.expose()).unwrap();
        let options = options
            .custom_inbox_prefix(inbox)
            .retry_on_initial_connect();
        options.connect(&self.nodes[node].url).await.unwrap()
    }

    /// The org's streams of one shard on this many nodes, otherwise as the
    /// relay makes them.
    pub async fn streams(&self, replicas: usize) -> Vec<jetstream::stream::Stream> {
        let js = jetstream::new(self.relay(0).await);
        let mail = mail_stream_subjects(Shard(0));
        let wanted = [
            (
                mail_stream(Shard(0)),
                mail.clone(),
                Some(format!("live.{mail}")),
            ),
            (blob_stream(Shard(0)), blob_stream_subjects(Shard(0)), None),
            (
                INBOX_STREAM.to_owned(),
                INBOX_STREAM_SUBJECTS.to_owned(),
                Some("live.inbox.{{wildcard(1)}}".to_owned()),
            ),
        ];
        let mut streams = Vec::new();
        for (name, subjects, live) in wanted {
            let config = jetstream::stream::Config {
                allow_message_ttl: name == mail_stream(Shard(0)),
                name,
                subjects: vec![subjects.clone()],
                num_replicas: replicas,
                allow_direct: true,
                discard: jetstream::stream::DiscardPolicy::New,
                republish: live.map(|destination| jetstream::stream::Republish {
                    source: subjects,
                    destination,
                    headers_only: false,
                }),
                ..Default::default()
            };
            let deadline = Instant::now() + ELECTIONS;
            streams.push(loop {
                match js.create_stream(config.clone()).await {
                    Ok(stream) => break stream,
                    Err(error) => assert!(Instant::now() < deadline, "{error}"),
                }
            });
        }
        streams
    }

    /// Waits until every node knows the two others and JetStream has a leader.
    async fn elected(&self) {
        let deadline = Instant::now() + ELECTIONS;
        for node in 0..self.nodes.len() {
            let js = jetstream::new(self.relay(node).await);
            while js.query_account().await.is_err() {
                assert!(Instant::now() < deadline, "no leader of JetStream");
            }
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.nodes.iter_mut().filter_map(|node| node.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn configuration(dir: &Path, number: usize, routes: &[u16], keys: &KeyStore) -> String {
    let urls: Vec<String> = routes
        .iter()
        .map(|port| format!("\"nats://127.0.0.1:{port}\""))
        .collect();
    format!(
        "server_name: n{number}\n\
         cluster {{ name: sotto, listen: \"127.0.0.1:{port}\", routes: [{urls}] }}\n\
         {accounts}",
        port = routes[number],
        urls = urls.join(", "),
        accounts = accounts_configuration(dir, keys),
    )
}
