//! The page on which a browser carries a ceremony out: one document, one
//! script and one style sheet, all from here, with a content security policy
//! that allows nothing else. The ticket never stands in a path or a log.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use data_encoding::BASE64URL_NOPAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ceremonies::{self, Ceremony};
use crate::client_address::ClientAddress;
use crate::gateway::Gateway;
use crate::http;
use crate::refusal::Refusal;

/// Where the page is.
pub const PATH: &str = "/webauthn";
/// Longest request of the page, in bytes.
const BODY: usize = 64 * 1024;
/// What one costs in the limit per address.
const COST: u32 = 5;
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";

/// Adds the page and its two calls.
pub fn routes(router: Router<Arc<Gateway>>) -> Router<Arc<Gateway>> {
    const HTML: &str = include_str!("page.html");
    const SCRIPT: &str = include_str!("page.js");
    const STYLE: &str = include_str!("page.css");
    router
        .route(PATH, get(async || file("text/html; charset=utf-8", HTML)))
        .route(
            "/webauthn/page.js",
            get(async || file("text/javascript; charset=utf-8", SCRIPT)),
        )
        .route(
            "/webauthn/page.css",
            get(async || file("text/css; charset=utf-8", STYLE)),
        )
        .route("/webauthn/options", post(options))
        .route("/webauthn/finish", post(finish))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ask {
    ticket: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    account: String,
    enrols: bool,
    code: String,
    options: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    ticket: String,
    credential: Value,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    proven_ms: i64,
}

#[derive(Serialize)]
struct Trouble {
    message: String,
}

async fn options(
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<ClientAddress>,
    request: Request,
) -> Response {
    let asked = async {
        let Ask { ticket } = read(&gateway, client, request).await?;
        let ceremony = find(&gateway, &ticket).await?;
        let party = gateway.provable().relying_party()?;
        let options = ceremony.ask(party).await?;
        let caller = &ceremony.caller;
        Ok(Asked {
            account: format!("{}@{}", caller.user, caller.org.name()),
            enrols: ceremony.enrols.is_some(),
            code: ceremony.code,
            options: serde_json::from_slice(&options).map_err(Refusal::unavailable)?,
        })
    };
    answer(asked.await)
}

async fn finish(
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<ClientAddress>,
    request: Request,
) -> Response {
    let answered = async {
        let Answer { ticket, credential } = read(&gateway, client, request).await?;
        let ceremony = find(&gateway, &ticket).await?;
        let credential = credential.to_string();
        let proven_ms = ceremonies::finish(&gateway, &ceremony, credential.as_bytes()).await?;
        Ok(Answered { proven_ms })
    };
    answer(answered.await)
}

async fn find(gateway: &Gateway, ticket: &str) -> Result<Ceremony, Refusal> {
    let ticket = BASE64URL_NOPAD.decode(ticket.as_bytes());
    let ticket = ticket.map_err(|_| Refusal::malformed("ticket"))?;
    Ceremony::find(gateway, &ticket).await
}

async fn read<T: DeserializeOwned>(
    gateway: &Gateway,
    ClientAddress(address): ClientAddress,
    request: Request,
) -> Result<T, Refusal> {
    if !gateway.allow(address, COST) {
        let advice = "too many calls from this network: wait a minute and try again";
        return Err(Refusal::TooMany(advice.to_owned()));
    }
    let (body, _memory) = http::read(request.into_body(), BODY, gateway.body_memory()).await?;
    serde_json::from_slice(&body).map_err(|_| Refusal::malformed("JSON"))
}

fn answer(answer: Result<impl Serialize, Refusal>) -> Response {
    let (status, body) = match &answer {
        Ok(answer) => (StatusCode::OK, serde_json::to_string(answer)),
        Err(refusal) => {
            let message = refusal.to_string();
            (
                refusal.status(),
                serde_json::to_string(&Trouble { message }),
            )
        }
    };
    match body {
        Ok(body) => (status, headers("application/json"), body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn file(kind: &'static str, text: &'static str) -> Response {
    (headers(kind), text).into_response()
}

fn headers(kind: &'static str) -> [(HeaderName, &'static str); 6] {
    [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-store"),
        (REFERRER_POLICY, "no-referrer"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ]
}
