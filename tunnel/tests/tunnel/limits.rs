//! What is bounded, and what can be changed while it runs.

use std::io::ErrorKind;
use std::time::Duration;

use rustls::AlertDescription;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::look;
use crate::program::{Running, raise_open_files, resident};
use crate::stage::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_org_has_no_more_connections_than_it_may() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let (end, _dialer) = tunnel_with(server, "connections = 2", &[], &[]).await;
    let mut one = identity.connect(end.at).await.unwrap();
    let mut two = identity.connect(end.at).await.unwrap();
    let error = identity.connect(end.at).await.unwrap_err();
    assert_eq!(alert_of(&error), AlertDescription::InternalError);
    ping(&mut one).await.unwrap();
    ping(&mut two).await.unwrap();
    drop(one);
    until("free place", || async {
        identity.echo(end.at).await.is_ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_org_passes_no_more_bytes_than_it_may() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let (end, _dialer) = tunnel_with(server, "bytes_per_day = 200000", &[], &[]).await;
    let tls = identity.connect(end.at).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(tls);
    let sending =
        tokio::spawn(async move { while writer.write_all(&[7; 10_000]).await.is_ok() {} });
    let mut heard = Vec::new();
    timeout(PATIENCE, reader.read_to_end(&mut heard))
        .await
        .unwrap()
        .unwrap_err();
    assert!(
        heard.len() < 300_000 && heard.iter().all(|&byte| byte == 7),
        "{}",
        heard.len()
    );
    sending.await.unwrap();
    let error = identity.connect(end.at).await.unwrap_err();
    assert_eq!(alert_of(&error), AlertDescription::InternalError);
    assert_eq!(
        end.metric("sotto_tunnel_refused_total{reason=\"quota_used\"}")
            .await,
        2.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_a_connection_only_when_asked_to() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let (end, _dialer) = tunnel_with(server, "", &["--idle-seconds", "3"], &[]).await;
    let mut tls = identity.connect(end.at).await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        ping(&mut tls).await.unwrap();
    }
    let mut byte = [0];
    timeout(PATIENCE, tls.read(&mut byte))
        .await
        .unwrap()
        .unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_stays_when_the_server_has_gone_holds_no_place() {
    let identity = Identity::new();
    let server = tls_server(identity.server(&[&TLS13], &[]), |mut tls| async move {
        tls.shutdown().await.unwrap();
    })
    .await;
    let (end, dialer) = tunnel_with(server, "", &["--half-closed-seconds", "1"], &[]).await;
    let mut staying = Vec::new();
    for _ in 0..5 {
        let mut tls = identity.connect(end.at).await.unwrap();
        assert_eq!(tls.read(&mut [0]).await.unwrap(), 0);
        staying.push(tls);
    }
    for (at, open) in [
        (end.monitor, "sotto_tunnel_connections{"),
        (dialer.monitor, "sotto_tunnel_dialer_connections "),
    ] {
        until("free places", || async { sum(at, open).await == 0.0 }).await;
    }
    for tls in &mut staying {
        tls.write_all(b"anybody?").await.unwrap_err();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialer_takes_as_many_files_as_it_may() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    raise_open_files();
    let key = Key::new();
    let end = PublicEnd::start(&key.org("acme", &[NAME], ""), &[]);
    let route = [format!("{NAME}={server}")];
    let _dialer = Dialer::with_open_files(64, key.folder.path(), &[&end.to], &route);
    end.linked(2).await;
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(identity.connect(end.at).await.unwrap());
    }
    for tls in &mut open {
        ping(tls).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_holds_nobody_up_and_little_memory() {
    let identity = Identity::new();
    let server = tls_server(identity.server(&[&TLS13], &[]), |mut tls| async move {
        match tls.read_u8().await {
            // As much as is taken.
            Ok(b'!') => while tls.write_all(&[1; 65_536]).await.is_ok() {},
            _ => {
                tls.write_all(b"ello").await.ok();
                tls.shutdown().await.ok();
            }
        }
    })
    .await;
    let (end, dialer) = tunnel_with(server, "", &[], &["--links", "1"]).await;
    let before = resident(end.running.as_ref().unwrap()) + resident(&dialer.running);
    let mut stalled = Vec::new();
    // So many that what all windows together may grow is little for each.
    for _ in 0..200 {
        let mut tls = identity.connect(end.at).await.unwrap();
        tls.write_all(b"!").await.unwrap();
        stalled.push(tls);
    }
    // Everything between them has filled up when nothing more passes.
    let passed = || end.metric("sotto_tunnel_bytes_total{");
    let mut last = passed().await;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = passed().await;
        if now == last {
            break;
        }
        last = now;
    }
    for _ in 0..20 {
        let mut tls = identity.connect(end.at).await.unwrap();
        tls.write_all(b"h").await.unwrap();
        let mut said = String::new();
        // Ignored: this server ends without a word.
        timeout(PATIENCE, tls.read_to_string(&mut said))
            .await
            .unwrap()
            .ok();
        assert_eq!(said, "ello");
    }
    let after = resident(end.running.as_ref().unwrap()) + resident(&dialer.running);
    let each = after.saturating_sub(before) / stalled.len();
    // A window at each end, buffers, and what malloc keeps.
    assert!(each < 1_000_000, "{each} bytes for each that does not read");
}

#[tokio::test(flavor = "multi_thread")]
async fn few_hellos_that_are_long_come_in_at_a_time() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let (end, _dialer) = tunnel_with(server, "", &["--hello-seconds", "600"], &[]).await;
    // A whole record of a message that does not end with it.
    let mut begun = vec![0; 5 + 0x4000];
    begun[..9].copy_from_slice(&[22, 3, 1, 0x40, 0, 1, 0, 0xf0, 0]);
    let mut long = Vec::new();
    for _ in 0..300 {
        let mut tcp = TcpStream::connect(end.at).await.unwrap();
        tcp.write_all(&begun).await.unwrap();
        long.push(tcp);
    }
    // The oldest have gone, and only those.
    until("end of the oldest", || async {
        end.metric("sotto_tunnel_waiting ").await == 256.0
    })
    .await;
    let mut byte = [0];
    let ended = timeout(PATIENCE, long[0].read(&mut byte)).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    identity.echo(end.at).await.unwrap();
    assert_eq!(end.metric("sotto_tunnel_waiting ").await, 256.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_change_while_it_runs() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let (old, new) = (Key::new(), Key::new());
    let both =
        |names: &[&str]| old.org("acme", names, "") + &new.org("emca", &["other.example"], "");
    let end = PublicEnd::start(&both(&[NAME]), &[]);
    let dial = |key: &Key, name: &str| {
        Dialer::start(
            key.folder.path(),
            &[&end.to],
            &[format!("{name}={server}")],
            &["--links", "1"],
        )
    };
    let _old = dial(&old, NAME);
    end.linked(1).await;
    let mut tls = identity.connect(end.at).await.unwrap();
    ping(&mut tls).await.unwrap();

    // What does not read changes nothing.
    end.names("[[org]]\nname = 3");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    ping(&mut tls).await.unwrap();

    end.names(&both(&["chat.example"]));
    // Not an end that looks like a good one.
    let reading = tls.get_mut().0.read_u8();
    let reset = timeout(PATIENCE, reading).await.unwrap().unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
    let error = identity.connect(end.at).await.unwrap_err();
    assert_eq!(alert_of(&error), AlertDescription::UnrecognisedName);

    let _new = dial(&new, NAME);
    until("refusal", || async {
        end.metric("sotto_tunnel_dialers_refused_total").await >= 1.0
    })
    .await;
    end.names(&new.org("emca", &[NAME], ""));
    end.linked(1).await;
    identity.echo(end.at).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_is_in_force_for_what_runs_already() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let key = Key::new();
    let (end, _dialer) = tunnel_of(&key, server, "", &[], &[]).await;
    let mut tls = identity.connect(end.at).await.unwrap();
    ping(&mut tls).await.unwrap();
    end.names(&key.org("acme", &[NAME], "bytes_per_day = 1"));
    until("its end", || async {
        end.metric("sotto_tunnel_refused_total{reason=\"quota_used\"}")
            .await
            > 0.0
            || identity.echo(end.at).await.is_err()
    })
    .await;
    ping(&mut tls).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_away_is_taken_from_a_predecessor_too() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let key = Key::new();
    let soon = ["--stand-by-seconds", "1"];
    let (end, _dialer) = tunnel_of(&key, server, "", &soon, &[]).await;
    let mut tls = identity.connect(end.at).await.unwrap();
    ping(&mut tls).await.unwrap();

    let ready = || std::fs::read(end.folder.path().join("serve.json")).ok();
    let before = ready();
    let process = end.running.as_ref().unwrap().pid();
    rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
    until("a successor", || async {
        ready().is_some_and(|now| Some(now) != before)
    })
    .await;
    // It stands by no longer.
    tokio::time::sleep(Duration::from_secs(3)).await;
    ping(&mut tls).await.unwrap();
    end.names(&key.org("acme", &["chat.example"], ""));
    let reading = tls.get_mut().0.read_u8();
    let reset = timeout(PATIENCE, reading).await.unwrap().unwrap_err();
    assert_eq!(reset.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_counted_names_no_client_and_a_stop_is_clean() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let (mut end, dialer) = tunnel(server).await;
    let mut tls = identity.connect(end.at).await.unwrap();
    ping(&mut tls).await.unwrap();
    let port = format!(":{}", tls.get_ref().0.local_addr().unwrap().port());
    let (shown, _) = look::metrics(end.monitor).await;
    assert!(
        shown.contains("sotto_tunnel_connections{org=\"acme\"} 1"),
        "{shown}"
    );
    assert!(
        shown.contains("sotto_tunnel_bytes_total{org=\"acme\",way=\"in\"}"),
        "{shown}"
    );
    assert!(
        !shown.contains(&port) && !shown.contains("127.0.0.1"),
        "{shown}"
    );
    assert_eq!(readyz(end.monitor).await, 200);
    for running in [end.running.take().unwrap(), dialer.running] {
        let pid = running.pid();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = running.finish();
        assert!(ended.status.success(), "{}", ended.stderr);
        assert!(!ended.stderr.contains(&port), "{}", ended.stderr);
    }
}

#[test]
fn the_first_start_can_say_who_may_announce_what() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (Key::new(), Key::new());
    let start = |allow: String| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sotto-tunnel"));
        command
            .arg("serve")
            .arg("--dir")
            .arg(folder.path())
            .arg("--json");
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--allow",
            &allow,
            "--exit-with-parent",
        ]);
        Running::start(command)
    };
    let allow = format!("{}=chat.example,*.chat.example", one.public);
    let first = start(allow.clone()).said_to();
    let written = std::fs::read_to_string(folder.path().join("names.toml")).unwrap();
    assert!(
        written.contains(&one.public) && written.contains("*.chat.example"),
        "{written}"
    );
    // The same again is no contradiction, another one is; nothing is lost.
    let again = start(allow).said_to();
    let fingerprint = |to: &str| to.rsplit('/').next().unwrap().to_owned();
    assert_eq!(fingerprint(&first), fingerprint(&again));
    let refused = start(format!("{}=chat.example", two.public)).finish();
    assert!(
        !refused.status.success() && refused.stderr.contains("without --allow"),
        "{}",
        refused.stderr
    );
    assert_eq!(
        std::fs::read_to_string(folder.path().join("names.toml")).unwrap(),
        written
    );
}
