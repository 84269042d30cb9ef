//! `sotto admin org`.

use anyhow::Context as _;
use clap::Subcommand;
use data_encoding::HEXLOWER;
use serde_json::json;
use sotto_jwt_accounts::directory::{Holder, Role, Scope, State};
use sotto_proto::Title;
use sotto_proto::wire::title_set::Of;

use super::change::{Change, How};
use super::role::held;
use super::{directory, place, title};
use crate::device::Context;

/// What can be typed after `sotto admin org`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  sotto admin org show
  sotto admin org title 'Acme Ltd'")]
pub enum Org {
    /// Show its name, its owners, and the key by which its log is verified.
    Show,
    /// Change what people read in place of its name.
    Title {
        /// The title; without it, the name is shown.
        title: Option<Title>,
        #[command(flatten)]
        how: How,
    },
}

pub async fn run(context: &Context, command: Org) -> anyhow::Result<()> {
    match command {
        Org::Show => show(context).await,
        Org::Title { title, how } => {
            let titled = title::set(Of::Org(true), title.as_ref());
            Change::one(titled).run(context, how).await
        }
    }
}

async fn show(context: &Context) -> anyhow::Result<()> {
    let state = directory::state(context).await?;
    let org = state.org().context("the directory is empty")?;
    let key = state.gateway_key().context("the directory is empty")?;
    let key = HEXLOWER.encode(key.as_bytes());
    let owners: Vec<_> = owners(&state);
    let [projects, rooms, users, groups] = [
        state.projects().count(),
        state.rooms().count(),
        state.users().count(),
        state.groups().count(),
    ];
    let head = state.head();
    let title = state.org_title();
    context.output.say(
        &json!({
            "event": "org", "org": org, "title": title.map(Title::as_str), "owners": owners,
            "projects": projects, "rooms": rooms, "users": users, "groups": groups,
            "gateway_key": key, "length": head.length,
            "head": head.hash.map(|hash| HEXLOWER.encode(&hash)),
        }),
        format_args!(
            "{}\n  owned by {}\n  projects: {projects}, rooms: {rooms}, users: {users}, groups: \
             {groups}\n  log of {} entries, signed by {key}",
            format!("{org}  {}", title::text(title)).trim_end(),
            owners.join(", "),
            head.length,
        ),
    )?;
    Ok(())
}

/// Users and groups that own the org, as they are typed.
fn owners(state: &State) -> Vec<String> {
    let owns = |holder: &Holder| state.own_role(holder, &Scope::Org) == Some(Role::Owner);
    let holders = held::holders(state).filter(owns);
    holders.map(|holder| place::holder(&holder)).collect()
}
