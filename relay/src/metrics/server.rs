//! `GET /metrics`, for who is on this machine.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use async_nats::Client;
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use super::counters::Metrics;
use super::nats;
use super::page::{self, Page};

/// What a page is made of.
#[derive(Clone)]
struct Sources {
    metrics: Arc<Metrics>,
    system: Client,
}

/// Listens.
pub struct MetricsServer {
    listener: TcpListener,
    sources: Sources,
}

impl MetricsServer {
    /// Listens on an address, which the configuration bounds to loopback.
    ///
    /// # Errors
    /// When it is taken.
    pub async fn bind(address: SocketAddr, metrics: Arc<Metrics>, system: Client) -> Result<Self> {
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| {
            format!("metrics cannot be shown on {address}: choose another `[relay] metrics` in server.toml")
        })?;
        let sources = Sources { metrics, system };
        Ok(Self { listener, sources })
    }

    /// Answers until it is dropped.
    ///
    /// # Errors
    /// When it cannot listen any more.
    pub async fn run(self) -> Result<()> {
        let router = Router::new().route("/metrics", get(show));
        axum::serve(self.listener, router.with_state(self.sources)).await?;
        Ok(())
    }
}

async fn show(State(sources): State<Sources>) -> impl IntoResponse {
    let mut page = Page::default();
    sources.metrics.write(&mut page);
    nats::write(&sources.system, &mut page).await;
    ([(CONTENT_TYPE, page::CONTENT_TYPE)], page.end())
}
