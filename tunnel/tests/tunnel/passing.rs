//! What must pass: protocols on top of TLS 1.3, whoever speaks them.

use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use axum_server::tls_rustls::RustlsConfig;
use futures::{SinkExt, StreamExt};
use ppp::v2::{Addresses, Header};
use rustls::version::TLS13;
use sotto_faults::ports;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::program::{self, Running};
use crate::stage::*;

#[tokio::test(flavor = "multi_thread")]
async fn http_2_passes() {
    let identity = Identity::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let server = listener.local_addr().unwrap();
    let (end, _dialer) = tunnel(server).await;
    let config = RustlsConfig::from_config(Arc::new(identity.server(&[&TLS13], &[b"h2"])));
    let router = Router::new()
        .route("/", get(|| async { "here" }))
        .route("/echo", post(|body: Bytes| async move { body }))
        .layer(axum::extract::DefaultBodyLimit::disable());
    let serving = axum_server::from_tcp_rustls(listener, config).unwrap();
    tokio::spawn(serving.serve(router.into_make_service()));

    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(identity.client(&[&TLS13], &[b"h2"]))
        .resolve(NAME, end.at)
        .build()
        .unwrap();
    let url = format!("https://{NAME}:{}", end.at.port());
    let response = client.get(&url).send().await.unwrap();
    assert_eq!(response.version(), reqwest::Version::HTTP_2);
    assert_eq!(response.text().await.unwrap(), "here");
    let body: Vec<u8> = (0..5_000_000_u32).map(|i| (i % 251) as u8).collect();
    // Each is read as it comes: unread ones would fill the connection's window.
    let posts = (0..4).map(|_| async {
        let post = client.post(format!("{url}/echo")).body(body.clone());
        post.send().await.unwrap().bytes().await.unwrap()
    });
    for echoed in futures::future::join_all(posts).await {
        assert!(echoed == body);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn web_sockets_pass() {
    let identity = Identity::new();
    let server = tls_server(identity.server(&[&TLS13], &[]), |tls| async {
        let mut socket = tokio_tungstenite::accept_async(tls).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if message.is_binary() {
                socket.send(message).await.unwrap();
            }
        }
    })
    .await;
    let (end, _dialer) = tunnel(server).await;
    let tls = identity.connect(end.at).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(format!("wss://{NAME}/"), tls)
        .await
        .unwrap();
    for size in [0, 1, 1_000, 200_000] {
        let message = Message::binary(vec![size as u8; size]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.close(None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_passes_tls_first() {
    let identity = Identity::new();
    let folder = tempfile::tempdir().unwrap();
    let certificate = file(&folder, "server.pem", &identity.certificate_pem);
    let key = file(&folder, "server.key", &identity.key_pem);
    let server = ports::free().unwrap();
    let config = format!(
        "listen: \"{server}\"\ntls {{ cert_file: {certificate:?}, key_file: {key:?}, handshake_first: true }}\n"
    );
    let config = file(&folder, "nats.conf", &config);
    let mut command = Command::new(program::nats_server());
    command.arg("-c").arg(config);
    let _nats = Running::start(command);
    until("nats-server", || async {
        TcpStream::connect(server).await.is_ok()
    })
    .await;
    let (end, _dialer) = tunnel(server).await;

    let connect = || {
        async_nats::ConnectOptions::new()
            .tls_client_config(identity.client(&[&TLS13], &[]))
            .tls_first()
            .connect(format!("tls://{NAME}:{}", end.at.port()))
    };
    let (one, two) = (connect().await.unwrap(), connect().await.unwrap());
    let mut heard = two.subscribe("told").await.unwrap();
    // A flush only empties this side's buffer: the server knows of the
    // subscription when it brings back what was said after it.
    two.publish("told", "ready".into()).await.unwrap();
    let ready = timeout(PATIENCE, heard.next()).await.unwrap().unwrap();
    assert_eq!(*ready.payload, *b"ready");
    for number in 0..1_000_u32 {
        one.publish("told", number.to_be_bytes().to_vec().into())
            .await
            .unwrap();
    }
    for number in 0..1_000_u32 {
        let message = timeout(PATIENCE, heard.next()).await.unwrap().unwrap();
        assert_eq!(*message.payload, number.to_be_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_s_challenge_passes() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[b"acme-tls/1"])).await;
    let (end, _dialer) = tunnel(server).await;
    let config = identity.client(&[&TLS13], &[b"acme-tls/1"]);
    let tls = connect(end.at, NAME, config).await.unwrap();
    assert_eq!(
        tls.get_ref().1.alpn_protocol(),
        Some(b"acme-tls/1".as_slice())
    );
    assert_eq!(
        tls.get_ref().1.peer_certificates().unwrap(),
        std::slice::from_ref(&identity.certificate)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_may_end_before_the_other() {
    let identity = Identity::new();
    let server = tls_server(identity.server(&[&TLS13], &[]), |mut tls| async move {
        let mut said = Vec::new();
        tls.read_to_end(&mut said).await.unwrap();
        // A while after the client has said its last.
        tokio::time::sleep(Duration::from_millis(300)).await;
        tls.write_all(&said).await.unwrap();
        tls.shutdown().await.unwrap();
    })
    .await;
    let (end, _dialer) = tunnel(server).await;
    let mut tls = identity.connect(end.at).await.unwrap();
    let said: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 253) as u8).collect();
    tls.write_all(&said).await.unwrap();
    tls.shutdown().await.unwrap();
    let mut heard = Vec::new();
    timeout(PATIENCE, tls.read_to_end(&mut heard))
        .await
        .unwrap()
        .unwrap();
    assert!(heard == said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_may_end_first_and_hear_the_rest() {
    let identity = Identity::new();
    let (sender, heard) = oneshot::channel();
    let sender = Arc::new(Mutex::new(Some(sender)));
    let server = tls_server(identity.server(&[&TLS13], &[]), move |mut tls| {
        let sender = sender.lock().unwrap().take().unwrap();
        async move {
            tls.shutdown().await.unwrap();
            let mut said = Vec::new();
            tls.read_to_end(&mut said).await.unwrap();
            sender.send(said).unwrap();
        }
    })
    .await;
    let (end, _dialer) = tunnel(server).await;
    let mut tls = identity.connect(end.at).await.unwrap();
    assert_eq!(tls.read(&mut [0]).await.unwrap(), 0);
    let said: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 253) as u8).collect();
    tls.write_all(&said).await.unwrap();
    tls.shutdown().await.unwrap();
    assert!(timeout(PATIENCE, heard).await.unwrap().unwrap() == said);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_told_addresses_when_asked() {
    let identity = Arc::new(Identity::new());
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(identity.server(&[&TLS13], &[])));
    let server = tcp_server(move |mut tcp| {
        let acceptor = acceptor.clone();
        async move {
            let mut header = vec![0; 16 + 12];
            tcp.read_exact(&mut header).await.unwrap();
            let header = Header::try_from(header.as_slice()).unwrap();
            let Addresses::IPv4(addresses) = header.addresses else {
                panic!("{header:?}");
            };
            let said = format!("{}:{}", addresses.source_address, addresses.source_port);
            let mut tls = acceptor.accept(tcp).await.unwrap();
            tls.write_all(said.as_bytes()).await.unwrap();
            tls.shutdown().await.unwrap();
        }
    })
    .await;
    let told = ["--proxy-protocol", &server.to_string()];
    let (end, _dialer) = tunnel_with(server, "", &[], &told).await;
    let mut tls = identity.connect(end.at).await.unwrap();
    let mut told = String::new();
    tls.read_to_string(&mut told).await.unwrap();
    assert_eq!(told, tls.get_ref().0.local_addr().unwrap().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_leads_elsewhere_on_another_port() {
    let identity = Identity::new();
    let config = || identity.server(&[&TLS13], &[]);
    let said = |what: &'static [u8]| {
        move |mut tls: Accepted| async move {
            tls.write_all(what).await.unwrap();
            tls.shutdown().await.unwrap();
        }
    };
    let one = tls_server(config(), said(b"one")).await;
    let two = tls_server(config(), said(b"two")).await;
    let other = ports::free().unwrap();
    let key = Key::new();
    let names = key.org("acme", &["*.example", NAME], "");
    let end = PublicEnd::start(&names, &["--listen", &other.to_string()]);
    let routes = [
        format!("{NAME}={one}"),
        format!("{NAME}:{}={two}", other.port()),
        format!("*.example={two}"),
    ];
    let _dialer = Dialer::start(key.folder.path(), &[&end.to], &routes, &[]);
    end.linked(2).await;
    for (at, name, what) in [
        (end.at, NAME, "one"),
        (other, NAME, "two"),
        (end.at, "chat.example", "two"),
    ] {
        let mut tls = connect(at, name, identity.client(&[&TLS13], &[]))
            .await
            .unwrap();
        let mut heard = String::new();
        tls.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, what);
    }
}
