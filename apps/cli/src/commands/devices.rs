//! `sotto devices`: which devices belong to this account.

use serde_json::json;
use sotto_proto::limits;
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
        // Certificates begin a little before they are made, for clocks that are slow.
        let skew = i64::try_from(limits::CLOCK_SKEW.as_millis())?;
        let since = times::local(certificate.not_before_ms.saturating_add(skew));
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
