//! Many at once on a server whose programs are replaced: connections that are
//! held, and requests at a steady rate. What fails is remembered.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use async_nats::{Client, ConnectOptions};
use rustls::pki_types::ServerName;
use sotto_jwt_accounts::grants::RELAY_INBOX;
use sotto_proto::OrgName;
use sotto_service::{Layout, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

/// What everything on this machine is called by: the certificate is for it.
const NAME: &str = "localhost";
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(20);
const HTTP_1: &[u8] = b"http/1.1";

/// What goes on until it is stopped.
pub struct Traffic {
    runtime: Runtime,
    stop: CancellationToken,
    asking: JoinSet<Tally>,
    held: Vec<TlsStream<TcpStream>>,
    clients: Vec<Client>,
}

/// What happened.
#[derive(Debug, Default)]
pub struct Tally {
    /// Requests that were answered as they should be.
    pub answered: usize,
    /// Those of them that were sent again: the connection had been closed
    /// before there was an answer (RFC 9110, 9.2.2).
    pub again: usize,
    /// The others, in words.
    pub failed: Vec<String>,
    /// Connections that were held and are open.
    pub open: usize,
    /// Those that the server has closed in good order.
    pub closed: usize,
}

impl Tally {
    /// Says what happened.
    ///
    /// # Errors
    /// When something failed, or nothing was asked.
    #[expect(clippy::print_stderr, reason = "what is measured")]
    pub fn nothing_failed(&self) -> anyhow::Result<()> {
        let Self {
            answered,
            again,
            failed,
            open,
            closed,
        } = self;
        eprintln!("{answered} answered, {again} of them sent again; {open} held, {closed} closed");
        let some: Vec<_> = failed.iter().take(5).collect();
        ensure!(failed.is_empty(), "{} failed: {some:#?}", failed.len());
        ensure!(*answered > 0, "nothing was asked");
        Ok(())
    }
}

impl Traffic {
    /// Begins: so many silent HTTPS connections to the gateways, so many
    /// clients of the nats-servers, and so many requests a second.
    ///
    /// # Errors
    /// When a connection is refused.
    pub fn start(
        layout: &Layout,
        org: &OrgName,
        (gateways, connections): (&[SocketAddr], usize),
        (nats, clients): (&[SocketAddr], usize),
        per_second: u32,
    ) -> anyhow::Result<Self> {
        tls::install_provider();
        let runtime = Runtime::new().context("starting tokio")?;
        let held = runtime.block_on(silent(layout, gateways, connections))?;
        let clients = runtime.block_on(async {
            let mut connected = Vec::new();
            for &server in nats.iter().cycle().take(clients) {
                connected.push(client(layout, org, server).await?);
            }
            anyhow::Ok(connected)
        })?;
        let stop = CancellationToken::new();
        let mut asking = JoinSet::new();
        // As devices do, over one connection; and as others do, over several.
        let kinds: [&[&[u8]]; 2] = [&[b"h2", HTTP_1], &[HTTP_1]];
        let askers = u32::try_from(gateways.len() * kinds.len())?;
        let every = Duration::from_secs(1) * askers / per_second;
        for &gateway in gateways {
            for protocols in kinds {
                let mut config = tls::client_config(layout)?;
                config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
                let http = reqwest::Client::builder()
                    .tls_backend_preconfigured(config)
                    .no_proxy()
                    .timeout(ANSWER)
                    .build()?;
                let url = format!("https://{}:{}/readyz", name(gateway), gateway.port());
                let asks = ask(http, url, every, stop.clone());
                asking.spawn_on(asks, runtime.handle());
            }
        }
        Ok(Self {
            runtime,
            stop,
            asking,
            held,
            clients,
        })
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it cannot be said what happened.
    pub fn stop(mut self) -> anyhow::Result<Tally> {
        self.stop.cancel();
        self.runtime.block_on(async {
            let mut tally = Tally::default();
            while let Some(asked) = self.asking.join_next().await {
                let asked = asked?;
                tally.answered += asked.answered;
                tally.again += asked.again;
                tally.failed.extend(asked.failed);
            }
            for connection in self.held {
                match is_open(connection).await {
                    Ok(true) => tally.open += 1,
                    Ok(false) => tally.closed += 1,
                    Err(error) => tally.failed.push(format!("held: {error:#}")),
                }
            }
            for client in self.clients {
                match client.statistics().connects.load(Ordering::Relaxed) {
                    1 => tally.open += 1,
                    times => tally
                        .failed
                        .push(format!("a client connected {times} times")),
                }
            }
            Ok(tally)
        })
    }
}

/// By what a server is called: one elsewhere by its address, for which its
/// certificate is, too.
fn name(server: SocketAddr) -> String {
    match server.ip() {
        ip if ip.is_loopback() => NAME.to_owned(),
        ip => ip.to_string(),
    }
}

/// Asks again and again, without waiting for answers.
async fn ask(
    http: reqwest::Client,
    url: String,
    every: Duration,
    stop: CancellationToken,
) -> Tally {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = JoinSet::new();
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        asked.spawn(ask_once(http.clone(), url.clone()));
    }
    let mut tally = Tally::default();
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(again)) => {
                tally.answered += 1;
                tally.again += usize::from(again);
            }
            Ok(Err(error)) => tally.failed.push(format!("{url}: {error:#}")),
            Err(error) => tally.failed.push(error.to_string()),
        }
    }
    tally
}

