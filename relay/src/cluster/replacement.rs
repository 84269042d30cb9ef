//! A node that is lost for good, and the machine that takes its place.
//!
//! Who makes a token for that ([`ask`]) has a machine let in while the lost
//! node is away. From then on that is none: it is struck off the list of nodes
//! in the same write that adds the other one, so that no node takes a route
//! from it. nats-server's group of servers forgets it ([`Forgetting`]) only
//! when the new node is in the group: whatever was kept on the lost one is
//! given to the new one then, and nothing is ever to be kept fewer times.
//! What is still to be forgotten is in the list, so that any node that keeps
//! the keys goes on with it, whoever is killed meanwhile.
//!
//! No node may be forgotten here that an operator did not say is lost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::Client;
use sotto_service::cluster::{self, Cluster, Member, Members, NODE, NodeName};
use sotto_service::nats::jetstream::Group;
use sotto_service::{Layout, private_files};
use tokio::sync::watch;

use super::{exchange, group, remove};

/// How often it is looked whether a node can be forgotten.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a relay that is there may take to show its certificate.
const REACHING: Duration = Duration::from_secs(3);

/// Finds out whether a machine may be let in for this node.
///
/// # Errors
/// Why not, and what to do instead.
pub async fn ask(
    layout: &Layout,
    cluster: &Cluster,
    system: &Client,
    name: &NodeName,
) -> Result<()> {
    ensure!(
        *name != cluster.node.name,
        "this is {name} itself: a machine is let in for it from another node, once it is lost"
    );
    let lost = cluster.members.get(name);
    let lost = lost.with_context(|| no_member(&cluster.members, name))?;
    let group = group::ask(system).await;
    let group = group.context(
        "no majority of the nodes is there: nobody can be replaced before they come back",
    )?;
    ensure!(!group::answers(&group, name), is_there(name));
    is_silent(layout, lost).await
}

/// Why nobody is let in for a node that is in no list.
pub fn no_member(members: &Members, name: &NodeName) -> String {
    match members.replaced.contains(name) {
        true => format!(
            "another machine was let in for {name} already: if that one is lost, too, replace it by its own name (`sotto-relay cluster status`)"
        ),
        false => format!("there is no node {name}: see `sotto-relay cluster status`"),
    }
}

/// Why nobody is let in for a node that answers the others.
pub fn is_there(name: &NodeName) -> String {
    format!(
        "{name} is there, or was some seconds ago: if it is lost try again in a moment; if it is to go, stop its relay first; for one node more leave out --replaces"
    )
}

/// Whether nobody answers who has the key of this node, wherever its
/// nats-server is.
///
/// # Errors
/// When its relay does.
pub async fn is_silent(layout: &Layout, node: &Member) -> Result<()> {
    ensure!(
        !relay_answers(layout, node).await,
        "the relay of {} answers at {}: wait until its nats-server is there again, or stop it for good first",
        node.name,
        node.admission
    );
    Ok(())
}

async fn relay_answers(layout: &Layout, node: &Member) -> bool {
    let asked = async {
        let stream = exchange::reach(layout, node, NODE).await?;
        let shown = stream.get_ref().1.peer_certificates();
        let shown = shown.and_then(<[_]>::first);
        anyhow::Ok(shown.is_some_and(|shown| cluster::fingerprint(shown) == node.certificate))
    };
    let asked = tokio::time::timeout(REACHING, asked).await;
    matches!(asked, Ok(Ok(true)))
}

/// Has the group of servers forget replaced nodes.
pub struct Forgetting {
    /// Where the list is.
    pub layout: Layout,
    /// This node.
    pub node: NodeName,
    /// The nodes, which are told that it is done.
    pub members: Arc<watch::Sender<Members>>,
    /// Who of them is there.
    pub group: watch::Receiver<Option<Group>>,
}

impl Forgetting {
    /// Goes on until it is dropped.
    pub async fn run(self, system: Client) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = self.once(&system).await {
                sotto_log::warn!(error, "a replaced node is not forgotten yet");
            }
        }
    }

    async fn once(&self, system: &Client) -> Result<()> {
        let members = self.members.borrow().clone();
        let group = self.group.borrow().clone();
        let name = group.and_then(|group| to_forget(&self.node, &members, &group));
        let Some(name) = name else {
            return Ok(());
        };
        remove::forget(system, &name).await?;
        // A command may be changing the list.
        let _locked = private_files::lock(&self.layout.cluster())?;
        let members = Members::load(&self.layout)?.with_forgotten(&name);
        members.save(&self.layout)?;
        self.members.send_replace(members);
        sotto_log::info!(node = name, "a replaced node is forgotten");
        Ok(())
    }
}

/// Which replaced node this one is to have forgotten now. Of those that keep
/// the keys the first does it; every node is there and has everything, so that
/// what was kept on the replaced one has a place to go to.
fn to_forget(node: &NodeName, members: &Members, group: &Group) -> Option<NodeName> {
    let keeper = members.nodes.iter().find(|node| node.keeps_keys)?;
    let name = members.replaced.first()?;
    let can = keeper.name == *node
        && group::unsettled(group, members, &members.replaced).is_none()
        && !group::answers(group, name);
    can.then(|| name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{group, members, name};

    #[test]
    fn a_replaced_node_is_forgotten_when_every_other_is_there_and_by_one_of_them() {
        let mut members = members(&["a", "b", "d"]);
        members.replaced.push(name("c"));
        let [one, other] = [name("a"), name("b")];
        let waiting = group(&[("b", true), ("c", false)]);
        assert_eq!(to_forget(&one, &members, &waiting), None);
        let come = group(&[("b", true), ("c", false), ("d", true)]);
        assert_eq!(to_forget(&one, &members, &come), Some(name("c")));
        assert_eq!(to_forget(&other, &members, &come), None);
        // Killed after the group forgot it: only the list still says so.
        let forgot = group(&[("b", true), ("d", true)]);
        assert_eq!(to_forget(&one, &members, &forgot), Some(name("c")));
        for early in [
            group(&[("b", true), ("c", false), ("d", false)]),
            group(&[("b", false), ("c", false), ("d", true)]),
            // It has a route still.
            group(&[("b", true), ("c", true), ("d", true)]),
        ] {
            assert_eq!(to_forget(&one, &members, &early), None, "{early:?}");
        }
        members.replaced.clear();
        assert_eq!(to_forget(&one, &members, &come), None);
    }
}
