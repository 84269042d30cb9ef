//! What must not pass, and what is said to it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::AlertDescription;
use rustls::version::{TLS12, TLS13};
use sotto_faults::ports;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::program::{raise_open_files, resident};
use crate::stage::*;

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_must_not_pass_are_told_why() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13, &TLS12], &[])).await;
    let (end, _dialer) = tunnel(server).await;
    identity.echo(end.at).await.unwrap();

    let refused = |name: &'static str, config| async move {
        alert_of(&connect(end.at, name, config).await.unwrap_err())
    };
    let old = identity.client(&[&TLS12], &[]);
    assert_eq!(refused(NAME, old).await, AlertDescription::ProtocolVersion);
    let usual = identity.client(&[&TLS13], &[]);
    assert_eq!(
        refused("other.example", usual).await,
        AlertDescription::UnrecognisedName
    );
    let mut nameless = identity.client(&[&TLS13], &[]);
    nameless.enable_sni = false;
    assert_eq!(
        refused(NAME, nameless).await,
        AlertDescription::MissingExtension
    );

    for (bytes, alert) in [
        (b"GET / HTTP/1.1\r\n\r\n".as_slice(), 10),
        (&[0x80, 0x2e, 1, 3, 1], 10),
        (&[22, 3, 1, 0x40, 1], 22),
        (&[22, 3, 1, 0, 4, 1, 0, 0, 0], 50),
        (&[22, 3, 1, 0, 4, 1, 1, 0, 1], 50),
        (&[22, 3, 1, 0, 4, 2, 0, 0, 0], 10),
    ] {
        assert_eq!(alert_for(end.at, bytes).await, Some(alert), "{bytes:?}");
    }
    identity.echo(end.at).await.unwrap();
    assert_eq!(
        end.metric("sotto_tunnel_refused_total{reason=\"version\"}")
            .await,
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_must_not_pass_are_not_passed_on() {
    let identity = Identity::new();
    let old = echo_server(identity.server(&[&TLS12], &[])).await;
    let plain = tcp_server(|mut tcp| async move {
        tcp.write_all(b"INFO {\"server_id\":\"in the clear\"}\r\n")
            .await
            .ok();
        tcp.read_u8().await.ok();
    })
    .await;
    for (server, alert) in [
        (old, AlertDescription::ProtocolVersion),
        (plain, AlertDescription::InternalError),
    ] {
        let (end, _dialer) = tunnel(server).await;
        let error = identity.connect(end.at).await.unwrap_err();
        assert_eq!(alert_of(&error), alert);
    }
}

/// Sends a byte at a time.
struct Slowly(TcpStream);

impl AsyncRead for Slowly {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Slowly {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, &bytes[..bytes.len().min(1)])
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hello_that_comes_byte_by_byte_passes() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let (end, _dialer) = tunnel(server).await;
    let tcp = TcpStream::connect(end.at).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let mut tls = secure(Slowly(tcp), NAME, identity.client(&[&TLS13], &[]))
        .await
        .unwrap();
    ping(&mut tls).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_do_not_stop_a_good_one() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let key = Key::new();
    let names = key.org("acme", &[NAME], "") + "[limits]\nwaiting = 300\n";
    let end = PublicEnd::start(&names, &["--hello-seconds", "4"]);
    let _dialer = Dialer::start(
        key.folder.path(),
        &[&end.to],
        &[format!("{NAME}={server}")],
        &[],
    );
    end.linked(2).await;
    let mut slow = Vec::new();
    for _ in 0..500 {
        let mut tcp = TcpStream::connect(end.at).await.unwrap();
        tcp.write_all(&[22]).await.unwrap();
        slow.push(tcp);
    }
    identity.echo(end.at).await.unwrap();
    // The oldest made room at once, the others have their time.
    assert!(end.metric("sotto_tunnel_waiting ").await <= 300.0);
    for tcp in &mut slow {
        let mut byte = [0];
        let end = timeout(PATIENCE, tcp.read(&mut byte)).await.unwrap();
        assert!(matches!(end, Ok(0) | Err(_)));
    }
    until("end of waiting", || async {
        end.metric("sotto_tunnel_waiting ").await == 0.0
    })
    .await;
    identity.echo(end.at).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_slow_clients_do_not_stop_a_good_one() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    // As many as may wait, or as one process may have here.
    let slow = 10_000.min(raise_open_files() - 500);
    let key = Key::new();
    let names = key.org("acme", &[NAME], "") + &format!("[limits]\nwaiting = {slow}\n");
    let end = PublicEnd::start(&names, &["--hello-seconds", "600"]);
    let route = [format!("{NAME}={server}")];
    let _dialer = Dialer::start(key.folder.path(), &[&end.to], &route, &[]);
    end.linked(2).await;
    let waiting = || end.metric("sotto_tunnel_waiting ");
    let before = resident(end.running.as_ref().unwrap());
    let mut clients = Vec::new();
    for _ in 0..slow {
        let mut tcp = TcpStream::connect(end.at).await.unwrap();
        tcp.write_all(&[22, 3, 1]).await.unwrap();
        clients.push(tcp);
    }
    until("all of them", || async { waiting().await == slow as f64 }).await;
    let after = resident(end.running.as_ref().unwrap());
    let each = after.saturating_sub(before) / clients.len();
    assert!(each < 8_192, "{each} bytes for each that waits");
    // One makes room for the first of these, which does for the others.
    for _ in 0..20 {
        identity.echo(end.at).await.unwrap();
    }
    let gone = |tcp: &&TcpStream| match tcp.try_read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    };
    until("one that is gone", || async {
        clients.iter().filter(gone).count() == 1
    })
    .await;
    drop(clients);
    until("end of waiting", || async { waiting().await == 0.0 }).await;
    identity.echo(end.at).await.unwrap();
}

