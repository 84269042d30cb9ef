//! `sotto-tunnel serve`: the public end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde_json::json;
use sotto_service::cluster::Endpoint;
use sotto_service::handover::{Ending, Handover, Inherited, Listener};
use sotto_service::logging::LogArgs;
use sotto_service::watch::{Readiness, Watch};
use sotto_service::{Layout, private_files, shutdown, tls};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::METRICS;
use crate::auth::ALPN;
use crate::endpoint::PublicEnd;
use crate::front;
use crate::metrics::PublicMetrics;
use crate::name::{LINK_NAME, Pattern};
use crate::open_files::raise_open_files;
use crate::public::{Patience, Public};
use crate::reception;
use crate::splice::HALF_CLOSED;
use crate::table::{NameTable, NamesFile, Org};

/// Longest `names.toml`, in bytes.
const FILE_MAX: u64 = 4 * 1024 * 1024;
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long connections may take to notice that this end stops.
const STOPPING: Duration = Duration::from_secs(3);

/// The flags of `sotto-tunnel serve`.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// The public end's data directory: its keys, and names.toml.
    #[arg(long, env = "SOTTO_TUNNEL_DIR", value_name = "DIR")]
    dir: PathBuf,

    /// Where clients and dialers come to; may be said several times.
    #[arg(long, default_value = "[::]:443", value_name = "IP:PORT")]
    listen: Vec<SocketAddr>,

    /// The host name or address by which dialers reach this machine, for the
    /// line that is printed.
    #[arg(long, default_value = "THIS-MACHINE", value_name = "HOST")]
    public_host: String,

    /// Write names.toml for one org first: the key that `sotto-tunnel key`
    /// printed, and what it may announce.
    #[arg(long, value_name = "KEY=NAME[,NAME…]")]
    allow: Option<Allowance>,

    /// How long a client may take to send its ClientHello.
    #[arg(long, default_value = "60", value_name = "SECONDS")]
    hello_seconds: NonZeroU64,

    /// End connections over which nothing passed for so long; without it, none.
    #[arg(long, value_name = "SECONDS")]
    idle_seconds: Option<NonZeroU64>,

    /// End connections of which one side has ended, when nothing passed for so
    /// long.
    #[arg(long, default_value_t = NonZeroU64::new(HALF_CLOSED.as_secs()).unwrap_or(NonZeroU64::MIN), value_name = "SECONDS")]
    half_closed_seconds: NonZeroU64,

    #[command(flatten)]
    common: crate::CommonArgs,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl ServeArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.common.log
    }
}

/// `KEY=NAME,NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Allowance {
    key: String,
    names: Vec<Pattern>,
}

impl FromStr for Allowance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, names) = text.split_once('=').ok_or("write KEY=NAME")?;
        let names = names.split(',').map(str::parse).collect::<Result<_, _>>();
        Ok(Self {
            key: key.to_owned(),
            names: names.map_err(|error: crate::name::NameError| error.to_string())?,
        })
    }
}

/// Serves until SIGTERM, SIGINT or, when asked to, the end of the parent; or
/// until it has handed over and what it had has ended.
///
/// # Errors
/// When the directory cannot be used, or a port is taken.
pub async fn serve(args: &ServeArgs, inherited: Inherited) -> Result<()> {
    let handover = Handover::new(inherited, args.common.handover)?;
    let stop = shutdown::watch(args.common.exit_with_parent)?;
    let readiness = Readiness::starting(stop.clone());
    let metrics = PublicMetrics::default();
    let shown = (args.common.metrics, METRICS);
    let watch = Watch::start(&handover, shown, &readiness, metrics.registry());
    // Until the connections have ended.
    let _watch = watch.await?;
    let layout = Layout::new(&args.dir);
    let fingerprint = prepare(&layout)?;
    let names = args.dir.join("names.toml");
    write_names(&names, args.allow.as_ref())?;
    let mut seen = stamp(&names);
    let (sender, table) = watch::channel(Arc::new(load(&names)?));
    if table.borrow().is_empty() {
        sotto_log::warn!("names.toml gives nobody a name: write it, or start with --allow");
    }
    raise_open_files();

    let mut config = tls::server_config(&layout)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    let patience = Patience {
        hello: Duration::from_secs(args.hello_seconds.get()),
        idle: args
            .idle_seconds
            .map(|idle| Duration::from_secs(idle.get())),
        half_closed: Duration::from_secs(args.half_closed_seconds.get()),
    };
    let public = Arc::new(Public::new(
        table,
        TlsAcceptor::from(Arc::new(config)),
        patience,
        metrics,
    ));
    let mut listeners = Vec::new();
    for &listen in &args.listen {
        let listener = handover.listen(listen).await;
        let taken = || {
            format!(
                "cannot listen on {listen}: it may be taken, and ports below 1024 need the capability CAP_NET_BIND_SERVICE"
            )
        };
        listeners.push(listener.with_context(taken)?);
    }
    let listening = listeners
        .iter()
        .map(Listener::local_addr)
        .collect::<Result<Vec<_>, _>>()?;
    print(args, &listening, fingerprint)?;

    let tasks = TaskTracker::new();
    let closed = stop.child_token();
    for listener in listeners {
        let accepting = front::accept(Arc::clone(&public), listener, tasks.clone(), stop.clone());
        tasks.spawn(closed.clone().run_until_cancelled_owned(accepting));
    }
    tasks.spawn(
        closed
            .clone()
            .run_until_cancelled_owned(reception::send_to_successors(
                Arc::clone(&public),
                handover.part(),
            )),
    );
    readiness.serves(Vec::new);
    let url = listening.first().context("nowhere to listen")?.to_string();
    let _announcement = handover.announce(&args.dir.join("serve.json"), url)?;
    let ending = tokio::select! {
        ending = handover.ends(&stop) => ending,
        never = follow(&names, &mut seen, &sender, &public) => match never {},
    };
    closed.cancel();
    tasks.close();
    let ended = async {
        match ending {
            Ending::Stopped => tokio::time::timeout(STOPPING, tasks.wait()).await,
            Ending::HandedOver => {
                let drained = async {
                    tokio::select! {
                        () = tasks.wait() => {}
                        () = stop.cancelled() => {}
                        () = reception::end_idle(&public) => {}
                        never = follow(&names, &mut seen, &sender, &public) => match never {},
                    }
                };
                tokio::time::timeout(handover.drain(), drained).await
            }
        }
    };
    // Ignored: whoever does not notice is cut off by the end of the process.
    drop(ended.await);
    Ok(())
}

