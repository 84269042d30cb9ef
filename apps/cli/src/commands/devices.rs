//! `sotto devices` and `sotto device revoke`: which devices belong to this
//! account, and which no longer.

use anyhow::{Context as _, bail};
use serde_json::json;
use sotto_client_core::io::Command;
use sotto_proto::DeviceId;
use sotto_proto::signed::DeviceCertificate;
use sotto_proto::wire;

use crate::device::Context;
use crate::times;

pub async fn run(context: &Context) -> anyhow::Result<()> {
    let device = context.open()?;
    let own = device.session.look(|engine, _| engine.account().device);
    let own = own.await?;
    let asked = device.session.call(&wire::MeRequest {});
    let me = context.output.patiently("Asking the server", asked).await?;
    for certificate in &me.devices {
        let certificate = DeviceCertificate::verify(certificate)?;
        let since = times::of_device(&certificate);
        let mark = match certificate.device == own {
            true => "  (this one)",
            false => "",
        };
        context.output.say(
            &json!({
                "event": "device", "device": certificate.device, "this": certificate.device == own,
                "not_before": certificate.not_before_ms, "not_after": certificate.not_after_ms,
            }),
            format_args!("{}  since {}{mark}", certificate.device, times::day(&since)),
        )?;
    }
    device.session.stop().await;
    Ok(())
}

pub async fn revoke(context: &Context, lost: DeviceId) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let own = device.session.look(|engine, _| engine.account().device);
    if own.await? == lost {
        bail!("this is the device you are using: revoke it from another one");
    }
    // The server first: from then on the device gets nothing new.
    let request = wire::DeviceRevoke {
        device: lost.to_bytes(),
    };
    let asked = device.session.call(&request);
    context.output.patiently("Shutting it out", asked).await?;
    context.output.say(
        &json!({ "event": "revoked", "device": lost }),
        "The server lets it in no more. What it has, it keeps.",
    )?;
    let dismiss = Command::DismissDevice { device: lost };
    device
        .carry_out("Changing the keys of your rooms", dismiss)
        .await
        .context("the keys of some rooms are still to be changed: run `sotto sync`")?;
    context.output.say(
        &json!({ "event": "dismissed", "device": lost }),
        "Every room you are in has new keys that it does not know.",
    )?;
    device.session.stop().await;
    Ok(())
}
