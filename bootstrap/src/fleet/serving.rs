//! Waiting until what was started serves, and until everything is kept as often
//! as it should be.

use std::time::Duration;

use serde::Deserialize;
use sotto_service::Layout;
use sotto_service::cluster::{REPLICAS, REPLICAS_FROM};
use sotto_service::readiness::Ready;
use tokio::time::{Instant, sleep};

use super::MachineError;
use crate::facts::Role;
use crate::ssh::{Input, Ssh};
use crate::{PROGRAMS_DIR, USER, scripts};

/// How long a program may take until it serves.
const STARTING: Duration = Duration::from_secs(180);
/// How often it may end before that.
const RESTARTS: u32 = 5;
/// How long the copies may take to grow.
const GROWING: Duration = Duration::from_secs(600);
/// How long nothing is asked again.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest of what a unit said last that is shown, in characters.
const SAID: usize = 1_000;

/// Starts a unit, or restarts it, and waits until its program serves.
pub(super) async fn start(
    ssh: &Ssh,
    dir: &str,
    role: Role,
    how: &'static str,
) -> Result<(), MachineError> {
    let unit = role.unit();
    let words = [unit.as_str(), how];
    ssh.run(scripts::START_UNIT, &words, Input::Nothing).await?;
    let layout = Layout::new(dir);
    let file = match role {
        Role::Relay => layout.relay_ready(),
        Role::Gateway => layout.gateway_ready(),
    };
    let file = file.display().to_string();
    let deadline = Instant::now() + STARTING;
    loop {
        let words = [unit.as_str(), &file];
        let said = ssh.run(scripts::SERVING, &words, Input::Nothing).await?;
        let now = Serving::parse(&said).ok_or(MachineError::Answer("systemctl show"))?;
        if now.serves {
            return Ok(());
        }
        if now.restarts >= RESTARTS || Instant::now() >= deadline {
            let said = ssh.run(scripts::JOURNAL, &[&unit], Input::Nothing).await?;
            let said = String::from_utf8_lossy(&said);
            let why = match said.trim() {
                "" => "it does not say why".to_owned(),
                said => format!("it said\n{}", said.chars().take(SAID).collect::<String>()),
            };
            return Err(MachineError::Unready { unit, why });
        }
        sleep(PAUSE).await;
    }
}

/// Waits until every node is there and everything is kept as often as it
/// should be.
pub(super) async fn settle(ssh: &Ssh, dir: &str) -> Result<(), MachineError> {
    let program = format!("{PROGRAMS_DIR}/sotto-relay");
    let words = [USER, &program, "cluster", "status", "--json", "--dir", dir];
    let deadline = Instant::now() + GROWING;
    loop {
        let said = ssh.run(scripts::AS_USER, &words, Input::Nothing).await?;
        let status: Option<Status> = serde_json::from_slice(&said).ok();
        let status = status.ok_or(MachineError::Answer("sotto-relay cluster status"))?;
        match status.unsettled() {
            None => return Ok(()),
            Some(why) if Instant::now() >= deadline => return Err(MachineError::Unsettled(why)),
            Some(_) => sleep(PAUSE).await,
        }
    }
}

/// How a unit is.
#[derive(Debug, PartialEq, Eq)]
struct Serving {
    restarts: u32,
    /// Its process is the one that says that it serves: another may have left
    /// its file behind.
    serves: bool,
}

impl Serving {
    fn parse(said: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(said).ok()?;
        let mut lines = text.splitn(3, '\n');
        let pid: u32 = lines.next()?.parse().ok()?;
        let restarts = lines.next()?.parse().ok()?;
        let ready: Option<Ready> = serde_json::from_str(lines.next()?).ok();
        Some(Self {
            restarts,
            serves: ready.is_some_and(|ready| pid != 0 && ready.pid == pid),
        })
    }
}

/// What of `sotto-relay cluster status --json` is of interest.
#[derive(Deserialize)]
struct Status {
    nodes: Vec<NodeStatus>,
    streams: Vec<Stream>,
}

#[derive(Deserialize)]
struct NodeStatus {
    name: String,
    state: String,
}

#[derive(Deserialize)]
struct Stream {
    account: String,
    name: String,
    copies: usize,
    leader: Option<String>,
    behind: Vec<String>,
}

impl Status {
    fn unsettled(&self) -> Option<String> {
        let absent = self.nodes.iter().find(|node| node.state != "current");
        if let Some(node) = absent {
            return Some(format!("the node {} is {}", node.name, node.state));
        }
        let copies = match self.nodes.len() {
            ..REPLICAS_FROM => 1,
            REPLICAS_FROM.. => REPLICAS,
        };
        let settled = |stream: &&Stream| {
            stream.copies >= copies && stream.leader.is_some() && stream.behind.is_empty()
        };
        let mut streams = self.streams.iter();
        let stream = streams.find(|stream| !settled(stream))?;
        Some(format!(
            "{} of {} has {} of {copies} copies",
            stream.name, stream.account, stream.copies
        ))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_left_a_file_behind_does_not_serve() {
        let ready = r#"{"pid":17,"url":"tls://localhost:4222"}"#;
        let serves = |said: String| Serving::parse(said.as_bytes()).map(|now| now.serves);
        assert_eq!(serves(format!("17\n0\n{ready}")), Some(true));
        assert_eq!(serves(format!("18\n1\n{ready}")), Some(false));
        assert_eq!(serves("17\n0\n".to_owned()), Some(false));
        assert_eq!(
            serves("0\n0\n{\"pid\":0,\"url\":\"\"}".to_owned()),
            Some(false)
        );
        assert_eq!(serves("hello".to_owned()), None);
    }

    #[test]
    fn three_nodes_keep_everything_three_times() {
        let unsettled = |state: &str, copies: u8, behind: &[&str]| {
            let nodes = ["n1", "n2", "n3"].map(|name| json!({"name": name, "state": state}));
            let stream = json!({
                "account": "acme", "name": "INBOX", "copies": copies, "leader": "n1",
                "behind": behind,
            });
            let status = json!({"nodes": nodes, "streams": [stream], "leader": "n1"});
            serde_json::from_value::<Status>(status)
                .unwrap()
                .unsettled()
        };
        assert_eq!(unsettled("current", 3, &[]), None);
        assert!(unsettled("current", 1, &[]).unwrap().contains("1 of 3"));
        assert!(unsettled("current", 3, &["n2"]).is_some());
        assert!(unsettled("expected", 3, &[]).unwrap().contains("n1"));
    }
}
