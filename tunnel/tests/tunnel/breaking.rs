//! Ends that are killed, and a public end that is not honest.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::stage::*;

/// What stands at a place of a long file.
fn pattern(at: u64) -> u8 {
    (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

/// Sends a long file from where it is asked to.
async fn file_server(identity: &Identity, length: u64) -> SocketAddr {
    tls_server(identity.server(&[&TLS13], &[]), move |mut tls| async move {
        let Ok(mut at) = tls.read_u64().await else {
            return;
        };
        while at < length {
            let end = (at + 65_536).min(length);
            let piece: Vec<u8> = (at..end).map(pattern).collect();
            if tls.write_all(&piece).await.is_err() {
                return;
            }
            at = end;
        }
        tls.shutdown().await.ok();
    })
    .await
}

/// Fetches it, asking again from where it broke off.
async fn fetch(identity: &Identity, at: SocketAddr, length: u64, got: &AtomicUsize) -> usize {
    let (mut place, mut breaks) = (0_u64, 0);
    let mut buffer = vec![0; 65_536];
    while place < length {
        let attempt = async {
            let mut tls = identity.connect(at).await?;
            tls.write_u64(place).await?;
            tls.flush().await?;
            while place < length {
                let read = tls.read(&mut buffer).await?;
                for &byte in &buffer[..read] {
                    assert_eq!(byte, pattern(place), "a wrong byte at {place}");
                    place += 1;
                }
                got.store(usize::try_from(place).unwrap(), Ordering::Relaxed);
                if read == 0 {
                    break;
                }
            }
            std::io::Result::Ok(())
        };
        if attempt.await.is_err() {
            breaks += 1;
            sleep(Duration::from_millis(50)).await;
        }
    }
    breaks
}

#[tokio::test(flavor = "multi_thread")]
async fn either_end_may_be_killed_in_the_middle_of_a_file() {
    const LENGTH: u64 = 60_000_000;
    let identity = Arc::new(Identity::new());
    let server = file_server(&identity, LENGTH).await;
    let key = Key::new();
    let mut end = PublicEnd::start(&key.org("acme", &[NAME], ""), &[]);
    let route = [format!("{NAME}={server}")];
    let dialer = Dialer::start(key.folder.path(), &[&end.to], &route, &[]);
    end.linked(2).await;
    let got = Arc::new(AtomicUsize::new(0));
    let fetching = {
        let (identity, got, at) = (Arc::clone(&identity), Arc::clone(&got), end.at);
        tokio::spawn(async move { fetch(&identity, at, LENGTH, &got).await })
    };
    let got_to = |bytes: usize| {
        let got = Arc::clone(&got);
        async move {
            until("progress", || async {
                got.load(Ordering::Relaxed) >= bytes
            })
            .await
        }
    };
    got_to(5_000_000).await;
    dialer.running.kill();
    let _dialer = Dialer::start(key.folder.path(), &[&end.to], &route, &[]);
    let so_far = got.load(Ordering::Relaxed);
    got_to(so_far + 5_000_000).await;
    end.running.take().unwrap().kill();
    end.run();
    let breaks = timeout(PATIENCE, fetching).await.unwrap().unwrap();
    assert!(breaks >= 2, "{breaks} breaks");
    assert_eq!(got.load(Ordering::Relaxed) as u64, LENGTH);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialer_that_is_killed_fails_no_new_connection_while_there_is_another() {
    let identity = Arc::new(Identity::new());
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let key = Key::new();
    let end = PublicEnd::start(&key.org("acme", &[NAME], ""), &[]);
    let route = [format!("{NAME}={server}")];
    let dial = || Dialer::start(key.folder.path(), &[&end.to], &route, &[]);
    let (first, _second) = (dial(), dial());
    end.linked(4).await;
    let [stop, killed] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (made, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..6)
        .map(|_| {
            let identity = Arc::clone(&identity);
            let (stop, killed) = (Arc::clone(&stop), Arc::clone(&killed));
            let (made, failed) = (Arc::clone(&made), Arc::clone(&failed));
            let at = end.at;
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // Half of an earlier one's handshake may have gone over a
                    // link that goes.
                    let is_new = killed.load(Ordering::SeqCst);
                    match identity.connect(at).await {
                        Ok(mut tls) => {
                            made.fetch_add(1, Ordering::Relaxed);
                            // This one may break, for the same reason.
                            ping(&mut tls).await.ok();
                        }
                        Err(_) => {
                            failed.fetch_add(usize::from(is_new), Ordering::Relaxed);
                        }
                    }
                }
            })
        })
        .collect();
    let made_so = |more: usize| {
        let (made, goal) = (Arc::clone(&made), made.load(Ordering::Relaxed) + more);
        async move {
            until("connections", || async {
                made.load(Ordering::Relaxed) >= goal
            })
            .await
        }
    };
    made_so(100).await;
    first.running.kill();
    killed.store(true, Ordering::SeqCst);
    made_so(100).await;
    until("fewer links", || async {
        end.metric("sotto_tunnel_links{").await == 2.0
    })
    .await;
    let _third = dial();
    made_so(100).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        timeout(PATIENCE, client).await.unwrap().unwrap();
    }
    assert_eq!(
        failed.load(Ordering::Relaxed),
        0,
        "of {}",
        made.load(Ordering::Relaxed)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn links_to_one_public_end_outlive_another() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let key = Key::new();
    let names = key.org("acme", &[NAME], "");
    let (mut one, two) = (PublicEnd::start(&names, &[]), PublicEnd::start(&names, &[]));
    let dialer = Dialer::start(
        key.folder.path(),
        &[&one.to, &two.to],
        &[format!("{NAME}={server}")],
        &[],
    );
    one.linked(2).await;
    two.linked(2).await;
    let mut stays = identity.connect(two.at).await.unwrap();
    one.running.take().unwrap().kill();
    until("loss", || async { readyz(dialer.monitor).await == 503 }).await;
    ping(&mut stays).await.unwrap();
    identity.echo(two.at).await.unwrap();
    one.run();
    one.linked(2).await;
    identity.echo(one.at).await.unwrap();
    ping(&mut stays).await.unwrap();
    assert_eq!(readyz(dialer.monitor).await, 200);
}

