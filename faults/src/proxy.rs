//! Moves bytes between a listener and a server by a [`Lane`] each way, and
//! counts them.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::lane::{Conditions, Fate, Lane, SEGMENT};
use crate::socket::{Listener, Place, Socket};

/// Segments that are on the way in one direction of a connection at most: what
/// the buffers of a sending and a receiving machine hold.
const IN_FLIGHT: usize = 128;

/// Bytes that are read at a time where no wire is slow or lossy.
const GULP: usize = 64 * 1024;

/// What went over a link so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that were accepted.
    pub connections: u64,
    /// Bytes towards the server.
    pub up: u64,
    /// Bytes from the server.
    pub down: u64,
    /// Times that the client had to wait for the server before it went on: a
    /// round trip each, and one more for each connection, which TCP needs to
    /// begin.
    pub round_trips: u64,
    /// Connections that were broken on purpose.
    pub broken: u64,
}

impl std::ops::Add for Traffic {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            connections: self.connections + more.connections,
            up: self.up + more.up,
            down: self.down + more.down,
            round_trips: self.round_trips + more.round_trips,
            broken: self.broken + more.broken,
        }
    }
}

impl std::ops::Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            connections: self.connections - before.connections,
            up: self.up - before.up,
            down: self.down - before.down,
            round_trips: self.round_trips - before.round_trips,
            broken: self.broken - before.broken,
        }
    }
}

/// One link, which all connections through it share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    epoch: Instant,
    state: Mutex<State>,
    /// Counts up when every connection is to break; what is cut stays silent.
    control: watch::Sender<Control>,
    counts: Counts,
}

#[derive(Debug)]
struct State {
    conditions: Conditions,
    rng: ChaCha8Rng,
    up: Lane,
    down: Lane,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Control {
    resets: u64,
    up_is_cut: bool,
    down_is_cut: bool,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    round_trips: AtomicU64,
    broken: AtomicU64,
}

/// One direction of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Towards the server.
    Up,
    /// From the server.
    Down,
}

