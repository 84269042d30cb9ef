//! Protobuf messages with their length before them, as `tunnel.proto` says.

use std::io;

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest message, in bytes.
const FRAME_MAX: u16 = 32 * 1024;

/// Sends one message.
///
/// # Errors
/// When the connection does, or the message is too long.
pub async fn send(to: &mut (impl AsyncWrite + Unpin), message: &impl Message) -> io::Result<()> {
    let encoded = message.encode_to_vec();
    let length = u16::try_from(encoded.len())
        .ok()
        .filter(|length| *length <= FRAME_MAX);
    let length = length.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(encoded);
    to.write_all(&frame).await?;
    to.flush().await
}

/// Waits for one message.
///
/// # Errors
/// When the connection ends, or what comes is none.
pub async fn receive<M: Message + Default>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<M> {
    let length = from.read_u16().await?;
    if length > FRAME_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut encoded = vec![0; usize::from(length)];
    from.read_exact(&mut encoded).await?;
    M::decode(encoded.as_slice()).map_err(io::Error::other)
}
