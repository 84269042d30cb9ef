//! What may answer in Consul's place.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::ensure;

use super::PAUSE;
use crate::process::PATIENCE;

/// How something that is no Consul answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// As a Consul would that says yes to everything, gives every lock to
    /// another, and wants every byte logged that a library sends.
    Plausible,
    /// With bytes that mean nothing.
    Garbage,
    /// With an answer that begins well and does not end.
    Endless,
    /// Not at all.
    Silent,
}

/// Answers in Consul's place until it is dropped.
pub struct Liar {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    lie: Mutex<Lie>,
    asked: Mutex<BTreeMap<Lie, usize>>,
    open: AtomicUsize,
    ended: AtomicBool,
}

impl Liar {
    /// Starts to.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn start(lie: Lie) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            lie: Mutex::new(lie),
            asked: Mutex::default(),
            open: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || {
                    shared.open.fetch_add(1, Ordering::SeqCst);
                    // Ignored: whoever asked may have gone.
                    shared.answer(stream).ok();
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it answers.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its port as an address to connect to.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Answers so from now on, and returns when it was asked so often.
    ///
    /// # Errors
    /// When it is not asked any more.
    pub fn tells(&self, lie: Lie, times: usize) -> anyhow::Result<()> {
        *locked(&self.shared.lie) = lie;
        locked(&self.shared.asked).clear();
        let started = Instant::now();
        loop {
            let asked = locked(&self.shared.asked).get(&lie).copied();
            if asked.unwrap_or_default() >= times {
                return Ok(());
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "nobody asks any more: {asked:?}"
            );
            thread::sleep(PAUSE);
        }
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Ignored: it wakes who accepts.
        TcpStream::connect(self.address).ok();
    }
}

impl fmt::Debug for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Liar")
            .field("address", &self.address)
            .finish()
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let head = head(&mut stream)?;
        let lie = *locked(&self.lie);
        *locked(&self.asked).entry(lie).or_default() += 1;
        match lie {
            Lie::Plausible => {
                let body = plausible(&head);
                let length = body.len();
                // A little late, as what blocks is.
                thread::sleep(PAUSE);
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nConnection: close\r\n\
                     Content-Length: {length}\r\n\r\n{body}"
                )?;
            }
            Lie::Garbage => stream.write_all(&[0x80, 0xff, b'\r', b'\n', 0].repeat(500))?,
            Lie::Endless => {
                let head = "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Type: application/json";
                write!(stream, "{head}\r\n\r\n\"")?;
                let piece = [b'a'; 64 * 1024];
                while !self.ended.load(Ordering::SeqCst) {
                    stream.write_all(&piece)?;
                }
            }
            Lie::Silent => {
                stream.set_read_timeout(Some(PAUSE))?;
                // Until whoever asks has had enough, or something else is told.
                while *locked(&self.lie) == lie && !matches!(stream.read(&mut [0]), Ok(0)) {}
            }
        }
        Ok(())
    }
}

fn head(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(stream.read(&mut byte)? == 1, "no head");
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn plausible(head: &str) -> &'static str {
    let line = head.lines().next().unwrap_or_default();
    if line.contains("/session/create") {
        "{\"ID\": \"adf4238a-882b-9ddc-4a9d-5b6758e4159e\"}"
    } else if line.contains("?acquire=") {
        "false"
    } else if line.contains("/kv/sotto/log") {
        "h2=trace,hyper=trace,sotto=off"
    } else {
        ""
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
