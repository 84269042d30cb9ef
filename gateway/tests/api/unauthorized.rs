//! No call of the API that needs a session is answered without one. Goes
//! through the list of all paths, so that a new one is covered from the start.

use std::time::Duration;

use prost::Message;
use reqwest::StatusCode;
use sotto_proto::api;
use sotto_proto::wire::{ApiError, ApiErrorCode};

use super::person::{Login, PASSWORD, Person, log_in};
use super::server::Server;

fn refusal(answer: &[u8]) -> ApiErrorCode {
    ApiError::decode(answer).unwrap().code()
}

#[tokio::test]
async fn without_a_session_nothing_that_needs_one() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    // The right org's tag with another token, and the right token cut.
    let mut guessed = alice.token.to_vec();
    guessed[31] ^= 1;
    let tokens: [Option<&[u8]>; 5] = [
        None,
        Some(&[]),
        Some(&[0; 32]),
        Some(&guessed),
        Some(&alice.token[..31]),
    ];
    for &(path, needs_session) in api::PATHS {
        for token in tokens {
            let (status, answer) = server.post(path, token, Vec::new()).await;
            if needs_session {
                assert_eq!(status, StatusCode::UNAUTHORIZED, "{path} {token:?}");
                assert_eq!(refusal(&answer), ApiErrorCode::SessionExpired, "{path}");
            } else {
                // Served, whatever it makes of an empty request.
                let error = ApiError::decode(answer.as_slice()).unwrap_or_default();
                assert_ne!(error.code(), ApiErrorCode::SessionExpired, "{path}");
                assert!(!error.message.contains("does not know this call"), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn a_password_alone_opens_only_enrolment() {
    let server = Server::start().await;
    Person::first(&server, "acme", "alice").await;
    let login = log_in(&server, ("acme", "alice"), PASSWORD, Duration::ZERO).await;
    let Login::Finished(Ok(finished)) = login else {
        panic!("{login:?}");
    };
    let token = finished.session.unwrap().token;
    let mut opened = Vec::new();
    for &(path, needs_session) in api::PATHS {
        let (_, answer) = server.post(path, Some(&token), Vec::new()).await;
        if needs_session && refusal(&answer) != ApiErrorCode::Denied {
            opened.push(path);
        }
    }
    assert_eq!(opened, ["/v1/devices"]);
}

#[tokio::test]
async fn a_session_is_found_in_its_header_only() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let token = data_encoding::BASE64URL_NOPAD.encode(&alice.token);
    let long = "A".repeat(5_000);
    for (header, expected) in [
        (format!("Bearer {token}"), StatusCode::OK),
        (format!("Basic {token}"), StatusCode::UNAUTHORIZED),
        (format!("Bearer {token}A"), StatusCode::UNAUTHORIZED),
        (format!("Bearer {long}"), StatusCode::UNAUTHORIZED),
        (token.clone(), StatusCode::UNAUTHORIZED),
    ] {
        let answer = server
            .http()
            .post(server.url("/v1/me"))
            .header("content-type", api::CONTENT_TYPE)
            .header("authorization", &header)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), expected, "{header}");
    }
}
