//! Bodies that are too long, are no protobuf, or are not what they say.

use std::time::Duration;

use prost::Message;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use reqwest::{Body, StatusCode};
use sotto_proto::api::{self, Call};
use sotto_proto::wire::{ApiError, ApiErrorCode, GroupInfoPut, MeRequest, ServerInfoRequest};
use sotto_proto::{limits, signed};

use super::person::Person;
use super::server::Server;

/// Longest body of a call in bytes, for each path.
fn longest(path: &str, needs_session: bool) -> usize {
    match (path, needs_session) {
        (_, false) => 64 * 1024,
        (GroupInfoPut::PATH, true) => limits::RATCHET_TREE + limits::HTTP_BODY,
        (_, true) => limits::HTTP_BODY,
    }
}

#[tokio::test]
async fn what_is_too_long_is_not_read() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    for &(path, needs_session) in api::PATHS {
        let longest = longest(path, needs_session);
        // With its length in the head, and without.
        let chunks = vec![Ok::<_, std::io::Error>(vec![0; longest]), Ok(vec![0; 1])];
        let streamed = Body::wrap_stream(futures::stream::iter(chunks));
        for body in [Body::from(vec![0; longest + 1]), streamed] {
            let (status, answer) = server.post(path, Some(&alice.token), body).await;
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
            let error = ApiError::decode(answer.as_slice()).unwrap();
            assert_eq!(error.code(), ApiErrorCode::Malformed, "{path}");
            assert!(
                error.message.contains(&longest.to_string()),
                "{}",
                error.message
            );
        }
    }
}

#[tokio::test]
async fn garbage_is_refused_and_breaks_nothing() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let mut rng = StdRng::seed_from_u64(1);
    for &(path, _) in api::PATHS {
        // So that the limit per address does not answer instead.
        server.clock.advance(Duration::from_secs(60));
        // Not protobuf: an unfinished field of 4 GiB.
        let unfinished = vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f, b'x'];
        let (status, answer) = server.post(path, Some(&alice.token), unfinished).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
        let error = ApiError::decode(answer.as_slice()).unwrap();
        assert_eq!(error.code(), ApiErrorCode::Malformed, "{path}");

        for _ in 0..20 {
            let mut garbage = vec![0; (rng.next_u32() % 300) as usize];
            rng.fill_bytes(&mut garbage);
            let (status, _) = server.post(path, Some(&alice.token), garbage).await;
            assert!(!status.is_server_error(), "{path}: {status}");
        }
    }
    alice.call(&server, &MeRequest {}).await.unwrap();
}

#[tokio::test]
async fn other_requests_are_told_what_is_wrong() {
    let server = Server::start().await;
    let http = server.http();
    let unknown = http.post(server.url("/v1/nothing")).send().await.unwrap();
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let error = ApiError::decode(unknown.bytes().await.unwrap()).unwrap();
    assert!(error.message.contains("update Sotto"), "{}", error.message);
    let get = http
        .get(server.url(ServerInfoRequest::PATH))
        .send()
        .await
        .unwrap();
    assert_eq!(get.status(), StatusCode::METHOD_NOT_ALLOWED);
    let json = http
        .post(server.url(ServerInfoRequest::PATH))
        .header("content-type", "application/json")
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(json.status(), StatusCode::BAD_REQUEST);
    for path in ["/healthz", "/readyz"] {
        let answer = http.get(server.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
    }
}

#[tokio::test]
async fn anyone_may_know_the_server() {
    let server = Server::start().await;
    let call = |org: &str| ServerInfoRequest {
        org: org.to_owned(),
    };
    let info = server.call(None, &call("acme")).await.unwrap();
    assert_eq!(info.server_name, "test");
    assert_eq!(info.nats_urls, [server.directory.config.nats_url()]);
    let key = server.gateway.key().verifying_key();
    assert_eq!(info.gateway_key, signed::key_bytes(&key));
    for (org, expected) in [
        ("nowhere", ApiErrorCode::NotFound),
        ("", ApiErrorCode::Malformed),
    ] {
        let error = server.call(None, &call(org)).await.unwrap_err();
        assert_eq!(error.code(), expected);
    }
}
