//! Ends of connections that the other side is to understand.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::refusal::Refusal;

/// How long, and for how many bytes, the other side is read on so that it reads
/// what was said to it last: the system would drop that otherwise.
const PATIENCE: Duration = Duration::from_secs(1);
const BYTES: usize = 64 * 1024;

/// Says why, by a TLS alert, and closes.
pub async fn refuse(mut tcp: TcpStream, refusal: Refusal) {
    // Ignored: whoever is refused may have gone.
    let told = async {
        tcp.write_all(&refusal.record()).await?;
        tcp.shutdown().await
    };
    if tokio::time::timeout(PATIENCE, told)
        .await
        .is_ok_and(|told| told.is_ok())
    {
        linger(&mut tcp).await;
    }
}

/// Reads on for a moment.
pub async fn linger(tcp: &mut TcpStream) {
    let reading = async {
        let mut ignored = [0; 4_096];
        let mut total = 0;
        while let Ok(length @ 1..) = tcp.read(&mut ignored).await {
            total += length;
            if total > BYTES {
                break;
            }
        }
    };
    // Ignored: it has read enough, or never will.
    drop(tokio::time::timeout(PATIENCE, reading).await);
}