/// What a dishonest public end does to one direction after the handshake.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Corrupt,
    Swap,
    Repeat,
    Inject,
    Truncate,
}

async fn pass_on(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    harm: Option<Harm>,
    after: usize,
) {
    let mut passed = 0;
    let mut kept: Option<Vec<u8>> = None;
    let mut buffer = vec![0; 16_384];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let mut piece = buffer[..length].to_vec();
        let due = passed >= after;
        passed += length;
        match harm {
            Some(Harm::Corrupt) if due => {
                let middle = piece.len() / 2;
                piece[middle] ^= 1;
            }
            Some(Harm::Swap) if due => match kept.take() {
                None => {
                    kept = Some(piece);
                    continue;
                }
                Some(before) => piece.extend(before),
            },
            Some(Harm::Repeat) if due => piece.extend(piece.clone()),
            Some(Harm::Inject) if due => {
                piece.splice(0..0, [23, 3, 3, 0, 17].into_iter().chain([9; 17]));
            }
            Some(Harm::Truncate) if due => break,
            _ => {}
        }
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    to.shutdown().await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_end_that_changes_bytes_is_noticed() {
    const LENGTH: u64 = 2_000_000;
    let identity = Identity::new();
    // In both directions: what the server hears is sent back to be compared.
    let sent: Vec<u8> = (0..LENGTH).map(pattern).collect();
    let wrong = Arc::new(AtomicUsize::new(0));
    let noticed = Arc::clone(&wrong);
    let server = tls_server(identity.server(&[&TLS13], &[]), move |tls| {
        let wrong = Arc::clone(&noticed);
        async move {
            let (mut reader, mut writer) = tokio::io::split(tls);
            let (mut place, mut buffer) = (0, vec![0; 16_384]);
            loop {
                match reader.read(&mut buffer).await {
                    Ok(0) => break,
                    Ok(length) => {
                        for &byte in &buffer[..length] {
                            wrong.fetch_add(usize::from(byte != pattern(place)), Ordering::Relaxed);
                            place += 1;
                        }
                        if writer.write_all(&buffer[..length]).await.is_err() {
                            return;
                        }
                    }
                    Err(_) => return,
                }
            }
            // An end that is no end.
            wrong.fetch_add(usize::from(place != LENGTH), Ordering::Relaxed);
            writer.shutdown().await.ok();
        }
    })
    .await;
    let (end, _dialer) = tunnel(server).await;
    for there in [true, false] {
        for harm in [
            Harm::Corrupt,
            Harm::Swap,
            Harm::Repeat,
            Harm::Inject,
            Harm::Truncate,
        ] {
            let public = end.at;
            let dishonest = tcp_server(move |tcp| async move {
                let onward = TcpStream::connect(public).await.unwrap();
                let (reader, writer) = tcp.into_split();
                let (back, forth) = onward.into_split();
                tokio::join!(
                    pass_on(reader, forth, there.then_some(harm), 500_000),
                    pass_on(back, writer, (!there).then_some(harm), 500_000),
                );
            })
            .await;
            let tls = identity.connect(dishonest).await.unwrap();
            let (mut reader, mut writer) = tokio::io::split(tls);
            // Without an end: it is the server's part not to take one for it.
            let sending = writer.write_all(&sent);
            let mut heard = Vec::new();
            let both = async {
                tokio::select! {
                    // What is wrong is noticed here, before more is sent.
                    biased;
                    read = reader.read_to_end(&mut heard) => read,
                    never = async { sending.await.ok(); std::future::pending().await } => never,
                }
            };
            let read = timeout(PATIENCE, both).await.unwrap();
            let error = read.expect_err("nothing was noticed");
            assert!(heard == sent[..heard.len()], "{harm:?}: a wrong byte");
            assert!(heard.len() < sent.len(), "{harm:?} {error}");
        }
    }
    assert_eq!(wrong.load(Ordering::Relaxed), 0);
    identity.connect(end.at).await.unwrap();
}
