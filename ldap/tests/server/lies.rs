//! Servers that hang, that are none, and that lie. All of them end in an error,
//! soon, and none in a panic.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use sotto_ldap::Mapping;
use sotto_ldap::import::{Entries, FetchError, fetch};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::slapd::{SUFFIX, Tls};

const BIND_RESPONSE: u8 = 0x61;
const ENTRY: u8 = 0x64;
const DONE: u8 = 0x65;

/// A listener that does `serve` with every connection, and a mapping for it.
struct Server {
    mapping: Mapping,
    _folder: tempfile::TempDir,
}

impl Server {
    async fn raw<F>(scheme: &str, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::start(scheme, &Tls::of("localhost"), serve).await
    }

    /// One that sends these bytes once it was asked, each time.
    async fn tls(answers: Vec<Vec<u8>>) -> Self {
        let tls = Tls::of("localhost");
        let key = PrivatePkcs8KeyDer::from(tls.key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![tls.certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::start("ldaps", &tls, move |stream| {
            let (acceptor, answers) = (acceptor.clone(), answers.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    answer(stream, answers).await;
                }
            }
        })
        .await
    }

    async fn start<F>(
        scheme: &str,
        tls: &Tls,
        serve: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("localhost:0").await.unwrap();
        let url = format!(
            "{scheme}://localhost:{}",
            listener.local_addr().unwrap().port()
        );
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, &tls.ca_pem).unwrap();
        let text = crate::slapd::mapping_text(&url, &ca_file, "patience_seconds = 2", "");
        Self {
            mapping: Mapping::parse(&text).unwrap(),
            _folder: folder,
        }
    }

    async fn fetch(&self) -> Result<Entries, FetchError> {
        let started = Instant::now();
        let outcome = fetch(&self.mapping, "").await;
        assert!(started.elapsed() < Duration::from_secs(4));
        outcome
    }

    async fn refusal(&self) -> FetchError {
        self.fetch().await.unwrap_err()
    }
}

/// One answer per question; the last for ever.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: Vec<Vec<u8>>) {
    let mut question = [0; 4_096];
    let mut answers = answers.iter().peekable();
    while let Some(mut answer) = answers.next().cloned() {
        let Ok(1..) = stream.read(&mut question).await else {
            return;
        };
        if answers.peek().is_none() {
            // Of every later message the id is one byte, at the same place.
            let mut id = 2;
            while stream.write_all(&answer).await.is_ok() && id < 120 {
                let Ok(1..) = stream.read(&mut question).await else {
                    return;
                };
                id += 1;
                for at in 0..answer.len().saturating_sub(3) {
                    if answer[at..].starts_with(&[0x02, 1, id - 1]) {
                        answer[at + 2] = id;
                    }
                }
            }
            return;
        }
        let _ = stream.write_all(&answer).await;
    }
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x84], length.as_slice(), content].concat()
}

fn message(id: u8, operation: &[u8], controls: &[u8]) -> Vec<u8> {
    element(0x30, &[&[0x02, 1, id], operation, controls].concat())
}

fn result(tag: u8, code: u8) -> Vec<u8> {
    element(tag, &[0x0a, 1, code, 0x04, 0, 0x04, 0])
}

fn bound() -> Vec<u8> {
    message(1, &result(BIND_RESPONSE, 0), &[])
}

fn entry(dn: &str) -> Vec<u8> {
    let entry = [element(0x04, dn.as_bytes()), element(0x30, &[])].concat();
    message(2, &element(ENTRY, &entry), &[])
}

fn done(cookie: &[u8]) -> Vec<u8> {
    let paged = element(
        0x30,
        &[&[0x02, 1, 0], element(0x04, cookie).as_slice()].concat(),
    );
    let oid = element(0x04, b"1.2.840.113556.1.4.319");
    let control = element(0x30, &[oid, element(0x04, &paged)].concat());
    message(2, &result(DONE, 0), &element(0xa0, &control))
}

fn person(name: &str) -> Vec<u8> {
    entry(&format!("uid={name},ou=people,{SUFFIX}"))
}

#[tokio::test]
async fn a_server_that_accepts_and_hangs_is_given_up() {
    for scheme in ["ldap", "ldaps"] {
        let server = Server::raw(scheme, |stream| async {
            let _open = stream;
            std::future::pending::<()>().await;
        })
        .await;
        let error = server.refusal().await;
        assert!(matches!(error, FetchError::Slow(_)), "{error}");
    }
    let server = Server::tls(vec![bound(), Vec::new()]).await;
    let error = server.refusal().await;
    assert!(matches!(error, FetchError::Slow(_)), "{error}");
}

