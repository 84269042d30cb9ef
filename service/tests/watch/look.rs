//! Looks at a program that is watched, as Prometheus does: over HTTP, and with
//! Prometheus's own library to read what it shows. The tests of every server
//! program include this file.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long an answer, or a change, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `GET` of a path is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// The values of a page, by name and labels.
pub type Samples = BTreeMap<(String, String), f64>;

/// One request, by HTTP as plain as it gets; nothing when nobody answers.
pub async fn get(address: SocketAddr, path: &str) -> Option<Answer> {
    ask(address, "GET", path).await
}

/// The same with another method.
pub async fn ask(address: SocketAddr, method: &str, path: &str) -> Option<Answer> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
        Some(Answer {
            status,
            head: head.to_owned(),
            body: body.to_owned(),
        })
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap()
}

/// Waits until `/readyz` is answered with this status, and what it says then.
pub async fn ready(address: SocketAddr, status: u16) -> String {
    let asking = async {
        loop {
            if let Some(answer) = get(address, "/readyz").await
                && answer.status == status
            {
                return answer.body;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, asking).await;
    waited.unwrap_or_else(|_| panic!("/readyz never says {status}"))
}

/// The metrics as text, and their values.
pub async fn metrics(address: SocketAddr) -> (String, Samples) {
    let answer = get(address, "/metrics").await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(answer.head.contains(kind), "{}", answer.head);
    let samples = read(&answer.body);
    (answer.body, samples)
}

/// Prints name, type, labels and value of each sample, as JSON.
const READER: &str = "
import json, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        labels = ','.join(f'{name}={value}' for name, value in sorted(sample.labels.items()))
        print(json.dumps([sample.name, family.type, labels, sample.value]))
";

/// The values of a page. Fails when a strict reader does.
pub fn read(page: &str) -> Samples {
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

/// A value that must be there.
pub fn value(samples: &Samples, name: &str, labels: &str) -> f64 {
    let key = (name.to_owned(), labels.to_owned());
    *samples
        .get(&key)
        .unwrap_or_else(|| panic!("{key:?} is not among {samples:#?}"))
}
