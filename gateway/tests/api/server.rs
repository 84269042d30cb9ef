//! A server directory, a nats-server on it, and gateways over TLS.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream;
use prost::Message;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Body, StatusCode};
use sotto_faults::ports;
use sotto_gateway::clock::Clock;
use sotto_gateway::gateway::Gateway;
use sotto_gateway::org::Org;
use sotto_gateway::provision::{self, InitArgs};
use sotto_gateway::run::{self, Opened};
use sotto_gateway::server::{self, Watched};
use sotto_jwt_accounts::directory::DirectoryWriter;
use sotto_jwt_accounts::grants::GATEWAY_INBOX;
use sotto_jwt_accounts::keystore::KeyStore;
use sotto_proto::api::{self, Call};
use sotto_proto::{InviteLink, InviteToken, OrgName, wire};
use sotto_service::consul::Consul;
use sotto_service::handover::{Handover, HandoverArgs, Inherited};
use sotto_service::watch::Watch;
use sotto_service::{Layout, ServerConfig, nats, private_files, tls};
use tokio_util::sync::CancellationToken;

/// How long anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A clock that the test turns.
pub struct TestClock(AtomicI64);

impl TestClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A new server directory with the orgs `acme` (project `field`) and `other`
/// (project `lab`), and nats-server on it.
pub struct Directory {
    _folder: tempfile::TempDir,
    pub layout: Layout,
    pub config: ServerConfig,
    nats: Mutex<Child>,
}

impl Directory {
    pub async fn start() -> Self {
        tls::install_provider();
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("server");
        let nats_listen = ports::free().unwrap();
        provision::init(&init_args(&dir, nats_listen)).unwrap();
        let layout = Layout::new(&dir);
        let config = ServerConfig::load(&layout).unwrap();
        write_nats_config(&layout, &config);
        let nats = Mutex::new(spawn_nats_server(&layout));
        Self {
            _folder: folder,
            layout,
            config,
            nats,
        }
    }

    /// An org's directory as a gateway that does nothing else writes it.
    pub async fn writer(&self, org: &str) -> DirectoryWriter {
        let org: OrgName = org.parse().unwrap();
        let login = nats::Login {
            name: "writer",
            credentials: &self.layout.gateway_creds(&org),
            inbox_prefix: GATEWAY_INBOX,
        };
        let client = nats::connect(&self.layout, &self.config, login)
            .await
            .unwrap();
        let key = provision::read_gateway_key(&self.layout).unwrap();
        let jetstream = jetstream::new(client);
        DirectoryWriter::open(&jetstream, 1, org, key, None)
            .await
            .unwrap()
    }

    /// Kills nats-server with SIGKILL and starts it again.
    pub fn crash_nats_server(&self) {
        self.kill_nats_server();
        self.start_nats_server();
    }

    /// Kills nats-server with SIGKILL.
    pub fn kill_nats_server(&self) {
        let mut nats = self.nats.lock().unwrap();
        nats.kill().unwrap();
        nats.wait().unwrap();
    }

    /// Starts it again.
    pub fn start_nats_server(&self) {
        *self.nats.lock().unwrap() = spawn_nats_server(&self.layout);
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let nats = self.nats.get_mut().unwrap();
        let _ = nats.kill();
        let _ = nats.wait();
    }
}

pub fn init_args(dir: &Path, nats_listen: SocketAddr) -> InitArgs {
    InitArgs {
        dir: dir.to_owned(),
        orgs: vec!["acme".parse().unwrap(), "other".parse().unwrap()],
        projects: vec!["field".parse().unwrap(), "lab".parse().unwrap()],
        server_name: "test".to_owned(),
        public_host: "127.0.0.1".to_owned(),
        gateway_listen: "127.0.0.1:0".parse().unwrap(),
        nats_listen,
        shards: 1.try_into().unwrap(),
        nsc: None,
        nsc_operator: None,
    }
}

