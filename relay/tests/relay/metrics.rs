//! What a relay shows of itself, as Prometheus's own library reads it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use prost::Message;
use sotto_proto::Subject;
use sotto_proto::refusals::PublishAnswer;
use sotto_proto::wire::Beacon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::ingest::submit;
use crate::org::{Org, store};
use crate::server::{Server, eventually, within};

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

/// Prints name, labels and value of each sample, as JSON.
const READER: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        labels = ','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))
        print(json.dumps([sample.name, family.type, labels, sample.value]))
";

/// The values of a page, by name and labels. Fails when a strict reader does.
fn read(page: &str) -> BTreeMap<(String, String), f64> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut reader = Command::new("python3")
        .args(["-c", READER])
        .env("PYTHONPATH", root.join("target/tools/prometheus-client"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("python3 is needed to read metrics");
    let mut input = reader.stdin.take().unwrap();
    input.write_all(page.as_bytes()).unwrap();
    drop(input);
    let read = reader.wait_with_output().unwrap();
    let trouble = String::from_utf8_lossy(&read.stderr);
    assert!(
        read.status.success(),
        "{trouble}; the library is unpacked by `cargo xtask setup`\n{page}"
    );
    let lines = String::from_utf8(read.stdout).unwrap();
    let samples = lines.lines().map(|line| {
        let sample = serde_json::from_str(line).unwrap();
        let (name, kind, labels, value): (String, String, String, f64) = sample;
        assert_eq!(
            name.ends_with("_total"),
            kind == "counter",
            "{name}: {kind}"
        );
        ((name, labels), value)
    });
    samples.collect()
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
    let beacon = Beacon {
        said_again: 5,
        ..Beacon::default()
    };
    let subject = Subject::Beacon(alice.id).to_string();
    let said = client.publish(subject, beacon.encode_to_vec().into());
    said.await.unwrap();

    let shown = eventually("the beacon is counted", async || {
        let shown = page(address).await;
        let counted = shown.contains("sotto_repair_said_again_total 5");
        counted.then_some(shown)
    })
    .await;
    let values = read(&shown);
    let value = |name: &str, labels: &str| {
        let key = (format!("sotto_{name}"), labels.to_owned());
        *values
            .get(&key)
            .unwrap_or_else(|| panic!("{key:?}: {shown}"))
    };
    for (name, labels, expected) in [
        ("rooms", "org=acme", 1.0),
        ("ingest_stored_total", "", 3.0),
        ("ingest_stored_bytes_total", "", 3_000.0),
        ("ingest_refused_total", "reason=not_allowed", 1.0),
        ("ingest_refused_total", "reason=org_bytes", 0.0),
        ("ingest_in_flight", "", 0.0),
        ("repair_said_again_total", "", 5.0),
        ("repair_streams_rewound_total", "", 0.0),
        ("nats_answers", "", 1.0),
        ("nats_slow_consumers_total", "", 0.0),
    ] {
        assert_eq!(value(name, labels), expected, "{name}: {shown}");
    }
    for (name, at_least) in [
        ("nats_connections", 2.0),
        ("nats_subscriptions", 2.0),
        ("nats_memory_bytes", 1e6),
        ("nats_storage_bytes", 3_000.0),
        ("nats_in_messages_total", 4.0),
        ("nats_out_messages_total", 4.0),
        ("nats_in_bytes_total", 3_000.0),
        ("nats_out_bytes_total", 1.0),
    ] {
        assert!(value(name, "") >= at_least, "{name}: {shown}");
    }
    let of_mail = |name: &str| {
        let name = format!("sotto_{name}");
        let mut values = values.iter();
        let found = values.find(|((of, labels), _)| *of == name && labels.ends_with("=MAIL-0"));
        *found.unwrap_or_else(|| panic!("{name}: {shown}")).1
    };
    assert_eq!(of_mail("stream_messages"), 3.0);
    assert_eq!(of_mail("stream_last_sequence"), 3.0);
    assert!(of_mail("stream_bytes") > 3_000.0);
    for name in [
        "alice",
        "field",
        &room.room.to_string(),
        &alice.id.to_string(),
    ] {
        assert!(!shown.contains(name), "{name}: {shown}");
    }
}
