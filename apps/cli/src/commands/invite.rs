//! `sotto invite`: a link with which somebody can sign up.

use std::io;
use std::time::Duration;

use serde_json::json;
use sotto_proto::{InviteLink, InviteToken, ProjectName, UserName, wire};

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
    show(context, &link, created.expires_ms, None)?;
    device.session.stop().await;
    Ok(())
}

/// Shows an invitation, which may be for one user only.
pub fn show(
    context: &Context,
    link: &InviteLink,
    expires_ms: i64,
    user: Option<&UserName>,
) -> io::Result<()> {
    let until = times::local(expires_ms);
    let name = user.map_or("NAME", UserName::as_str);
    context.output.say(
        &json!({
            "event": "invite", "invite": link.to_string(), "expires_ms": expires_ms, "user": user,
        }),
        format_args!(
            "{link}\n\nGood for one person, until {}, {}. They sign up with\n  sotto signup '{link}' {name}",
            times::day(&until),
            times::clock(&until),
        ),
    )
}
