//! `sotto admin user show`.

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use serde_json::json;
use sotto_jwt_accounts::directory::{ExternalId, Holder};
use sotto_proto::{Title, UserName};

use super::list;
use crate::commands::admin::role::held;
use crate::commands::admin::{directory, title};
use crate::device::Context;
use crate::times;

pub async fn run(context: &Context, name: &UserName) -> anyhow::Result<()> {
    let state = directory::state(context).await?;
    let unknown = || format!("there is no user `{name}`: `sotto admin user list` lists them");
    let user = state.user(name).with_context(unknown)?;
    let roles = held::of(&state, &Holder::User(name.clone()));
    let devices: Vec<_> = user
        .devices()
        .map(|device| device.certificate.device)
        .collect();
    let introduced_by: Vec<_> = state.introductions(name).collect();
    let json = json!({
        "event": "user", "user": name, "title": user.title.as_ref().map(Title::as_str),
        "status": list::status(user),
        "external_id": user.external_id.as_ref().map(ExternalId::as_str),
        "identity_key": user.identity_key.map(|key| HEXLOWER.encode(key.as_bytes())),
        "guest_until_ms": user.guest_until_ms, "devices": devices, "groups": user.groups,
        "roles": roles.iter().map(held::Held::json).collect::<Vec<_>>(),
        "factors": user.factors().map(|(id, factor)| json!({
            "id": id, "factor": factor.name(),
        })).collect::<Vec<_>>(),
        "introduced_by": introduced_by,
    });
    let mut lines = vec![format!(
        "{name}  {}  [{}]",
        title::text(user.title.as_ref()),
        list::remarks(user)
    )];
    lines.extend(
        user.external_id
            .iter()
            .map(|id| format!("  comes from {id}")),
    );
    lines.extend(
        user.groups
            .iter()
            .map(|group| format!("  in the group {group}")),
    );
    lines.extend(roles.iter().map(|role| format!("  {role}")));
    lines.extend(user.devices().map(|device| {
        let since = times::day(&times::of_device(&device.certificate));
        format!("  device {}, since {since}", device.certificate.device)
    }));
    lines.extend(
        user.factors()
            .map(|(id, factor)| format!("  can prove {factor} ({id})")),
    );
    lines.extend(
        introduced_by
            .iter()
            .map(|by| format!("  introduced by {by}")),
    );
    Ok(context.output.say(&json, lines.join("\n"))?)
}
