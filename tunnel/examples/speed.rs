//! How fast a tunnel is on this machine, beside other tunnels in the same run:
//! `cargo run --release -p sotto-tunnel --example speed -- --socat … --rathole … --bore …`.
//! Nothing here asserts a time: figures are for people to compare.
//!
//! What passes is a real ClientHello and a ServerHello, then bytes that are no
//! TLS: after the hellos a tunnel does not look, and whoever measures has the
//! processors for the tunnels.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a program for those who measure: what goes wrong ends it"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const NAME: &str = "chat.example";
/// What a server says first: TLS 1.3 is selected.
const SERVER_HELLO: [u8; 55] = {
    let mut hello = [7; 55];
    let head = [22, 3, 3, 0, 50, 2, 0, 0, 46, 3, 3];
    let tail = [0, 0x13, 1, 0, 0, 6, 0, 43, 0, 2, 3, 4];
    let mut at = 0;
    while at < head.len() {
        hello[at] = head[at];
        at += 1;
    }
    at = 0;
    while at < tail.len() {
        hello[55 - tail.len() + at] = tail[at];
        at += 1;
    }
    hello
};

/// Measures a tunnel beside others.
#[derive(Debug, Parser)]
struct Arguments {
    /// The program to measure: target/release/sotto-tunnel.
    #[arg(long)]
    sotto: PathBuf,
    /// socat, if it is to be measured, too.
    #[arg(long)]
    socat: Option<PathBuf>,
    /// rathole.
    #[arg(long)]
    rathole: Option<PathBuf>,
    /// bore.
    #[arg(long)]
    bore: Option<PathBuf>,
    /// How long each figure is measured.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Connections that are idle when memory is read.
    #[arg(long, default_value_t = 1_000)]
    idle: usize,
    /// Links of the dialer.
    #[arg(long, default_value_t = 2)]
    links: u8,
    /// Rounds; each figure is the median.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What starts a tunnel.
type Start<'a> = Box<dyn Fn() -> Tunnel + 'a>;

/// Programs that run until this is dropped.
struct Tunnel {
    at: SocketAddr,
    programs: Vec<Child>,
    _folder: tempfile::TempDir,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        for program in &mut self.programs {
            program.kill().ok();
            program.wait().ok();
        }
    }
}

fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

fn start(program: &Path, arguments: &[&str]) -> Child {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}

fn sotto(program: &Path, server: SocketAddr, links: u8) -> Tunnel {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let key = Command::new(program)
        .args(["key", "--dir", dir])
        .output()
        .unwrap();
    let key = String::from_utf8(key.stdout).unwrap();
    let allow = format!("{}={NAME}", key.trim());
    let at = free();
    let mut serve = start(
        program,
        &[
            "serve",
            "--dir",
            dir,
            "--listen",
            &at.to_string(),
            "--allow",
            &allow,
            "--public-host",
            "127.0.0.1",
            "--json",
            "--log",
            "error",
        ],
    );
    let mut line = String::new();
    BufReader::new(serve.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    let route = format!("{NAME}={server}");
    let links = links.to_string();
    let dial = start(
        program,
        &[
            "dial",
            "--dir",
            dir,
            "--to",
            said["to"].as_str().unwrap(),
            "--route",
            &route,
            "--links",
            &links,
            "--log",
            "error",
        ],
    );
    Tunnel {
        at,
        programs: vec![serve, dial],
        _folder: folder,
    }
}

fn socat(program: &Path, server: SocketAddr) -> Tunnel {
    let at = free();
    let listen = format!(
        "TCP-LISTEN:{},bind=127.0.0.1,reuseaddr,fork,backlog=1024,nodelay",
        at.port()
    );
    let to = format!("TCP:{server},nodelay");
    Tunnel {
        at,
        programs: vec![start(program, &["-b", "65536", &listen, &to])],
        _folder: tempfile::tempdir().unwrap(),
    }
}

fn rathole(program: &Path, server: SocketAddr) -> Tunnel {
    let folder = tempfile::tempdir().unwrap();
    let (at, control) = (free(), free());
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let public = file(
        "server.toml",
        format!(
            "[server]\nbind_addr = \"{control}\"\ndefault_token = \"t\"\n[server.services.s]\nbind_addr = \"{at}\"\nnodelay = true\n"
        ),
    );
    let private = file(
        "client.toml",
        format!(
            "[client]\nremote_addr = \"{control}\"\ndefault_token = \"t\"\n[client.services.s]\nlocal_addr = \"{server}\"\nnodelay = true\n"
        ),
    );
    Tunnel {
        at,
        programs: vec![
            start(program, &["--server", &public]),
            start(program, &["--client", &private]),
        ],
        _folder: folder,
    }
}

fn bore(program: &Path, server: SocketAddr) -> Tunnel {
    let at = free();
    let public = start(program, &["server", "--min-port", "1024"]);
    std::thread::sleep(Duration::from_millis(500));
    let (to, from) = (at.port().to_string(), server.port().to_string());
    let private = start(
        program,
        &["local", &from, "--to", "127.0.0.1", "--port", &to],
    );
    Tunnel {
        at,
        programs: vec![public, private],
        _folder: tempfile::tempdir().unwrap(),
    }
}

/// Answers a hello; then as its first byte says: `p` sends back 64 bytes each
/// time, `d` sends for ever.
async fn server(hello: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                tcp.set_nodelay(true)?;
                let mut buffer = vec![0; hello.max(64)];
                tcp.read_exact(&mut buffer[..hello]).await?;
                tcp.write_all(&SERVER_HELLO).await?;
                if tcp.read_u8().await? == b'd' {
                    let piece = vec![9; 256 * 1024];
                    loop {
                        tcp.write_all(&piece).await?;
                    }
                }
                loop {
                    tcp.read_exact(&mut buffer[..64]).await?;
                    tcp.write_all(&buffer[..64]).await?;
                }
                #[expect(unreachable_code, reason = "says the type")]
                std::io::Result::Ok(())
            });
        }
    });
    at
}

