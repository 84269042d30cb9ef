//! Proxies before a gateway, and whose limits those who come through them have.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ppp::v2::{Builder, Command, Protocol, Version};
use prost::Message;
use reqwest::header::CONTENT_TYPE;
use sotto_proto::api::{self, Call};
use sotto_proto::wire::{ApiError, ApiErrorCode, LoginStart};
use sotto_service::tls;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpSocket};

use super::server::{Directory, Server};

/// Logins that one address may begin at once.
const LOGINS: usize = 60;

const PROXY: Ipv4Addr = Ipv4Addr::LOCALHOST;
const NO_PROXY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// A gateway behind proxies at these addresses.
async fn behind(proxies: impl Into<BTreeSet<IpAddr>>) -> Server {
    let mut directory = Directory::start().await;
    directory.config.gateway.proxy_protocol_from = proxies.into();
    Server::start_on(Arc::new(directory)).await
}

fn address(server: &Server) -> SocketAddr {
    let url = server.url("");
    url.strip_prefix("https://").unwrap().parse().unwrap()
}

/// A proxy with this address before the server, all of whose clients it says to
/// be at `client`; where it listens.
async fn proxy(own: Ipv4Addr, client: &str, server: &Server) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    let to = address(server);
    let client = SocketAddr::new(client.parse().unwrap(), 40_000);
    let command = Version::Two | Command::Proxy;
    let header = Builder::with_addresses(command, Protocol::Stream, (client, to));
    let header = header.build().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut outside, _) = listener.accept().await.unwrap();
            let header = header.clone();
            tokio::spawn(async move {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind((own, 0).into()).unwrap();
                let mut inside = socket.connect(to).await.unwrap();
                inside.write_all(&header).await.unwrap();
                // Ignored: the test looks at what came of it.
                copy_bidirectional(&mut outside, &mut inside).await.ok();
            });
        }
    });
    at
}

/// Begins a login there with nothing in it; what the gateway says, if it is
/// reached, coming from `own`.
async fn begins_login(server: &Server, own: Ipv4Addr, at: SocketAddr) -> Option<ApiErrorCode> {
    let http = reqwest::Client::builder()
        .tls_backend_preconfigured(tls::client_config(&server.directory.layout).unwrap())
        .no_proxy()
        .local_address(IpAddr::from(own))
        .build()
        .unwrap();
    let request = http
        .post(format!("https://{at}{}", LoginStart::PATH))
        .header(CONTENT_TYPE, api::CONTENT_TYPE)
        .body(LoginStart::default().encode_to_vec());
    let answer = request.send().await.ok()?.bytes().await.ok()?;
    Some(ApiError::decode(answer).unwrap().code())
}

#[tokio::test]
async fn each_client_of_a_proxy_has_limits_of_its_own() {
    let server = behind([IpAddr::from(PROXY)]).await;
    let one = proxy(PROXY, "198.51.100.4", &server).await;
    let other = proxy(PROXY, "198.51.100.5", &server).await;
    for _ in 0..LOGINS {
        let said = begins_login(&server, PROXY, one).await;
        assert_eq!(said, Some(ApiErrorCode::Malformed));
    }
    let said = begins_login(&server, PROXY, one).await;
    assert_eq!(said, Some(ApiErrorCode::TooMany));
    let said = begins_login(&server, PROXY, other).await;
    assert_eq!(said, Some(ApiErrorCode::Malformed));

    let direct = address(&server);
    let without = begins_login(&server, PROXY, direct).await;
    assert_eq!(without, None, "a proxy that names nobody");
    let said = begins_login(&server, NO_PROXY, direct).await;
    assert_eq!(said, Some(ApiErrorCode::Malformed));
    let forging = proxy(NO_PROXY, "198.51.100.6", &server).await;
    let forged = begins_login(&server, PROXY, forging).await;
    assert_eq!(forged, None, "somebody else named an address");
}

#[tokio::test]
async fn without_the_setting_a_header_is_no_tls() {
    let server = behind([]).await;
    let proxy = proxy(PROXY, "198.51.100.4", &server).await;
    assert_eq!(begins_login(&server, PROXY, proxy).await, None);
    let direct = begins_login(&server, PROXY, address(&server)).await;
    assert_eq!(direct, Some(ApiErrorCode::Malformed));
}
