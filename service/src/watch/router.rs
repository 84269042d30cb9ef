//! What is answered, and to what.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

use super::{Figures, Readiness};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The three paths.
pub fn router<F: Figures>(readiness: Readiness, figures: F) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(readiness)
        .route("/metrics", get(show::<F>))
        .with_state(Arc::new(figures))
        // A route for GET would answer HEAD too.
        .layer(from_fn(only_get))
}

async fn only_get(request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        next.run(request).await
    } else {
        StatusCode::METHOD_NOT_ALLOWED.into_response()
    }
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let mut lines = readiness.reasons();
    let status = match lines.as_slice() {
        [] => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    if status == StatusCode::OK {
        lines.push("ready".to_owned());
    }
    lines.extend(readiness.notice());
    (status, lines.join("\n") + "\n")
}

async fn show<F: Figures>(State(figures): State<Arc<F>>) -> Response {
    let read = figures.read().await;
    match text(&[figures.registry(), &read]) {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn text(registries: &[&Registry]) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for registry in registries {
        encode_registry(&mut text, registry)?;
    }
    encode_eof(&mut text)?;
    Ok(text)
}