async fn connect(at: SocketAddr, hello: &[u8]) -> std::io::Result<TcpStream> {
    let mut tcp = TcpStream::connect(at).await?;
    tcp.set_nodelay(true)?;
    tcp.write_all(hello).await?;
    let mut answer = [0; SERVER_HELLO.len()];
    tcp.read_exact(&mut answer).await?;
    assert_eq!(answer, SERVER_HELLO);
    Ok(tcp)
}

/// Bytes in a second over so many streams, and the time of processors that
/// the programs took for each GB.
async fn throughput(tunnel: &Tunnel, hello: &[u8], streams: usize, time: Duration) -> (f64, f64) {
    let total = Arc::new(AtomicU64::new(0));
    let mut readers = Vec::new();
    for _ in 0..streams {
        let mut tcp = connect(tunnel.at, hello).await.unwrap();
        tcp.write_u8(b'd').await.unwrap();
        let total = Arc::clone(&total);
        readers.push(tokio::spawn(async move {
            let mut buffer = vec![0; 256 * 1024];
            while let Ok(length @ 1..) = tcp.read(&mut buffer).await {
                total.fetch_add(length as u64, Ordering::Relaxed);
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let (began, before, cpu) = (Instant::now(), total.load(Ordering::Relaxed), cpu(tunnel));
    tokio::time::sleep(time).await;
    let bytes = (total.load(Ordering::Relaxed) - before) as f64;
    let seconds = began.elapsed().as_secs_f64();
    let cpu = self::cpu(tunnel) - cpu;
    for reader in readers {
        reader.abort();
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    (bytes / seconds / 1e6, cpu / (bytes / 1e9))
}

async fn rate(tunnel: &Tunnel, hello: &[u8], time: Duration) -> f64 {
    let (stop, made) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let workers: Vec<_> = (0..16)
        .map(|_| {
            let (stop, made, at, hello) = (
                Arc::clone(&stop),
                Arc::clone(&made),
                tunnel.at,
                hello.to_vec(),
            );
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(tcp) = connect(at, &hello).await {
                        tcp.set_zero_linger().ok();
                        made.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    let began = Instant::now();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    let rate = made.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    for worker in workers {
        worker.await.unwrap();
    }
    rate
}

/// p50 and p99 in microseconds, of 64 bytes there and back.
async fn latency(tunnel: &Tunnel, hello: &[u8], loaded: usize, time: Duration) -> (f64, f64) {
    let mut load = Vec::new();
    for _ in 0..loaded {
        let mut tcp = connect(tunnel.at, hello).await.unwrap();
        tcp.write_u8(b'd').await.unwrap();
        load.push(tokio::spawn(async move {
            let mut buffer = vec![0; 256 * 1024];
            while let Ok(1..) = tcp.read(&mut buffer).await {}
        }));
    }
    let mut tcp = connect(tunnel.at, hello).await.unwrap();
    tcp.write_u8(b'p').await.unwrap();
    let mut times = Vec::new();
    let (began, mut buffer) = (Instant::now(), [1; 64]);
    while began.elapsed() < time {
        let sent = Instant::now();
        tcp.write_all(&buffer).await.unwrap();
        tcp.read_exact(&mut buffer).await.unwrap();
        times.push(sent.elapsed().as_secs_f64() * 1e6);
    }
    for reader in load {
        reader.abort();
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// KB for each connection that is idle.
async fn memory(tunnel: &Tunnel, hello: &[u8], idle: usize) -> f64 {
    let before = resident(tunnel);
    let mut open = Vec::new();
    for _ in 0..idle {
        open.push(connect(tunnel.at, hello).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let after = resident(tunnel);
    (after - before) / idle as f64
}

/// The programs, and what they started.
fn processes(tunnel: &Tunnel) -> Vec<u32> {
    let mut found: Vec<u32> = tunnel.programs.iter().map(Child::id).collect();
    let mut at = 0;
    while at < found.len() {
        let children = format!("/proc/{0}/task/{0}/children", found[at]);
        let children = std::fs::read_to_string(children).unwrap_or_default();
        found.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
        at += 1;
    }
    found
}

/// Seconds, with those of children that have ended.
fn cpu(tunnel: &Tunnel) -> f64 {
    let ticks = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit(") ").next().unwrap_or_default();
        let fields = after.split_whitespace().skip(11).take(4);
        fields
            .filter_map(|field| field.parse::<f64>().ok())
            .sum::<f64>()
    };
    processes(tunnel).into_iter().map(ticks).sum::<f64>()
        / rustix::param::clock_ticks_per_second() as f64
}

/// KB that are of these processes alone or their share of them.
fn resident(tunnel: &Tunnel) -> f64 {
    let share = |pid: u32| {
        let rollup =
            std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    processes(tunnel).into_iter().map(share).sum()
}

fn hello() -> Vec<u8> {
    let config = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), NAME.try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

async fn measure(arguments: &Arguments, tunnel: &Tunnel, hello: &[u8]) -> Vec<(&'static str, f64)> {
    let time = Duration::from_secs(arguments.seconds);
    // It may take a moment until the private end is there.
    let began = Instant::now();
    while connect(tunnel.at, hello).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(30), "no tunnel");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let memory = memory(tunnel, hello, arguments.idle).await;
    let (idle, idle_99) = latency(tunnel, hello, 0, time).await;
    let (loaded, loaded_99) = latency(tunnel, hello, 4, time).await;
    let rate = rate(tunnel, hello, time).await;
    let (one, cpu_one) = throughput(tunnel, hello, 1, time).await;
    let (many, cpu_many) = throughput(tunnel, hello, 100, time).await;
    vec![
        ("1 stream, MB/s", one),
        ("100 streams, MB/s", many),
        ("CPU s/GB, 1 stream", cpu_one),
        ("CPU s/GB, 100 streams", cpu_many),
        ("connections/s", rate),
        ("latency p50, us", idle),
        ("latency p99, us", idle_99),
        ("latency p50 under load, us", loaded),
        ("latency p99 under load, us", loaded_99),
        ("KB for an idle connection", memory),
    ]
}

#[tokio::main]
async fn main() {
    sotto_service::tls::install_provider();
    let arguments = Arguments::parse();
    let hello = hello();
    let server = server(hello.len()).await;
    let mut figures: BTreeMap<&str, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    let mut rows = Vec::new();
    for _ in 0..arguments.runs {
        let mut tunnels: Vec<(&str, Start<'_>)> = vec![(
            "sotto-tunnel",
            Box::new(|| sotto(&arguments.sotto, server, arguments.links)),
        )];
        if let Some(program) = &arguments.socat {
            tunnels.push(("socat", Box::new(move || socat(program, server))));
        }
        if let Some(program) = &arguments.rathole {
            tunnels.push(("rathole", Box::new(move || rathole(program, server))));
        }
        if let Some(program) = &arguments.bore {
            tunnels.push(("bore", Box::new(move || bore(program, server))));
        }
        for (name, start) in tunnels {
            let tunnel = start();
            let measured = measure(&arguments, &tunnel, &hello).await;
            rows = measured.iter().map(|(row, _)| *row).collect();
            for (row, value) in measured {
                figures
                    .entry(name)
                    .or_default()
                    .entry(row)
                    .or_default()
                    .push(value);
            }
        }
    }
    let median = |name: &str, row: &str| {
        let mut values = figures[name][row].clone();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    if arguments.json {
        println!(
            "{}",
            json!({ "runs": arguments.runs, "links": arguments.links, "idle": arguments.idle, "figures": figures })
        );
        return;
    }
    let names: Vec<&str> = figures.keys().copied().collect();
    println!(
        "| what | {} |\n|---|{}",
        names.join(" | "),
        "---:|".repeat(names.len())
    );
    for row in rows {
        let cells: Vec<String> = names
            .iter()
            .map(|name| format!("{:.1}", median(name, row)))
            .collect();
        println!("| {row} | {} |", cells.join(" | "));
    }
}
