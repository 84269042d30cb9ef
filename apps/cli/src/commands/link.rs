//! `sotto device`: a second device, linked by the first. Both show the same
//! short code; only when a person has compared it are keys handed over.

use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use prost::Message;
use rand::rngs::OsRng;
use serde_json::json;
use sotto_client_core::io::{Command, Timestamp};
use sotto_client_core::link::{NewDevice, OldDevice, ShortCode};
use sotto_client_native::gateway::{Gateway, GatewayError};
use sotto_proto::wire::{self, LinkSlot};
use sotto_proto::{DeviceId, DeviceLink, GatewayAddress, RendezvousId, limits};
use tokio::time::{sleep, timeout};

use crate::commands::login;
use crate::device::Context;
use crate::output::Output;
use crate::{prompt, qr};

/// How long the gateway is asked to hold a request for a slot, in ms.
const HOLD: u32 = 20_000;

/// Before the gateway is asked again.
const PAUSE: Duration = Duration::from_millis(250);

/// On the device that is new.
pub async fn new_device(context: &Context, address: GatewayAddress) -> anyhow::Result<()> {
    context.home.check_vacant()?;
    let passphrase = context.passphrase().choose()?;
    let gateway = Gateway::new(address.clone(), context.clock)?;
    let info = login::server_info(context, &gateway).await?;
    let (new, link) = NewDevice::start(address, &mut OsRng)?;
    let mailbox = Mailbox {
        gateway: &gateway,
        rendezvous: link.rendezvous,
    };
    show_link(context.output, &link)?;

    let output = context.output;
    let waiting = mailbox.get(LinkSlot::Commitment);
    let commitment = output
        .patiently("Waiting for the other device", waiting)
        .await?;
    let (new, nonce) = new.answer(&commitment)?;
    mailbox.put(LinkSlot::Nonce, nonce.encode_to_vec()).await?;
    let reveal = mailbox.get(LinkSlot::Reveal).await?;
    let (new, code) = new.reveal(&reveal)?;
    show_code(output, &code, "Type this code on the other device")?;
    let waiting = mailbox.get(LinkSlot::Payload);
    let payload = output
        .patiently("Waiting for the code to be typed there", waiting)
        .await?;
    let account = new.payload(&payload, &info)?;
    login::welcome(context, context.home.create(account, &passphrase)?).await
}

fn show_link(output: Output, link: &DeviceLink) -> anyhow::Result<()> {
    let text = link.to_string();
    let code = qr::code(&text)?;
    let expires = limits::LINK.as_secs() / 60;
    output.say(
        &json!({ "event": "link", "link": text }),
        format_args!(
            "{code}\n\nOn a device that has your account, scan this or type, within {expires} minutes:\n  sotto device approve '{text}'\n"
        ),
    )?;
    Ok(())
}

fn show_code(output: Output, code: &ShortCode, advice: &str) -> anyhow::Result<()> {
    let json = json!({ "event": "code", "code": code.to_string() });
    output.say(&json, format_args!("\n    {code}\n\n{advice}."))?;
    Ok(())
}

/// On the device that has the account.
pub async fn old_device(context: &Context, link: DeviceLink) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let start = link.clone();
    let started = device
        .session
        .look(move |engine, _| OldDevice::start(&start, engine.account()));
    let (old, commitment) = started.await??;
    // The mailbox is at the gateway that this device knows: the link may name
    // the same one by another address.
    let address = device
        .session
        .look(|engine, _| engine.account().gateway.clone());
    let gateway = Gateway::new(address.await?, context.clock)?;
    let mailbox = Mailbox {
        gateway: &gateway,
        rendezvous: link.rendezvous,
    };
    let output = context.output;
    mailbox.put(LinkSlot::Commitment, commitment).await?;
    let waiting = mailbox.get(LinkSlot::Nonce);
    let nonce = output
        .patiently("Waiting for the new device", waiting)
        .await?;
    let nonce = wire::LinkNonce::decode(nonce).context("the new device's answer does not read")?;
    let new = DeviceId::try_from(&nonce.device)?;
    // The server's time: this machine's clock may be wrong.
    let now = Timestamp(login::server_info(context, &gateway).await?.now_ms);
    let answered = device
        .session
        .look(move |engine, _| old.nonce(&nonce, engine.account(), now));
    let (confirming, reveal, code) = answered.await??;
    mailbox.put(LinkSlot::Reveal, reveal).await?;
    show_code(output, &code, "The new device must show the same code")?;

    let typed = typed_code()?;
    let (enrolment, payload) = confirming.confirm(&typed)?;
    let enrolled = device.session.call(&enrolment);
    output
        .patiently("Enrolling the new device", enrolled)
        .await?;
    mailbox.put(LinkSlot::Payload, payload).await?;
    output.say(
        &json!({ "event": "approved", "device": new }),
        "The new device has your account now.",
    )?;
    let admit = Command::AdmitDevice { device: new };
    let admitted = device
        .carry_out("Bringing it into your rooms", admit)
        .await
        .is_ok();
    let advice = match admitted {
        true => "It is in all your rooms.",
        false => {
            "It is not in all your rooms yet: let it connect, then run `sotto sync` on this device."
        }
    };
    let json = json!({ "event": "admitted", "device": new, "everywhere": admitted });
    output.say(&json, advice)?;
    device.session.stop().await;
    Ok(())
}

fn typed_code() -> anyhow::Result<String> {
    let typed = prompt::line("Type the code that the new device shows")?;
    match typed.is_empty() {
        true => bail!("no code was typed, so nothing was shared: start again with a new link"),
        false => Ok(typed),
    }
}

/// The mailbox at the gateway through which two devices reach each other.
struct Mailbox<'a> {
    gateway: &'a Gateway,
    rendezvous: RendezvousId,
}

impl Mailbox<'_> {
    async fn put(&self, slot: LinkSlot, body: Vec<u8>) -> Result<(), GatewayError> {
        let request = wire::LinkPut {
            org: self.gateway.address().org.to_string(),
            rendezvous: self.rendezvous.to_bytes(),
            slot: slot.into(),
            body: body.into(),
        };
        self.gateway.call(&request, None).await.map(drop)
    }

    /// Waits until the slot is written.
    async fn get(&self, slot: LinkSlot) -> anyhow::Result<Bytes> {
        let request = wire::LinkGet {
            org: self.gateway.address().org.to_string(),
            rendezvous: self.rendezvous.to_bytes(),
            slot: slot.into(),
            wait_ms: HOLD,
        };
        let written = async {
            loop {
                if let Some(body) = self.gateway.call(&request, None).await?.body {
                    return anyhow::Ok(body);
                }
                sleep(PAUSE).await;
            }
        };
        let waited = timeout(limits::LINK, written).await;
        waited.context("the other device did not answer in time: start again with a new link")?
    }
}