/// One gateway of a server directory.
pub struct Server {
    pub directory: Arc<Directory>,
    pub clock: Arc<TestClock>,
    pub gateway: Arc<Gateway>,
    url: String,
    http: reqwest::Client,
    watched: Watched,
    stop: CancellationToken,
    handover: Arc<Handover>,
    _opened: Opened,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_on(Arc::new(Directory::start().await)).await
    }

    pub async fn start_on(directory: Arc<Directory>) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let clock = Arc::new(TestClock(AtomicI64::new(now.as_millis() as i64)));
        let handover = Handover::new(Inherited::default(), HandoverArgs::default()).unwrap();
        let listener = handover.listen("127.0.0.1:0".parse().unwrap()).await;
        let listener = listener.unwrap();
        let port = listener.local_addr().unwrap().port();
        let Directory { layout, config, .. } = &*directory;
        let stop = CancellationToken::new();
        let watched = Watched::new(&stop);
        let opened = run::open(
            layout,
            config,
            port,
            clock.clone(),
            &watched,
            &Consul::none(),
        )
        .await
        .unwrap();
        let gateway = Arc::clone(&opened.gateway);
        let tls = tls::server_config(layout).unwrap();
        let handover = Arc::new(handover);
        let (serving, shown) = (Arc::clone(&gateway), watched.clone());
        let (until, stopped) = (Arc::clone(&handover), stop.clone());
        tokio::spawn(
            async move { server::serve(listener, tls, serving, shown, &until, stopped).await },
        );
        Self {
            clock,
            gateway,
            url: format!("https://127.0.0.1:{port}"),
            http: https(layout),
            watched,
            stop,
            handover,
            directory,
            _opened: opened,
        }
    }

    /// Where it is watched, until the other is dropped.
    pub async fn watch(&self) -> (SocketAddr, Watch) {
        let address = ports::free().unwrap();
        let listen = Some(address.try_into().unwrap());
        let watch = self.watched.show(&self.handover, listen).await;
        (address, watch.unwrap().unwrap())
    }

    pub fn org(&self, name: &str) -> Arc<Org> {
        Arc::clone(self.gateway.org(name).unwrap())
    }

    /// The invite that the first start wrote down.
    pub fn first_invite(&self, org: &str) -> InviteLink {
        let path = self.directory.layout.first_invite(&org.parse().unwrap());
        private_files::read_text(&path, 4_096)
            .unwrap()
            .parse()
            .unwrap()
    }

    pub fn first_token(&self, org: &str) -> InviteToken {
        self.first_invite(org).invite
    }

    /// One call, with a session's token or without.
    pub async fn call<C: Call>(
        &self,
        token: Option<&[u8]>,
        call: &C,
    ) -> Result<C::Answer, wire::ApiError> {
        let body = call.encode_to_vec();
        let (status, answer) = self.post(C::PATH, token, body).await;
        if status == StatusCode::OK {
            Ok(C::Answer::decode(answer.as_slice()).unwrap())
        } else {
            Err(wire::ApiError::decode(answer.as_slice()).unwrap())
        }
    }

    /// Any body to any path; the status and the answer, always protobuf.
    pub async fn post(
        &self,
        path: &str,
        token: Option<&[u8]>,
        body: impl Into<Body>,
    ) -> (StatusCode, Vec<u8>) {
        let mut request = self
            .http
            .post(format!("{}{path}", self.url))
            .header(CONTENT_TYPE, api::CONTENT_TYPE)
            .body(body);
        if let Some(token) = token {
            let token = data_encoding::BASE64URL_NOPAD.encode(token);
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let content_type = answer.headers().get(CONTENT_TYPE).cloned();
        assert_eq!(content_type.unwrap(), api::CONTENT_TYPE, "{path}");
        (status, answer.bytes().await.unwrap().to_vec())
    }

    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An HTTPS client that knows only this server's authority.
pub fn https(layout: &Layout) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls::client_config(layout).unwrap())
        .no_proxy()
        .build()
        .unwrap()
}

pub fn code<T: std::fmt::Debug>(answer: Result<T, wire::ApiError>) -> wire::ApiErrorCode {
    answer.expect_err("this should have been refused").code()
}

fn spawn_nats_server(layout: &Layout) -> Child {
    Command::new(nats_server())
        .arg("--config")
        .arg(layout.nats_config())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("nats-server is installed by `cargo xtask setup`")
}

fn nats_server() -> PathBuf {
    if let Some(path) = std::env::var_os("SOTTO_NATS_SERVER") {
        return path.into();
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let installed = workspace.join("target/tools/nats-server");
    if installed.exists() {
        installed
    } else {
        "nats-server".into()
    }
}

fn write_nats_config(layout: &Layout, config: &ServerConfig) {
    let keys = KeyStore::open(&layout.accounts()).unwrap();
    let preload: String = keys
        .resolver_preload()
        .unwrap()
        .iter()
        .map(|account| format!("  {}: {}\n", account.id, account.jwt))
        .collect();
    let quoted = |path: PathBuf| format!("{:?}", path.display().to_string());
    let text = format!(
        r#"
server_name: test
listen: "{listen}"
max_control_line: 1048576
tls {{
  cert_file: {certificate}
  key_file: {key}
  min_version: "1.3"
  handshake_first: true
}}
jetstream {{
  store_dir: {store}
  sync_interval: always
}}
operator: {operator}
system_account: {system}
resolver {{
  type: full
  dir: {jwts}
  allow_delete: false
}}
resolver_preload {{
{preload}}}
"#,
        listen = config.nats.listen,
        certificate = quoted(layout.server_certificate()),
        key = quoted(layout.server_key()),
        store = quoted(layout.jetstream()),
        operator = keys.operator_jwt(),
        system = keys.system_account(),
        jwts = quoted(layout.account_jwts()),
    );
    private_files::write(&layout.nats_config(), text.as_bytes()).unwrap();
}
