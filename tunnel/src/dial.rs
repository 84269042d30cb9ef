//! `sotto-tunnel dial`: the private end. It keeps links to public ends, and
//! joins what comes over them with the servers beside it.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use rustls::CertificateError;
use sotto_log::Known;
use sotto_proto::wire::{TunnelDialer, TunnelRoute, TunnelWelcome};
use sotto_service::cluster::{Endpoint, joining_config};
use sotto_service::handover::{Ending, Handover, Inherited};
use sotto_service::logging::LogArgs;
use sotto_service::watch::{Readiness, Watch};
use sotto_service::{private_files, shutdown};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::task::TaskTracker;
use yamux::Mode;
use zeroize::Zeroizing;

use crate::METRICS;
use crate::auth::{ALPN, DialerKey, EXPORTER, VERSION};
use crate::endpoint::PublicEnd;
use crate::frame;
use crate::link::{below_tls, link, tend_link};
use crate::metrics::{DialerMetrics, ToPublicEnd};
use crate::name::LINK_NAME;
use crate::open_files::raise_open_files;
use crate::private::{Private, Target};
use crate::registry::{LINKS_MAX, Route};

/// How long a public end may take to answer.
const ANSWER: Duration = Duration::from_secs(15);
/// The longest pause before a link that was lost is made anew, before chance
/// makes it longer.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The pauses before that: not all dialers come back at the same time.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(PAUSE_MAX)
    .with_jitter()
    .without_max_times();
/// Most links beside one that is kept over which nothing new comes.
const RETIRED_MAX: usize = 8;
/// A link that lived so long was a good one.
const GOOD: Duration = Duration::from_secs(10);
/// How often it is looked whether the first links are there.
const LOOK: Duration = Duration::from_millis(200);
const KEY_MAX: u64 = 1_024;

/// The flags of `sotto-tunnel dial`.
#[derive(Debug, clap::Args)]
pub struct DialArgs {
    /// The private end's data directory: its key.
    #[arg(long, env = "SOTTO_TUNNEL_DIR", value_name = "DIR")]
    dir: PathBuf,

    /// A public end, as `sotto-tunnel serve` prints it; may be said several
    /// times.
    #[arg(long, required = true, value_name = "tunnel://HOST:PORT/FINGERPRINT")]
    to: Vec<PublicEnd>,

    /// What clients ask for, and the server that it is; may be said several
    /// times. Without a port, any.
    #[arg(long, required = true, value_name = "NAME[:PORT]=HOST:PORT")]
    route: Vec<RouteTo>,

    /// Links to each public end, 64 at most.
    #[arg(long, default_value = "2", value_name = "NUMBER",
          value_parser = clap::value_parser!(u8).range(1..=LINKS_MAX as i64))]
    links: u8,

    /// Tell this server of a route the addresses of clients, by a PROXY protocol
    /// header (version 2) before each connection, which it must expect; may be
    /// said several times.
    #[arg(long, value_name = "HOST:PORT")]
    proxy_protocol: Vec<Endpoint>,

    #[command(flatten)]
    common: crate::CommonArgs,
}

impl DialArgs {
    /// What is logged.
    pub fn log(&self) -> &LogArgs {
        &self.common.log
    }
}

/// `NAME:PORT=HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RouteTo {
    route: Route,
    to: Endpoint,
}

impl FromStr for RouteTo {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once('=').ok_or("write NAME=HOST:PORT")?;
        let (pattern, port) = match from.split_once(':') {
            None => (from, None),
            Some((name, port)) => {
                let port = port.parse::<u16>().ok().filter(|port| *port != 0);
                (name, Some(port.ok_or("the port of the name is none")?))
            }
        };
        let pattern = pattern
            .parse()
            .map_err(|error: crate::name::NameError| error.to_string())?;
        Ok(Self {
            route: Route { pattern, port },
            to: to
                .parse()
                .map_err(|error: sotto_service::cluster::NameError| error.to_string())?,
        })
    }
}

/// The flags of `sotto-tunnel key`.
#[derive(Debug, clap::Args)]
pub struct KeyArgs {
    /// The private end's data directory, made if it is missing.
    #[arg(long, env = "SOTTO_TUNNEL_DIR", value_name = "DIR")]
    dir: PathBuf,
}

/// Prints the public key, which is made if there is none.
///
/// # Errors
/// When the directory cannot be used.
#[expect(clippy::print_stdout, reason = "the answer of a command")]
pub fn print_key(args: &KeyArgs) -> Result<()> {
    let path = key_file(&args.dir);
    if !path.exists() {
        private_files::create_dir(&args.dir)?;
        private_files::write(&path, DialerKey::generate().seed()?.as_bytes())?;
    }
    println!("{}", read_key(&args.dir)?.public());
    Ok(())
}

fn key_file(dir: &Path) -> PathBuf {
    dir.join("dialer.nk")
}

