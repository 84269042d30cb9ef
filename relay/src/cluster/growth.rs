//! Has every stream of an org kept on as many nodes as there should be copies
//! of it. The node that leads the group of servers does it, one stream at a
//! time, and only while every node is there and has everything.

use std::time::Duration;

use async_nats::Client;
use sotto_log::Known;
use sotto_proto::OrgName;
use sotto_service::cluster::{Members, NodeName};
use sotto_service::nats::jetstream::Group;
use sotto_service::replicas::{self, CopiesError};
use tokio::sync::watch;

use super::group;

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is to be kept on enough nodes.
pub struct Growth {
    /// This node.
    pub node: NodeName,
    /// The nodes.
    pub members: watch::Receiver<Members>,
    /// Who of them is there.
    pub group: watch::Receiver<Option<Group>>,
}

impl Growth {
    /// Looks after the streams of one org, through the relay's connection to
    /// its account, until it is dropped.
    pub async fn look_after(self, org: OrgName, client: Client, streams: Vec<String>) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = self.once(&org, &client, &streams).await {
                sotto_log::warn!(error, org, "streams are not kept on enough nodes yet");
            }
        }
    }

    async fn once(
        &self,
        org: &OrgName,
        client: &Client,
        streams: &[String],
    ) -> Result<(), CopiesError> {
        let members = self.members.borrow().clone();
        let settled = match &*self.group.borrow() {
            Some(group) if group.leader == self.node.as_str() => {
                group::unsettled(group, &members, &[]).is_none()
            }
            _ => return Ok(()),
        };
        if !settled {
            return Ok(());
        }
        let wanted = members.replicas();
        for stream in streams {
            let Some(copies) = replicas::copies(client, stream).await? else {
                continue;
            };
            if copies.wanted < wanted && copies.leader.is_some() {
                sotto_log::info!(
                    org,
                    stream = Known(stream),
                    wanted,
                    "a stream is kept on more nodes from now on"
                );
                replicas::keep_on(client, stream, wanted).await?;
            }
        }
        Ok(())
    }
}
