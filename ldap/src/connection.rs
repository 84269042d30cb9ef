//! One connection to an LDAP server: TLS, or nothing; every answer held against
//! [`messages`](crate::messages) before ldap3 sees it; everything bounded in
//! time and size. ldap3 itself sits behind a pair of local sockets.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, StdStream};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::import::FetchError;
use crate::mapping::Server;
use crate::messages::{self, BadMessage};

/// How long each step of connecting, and each silence, may take.
const STEP: Duration = Duration::from_secs(30);
/// Most that is read of one server, in bytes.
const TOTAL_MAX: usize = 512 * 1024 * 1024;
/// Longest file of authorities, in bytes; a system's own has 250 KB.
const CA_FILE_MAX: u64 = 4 * 1024 * 1024;
const CHUNK: usize = 16 * 1024;

/// Connects, and demands a certificate by one of the mapping's authorities for
/// the host that the mapping names.
pub(crate) async fn open(server: &Server) -> Result<TlsStream<TcpStream>, FetchError> {
    let config = tls_config(&server.ca_file)?;
    let host = server.url.host.to_str().into_owned();
    let unreachable = |error: std::io::Error| FetchError::Unreachable(error.to_string());
    let connecting = TcpStream::connect((host, server.url.port));
    let mut stream = within_step(connecting).await?.map_err(unreachable)?;
    if server.url.start_tls {
        within_step(start_tls(&mut stream)).await??;
    }
    let connector = TlsConnector::from(Arc::new(config));
    within_step(connector.connect(server.url.host.clone(), stream))
        .await?
        .map_err(|error| FetchError::Tls(error.to_string()))
}

/// Does `work` with an ldap3 that sees nothing but well-formed answers.
pub(crate) async fn with_ldap<T>(
    stream: impl AsyncRead + AsyncWrite,
    work: impl AsyncFnOnce(Ldap) -> Result<T, FetchError>,
) -> Result<T, FetchError> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(FetchError::Local)?;
    ours.set_nonblocking(true).map_err(FetchError::Local)?;
    let ours = UnixStream::from_std(ours).map_err(FetchError::Local)?;
    let settings = LdapConnSettings::new().set_std_stream(StdStream::Unix(theirs));
    let (connection, ldap) = LdapConnAsync::with_settings(settings, "ldapi://local").await?;

    let (from_server, mut to_server) = tokio::io::split(stream);
    let (mut from_ldap3, to_ldap3) = ours.into_split();
    tokio::select! {
        biased;
        error = hand_on_answers(from_server, to_ldap3) => Err(error),
        result = tokio::io::copy(&mut from_ldap3, &mut to_server) => Err(match result {
            Ok(_) => FetchError::Closed,
            Err(error) => FetchError::Unreachable(error.to_string()),
        }),
        result = connection.drive() => Err(match result {
            Ok(()) => FetchError::Closed,
            Err(error) => error.into(),
        }),
        done = work(ldap) => done,
    }
}

/// Hands on each answer that is one; returns why it cannot go on.
async fn hand_on_answers(
    mut server: impl AsyncRead + Unpin,
    mut ldap3: impl AsyncWrite + Unpin,
) -> FetchError {
    let mut total = 0_usize;
    let mut pending = Vec::new();
    loop {
        let message = match read_message(&mut server, &mut pending).await {
            Ok(message) => message,
            Err(error) => return error,
        };
        total = total.saturating_add(message.len());
        if total > TOTAL_MAX {
            return FetchError::TooMuch;
        }
        if let Err(bad) = messages::check_answer(&message) {
            return bad.into();
        }
        if let Err(error) = ldap3.write_all(&message).await {
            return FetchError::Local(error);
        }
    }
}

/// Takes the next message out of what was read and is still to be read.
async fn read_message(
    server: &mut (impl AsyncRead + Unpin),
    pending: &mut Vec<u8>,
) -> Result<Vec<u8>, FetchError> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let complete = messages::length(pending)?.filter(|&length| length <= pending.len());
        if let Some(length) = complete {
            let rest = pending.split_off(length);
            return Ok(std::mem::replace(pending, rest));
        }
        let read = within_step(server.read(&mut chunk)).await?;
        let read = read.map_err(|error| FetchError::Unreachable(error.to_string()))?;
        match chunk.get(..read) {
            Some(read) if !read.is_empty() => pending.extend_from_slice(read),
            _ => return Err(FetchError::Closed),
        }
    }
}

