//! A device that comes back resumes its TLS sessions, with the gateway and with
//! nats-server: certificates and signatures do not travel again.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::ClientConnection;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use sotto_client_native::clock::Clock;
use sotto_client_native::tls;
use sotto_e2e::case::Case;
use sotto_proto::InviteLink;
use sotto_service::ServerConfig;

#[test]
fn a_device_that_comes_back_resumes_its_tls_sessions() {
    let case = Case::new().unwrap();
    let link: InviteLink = case.invite().unwrap().parse().unwrap();
    let server = ServerConfig::load(case.server.layout()).unwrap();
    tls::install_provider();
    let tls = tls::pinned_client(link.gateway.authority, Arc::new(Clock::default())).unwrap();
    for (name, address) in [
        ("the gateway", server.gateway.listen),
        ("nats-server", server.nats.listen),
    ] {
        // As the session does: a copy for each connection.
        let kinds = [(); 3].map(|()| handshake(tls.clone(), address));
        assert_eq!(kinds[0], HandshakeKind::Full, "{name}");
        assert_eq!(kinds[1..], [HandshakeKind::Resumed; 2], "{name}");
    }
}

/// Connects, takes the tickets that the server sends, and leaves.
fn handshake(tls: ClientConfig, address: SocketAddr) -> HandshakeKind {
    let mut socket = TcpStream::connect(address).unwrap();
    let name = ServerName::from(address.ip());
    let mut connection = ClientConnection::new(Arc::new(tls), name).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut socket).unwrap();
    }
    let pause = Duration::from_millis(500);
    socket.set_read_timeout(Some(pause)).unwrap();
    while let Ok(1..) = connection.read_tls(&mut socket) {
        connection.process_new_packets().unwrap();
    }
    connection.handshake_kind().unwrap()
}
