//! Listens to everything that passes through an org's NATS accounts, inside
//! TLS, with credentials that only whoever has the server's keys can make.

mod credentials;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use async_nats::{Client, ConnectOptions, Event, Message, Subscriber};
use futures::StreamExt;
use serde_json::Value;
use sotto_jwt_accounts::Credentials;
use sotto_proto::OrgName;
use sotto_service::{Layout, ServerConfig, tls};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::process::PATIENCE;

/// Messages that may wait to be written down before any is lost.
const WAITING: usize = 1 << 17;
/// What the tap says to itself to learn that everything before has come.
pub const MARK: &str = "tap.mark";
/// The file of subjects.
const SUBJECTS: &str = "subjects";

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

impl Recorded {
    /// How many messages had a subject that begins with this token.
    pub fn of_kind(&self, token: &str) -> u64 {
        self.kinds.get(token).copied().unwrap_or_default()
    }

    fn note(&mut self, subject: &str, size: usize) {
        self.messages += 1;
        self.bytes += size as u64;
        let kind = subject.split('.').next().unwrap_or_default();
        *self.kinds.entry(kind.to_owned()).or_default() += 1;
        if size > self.largest.0 {
            self.largest = (size, subject.to_owned());
        }
    }
}

/// Both accounts of an org: its own, where everything is stored, and that of
/// its devices, where they ask for what they missed.
#[derive(Debug)]
pub struct Tap {
    folder: PathBuf,
    /// In the org's account.
    pub org: Ear,
    /// In the devices' account.
    pub devices: Ear,
}

impl Tap {
    /// Listens to both and writes what comes to the folders `org` and
    /// `devices` below `folder`.
    ///
    /// # Errors
    /// When the server refuses or the files cannot be made.
    pub async fn open(server: &Layout, org: &OrgName, folder: &Path) -> anyhow::Result<Self> {
        let in_org = credentials::of_org(server, org).await?;
        let among_devices = credentials::of_devices(server, org)?;
        let open = async |which: &str, credentials: &Credentials| {
            let client = connect(server, credentials).await;
            let (client, gaps) = client.with_context(|| format!("connecting to {which}"))?;
            Ear::open(client, gaps, &folder.join(which)).await
        };
        Ok(Self {
            folder: folder.to_owned(),
            org: open("org", &in_org).await?,
            devices: open("devices", &among_devices).await?,
        })
    }

    /// Where it writes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What went by until now in the org's and in the devices' account.
    ///
    /// # Errors
    /// As [`Ear::recorded`].
    pub async fn recorded(&mut self) -> anyhow::Result<[Recorded; 2]> {
        Ok([self.org.recorded().await?, self.devices.recorded().await?])
    }
}

/// A connection that may hear everything in the org's own account.
///
/// # Errors
/// When the server refuses.
pub async fn hear(server: &Layout, org: &OrgName) -> anyhow::Result<Client> {
    let credentials = credentials::of_org(server, org).await?;
    Ok(connect(server, &credentials).await?.0)
}

/// Connections that may hear everything in the account of the org's devices,
/// and may also publish to [`MARK`].
#[derive(Debug)]
pub struct Crowd {
    server: Layout,
    credentials: Credentials,
}

impl Crowd {
    /// Opens the server's keys once for all of them.
    ///
    /// # Errors
    /// When the keys cannot be read.
    pub fn new(server: &Layout, org: &OrgName) -> anyhow::Result<Self> {
        Ok(Self {
            server: server.clone(),
            credentials: credentials::of_devices(server, org)?,
        })
    }

    /// One more.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn hear(&self) -> anyhow::Result<Client> {
        Ok(connect(&self.server, &self.credentials).await?.0)
    }
}

/// A connection that records all that passes through one account.
#[derive(Debug)]
pub struct Ear {
    client: Client,
    folder: PathBuf,
    gaps: Arc<AtomicU64>,
    recorded: watch::Receiver<Recorded>,
}

impl Ear {
    /// Subscribes to `>` and writes what comes to three files in `folder`:
    /// subjects, headers and payloads, each one after the other without
    /// anything between, so that a plaintext cut into several messages would
    /// stand there in one piece.
    async fn open(client: Client, gaps: Arc<AtomicU64>, folder: &Path) -> anyhow::Result<Self> {
        let everything = client.subscribe(">").await.context("subscribing the tap")?;
        client.flush().await.context("subscribing the tap")?;
        fs::create_dir_all(folder).context("making the tap's folder")?;
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

    /// How often something was, or may have been, missed: connections lost
    /// and slow readings.
    pub fn gaps(&self) -> u64 {
        self.gaps.load(Ordering::Relaxed)
    }

    /// Every subject until now.
    ///
    /// # Errors
    /// When the tap is cut off.
    pub async fn subjects(&mut self) -> anyhow::Result<String> {
        self.recorded().await?;
        fs::read_to_string(self.folder.join(SUBJECTS)).context("reading the tap's subjects")
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
            subjects: file(SUBJECTS)?,
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
        recorded.note(&message.subject, headers.len() + message.payload.len());
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

async fn connect(
    server: &Layout,
    credentials: &Credentials,
) -> anyhow::Result<(Client, Arc<AtomicU64>)> {
    let gaps = Arc::new(AtomicU64::new(0));
    let counted = gaps.clone();
    let client = ConnectOptions::with_credentials(credentials.expose())?
        .tls_client_config(tls::client_config(server)?)
        .tls_first()
        .subscription_capacity(WAITING)
        .event_callback(move |event| {
            if matches!(event, Event::Disconnected | Event::SlowConsumer(_)) {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            std::future::ready(())
        })
        .connect(ServerConfig::load(server)?.local_nats_url())
        .await?;
    Ok((client, gaps))
}
