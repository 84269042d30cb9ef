//! A real Consul on this machine, and what may answer in its place.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fmt};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use sotto_service::consul::ConsulConfig;
use sotto_service::{Layout, ServerConfig};

use crate::process::{PATIENCE, Running};
use crate::server::free_address;

/// How long nothing is looked at again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a request of the tests' own may take.
const ANSWER: Duration = Duration::from_secs(10);

/// One agent that is a cluster of its own and remembers nothing. Killed when
/// dropped.
#[derive(Debug)]
pub struct Agent {
    http: SocketAddr,
    settings: String,
    running: Option<Running>,
}

/// The state of a program's check, with what it says.
pub type State = (String, String);

impl Agent {
    /// Starts one on ports that were free.
    ///
    /// # Errors
    /// When it does not answer in the end.
    pub fn start() -> anyhow::Result<Self> {
        let free = || anyhow::Ok(free_address()?.parse::<SocketAddr>()?);
        let http = free()?;
        let [serf_lan, serf_wan, server] = [free()?.port(), free()?.port(), free()?.port()];
        let settings = format!(
            "disable_update_check = true\n\
             ports {{\n http = {}\n dns = -1\n grpc = -1\n serf_lan = {serf_lan}\n \
             serf_wan = {serf_wan}\n server = {server}\n}}\n",
            http.port()
        );
        let mut agent = Self {
            http,
            settings,
            running: None,
        };
        agent.start_again()?;
        Ok(agent)
    }

    /// Starts one that was killed; it knows nothing of what it knew.
    ///
    /// # Errors
    /// When it does not answer in the end.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(program()?);
        command
            .args(["agent", "-dev", "-node", "test", "-log-level", "err"])
            .args(["-bind", "127.0.0.1", "-client", "127.0.0.1"])
            .args(["-disable-host-node-id", "-hcl", &self.settings]);
        let running = self.running.insert(Running::start(command, None)?);
        let started = Instant::now();
        loop {
            let leader = ask(self.http, "GET", "/v1/status/leader", "");
            if leader.is_ok_and(|(status, leader)| status == 200 && leader.trim().len() > 2) {
                return Ok(());
            }
            running.still_runs()?;
            ensure!(started.elapsed() < PATIENCE, "consul does not answer");
            thread::sleep(PAUSE);
        }
    }

    /// Ends it as a power cut would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let running = self.running.take().context("consul does not run")?;
        running.kill().map(drop)
    }

    /// Where its HTTP API is.
    pub fn address(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Writes a key.
    ///
    /// # Errors
    /// When it is not written.
    pub fn put(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let answer = ask(self.http, "PUT", &format!("/v1/kv/{key}"), value)?;
        ensure!(
            answer.1.trim() == "true",
            "{key} is not written: {answer:?}"
        );
        Ok(())
    }

    /// Removes a key.
    ///
    /// # Errors
    /// When it is not removed.
    pub fn remove(&self, key: &str) -> anyhow::Result<()> {
        let (status, said) = ask(self.http, "DELETE", &format!("/v1/kv/{key}"), "")?;
        ensure!(status == 200, "{key} is not removed: {status} {said}");
        Ok(())
    }

    /// Lists another program under this name, which never fails a check.
    ///
    /// # Errors
    /// When it is not listed.
    pub fn list(&self, id: &str, name: &str, meta: Value) -> anyhow::Result<()> {
        let service = json!({ "ID": id, "Name": name, "Meta": meta }).to_string();
        let (status, said) = ask(self.http, "PUT", "/v1/agent/service/register", &service)?;
        ensure!(status == 200, "{id} is not listed: {status} {said}");
        Ok(())
    }

    /// The states of all programs of this name.
    ///
    /// # Errors
    /// When it does not say.
    pub fn states(&self, name: &str) -> anyhow::Result<Vec<State>> {
        let (status, said) = ask(self.http, "GET", "/v1/agent/checks", "")?;
        ensure!(status == 200, "the agent's checks: {status} {said}");
        let checks: BTreeMap<String, Value> = serde_json::from_str(&said)?;
        let text = |check: &Value, field: &str| {
            let text = check.get(field).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let state = |check| (text(check, "Status"), text(check, "Output"));
        let checks = checks.values();
        let named = checks.filter(|check| text(check, "ServiceName") == name);
        Ok(named.map(state).collect())
    }

    /// Waits until the states of all programs of this name are as they should.
    ///
    /// # Errors
    /// When that does not happen.
    pub fn until(&self, name: &str, wanted: impl Fn(&[State]) -> bool) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let states = self.states(name);
            if states.as_ref().is_ok_and(|states| wanted(states)) {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("{name} is never as it should be: {states:?}");
            }
            thread::sleep(PAUSE);
        }
    }

    /// Who has the lock under this name now, whichever server's it is.
    ///
    /// # Errors
    /// When it does not say.
    pub fn holder(&self, name: &str) -> anyhow::Result<Option<String>> {
        let path = "/v1/kv/sotto/locks?recurse";
        let (status, said) = ask(self.http, "GET", path, "")?;
        if status == 404 {
            return Ok(None);
        }
        let keys: Value = serde_json::from_str(&said)?;
        let keys = keys.as_array().context("no list of keys")?;
        let text = |key: &Value, field: &str| Some(key.get(field)?.as_str()?.to_owned());
        let is_held = |key: &&Value| {
            text(key, "Key").is_some_and(|key| key.ends_with(name))
                && text(key, "Session").is_some()
        };
        let value = keys.iter().find(is_held).and_then(|key| text(key, "Value"));
        let value = value.map(|value| data_encoding::BASE64.decode(value.as_bytes()));
        Ok(value
            .transpose()?
            .map(|value| String::from_utf8_lossy(&value).into_owned()))
    }
}

