//! What comes over a link, joined with the server that it is for. Only what
//! was announced is reached, whatever the public end asks for.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ppp::v2::{Builder, Command, Protocol, Version};
use sotto_log::Known;
use sotto_proto::wire::tunnel_stream_answer::Answer;
use sotto_proto::wire::{TunnelStream, TunnelStreamAnswer};
use sotto_service::cluster::Endpoint;
use sotto_service::handover::Part;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::frame;
use crate::link::{LinkStream, tend};
use crate::metrics::DialerMetrics;
use crate::name::HostName;
use crate::refusal::Refusal;
use crate::registry::{Route, route};
use crate::splice::{Broken, Observer, Splice, Way};

/// How long the public end may take to say what a stream is for.
const OPENING: Duration = Duration::from_secs(10);
/// How long a server may take to accept a connection.
const CONNECTING: Duration = Duration::from_secs(5);

/// A name and the server that it is.
#[derive(Debug)]
pub struct Target {
    /// The name.
    pub route: Route,
    /// The server.
    pub to: Endpoint,
}

/// The private side.
#[derive(Debug)]
pub struct Private {
    /// The servers.
    pub targets: Vec<Target>,
    /// They are told the addresses of clients.
    pub proxy_protocol: bool,
    /// What is counted.
    pub metrics: DialerMetrics,
    /// Once a successor serves, connections are its own.
    pub handover: Part,
}

/// Looks away: the public end counts.
struct Nobody;

impl Observer for Nobody {
    fn passing(&self, _: Way, _: usize) -> Result<(), Refusal> {
        Ok(())
    }
}

impl Private {
    /// Serves one stream of a link; `retired` is told when the public end takes
    /// no new connections over it.
    pub async fn serve(self: Arc<Self>, mut stream: LinkStream, retired: Arc<Notify>) {
        let tcp = match timeout(OPENING, self.connect(&mut stream, &retired)).await {
            Ok(Ok(Some(tcp))) => tcp,
            Ok(Ok(None)) => return,
            failed => {
                self.metrics.failed.inc();
                let problem = failed.map(|failed| failed.err().map(|error| error.to_string()));
                let problem = Known(format!("{problem:?}"));
                return sotto_log::warn!(problem, "a connection cannot be passed on");
            }
        };
        let splice = Splice {
            tcp,
            stream,
            first: Vec::new(),
            server_hello: None,
            observer: &Nobody,
            idle: None,
        };
        self.metrics.connections.inc();
        let ended = splice.run().await;
        self.metrics.connections.dec();
        if let Err(Broken::Io(error)) = ended {
            sotto_log::debug!(error, "a connection broke off");
        }
    }

    async fn connect(
        &self,
        stream: &mut LinkStream,
        retired: &Notify,
    ) -> io::Result<Option<TcpStream>> {
        let open: TunnelStream = frame::receive(stream).await?;
        let connected = match open.retiring || !self.handover.phase().takes_new() {
            true => Ok(None),
            false => self.reach(&open).await.map(Some),
        };
        let answer = match &connected {
            Ok(None) if !open.retiring => Answer::Retiring,
            Ok(_) => Answer::Accepted,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Answer::NoRoute,
            Err(_) => Answer::Unreachable,
        };
        let mut message = TunnelStreamAnswer::default();
        message.set_answer(answer);
        frame::send(stream, &message).await?;
        if open.retiring {
            retired.notify_one();
        }
        connected
    }

    async fn reach(&self, open: &TunnelStream) -> io::Result<TcpStream> {
        let unknown = || {
            io::Error::new(
                io::ErrorKind::NotFound,
                "it is for a name that was not announced",
            )
        };
        let name: HostName = open.name.parse().map_err(|_| unknown())?;
        let port = u16::try_from(open.port).map_err(|_| unknown())?;
        let targets = self
            .targets
            .iter()
            .map(|target| (&target.route, &target.to));
        let to = route(targets, &name, port).ok_or_else(unknown)?;
        let mut tcp = timeout(CONNECTING, TcpStream::connect(to.to_string())).await??;
        tend(&tcp)?;
        if self.proxy_protocol {
            tcp.write_all(&proxy_header(&open.client, &open.server)?)
                .await?;
        }
        Ok(tcp)
    }
}

/// A header of the PROXY protocol, version 2.
fn proxy_header(client: &str, server: &str) -> io::Result<Vec<u8>> {
    let address = |text: &str| text.parse::<SocketAddr>().map_err(io::Error::other);
    let addresses = (address(client)?, address(server)?);
    Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, addresses).build()
}