fn read_key(dir: &Path) -> Result<DialerKey> {
    let path = key_file(dir);
    if !path.exists() {
        let dir = dir.display();
        bail!("there is no dialer's key in {dir}: make one with `sotto-tunnel key --dir {dir}`");
    }
    let seed = Zeroizing::new(private_files::read_text(&path, KEY_MAX)?);
    let key = DialerKey::from_seed(seed.trim());
    key.with_context(|| {
        format!(
            "{} does not hold a dialer's key: restore it from a backup",
            path.display()
        )
    })
}

/// Keeps links until SIGTERM, SIGINT or, when asked to, the end of the parent;
/// or until it has handed over and what it had has ended.
///
/// # Errors
/// When it cannot start.
pub async fn dial(args: DialArgs, inherited: Inherited) -> Result<()> {
    let handover = Handover::new(inherited, args.common.handover)?;
    let stop = shutdown::watch(args.common.exit_with_parent)?;
    let readiness = Readiness::starting(stop.clone());
    let metrics = DialerMetrics::default();
    let shown = (args.common.metrics, METRICS);
    let watch = Watch::start(&handover, shown, &readiness, metrics.registry());
    let _watch = watch.await?;
    let key = read_key(&args.dir)?;
    raise_open_files();
    let ends: Vec<Arc<AtomicUsize>> = args.to.iter().map(|_| Arc::default()).collect();
    let named = args.to.iter().map(|to| to.at.to_string());
    readiness.serves(without_links(named.zip(ends.clone()).collect()));
    let private = Arc::new(Private {
        targets: targets(args.route, &args.proxy_protocol)?,
        metrics,
        handover: handover.part(),
    });
    let key = Arc::new(key);
    let streams = TaskTracker::new();
    let mut dialing = JoinSet::new();
    for (to, links) in args.to.iter().zip(&ends) {
        let mut config = joining_config(to.fingerprint)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        let connector = TlsConnector::from(Arc::new(config));
        for _ in 0..args.links {
            let dialer = Dialer {
                to: to.at.clone(),
                connector: connector.clone(),
                key: Arc::clone(&key),
                private: Arc::clone(&private),
                links: Arc::clone(links),
                streams: streams.clone(),
            };
            dialing.spawn(Arc::new(dialer).keep());
        }
    }
    let ending = tokio::select! {
        ending = handover.ends(&stop) => ending,
        Some(Err(failed)) = dialing.join_next() => {
            return Err(failed).context("a link cannot be kept");
        }
        never = announce_when_linked(&args.dir, &handover, &readiness, &args.to) => match never {},
    };
    if ending == Ending::HandedOver {
        streams.close();
        let drained = timeout(handover.drain(), streams.wait());
        // What has not ended by then is cut off by the end of the process.
        let _ = stop.run_until_cancelled(drained).await;
    }
    Ok(())
}

/// The servers, and which of them are told addresses.
fn targets(routes: Vec<RouteTo>, told: &[Endpoint]) -> Result<Vec<Target>> {
    if let Some(nowhere) = told
        .iter()
        .find(|told| routes.iter().all(|route| route.to != **told))
    {
        bail!("--proxy-protocol {nowhere}: no --route leads there");
    }
    let target = |route: RouteTo| Target {
        proxy_protocol: told.contains(&route.to),
        route: route.route,
        to: route.to,
    };
    Ok(routes.into_iter().map(target).collect())
}

/// Says in `dial.json` that this end serves, from its first links on until
/// this is dropped. It serves as well on a disk that cannot be written to.
async fn announce_when_linked(
    dir: &Path,
    handover: &Handover,
    readiness: &Readiness,
    to: &[PublicEnd],
) -> Infallible {
    while !readiness.reasons().is_empty() {
        tokio::time::sleep(LOOK).await;
    }
    let to: Vec<String> = to.iter().map(|to| to.at.to_string()).collect();
    let announced = handover.announce(&dir.join("dial.json"), to.join(" "));
    let _announcement = announced.inspect_err(|error| {
        sotto_log::warn!(
            error,
            "an update would take this end for one that does not serve"
        );
    });
    std::future::pending().await
}

/// What is missing: a link to each public end.
fn without_links(ends: Vec<(String, Arc<AtomicUsize>)>) -> impl Fn() -> Vec<String> {
    move || {
        let lost = ends.iter();
        let lost = lost.filter(|(_, links)| links.load(Ordering::Relaxed) == 0);
        lost.map(|(to, _)| format!("there is no link to {to}"))
            .collect()
    }
}

/// What keeps one link.
struct Dialer {
    to: Endpoint,
    connector: TlsConnector,
    key: Arc<DialerKey>,
    private: Arc<Private>,
    links: Arc<AtomicUsize>,
    /// Connections, whatever link they came over.
    streams: TaskTracker,
}

