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
use sotto_jwt_accounts::directory::DirectoryLog;
use sotto_proto::OrgName;
use tokio::net::TcpListener;

use super::counters::Metrics;
use super::nats;
use super::page::{self, Kind, Page};

/// What a page is made of.
#[derive(Clone)]
struct Sources {
    metrics: Arc<Metrics>,
    system: Client,
    orgs: Arc<[(OrgName, Arc<DirectoryLog>)]>,
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
        let orgs = Arc::default();
        let sources = Sources {
            metrics,
            system,
            orgs,
        };
        Ok(Self { listener, sources })
    }

    /// Answers until it is dropped; `orgs` are those that are served.
    ///
    /// # Errors
    /// When it cannot listen any more.
    pub async fn run(self, orgs: Vec<(OrgName, Arc<DirectoryLog>)>) -> Result<()> {
        let router = Router::new().route("/metrics", get(show));
        let sources = Sources {
            orgs: orgs.into(),
            ..self.sources
        };
        axum::serve(self.listener, router.with_state(sources)).await?;
        Ok(())
    }
}

async fn show(State(sources): State<Sources>) -> impl IntoResponse {
    let mut page = Page::default();
    sources.metrics.write(&mut page);
    write_rooms(&sources.orgs, &mut page);
    nats::write(&sources.system, &mut page).await;
    ([(CONTENT_TYPE, page::CONTENT_TYPE)], page.end())
}

fn write_rooms(orgs: &[(OrgName, Arc<DirectoryLog>)], page: &mut Page) {
    let known = orgs.iter().filter_map(|(org, directory)| {
        let state = directory.state().ok()?;
        let count = u64::try_from(state.rooms().count()).ok()?;
        Some((vec![("org", org.as_str())], count))
    });
    let help = "Rooms of an org that are not deleted.";
    page.family("rooms", Kind::Gauge, help, known);
}
