//! A nats-server that is not what we demand.

use crate::server::Server;

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
