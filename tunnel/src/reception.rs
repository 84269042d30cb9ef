//! Dialers that come to a public end: who they are, and what they announce.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use sotto_log::Known;
use sotto_proto::OrgName;
use sotto_proto::wire::tunnel_stream_answer::Answer;
use sotto_proto::wire::{
    TunnelDialer, TunnelRoute, TunnelStream, TunnelStreamAnswer, TunnelWelcome,
};
use sotto_service::handover::{Part, Phase};
use tokio::io::{AsyncReadExt, BufReader, Chain, Join};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use yamux::Mode;

use crate::auth::{self, EXPORTER};
use crate::frame;
use crate::link::{below_tls, link, tend_link};
use crate::public::{DialerLink, Public};
use crate::registry::{Entry, ROUTES_MAX, Route};

/// How long a dialer may take to prove who it is.
const PROVING: Duration = Duration::from_secs(15);
/// Most dialers at a time that have not; one more ends the oldest.
const UNPROVED: u32 = 256;

/// How often it is looked whether a link is idle.
const IDLE: Duration = Duration::from_secs(1);

/// Serves one dialer's link until it ends; `before` is what was read of it.
pub async fn receive(public: Arc<Public>, tcp: TcpStream, from: SocketAddr, before: Vec<u8>) {
    let proved = async {
        let place = public.unproved.enter(UNPROVED, from.ip());
        let proving = timeout(PROVING, prove(&public, tcp, before));
        let held = place.hold(proving).await;
        held.context("its place was needed")??
    };
    let (tls, proved) = match proved.await {
        Ok(proved) => proved,
        Err(error) => {
            public.metrics.dialers_refused.inc();
            sotto_log::warn!(error, "a dialer is refused");
            return;
        }
    };
    let (opener, link) = link(tls, Mode::Client);
    let org = proved.org.clone();
    let names: Vec<_> = proved
        .routes
        .iter()
        .map(|route| route.pattern.to_string())
        .collect();
    let added = public.add_link(Entry {
        org: proved.org,
        key: proved.key,
        routes: proved.routes,
        link: DialerLink::new(opener, proved.wants_addresses),
    });
    let number = match added {
        Ok(number) => number,
        Err(error) => return sotto_log::warn!(org, error, "a link is refused"),
    };
    // The table may have changed since it was asked.
    public.end_unadmitted();
    sotto_log::info!(
        org,
        number,
        names = Known(names.join(" ")),
        "a link is there"
    );
    // A dialer opens no streams: dropped, they are reset.
    let ended = link.run(drop).await;
    public.remove_link(number, &org);
    match ended {
        Ok(()) => sotto_log::info!(org, number, "a link has ended"),
        Err(error) => sotto_log::info!(org, number, error = Known(error), "a link broke"),
    }
}

/// Has dialers make new links, which reach the successor, whenever there is one.
pub async fn send_to_successors(public: Arc<Public>, mut handover: Part) {
    loop {
        if handover.changed().await == Phase::StandingBy {
            let links: Vec<_> = public.links().iter().cloned().collect();
            for link in links {
                tokio::spawn(send_away(link));
            }
        }
    }
}

/// A dialer that does not understand is cut off, so that it comes anew.
async fn send_away(link: DialerLink) {
    let asking = async {
        let mut stream = link.opener.open().await.map_err(io::Error::other)?;
        let retiring = TunnelStream {
            retiring: true,
            ..TunnelStream::default()
        };
        frame::send(&mut stream, &retiring).await?;
        let answer: TunnelStreamAnswer = frame::receive(&mut stream).await?;
        match answer.answer() {
            Answer::Accepted => Ok(()),
            other => Err(io::Error::other(other.as_str_name())),
        }
    };
    let asked = timeout(PROVING, asking).await;
    if !matches!(asked, Ok(Ok(()))) {
        sotto_log::info!("a dialer does not come to the successor: its link is ended");
        link.opener.end();
    }
}

/// Ends links as soon as nothing passes over them any more, for ever.
pub async fn end_idle(public: &Public) {
    loop {
        for link in public.links().iter() {
            if link.opener.streams() == 0 {
                link.opener.end();
            }
        }
        tokio::time::sleep(IDLE).await;
    }
}

/// A connection of which something was read.
type Whole = BufReader<Join<Chain<io::Cursor<Vec<u8>>, OwnedReadHalf>, OwnedWriteHalf>>;

/// A dialer that has the key, which may announce these names.
struct Proved {
    org: OrgName,
    key: String,
    routes: Vec<Route>,
    wants_addresses: bool,
}

async fn prove(
    public: &Public,
    tcp: TcpStream,
    before: Vec<u8>,
) -> anyhow::Result<(TlsStream<Whole>, Proved)> {
    tend_link(&tcp)?;
    let (reader, writer) = tcp.into_split();
    let whole = tokio::io::join(io::Cursor::new(before).chain(reader), writer);
    let mut tls = public
        .acceptor
        .accept(below_tls(whole))
        .await
        .context("no TLS")?;
    let binding = tls
        .get_ref()
        .1
        .export_keying_material([0; 32], EXPORTER, None)?;
    let dialer: TunnelDialer = frame::receive(&mut tls).await.context("no introduction")?;
    let admitted = admit(public, &dialer, &binding);
    let refusal = match &admitted {
        Ok(_) => String::new(),
        Err(error) => format!("{error:#}"),
    };
    frame::send(&mut tls, &TunnelWelcome { refusal }).await?;
    Ok((tls, admitted?))
}

fn admit(
    public: &Public,
    dialer: &TunnelDialer,
    binding: &auth::Binding,
) -> anyhow::Result<Proved> {
    auth::verify(dialer, binding)?;
    if dialer.routes.is_empty() || dialer.routes.len() > ROUTES_MAX {
        bail!("a link announces 1 to {ROUTES_MAX} names");
    }
    let routes = dialer
        .routes
        .iter()
        .map(read_route)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let table = public.table();
    let org = table.admit(&dialer.key, routes.iter().map(|route| &route.pattern))?;
    // Now, while it can be told.
    public.links().has_room(&dialer.key)?;
    Ok(Proved {
        org: org.name.clone(),
        key: dialer.key.clone(),
        routes,
        wants_addresses: dialer.wants_addresses,
    })
}

fn read_route(route: &TunnelRoute) -> anyhow::Result<Route> {
    let port = u16::try_from(route.port).context("a port that is none")?;
    Ok(Route {
        pattern: route.name.parse()?,
        port: (port != 0).then_some(port),
    })
}
