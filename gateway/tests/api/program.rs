//! The program itself: making a server directory, serving it, stopping.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use sotto_proto::InviteLink;
use sotto_service::readiness::Ready;
use sotto_service::{Layout, ServerConfig, private_files};

use super::server::{Directory, PATIENCE, https};

pub fn gateway(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sotto-gateway"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub fn refused(output: &Output) -> String {
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(said.lines().count(), 1, "one sentence: {said}");
    said
}

#[test]
fn init_makes_a_complete_directory_once() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("server");
    let dir_text = dir.to_str().unwrap();
    let complete = [
        "init",
        "--dir",
        dir_text,
        "--org",
        "acme",
        "--project",
        "field",
    ];
    assert!(gateway(&complete).status.success());
    let layout = Layout::new(&dir);
    let config = ServerConfig::load(&layout).unwrap();
    assert_eq!(config.orgs.len(), 1);
    let before = std::fs::read(layout.gateway_key()).unwrap();
    assert!(refused(&gateway(&complete)).contains("already"));
    assert_eq!(std::fs::read(layout.gateway_key()).unwrap(), before);
    only_the_owner_reads(&dir);

    // One that was interrupted before its last step is simply made again.
    std::fs::remove_file(layout.config()).unwrap();
    assert!(gateway(&complete).status.success());

    let add = ["org", "add", "other", "--dir", dir_text, "--project", "lab"];
    assert!(gateway(&add).status.success());
    assert!(refused(&gateway(&add)).contains("already"));
    let config = ServerConfig::load(&layout).unwrap();
    let names: Vec<_> = config.orgs.iter().map(|org| org.name.as_str()).collect();
    assert_eq!(names, ["acme", "other"]);
    assert!(layout.relay_creds(&config.orgs[1].name).exists());
    only_the_owner_reads(&dir);
}

#[test]
fn what_is_missing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let uneven = [
        "init",
        "--dir",
        dir,
        "--org",
        "a",
        "--org",
        "b",
        "--project",
        "p",
    ];
    assert!(refused(&gateway(&uneven)).contains("--project"));
    assert!(refused(&gateway(&["run", "--dir", dir])).contains("sotto-gateway init"));
}

fn only_the_owner_reads(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o077;
        assert_eq!(mode, 0, "{}", entry.path().display());
        if entry.path().is_dir() {
            only_the_owner_reads(&entry.path());
        }
    }
}

#[tokio::test]
async fn run_serves_until_its_parent_is_gone() {
    let directory = Directory::start().await;
    let layout = &directory.layout;
    let mut child = Command::new(env!("CARGO_BIN_EXE_sotto-gateway"))
        .args(["run", "--exit-with-parent", "--dir"])
        .arg(layout.root())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let path = layout.gateway_ready();
    let ready = async {
        loop {
            if let Some(ready) = Ready::read(&path) {
                return ready;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ready = tokio::time::timeout(PATIENCE, ready).await.unwrap();
    assert_eq!(ready.pid, child.id());
    let answer = https(layout)
        .get(format!("{}/readyz", ready.url))
        .send()
        .await;
    assert_eq!(answer.unwrap().status(), 200);
    for org in ["acme", "other"] {
        let file = layout.first_invite(&org.parse().unwrap());
        let link: InviteLink = private_files::read_text(&file, 4_096)
            .unwrap()
            .parse()
            .unwrap();
        assert_eq!(link.gateway.base_url(), ready.url);
    }

    drop(child.stdin.take());
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    let ended = tokio::time::timeout(PATIENCE, ended)
        .await
        .unwrap()
        .unwrap();
    assert!(ended.success());
    assert!(!path.exists());
}
