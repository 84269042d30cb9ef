//! HTTP: which request reaches which call, how long it may be, and how the
//! answer is written. A call is implemented by [`Serve`]; who may make it is a
//! type, its [`Caller`], so that a call cannot run without knowing who asks.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use prost::Message;
use sotto_proto::api::{self, Call};
use sotto_service::watch::Readiness;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::caller::Caller;
use crate::calls;
use crate::client_address::ClientAddress;
use crate::gateway::Gateway;
use crate::refusal::Refusal;
use crate::server::Watched;
use crate::{metrics, releases, webauthn};

/// How long a body may stand still. In all it may take as long as it needs: a
/// poor network is no attack.
const BODY_IDLE: Duration = Duration::from_secs(30);

/// One call of the API, implemented.
pub trait Serve: Call + 'static {
    /// Who may make it.
    type Caller: Caller;
    /// Longest request body, in bytes.
    const BODY: usize = Self::Caller::BODY;
    /// What it counts for in the limit per address, when that applies.
    const COST: u32 = 1;

    /// Answers it.
    fn serve(
        self,
        gateway: &Gateway,
        caller: Self::Caller,
    ) -> impl Future<Output = Result<Self::Answer, Refusal>> + Send;
}

/// The whole API, with everything counted. From `closing` on, an answer over
/// HTTP/1 is the last of its connection.
pub fn router(gateway: Arc<Gateway>, watched: &Watched, closing: &CancellationToken) -> Router {
    let releases = gateway.releases().map(releases::routes);
    webauthn::routes(calls::routes(Router::new()))
        .route("/healthz", get(async || StatusCode::OK))
        .route("/readyz", get(ready).with_state(watched.readiness.clone()))
        .fallback(async || refused(&Refusal::UnknownCall))
        .with_state(gateway)
        .merge(releases.unwrap_or_default())
        .layer(from_fn_with_state(
            Arc::clone(&watched.metrics),
            metrics::count,
        ))
        .layer(from_fn_with_state(closing.clone(), close))
}

async fn close(State(closing): State<CancellationToken>, request: Request, next: Next) -> Response {
    let http1 = request.version() < Version::HTTP_2;
    let mut answer = next.run(request).await;
    if http1 && closing.is_cancelled() {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(CONNECTION, close);
    }
    answer
}

/// Adds one call.
pub fn route<C: Serve>(router: Router<Arc<Gateway>>) -> Router<Arc<Gateway>> {
    const {
        assert!(
            C::SESSION == <C::Caller as Caller>::SESSION,
            "the API says otherwise about the session"
        );
    }
    router.route(C::PATH, post(handle::<C>))
}

async fn handle<C: Serve>(
    State(gateway): State<Arc<Gateway>>,
    Extension(client): Extension<ClientAddress>,
    request: Request,
) -> Response {
    match answer::<C>(&gateway, client, request).await {
        Ok(answer) => protobuf(StatusCode::OK, &answer),
        Err(refusal) => {
            sotto_log::debug!(
                path = C::PATH,
                status = refusal.status().as_u16(),
                "refused"
            );
            refused(&refusal)
        }
    }
}

/// Who asks comes first: nothing of the body is read for somebody who may not.
async fn answer<C: Serve>(
    gateway: &Gateway,
    ClientAddress(address): ClientAddress,
    request: Request,
) -> Result<C::Answer, Refusal> {
    let (head, body) = request.into_parts();
    let caller = C::Caller::identify(gateway, &head.headers, address, C::COST).await?;
    check_content_type(&head.headers)?;
    let (body, _memory) = read(body, C::BODY, gateway.body_memory()).await?;
    let call = C::decode(body).map_err(Refusal::malformed)?;
    call.serve(gateway, caller).await
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(CONTENT_TYPE) {
        Some(value) if value == api::CONTENT_TYPE => Ok(()),
        _ => Err(Refusal::malformed("content type")),
    }
}

/// Reads a body of at most `max` bytes. What all bodies take together comes
/// out of `memory`, in bytes, for as long as the permit lives.
///
/// # Errors
/// [`Refusal::TooLarge`], [`Refusal::Malformed`], or [`Refusal::Unavailable`]
/// when no memory is left.
pub async fn read(
    body: Body,
    max: usize,
    memory: &Semaphore,
) -> Result<(Bytes, Option<SemaphorePermit<'_>>), Refusal> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > max {
        return Err(Refusal::TooLarge(max));
    }
    let mut taken: Option<SemaphorePermit<'_>> = None;
    let mut stream = body.into_data_stream();
    let mut whole = BytesMut::new();
    loop {
        let next = tokio::time::timeout(BODY_IDLE, stream.next()).await;
        let Some(chunk) = next.map_err(Refusal::malformed)? else {
            return Ok((whole.freeze(), taken));
        };
        let chunk = chunk.map_err(Refusal::malformed)?;
        if chunk.len() > max - whole.len() {
            return Err(Refusal::TooLarge(max));
        }
        let length = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        let permit = memory.try_acquire_many(length);
        let permit = permit.map_err(|_| Refusal::Unavailable)?;
        match &mut taken {
            Some(taken) => taken.merge(permit),
            None => taken = Some(permit),
        }
        whole.extend_from_slice(&chunk);
    }
}

/// For what stands in front of several gateways; why not, is said on loopback.
async fn ready(State(readiness): State<Readiness>) -> StatusCode {
    if readiness.reasons().is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn refused(refusal: &Refusal) -> Response {
    let answer = protobuf(refusal.status(), &refusal.to_wire());
    metrics::marked(answer, refusal)
}

fn protobuf(status: StatusCode, message: &impl Message) -> Response {
    let headers = [(CONTENT_TYPE, api::CONTENT_TYPE)];
    (status, headers, message.encode_to_vec()).into_response()
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn streamed(chunks: &[usize]) -> Body {
        let chunks: Vec<_> = chunks
            .iter()
            .map(|&n| Ok::<_, String>(vec![7; n]))
            .collect();
        Body::from_stream(stream::iter(chunks))
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let memory = Semaphore::new(1_000);
        let (whole, taken) = read(streamed(&[3, 7]), 10, &memory).await.unwrap();
        assert_eq!(whole.len(), 10);
        assert_eq!(memory.available_permits(), 990);
        drop(taken);
        for body in [streamed(&[3, 8]), Body::from(vec![7; 11])] {
            let refusal = read(body, 10, &memory).await.unwrap_err();
            assert_eq!(refusal, Refusal::TooLarge(10));
        }
        assert_eq!(memory.available_permits(), 1_000);
    }

    #[tokio::test]
    async fn all_bodies_together_are_bounded() {
        let memory = Semaphore::new(15);
        let refusal = read(streamed(&[10, 10]), 100, &memory).await.unwrap_err();
        assert_eq!(refusal, Refusal::Unavailable);
        assert_eq!(memory.available_permits(), 15);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_given_up() {
        let memory = Semaphore::new(15);
        let body = Body::from_stream(stream::pending::<Result<Vec<u8>, String>>());
        assert!(matches!(
            read(body, 10, &memory).await,
            Err(Refusal::Malformed(_))
        ));
    }
}
