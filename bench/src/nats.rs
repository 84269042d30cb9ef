//! A nats-server of its own for one measurement, with the durability that the
//! relay demands and without accounts: what is measured is the log.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Deserialize;
use sotto_faults::ports;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// Killed when dropped.
pub(crate) struct NatsServer {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

impl NatsServer {
    pub(crate) fn start() -> anyhow::Result<Self> {
        Self::start_with("")
    }

    /// Servers that are one cluster: a stream may have a copy on each.
    pub(crate) fn start_cluster(nodes: usize) -> anyhow::Result<Vec<Self>> {
        if nodes == 1 {
            return Ok(vec![Self::start()?]);
        }
        let addresses = (0..nodes).map(|_| ports::free());
        let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
        let routes: Vec<_> = addresses
            .iter()
            .map(|at| format!("\"nats://{at}\""))
            .collect();
        let routes = routes.join(", ");
        let servers = addresses.iter().enumerate().map(|(number, at)| {
            Self::start_with(&format!(
                "server_name: n{number}\n\
                 cluster {{ name: raw, listen: \"{at}\", routes: [{routes}] }}\n"
            ))
        });
        servers.collect()
    }

    fn start_with(more: &str) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().display();
        let config = format!(
            "listen: \"127.0.0.1:-1\"\nports_file_dir: \"{path}\"\n\
             jetstream {{ store_dir: \"{path}/jetstream\", sync_interval: always }}\n{more}"
        );
        let file = dir.path().join("nats.conf");
        fs::write(&file, config)?;
        let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/nats-server");
        let binary = std::env::var_os("SOTTO_NATS_SERVER").map_or(tools, Into::into);
        let child = Command::new(&binary)
            .arg("-c")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| {
                let binary = binary.display();
                format!("cannot start {binary}: run `cargo xtask setup`, or set SOTTO_NATS_SERVER")
            })?;
        let announced = dir.path().join(format!("nats-server_{}.ports", child.id()));
        let mut server = Self {
            child,
            url: String::new(),
            _dir: dir,
        };
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            let ports = fs::read(&announced).ok();
            let ports = ports.and_then(|text| serde_json::from_slice::<Ports>(&text).ok());
            if let Some(url) = ports.and_then(|ports| ports.nats.into_iter().next()) {
                server.url = url;
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("nats-server did not start within {PATIENCE:?}")
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<async_nats::Client> {
        Ok(async_nats::connect(&self.url).await?)
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