/// A handshake of a dialer's that never comes to its proof.
fn hello_of_a_dialer(identity: &Identity) -> Vec<u8> {
    let name = "link.tunnel.sotto.internal".try_into().unwrap();
    let config = Arc::new(identity.client(&[&TLS13], &[]));
    let mut hello = Vec::new();
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test(flavor = "multi_thread")]
async fn dialers_that_prove_nothing_keep_no_other_away() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let key = Key::new();
    let end = PublicEnd::start(&key.org("acme", &[NAME], ""), &[]);
    let hello = hello_of_a_dialer(&identity);
    let mut silent = Vec::new();
    for _ in 0..400 {
        let mut tcp = TcpStream::connect(end.at).await.unwrap();
        tcp.write_all(&hello).await.unwrap();
        silent.push(tcp);
    }
    let route = format!("{NAME}={server}");
    let _dialer = Dialer::start(key.folder.path(), &[&end.to], &[route], &[]);
    end.linked(1).await;
    identity.echo(end.at).await.unwrap();
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialer_gets_only_the_names_that_are_its_own() {
    let identity = Identity::new();
    let (mine, theirs) = (Key::new(), Key::new());
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let names = mine.org("acme", &[NAME], "") + &theirs.org("emca", &["other.example"], "");
    let end = PublicEnd::start(&names, &[]);
    let dial = |key: &Key, to: &str, route: &str| {
        Dialer::start(
            key.folder.path(),
            &[to],
            &[route.to_owned()],
            &["--links", "1"],
        )
    };
    let thief_s = ports::free().unwrap();
    let thief = dial(&theirs, &end.to, &format!("{NAME}={thief_s}"));
    let unknown = Key::new();
    let stranger = dial(&unknown, &end.to, &format!("{NAME}={thief_s}"));
    // Another machine at the place of the public end.
    let fake = PublicEnd::start(&mine.org("acme", &[NAME], ""), &[]);
    let mistaken = end.to.replace(&end.at.to_string(), &fake.at.to_string());
    let misled = dial(&mine, &mistaken, &format!("{NAME}={server}"));
    until("refusals", || async {
        end.metric("sotto_tunnel_dialers_refused_total").await >= 2.0
    })
    .await;
    until("refusal", || async {
        metric(misled.monitor, "sotto_tunnel_dialer_links_lost_total").await >= 1.0
    })
    .await;
    for dialer in [&thief, &stranger, &misled] {
        assert_eq!(readyz(dialer.monitor).await, 503);
    }
    assert_eq!(end.metric("sotto_tunnel_links{").await, 0.0);

    let good = dial(&mine, &end.to, &format!("{NAME}={server}"));
    end.linked(1).await;
    identity.echo(end.at).await.unwrap();
    assert_eq!(readyz(good.monitor).await, 200);
    let said = thief.running.kill().stderr;
    assert!(said.contains("may not announce `localhost`"), "{said}");
    let said = misled.running.kill().stderr;
    assert!(
        said.contains("not the public end of this fingerprint"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_as_many_links_as_it_may_have_is_told() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let key = Key::new();
    let end = PublicEnd::start(&key.org("acme", &[NAME], ""), &[]);
    let route = [format!("{NAME}={server}")];
    let dial = |links: &str| {
        let flags = ["--links", links, "--log", "info"];
        Dialer::start(key.folder.path(), &[&end.to], &route, &flags)
    };
    let _all = dial("64");
    end.linked(64).await;
    let one_more = dial("1");
    until("refusal", || async {
        end.metric("sotto_tunnel_dialers_refused_total").await >= 1.0
    })
    .await;
    assert_eq!(readyz(one_more.monitor).await, 503);
    let said = one_more.running.kill().stderr;
    assert!(said.contains("dial with fewer"), "{said}");
    assert!(!said.contains("a link is there"), "{said}");
}