/// Whether it had to be sent again.
async fn ask_once(http: reqwest::Client, url: String) -> anyhow::Result<bool> {
    let (answer, again) = match http.get(&url).send().await {
        Err(error) if error.is_request() && !error.is_connect() && !error.is_timeout() => {
            (http.get(&url).send().await, true)
        }
        answer => (answer, false),
    };
    let status = answer?.status();
    ensure!(status.is_success(), "{status}");
    Ok(again)
}

/// So many connections to these gateways over which something was asked, and
/// that are silent then.
///
/// # Errors
/// When one is refused.
pub async fn silent(
    layout: &Layout,
    gateways: &[SocketAddr],
    count: usize,
) -> anyhow::Result<Vec<TlsStream<TcpStream>>> {
    let mut config = tls::client_config(layout)?;
    config.alpn_protocols = vec![HTTP_1.to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let mut held = Vec::with_capacity(count);
    for &gateway in gateways.iter().cycle().take(count) {
        held.push(hold(&connector, gateway).await?);
    }
    Ok(held)
}

async fn hold(
    connector: &TlsConnector,
    gateway: SocketAddr,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(gateway).await?;
    let name = ServerName::try_from(name(gateway))?;
    let mut tls = connector.connect(name, tcp).await?;
    ask_raw(&mut tls).await?;
    Ok(tls)
}

async fn ask_raw(tls: &mut TlsStream<TcpStream>) -> anyhow::Result<()> {
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    tls.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let read = timeout(ANSWER, tls.read_buf(&mut answer)).await;
        ensure!(read?? > 0, "closed instead of answered");
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "another answer");
    Ok(())
}

/// Whether a connection that was held can be used.
///
/// # Errors
/// When it was not closed in good order.
async fn is_open(mut tls: TlsStream<TcpStream>) -> anyhow::Result<bool> {
    let mut nothing = [0; 1];
    match timeout(Duration::from_millis(1), tls.read(&mut nothing)).await {
        Ok(Ok(0)) => Ok(false),
        // Silent for too long: ended without a word of TLS, but not reset.
        Ok(Err(error)) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(_)) => bail!("an answer that nobody asked for"),
        Err(_) => ask_raw(&mut tls).await.map(|()| true),
    }
}

/// A client of nats-server, with the rights of a relay.
async fn client(layout: &Layout, org: &OrgName, server: SocketAddr) -> anyhow::Result<Client> {
    let options = ConnectOptions::with_credentials_file(layout.relay_creds(org)).await?;
    let options = options
        .custom_inbox_prefix(RELAY_INBOX)
        .tls_client_config(tls::client_config(layout)?)
        .tls_first()
        .ignore_discovered_servers();
    let url = format!("tls://{}:{}", name(server), server.port());
    options
        .connect(url)
        .await
        .context("a client of nats-server")
}
