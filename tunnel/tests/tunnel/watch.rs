//! What both ends show to whoever watches them.

use rustls::version::TLS13;

use crate::look;
use crate::stage::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_dialer_is_ready_while_it_has_links_and_both_ends_are_counted() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let key = Key::new();
    let mut end = PublicEnd::start(&key.org("acme", &[NAME], ""), &[]);
    assert_eq!(look::ready(end.monitor, 200).await, "ready\n");
    end.running.take().unwrap().kill();
    let route = format!("{NAME}={server}");
    let dialer = Dialer::start(key.folder.path(), &[&end.to], &[route], &[]);
    let without = format!("there is no link to {}\n", end.at);
    until("sentence", || async {
        look::ready(dialer.monitor, 503).await == without
    })
    .await;
    let healthz = look::get(dialer.monitor, "/healthz").await.unwrap();
    assert_eq!((healthz.status, healthz.body.as_str()), (200, "ok\n"));
    // What an update waits for.
    let announced = key.folder.path().join("dial.json");
    assert!(!announced.exists());
    end.run();
    let serves = end.folder.path().join("serve.json");
    until("announcement", || async { serves.exists() }).await;
    look::ready(dialer.monitor, 200).await;
    until("announcement", || async { announced.exists() }).await;
    end.linked(1).await;
    identity.echo(end.at).await.unwrap();

    let (_, samples) = look::metrics(end.monitor).await;
    let accepted = look::value(&samples, "sotto_tunnel_accepted_total", "org=acme");
    assert_eq!(accepted, 1.0);
    let passed = look::value(&samples, "sotto_tunnel_bytes_total", "org=acme,way=in");
    assert!(passed > 0.0, "{passed}");
    let (_, samples) = look::metrics(dialer.monitor).await;
    let to = format!("to={}", end.at);
    assert!(look::value(&samples, "sotto_tunnel_dialer_links", &to) >= 1.0);
    assert!(look::value(&samples, "sotto_tunnel_dialer_links_lost_total", &to) >= 1.0);
}

#[test]
fn an_end_is_watched_on_loopback_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sotto-tunnel"));
    command.arg("serve").arg("--dir").arg(folder.path());
    let ended = command
        .args(["--metrics", "0.0.0.0:9465"])
        .output()
        .unwrap();
    assert!(!ended.status.success());
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(said.contains("loopback"), "{said}");
}
