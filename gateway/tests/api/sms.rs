//! Codes by text message, sent by a real HTTPS request to a provider that this
//! test plays.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum_server::tls_rustls::RustlsConfig;
use bytes::Bytes;
use serde_json::Value;
use sotto_proto::wire::scope::Place;
use sotto_proto::wire::{
    ApiError, ApiErrorCode, Factor, FactorProven, FactorRemove, FactorsRequest, PolicyAction,
    SmsEnrol, SmsProve, SmsSend, SmsSent,
};
use sotto_service::{SmsConfig, private_files, tls};

use super::gated::{demand, set_policy};
use super::person::Person;
use super::server::{Directory, Server, code};

const NUMBER: &str = "+4930123456";

/// The bearer and the body of a request.
type Taken = (Option<String>, Value);

/// Somebody who sends text messages, or does not.
#[derive(Clone)]
struct Provider {
    taken: Arc<Mutex<Vec<Taken>>>,
    answers: Arc<Mutex<StatusCode>>,
}

impl Provider {
    /// Starts one, and a server that uses it.
    async fn start() -> (Self, Server) {
        let provider = Self {
            taken: Arc::default(),
            answers: Arc::new(Mutex::new(StatusCode::ACCEPTED)),
        };
        let mut directory = Directory::start().await;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = tls::server_config(&directory.layout).unwrap();
        let tls = RustlsConfig::from_config(Arc::new(tls));
        let router = Router::new().route("/send", post(take));
        let router = router.with_state(provider.clone());
        let server = axum_server::from_tcp_rustls(listener, tls).unwrap();
        tokio::spawn(server.serve(router.into_make_service()));

        let bearer_file = directory.layout.root().join("sms-token");
        private_files::write(&bearer_file, b"t0ken\n").unwrap();
        let fields = [("to", "{number}"), ("body", "{text}"), ("from", "Acme")];
        directory.config.sms = Some(SmsConfig {
            url: format!("https://127.0.0.1:{port}/send"),
            bearer_file: Some(bearer_file),
            ca_file: Some(directory.layout.authority()),
            fields: fields
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        });
        let server = Server::start_on(Arc::new(directory)).await;
        (provider, server)
    }

    fn count(&self) -> usize {
        self.taken.lock().unwrap().len()
    }

    /// The code in the newest message, which went to this number.
    fn code(&self, number: &str) -> String {
        let taken = self.taken.lock().unwrap();
        let (bearer, body) = taken.last().expect("nothing was sent");
        assert_eq!(bearer.as_deref(), Some("Bearer t0ken"));
        assert_eq!(
            (&body["to"], &body["from"]),
            (&number.into(), &"Acme".into())
        );
        let text = body["body"].as_str().unwrap();
        assert!(
            text.contains("alice@acme") || text.contains("bob@acme"),
            "{text}"
        );
        text.split(' ').next().unwrap().to_owned()
    }
}

async fn take(State(provider): State<Provider>, headers: HeaderMap, body: String) -> StatusCode {
    let bearer = headers.get("authorization");
    let bearer = bearer.map(|bearer| bearer.to_str().unwrap().to_owned());
    let body = serde_json::from_str(&body).unwrap();
    provider.taken.lock().unwrap().push((bearer, body));
    *provider.answers.lock().unwrap()
}

async fn begin(server: &Server, person: &Person, number: &str) -> Result<SmsSent, ApiError> {
    let number = number.to_owned();
    person.call(server, &SmsEnrol { number }).await
}

async fn send(server: &Server, person: &Person) -> Result<SmsSent, ApiError> {
    person.call(server, &SmsSend::default()).await
}

async fn prove(
    server: &Server,
    person: &Person,
    code: &str,
    id: &Bytes,
) -> Result<FactorProven, ApiError> {
    let (code, id) = (code.to_owned(), id.clone());
    person.call(server, &SmsProve { code, id }).await
}

fn other_than(code: &str) -> &'static str {
    if code == "000000" { "000001" } else { "000000" }
}

#[tokio::test]
async fn a_number_is_enrolled_by_its_first_code_and_proven_by_others() {
    let (provider, server) = Provider::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let sent = begin(&server, &alice, NUMBER).await.unwrap();
    assert_eq!(sent.hint, "…56");
    let first = provider.code(NUMBER);
    let unnamed = prove(&server, &alice, &first, &Bytes::new()).await;
    assert_eq!(code(unnamed), ApiErrorCode::NotFound);
    prove(&server, &alice, &first, &sent.id).await.unwrap();
    let again = prove(&server, &alice, &first, &sent.id).await;
    assert_eq!(code(again), ApiErrorCode::NotFound);

    // On a second device, which has proven nothing.
    let second = alice.on_another_device(&server).await;
    server.clock.advance(Duration::from_secs(31));
    send(&server, &second).await.unwrap();
    let next = provider.code(NUMBER);
    let wrong = prove(&server, &second, other_than(&next), &Bytes::new()).await;
    assert_eq!(code(wrong), ApiErrorCode::Denied);
    let proof = prove(&server, &second, &next, &Bytes::new()).await.unwrap();
    let standing = second.call(&server, &FactorsRequest {}).await.unwrap();
    let standing = standing
        .factors
        .iter()
        .find(|found| found.factor() == Factor::Sms);
    assert_eq!(standing.unwrap().proven_ms, proof.proven_ms);

    second
        .call(
            &server,
            &FactorRemove {
                id: sent.id.clone(),
            },
        )
        .await
        .unwrap();
    assert_eq!(code(send(&server, &alice).await), ApiErrorCode::NotFound);
}

