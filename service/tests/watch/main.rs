//! What is answered to whoever watches a program.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod look;

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sotto_faults::ports;
use sotto_service::handover::{Handover, HandoverArgs, Inherited};
use sotto_service::watch::{Connections, Figures, Loopback, Readiness, Watch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

const SETTING: &str = "`[relay] metrics`";
/// As in the program; one connection more than these waits.
const CONNECTIONS: usize = 32;
const HOSTILE: &str = "a\"} 1\nsotto_x 2\\";

struct Shown(Registry);

impl Figures for Shown {
    fn registry(&self) -> &Registry {
        &self.0
    }

    async fn read(&self) -> Registry {
        let lag: Family<Vec<(&str, &str)>, Gauge> = Family::default();
        lag.get_or_create(&vec![("stream", HOSTILE)]).set(3);
        let mut read = Registry::with_prefix("sotto");
        read.register("lag", "By how much", lag);
        read
    }
}

struct Watched {
    at: SocketAddr,
    readiness: Readiness,
    stop: CancellationToken,
    watch: Option<Watch>,
}

async fn watched() -> Watched {
    let at = ports::free().unwrap();
    let stop = CancellationToken::new();
    let readiness = Readiness::starting(stop.clone());
    let seen: Counter = Counter::default();
    seen.inc_by(4);
    let mut registry = Registry::with_prefix("sotto");
    registry.register("seen", "What was seen", seen);
    let watch = Watch::start(
        &alone(),
        (loopback(at), SETTING),
        &readiness,
        Shown(registry),
    )
    .await;
    Watched {
        at,
        readiness,
        stop,
        watch: watch.unwrap(),
    }
}

/// Of a process that has no predecessor and no successor.
fn alone() -> Handover {
    Handover::new(Inherited::default(), HandoverArgs::default()).unwrap()
}

fn loopback(address: SocketAddr) -> Option<Loopback> {
    Some(address.try_into().unwrap())
}

#[tokio::test]
async fn health_readiness_and_metrics_are_answered() {
    let mut watched = watched().await;
    let at = watched.at;
    assert_eq!(look::get(at, "/healthz").await.unwrap().body, "ok\n");
    assert_eq!(look::ready(at, 503).await, "starting\n");
    let connections = Connections::of(Vec::new());
    watched.readiness.serves(move || connections.missing());
    assert_eq!(look::ready(at, 200).await, "ready\n");
    watched.readiness.notices(Some("three".to_owned()));
    assert_eq!(look::ready(at, 200).await, "ready\nthree\n");
    watched.readiness.notices(None);
    watched
        .readiness
        .serves(|| vec!["one".to_owned(), "two".to_owned()]);
    assert_eq!(look::ready(at, 503).await, "one\ntwo\n");
    watched.stop.cancel();
    assert_eq!(look::ready(at, 503).await, "draining\n");
    assert_eq!(look::get(at, "/healthz").await.unwrap().status, 200);

    let (text, samples) = look::metrics(at).await;
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert_eq!(look::value(&samples, "sotto_seen_total", ""), 4.0);
    // No value breaks out of its label.
    let labels = format!("stream={HOSTILE}");
    assert_eq!(look::value(&samples, "sotto_lag", &labels), 3.0);
    assert_eq!(samples.len(), 2);

    drop(watched.watch.take());
    while look::get(at, "/healthz").await.is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn nothing_else_is_answered() {
    let watched = watched().await;
    let at = watched.at;
    for path in ["/", "/metrics/", "/healthz/x", "//metrics", "/readyz%00"] {
        assert_eq!(look::get(at, path).await.unwrap().status, 404, "{path}");
    }
    for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
        for path in ["/healthz", "/readyz", "/metrics", "/"] {
            let answer = look::ask(at, method, path).await.unwrap();
            assert_eq!(answer.status, 405, "{method} {path}");
        }
    }
    let long = format!("/{}", "a".repeat(20_000));
    let refused = look::get(at, &long).await;
    assert!(refused.is_none_or(|answer| answer.status >= 400));
}

#[tokio::test]
async fn whoever_says_nothing_is_cut_and_keeps_nobody_out_for_long() {
    let watched = watched().await;
    let mut silent = Vec::new();
    for number in 0..CONNECTIONS {
        let mut tcp = TcpStream::connect(watched.at).await.unwrap();
        // Half of them say nothing at all, half begin to.
        if number % 2 == 0 {
            tcp.write_all(b"GET /metrics HTTP/1.1\r\nHost: ")
                .await
                .unwrap();
        }
        silent.push(tcp);
    }
    // Waits until one of them is cut.
    assert_eq!(look::get(watched.at, "/healthz").await.unwrap().status, 200);
    for mut tcp in silent {
        let mut answer = Vec::new();
        let cut = tokio::time::timeout(Duration::from_secs(30), tcp.read_to_end(&mut answer));
        drop(cut.await.expect("it is cut"));
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn a_taken_address_is_said_and_none_is_no_error() {
    let readiness = Readiness::starting(CancellationToken::new());
    let start = async |listen| {
        let registry = Registry::default();
        Watch::start(&alone(), (listen, SETTING), &readiness, registry).await
    };
    assert!(start(None).await.unwrap().is_none());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let error = start(loopback(at)).await.unwrap_err().to_string();
    assert!(error.contains(&at.to_string()), "{error}");
    assert!(
        error.contains("choose another `[relay] metrics`"),
        "{error}"
    );
}
