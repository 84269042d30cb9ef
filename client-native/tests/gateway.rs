//! Gateway calls against servers that are not what they should be, over real
//! TLS connections.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;

use prost::Message;
use sotto_client_core::io::FactorNeeded;
use sotto_client_native::clock::Clock;
use sotto_client_native::gateway::{Gateway, GatewayError};
use sotto_proto::{GatewayAddress, limits, wire};
use sotto_service::{Layout, tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A TLS server with an authority of its own that answers every request with
/// the same bytes and closes.
struct Server {
    address: GatewayAddress,
    _directory: tempfile::TempDir,
}

impl Server {
    async fn answering(answer: Vec<u8>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(directory.path());
        layout.create().unwrap();
        tls::create_authority(&layout, "test").unwrap();
        tls::issue_server_certificate(&layout, &["127.0.0.1".to_owned()]).unwrap();
        let mut config = tls::server_config(&layout).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut request = Vec::new();
                    let mut byte = [0];
                    while !request.ends_with(b"\r\n\r\n") {
                        if stream.read_exact(&mut byte).await.is_err() {
                            return;
                        }
                        request.push(byte[0]);
                    }
                    let _ = stream.write_all(&answer).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self {
            address: GatewayAddress {
                host: "127.0.0.1".to_owned(),
                port,
                org: "acme".parse().unwrap(),
                authority: tls::authority_fingerprint(&layout).unwrap(),
            },
            _directory: directory,
        }
    }

    async fn answering_http(status: &str, kind: &str, body: &[u8]) -> Self {
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self::answering([head.as_bytes(), body].concat()).await
    }

    async fn ask(&self) -> Result<wire::ServerInfo, GatewayError> {
        ask(&self.address).await
    }
}

async fn ask(address: &GatewayAddress) -> Result<wire::ServerInfo, GatewayError> {
    let gateway = Gateway::new(address.clone(), Clock::default()).unwrap();
    let request = wire::ServerInfoRequest {
        org: "acme".to_owned(),
    };
    gateway.call(&request, None).await
}

const PROTOBUF: &str = "application/x-protobuf";

#[tokio::test]
async fn a_sane_answer_is_read() {
    let info = wire::ServerInfo {
        server_name: "sotto".to_owned(),
        ..wire::ServerInfo::default()
    };
    let server = Server::answering_http("200 OK", PROTOBUF, &info.encode_to_vec()).await;
    assert_eq!(server.ask().await.unwrap(), info);
}

#[tokio::test]
async fn a_factor_that_is_missing_is_named() {
    let missing = wire::MissingFactor {
        demand: Some(wire::Demand {
            factor: wire::Factor::Totp.into(),
            max_age_seconds: 600,
            ..wire::Demand::default()
        }),
        level: None,
        enrolled: true,
    };
    let error = wire::ApiError {
        code: wire::ApiErrorCode::FactorNeeded.into(),
        message: "prove a code first".to_owned(),
        missing: vec![missing.clone(); 1_000],
    };
    let server = Server::answering_http("403 No", PROTOBUF, &error.encode_to_vec()).await;
    let error = server.ask().await.unwrap_err();
    assert_eq!(error.to_string(), "prove a code first");
    let GatewayError::FactorNeeded(needed) = error else {
        panic!("{error:?}")
    };
    assert_eq!(needed.missing.first(), Some(&missing));
    assert_eq!(needed.missing.len(), FactorNeeded::MOST, "cut short");
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused() {
    let server = Server::answering_http("200 OK", PROTOBUF, b"").await;
    let mut address = server.address.clone();
    address.authority[0] ^= 1;
    let error = ask(&address).await.unwrap_err();
    assert!(matches!(error, GatewayError::Impostor { .. }), "{error}");
    assert!(error.to_string().contains("new link"), "{error}");
}

#[tokio::test]
async fn a_server_of_another_name_is_refused() {
    let server = Server::answering_http("200 OK", PROTOBUF, b"").await;
    let mut address = server.address.clone();
    // The certificate is for 127.0.0.1 only.
    address.host = "localhost".to_owned();
    let error = ask(&address).await.unwrap_err();
    assert!(matches!(error, GatewayError::Impostor { .. }), "{error}");
}

#[tokio::test]
async fn a_closed_port_is_said() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let address = GatewayAddress {
        host: "127.0.0.1".to_owned(),
        port,
        org: "acme".parse().unwrap(),
        authority: [0; 32],
    };
    let error = ask(&address).await.unwrap_err();
    assert!(matches!(error, GatewayError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("check the network"), "{error}");
}

#[tokio::test]
async fn garbage_is_called_garbage() {
    let cases = [
        ("200 OK", "text/html", &b"<html>hello</html>"[..]),
        ("200 OK", PROTOBUF, b"\xff\xff\xff\xff"),
        ("500 Oops", "text/plain", b"stack trace"),
        ("400 Bad", PROTOBUF, b"\xff\xff\xff\xff"),
        ("302 Found", "text/html", b""),
    ];
    for (status, kind, body) in cases {
        let server = Server::answering_http(status, kind, body).await;
        let error = server.ask().await.unwrap_err();
        assert!(
            matches!(error, GatewayError::Garbage { .. }),
            "{status}: {error}"
        );
    }
}

#[tokio::test]
async fn what_is_no_http_is_an_error() {
    for answer in [&b""[..], b"SSH-2.0-OpenSSH\r\n", &[0; 100_000]] {
        let server = Server::answering(answer.to_vec()).await;
        let error = server.ask().await.unwrap_err();
        assert!(matches!(error, GatewayError::Unreachable { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-type: {PROTOBUF}\r\n\r\n").into_bytes();
    // No length is given: only counting while reading helps.
    answer.resize(answer.len() + 3 * limits::HTTP_BODY, 0);
    let error = Server::answering(answer).await.ask().await.unwrap_err();
    assert!(error.to_string().contains("too long"), "{error}");
}

#[tokio::test]
async fn a_refusal_is_the_gateways_own_sentence() {
    let refusal = wire::ApiError {
        code: wire::ApiErrorCode::InviteExpired.into(),
        message: "the invitation has expired: ask for a new one".to_owned(),
        missing: Vec::new(),
    };
    let body = refusal.encode_to_vec();
    let server = Server::answering_http("403 Forbidden", PROTOBUF, &body).await;
    let error = server.ask().await.unwrap_err();
    assert_eq!(error.to_string(), refusal.message);
    assert!(matches!(error, GatewayError::Refused(same) if same == refusal));
}
