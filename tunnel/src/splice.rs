//! Bytes from a TCP connection to a stream of a link and back, each way until
//! its sender ends it. While nothing comes, a connection holds no buffer.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::closing;
use crate::link::{FRAME, LinkStream, SharedStream};
use crate::refusal::Refusal;
use crate::server_hello::ServerHelloReader;

/// Which way bytes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the TCP connection to the link.
    In,
    /// From the link to the TCP connection.
    Out,
}

/// What looks on.
pub trait Observer: Sync {
    /// Bytes are about to pass.
    ///
    /// # Errors
    /// When they must not.
    fn passing(&self, way: Way, bytes: usize) -> Result<(), Refusal>;
}

/// Why a connection did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The private side's first bytes were refused; the client was told.
    #[error("{0}")]
    Refused(Refusal),
    /// It must not go on.
    #[error(transparent)]
    Stopped(#[from] Refusal),
    /// Either end broke off.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Nothing passed for longer than it may be silent.
    #[error("nothing passed for too long")]
    Idle,
}

/// A connection and a stream, to be joined.
pub struct Splice<'a> {
    /// The connection.
    pub tcp: TcpStream,
    /// The stream.
    pub stream: LinkStream,
    /// What came from the stream already.
    pub first: Vec<u8>,
    /// What looks at the first bytes that come from the stream.
    pub server_hello: Option<ServerHelloReader>,
    /// What looks on.
    pub observer: &'a dyn Observer,
    /// How long nothing may pass.
    pub idle: Option<Duration>,
    /// The same once one side has ended: whoever keeps the other one open, and
    /// says nothing, holds a place for nothing.
    pub half_closed: Duration,
}

/// As long as a side that is still open may be silent, if nothing is said.
pub const HALF_CLOSED: Duration = Duration::from_secs(60);

impl Splice<'_> {
    /// Runs until both ways are ended. When it breaks, both ends are told by a
    /// reset, not by an end that looks like a good one.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn run(self) -> Result<(), Broken> {
        let mut tcp = ResetUnlessEnded::new(self.tcp);
        let stream = SharedStream::new(self.stream);
        let state = State {
            stream: &stream,
            observer: self.observer,
            in_done: AtomicBool::new(false),
            out_done: AtomicBool::new(false),
            one_done: Notify::new(),
            started: Instant::now(),
            last_ms: AtomicU64::new(0),
        };
        let (reader, writer) = tcp.tcp.split();
        let both = async {
            tokio::try_join!(
                state.inward(reader),
                state.outward(writer, self.first, self.server_hello)
            )
        };
        let result = tokio::select! {
            both = both => both.map(|_| ()),
            () = state.silence(self.idle, self.half_closed) => Err(Broken::Idle),
        };
        if let Err(Broken::Refused(_)) = result {
            closing::linger(&mut tcp.tcp).await;
        }
        tcp.ended = matches!(result, Ok(()) | Err(Broken::Refused(_)));
        result
    }
}

/// A connection whose end looks like a good one only if it is.
struct ResetUnlessEnded {
    tcp: TcpStream,
    ended: bool,
}

impl ResetUnlessEnded {
    fn new(tcp: TcpStream) -> Self {
        Self { tcp, ended: false }
    }
}

impl Drop for ResetUnlessEnded {
    fn drop(&mut self) {
        if !self.ended {
            // Ignored: it may be closed already.
            drop(self.tcp.set_zero_linger());
        }
    }
}

struct State<'a> {
    stream: &'a SharedStream,
    observer: &'a dyn Observer,
    in_done: AtomicBool,
    out_done: AtomicBool,
    /// Told when either is.
    one_done: Notify,
    started: Instant,
    last_ms: AtomicU64,
}

impl State<'_> {
    fn passing(&self, way: Way, bytes: usize) -> Result<(), Refusal> {
        self.not_silent();
        self.observer.passing(way, bytes)
    }

    fn not_silent(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(now, Ordering::Relaxed);
    }

    fn ends(&self, way: Way) {
        self.not_silent();
        let done = match way {
            Way::In => &self.in_done,
            Way::Out => &self.out_done,
        };
        done.store(true, Ordering::Relaxed);
        self.one_done.notify_one();
    }

    async fn inward(&self, reader: ReadHalf<'_>) -> Result<(), Broken> {
        loop {
            reader.readable().await?;
            let mut buffer = Vec::with_capacity(FRAME);
            loop {
                buffer.clear();
                match reader.try_read_buf(&mut buffer) {
                    Ok(0) => {
                        self.ends(Way::In);
                        return Ok(self.stream.close().await?);
                    }
                    Ok(length) => {
                        self.passing(Way::In, length)?;
                        self.stream.write_all(&buffer).await?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    async fn outward(
        &self,
        mut writer: WriteHalf<'_>,
        first: Vec<u8>,
        mut server_hello: Option<ServerHelloReader>,
    ) -> Result<(), Broken> {
        if !first.is_empty() {
            self.pass_out(&mut writer, &first, &mut server_hello)
                .await?;
        }
        drop(first);
        while let Some(packet) = self.stream.next().await? {
            self.pass_out(&mut writer, packet.as_ref(), &mut server_hello)
                .await?;
        }
        // Closed both ways, though this end did not: it was reset.
        if !self.in_done.load(Ordering::Relaxed) && self.stream.is_closed() {
            return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
        }
        self.ends(Way::Out);
        Ok(writer.shutdown().await?)
    }

    async fn pass_out(
        &self,
        writer: &mut WriteHalf<'_>,
        bytes: &[u8],
        server_hello: &mut Option<ServerHelloReader>,
    ) -> Result<(), Broken> {
        let Some(reader) = server_hello else {
            self.passing(Way::Out, bytes.len())?;
            return Ok(writer.write_all(bytes).await?);
        };
        match reader.push(bytes) {
            Ok(passed) => {
                if reader.is_done() {
                    *server_hello = None;
                }
                self.passing(Way::Out, passed.len())?;
                Ok(writer.write_all(&passed).await?)
            }
            Err(refusal) => {
                writer.write_all(&refusal.record()).await?;
                writer.shutdown().await?;
                Err(Broken::Refused(refusal))
            }
        }
    }

    /// Returns when nothing has passed for too long.
    async fn silence(&self, idle: Option<Duration>, half_closed: Duration) {
        loop {
            let one_done =
                self.in_done.load(Ordering::Relaxed) || self.out_done.load(Ordering::Relaxed);
            let most = match one_done {
                true => Some(idle.unwrap_or(half_closed).min(half_closed)),
                false => idle,
            };
            let last = self.started + Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
            let rest = most.map(|most| most.saturating_sub(last.elapsed()));
            if rest.is_some_and(|rest| rest.is_zero()) {
                return;
            }
            let waiting = async {
                match rest {
                    Some(rest) => tokio::time::sleep(rest).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = waiting => {}
                () = self.one_done.notified() => {}
            }
        }
    }
}
