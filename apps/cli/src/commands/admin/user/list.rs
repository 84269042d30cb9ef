//! `sotto admin user list`.

use serde_json::json;
use sotto_jwt_accounts::directory::{User, UserStatus};
use sotto_proto::{GroupName, Title};

use crate::commands::admin::{directory, title};
use crate::device::Context;
use crate::table::Table;
use crate::times;

pub async fn run(context: &Context, group: Option<&GroupName>) -> anyhow::Result<()> {
    let state = directory::state(context).await?;
    let mut table = Table::new(["USER", "TITLE", "STATUS", "DEVICES", "GROUPS"]);
    let is_in = |user: &User| group.is_none_or(|group| user.groups.contains(group));
    for (name, user) in state.users().filter(|(_, user)| is_in(user)) {
        let devices = user.devices().count();
        let groups: Vec<_> = user.groups.iter().map(GroupName::as_str).collect();
        table.row(
            json!({
                "event": "user", "user": name, "title": user.title.as_ref().map(Title::as_str),
                "status": status(user), "guest_until_ms": user.guest_until_ms, "devices": devices,
                "groups": groups,
            }),
            [
                name.to_string(),
                title::text(user.title.as_ref()).to_owned(),
                remarks(user),
                devices.to_string(),
                groups.join(", "),
            ],
        );
    }
    let empty = "No users here: add some with `sotto admin user add`.";
    Ok(table.show(context.output, empty)?)
}

/// How far a user is.
pub fn status(user: &User) -> &'static str {
    match user.status {
        UserStatus::Added => "added",
        UserStatus::Active => "active",
        UserStatus::Revoked => "revoked",
    }
}

/// The same for people, with until when they are a guest.
pub fn remarks(user: &User) -> String {
    match user.guest_until_ms {
        None => status(user).to_owned(),
        Some(until) => format!(
            "{}, guest until {}",
            status(user),
            times::minute(&times::local(until))
        ),
    }
}