/// Has a stopped server use this Consul.
///
/// # Errors
/// When its configuration does not read or write.
pub fn configure(layout: &Layout, address: &str) -> anyhow::Result<()> {
    let mut config = ServerConfig::load(layout)?;
    config.consul = Some(ConsulConfig::at(address.parse()?));
    Ok(config.save(layout)?)
}

/// The consul that `cargo xtask setup` unpacks.
fn program() -> anyhow::Result<PathBuf> {
    let here = env::current_exe().context("finding this program")?;
    let folders = here.ancestors();
    let mut candidates = folders.map(|folder| folder.join("tools/consul/usr/bin/consul"));
    let found = candidates.find(|path| path.is_file());
    found.context("consul is not there: run `cargo xtask setup` first")
}

/// HTTP/1.0, where an answer ends with the connection.
fn ask(to: SocketAddr, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
    let status = head.split(' ').nth(1).context("no status")?;
    Ok((status.parse()?, body.to_owned()))
}

/// How something that is no Consul answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// As a Consul would that says yes to everything, gives every lock to
    /// another, and wants every byte logged that a library sends.
    Plausible,
    /// With bytes that mean nothing.
    Garbage,
    /// With an answer that begins well and does not end.
    Endless,
    /// Not at all.
    Silent,
}

/// Answers in Consul's place until it is dropped.
pub struct Liar {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    lie: Mutex<Lie>,
    asked: Mutex<BTreeMap<Lie, usize>>,
    open: AtomicUsize,
    ended: AtomicBool,
}

impl Liar {
    /// Starts to.
    ///
    /// # Errors
    /// When there is no free port.
    pub fn start(lie: Lie) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            lie: Mutex::new(lie),
            asked: Mutex::default(),
            open: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.ended.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                thread::spawn(move || {
                    shared.open.fetch_add(1, Ordering::SeqCst);
                    // Ignored: whoever asked may have gone.
                    shared.answer(stream).ok();
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it answers.
    pub fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its port as an address to connect to.
    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// Answers so from now on, and returns when it was asked so often.
    ///
    /// # Errors
    /// When it is not asked any more.
    pub fn tells(&self, lie: Lie, times: usize) -> anyhow::Result<()> {
        *locked(&self.shared.lie) = lie;
        locked(&self.shared.asked).clear();
        let started = Instant::now();
        loop {
            let asked = locked(&self.shared.asked).get(&lie).copied();
            if asked.unwrap_or_default() >= times {
                return Ok(());
            }
            ensure!(
                started.elapsed() < PATIENCE,
                "nobody asks any more: {asked:?}"
            );
            thread::sleep(PAUSE);
        }
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Ignored: it wakes who accepts.
        TcpStream::connect(self.address).ok();
    }
}

impl fmt::Debug for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Liar")
            .field("address", &self.address)
            .finish()
    }
}

impl Shared {
    fn answer(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        let head = head(&mut stream)?;
        let lie = *locked(&self.lie);
        *locked(&self.asked).entry(lie).or_default() += 1;
        match lie {
            Lie::Plausible => {
                let body = plausible(&head);
                let length = body.len();
                // A little late, as what blocks is.
                thread::sleep(PAUSE);
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nConnection: close\r\n\
                     Content-Length: {length}\r\n\r\n{body}"
                )?;
            }
            Lie::Garbage => stream.write_all(&[0x80, 0xff, b'\r', b'\n', 0].repeat(500))?,
            Lie::Endless => {
                let head = "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Type: application/json";
                write!(stream, "{head}\r\n\r\n\"")?;
                let piece = [b'a'; 64 * 1024];
                while !self.ended.load(Ordering::SeqCst) {
                    stream.write_all(&piece)?;
                }
            }
            Lie::Silent => {
                stream.set_read_timeout(Some(PAUSE))?;
                // Until whoever asks has had enough, or something else is told.
                while *locked(&self.lie) == lie && !matches!(stream.read(&mut [0]), Ok(0)) {}
            }
        }
        Ok(())
    }
}

fn head(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(stream.read(&mut byte)? == 1, "no head");
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn plausible(head: &str) -> &'static str {
    let line = head.lines().next().unwrap_or_default();
    if line.contains("/session/create") {
        "{\"ID\": \"adf4238a-882b-9ddc-4a9d-5b6758e4159e\"}"
    } else if line.contains("?acquire=") {
        "false"
    } else if line.contains("/kv/sotto/log") {
        "h2=trace,hyper=trace,sotto=off"
    } else {
        ""
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
