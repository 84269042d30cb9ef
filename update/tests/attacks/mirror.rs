//! A real HTTP server on loopback that serves a folder, and can lie.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::stream;
use tokio::net::TcpListener;

/// What it does with the files whose names end so.
#[derive(Clone)]
pub enum Lie {
    /// Serves this instead.
    Instead(Vec<u8>),
    /// Never stops sending.
    Endless,
    /// A byte now and then.
    Trickle,
    /// Answers so.
    Status(StatusCode),
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    folder: PathBuf,
    lies: Vec<(String, Lie)>,
    asked: Vec<String>,
}

/// The server; it ends with the runtime.
pub struct Mirror {
    shared: Shared,
    pub address: String,
}

impl Mirror {
    pub async fn start(folder: PathBuf) -> Self {
        let shared = Shared::default();
        shared.0.lock().unwrap().folder = folder;
        let router = Router::new()
            .route("/{*path}", get(answer))
            .with_state(shared.clone());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { shared, address }
    }

    /// From now on it serves another folder.
    pub fn serve(&self, folder: PathBuf) {
        self.shared.0.lock().unwrap().folder = folder;
    }

    /// From now on it lies about files whose names end in `end`.
    pub fn lie(&self, end: &str, lie: Lie) {
        let mut inner = self.shared.0.lock().unwrap();
        inner.lies.push((end.to_owned(), lie));
    }

    /// Tells the truth again.
    pub fn repent(&self) {
        self.shared.0.lock().unwrap().lies.clear();
    }

    /// What was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.shared.0.lock().unwrap().asked.clone()
    }
}

async fn answer(State(shared): State<Shared>, Path(path): Path<String>) -> Response {
    let (lie, file) = {
        let mut inner = shared.0.lock().unwrap();
        inner.asked.push(path.clone());
        let lie = inner.lies.iter().find(|(end, _)| path.ends_with(end));
        (lie.map(|(_, lie)| lie.clone()), inner.folder.join(&path))
    };
    let piece = || Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b' '; 4096]));
    match lie {
        Some(Lie::Instead(bytes)) => bytes.into_response(),
        Some(Lie::Status(status)) => status.into_response(),
        Some(Lie::Endless) => Body::from_stream(stream::repeat_with(piece)).into_response(),
        Some(Lie::Trickle) => {
            let bytes = stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(50)).await;
                Some((
                    Ok::<_, std::convert::Infallible>(Bytes::from_static(b" ")),
                    (),
                ))
            });
            Body::from_stream(bytes).into_response()
        }
        None => match tokio::fs::read(file).await {
            Ok(bytes) => bytes.into_response(),
            Err(_) => StatusCode::NOT_FOUND.into_response(),
        },
    }
}
