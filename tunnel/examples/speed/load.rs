//! The server and the clients of a measurement, and the figures.
//!
//! What passes is a real ClientHello and a ServerHello, then bytes that are no
//! TLS: after the hellos a tunnel does not look, and whoever measures has the
//! processors for the tunnels.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::tunnels::Tunnel;
use crate::{Arguments, Figures};

/// What clients ask for.
pub const NAME: &str = "chat.example";
/// How long a connection may take, and a tunnel to be there.
const PATIENCE: Duration = Duration::from_secs(20);
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

/// What rustls sends first.
pub fn hello() -> Vec<u8> {
    let config = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), NAME.try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// Answers a hello of this length; then as its first byte says: `p` sends back
/// 64 bytes each time, `d` sends for ever.
pub async fn server(at: IpAddr, hello: usize) -> SocketAddr {
    let listener = TcpListener::bind((at, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(tcp, hello));
        }
    });
    at
}

async fn serve(mut tcp: TcpStream, hello: usize) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut buffer = vec![0; hello];
    tcp.read_exact(&mut buffer).await?;
    drop(buffer);
    tcp.write_all(&SERVER_HELLO).await?;
    if tcp.read_u8().await? == b'd' {
        let piece = vec![9; 256 * 1024];
        loop {
            tcp.write_all(&piece).await?;
        }
    }
    let mut buffer = [0; 64];
    loop {
        tcp.read_exact(&mut buffer).await?;
        tcp.write_all(&buffer).await?;
    }
}

/// The figures of a tunnel that are asked for, in the order of the table.
pub async fn measure(
    arguments: &Arguments,
    tunnel: &Tunnel,
    hello: &[u8],
) -> Vec<(&'static str, f64)> {
    let time = Duration::from_secs(arguments.seconds);
    let clients = Clients { tunnel, hello };
    clients.wait().await;
    let mut figures = Vec::new();
    if arguments.measures(Figures::Memory) {
        let [public, private] = clients.memory(arguments.idle).await;
        figures.push(("KiB for an idle connection, public end", public));
        figures.push(("KiB for an idle connection, private end", private));
    }
    if arguments.measures(Figures::Delay) {
        let (half, most) = clients.latency(0, time).await;
        figures.push(("there and back, p50, us", half));
        figures.push(("there and back, p99, us", most));
        let (half, most) = clients.latency(arguments.beside, time).await;
        figures.push(("beside full streams, p50, us", half));
        figures.push(("beside full streams, p99, us", most));
    }
    if arguments.measures(Figures::Rate) {
        let (rate, failed) = clients.rate(time).await;
        figures.push(("connections made, 1/s", rate));
        figures.push(("connections failed", failed));
    }
    if arguments.measures(Figures::One) {
        let (speed, cpu) = clients.throughput(1, time).await;
        figures.push(("one stream, MB/s", speed));
        figures.push(("CPU s/GB, one stream", cpu));
    }
    if arguments.measures(Figures::Many) {
        let (speed, cpu) = clients.throughput(arguments.streams, time).await;
        figures.push(("many streams, MB/s", speed));
        figures.push(("CPU s/GB, many streams", cpu));
    }
    figures
}

struct Clients<'a> {
    tunnel: &'a Tunnel,
    hello: &'a [u8],
}

