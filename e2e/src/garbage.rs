//! A server with the right certificate that answers nonsense: broken, taken
//! over, or just something else on the same port.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::Context;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sotto_proto::api::CONTENT_TYPE;
use sotto_service::{Layout, tls};

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nonsense {
    /// Something that is no HTTP.
    Noise,
    /// A web page.
    WebPage,
    /// The right type, and bytes that are no protobuf.
    BrokenProtobuf,
    /// A refusal whose reason does not read.
    BrokenRefusal,
    /// The right type, without an end.
    Endless,
    /// Nothing: it hangs up.
    Silence,
}

impl Nonsense {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Noise,
        Self::WebPage,
        Self::BrokenProtobuf,
        Self::BrokenRefusal,
        Self::Endless,
        Self::Silence,
    ];
}

/// Answers every connection with nonsense until it is dropped.
#[derive(Debug)]
pub struct Garbage {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    serving: Option<JoinHandle<()>>,
}

impl Garbage {
    /// Serves at `address` with the certificate of `server`.
    ///
    /// # Errors
    /// When the address is taken or the certificate does not read.
    pub fn serve(server: &Layout, address: SocketAddr, nonsense: Nonsense) -> anyhow::Result<Self> {
        let mut config = tls::server_config(server)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let listener =
            TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
        let address = listener.local_addr()?;
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = stopped.clone();
        let serving = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let config = config.clone();
                // Ignored: clients hang up on nonsense.
                thread::spawn(move || answer(stream, config, nonsense).ok());
            }
        });
        Ok(Self {
            address,
            stopped,
            serving: Some(serving),
        })
    }

    /// Where it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Garbage {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // A last connection, so that it looks. Ignored: it may have ended.
        TcpStream::connect(self.address).ok();
        self.serving.take().map(JoinHandle::join);
    }
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>, nonsense: Nonsense) -> io::Result<()> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut request = [0; 4_096];
    let _ = stream.read(&mut request)?;
    let head = |status: &str, kind: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n")
    };
    let noise = [0xff; 64];
    match nonsense {
        Nonsense::Noise => stream.write_all(&noise)?,
        Nonsense::WebPage => {
            stream.write_all(head("200 OK", "text/html", 14).as_bytes())?;
            stream.write_all(b"<h1>hello</h1>")?;
        }
        Nonsense::BrokenProtobuf => {
            stream.write_all(head("200 OK", CONTENT_TYPE, noise.len()).as_bytes())?;
            stream.write_all(&noise)?;
        }
        Nonsense::BrokenRefusal => {
            stream.write_all(head("500 Oops", CONTENT_TYPE, noise.len()).as_bytes())?;
            stream.write_all(&noise)?;
        }
        Nonsense::Endless => {
            stream.write_all(head("200 OK", CONTENT_TYPE, usize::MAX).as_bytes())?;
            loop {
                stream.write_all(&[0; 65_536])?;
            }
        }
        Nonsense::Silence => {}
    }
    stream.conn.send_close_notify();
    stream.flush()
}
