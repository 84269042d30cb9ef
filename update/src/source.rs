//! Where releases come from: a folder, or a server over HTTPS, which is not
//! trusted with anything but to answer. Bounds how slowly it may do so; how
//! much is bounded by whoever asks.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use reqwest::StatusCode;
use reqwest::redirect::Policy;
use sotto_service::cause::innermost;
use sotto_service::private_files;
use tough::{
    FilesystemTransport, Transport, TransportError, TransportErrorKind, TransportStream,
    async_trait,
};
use url::Url;

/// Longest file with certificates, in bytes.
pub const CERTIFICATES_MAX: u64 = 256 * 1024;

/// How slow a source may be before it counts as one that wants to keep this
/// machine from updating.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How long to wait for a connection, for an answer, and for each piece.
    pub idle: Duration,
    /// Bytes per second that must come on average, once `grace` is over.
    pub floor: u64,
    /// How long a file may come as slowly as it likes.
    pub grace: Duration,
}

impl Default for Pace {
    /// 4 KiB/s: a program of 30 MB in two hours.
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(30),
            floor: 4 * 1024,
            grace: Duration::from_secs(60),
        }
    }
}

/// What went wrong on the way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// The address cannot be used.
    #[error("`{0}` is not the address of releases: use https://… or a folder")]
    Address(String),
    /// The certificates do not read.
    #[error("{0} holds no certificates in PEM")]
    Certificates(String),
    /// The file of certificates does not open.
    #[error("{0}")]
    File(String),
    /// No answer, or one that breaks off.
    #[error("{0} cannot be read: {1}")]
    Unreachable(String, String),
    /// An answer that is an error.
    #[error("{0} answers {1}")]
    Status(String, u16),
    /// Below the pace.
    #[error("{url} comes too slowly")]
    TooSlow {
        /// Of the file.
        url: String,
    },
}

/// A folder or a server with releases: `metadata/` and `targets/` below it.
#[derive(Debug, Clone)]
pub struct Source {
    base: Url,
    http: Option<reqwest::Client>,
    pace: Pace,
}

impl Source {
    /// `address` is an `https://` URL, or the path of a folder; `http://` only
    /// of this machine. Certificates are checked against `ca_file`, or else
    /// against the authorities that the system trusts.
    ///
    /// # Errors
    /// When the address or the certificates cannot be used.
    pub fn new(address: &str, ca_file: Option<&Path>, pace: Pace) -> Result<Self, SourceError> {
        let refused = || SourceError::Address(address.escape_default().to_string());
        let mut base = match Url::parse(address) {
            Ok(url) if is_allowed(&url) => url,
            Ok(_) => return Err(refused()),
            Err(_) => folder(address).ok_or_else(refused)?,
        };
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let http = match base.scheme() {
            "file" => None,
            _ => Some(client(ca_file, pace)?),
        };
        Ok(Self { base, http, pace })
    }

    /// Where the signed descriptions are.
    pub(crate) fn metadata(&self) -> Url {
        self.below("metadata/")
    }

    /// Where the files are.
    pub(crate) fn targets(&self) -> Url {
        self.below("targets/")
    }

    fn below(&self, folder: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{folder}", self.base.path()));
        url
    }
}

#[async_trait]
impl Transport for Source {
    /// Errors are in the stream: the library takes one outside of it for a
    /// file that does not exist, and would stop looking for newer roots.
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let Some(http) = &self.http else {
            return FilesystemTransport.fetch(url).await;
        };
        let answer = tokio::time::timeout(self.pace.idle, http.get(url.clone()).send()).await;
        let problem = match answer {
            Err(_) => slow(&url),
            Ok(Err(error)) => unreachable(&url, &error),
            Ok(Ok(answer)) if answer.status() == StatusCode::OK => {
                return Ok(paced(answer, url, self.pace));
            }
            Ok(Ok(answer)) => {
                let status = answer.status();
                if status == StatusCode::NOT_FOUND || status == StatusCode::GONE {
                    let kind = TransportErrorKind::FileNotFound;
                    let problem = SourceError::Status(url.to_string(), status.as_u16());
                    return Err(TransportError::new_with_cause(kind, url, problem));
                }
                SourceError::Status(url.to_string(), status.as_u16())
            }
        };
        let failed = TransportError::new_with_cause(TransportErrorKind::Other, url, problem);
        Ok(Box::pin(stream::iter([Err::<Bytes, _>(failed)])))
    }
}