impl Clients<'_> {
    /// It may take a moment until the private end is there.
    async fn wait(&self) {
        let began = Instant::now();
        while connect(self.tunnel.at, self.hello).await.is_err() {
            assert!(began.elapsed() < PATIENCE, "no tunnel");
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn connect(&self) -> TcpStream {
        connect(self.tunnel.at, self.hello).await.unwrap()
    }

    /// Reads so many endless streams until this is dropped.
    async fn readers(&self, streams: usize, total: &Arc<AtomicU64>) -> JoinSet<()> {
        // All before the first is full: none has to get past those.
        let mut connected = Vec::new();
        for _ in 0..streams {
            connected.push(self.connect().await);
        }
        let mut readers = JoinSet::new();
        for mut tcp in connected {
            tcp.write_u8(b'd').await.unwrap();
            let total = Arc::clone(total);
            readers.spawn(async move {
                let mut buffer = vec![0; 256 * 1024];
                while let Ok(length @ 1..) = tcp.read(&mut buffer).await {
                    total.fetch_add(length as u64, Ordering::Relaxed);
                }
            });
        }
        readers
    }

    /// MB in a second, and seconds of the processors for each GB.
    async fn throughput(&self, streams: usize, time: Duration) -> (f64, f64) {
        let total = Arc::default();
        let readers = self.readers(streams, &total).await;
        sleep(Duration::from_millis(500)).await;
        let (before, cpu) = (total.load(Ordering::Relaxed), self.tunnel.cpu());
        let began = Instant::now();
        sleep(time).await;
        let bytes = (total.load(Ordering::Relaxed) - before) as f64;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = self.tunnel.cpu() - cpu;
        drop(readers);
        sleep(Duration::from_millis(200)).await;
        (bytes / seconds / 1e6, cpu / (bytes / 1e9))
    }

    /// Connections in a second, and how many there should have been but were
    /// not.
    async fn rate(&self, time: Duration) -> (f64, f64) {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        let began = Instant::now();
        for _ in 0..16 {
            let (stop, at, hello) = (Arc::clone(&stop), self.tunnel.at, self.hello.to_vec());
            workers.spawn(async move {
                let (mut made, mut failed) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    match connect(at, &hello).await {
                        Ok(tcp) => {
                            tcp.set_zero_linger().ok();
                            made += 1;
                        }
                        Err(_) => {
                            failed += 1;
                            sleep(Duration::from_millis(10)).await;
                        }
                    }
                }
                (made, failed)
            });
        }
        sleep(time).await;
        stop.store(true, Ordering::Relaxed);
        let counts: Vec<(u32, u32)> = workers.join_all().await;
        let seconds = began.elapsed().as_secs_f64();
        let made: u32 = counts.iter().map(|(made, _)| made).sum();
        let failed: u32 = counts.iter().map(|(_, failed)| failed).sum();
        (f64::from(made) / seconds, f64::from(failed))
    }

    /// p50 and p99 in microseconds, of 64 bytes there and back.
    async fn latency(&self, loaded: usize, time: Duration) -> (f64, f64) {
        let load = self.readers(loaded, &Arc::default()).await;
        let mut tcp = self.connect().await;
        tcp.write_u8(b'p').await.unwrap();
        if loaded > 0 {
            sleep(Duration::from_millis(500)).await;
        }
        let mut times = Vec::new();
        let (began, mut buffer) = (Instant::now(), [1; 64]);
        while began.elapsed() < time {
            let sent = Instant::now();
            tcp.write_all(&buffer).await.unwrap();
            tcp.read_exact(&mut buffer).await.unwrap();
            times.push(sent.elapsed().as_secs_f64() * 1e6);
        }
        drop(load);
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2], times[times.len() * 99 / 100])
    }

    /// KiB for each connection that is idle, at the public and the private end.
    async fn memory(&self, idle: usize) -> [f64; 2] {
        let before = self.tunnel.resident();
        let mut open = Vec::new();
        for _ in 0..idle {
            open.push(self.connect().await);
        }
        sleep(Duration::from_millis(500)).await;
        let after = self.tunnel.resident();
        drop(open);
        // Their ends are not to be measured with what comes next.
        sleep(Duration::from_secs(1)).await;
        [0, 1].map(|end| (after[end] - before[end]) / idle as f64)
    }
}

async fn connect(at: SocketAddr, hello: &[u8]) -> io::Result<TcpStream> {
    let connecting = async {
        let mut tcp = TcpStream::connect(at).await?;
        tcp.set_nodelay(true)?;
        tcp.write_all(hello).await?;
        let mut answer = [0; SERVER_HELLO.len()];
        tcp.read_exact(&mut answer).await?;
        assert_eq!(answer, SERVER_HELLO);
        Ok(tcp)
    };
    timeout(PATIENCE, connecting).await?
}
