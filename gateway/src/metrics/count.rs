//! Each request on its way through.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use prometheus_client::metrics::gauge::Gauge;

use super::counters::{
    Metrics, OfAnswer, OfPath, OfRefusal, OpenedBy, class, opens, reason, subject,
};
use crate::refusal::Refusal;

/// Why a call was refused, noted on its answer.
#[derive(Debug, Clone, Copy)]
struct Reason(&'static str);

/// The answer, with the refusal noted on it for [`count`].
pub fn marked(mut answer: Response, refusal: &Refusal) -> Response {
    answer.extensions_mut().insert(Reason(reason(refusal)));
    answer
}

/// Counts a request. One whose client goes away is not counted as answered.
pub async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let path = subject(request.uri().path());
    let opens = opens(request.uri().path());
    let began = Instant::now();
    let in_flight = InFlight::begin(&metrics.in_flight);
    let answer = next.run(request).await;
    drop(in_flight);

    let took = began.elapsed().as_secs_f64();
    metrics
        .seconds
        .get_or_create(&OfPath { path })
        .observe(took);
    let status = class(answer.status().as_u16());
    metrics
        .requests
        .get_or_create(&OfAnswer { path, status })
        .inc();
    if let Some(&Reason(reason)) = answer.extensions().get::<Reason>() {
        metrics
            .refused
            .get_or_create(&OfRefusal { path, reason })
            .inc();
    } else if let Some(by) = opens
        && answer.status().is_success()
    {
        metrics.sessions.get_or_create(&OpenedBy { by }).inc();
    }
    answer
}

/// One request more, until this is dropped.
struct InFlight(Gauge);

impl InFlight {
    fn begin(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
