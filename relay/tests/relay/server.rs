//! A server's data directory, and relays that serve it.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroU8;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::Client;
use data_encoding::HEXLOWER;
use ed25519_dalek::SigningKey;
use rustix::process::{Pid, Signal, kill_process};
use sotto_faults::ports;
use sotto_jwt_accounts::grants::{GATEWAY_INBOX, RELAY_INBOX, Services};
use sotto_jwt_accounts::keystore::KeyStore;
use sotto_proto::OrgName;
use sotto_service::config::{
    GatewayConfig, KeysConfig, LimitsConfig, NatsConfig, OrgConfig, RelayConfig,
};
use sotto_service::nats::{self, Login};
use sotto_service::readiness::Ready;
use sotto_service::{Layout, ServerConfig, private_files, tls};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// How long anything may take in a test before it counts as never.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub const GATEWAY_SEED: [u8; 32] = [9; 32];

/// A data directory as `sotto-gateway init` makes it, with one org, `acme`.
pub struct Server {
    _folder: TempDir,
    pub layout: Layout,
    pub config: ServerConfig,
    pub keys: KeyStore,
}

impl Server {
    pub fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    /// As [`Self::new`], on a disk of the caller's choice.
    pub fn within(disk: &Path) -> Self {
        tls::install_provider();
        let folder = tempfile::tempdir_in(disk).unwrap();
        let layout = Layout::new(folder.path().join("server"));
        let org: OrgName = "acme".parse().unwrap();
        let config = ServerConfig {
            sms: None,
            consul: None,
            server_name: "test".to_owned(),
            public_host: "localhost".to_owned(),
            shards: NonZeroU8::MIN,
            gateway: GatewayConfig {
                listen: "127.0.0.1:1".parse().unwrap(),
                origin: None,
                releases: None,
                metrics: None,
                proxy_protocol_from: BTreeSet::new(),
            },
            keys: KeysConfig::default(),
            nats: NatsConfig {
                listen: ports::free().unwrap(),
            },
            relay: RelayConfig::default(),
            limits: LimitsConfig::default(),
            orgs: vec![OrgConfig {
                name: org.clone(),
                project: "field".parse().unwrap(),
                limits: LimitsConfig::default(),
            }],
        };
        private_files::create_dir(layout.root()).unwrap();
        let now = now_ms();
        let keys = KeyStore::create(&layout.accounts(), now).unwrap();
        layout.create().unwrap();
        tls::create_authority(&layout, "test").unwrap();
        tls::issue_server_certificate(&layout, &config.certificate_hosts()).unwrap();
        let public = SigningKey::from_bytes(&GATEWAY_SEED).verifying_key();
        let files = |path: PathBuf, text: &str| {
            private_files::write(&path, text.as_bytes()).unwrap();
        };
        files(
            layout.gateway_public_key(),
            &HEXLOWER.encode(public.as_bytes()),
        );
        files(
            layout.system_creds(),
            keys.system_credentials(now).unwrap().expose(),
        );
        let services = Services {
            shards: 1,
            buckets: &[],
        };
        keys.add_org(&org, services, now).unwrap();
        let signer = keys.account_signer(&org).unwrap();
        files(
            layout.relay_creds(&org),
            signer.relay(now).unwrap().expose(),
        );
        files(
            layout.relay_devices_creds(&org),
            signer.relay_of_devices().unwrap().expose(),
        );
        files(
            layout.gateway_creds(&org),
            signer.gateway(now).unwrap().expose(),
        );
        config.save(&layout).unwrap();
        Self {
            _folder: folder,
            layout,
            config,
            keys,
        }
    }

    /// As `[limits]` of server.toml would, from the next start on.
    pub fn limit(&mut self, limits: LimitsConfig) {
        self.config.limits = limits;
        self.config.save(&self.layout).unwrap();
    }

    /// Where metrics are shown, from the next start on.
    pub fn show_metrics(&mut self) -> std::net::SocketAddr {
        let address = ports::free().unwrap();
        self.config.relay.metrics = Some(address.try_into().unwrap());
        self.config.save(&self.layout).unwrap();
        address
    }

    pub fn org(&self) -> OrgName {
        self.config.orgs[0].name.clone()
    }

