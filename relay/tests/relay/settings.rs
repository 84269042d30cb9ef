//! What nats-server must be, and is refused for not being.

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::rustls::version::{TLS12, TLS13};
use async_nats::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn only_tls_13_is_spoken_and_nothing_in_clear() {
    let server = Server::new();
    let _relay = server.start().await;
    let connect = async |version: &'static SupportedProtocolVersion| {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(server.layout.authority()).unwrap();
        roots.add(authority).unwrap();
        let tls = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(roots)
            .with_no_client_auth();
        let credentials = std::fs::read_to_string(server.layout.system_creds()).unwrap();
        ConnectOptions::with_credentials(&credentials)
            .unwrap()
            .tls_client_config(tls)
            .tls_first()
            .connect(server.config.nats_url())
            .await
    };
    connect(&TLS13).await.unwrap();
    assert!(connect(&TLS12).await.is_err());

    let mut in_clear = TcpStream::connect(server.config.nats.listen).unwrap();
    in_clear
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let mut said = Vec::new();
    let _ = in_clear.read_to_end(&mut said);
    assert!(said.is_empty(), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_syncs_late_is_refused_with_the_reason() {
    let server = Server::new();
    let lazy = server.nats_server_with("s/sync_interval: always/sync_interval: 2m/");
    let relay = server.spawn(&["--nats-server", lazy.to_str().unwrap()]);
    let (status, said) = relay.ends().await;
    assert!(!status.success());
    assert!(said.contains("sync_interval"), "{said}");
    assert!(said.contains("power cut"), "{said}");
    assert!(!server.layout.relay_ready().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_jetstream_is_refused_with_the_reason() {
    let server = Server::new();
    let forgetful = server.nats_server_with("/^jetstream {/,/^}/d");
    let relay = server.spawn(&["--nats-server", forgetful.to_str().unwrap()]);
    let (status, said) = relay.ends().await;
    assert!(!status.success());
    assert!(said.contains("JetStream is off"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_start_is_reported_with_its_reason() {
    let server = Server::new();
    let _taken = std::net::TcpListener::bind(server.config.nats.listen).unwrap();
    let (status, said) = server.spawn(&[]).ends().await;
    assert!(!status.success());
    assert!(said.contains("address already in use"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_program_is_not_taken_for_nats_server() {
    let server = Server::new();
    let relay = server.spawn(&["--nats-server", "/bin/true"]);
    let (status, said) = relay.ends().await;
    assert!(!status.success());
    assert!(said.contains("/bin/true"), "{said}");
}
