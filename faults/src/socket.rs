//! TCP sockets and sockets in the file system, as one.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Where something listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// TCP.
    Tcp(SocketAddr),
    /// A socket in the file system, which is the same in every network
    /// namespace.
    Unix(PathBuf),
}

impl std::str::FromStr for Place {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => Ok(Self::Tcp(text.parse()?)),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Accepts connections.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(crate) async fn bind(place: &Place) -> io::Result<Self> {
        Ok(match place {
            Place::Tcp(address) => Self::Tcp(TcpListener::bind(address).await?),
            Place::Unix(path) => Self::Unix(UnixListener::bind(path)?),
        })
    }

    /// Where it listens, with the port that the system chose.
    pub(crate) fn place(&self, asked: &Place) -> io::Result<Place> {
        Ok(match self {
            Self::Tcp(listener) => Place::Tcp(listener.local_addr()?),
            Self::Unix(_) => asked.clone(),
        })
    }

    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(listener) => Socket::tcp(listener.accept().await?.0),
            Self::Unix(listener) => Socket::Unix(listener.accept().await?.0),
        })
    }
}

/// A connection.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// What is read from.
pub(crate) type Reading<'a> = Box<dyn AsyncRead + Send + Unpin + 'a>;
/// What is written to.
pub(crate) type Writing<'a> = Box<dyn AsyncWrite + Send + Unpin + 'a>;

impl Socket {
    pub(crate) async fn connect(place: &Place) -> io::Result<Self> {
        Ok(match place {
            Place::Tcp(address) => Self::tcp(TcpStream::connect(address).await?),
            Place::Unix(path) => Self::Unix(UnixStream::connect(path).await?),
        })
    }

    fn tcp(stream: TcpStream) -> Self {
        // An error costs some milliseconds, no bytes.
        let _ = stream.set_nodelay(true);
        Self::Tcp(stream)
    }

    pub(crate) fn split(&mut self) -> (Reading<'_>, Writing<'_>) {
        match self {
            Self::Tcp(stream) => {
                let (read, write) = stream.split();
                (Box::new(read), Box::new(write))
            }
            Self::Unix(stream) => {
                let (read, write) = stream.split();
                (Box::new(read), Box::new(write))
            }
        }
    }

    /// Ends it as a broken link does: by RST, where there is such a thing.
    pub(crate) fn reset(self) {
        if let Self::Tcp(stream) = &self {
            // An error makes an ordinary end of it, which is unexpected, too.
            let _ = stream.set_zero_linger();
        }
    }
}
