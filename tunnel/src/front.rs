//! The side of a public end that clients, and dialers, come to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rustix::io::Errno;
use sotto_proto::wire::tunnel_stream_answer::Answer;
use sotto_proto::wire::{TunnelStream, TunnelStreamAnswer};
use sotto_service::handover::Listener;
use sotto_service::watch::OfOrg;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::closing::refuse;
use crate::frame;
use crate::hello::{ClientHello, HelloReader};
use crate::link::{LinkStream, tend};
use crate::lobby::Place;
use crate::metrics::{ForReason, OfOrgEachWay};
use crate::name::{HostName, LINK_NAME};
use crate::public::{DialerLink, Public};
use crate::reception;
use crate::refusal::Refusal;
use crate::server_hello::ServerHelloReader;
use crate::splice::{Broken, Observer, Splice, Way};
use crate::table::Org;

/// Longer hellos than this, in bytes, are unusual: so many may come in at a
/// time, and one more ends the oldest.
const SHORT: usize = 8 * 1024;
const LONG_HELLOS: u32 = 256;
/// How long a link may take to answer before another one is tried.
const ANSWER: Duration = Duration::from_secs(10);
/// Most of a server's first bytes that are waited for.
const FIRST: usize = 16 * 1024;
/// How long a client waits for somebody behind the name it asked for.
const NOBODY: Duration = Duration::from_secs(8);
/// How long nothing is accepted after the system refused to.
const OUT_OF_FILES: Duration = Duration::from_millis(20);
/// How often it is said, as long as it lasts.
const WARN_AGAIN: Duration = Duration::from_secs(60);

/// Accepts for ever. What it has accepted is served until `stop`.
pub async fn accept(
    public: Arc<Public>,
    listener: Listener,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut warned = None;
    loop {
        match listener.accept().await {
            Ok((tcp, client)) => {
                tasks.spawn(stop.clone().run_until_cancelled_owned(serve(
                    Arc::clone(&public),
                    tcp,
                    client,
                )));
            }
            // One of those that only wait makes room.
            Err(error) if is_full(&error) => {
                if warned.is_none_or(|at: Instant| at.elapsed() >= WARN_AGAIN) {
                    warned = Some(Instant::now());
                    sotto_log::warn!(error, "connections cannot be accepted");
                }
                public.waiting.evict();
                tokio::time::sleep(OUT_OF_FILES).await;
            }
            Err(error) => sotto_log::debug!(error, "a connection went before it was accepted"),
        }
    }
}

/// Whether the system has no place for one more.
fn is_full(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    errno.is_some_and(|errno| {
        [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&errno)
    })
}

/// What comes after the hello is boxed: who only waits holds no memory for it.
async fn serve(public: Arc<Public>, mut tcp: TcpStream, client: SocketAddr) {
    let hello = match wait_for_hello(&public, &mut tcp, client).await {
        Ok(Some(hello)) => hello,
        // It went, or never came.
        Ok(None) | Err(Broken::Io(_) | Broken::Idle) => return,
        Err(Broken::Refused(refusal) | Broken::Stopped(refusal)) => {
            return turn_away(&public, tcp, refusal).await;
        }
    };
    if hello.name.as_str() == LINK_NAME {
        let before = [hello.bytes, hello.rest].concat();
        return Box::pin(reception::receive(public, tcp, client, before)).await;
    }
    match Box::pin(pass_on(&public, tcp, client, hello)).await {
        Ok(()) => {}
        Err((Some(tcp), refusal)) => turn_away(&public, tcp, refusal).await,
        Err((None, refusal)) => count(&public, refusal),
    }
}

async fn turn_away(public: &Public, tcp: TcpStream, refusal: Refusal) {
    sotto_log::debug!(reason = refusal.label(), "refused");
    count(public, refusal);
    Box::pin(refuse(tcp, refusal)).await;
}

fn count(public: &Public, refusal: Refusal) {
    let reason = ForReason {
        reason: refusal.label(),
    };
    public.metrics.refused.get_or_create(&reason).inc();
}

/// `None` when there was not one in time, or its place was needed.
async fn wait_for_hello(
    public: &Public,
    tcp: &mut TcpStream,
    client: SocketAddr,
) -> Result<Option<ClientHello>, Broken> {
    tend(tcp)?;
    let most = public.table().limits().waiting;
    let place = public.waiting.enter(most, client.ip());
    public.metrics.waiting.inc();
    let reading = timeout(public.patience.hello, read_hello(public, tcp, &place));
    let read = place.hold(reading).await;
    public.metrics.waiting.dec();
    match read {
        None | Some(Err(_)) => Ok(None),
        Some(Ok(read)) => read.map(Some),
    }
}

async fn read_hello(
    public: &Public,
    tcp: &mut TcpStream,
    place: &Place<'_>,
) -> Result<ClientHello, Broken> {
    let mut reader = HelloReader::default();
    let mut total = 0;
    let mut long = None;
    loop {
        // Without a buffer while nothing comes.
        tcp.readable().await?;
        let mut buffer = [0; 4_096];
        let length = match tcp.try_read(&mut buffer) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
        };
        let pushed = reader.push(buffer.get(..length).unwrap_or_default());
        if let Some(hello) = pushed.map_err(Broken::Refused)? {
            return Ok(hello);
        }
        total += length;
        if total > SHORT && long.is_none() {
            long = Some(place.also_in(&public.long_hellos, LONG_HELLOS));
        }
    }
}