#[tokio::test]
async fn guesses_are_few_and_a_code_ends_after_five_minutes() {
    let (provider, server) = Provider::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let sent = begin(&server, &alice, NUMBER).await.unwrap();
    let right = provider.code(NUMBER);
    for _ in 0..5 {
        let wrong = prove(&server, &alice, other_than(&right), &sent.id).await;
        assert_eq!(code(wrong), ApiErrorCode::Denied);
    }
    let refused = prove(&server, &alice, &right, &sent.id).await;
    assert_eq!(code(refused), ApiErrorCode::TooMany);

    server.clock.advance(Duration::from_secs(31));
    let again = SmsSend {
        id: sent.id.clone(),
    };
    alice.call(&server, &again).await.unwrap();
    let right = provider.code(NUMBER);
    server.clock.advance(Duration::from_secs(301));
    let late = prove(&server, &alice, &right, &sent.id).await;
    assert_eq!(code(late), ApiErrorCode::NotFound);
}

#[tokio::test]
async fn only_so_many_messages_are_sent_over_all_gateways() {
    let (provider, one) = Provider::start().await;
    let two = Server::start_on(one.directory.clone()).await;
    let alice = Person::first(&one, "acme", "alice").await;
    let sent = begin(&one, &alice, NUMBER).await.unwrap();
    let at_once = send(&two, &alice).await;
    assert_eq!(code(at_once), ApiErrorCode::NotFound, "not enrolled yet");
    prove(&one, &alice, &provider.code(NUMBER), &sent.id)
        .await
        .unwrap();
    let at_once = send(&two, &alice).await;
    assert_eq!(code(at_once), ApiErrorCode::TooMany);
    let mut taken = provider.count();
    for n in 0..4 {
        for server in [&one, &two] {
            server.clock.advance(Duration::from_secs(31));
        }
        let server = if n % 2 == 0 { &one } else { &two };
        match send(server, &alice).await {
            Ok(_) => taken += 1,
            Err(refused) => assert_eq!(refused.code(), ApiErrorCode::TooMany),
        }
    }
    assert_eq!(provider.count(), taken);
    assert!(taken <= 5, "{taken} messages in two minutes");
    // The number is spared whoever asks.
    let bob = alice.invite_new(&one, "bob").await;
    for _ in 0..5 {
        one.clock.advance(Duration::from_secs(31));
        if begin(&one, &bob, NUMBER).await.is_ok() {
            taken += 1;
        }
    }
    assert_eq!(provider.count(), taken);
    assert!(taken <= 5, "{taken} messages to one number");
}

#[tokio::test]
async fn a_message_that_is_not_taken_in_is_told() {
    let (provider, server) = Provider::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    *provider.answers.lock().unwrap() = StatusCode::BAD_GATEWAY;
    let refused = begin(&server, &alice, NUMBER).await;
    assert_eq!(code(refused), ApiErrorCode::Unavailable);
    let refused = begin(&server, &alice, "030 123456").await;
    assert_eq!(code(refused), ApiErrorCode::Malformed);
    assert_eq!(provider.count(), 1);
}

/// What a policy may demand is what this server can have proven.
#[tokio::test]
async fn without_a_provider_it_is_not_demanded() {
    let demand_sms = || {
        let demand = demand(Factor::Sms, 600, &[PolicyAction::Read]);
        set_policy(Place::Project("field".to_owned()), vec![demand])
    };
    let plain = Server::start().await;
    let alice = Person::first(&plain, "acme", "alice").await;
    let refused = begin(&plain, &alice, NUMBER).await.unwrap_err();
    assert_eq!(refused.code(), ApiErrorCode::Denied);
    assert!(refused.message.contains("[sms]"), "{}", refused.message);
    let refused = alice.change(&plain, [demand_sms()]).await.unwrap_err();
    assert!(refused.message.contains("[sms]"), "{}", refused.message);
    // By an IP address no browser has passkeys.
    let demand = demand(Factor::Webauthn, 600, &[PolicyAction::Read]);
    let webauthn = set_policy(Place::Project("field".to_owned()), vec![demand]);
    let refused = alice.change(&plain, [webauthn]).await.unwrap_err();
    assert!(
        refused.message.contains("public_host"),
        "{}",
        refused.message
    );

    let (provider, server) = Provider::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let sent = begin(&server, &alice, NUMBER).await.unwrap();
    prove(&server, &alice, &provider.code(NUMBER), &sent.id)
        .await
        .unwrap();
    alice.change(&server, [demand_sms()]).await.unwrap();
}