/// The answer's body, until it is below the pace.
fn paced(answer: reqwest::Response, url: Url, pace: Pace) -> TransportStream {
    let started = Instant::now();
    let body = Box::pin(answer.bytes_stream());
    let state = (body, 0_u64, false);
    let pieces = stream::unfold(state, move |(mut body, mut received, ended)| {
        let url = url.clone();
        async move {
            if ended {
                return None;
            }
            let piece = tokio::time::timeout(pace.idle, body.next()).await;
            let problem = match piece {
                Ok(None) => return None,
                Ok(Some(Ok(piece))) => {
                    received = received.saturating_add(piece.len() as u64);
                    let counted = started.elapsed().saturating_sub(pace.grace);
                    if received >= counted.as_secs().saturating_mul(pace.floor) {
                        return Some((Ok::<Bytes, _>(piece), (body, received, false)));
                    }
                    slow(&url)
                }
                Ok(Some(Err(error))) => unreachable(&url, &error),
                Err(_) => slow(&url),
            };
            let kind = TransportErrorKind::Other;
            let failed = TransportError::new_with_cause(kind, url, problem);
            Some((Err(failed), (body, received, true)))
        }
    });
    Box::pin(sync(pieces))
}

/// The library wants streams that are `Sync`; a stream is only ever polled
/// through `&mut`, so a lock that is never contended makes it one.
fn sync<S>(stream: S) -> impl futures::Stream<Item = S::Item> + Send + Sync
where
    S: futures::Stream + Send + 'static,
{
    let stream = std::sync::Mutex::new(Box::pin(stream));
    stream::poll_fn(move |context| match stream.lock() {
        Ok(mut stream) => stream.poll_next_unpin(context),
        Err(_) => std::task::Poll::Ready(None),
    })
}

fn slow(url: &Url) -> SourceError {
    SourceError::TooSlow {
        url: url.to_string(),
    }
}

fn unreachable(url: &Url, error: &reqwest::Error) -> SourceError {
    SourceError::Unreachable(url.to_string(), innermost(error))
}

fn is_allowed(url: &Url) -> bool {
    let loopback = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    };
    let scheme = url.scheme();
    scheme == "https" || scheme == "file" || (scheme == "http" && loopback)
}

fn folder(address: &str) -> Option<Url> {
    let path: PathBuf = std::fs::canonicalize(address).ok()?;
    path.is_dir().then(|| Url::from_directory_path(path).ok())?
}

fn client(ca_file: Option<&Path>, pace: Pace) -> Result<reqwest::Client, SourceError> {
    let mut http = reqwest::Client::builder()
        .redirect(Policy::none())
        .connect_timeout(pace.idle);
    if let Some(file) = ca_file {
        let pem = private_files::read_text(file, CERTIFICATES_MAX)
            .map_err(|error| SourceError::File(error.to_string()))?;
        let authorities = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
            .map_err(|_| SourceError::Certificates(file.display().to_string()))?;
        http = http.tls_certs_only(authorities);
    }
    let failed = |error: reqwest::Error| SourceError::Unreachable("TLS".into(), error.to_string());
    http.build().map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_read_by_everybody_is_refused() {
        sotto_service::tls::install_provider();
        let make = |address: &str| Source::new(address, None, Pace::default());
        for wrong in [
            "http://mirror.example/",
            "ftp://mirror.example",
            "/nowhere",
            "",
        ] {
            assert!(
                matches!(make(wrong), Err(SourceError::Address(_))),
                "{wrong}"
            );
        }
        for right in ["https://mirror.example/sotto", "http://127.0.0.1:80/"] {
            let source = make(right).unwrap();
            assert!(source.metadata().path().ends_with("/metadata/"));
        }
    }
}
