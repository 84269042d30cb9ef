//! One TLS connection between the two ends, and the streams on it (yamux), each
//! with flow control of its own.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{AsyncRead as _, AsyncWrite as _, Stream as _};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, BufReader, BufWriter, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::TokioAsyncReadCompatExt;
use tokio_util::sync::CancellationToken;
use yamux::{Config, Connection, ConnectionError, Mode, Packet};

use crate::ahead::ReadAhead;

/// Most streams on one link.
pub const STREAMS_MAX: usize = 4_096;
/// What yamux lets the other end send on every stream before it is read, in
/// bytes; more only while it is read, as round trip and speed demand.
pub const WINDOW: usize = 256 * 1024;
/// How much more the windows of one link may grow together.
const WINDOWS_MORE: usize = 64 * 1024 * 1024;
/// Streams that were dropped and that yamux has not forgotten yet come on top.
const STREAMS_DROPPED: usize = 1_024;
/// Two fill half of a window, after which yamux gives more. With frames of a few
/// bytes less it waited for a third, which took too long for the window to grow
/// on a wire that loses packets.
pub const FRAME: usize = WINDOW / 4;
/// What is taken from the system at a time: TLS itself asks for 4 KiB.
const READ: usize = 64 * 1024;
/// Most bytes in the system's queue that have not gone out.
const UNSENT: u32 = 128 * 1024;
/// How long a link may leave unacknowledged what it was sent.
const SILENCE: Duration = Duration::from_secs(30);
const PROBES: u32 = 4;
/// How long the other end is told that this one leaves.
const LEAVING: Duration = Duration::from_secs(1);

/// Where streams are opened.
#[derive(Debug, Clone)]
pub struct Opener {
    requests: mpsc::Sender<oneshot::Sender<yamux::Stream>>,
    streams: Arc<AtomicUsize>,
    ended: CancellationToken,
}

/// The connection, to be run.
pub struct Link<T> {
    connection: Connection<T>,
    requests: mpsc::Receiver<oneshot::Sender<yamux::Stream>>,
    ended: CancellationToken,
}

/// A stream of a link.
#[derive(Debug)]
pub struct LinkStream {
    stream: yamux::Stream,
    streams: Arc<AtomicUsize>,
}

/// The link does not open streams any more, or not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the link is gone, or full")]
pub struct Gone;

/// A link over a connection whose ends know each other; `mode` says who opens
/// streams: [`Mode::Client`] does.
pub fn link<T: AsyncRead + AsyncWrite + Unpin>(
    connection: T,
    mode: Mode,
) -> (
    Opener,
    Link<impl futures::AsyncRead + futures::AsyncWrite + Unpin>,
) {
    let mut config = Config::default();
    let streams = STREAMS_MAX + STREAMS_DROPPED;
    config
        .set_max_connection_receive_window(None)
        .set_max_num_streams(streams)
        .set_max_connection_receive_window(Some(streams * WINDOW + WINDOWS_MORE))
        .set_split_send_size(FRAME);
    let buffered = BufWriter::with_capacity(FRAME + 64, connection);
    let connection = ReadAhead::new(buffered);
    let (sender, requests) = mpsc::channel(1);
    let ended = CancellationToken::new();
    let opener = Opener {
        requests: sender,
        streams: Arc::default(),
        ended: ended.clone(),
    };
    let link = Link {
        connection: Connection::new(connection.compat(), config, mode),
        requests,
        ended,
    };
    (opener, link)
}

impl Opener {
    /// Opens a stream.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn open(&self) -> Result<LinkStream, Gone> {
        // Counted before it is there, so that the limit holds.
        let streams = Counted::new(&self.streams)?;
        let (sender, opened) = oneshot::channel();
        self.requests.send(sender).await.map_err(|_| Gone)?;
        let stream = opened.await.map_err(|_| Gone)?;
        Ok(LinkStream {
            stream,
            streams: streams.keep(),
        })
    }

    /// How many streams there are.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Ends the link and every stream of it.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Whether two open streams on the same link.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.streams, &other.streams)
    }

    /// A stream that the other end opened.
    pub fn accept(&self, stream: yamux::Stream) -> Result<LinkStream, Gone> {
        Ok(LinkStream {
            stream,
            streams: Counted::new(&self.streams)?.keep(),
        })
    }
}

