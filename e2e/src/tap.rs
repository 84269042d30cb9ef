//! Listens to everything that passes through an org's NATS account, inside
//! TLS, with credentials that only whoever has the server's keys can make.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use async_nats::{Client, ConnectOptions, Event, Message, Subscriber};
use futures::StreamExt;
use serde_json::Value;
use sotto_jwt_accounts::claims::{ConnectionType, Limit, Permissions, Subjects, User};
use sotto_jwt_accounts::keystore::KeyStore;
use sotto_proto::OrgName;
use sotto_service::{Layout, ServerConfig, tls};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::process::PATIENCE;

/// Messages that may wait to be written down before any is lost.
const WAITING: usize = 1 << 17;
/// What the tap says to itself to learn that everything before has come.
const MARK: &str = "tap.mark";

/// What went by.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// How many messages.
    pub messages: u64,
    /// Their headers and payloads.
    pub bytes: u64,
    /// The largest, headers included, and its subject.
    pub largest: (usize, String),
    /// How many by the first token of their subject.
    pub kinds: BTreeMap<String, u64>,
    /// How many of the tap's own marks.
    marks: u64,
}

/// A connection that records.
#[derive(Debug)]
pub struct Tap {
    client: Client,
    folder: PathBuf,
    gaps: Arc<AtomicU64>,
    recorded: watch::Receiver<Recorded>,
}

impl Tap {
    /// Subscribes to `>` in the account of `org` and writes what comes to
    /// three files in `folder`: subjects, headers and payloads, each one after
    /// the other without anything between, so that a plaintext cut into
    /// several messages would stand there in one piece.
    ///
    /// # Errors
    /// When the server refuses or the files cannot be made.
    pub async fn open(server: &Layout, org: &OrgName, folder: &Path) -> anyhow::Result<Self> {
        let gaps = Arc::new(AtomicU64::new(0));
        let client = connect(server, org, gaps.clone())
            .await
            .context("connecting the tap")?;
        let everything = client.subscribe(">").await.context("subscribing the tap")?;
        client.flush().await.context("subscribing the tap")?;
        std::fs::create_dir_all(folder).context("making the tap's folder")?;
        let files = Files::create(folder).context("making the tap's files")?;
        let (sender, recorded) = watch::channel(Recorded::default());
        // An error closes the channel, which whoever waits for a mark notices.
        tokio::spawn(record(everything, files, sender));
        Ok(Self {
            client,
            folder: folder.to_owned(),
            gaps,
            recorded,
        })
    }

    /// Where it writes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How often something was, or may have been, missed: connections lost
    /// and slow readings.
    pub fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    /// How many messages a stream holds.
    ///
    /// # Errors
    /// When JetStream does not say.
    pub async fn stream_messages(&self, stream: &str) -> anyhow::Result<u64> {
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        let answer = self
            .client
            .request(subject, "".into())
            .await
            .context("asking JetStream")?;
        let answer: Value = serde_json::from_slice(&answer.payload)?;
        let messages = answer.pointer("/state/messages").and_then(Value::as_u64);
        messages.with_context(|| format!("JetStream says {answer}"))
    }

    /// What went by until now, all of it written down.
    ///
    /// # Errors
    /// When something could not be written, or the tap is cut off.
    pub async fn recorded(&mut self) -> anyhow::Result<Recorded> {
        let before = self.recorded.borrow().marks;
        self.client
            .publish(MARK, "".into())
            .await
            .context("marking the tap's recording")?;
        let marked = self.recorded.wait_for(|recorded| recorded.marks > before);
        let recorded = timeout(PATIENCE, marked)
            .await
            .context("the tap hears nothing")?;
        Ok(recorded.context("the tap could not write")?.clone())
    }
}

struct Files {
    subjects: BufWriter<File>,
    headers: BufWriter<File>,
    payloads: BufWriter<File>,
}

impl Files {
    fn create(folder: &Path) -> io::Result<Self> {
        let file = |name| File::create(folder.join(name)).map(BufWriter::new);
        Ok(Self {
            subjects: file("subjects")?,
            headers: file("headers")?,
            payloads: file("payloads")?,
        })
    }

    fn write(&mut self, message: &Message, headers: &[u8]) -> io::Result<()> {
        let reply = message.reply.as_deref().unwrap_or_default();
        writeln!(self.subjects, "{} {reply}", message.subject)?;
        self.headers.write_all(headers)?;
        self.payloads.write_all(&message.payload)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.subjects.flush()?;
        self.headers.flush()?;
        self.payloads.flush()
    }
}

async fn record(
    mut everything: Subscriber,
    mut files: Files,
    sender: watch::Sender<Recorded>,
) -> io::Result<()> {
    let mut recorded = Recorded::default();
    while let Some(message) = everything.next().await {
        if message.subject.as_str() == MARK {
            recorded.marks += 1;
            files.flush()?;
            sender.send_replace(recorded.clone());
            continue;
        }
        let headers = header_block(&message);
        files.write(&message, &headers)?;
        let size = headers.len() + message.payload.len();
        recorded.messages += 1;
        recorded.bytes += size as u64;
        let kind = message
            .subject
            .split('.')
            .next()
            .unwrap_or_default()
            .to_owned();
        *recorded.kinds.entry(kind).or_default() += 1;
        if size > recorded.largest.0 {
            recorded.largest = (size, message.subject.to_string());
        }
    }
    Ok(())
}

/// The headers as they stand on the wire.
fn header_block(message: &Message) -> Vec<u8> {
    let Some(headers) = &message.headers else {
        return Vec::new();
    };
    let mut block = b"NATS/1.0\r\n".to_vec();
    for (name, values) in headers.iter() {
        for value in values {
            block.extend(format!("{name}: {value}\r\n").into_bytes());
        }
    }
    block.extend(b"\r\n");
    block
}

async fn connect(server: &Layout, org: &OrgName, gaps: Arc<AtomicU64>) -> anyhow::Result<Client> {
    let signer = KeyStore::open(&server.accounts())?.account_signer(org)?;
    let operator = User {
        issuer_account: signer.account().to_owned(),
        permissions: Permissions {
            publish: Subjects::only(vec![MARK.to_owned(), "$JS.API.STREAM.INFO.*".to_owned()]),
            subscribe: Subjects::only(vec![">".to_owned()]),
        },
        subs: Limit::Unlimited,
        payload: Limit::Unlimited,
        data: Limit::Unlimited,
        bearer_token: false,
        allowed_connection_types: vec![ConnectionType::Standard],
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let credentials = signer.credentials("tap", operator, now.as_millis().try_into()?)?;
    let url = ServerConfig::load(server)?.local_nats_url();
    let client = ConnectOptions::with_credentials(credentials.expose())?
        .tls_client_config(tls::client_config(server)?)
        .tls_first()
        .subscription_capacity(WAITING)
        .event_callback(move |event| {
            if matches!(event, Event::Disconnected | Event::SlowConsumer(_)) {
                gaps.fetch_add(1, Ordering::Relaxed);
            }
            std::future::ready(())
        })
        .connect(url)
        .await?;
    Ok(client)
}