/// Makes what is missing; the fingerprint by which dialers know this end.
fn prepare(layout: &Layout) -> Result<[u8; 32]> {
    private_files::create_dir(&layout.tls())?;
    if !layout.authority().is_file() {
        tls::create_authority(layout, "tunnel")?;
    }
    if !layout.server_certificate().is_file() {
        tls::issue_server_certificate(layout, &[LINK_NAME.to_owned()])?;
    }
    Ok(tls::authority_fingerprint(layout)?)
}

#[expect(
    clippy::print_stdout,
    reason = "a program for the terminal says what to do next"
)]
fn print(args: &ServeArgs, listening: &[SocketAddr], fingerprint: [u8; 32]) -> Result<()> {
    let port = listening.first().context("nowhere to listen")?.port();
    let to = PublicEnd {
        at: Endpoint::new(&args.public_host, port)?,
        fingerprint,
    };
    if args.json {
        println!(
            "{}",
            json!({ "listening": listening, "to": to.to_string() })
        );
    } else {
        let addresses: Vec<String> = listening.iter().map(SocketAddr::to_string).collect();
        println!(
            "Listening on {}. Dialers come with:\n  --to {to}",
            addresses.join(", ")
        );
    }
    Ok(())
}

/// Writes the file when there is none.
fn write_names(path: &Path, allow: Option<&Allowance>) -> Result<()> {
    let org = |allow: &Allowance| {
        Ok::<_, anyhow::Error>(Org {
            name: "first".parse()?,
            keys: [allow.key.clone()].into(),
            names: allow.names.iter().cloned().collect(),
            connections: None,
            bytes_per_day: None,
        })
    };
    let file = NamesFile {
        orgs: allow.map(org).transpose()?.into_iter().collect(),
        ..NamesFile::default()
    };
    if path.exists() {
        let kept = || {
            format!(
                "{} is there already: add the key and its names to it, and start without --allow",
                path.display()
            )
        };
        let same = allow.is_none()
            || toml::from_str::<NamesFile>(&private_files::read_text(path, FILE_MAX)?)
                .is_ok_and(|old| file.orgs.iter().all(|org| old.orgs.contains(org)));
        return same.then_some(()).with_context(kept);
    }
    NameTable::new(file.clone())?;
    Ok(private_files::write(
        path,
        toml::to_string(&file)?.as_bytes(),
    )?)
}

fn load(path: &Path) -> Result<NameTable> {
    let text = private_files::read_text(path, FILE_MAX)?;
    NameTable::parse(&text).with_context(|| format!("{} is not in force", path.display()))
}

/// Reads the file anew when it is another one. One that does not read changes
/// nothing.
async fn follow(
    path: &Path,
    seen: &mut Option<Stamp>,
    sender: &watch::Sender<Arc<NameTable>>,
    public: &Public,
) -> Infallible {
    loop {
        tokio::time::sleep(LOOK).await;
        let now = stamp(path);
        if now == *seen {
            continue;
        }
        *seen = now;
        match load(path) {
            Ok(table) => {
                sender.send_replace(Arc::new(table));
                public.end_unadmitted();
                sotto_log::info!("names.toml is in force");
            }
            Err(error) => sotto_log::error!(error, "what was in force stays"),
        }
    }
}

/// What is another one when the file is.
type Stamp = (SystemTime, u64, u64);

fn stamp(path: &Path) -> Option<Stamp> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}
