//! A real Consul on this machine, open or guarded, and what may answer in its
//! place.

mod guard;
mod liar;

use std::collections::BTreeMap;
use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use sotto_faults::ports;
use sotto_service::consul::ConsulConfig;
use sotto_service::{Layout, ServerConfig};

use crate::process::{PATIENCE, Running};

pub use guard::Guarded;
pub use liar::{Liar, Lie};

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
    /// What the tests themselves show it.
    token: Option<&'static str>,
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
        Self::start_with(None, None, "")
    }

    /// Starts one that speaks TLS there, too, to which the tests show a token.
    fn start_with(
        token: Option<&'static str>,
        https: Option<SocketAddr>,
        settings: &str,
    ) -> anyhow::Result<Self> {
        let http = ports::free()?;
        let [serf_lan, serf_wan, server] = [
            ports::free()?.port(),
            ports::free()?.port(),
            ports::free()?.port(),
        ];
        let settings = format!(
            "disable_update_check = true\n\
             ports {{\n http = {}\n https = {}\n dns = -1\n grpc = -1\n serf_lan = {serf_lan}\n \
             serf_wan = {serf_wan}\n server = {server}\n}}\n{settings}",
            http.port(),
            https.map_or(-1, |https| https.port().into()),
        );
        let mut agent = Self {
            http,
            settings,
            token,
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
        self.running = Some(Running::start(command, None)?);
        let started = Instant::now();
        loop {
            let leader = self.ask("GET", "/v1/status/leader", "");
            if leader.is_ok_and(|(status, leader)| status == 200 && leader.trim().len() > 2) {
                return Ok(());
            }
            let running = self.running.as_mut().context("consul does not run")?;
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

    /// HTTP/1.0, where an answer ends with the connection.
    fn ask(&self, method: &str, path: &str, body: &str) -> anyhow::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.http, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let (length, token) = (body.len(), self.token.unwrap_or_default());
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nX-Consul-Token: {token}\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no head")?;
        let status = head.split(' ').nth(1).context("no status")?;
        Ok((status.parse()?, body.to_owned()))
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
        let answer = self.ask("PUT", &format!("/v1/kv/{key}"), value)?;
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
        let (status, said) = self.ask("DELETE", &format!("/v1/kv/{key}"), "")?;
        ensure!(status == 200, "{key} is not removed: {status} {said}");
        Ok(())
    }

    /// Lists another program under this name, which never fails a check.
    ///
    /// # Errors
    /// When it is not listed.
    pub fn list(&self, id: &str, name: &str, meta: Value) -> anyhow::Result<()> {
        let service = json!({ "ID": id, "Name": name, "Meta": meta }).to_string();
        let (status, said) = self.ask("PUT", "/v1/agent/service/register", &service)?;
        ensure!(status == 200, "{id} is not listed: {status} {said}");
        Ok(())
    }

    /// The states of all programs of this name.
    ///
    /// # Errors
    /// When it does not say.
    pub fn states(&self, name: &str) -> anyhow::Result<Vec<State>> {
        let (status, said) = self.ask("GET", "/v1/agent/checks", "")?;
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
        let (status, said) = self.ask("GET", path, "")?;
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
    configure_with(layout, ConsulConfig::at(address.parse()?))
}

/// The same with all there is to say.
///
/// # Errors
/// As [`configure`].
pub fn configure_with(layout: &Layout, consul: ConsulConfig) -> anyhow::Result<()> {
    let mut config = ServerConfig::load(layout)?;
    config.consul = Some(consul);
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