/// Joins a client with whoever announces the name it asks for. A refusal comes
/// with the connection while its client can be told.
async fn pass_on(
    public: &Arc<Public>,
    tcp: TcpStream,
    client: SocketAddr,
    hello: ClientHello,
) -> Result<(), (Option<TcpStream>, Refusal)> {
    let table = public.table();
    let Some(org) = table.owner(&hello.name) else {
        return Err((Some(tcp), Refusal::UnknownName));
    };
    let _counted = match public.open(&table, org) {
        Ok(counted) => counted,
        Err(refusal) => return Err((Some(tcp), refusal)),
    };
    let opened = match tcp.local_addr() {
        Ok(server) => reach(public, org, client, server, &hello).await,
        Err(_) => None,
    };
    let Some(Reached { stream, first }) = opened else {
        return Err((Some(tcp), Refusal::Unreachable));
    };
    // Handed over: not to be held as long as the connection lasts.
    let ClientHello { name, bytes, rest } = hello;
    let hello_length = bytes.len() + rest.len();
    drop((bytes, rest));
    let counts = Counts::new(public, org);
    if let Err(refusal) = counts.passing(Way::In, hello_length) {
        return Err((Some(tcp), refusal));
    }
    public
        .metrics
        .accepted
        .get_or_create(&OfOrg::from(&org.name))
        .inc();
    let splice = Splice {
        tcp,
        stream,
        first,
        server_hello: Some(ServerHelloReader::default()),
        observer: &counts,
        idle: public.patience.idle,
        half_closed: public.patience.half_closed,
    };
    tokio::select! {
        spliced = splice.run() => match spliced {
            Ok(()) => Ok(()),
            Err(Broken::Refused(refusal) | Broken::Stopped(refusal)) => Err((None, refusal)),
            Err(Broken::Io(_) | Broken::Idle) => {
                public.metrics.broken.inc();
                Ok(())
            }
        },
        () = given_away(public, org, &name) => {
            public.metrics.broken.inc();
            Ok(())
        }
    }
}

/// A server that was reached.
struct Reached {
    stream: LinkStream,
    /// What it said first, if that was waited for.
    first: Vec<u8>,
}

/// Opens a stream on one of the org's links, hands the hello over, and waits
/// for the server's first bytes; tries other links when that one does not
/// answer. Nothing is lost by that: the client has had nothing yet, and what
/// came behind its hello is sent only once.
async fn reach(
    public: &Public,
    org: &Org,
    client: SocketAddr,
    server: SocketAddr,
    hello: &ClientHello,
) -> Option<Reached> {
    let deadline = Instant::now() + NOBODY;
    let mut tried: Vec<DialerLink> = Vec::new();
    loop {
        let added = public.link_added.notified();
        tokio::pin!(added);
        added.as_mut().enable();
        let links = public
            .links()
            .candidates(&org.name, &hello.name, server.port(), |link| link.load());
        let fresh = links
            .into_iter()
            .find(|link| !tried.iter().any(|other| other.opener.is(&link.opener)));
        match fresh {
            Some(link) => {
                let attempt = timeout(ANSWER, ask(&link, client, server, hello));
                match attempt.await {
                    Ok(Ok(stream)) => return Some(stream),
                    Ok(Err(error)) => sotto_log::debug!(org = org.name, error, "a link failed"),
                    Err(_) => sotto_log::info!(org = org.name, "a link does not answer"),
                }
                tried.push(link);
            }
            None => timeout_at(deadline, added).await.ok()?,
        }
    }
}

async fn ask(
    link: &DialerLink,
    client: SocketAddr,
    server: SocketAddr,
    hello: &ClientHello,
) -> io::Result<Reached> {
    let mut stream = link.opener.open().await.map_err(io::Error::other)?;
    let mut open = TunnelStream {
        name: hello.name.to_string(),
        port: server.port().into(),
        ..TunnelStream::default()
    };
    if link.wants_addresses {
        open.client = canonical(client).to_string();
        open.server = canonical(server).to_string();
    }
    frame::send(&mut stream, &open).await?;
    stream.write_all(&hello.bytes).await?;
    let answer: TunnelStreamAnswer = frame::receive(&mut stream).await?;
    link.retires(answer.answer() == Answer::Retiring);
    if answer.answer() != Answer::Accepted {
        return Err(io::Error::other(answer.answer().as_str_name()));
    }
    if !hello.rest.is_empty() {
        stream.write_all(&hello.rest).await?;
        return Ok(Reached {
            stream,
            first: Vec::new(),
        });
    }
    let mut first = Vec::with_capacity(FIRST);
    match stream.read_buf(&mut first).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(Reached { stream, first }),
    }
}

/// An address of IPv4 as one, though it came to a socket of both families.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Returns when the name is not the org's any more.
async fn given_away(public: &Public, org: &Org, name: &HostName) {
    let mut table = public.table.clone();
    let given_away = |table: &Arc<crate::table::NameTable>| {
        table.owner(name).is_none_or(|owner| owner.name != org.name)
    };
    if table.wait_for(given_away).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What passes of one org.
struct Counts<'a> {
    public: &'a Public,
    org: &'a Org,
    bytes_in: Counter,
    bytes_out: Counter,
}

impl<'a> Counts<'a> {
    fn new(public: &'a Public, org: &'a Org) -> Self {
        let counter = |way| {
            let label = OfOrgEachWay {
                org: org.name.to_string(),
                way,
            };
            public.metrics.bytes.get_or_create(&label).clone()
        };
        Self {
            public,
            org,
            bytes_in: counter("in"),
            bytes_out: counter("out"),
        }
    }
}

impl Observer for Counts<'_> {
    fn passing(&self, way: Way, bytes: usize) -> Result<(), Refusal> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.public.pass(&self.org.name, bytes)?;
        match way {
            Way::In => self.bytes_in.inc_by(bytes),
            Way::Out => self.bytes_out.inc_by(bytes),
        };
        Ok(())
    }
}
