//! A connection that is read while it cannot be written to.
//!
//! A multiplexer answers some of what it reads (a ping), and reads nothing more
//! until the answer is on its way. When both ends are full of what they send,
//! and both owe such an answer, neither would read again, and so neither could
//! ever write: the link would stand still until its silence ended it. What is
//! read ahead here is enough for the other end to send its answer, and is
//! bounded.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Most bytes that are read ahead: some times what the other end may have begun
/// to write, with all that the system asks for before it wakes a writer.
pub const AHEAD: usize = 1024 * 1024;
/// What is read at a time.
const READ: usize = 64 * 1024;

/// See above.
#[derive(Debug)]
pub struct ReadAhead<T> {
    connection: T,
    ahead: BytesMut,
    failed: Option<io::Error>,
}

impl<T: AsyncRead + Unpin> ReadAhead<T> {
    /// Of which nothing was read yet.
    pub fn new(connection: T) -> Self {
        Self {
            connection,
            ahead: BytesMut::new(),
            failed: None,
        }
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) {
        while self.failed.is_none() && self.ahead.len() < AHEAD {
            self.ahead.reserve(READ);
            match poll_read_buf(Pin::new(&mut self.connection), cx, &mut self.ahead) {
                Poll::Ready(Ok(1..)) => {}
                // The end is read again when it is asked for.
                Poll::Ready(Ok(0)) | Poll::Pending => return,
                Poll::Ready(Err(error)) => self.failed = Some(error),
            }
        }
    }

    fn reading_meanwhile<R>(&mut self, cx: &mut Context<'_>, written: Poll<R>) -> Poll<R> {
        if written.is_pending() {
            self.read_ahead(cx);
        }
        written
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAhead<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return match self.failed.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Pin::new(&mut self.connection).poll_read(cx, buffer),
            };
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(self.ahead.get(..length).unwrap_or_default());
        self.ahead.advance(length);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ReadAhead<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.connection).poll_write(cx, bytes);
        self.reading_meanwhile(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.connection).poll_flush(cx);
        self.reading_meanwhile(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn no_more_is_read_ahead_than_the_bound_and_all_of_it_in_order() {
        let (near, mut far) = duplex(READ);
        let mut near = ReadAhead::new(near);
        let sent: Vec<u8> = (0..4 * AHEAD).map(|at| (at % 251) as u8).collect();
        let sending = sent.clone();
        let sender = tokio::spawn(async move {
            far.write_all(&sending).await.unwrap();
            far
        });
        let full = vec![0; 2 * READ];
        let writing = near.write_all(&full);
        tokio::select! {
            biased;
            _ = writing => panic!("nobody reads"),
            () = async { for _ in 0..4 * AHEAD / READ { tokio::task::yield_now().await } } => {}
        }
        assert!((AHEAD..AHEAD + 2 * READ).contains(&near.ahead.len()));
        let mut read = vec![0; sent.len()];
        near.read_exact(&mut read).await.unwrap();
        assert_eq!(read, sent);
        drop(sender.await.unwrap());
        assert_eq!(near.read(&mut read).await.unwrap(), 0);
    }
}
