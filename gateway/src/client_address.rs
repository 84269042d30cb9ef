//! Which address a connection counts for in the limits: the one that it comes
//! from, unless a proxy is there. A proxy says whom it speaks for in a header of
//! the PROXY protocol, version 2, before the first byte of TLS.
//!
//! Who is a proxy is configured, and nobody else may name an address: what any
//! other sends is TLS or nothing. A proxy must not leave the header out, or
//! all who come through it would count as one. No address is ever logged.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::accept::Accept;
use futures::future::BoxFuture;
use ppp::v2::{Addresses, Command, Header, ParseError, Protocol};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_http::add_extension::AddExtension;

/// How long a proxy may take for its header, which it sends before all else:
/// time enough to send what is lost three times.
const PATIENCE: Duration = Duration::from_secs(10);
/// A header without addresses and all else that may follow, in bytes.
const FIXED: usize = 16;
/// What follows at most, in bytes: a whole header fits into any first segment
/// of TCP, which is 536 bytes.
const REST_MAX: usize = 536 - FIXED;

/// The address that a connection counts for in the limits, and for nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// Where proxies are. Stands below TLS, and tells requests the address.
#[derive(Debug, Clone)]
pub struct Proxies(Arc<BTreeSet<IpAddr>>);

impl Proxies {
    /// At these addresses.
    pub fn new(addresses: &BTreeSet<IpAddr>) -> Self {
        let canonical = addresses.iter().map(IpAddr::to_canonical);
        Self(Arc::new(canonical.collect()))
    }

    /// Whom a connection from `peer` counts for. Takes the header off, and not a
    /// byte behind it.
    async fn client(
        &self,
        peer: IpAddr,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<ClientAddress> {
        let peer = peer.to_canonical();
        if !self.0.contains(&peer) {
            return Ok(ClientAddress(peer));
        }
        let named = timeout(PATIENCE, header(stream)).await??;
        Ok(ClientAddress(named.unwrap_or(peer)))
    }
}

impl Accept<TcpStream, Router> for Proxies {
    type Stream = TcpStream;
    type Service = AddExtension<Router, ClientAddress>;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, mut stream: TcpStream, service: Router) -> Self::Future {
        let proxies = self.clone();
        Box::pin(async move {
            let peer = stream.peer_addr()?.ip();
            let client = proxies.client(peer, &mut stream).await;
            let client = client.inspect_err(|error| {
                sotto_log::warn!(
                    error,
                    "a connection from an address of `proxy_protocol_from` has no PROXY header that reads"
                );
            })?;
            Ok((stream, AddExtension::new(service, client)))
        })
    }
}

/// Reads a header, and the address of a client that it names. A proxy names
/// none when it speaks for itself, or for somebody without an IP address.
async fn header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut bytes = Vec::with_capacity(FIXED + REST_MAX);
    loop {
        let missing = match Header::try_from(bytes.as_slice()) {
            Ok(header) => return Ok(client_of(&header)),
            Err(ParseError::Incomplete(read)) => FIXED.saturating_sub(read),
            Err(ParseError::Partial(read, rest)) if rest <= REST_MAX => rest.saturating_sub(read),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        };
        let mut rest = (&mut *stream).take(missing as u64);
        if rest.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn client_of(header: &Header<'_>) -> Option<IpAddr> {
    match (header.command, header.protocol, header.addresses) {
        (Command::Proxy, Protocol::Stream, Addresses::IPv4(ip)) => Some(ip.source_address.into()),
        (Command::Proxy, Protocol::Stream, Addresses::IPv6(ip)) => {
            Some(IpAddr::from(ip.source_address).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
