//! What a relay shows of itself.

use sotto_proto::refusals::PublishAnswer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ingest::submit;
use crate::org::{Org, store};
use crate::server::{Server, within};

/// The page, by HTTP as plain as it gets.
async fn page(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    body.to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_and_nats_own_figures_are_shown_without_names() {
    let mut server = Server::new();
    let address = server.show_metrics();
    let _relay = server.start().await;
    let org = Org::found(&server).await;
    let alice = org.sign_up("alice").await;
    let room = org.room(&alice).await;
    let client = org.connect(&alice).await;
    for _ in 0..3 {
        store(&client, &room.messages(), vec![7; 1_000]).await;
    }
    let refused = submit(&client, &room.messages(), &[("Nats-TTL", "1s")]).await;
    assert!(matches!(refused, PublishAnswer::Refused(_)));

    let page = page(address).await;
    assert!(page.ends_with("# EOF\n"));
    for line in [
        "sotto_ingest_stored_total 3",
        "sotto_ingest_stored_bytes_total 3000",
        "sotto_ingest_refused_total{reason=\"not_allowed\"} 1",
        "sotto_ingest_in_flight 0",
        "sotto_nats_answers 1",
        "stream=\"MAIL-0\"} 3",
    ] {
        assert!(page.contains(line), "{line}: {page}");
    }
    for name in [
        "alice",
        "field",
        &room.room.to_string(),
        &alice.id.to_string(),
    ] {
        assert!(!page.contains(name), "{name}: {page}");
    }
}