impl Dialer {
    /// Makes a link whenever there is none, and another one beside a link over
    /// which nothing new comes: that one ends by itself.
    async fn keep(self: Arc<Self>) {
        let label = ToPublicEnd {
            to: self.to.to_string(),
        };
        let mut pauses = PAUSES.build();
        let mut retired = JoinSet::new();
        loop {
            let began = Instant::now();
            let sent_away = Arc::new(Notify::new());
            let link = Arc::clone(&self).dial_once(label.clone(), Arc::clone(&sent_away));
            let mut link = Box::pin(link);
            tokio::select! {
                ended = &mut link => match ended {
                    Ok(()) => sotto_log::info!(to = Known(&self.to), "a link has ended"),
                    Err(error) => sotto_log::warn!(to = Known(&self.to), error, "no link"),
                },
                () = sent_away.notified() => {
                    sotto_log::info!(to = Known(&self.to), "the public end hands over");
                    while retired.try_join_next().is_some() {}
                    if retired.len() < RETIRED_MAX {
                        retired.spawn(link);
                    }
                }
            }
            self.private.metrics.links_lost.get_or_create(&label).inc();
            if began.elapsed() >= GOOD {
                pauses = PAUSES.build();
            }
            tokio::time::sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
        }
    }

    /// Makes one link, and serves it until it ends; `sent_away` is told when
    /// nothing new comes over it.
    async fn dial_once(self: Arc<Self>, label: ToPublicEnd, sent_away: Arc<Notify>) -> Result<()> {
        let tls = timeout(ANSWER, self.introduce())
            .await
            .context("it does not answer")??;
        let (opener, link) = link(tls, Mode::Server);
        sotto_log::info!(to = Known(&self.to), "a link is there");
        self.links.fetch_add(1, Ordering::Relaxed);
        let metric = self.private.metrics.links.get_or_create(&label).clone();
        metric.inc();
        let ended = link
            .run(|stream| {
                if let Ok(stream) = opener.accept(stream) {
                    // What was received is passed on, whatever becomes of the link.
                    let serving = Arc::clone(&self.private).serve(stream, Arc::clone(&sent_away));
                    self.streams.spawn(serving);
                }
            })
            .await;
        metric.dec();
        self.links.fetch_sub(1, Ordering::Relaxed);
        Ok(ended?)
    }

    async fn introduce(&self) -> Result<TlsStream<BufReader<TcpStream>>> {
        let tcp = TcpStream::connect(self.to.to_string())
            .await
            .context("it cannot be reached")?;
        tend_link(&tcp)?;
        let connecting = self
            .connector
            .connect(LINK_NAME.try_into()?, below_tls(tcp));
        let mut tls = connecting.await.map_err(|error| {
            let problem = problem_of(&error);
            anyhow::Error::new(error).context(problem)
        })?;
        let binding = tls
            .get_ref()
            .1
            .export_keying_material([0; 32], EXPORTER, None)?;
        let routes = self.private.targets.iter().map(|target| TunnelRoute {
            name: target.route.pattern.to_string(),
            port: target.route.port.unwrap_or(0).into(),
        });
        let dialer = TunnelDialer {
            version: VERSION,
            key: self.key.public(),
            proof: self.key.prove(&binding)?.into(),
            routes: routes.collect(),
            wants_addresses: self.private.tells_addresses(),
        };
        frame::send(&mut tls, &dialer).await?;
        let welcome: TunnelWelcome = frame::receive(&mut tls).await?;
        match welcome.refusal.is_empty() {
            true => Ok(tls),
            false => bail!("it refuses: {}", welcome.refusal.escape_default()),
        }
    }
}

/// What a failed handshake says of the public end.
fn problem_of(error: &io::Error) -> &'static str {
    use CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
    let error = error.get_ref().and_then(|inner| inner.downcast_ref());
    match error {
        Some(rustls::Error::InvalidCertificate(
            Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. },
        )) => "its certificate is not valid at this time: look at this machine's clock",
        Some(rustls::Error::InvalidCertificate(_)) => {
            "it is not the public end of this fingerprint"
        }
        _ => "TLS with it does not come about",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_servers_of_routes_are_told_addresses() {
        let routes = || ["a.example:443=[::1]:8443", "a.example:4222=[::1]:4222"];
        let routes = || routes().map(|route| route.parse().unwrap()).into();
        let told = |told: &str| targets(routes(), &[told.parse().unwrap()]);
        let told_of = told("[::1]:8443").unwrap().into_iter();
        let told_of: Vec<bool> = told_of.map(|target| target.proxy_protocol).collect();
        assert_eq!(told_of, [true, false]);
        let error = told("[::1]:443").unwrap_err().to_string();
        assert!(error.contains("[::1]:443"), "{error}");
    }

    #[test]
    fn a_route_is_a_name_with_or_without_a_port_and_a_server() {
        let route: RouteTo = "*.example:4222=[::1]:4223".parse().unwrap();
        assert_eq!(route.route.port, Some(4222));
        assert_eq!(route.to.to_string(), "[::1]:4223");
        assert_eq!("a.example=b:1".parse::<RouteTo>().unwrap().route.port, None);
        for bad in [
            "",
            "a.example",
            "a.example=",
            "a.example=b",
            "a.example:0=b:1",
            "A=b:1",
            "=b:1",
        ] {
            assert!(bad.parse::<RouteTo>().is_err(), "{bad}");
        }
    }
}