#[tokio::test]
async fn a_server_that_drips_is_given_up() {
    let server = Server::raw("ldap", |mut stream| async move {
        for byte in [0x30, 0x84, 0, 0xff]
            .into_iter()
            .chain(std::iter::repeat(0))
        {
            if stream.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let error = server.refusal().await;
    assert!(matches!(error, FetchError::Slow(_)), "{error}");
}

#[tokio::test]
async fn garbage_is_told_apart_from_ldap() {
    for garbage in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "SSH-2.0-x\r\n",
        "\0\0\0\0\0\0\0\0",
    ] {
        let serve = move |mut stream: TcpStream| async move {
            let _ = stream.write_all(garbage.as_bytes()).await;
            let _ = stream.read(&mut [0; 1_024]).await;
        };
        let error = Server::raw("ldap", serve).await.refusal().await;
        assert!(matches!(error, FetchError::BadAnswer(_)), "{error}");
        let error = Server::raw("ldaps", serve).await.refusal().await;
        assert!(matches!(error, FetchError::Tls(_)), "{error}");
    }
}

#[tokio::test]
async fn garbage_inside_tls_never_reaches_ldap3() {
    let huge = vec![0x30, 0x84, 0x7f, 0xff, 0xff, 0xff];
    let wrong_kind = message(1, &result(DONE, 0), &[]);
    let no_value = element(
        0xa0,
        &element(0x30, &element(0x04, b"1.2.840.113556.1.4.319")),
    );
    for answers in [
        vec![b"garbage".to_vec()],
        vec![huge.clone()],
        vec![wrong_kind],
        vec![bound(), huge],
        vec![bound(), message(2, &result(BIND_RESPONSE, 0), &[])],
        vec![bound(), message(2, &element(0x79, &[]), &[])],
        vec![bound(), message(2, &element(ENTRY, &[0x04, 1, 0xff]), &[])],
        vec![bound(), message(2, &result(DONE, 0), &no_value)],
        vec![bound(), message(0, &result(0x78, 52), &[])],
    ] {
        let error = Server::tls(answers).await.refusal().await;
        assert!(matches!(error, FetchError::BadAnswer(_)), "{error}");
    }
}

#[tokio::test]
async fn a_server_without_start_tls_is_left() {
    let refusal = message(1, &result(0x78, 2), &[]);
    let server = Server::raw("ldap", move |mut stream| {
        let refusal = refusal.clone();
        async move {
            let _ = stream.read(&mut [0; 1_024]).await;
            let _ = stream.write_all(&refusal).await;
        }
    })
    .await;
    let error = server.refusal().await;
    assert!(matches!(error, FetchError::NoStartTls), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_named() {
    let first_half = person("a")[..20].to_vec();
    let server = Server::raw("ldap", move |mut stream| {
        let first_half = first_half.clone();
        async move {
            let _ = stream.write_all(&first_half).await;
        }
    })
    .await;
    let error = server.refusal().await;
    assert!(
        matches!(error, FetchError::Closed | FetchError::Unreachable(_)),
        "{error}"
    );
}

#[tokio::test]
async fn pages_without_the_control_are_no_list() {
    let whole = [person("a"), message(2, &result(DONE, 0), &[])].concat();
    let error = Server::tls(vec![bound(), whole]).await.refusal().await;
    assert!(matches!(error, FetchError::NotPaged), "{error}");
}

#[tokio::test]
async fn entries_that_were_not_asked_for_are_not_believed() {
    for dn in ["uid=a,ou=admins,dc=example,dc=org", "no name", ""] {
        let answer = [entry(dn), done(b"")].concat();
        let error = Server::tls(vec![bound(), answer]).await.refusal().await;
        assert!(matches!(error, FetchError::Unasked(_)), "{error}");
    }
    let twice = [person("a"), person("A"), done(b"")].concat();
    let error = Server::tls(vec![bound(), twice]).await.refusal().await;
    assert!(matches!(error, FetchError::Twice(_)), "{error}");
}

#[tokio::test]
async fn pages_without_end_end() {
    let same_page = [person("a"), done(b"again")].concat();
    let error = Server::tls(vec![bound(), same_page]).await.refusal().await;
    assert!(matches!(error, FetchError::Twice(_)), "{error}");
    let empty_page = done(b"again");
    let error = Server::tls(vec![bound(), empty_page]).await.refusal().await;
    assert!(
        matches!(
            error,
            FetchError::Slow(_) | FetchError::Closed | FetchError::Unreachable(_)
        ),
        "{error}"
    );
}
