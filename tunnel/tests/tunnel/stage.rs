//! Programs, servers and clients that the tests are played with.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use sotto_faults::ports;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::look;
use crate::program::Running;

/// How long anything may take that must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// The name that most tests use. It resolves everywhere.
pub const NAME: &str = "localhost";

/// A public end that runs.
pub struct PublicEnd {
    pub folder: TempDir,
    pub running: Option<Running>,
    pub at: SocketAddr,
    pub to: String,
    pub monitor: SocketAddr,
    flags: Vec<String>,
}

/// A dialer that runs.
pub struct Dialer {
    pub running: Running,
    pub monitor: SocketAddr,
}

/// A dialer's folder with its key.
pub struct Key {
    pub folder: TempDir,
    pub public: String,
}

/// A server's certificate, and what its clients trust.
pub struct Identity {
    pub certificate: rustls::pki_types::CertificateDer<'static>,
    pub certificate_pem: String,
    pub key: Vec<u8>,
    pub key_pem: String,
}

fn program() -> Command {
    sotto_service::tls::install_provider();
    Command::new(env!("CARGO_BIN_EXE_sotto-tunnel"))
}

impl Key {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = program();
        command.arg("key").arg("--dir").arg(folder.path());
        let public = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let public = public.trim().to_owned();
        assert!(public.starts_with('N'), "{public:?}");
        Self { folder, public }
    }

    /// An entry of names.toml.
    pub fn org(&self, org: &str, names: &[&str], more: &str) -> String {
        let key = &self.public;
        format!("[[org]]\nname = \"{org}\"\nkeys = [\"{key}\"]\nnames = {names:?}\n{more}\n")
    }
}

impl PublicEnd {
    pub fn start(names: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("names.toml"), names).unwrap();
        let monitor = ports::free().unwrap();
        let mut end = Self {
            folder,
            running: None,
            at: ports::free().unwrap(),
            to: String::new(),
            monitor,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
        };
        end.run();
        end
    }

    /// Starts it, again at the same place.
    pub fn run(&mut self) {
        let mut command = program();
        command.arg("serve").arg("--dir").arg(self.folder.path());
        command.args([
            "--listen",
            &self.at.to_string(),
            "--json",
            "--public-host",
            "127.0.0.1",
        ]);
        command.args(["--metrics", &self.monitor.to_string(), "--exit-with-parent"]);
        command.args(&self.flags);
        let mut running = Running::start(command);
        self.to = running.said_to();
        self.running = Some(running);
    }

    pub fn names(&self, names: &str) {
        // In one step, as an editor does.
        let new = self.folder.path().join("names.new");
        std::fs::write(&new, names).unwrap();
        std::fs::rename(new, self.folder.path().join("names.toml")).unwrap();
    }

    /// What the counter or gauge says; 0 when it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        metric(self.monitor, name).await
    }

    /// Waits until there are so many links.
    pub async fn linked(&self, links: usize) {
        until("links", || async {
            sum(self.monitor, "sotto_tunnel_links{").await >= links as f64
        })
        .await;
    }
}

impl Dialer {
    pub fn start(key: &Path, ends: &[&str], routes: &[String], flags: &[&str]) -> Self {
        Self::run(program(), key, ends, routes, flags)
    }

    /// One that begins with so few open files, and may have as many as this
    /// process.
    pub fn with_open_files(most: u32, key: &Path, ends: &[&str], routes: &[String]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -Sn {most} && exec \"$@\""), "sh"]);
        command.arg(program().get_program());
        Self::run(command, key, ends, routes, &[])
    }

    fn run(
        mut command: Command,
        key: &Path,
        ends: &[&str],
        routes: &[String],
        flags: &[&str],
    ) -> Self {
        let monitor = ports::free().unwrap();
        command
            .arg("dial")
            .arg("--dir")
            .arg(key)
            .arg("--exit-with-parent");
        command.args(["--monitor", &monitor.to_string()]);
        for end in ends {
            command.args(["--to", end]);
        }
        for route in routes {
            command.args(["--route", route]);
        }
        command.args(flags);
        let running = Running::start(command);
        Self { running, monitor }
    }
}

/// One public end and one dialer that leads [`NAME`] to a server.
pub async fn tunnel(server: SocketAddr) -> (PublicEnd, Dialer) {
    tunnel_with(server, "", &[], &[]).await
}

/// The same with limits of the org, and flags of both.
pub async fn tunnel_with(
    server: SocketAddr,
    org: &str,
    serve: &[&str],
    dial: &[&str],
) -> (PublicEnd, Dialer) {
    // The key stays as long as it is read: now.
    tunnel_of(&Key::new(), server, org, serve, dial).await
}

