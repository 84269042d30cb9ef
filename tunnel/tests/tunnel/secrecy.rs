//! What a public end can learn: everything that passes it, and everything in
//! its memory, is searched for what was said and for the server's key.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use aho_corasick::AhoCorasick;
use rustls::version::TLS13;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::*;

const SAID: &str = "the harvest begins on Friday at the old mill";

type Record = Arc<Mutex<Vec<u8>>>;

/// Passes bytes on and keeps them.
async fn recorder(to: std::net::SocketAddr, record: &Record) -> std::net::SocketAddr {
    let record = Arc::clone(record);
    tcp_server(move |tcp| {
        let record = Arc::clone(&record);
        async move {
            let onward = TcpStream::connect(to).await.unwrap();
            let (reader, writer) = tcp.into_split();
            let (back, forth) = onward.into_split();
            tokio::join!(copy(reader, forth, &record), copy(back, writer, &record));
        }
    })
    .await
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, record: &Record) {
    let mut buffer = vec![0; 16_384];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        record.lock().unwrap().extend(&buffer[..length]);
        if to.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    to.shutdown().await.ok();
}

/// Everything that a process can read and write.
fn memory(pid: i32) -> Vec<u8> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut image = Vec::new();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        let (start, end) = range.split_once('-').unwrap();
        let (start, end) = (
            u64::from_str_radix(start, 16).unwrap(),
            u64::from_str_radix(end, 16).unwrap(),
        );
        if !rights.starts_with("rw") || line.ends_with("[vvar]") {
            continue;
        }
        let mut page = vec![0; 65_536];
        let mut at = start;
        while at < end {
            let want = usize::try_from(end - at).unwrap().min(page.len());
            match memory.read_at(&mut page[..want], at) {
                Ok(read @ 1..) => {
                    image.extend(&page[..read]);
                    at += read as u64;
                }
                _ => at += want as u64,
            }
        }
    }
    image
}

#[tokio::test(flavor = "multi_thread")]
async fn a_public_end_learns_names_sizes_times_and_addresses() {
    let identity = Identity::new();
    let server = echo_server(identity.server(&[&TLS13], &[])).await;
    let key = Key::new();
    let end = PublicEnd::start(&key.org("acme", &[NAME], ""), &[]);
    let record = Record::default();
    let recorded_link = recorder(end.at, &record).await;
    let to = end
        .to
        .replace(&end.at.to_string(), &recorded_link.to_string());
    let _dialer = Dialer::start(
        key.folder.path(),
        &[&to],
        &[format!("{NAME}={server}")],
        &[],
    );
    end.linked(2).await;
    let recorded_client = recorder(end.at, &record).await;

    // Some are still there when the memory is read.
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut tls = identity.connect(recorded_client).await.unwrap();
        for _ in 0..20 {
            tls.write_all(SAID.as_bytes()).await.unwrap();
            let mut back = vec![0; SAID.len()];
            tls.read_exact(&mut back).await.unwrap();
            assert_eq!(back, SAID.as_bytes());
        }
        open.push(tls);
    }
    let pid = end.running.as_ref().unwrap().pid().as_raw_nonzero().get();
    let image = memory(pid);
    let traffic = record.lock().unwrap().clone();
    assert!(traffic.len() > 100 * SAID.len());

    let seed = std::fs::read_to_string(key.folder.path().join("dialer.nk")).unwrap();
    // The key as a whole, and the 32 bytes of it that are secret: in PKCS 8 of
    // a P-256 key they follow its version and their own tag and length.
    let scalar = identity
        .key
        .windows(4)
        .position(|bytes| bytes == [2, 1, 1, 4])
        .unwrap()
        + 5;
    let secrets: [&[u8]; 4] = [
        &SAID.as_bytes()[..16],
        &identity.key,
        &identity.key[scalar..scalar + 32],
        seed.trim().as_bytes(),
    ];
    let search = AhoCorasick::new(secrets).unwrap();
    for (what, bytes) in [("what passed", &traffic), ("memory", &image)] {
        assert!(
            search.find(bytes.as_slice()).is_none(),
            "a secret is in {what}"
        );
        // That the search finds what is there: the name it is to know.
        let name = AhoCorasick::new([NAME]).unwrap();
        assert!(
            name.find(bytes.as_slice()).is_some(),
            "the name is not in {what}"
        );
    }
    drop(open);
}