/// Agrees with the server to go on in TLS (RFC 4511, 4.14).
async fn start_tls(stream: &mut TcpStream) -> Result<(), FetchError> {
    let unreachable = |error: std::io::Error| FetchError::Unreachable(error.to_string());
    stream
        .write_all(messages::START_TLS)
        .await
        .map_err(unreachable)?;
    let mut pending = Vec::new();
    let answer = read_message(stream, &mut pending).await?;
    if !messages::check_start_tls(&answer)? {
        return Err(FetchError::NoStartTls);
    }
    // What came in the clear behind the agreement was nobody's to send.
    if !pending.is_empty() {
        return Err(BadMessage::Malformed.into());
    }
    Ok(())
}

async fn within_step<T>(work: impl Future<Output = T>) -> Result<T, FetchError> {
    timeout(STEP, work)
        .await
        .map_err(|_| FetchError::Silent(STEP))
}

/// TLS 1.3, or 1.2 for servers of a certain age, under these authorities only.
fn tls_config(ca_file: &Path) -> Result<ClientConfig, FetchError> {
    let bad = |why: String| FetchError::Authorities {
        path: ca_file.display().to_string(),
        why,
    };
    let file = File::open(ca_file).map_err(|error| bad(error.to_string()))?;
    let mut pem = Vec::new();
    let read = file.take(CA_FILE_MAX).read_to_end(&mut pem);
    read.map_err(|error| bad(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| bad(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| bad(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("it holds no certificate".to_owned()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| FetchError::Tls(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn provider() -> CryptoProvider {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    CryptoProvider {
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        ..aws_lc_rs::default_provider()
    }
}

#[cfg(test)]
mod tests {
    use ldap3::controls::{Control, ControlType, PagedResults};
    use ldap3::{Scope, SearchEntry};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A bind that succeeds; an entry with an attribute of two values, one of
    /// them no text; the end of the search with a control.
    const ANSWERS: &[u8] = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00\
        \x30\x1b\x02\x01\x02\x64\x16\x04\x04cn=a\x30\x0e\x30\x0c\x04\x02cn\x31\x06\x04\x01a\x04\x01\xff\
        \x30\x37\x02\x01\x02\x65\x0d\x0a\x01\x00\x04\x03x=y\x04\x03bye\
        \xa0\x23\x30\x21\x04\x161.2.840.113556.1.4.319\x04\x07\x30\x05\x02\x01\x00\x04\x00";

    const BIND_LENGTH: usize = 14;

    /// Binds and searches against a server that sends just these bytes; how
    /// many entries and empty cookies came. `None`: it still waits for more.
    fn taken_apart(answers: &[u8], patience: Duration) -> Option<Result<[usize; 2], FetchError>> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        let work = async {
            let (ours, mut server) = tokio::io::duplex(64 * 1024);
            let serve = async {
                let (bind, rest) = answers.split_at(BIND_LENGTH);
                for answer in [bind, rest] {
                    assert_ne!(server.read(&mut [0; 1_024]).await.unwrap(), 0);
                    server.write_all(answer).await.unwrap();
                }
                std::future::pending().await
            };
            let work = with_ldap(ours, async |mut ldap| {
                ldap.simple_bind("", "").await?;
                let found = ldap
                    .search("cn=a", Scope::Base, "(a=*)", vec!["cn"])
                    .await?;
                let entries = found.0.into_iter().map(SearchEntry::construct);
                let cookies = found.1.ctrls.iter().filter(|control| match control {
                    Control(Some(ControlType::PagedResults), raw) => {
                        raw.parse::<PagedResults>().cookie.is_empty()
                    }
                    _ => false,
                });
                Ok([entries.count(), cookies.count()])
            });
            tokio::select! {
                outcome = work => outcome,
                () = serve => Err(FetchError::Closed),
            }
        };
        runtime.block_on(async { timeout(patience, work).await.ok() })
    }

    #[test]
    fn answers_that_pass_the_check_arrive() {
        assert!(matches!(taken_apart(ANSWERS, STEP), Some(Ok([1, 1]))));
    }

    proptest! {
        /// Were a message let through that ldap3 cannot take apart, it would
        /// panic here.
        #[test]
        fn whatever_passes_the_check_can_be_taken_apart(
            flips in vec((0..ANSWERS.len(), any::<u8>()), 0..4),
        ) {
            let mut answers = ANSWERS.to_vec();
            for (at, byte) in flips {
                answers[at] = byte;
            }
            let _ = taken_apart(&answers, Duration::from_millis(30));
        }
    }
}
