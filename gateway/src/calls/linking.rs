//! The mailbox through which a new device and an old one of the same user find
//! each other. What is in it is sealed or public; the gateway only passes it on.

use std::time::Duration;

use bytes::Bytes;
use sotto_proto::wire::{LinkBody, LinkGet, LinkPut, LinkSlot, LinkStored};
use sotto_proto::{RendezvousId, limits};
use tokio::time::{Instant, sleep};

use crate::caller::Anyone;
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::refusal::Refusal;

/// Longest wait for a slot to be written.
const WAIT: Duration = Duration::from_secs(25);
/// How often a slot that is waited for is looked at.
const LOOK: Duration = Duration::from_millis(200);

impl Serve for LinkPut {
    type Caller = Anyone;

    /// The same body again is fine: the first answer may have got lost.
    async fn serve(self, gateway: &Gateway, _: Anyone) -> Result<LinkStored, Refusal> {
        let org = gateway.org(&self.org)?;
        let key = key(&self.rendezvous, self.slot())?;
        if !(1..=limits::LINK_BODY).contains(&self.body.len()) {
            return Err(Refusal::malformed("length of the body"));
        }
        let decide = |written: Option<Bytes>| match written {
            None => Ok((Some(self.body.clone()), LinkStored {})),
            Some(written) if written == self.body => Ok((None, LinkStored {})),
            Some(_) => Err(Refusal::Conflict(
                "another device took part in this linking: start again with a new link".to_owned(),
            )),
        };
        org.buckets().links.change(&key, decide).await
    }
}

impl Serve for LinkGet {
    type Caller = Anyone;

    async fn serve(self, gateway: &Gateway, _: Anyone) -> Result<LinkBody, Refusal> {
        let org = gateway.org(&self.org)?;
        let key = key(&self.rendezvous, self.slot())?;
        let wait = Duration::from_millis(self.wait_ms.into()).min(WAIT);
        let until = Instant::now() + wait;
        let _waiting = gateway.waits().try_acquire().map_err(|_| {
            Refusal::TooMany(
                "too many devices are being linked at this moment: try again in a minute"
                    .to_owned(),
            )
        })?;
        loop {
            let body: Option<Bytes> = org.buckets().links.get(&key).await?;
            if body.is_some() || Instant::now() + LOOK > until {
                return Ok(LinkBody { body });
            }
            sleep(LOOK).await;
        }
    }
}

fn key(rendezvous: &Bytes, slot: LinkSlot) -> Result<String, Refusal> {
    let rendezvous = RendezvousId::try_from(rendezvous)?;
    let slot = match slot {
        LinkSlot::Unspecified => return Err(Refusal::malformed("slot")),
        LinkSlot::Commitment => "commitment",
        LinkSlot::Nonce => "nonce",
        LinkSlot::Reveal => "reveal",
        LinkSlot::Payload => "payload",
    };
    Ok(format!("{rendezvous}.{slot}"))
}
