//! `sotto up`: a complete private server on this machine: `sotto-relay`, which
//! runs nats-server, and `sotto-gateway`, both found beside this program.

mod part;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::{env, fs};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;
use sotto_proto::GatewayAddress;
use sotto_service::{Layout, ServerConfig, tls};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::Up;
use crate::device::Context;

use part::Part;

/// Where NATS servers listen by custom.
const NATS_PORT: u16 = 4222;

pub async fn run(context: &Context, up: &Up) -> anyhow::Result<()> {
    let programs = Programs::find()?;
    if !Layout::new(&up.server).is_initialised() {
        context.output.note(format_args!(
            "Making a new server in {}.",
            up.server.display()
        ));
        programs.init(up).await?;
    }
    let root = fs::canonicalize(&up.server)
        .with_context(|| format!("cannot find {}", up.server.display()))?;
    let layout = Layout::new(root);

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut relay = Part::new("relay", programs.relay, layout.root(), layout.relay_ready());
    let mut gateway = Part::new(
        "gateway",
        programs.gateway,
        layout.root(),
        layout.gateway_ready(),
    );
    let serve = async {
        relay.start()?;
        context
            .output
            .patiently("Starting the relay", relay.ready())
            .await?;
        gateway.start()?;
        context
            .output
            .patiently("Starting the gateway", gateway.ready())
            .await?;
        announce(context, &layout)?;
        tokio::try_join!(relay.keep(context.output), gateway.keep(context.output))?;
        anyhow::Ok(())
    };
    let served = tokio::select! {
        served = serve => served,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    context.output.note("Stopping.");
    // The gateway first: it needs NATS to the end.
    gateway.stop().await?;
    relay.stop().await?;
    served
}

/// Tells who can be reached where, and how the first admin gets in.
fn announce(context: &Context, layout: &Layout) -> anyhow::Result<()> {
    let config = ServerConfig::load(layout)?;
    let authority = tls::authority_fingerprint(layout)?;
    for org in &config.orgs {
        let gateway = GatewayAddress {
            host: bracketed(&config.public_host),
            port: config.gateway.listen.port(),
            org: org.name.clone(),
            authority,
        };
        let invite = fs::read_to_string(layout.first_invite(&org.name)).ok();
        let invite = invite.as_deref().map(str::trim);
        let first = match invite {
            Some(invite) => format!("\n  its first admin:  sotto signup '{invite}' NAME"),
            None => String::new(),
        };
        context.output.say(
            &json!({
                "event": "ready", "org": org.name, "gateway": gateway.to_string(),
                "invite": invite, "dir": layout.root(),
            }),
            format_args!("{} is served at {gateway}{first}", org.name),
        )?;
    }
    context
        .output
        .note("Ctrl-C stops the server; nothing is lost.");
    Ok(())
}

/// An IPv6 address as it stands in a URL.
fn bracketed(host: &str) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]"),
        false => host.to_owned(),
    }
}

/// The server's programs.
struct Programs {
    relay: PathBuf,
    gateway: PathBuf,
}

impl Programs {
    fn find() -> anyhow::Result<Self> {
        let own = env::current_exe().context("cannot find where this program is")?;
        let folder = own.parent().unwrap_or(Path::new("."));
        let find = |name: &str| {
            let path = folder.join(name);
            ensure!(
                path.is_file(),
                "{name} is not in {}: put it beside sotto (`cargo build` makes both)",
                folder.display()
            );
            Ok(path)
        };
        Ok(Self {
            relay: find("sotto-relay")?,
            gateway: find("sotto-gateway")?,
        })
    }

    /// Makes the server's folder.
    async fn init(&self, up: &Up) -> anyhow::Result<()> {
        let nats_listen = match up.nats_listen {
            Some(address) => address,
            None => free_port(SocketAddr::new(up.listen.ip(), NATS_PORT))?,
        };
        let public_host = match &up.public_host {
            Some(host) => host.clone(),
            None if up.listen.ip().is_unspecified() => {
                bail!("say with --public-host by which name or address people reach this server")
            }
            None => up.listen.ip().to_string(),
        };
        let made = Command::new(&self.gateway)
            .arg("init")
            .arg("--dir")
            .arg(&up.server)
            .args(["--org", up.org.as_str(), "--project", up.project.as_str()])
            .args(["--gateway-listen", &up.listen.to_string()])
            .args(["--nats-listen", &nats_listen.to_string()])
            .args(["--public-host", &public_host])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .await
            .context("cannot start sotto-gateway")?;
        ensure!(
            made.success(),
            "the server's folder was not made: see above"
        );
        Ok(())
    }
}

/// `wish` if nobody listens there, else a port of the same address that is free.
fn free_port(wish: SocketAddr) -> anyhow::Result<SocketAddr> {
    let free =
        TcpListener::bind(wish).or_else(|_| TcpListener::bind(SocketAddr::new(wish.ip(), 0)));
    let free = free.with_context(|| format!("cannot listen on {}", wish.ip()))?;
    Ok(free.local_addr()?)
}
