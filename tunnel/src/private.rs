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
use crate::splice::{Broken, HALF_CLOSED, Observer, Splice, Way};

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
    /// It is told the addresses of clients.
    pub proxy_protocol: bool,
}

/// The private side.
#[derive(Debug)]
pub struct Private {
    /// The servers.
    pub targets: Vec<Target>,
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
    /// Whether any server is told the addresses of clients.
    pub fn tells_addresses(&self) -> bool {
        self.targets.iter().any(|target| target.proxy_protocol)
    }

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
            half_closed: HALF_CLOSED,
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
        let targets = self.targets.iter().map(|target| (&target.route, target));
        let target = route(targets, &name, port).ok_or_else(unknown)?;
        let mut tcp = timeout(CONNECTING, TcpStream::connect(target.to.to_string())).await??;
        tend(&tcp)?;
        if target.proxy_protocol {
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

#[cfg(test)]
mod tests {
    use ppp::v2::{Addresses, Header};
    use sotto_service::handover::{Handover, HandoverArgs, Inherited};
    use tokio::net::TcpListener;
    use yamux::Mode;

    use super::*;
    use crate::link::link;

    /// What is answered to a public end that asks for this.
    async fn answer(private: Private, open: TunnelStream) -> Answer {
        let (near, far) = tokio::io::duplex(4_096);
        let (opener, opening) = link(near, Mode::Client);
        let (acceptor, accepting) = link(far, Mode::Server);
        let private = Arc::new(private);
        tokio::spawn(opening.run(drop));
        tokio::spawn(accepting.run(move |stream| {
            let stream = acceptor.accept(stream).unwrap();
            tokio::spawn(Arc::clone(&private).serve(stream, Arc::default()));
        }));
        let mut stream = opener.open().await.unwrap();
        frame::send(&mut stream, &open).await.unwrap();
        let answer: TunnelStreamAnswer = frame::receive(&mut stream).await.unwrap();
        answer.answer()
    }

    #[tokio::test]
    async fn only_what_was_announced_is_reached_whatever_the_public_end_asks_for() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = server.local_addr().unwrap().to_string();
        let alone = Handover::new(Inherited::default(), HandoverArgs::default()).unwrap();
        let private = || Private {
            targets: vec![Target {
                route: Route {
                    pattern: "chat.example".parse().unwrap(),
                    port: Some(443),
                },
                to: to.parse().unwrap(),
                proxy_protocol: false,
            }],
            metrics: DialerMetrics::default(),
            handover: alone.part(),
        };
        let open = |name: &str, port| TunnelStream {
            name: name.to_owned(),
            port,
            ..TunnelStream::default()
        };
        for (name, port) in [
            ("other.example", 443),
            ("chat.example", 4222),
            ("chat.example", 65_536 + 443),
            ("a.chat.example", 443),
            ("Chat.example", 443),
            ("127.0.0.1", 443),
            ("", 443),
        ] {
            let answer = answer(private(), open(name, port)).await;
            assert_eq!(answer, Answer::NoRoute, "{name}:{port}");
        }
        let nobody_came = timeout(Duration::from_millis(50), server.accept()).await;
        assert!(nobody_came.is_err());
        let answer = answer(private(), open("chat.example", 443)).await;
        assert_eq!(answer, Answer::Accepted);
        timeout(CONNECTING, server.accept()).await.unwrap().unwrap();
    }

    #[test]
    fn a_header_has_both_addresses_of_either_family() {
        let header = |client, server| proxy_header(client, server).unwrap();
        let four = header("10.0.0.1:1", "10.0.0.2:443");
        let Addresses::IPv4(four) = Header::try_from(four.as_slice()).unwrap().addresses else {
            panic!("another family");
        };
        assert_eq!(
            (four.source_address.to_string(), four.source_port),
            ("10.0.0.1".into(), 1)
        );
        assert_eq!(four.destination_port, 443);
        let six = header("[2001:db8::1]:1", "[2001:db8::2]:443");
        let Addresses::IPv6(six) = Header::try_from(six.as_slice()).unwrap().addresses else {
            panic!("another family");
        };
        assert_eq!(six.source_address.to_string(), "2001:db8::1");
        assert_eq!(six.destination_address.to_string(), "2001:db8::2");
        assert!(proxy_header("nobody", "10.0.0.2:443").is_err());
    }
}