/// The same with a key that is used on.
pub async fn tunnel_of(
    key: &Key,
    server: SocketAddr,
    org: &str,
    serve: &[&str],
    dial: &[&str],
) -> (PublicEnd, Dialer) {
    let end = PublicEnd::start(&key.org("acme", &[NAME], org), serve);
    let route = format!("{NAME}={server}");
    let dialer = Dialer::start(key.folder.path(), &[&end.to], &[route], dial);
    end.linked(1).await;
    (end, dialer)
}

/// What `/readyz` is answered with.
pub async fn readyz(monitor: SocketAddr) -> u16 {
    look::get(monitor, "/readyz").await.unwrap().status
}

pub async fn metric(monitor: SocketAddr, name: &str) -> f64 {
    sum(monitor, name).await
}

/// The sum of every series whose line begins so.
pub async fn sum(monitor: SocketAddr, start: &str) -> f64 {
    let Some(page) = look::get(monitor, "/metrics").await else {
        return 0.0;
    };
    let lines = page.body.lines().filter(|line| line.starts_with(start));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(30)).await;
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("no {what}"));
}

impl Identity {
    pub fn new() -> Self {
        Self::of(&[NAME, "chat.example", "other.example"])
    }

    pub fn of(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let certified = rcgen::generate_simple_self_signed(names).unwrap();
        Self {
            certificate: certified.cert.der().clone(),
            certificate_pem: certified.cert.pem(),
            key: certified.signing_key.serialize_der(),
            key_pem: certified.signing_key.serialize_pem(),
        }
    }

    pub fn server(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> ServerConfig {
        let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![self.certificate.clone()], key)
        .unwrap();
        config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
        config
    }

    pub fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|alpn| alpn.to_vec()).collect();
        config
    }

    /// A usual client's TLS through the tunnel.
    pub async fn connect(&self, at: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        connect(at, NAME, self.client(&[&TLS13, &TLS12], &[])).await
    }

    /// Sends something, and gets it back.
    pub async fn echo(&self, at: SocketAddr) -> io::Result<()> {
        let mut tls = timeout(PATIENCE, self.connect(at)).await??;
        ping(&mut tls).await
    }
}

pub async fn ping(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(b"hello").await?;
    stream.flush().await?;
    let mut back = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut back)).await??;
    assert_eq!(&back, b"hello");
    Ok(())
}

pub async fn connect(
    at: SocketAddr,
    name: &str,
    config: ClientConfig,
) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(at).await?;
    tcp.set_nodelay(true)?;
    secure(tcp, name, config).await
}

pub async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    name: &str,
    config: ClientConfig,
) -> io::Result<TlsStream<S>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// A TLS server that sends back what it gets, and then ends as it was ended.
pub async fn echo_server(config: ServerConfig) -> SocketAddr {
    tls_server(config, |mut tls| async move {
        let (mut reader, mut writer) = tokio::io::split(&mut tls);
        tokio::io::copy(&mut reader, &mut writer).await.ok();
        tls.shutdown().await.ok();
    })
    .await
}

pub type Accepted = tokio_rustls::server::TlsStream<TcpStream>;

/// A TLS server.
pub async fn tls_server<F>(
    config: ServerConfig,
    serve: impl Fn(Accepted) -> F + Clone + Send + 'static,
) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tcp_server(move |tcp| {
        let (acceptor, serve) = (acceptor.clone(), serve.clone());
        async move {
            if let Ok(tls) = acceptor.accept(tcp).await {
                serve(tls).await;
            }
        }
    })
    .await
}

/// A TCP server.
pub async fn tcp_server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tcp.set_nodelay(true).unwrap();
            tokio::spawn(serve(tcp));
        }
    });
    at
}

/// The alert that a client got, by its number.
pub async fn alert_for(at: SocketAddr, bytes: &[u8]) -> Option<u8> {
    let mut tcp = TcpStream::connect(at).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, tcp.read_to_end(&mut answer))
        .await
        .unwrap()
        .ok()?;
    match answer.as_slice() {
        [21, 3, 3, 0, 2, 2, alert] => Some(*alert),
        other => panic!("{other:?} is no alert"),
    }
}

/// The alert that ended a handshake, as rustls says it.
pub fn alert_of(error: &io::Error) -> rustls::AlertDescription {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        other => panic!("{other:?} is no alert: {error}"),
    }
}

/// A file of a folder that stays until the test ends.
pub fn file(folder: &TempDir, name: &str, content: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}
