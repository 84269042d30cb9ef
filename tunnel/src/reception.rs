//! Dialers that come to a public end: who they are, and what they announce.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use sotto_proto::OrgName;
use sotto_proto::wire::{TunnelDialer, TunnelRoute, TunnelWelcome};
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

/// Serves one dialer's link until it ends; `before` is what was read of it.
pub async fn receive(public: Arc<Public>, tcp: TcpStream, before: Vec<u8>) {
    let proved = async {
        let _place = public.unproved.acquire().await?;
        timeout(PROVING, prove(&public, tcp, before)).await?
    };
    let (tls, proved) = match proved.await {
        Ok(proved) => proved,
        Err(error) => {
            public.metrics.dialers_refused.inc();
            tracing::warn!("a dialer is refused: {error:#}");
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
        link: DialerLink {
            opener,
            wants_addresses: proved.wants_addresses,
        },
    });
    let number = match added {
        Ok(number) => number,
        Err(error) => return tracing::warn!(%org, %error, "a link is refused"),
    };
    // The table may have changed since it was asked.
    public.end_unadmitted();
    tracing::info!(%org, number, names = names.join(" "), "a link is there");
    // A dialer opens no streams: dropped, they are reset.
    let ended = link.run(drop).await;
    public.remove_link(number, &org);
    match ended {
        Ok(()) => tracing::info!(%org, number, "a link has ended"),
        Err(error) => tracing::info!(%org, number, %error, "a link broke"),
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
