//! `sotto-relay join`: makes a machine a node of a cluster that is there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls_pki_types::ServerName;
use sotto_service::cluster::{self, Endpoint, KEEPER, NodeKey};
use sotto_service::config;
use sotto_service::consul::{self, ConsulArgs, ConsulConfig};
use sotto_service::{Layout, ServerConfig, private_files, tls};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::bootstrap::Places;
use super::exchange::{self, Admitted, Answer, Join, Question};
use super::tokens::Token;
use crate::nats_server::peer_state;

/// Pause before it is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one of those that Consul names may take to show its certificate.
const REACHING: Duration = Duration::from_secs(5);

/// What is to become a node.
#[derive(Debug, clap::Args)]
pub struct JoinArgs {
    /// The node that made the token: HOST:PORT, as it printed; may be left out
    /// with --consul.
    #[arg(required_unless_present = "consul")]
    address: Option<Endpoint>,

    #[command(flatten)]
    consul: ConsulArgs,

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
    let found_by = args.consul.config()?;
    let mine = Machine::new(args)?;
    let admitted = match (&args.address, &found_by) {
        (Some(address), _) => ask(args, address, &token, &mine).await?,
        (None, Some(consul)) => ask_those_found(args, consul, &token, &mine).await?,
        (None, None) => bail!("say which node made the token: HOST:PORT, or --consul"),
    };
    save(args, &layout, &mine, admitted, found_by)
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

async fn ask(
    args: &JoinArgs,
    address: &Endpoint,
    token: &Token,
    mine: &Machine,
) -> Result<Admitted> {
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    loop {
        let asking = async { question(args, token, mine, reach(address, token).await?).await };
        let asked = tokio::time::timeout(exchange::TIMEOUT, asking).await;
        let why = match asked {
            Ok(Ok(Answer::Admitted(admitted))) => return Ok(*admitted),
            Ok(Ok(Answer::Refused(why))) => {
                bail!("{address} does not let this machine in: {why}")
            }
            Ok(Ok(Answer::Later(why))) => why,
            Ok(Ok(Answer::Synced { .. })) => bail!("{address} answers something else"),
            Ok(Err(error)) => return Err(error),
            Err(_) => "it does not answer".to_owned(),
        };
        ensure!(
            Instant::now() < deadline,
            "{address} does not let this machine in yet: {why}; see `sotto-relay cluster status` there, and try again"
        );
        tokio::time::sleep(PAUSE).await;
    }
}

/// As [`ask`], of each node that Consul names: one of them made the token. What
/// Consul says may be wrong; who is not of the cluster that the token names is
/// passed over, and learns nothing.
async fn ask_those_found(
    args: &JoinArgs,
    consul: &ConsulConfig,
    token: &Token,
    mine: &Machine,
) -> Result<Admitted> {
    let deadline = Instant::now() + Duration::from_secs(args.wait);
    loop {
        let mut no = Vec::new();
        let mut later = vec!["Consul names no node that lets others in".to_owned()];
        match consul::admissions(consul).await {
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                later.clear();
                for address in found {
                    match ask_one(args, &address, token, mine).await {
                        Ok(Answer::Admitted(admitted)) => return Ok(*admitted),
                        Ok(Answer::Refused(why)) => no.push(format!("{address}: {why}")),
                        Ok(Answer::Later(why)) => later.push(format!("{address}: {why}")),
                        Ok(Answer::Synced { .. }) => {}
                        Err(error) => later.push(format!("{address}: {error:#}")),
                    }
                }
            }
            Err(error) => later = vec![error.to_string()],
        }
        // Of whom there is no answer yet, one may have made the token.
        let decided = (later.is_empty() && !no.is_empty()) || Instant::now() >= deadline;
        no.append(&mut later);
        ensure!(
            !decided,
            "no node lets this machine in: {}; try again, or say HOST:PORT",
            no.join("; ")
        );
        tokio::time::sleep(PAUSE).await;
    }
}

async fn ask_one(
    args: &JoinArgs,
    address: &Endpoint,
    token: &Token,
    mine: &Machine,
) -> Result<Answer> {
    let stream = tokio::time::timeout(REACHING, reach(address, token)).await;
    let stream = stream.context("it does not answer")??;
    let asking = tokio::time::timeout(exchange::TIMEOUT, question(args, token, mine, stream));
    asking.await.context("it does not answer")?
}

/// A connection to a node of the cluster that the token names.
async fn reach(address: &Endpoint, token: &Token) -> Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address.to_string())
        .await
        .with_context(|| {
            format!("cannot reach {address}: is the relay there running, and the port open?")
        })?;
    let tls = TlsConnector::from(Arc::new(cluster::joining_config(token.authority)?));
    let stream = tls.connect(ServerName::try_from(KEEPER)?, tcp).await;
    stream.with_context(|| {
        format!("{address} is not the node that made this token: check both, and do not go on if this is unexpected")
    })
}

async fn question(
    args: &JoinArgs,
    token: &Token,
    mine: &Machine,
    mut stream: TlsStream<TcpStream>,
) -> Result<Answer> {
    let places = args.places.of(&args.public_host, args.nats_listen)?;
    let (node, routes, admission) = places;
    let join = Join {
        secret: token.secret_text(),
        name: node.name,
        routes,
        admission,
        clients: Endpoint::new(&args.public_host, args.nats_listen.port())?,
        hosts: config::certificate_hosts(&args.public_host, args.nats_listen),
        node_key: mine.node_key.public(),
        server_key: mine.server_key.public(),
    };
    exchange::send(&mut stream, &Question::Join(Box::new(join))).await?;
    Ok(exchange::receive(&mut stream, exchange::ANSWER_MAX).await?)
}

/// The keeper's configuration with this machine's places. Its Consul is not
/// ours: each machine has an agent and files of its own.
fn own_config(
    args: &JoinArgs,
    keepers: &str,
    consul: Option<ConsulConfig>,
) -> Result<ServerConfig> {
    let mut config: ServerConfig =
        toml::from_str(keepers).context("the configuration that was sent does not read")?;
    config.public_host.clone_from(&args.public_host);
    config.nats.listen = args.nats_listen;
    config.gateway.listen = args.gateway_listen;
    config.consul = consul;
    Ok(config)
}

fn save(
    args: &JoinArgs,
    layout: &Layout,
    mine: &Machine,
    admitted: Admitted,
    consul: Option<ConsulConfig>,
) -> Result<()> {
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
    let config = own_config(args, &config, consul)?;
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
    let nodes = members.nodes.iter().map(|node| &node.name);
    let peers = nodes.chain(&members.replaced);
    peer_state::write_first(layout, &bundle.accounts.system, peers)?;
    members.save(layout)?;
    node.save(layout)?;
    config.save(layout)?;
    Ok(())
}
