//! `sotto invite`: a link with which somebody can sign up.

use std::time::Duration;

use serde_json::json;
use sotto_proto::{InviteLink, InviteToken, ProjectName, wire};

use crate::arguments::Role;
use crate::device::Context;
use crate::times;

pub async fn run(
    context: &Context,
    role: Role,
    project: Option<ProjectName>,
    valid: Duration,
) -> anyhow::Result<()> {
    let device = context.open()?;
    let request = wire::InviteCreate {
        role: wire::Role::from(role).into(),
        project: project.map(String::from).unwrap_or_default(),
        valid_seconds: u32::try_from(valid.as_secs()).unwrap_or(u32::MAX),
    };
    let asked = device.session.call(&request);
    let created = context.output.patiently("Asking the server", asked).await?;
    let gateway = device
        .session
        .look(|engine, _| engine.account().gateway.clone());
    let link = InviteLink {
        gateway: gateway.await?,
        invite: InviteToken::try_from(&created.invite)?,
    };
    let until = times::local(created.expires_ms);
    context.output.say(
        &json!({
            "event": "invite", "invite": link.to_string(), "expires_ms": created.expires_ms,
        }),
        format_args!(
            "{link}\n\nGood for one person, until {}, {}. They sign up with\n  sotto signup '{link}' NAME",
            times::day(&until),
            times::clock(&until),
        ),
    )?;
    device.session.stop().await;
    Ok(())
}
