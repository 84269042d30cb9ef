//! What a gateway shows to whoever watches it.

use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Body, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use sotto_faults::ports;
use sotto_proto::api::{self, Call};
use sotto_proto::wire::{ApiErrorCode, JoinRule, LoginFinish, MeRequest, ServerInfoRequest};
use sotto_service::readiness::Ready;

use super::look;
use super::person::{Person, start_login};
use super::server::{Directory, PATIENCE, Server, code, https};

#[tokio::test]
async fn requests_are_counted_by_what_they_are_not_by_who_asks() {
    let server = Server::start().await;
    let (at, _watch) = server.watch().await;
    let (_, before) = look::metrics(at).await;
    let refused = "sotto_gateway_refused_total";
    let login_refused = |reason: &str| format!("path=login,reason={reason}");
    assert_eq!(
        look::value(&before, refused, &login_refused("wrong_password")),
        0.0
    );

    let alice = Person::first(&server, "acme", "alice").await;
    let room = alice.create_room(&server, JoinRule::Invite).await;
    alice.call(&server, &MeRequest {}).await.unwrap();
    let guess = async || start_login(&server, ("acme", "alice"), "wrong").await;
    let (started, _) = guess().await.unwrap();
    let forged = LoginFinish {
        login: started.login,
        opaque_finalization: Bytes::from_static(&[7; 64]),
    };
    let wrong = server.call(None, &forged).await;
    assert_eq!(code(wrong), ApiErrorCode::WrongPassword);
    let mut guesses = 1;
    while guess().await.is_ok() {
        guesses += 1;
    }
    let (status, _) = server.post("/v1/alice", None, Vec::new()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let (shown, samples) = look::metrics(at).await;
    let value =
        |name: &str, labels: &str| look::value(&samples, &format!("sotto_gateway_{name}"), labels);
    for (name, labels, expected) in [
        ("refused_total", "path=login,reason=wrong_password", 1.0),
        ("refused_total", "path=login,reason=too_many", 1.0),
        ("refused_total", "path=login,reason=unavailable", 0.0),
        ("refused_total", "path=unknown,reason=unknown_call", 1.0),
        ("requests_total", "path=unknown,status=4xx", 1.0),
        ("requests_total", "path=me,status=2xx", 1.0),
        (
            "requests_total",
            "path=login,status=2xx",
            f64::from(guesses),
        ),
        ("requests_total", "path=login,status=4xx", 2.0),
        (
            "request_seconds_count",
            "path=login",
            f64::from(guesses + 2),
        ),
        ("requests_in_flight", "", 0.0),
        ("sessions_opened_total", "by=signup", 1.0),
        ("nats_connected", "org=acme", 1.0),
        ("nats_connects_total", "org=other", 1.0),
    ] {
        assert_eq!(value(name, labels), expected, "{name} {labels}: {shown}");
    }
    assert!(value("directory_entries", "org=acme") >= 4.0, "{shown}");
    let names = [room.to_string(), alice.device.id.to_string()];
    for name in ["alice", "field", "127.0.0.1"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
    {
        assert!(!shown.contains(name), "{name}: {shown}");
    }
}

#[tokio::test]
async fn a_gateway_without_nats_is_not_ready_and_says_so() {
    let server = Server::start().await;
    let (at, _watch) = server.watch().await;
    let alice = Person::first(&server, "acme", "alice").await;
    assert_eq!(look::ready(at, 200).await, "ready\n");
    server.directory.kill_nats_server();
    assert_eq!(look::ready(at, 503).await, "NATS is not reachable\n");
    let public = server
        .http()
        .get(server.url("/readyz"))
        .send()
        .await
        .unwrap();
    assert_eq!(public.status(), StatusCode::SERVICE_UNAVAILABLE);
    // Why is nobody's business who is not on this machine.
    assert_eq!(public.text().await.unwrap(), "");
    let failed = alice.call(&server, &MeRequest {}).await;
    assert_eq!(code(failed), ApiErrorCode::Unavailable);
    let (shown, samples) = look::metrics(at).await;
    let value =
        |name: &str, labels: &str| look::value(&samples, &format!("sotto_gateway_{name}"), labels);
    assert_eq!(
        value("refused_total", "path=me,reason=unavailable"),
        1.0,
        "{shown}"
    );
    assert_eq!(
        value("requests_total", "path=readyz,status=5xx"),
        1.0,
        "{shown}"
    );
    assert_eq!(value("nats_connected", "org=acme"), 0.0, "{shown}");
    server.directory.start_nats_server();
    look::ready(at, 200).await;
    let (_, samples) = look::metrics(at).await;
    let connects = look::value(&samples, "sotto_gateway_nats_connects_total", "org=acme");
    assert!(connects >= 2.0, "{connects}");
}

#[tokio::test]
async fn the_program_waits_for_nats_serves_and_drains() {
    let directory = Directory::start().await;
    directory.kill_nats_server();
    let at = ports::free().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_sotto-gateway"))
        .args(["run", "--exit-with-parent", "--dir"])
        .arg(directory.layout.root())
        .env("SOTTO__GATEWAY__METRICS", at.to_string())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    assert!(look::ready(at, 503).await.starts_with("starting\n"));
    let waiting = async {
        while look::ready(at, 503).await != "starting\nNATS is not reachable\n" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    assert_eq!(look::get(at, "/healthz").await.unwrap().body, "ok\n");
    directory.start_nats_server();
    assert_eq!(look::ready(at, 200).await, "ready\n");

    // A request that does not end keeps the gateway from ending at once.
    let announced = async {
        loop {
            if let Some(ready) = Ready::read(&directory.layout.gateway_ready()) {
                return ready;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ready = tokio::time::timeout(PATIENCE, announced).await.unwrap();
    let endless = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let request = https(&directory.layout)
        .post(format!("{}{}", ready.url, ServerInfoRequest::PATH))
        .header(CONTENT_TYPE, api::CONTENT_TYPE)
        .body(Body::wrap_stream(endless));
    let request = tokio::spawn(request.send());
    let begun = async {
        loop {
            let (_, samples) = look::metrics(at).await;
            if look::value(&samples, "sotto_gateway_requests_in_flight", "") == 1.0 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(look::ready(at, 503).await, "draining\n");
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let ended = tokio::time::timeout(PATIENCE, ended).await.unwrap();
    assert!(ended.unwrap().success());
    assert!(look::get(at, "/healthz").await.is_none());
    request.abort();
}
