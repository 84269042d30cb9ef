//! `sotto-relay join`: makes a machine a node of a cluster that is there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls_pki_types::ServerName;
use sotto_service::cluster::{self, Endpoint, KEEPER, NodeKey};
use sotto_service::config;
use sotto_service::{Layout, ServerConfig, private_files, tls};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::bootstrap::Places;
use super::exchange::{self, Admitted, Answer, Join, Question};
use super::tokens::Token;
use crate::nats_server::peer_state;

/// Pause before it is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// What is to become a node.
#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// The node that made the token: HOST:PORT, as it printed.
    address: Endpoint,

    /// The token, which is good once.
    #[arg(
        long,
        env = "SOTTO_JOIN_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true
    )]
    token: String,

    /// The directory to make.
    #[arg(long, env = "SOTTO_SERVER_DIR", value_name = "DIR")]
    dir: PathBuf,

    #[command(flatten)]
    places: Places,

    /// Host name or IP address by which people reach this machine.
    #[arg(long, value_name = "HOST")]
    public_host: String,

    /// Where nats-server listens for clients (TLS).
    #[arg(long, default_value = "0.0.0.0:4222", value_name = "IP:PORT")]
    nats_listen: SocketAddr,

    /// Where the gateway listens (HTTPS), when the token makes it a gateway.
    #[arg(long, default_value = "0.0.0.0:8443", value_name = "IP:PORT")]
    gateway_listen: SocketAddr,

    /// How long to wait for the other nodes to be ready, in seconds.
    #[arg(long, default_value = "120", value_name = "SECONDS")]
    wait: u64,
}

/// Asks to be let in and makes the directory. `node.json` is written last, so
/// that an interrupted join has joined nothing; its token may be used up.
///
/// # Errors
/// When the directory has a server, or the node that is asked refuses.
pub async fn join(args: &JoinArgs) -> Result<()> {
    let token: Token = args.token.parse()?;
    let layout = Layout::new(&args.dir);
    ensure!(
        !layout.is_initialised(),
        "there is a server in {} already: choose another --dir",
        args.dir.display()
    );
    let mine = Machine::new(args)?;
    let admitted = ask(args, &token, &mine).await?;
    save(args, &layout, &mine, admitted)
}

/// This machine's own keys.
struct Machine {
    node_key: NodeKey,
    server_key: NodeKey,
}

impl Machine {
    fn new(args: &JoinArgs) -> Result<Self> {
        private_files::create_dir(&args.dir)?;
        Ok(Self {
            node_key: NodeKey::generate()?,
            server_key: NodeKey::generate()?,
        })
    }
}

async fn ask(args: &JoinArgs, token: &Token, mine: &Machine) -> Result<Admitted> {
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    loop {
        let asked = tokio::time::timeout(exchange::TIMEOUT, question(args, token, mine)).await;
        let why = match asked {
            Ok(Ok(Answer::Admitted(admitted))) => return Ok(*admitted),
            Ok(Ok(Answer::Refused(why))) => {
                bail!("{} does not let this machine in: {why}", args.address)
            }
            Ok(Ok(Answer::Later(why))) => why,
            Ok(Ok(Answer::Synced { .. })) => bail!("{} answers something else", args.address),
            Ok(Err(error)) => return Err(error),
            Err(_) => "it does not answer".to_owned(),
        };
        ensure!(
            Instant::now() < deadline,
            "{} does not let this machine in yet: {why}; see `sotto-relay cluster status` there, and try again",
            args.address
        );
        tokio::time::sleep(PAUSE).await;
    }
}

async fn question(args: &JoinArgs, token: &Token, mine: &Machine) -> Result<Answer> {
    let places = args.places.of(&args.public_host, args.nats_listen)?;
    let (node, routes, admission) = places;
    let join = Join {
        secret: token.secret_text(),
        name: node.name,
        routes,
        admission,
        clients: Endpoint::new(&args.public_host, args.nats_listen.port())?,
        hosts: config::certificate_hosts(&args.public_host),
        node_key: mine.node_key.public(),
        server_key: mine.server_key.public(),
    };
    let address = &args.address;
    let tcp = TcpStream::connect(address.to_string())
        .await
        .with_context(|| {
            format!("cannot reach {address}: is the relay there running, and the port open?")
        })?;
    let tls = TlsConnector::from(Arc::new(cluster::joining_config(token.authority)?));
    let stream = tls.connect(ServerName::try_from(KEEPER)?, tcp).await;
    let mut stream = stream.with_context(|| {
        format!("{address} is not the node that made this token: check both, and do not go on if this is unexpected")
    })?;
    exchange::send(&mut stream, &Question::Join(Box::new(join))).await?;
    Ok(exchange::receive(&mut stream, exchange::ANSWER_MAX).await?)
}

/// The keeper's configuration with this machine's places.
fn own_config(args: &JoinArgs, keepers: &str) -> Result<ServerConfig> {
    let mut config: ServerConfig =
        toml::from_str(keepers).context("the configuration that was sent does not read")?;
    config.public_host.clone_from(&args.public_host);
    config.nats.listen = args.nats_listen;
    config.gateway.listen = args.gateway_listen;
    Ok(config)
}

fn save(args: &JoinArgs, layout: &Layout, mine: &Machine, admitted: Admitted) -> Result<()> {
    let Admitted {
        members,
        config,
        authority,
        cluster_authority,
        server_certificate,
        node_certificate,
        bundle,
        keys,
    } = admitted;
    let config = own_config(args, &config)?;
    let (node, ..) = args.places.of(&args.public_host, args.nats_listen)?;
    layout.create()?;
    private_files::create_dir(&layout.cluster())?;
    let write = |path: &Path, text: &str| private_files::write(path, text.as_bytes());
    write(&layout.authority(), &authority)?;
    write(&layout.cluster_authority(), &cluster_authority)?;
    write(&layout.server_certificate(), &server_certificate)?;
    write(&layout.node_certificate(), &node_certificate)?;
    mine.server_key.save(&layout.server_key())?;
    mine.node_key.save(&layout.node_key())?;
    // Whatever was sent must be of use: a certificate for another key is not.
    tls::server_config(layout)?;
    cluster::client_config(layout)?;
    bundle.save(layout)?;
    if let Some(keys) = &keys {
        keys.save(layout)?;
    }
    let peers = members.nodes.iter().map(|node| &node.name);
    peer_state::write_first(layout, &bundle.accounts.system, peers)?;
    members.save(layout)?;
    node.save(layout)?;
    config.save(layout)?;
    Ok(())
}