/// A stream that is counted until this is dropped.
struct Counted(Option<Arc<AtomicUsize>>);

impl Counted {
    fn new(streams: &Arc<AtomicUsize>) -> Result<Self, Gone> {
        let before = streams.fetch_add(1, Ordering::Relaxed);
        let counted = Self(Some(Arc::clone(streams)));
        match before < STREAMS_MAX {
            true => Ok(counted),
            false => Err(Gone),
        }
    }

    fn keep(mut self) -> Arc<AtomicUsize> {
        self.0.take().unwrap_or_default()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(streams) = &self.0 {
            streams.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for LinkStream {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<T: futures::AsyncRead + futures::AsyncWrite + Unpin> Link<T> {
    /// Runs until an end of the connection leaves; `came` gets every stream
    /// that the other end opens.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn run(mut self, mut came: impl FnMut(yamux::Stream)) -> Result<(), ConnectionError> {
        let mut waiting = None;
        let mut open = true;
        let running = poll_fn(|cx| {
            loop {
                if open && waiting.is_none() {
                    match self.requests.poll_recv(cx) {
                        Poll::Ready(Some(request)) => waiting = Some(request),
                        Poll::Ready(None) => open = false,
                        Poll::Pending => {}
                    }
                }
                if waiting.is_some()
                    && let Poll::Ready(opened) = self.connection.poll_new_outbound(cx)
                {
                    let stream = opened?;
                    if let Some(request) = waiting.take() {
                        // Whoever asked may have gone.
                        drop(oneshot::Sender::send(request, stream));
                    }
                    continue;
                }
                match self.connection.poll_next_inbound(cx) {
                    Poll::Ready(Some(Ok(stream))) => came(stream),
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        let ended = self.ended.clone();
        let result = ended.run_until_cancelled(running).await;
        ended.cancel();
        match result {
            Some(result) => result,
            None => {
                let leaving = poll_fn(|cx| self.connection.poll_close(cx));
                tokio::time::timeout(LEAVING, leaving)
                    .await
                    .unwrap_or(Ok(()))
            }
        }
    }
}

/// A stream as both directions of one connection use it at a time.
#[derive(Debug)]
pub struct SharedStream(Mutex<LinkStream>);

impl SharedStream {
    /// See above.
    pub fn new(stream: LinkStream) -> Self {
        Self(Mutex::new(stream))
    }

    fn with<R>(&self, with: impl FnOnce(Pin<&mut yamux::Stream>) -> R) -> R {
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        with(Pin::new(&mut stream.stream))
    }

    /// What came; `None` at the end.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn next(&self) -> io::Result<Option<Packet>> {
        poll_fn(|cx| self.with(|stream| stream.poll_next(cx)))
            .await
            .transpose()
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// When the other end does not take any more.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = poll_fn(|cx| self.with(|stream| stream.poll_write(cx, bytes))).await?;
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }

    /// Says that nothing more comes from this end.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn close(&self) -> io::Result<()> {
        poll_fn(|cx| self.with(|stream| stream.poll_close(cx))).await
    }

    /// Whether neither end sends any more.
    pub fn is_closed(&self) -> bool {
        self.with(|stream| stream.is_closed())
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer.initialize_unfilled());
        read.map_ok(|length| buffer.advance(length))
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

/// A connection of a link, to be put below TLS.
pub fn below_tls<T: AsyncRead>(connection: T) -> BufReader<T> {
    BufReader::with_capacity(READ, connection)
}

/// Sends small things at once, and lets the system find out when nobody is at
/// the other end any more: after some minutes, for a poor network is patient.
///
/// # Errors
/// When the system refuses.
pub fn tend(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    probe(tcp, Duration::from_secs(60), Duration::from_secs(30))
}

/// The same for a link, after half a minute: there are others. Of a client it
/// must not be asked that it reads what it is sent. What has not gone out yet
/// waits here, where streams take turns, and not in the system's queue, where
/// all would wait behind the one that sends most.
///
/// # Errors
/// When the system refuses.
pub fn tend_link(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    probe(tcp, Duration::from_secs(10), Duration::from_secs(5))?;
    let socket = SockRef::from(tcp);
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_user_timeout(Some(SILENCE))
}

fn probe(tcp: &TcpStream, after: Duration, every: Duration) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(after)
        .with_interval(every)
        .with_retries(PROBES);
    SockRef::from(tcp).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_sender_goes_on_when_half_of_its_window_was_read() {
        let (near, far) = tokio::io::duplex(READ);
        let (opener, opening) = link(near, Mode::Client);
        let (acceptor, accepting) = link(far, Mode::Server);
        let (came, mut streams) = mpsc::unbounded_channel();
        tokio::spawn(opening.run(drop));
        tokio::spawn(accepting.run(move |stream| came.send(stream).unwrap()));
        let mut sender = opener.open().await.unwrap();
        let sending = tokio::spawn(async move {
            sender.write_all(&[7; WINDOW + 1]).await.unwrap();
            sender
        });
        let stream = streams.recv().await.unwrap();
        let reader = SharedStream::new(acceptor.accept(stream).unwrap());
        let mut read = 0;
        while read + FRAME <= WINDOW / 2 {
            read += reader.next().await.unwrap().unwrap().as_ref().len();
        }
        // To ask for more is what opens the window.
        reader.next().await.unwrap().unwrap();
        timeout(Duration::from_secs(30), sending)
            .await
            .unwrap()
            .unwrap();
    }

    /// A frame as yamux has it, of a kind and with a length that say what it is.
    fn header(kind: u8, flags: u16, stream: u32, length: usize) -> [u8; 12] {
        let mut header = [0; 12];
        header[1] = kind;
        header[2..4].copy_from_slice(&flags.to_be_bytes());
        header[4..8].copy_from_slice(&stream.to_be_bytes());
        header[8..].copy_from_slice(&u32::try_from(length).unwrap().to_be_bytes());
        header
    }

    #[tokio::test]
    async fn an_end_that_owes_an_answer_reads_while_it_cannot_write() {
        const DATA: u8 = 0;
        const PING: u8 = 2;
        const SYN: u16 = 1;
        let (near, far) = tokio::io::duplex(READ);
        let (opener, opening) = link(near, Mode::Client);
        tokio::spawn(opening.run(drop));
        let (mut reader, mut writer) = tokio::io::split(opener.open().await.unwrap());
        // More than the connection holds.
        tokio::spawn(async move { writer.write_all(&[7; WINDOW]).await.unwrap() });
        let (mut far_reader, mut far_writer) = tokio::io::split(far);
        far_reader.read_u8().await.unwrap();
        let sent = vec![9; 3 * READ];
        let answering = async {
            far_writer.write_all(&header(PING, SYN, 0, 1)).await?;
            far_writer
                .write_all(&header(DATA, 0, 1, sent.len()))
                .await?;
            far_writer.write_all(&sent).await
        };
        let answered = timeout(Duration::from_secs(30), answering).await;
        answered.expect("it does not read").unwrap();
        let (mut received, mut sink) = (vec![0; sent.len()], tokio::io::sink());
        tokio::select! {
            read = reader.read_exact(&mut received) => read.unwrap(),
            _ = tokio::io::copy(&mut far_reader, &mut sink) => panic!("it has ended"),
        };
        assert_eq!(received, sent);
    }
}
