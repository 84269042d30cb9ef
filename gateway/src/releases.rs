//! Hands out the folder of releases that the operator put on this machine
//! (`[gateway] releases`), to whoever asks: programs that update themselves
//! verify what they get (`docs/updates.md`), so nothing here is checked.
//!
//! Nothing else of the folder is handed out than what `sotto-release publish`
//! puts there for machines: no draft, and no key that somebody left.

use std::path::Path;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::any;
use tower_http::services::ServeDir;

/// The signed descriptions, and the files that they name.
const FOLDERS: [&str; 2] = ["metadata", "targets"];

/// `GET /releases/metadata/…` and `GET /releases/targets/…`.
pub fn routes(folder: &Path) -> Router {
    FOLDERS.into_iter().fold(Router::new(), |router, name| {
        let files = ServeDir::new(folder.join(name))
            .append_index_html_on_directories(false)
            .fallback(any(async || StatusCode::NOT_FOUND));
        router.nest_service(&format!("/releases/{name}"), files)
    })
}
