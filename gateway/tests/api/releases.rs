//! The folder of releases, as anybody can ask for it.

use std::fs;
use std::sync::Arc;

use reqwest::StatusCode;

use crate::server::{Directory, Server};

#[tokio::test]
async fn what_is_published_is_handed_out_and_nothing_else_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in [
        ("metadata/timestamp.json", "{}"),
        ("targets/abc.sotto-relay", "program"),
        ("draft.json", "draft"),
        ("keys/ann", "secret"),
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let mut directory = Directory::start().await;
    directory.config.gateway.releases = Some(folder.path().to_owned());
    let server = Server::start_on(Arc::new(directory)).await;

    let handed_out = async |path: &str| {
        let answer = server.http().get(server.url(path)).send().await.unwrap();
        match answer.status() {
            StatusCode::OK => Some(answer.text().await.unwrap()),
            StatusCode::NOT_FOUND => None,
            other => panic!("{path}: {other}"),
        }
    };
    let program = handed_out("/releases/targets/abc.sotto-relay").await;
    assert_eq!(program.as_deref(), Some("program"));
    let newest = handed_out("/releases/metadata/timestamp.json").await;
    assert_eq!(newest.as_deref(), Some("{}"));
    for path in [
        "/releases",
        "/releases/metadata",
        "/releases/metadata/",
        "/releases/metadata/none.json",
        "/releases/draft.json",
        "/releases/keys/ann",
        "/releases/metadata/%2e%2e/draft.json",
        "/releases/metadata/..%2fdraft.json",
        "/releases/targets/%2e%2e/keys/ann",
        "/releases/targets//etc/passwd",
    ] {
        assert_eq!(handed_out(path).await, None, "{path}");
    }
}

#[tokio::test]
async fn without_a_folder_there_are_no_releases() {
    let server = Server::start().await;
    let url = server.url("/releases/metadata/timestamp.json");
    let answer = server.http().get(url).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
}
