//! `sotto-relay cluster status`: the nodes, and where everything is kept.

use anyhow::Result;
use async_nats::Client;
use serde::Serialize;
use sotto_service::cluster::{Cluster, Members};
use sotto_service::nats::jetstream::Group;

use super::group;
use super::streams::{self, Stream};

/// What is shown.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The node that leads the group of servers; none while there is no
    /// majority.
    leader: Option<String>,
    nodes: Vec<NodeStatus>,
    streams: Vec<Stream>,
    /// Who is away, or what is behind, so that no node should be stopped now.
    unsettled: Option<String>,
}

#[derive(Debug, Serialize)]
struct NodeStatus {
    name: String,
    nats_url: String,
    keeps_keys: bool,
    state: NodeState,
    /// Entries of the group that it is behind.
    lag: u64,
}

/// How a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum NodeState {
    /// It has everything that the group agreed on.
    Current,
    /// It is catching up.
    Behind,
    /// It does not answer.
    Away,
    /// It was let in and has not come yet.
    Expected,
    /// Nobody leads, so that nobody knows.
    Unknown,
}

impl Status {
    /// Asks the servers.
    ///
    /// # Errors
    /// When none answers.
    pub async fn ask(cluster: &Cluster, system: &Client) -> Result<Self> {
        let group = group::ask(system).await;
        let nodes = cluster.members.nodes.iter().map(|node| {
            let (state, lag) = state(group.as_ref(), node.name.as_str());
            NodeStatus {
                name: node.name.to_string(),
                nats_url: node.nats_url.clone(),
                keeps_keys: node.keeps_keys,
                state,
                lag,
            }
        });
        let nodes = nodes.collect();
        let streams = streams::all(system).await?;
        Ok(Self {
            nodes,
            unsettled: unsettled(&cluster.members, group.as_ref(), &streams),
            streams,
            leader: group.map(|group| group.leader),
        })
    }

    /// Why no node should be stopped now; nothing when every node is there and
    /// has everything.
    pub fn unsettled(&self) -> Option<&str> {
        self.unsettled.as_deref()
    }

    /// Whether a majority of the nodes is there.
    pub fn is_led(&self) -> bool {
        self.leader.is_some()
    }

    /// For people.
    #[expect(clippy::print_stdout, reason = "the status is what was asked for")]
    pub fn print(&self) {
        println!("{:<16} {:<10} {:>8}  clients", "node", "state", "behind");
        for node in &self.nodes {
            let mut state = format!("{:?}", node.state).to_lowercase();
            if self.leader.as_ref() == Some(&node.name) {
                state.push_str(", leads");
            }
            let keys = if node.keeps_keys {
                " (keeps the keys)"
            } else {
                ""
            };
            println!(
                "{:<16} {state:<15} {:>3}  {}{keys}",
                node.name, node.lag, node.nats_url
            );
        }
        println!(
            "\n{:<12} {:<18} {:>6}  {:<16} behind",
            "org", "stream", "copies", "leader"
        );
        for stream in &self.streams {
            let leader = stream.leader.as_deref().unwrap_or("nobody");
            println!(
                "{:<12} {:<18} {:>6}  {leader:<16} {}",
                stream.account,
                stream.name,
                stream.copies,
                stream.behind.join(", ")
            );
        }
        match &self.unsettled {
            None => println!("\nevery node is there and has everything"),
            Some(why) => println!("\nstop no node now: {why}"),
        }
    }
}

/// What is waited for before a node is stopped on purpose.
fn unsettled(members: &Members, group: Option<&Group>, streams: &[Stream]) -> Option<String> {
    let Some(group) = group else {
        return Some("no majority of the nodes is there".to_owned());
    };
    let nodes = group::unsettled(group, members, &[]);
    nodes.or_else(|| {
        let copies = members.replicas();
        streams.iter().find_map(|stream| stream.unsettled(copies))
    })
}

fn state(group: Option<&Group>, name: &str) -> (NodeState, u64) {
    let Some(group) = group else {
        return (NodeState::Unknown, 0);
    };
    if group.leader == name {
        return (NodeState::Current, 0);
    }
    match group.follower(name) {
        None => (NodeState::Expected, 0),
        Some(node) if node.offline => (NodeState::Away, node.lag),
        Some(node) if node.current => (NodeState::Current, node.lag),
        Some(node) => (NodeState::Behind, node.lag),
    }
}