impl Link {
    /// A link that is as bad as `conditions`; `seed` decides what is lost when.
    pub fn new(conditions: Conditions, seed: u64) -> Self {
        let state = State {
            conditions,
            rng: ChaCha8Rng::seed_from_u64(seed),
            up: Lane::default(),
            down: Lane::default(),
        };
        let shared = Shared {
            epoch: Instant::now(),
            state: Mutex::new(state),
            control: watch::channel(Control::default()).0,
            counts: Counts::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Makes the link better or worse from now on.
    pub fn set(&self, conditions: Conditions) {
        let mut state = self.state();
        state.conditions = conditions;
        (state.up, state.down) = (Lane::default(), Lane::default());
    }

    /// Nothing goes through any more, and nobody is told.
    pub fn cut(&self) {
        self.cut_way(Way::Up);
        self.cut_way(Way::Down);
    }

    /// Nothing goes through any more in one direction.
    pub fn cut_way(&self, way: Way) {
        self.shared
            .control
            .send_modify(|control| *control.cut(way) = true);
    }

    /// Undoes [`Link::cut`]: what was in flight arrives after all, as TCP
    /// would see to it.
    pub fn heal(&self) {
        self.shared.control.send_modify(|control| {
            (control.up_is_cut, control.down_is_cut) = (false, false);
        });
    }

    /// Breaks every connection.
    pub fn reset(&self) {
        self.shared
            .control
            .send_modify(|control| control.resets += 1);
    }

    /// What went over it so far.
    pub fn traffic(&self) -> Traffic {
        let counts = &self.shared.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Traffic {
            connections: read(&counts.connections),
            up: read(&counts.up),
            down: read(&counts.down),
            round_trips: read(&counts.round_trips),
            broken: read(&counts.broken),
        }
    }

    /// Listens at `place`; the returned future forwards what comes there to
    /// `server` for as long as it is polled. With port 0 the system chooses
    /// one: where it listens comes back.
    ///
    /// # Errors
    /// When nothing can listen there.
    pub async fn forward(
        &self,
        place: &Place,
        server: Place,
    ) -> io::Result<(Place, impl Future<Output = io::Result<()>> + Send + 'static)> {
        let listener = Listener::bind(place).await?;
        let listening = listener.place(place)?;
        let link = self.clone();
        let forwarding = async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (accepted, link, server) = (accepted?, link.clone(), server.clone());
                        connections.spawn(async move { link.carry(accepted, &server).await });
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        };
        Ok((listening, forwarding))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic half way.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries one connection to its end.
    async fn carry(&self, mut client: Socket, server: &Place) {
        self.shared
            .counts
            .connections
            .fetch_add(1, Ordering::Relaxed);
        self.shared
            .counts
            .round_trips
            .fetch_add(1, Ordering::Relaxed);
        // TCP's own handshake.
        let round_trip = 2 * self.state().conditions.delay;
        sleep(round_trip).await;
        let Ok(mut server) = Socket::connect(server).await else {
            return client.reset();
        };
        let (life, half_open) = {
            let mut state = self.state();
            let State {
                conditions, rng, ..
            } = &mut *state;
            let half_open = conditions.half_open.clamp(0.0, 1.0);
            (conditions.life(rng), rng.gen_bool(half_open))
        };
        let flights = Arc::new(Mutex::new(Way::Down));
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let mut control = self.shared.control.subscribe();
        let resets = control.borrow().resets;
        let ended = {
            let up = self.pump(Way::Up, client_read, server_write, Arc::clone(&flights));
            let down = self.pump(Way::Down, server_read, client_write, flights);
            let ends = async { tokio::try_join!(up, down).map(drop) };
            let dies = async {
                match life {
                    Some(life) => sleep(life).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = ends => ended,
                () = dies => Err(Broken::Lost),
                _ = control.wait_for(|control| control.resets > resets) => Err(Broken::Reset),
            }
        };
        let Err(broken) = ended else { return };
        if broken != Broken::End {
            self.shared.counts.broken.fetch_add(1, Ordering::Relaxed);
        }
        if half_open && broken == Broken::Lost {
            // Both sockets stay open and nobody reads or writes them.
            let _ = control.wait_for(|control| control.resets > resets).await;
        }
        client.reset();
        server.reset();
    }

    /// Moves what comes from `from` to `to`, each segment when it arrives.
    async fn pump(
        &self,
        way: Way,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        flights: Arc<Mutex<Way>>,
    ) -> Result<(), Broken> {
        let (sender, mut segments) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
        let reading = async move {
            loop {
                let mut segment = vec![0; self.segment()];
                let length = from.read(&mut segment).await.map_err(|_| Broken::End)?;
                if length == 0 {
                    return Ok(());
                }
                segment.truncate(length);
                self.count(way, length, &flights);
                let arrives = match self.send(way, length) {
                    Fate::Arrives(at) => self.shared.epoch + at,
                    Fate::Breaks(at) => {
                        sleep_until(self.shared.epoch + at).await;
                        return Err(Broken::Lost);
                    }
                };
                if sender.send((arrives, segment)).await.is_err() {
                    return Ok(());
                }
            }
        };
        let mut control = self.shared.control.subscribe();
        let writing = async move {
            while let Some((arrives, segment)) = segments.recv().await {
                sleep_until(arrives).await;
                // An error means that the link is gone, and this with it.
                let _ = control.wait_for(|control| !control.is_cut(way)).await;
                to.write_all(&segment).await.map_err(|_| Broken::End)?;
            }
            to.shutdown().await.map_err(|_| Broken::End)
        };
        tokio::try_join!(reading, writing).map(drop)
    }

    fn segment(&self) -> usize {
        let conditions = &self.state().conditions;
        match conditions.bits_per_second.is_some() || conditions.loss > 0.0 {
            true => SEGMENT,
            false => GULP,
        }
    }

    fn send(&self, way: Way, bytes: usize) -> Fate {
        let now = self.shared.epoch.elapsed();
        let mut state = self.state();
        let State {
            conditions,
            rng,
            up,
            down,
        } = &mut *state;
        let lane = match way {
            Way::Up => up,
            Way::Down => down,
        };
        lane.send(bytes, now, conditions, rng)
    }

    fn count(&self, way: Way, bytes: usize, flights: &Mutex<Way>) {
        let counts = &self.shared.counts;
        let count = match way {
            Way::Up => &counts.up,
            Way::Down => &counts.down,
        };
        count.fetch_add(bytes as u64, Ordering::Relaxed);
        let mut last = flights.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == Way::Down && way == Way::Up {
            counts.round_trips.fetch_add(1, Ordering::Relaxed);
        }
        *last = way;
    }
}

impl Control {
    fn cut(&mut self, way: Way) -> &mut bool {
        match way {
            Way::Up => &mut self.up_is_cut,
            Way::Down => &mut self.down_is_cut,
        }
    }

    fn is_cut(mut self, way: Way) -> bool {
        *self.cut(way)
    }
}

/// Why a connection does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// One of its ends broke it.
    End,
    /// The link lost it.
    Lost,
    /// Somebody asked for it.
    Reset,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    /// A server that says everything back, and a connection to it over `link`.
    async fn echo(link: &Link) -> TcpStream {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Place::Tcp(listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.ok();
                });
            }
        });
        let anywhere = Place::Tcp("127.0.0.1:0".parse().unwrap());
        let (place, forwarding) = link.forward(&anywhere, server).await.unwrap();
        tokio::spawn(forwarding);
        let Place::Tcp(address) = place else { panic!() };
        TcpStream::connect(address).await.unwrap()
    }

    async fn say_and_hear(stream: &mut TcpStream, content: &[u8]) -> Vec<u8> {
        let mut heard = vec![0; content.len()];
        let (mut read, mut write) = stream.split();
        let (said, heard_all) = tokio::join!(write.write_all(content), read.read_exact(&mut heard));
        said.unwrap();
        heard_all.unwrap();
        heard
    }

    #[tokio::test]
    async fn bytes_come_through_in_order_and_are_counted() {
        let bad = Conditions {
            bits_per_second: Some(4_000_000),
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(20),
            loss: 0.01,
            ..Conditions::GOOD
        };
        let link = Link::new(bad, 3);
        let mut stream = echo(&link).await;
        let content: Vec<u8> = (0..50_000u32).map(|n| (n % 251) as u8).collect();
        assert!(say_and_hear(&mut stream, &content).await == content);
        let traffic = link.traffic();
        assert_eq!((traffic.up, traffic.down), (50_000, 50_000));
    }

    #[tokio::test]
    async fn round_trips_are_those_that_the_client_waits_for() {
        let far = Conditions {
            delay: Duration::from_millis(20),
            ..Conditions::GOOD
        };
        let link = Link::new(far, 1);
        let mut stream = echo(&link).await;
        for _ in 0..3 {
            say_and_hear(&mut stream, b"ping").await;
        }
        assert_eq!(link.traffic().round_trips, 1 + 3);
    }

    #[tokio::test]
    async fn what_is_cut_is_silent_and_goes_on_when_healed() {
        let link = Link::new(Conditions::GOOD, 1);
        let mut stream = echo(&link).await;
        say_and_hear(&mut stream, b"before").await;
        link.cut();
        let silent = timeout(
            Duration::from_millis(200),
            say_and_hear(&mut stream, b"meanwhile"),
        );
        assert!(silent.await.is_err());
        link.heal();
        let mut heard = [0; 9];
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"meanwhile");
    }

    #[tokio::test]
    async fn what_is_cut_one_way_goes_on_the_other() {
        let link = Link::new(Conditions::GOOD, 1);
        let mut stream = echo(&link).await;
        link.cut_way(Way::Down);
        stream.write_all(b"heard").await.unwrap();
        while link.traffic().down < 5 {
            // The server has heard it, and its answer does not come through.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut heard = [0; 5];
        let silent = timeout(Duration::from_millis(200), stream.read_exact(&mut heard));
        assert!(silent.await.is_err());
        link.heal();
        stream.read_exact(&mut heard).await.unwrap();
    }

    #[tokio::test]
    async fn a_reset_is_felt_and_the_next_connection_works() {
        let link = Link::new(Conditions::GOOD, 1);
        let mut stream = echo(&link).await;
        say_and_hear(&mut stream, b"before").await;
        link.reset();
        let error = stream.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        say_and_hear(&mut echo(&link).await, b"after").await;
        assert_eq!(link.traffic().broken, 1);
    }

    #[tokio::test]
    async fn a_half_open_connection_says_nothing() {
        let short = Conditions {
            life: Some(Duration::from_millis(1)),
            half_open: 1.0,
            ..Conditions::GOOD
        };
        let link = Link::new(short, 1);
        let mut stream = echo(&link).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Taken by the buffers of the system, and never seen again.
        stream.write_all(b"hello").await.unwrap();
        let mut heard = [0; 1];
        let silent = timeout(Duration::from_millis(200), stream.read(&mut heard));
        assert!(silent.await.is_err());
    }
}