    /// Starts a relay and waits until it serves.
    pub async fn start(&self) -> Relay {
        let mut relay = self.spawn(&[]);
        let ready = self.layout.relay_ready();
        eventually("the relay serves", async || {
            if let Some(status) = relay.child.try_wait().unwrap() {
                let mut said = String::new();
                let mut stderr = relay.child.stderr.take().unwrap();
                stderr.read_to_string(&mut said).await.unwrap();
                panic!("the relay ended ({status}): {said}");
            }
            let ready: Option<Ready> = fs::read(&ready)
                .ok()
                .and_then(|json| serde_json::from_slice(&json).ok());
            ready.filter(|ready| Some(ready.pid) == relay.child.id())
        })
        .await;
        relay.forward_log();
        relay
    }

    /// Starts a relay without waiting.
    pub fn spawn(&self, more: &[&str]) -> Relay {
        let child = Command::new(env!("CARGO_BIN_EXE_sotto-relay"))
            .args(["run", "--exit-with-parent", "--dir"])
            .arg(self.layout.root())
            .args(more)
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Relay { child }
    }

    /// A client with the gateway's grants in the org's account.
    pub async fn gateway(&self) -> Client {
        self.connect(&self.layout.gateway_creds(&self.org()), GATEWAY_INBOX)
            .await
    }

    /// A client with the relay's grants in the org's account.
    pub async fn relay(&self) -> Client {
        self.connect(&self.layout.relay_creds(&self.org()), RELAY_INBOX)
            .await
    }

    async fn connect(&self, credentials: &Path, inbox_prefix: &str) -> Client {
        let login = Login {
            name: "test",
            credentials,
            inbox_prefix,
        };
        nats::connect(&self.layout, &self.config, login)
            .await
            .unwrap()
    }

    /// The process id that nats-server wrote.
    pub fn nats_pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.layout.nats_pid()).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    /// A program that runs nats-server with a configuration changed by `sed`.
    pub fn nats_server_with(&self, sed: &str) -> PathBuf {
        let script = self.layout.root().join("other-nats-server");
        let real = nats_server();
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && exec {real} --version\n\
             sed '{sed}' \"$2\" > \"$2.changed\"\nexec {real} -c \"$2.changed\"\n",
            real = real.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        script
    }
}

impl Drop for Server {
    /// A test that fails may leave an orphan.
    fn drop(&mut self) {
        let Some(pid) = self.nats_pid() else { return };
        let command = fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
        let root = self.layout.root().to_str().unwrap();
        if command.is_ok_and(|command| command.contains(root)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// A relay process; dropping it stops it.
pub struct Relay {
    pub child: Child,
}

impl Relay {
    /// As a crash: the relay is gone, its nats-server is not.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// As `systemctl stop`.
    pub async fn stop(mut self) -> ExitStatus {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        within(self.child.wait()).await.unwrap()
    }

    /// Waits until it ends by itself, and what it said.
    pub async fn ends(mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        within(stderr.read_to_string(&mut said)).await.unwrap();
        (within(self.child.wait()).await.unwrap(), said)
    }

    /// Shows the log when the test fails, and keeps the pipe from filling.
    fn forward_log(&mut self) {
        let mut stderr = self.child.stderr.take().unwrap();
        tokio::spawn(async move {
            let mut out = tokio::io::stderr();
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
                let _ = out.write_all(&buffer[..read]).await;
            }
        });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

pub fn nats_server() -> PathBuf {
    if let Some(named) = std::env::var_os("SOTTO_NATS_SERVER") {
        return named.into();
    }
    let relay = PathBuf::from(env!("CARGO_BIN_EXE_sotto-relay"));
    let tools = relay.parent().unwrap().join("../tools/nats-server");
    if tools.is_file() {
        fs::canonicalize(tools).unwrap()
    } else {
        "nats-server".into()
    }
}

pub fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_millis().try_into().unwrap()
}

/// Whether a process is running; a zombie is not.
pub fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| !stat.contains(") Z"))
}

/// Waits for something that must come soon.
pub async fn within<T>(future: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it takes too long")
}

/// Asks again and again until there is an answer.
pub async fn eventually<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, ask).await
}

/// The same where more patience is needed.
pub async fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(patience, asking)
        .await
        .unwrap_or_else(|_| panic!("it never comes true that {what}"))
}
