//! `sotto admin group`.

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;
use sotto_jwt_accounts::directory::{ExternalId, Holder};
use sotto_proto::wire::directory_command::Ask;
use sotto_proto::{GroupName, Title, UserName, wire};

use super::change::{Change, How};
use super::role::held;
use super::{directory, title};
use crate::device::Context;
use crate::table::Table;

/// What can be typed after `sotto admin group`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  sotto admin group create staff --title 'All staff'
  sotto admin group add staff bob carol
  sotto admin role grant group:staff user project:field")]
pub enum Group {
    /// List the groups.
    List,
    /// Show who is in a group, and what it gives them.
    Show {
        /// Which.
        group: GroupName,
    },
    /// Make a group.
    Create {
        /// Its name: it stays for ever, and is never used again.
        group: GroupName,
        /// What people read in place of the name.
        #[arg(long)]
        title: Option<Title>,
        #[command(flatten)]
        how: How,
    },
    /// Change what people read in place of its name.
    Title {
        /// Which.
        group: GroupName,
        /// The title; without it, the name is shown.
        title: Option<Title>,
        #[command(flatten)]
        how: How,
    },
    /// Delete it for good; its members lose what it gave them.
    Delete {
        /// Which.
        group: GroupName,
        #[command(flatten)]
        how: How,
    },
    /// Put users into it.
    Add {
        /// Which.
        group: GroupName,
        /// Whom.
        #[arg(required = true)]
        users: Vec<UserName>,
        #[command(flatten)]
        how: How,
    },
    /// Take users out of it.
    Remove {
        /// Which.
        group: GroupName,
        /// Whom.
        #[arg(required = true)]
        users: Vec<UserName>,
        #[command(flatten)]
        how: How,
    },
}

pub async fn run(context: &Context, command: Group) -> anyhow::Result<()> {
    let (change, how) = match command {
        Group::List => return list(context).await,
        Group::Show { group } => return show(context, &group).await,
        Group::Create { group, title, how } => (create(&group, title), how),
        Group::Title { group, title, how } => (set_title(&group, title), how),
        Group::Delete { group, how } => (delete(&group).for_good(), how),
        Group::Add { group, users, how } => (add(&group, &users), how),
        Group::Remove { group, users, how } => (remove(&group, &users), how),
    };
    change.run(context, how).await
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let state = directory::state(context).await?;
    let mut table = Table::new(["GROUP", "TITLE", "MEMBERS"]);
    for (name, group) in state.groups() {
        let members = group.members.len();
        table.row(
            json!({
                "event": "group", "group": name, "title": group.title.as_ref().map(Title::as_str),
                "members": members,
            }),
            [
                name.to_string(),
                title::text(group.title.as_ref()).to_owned(),
                members.to_string(),
            ],
        );
    }
    let empty = "No groups yet: make one with `sotto admin group create`.";
    Ok(table.show(context.output, empty)?)
}

async fn show(context: &Context, name: &GroupName) -> anyhow::Result<()> {
    let state = directory::state(context).await?;
    let unknown = || format!("there is no group `{name}`: `sotto admin group list` lists them");
    let group = state.group(name).with_context(unknown)?;
    let members: Vec<_> = group.members.iter().map(UserName::as_str).collect();
    let roles = held::of(&state, &Holder::Group(name.clone()));
    let mut lines = vec![format!("{name}  {}", title::text(group.title.as_ref()))];
    lines.extend(
        group
            .external_id
            .iter()
            .map(|id| format!("  comes from {id}")),
    );
    lines.extend(roles.iter().map(|role| format!("  {role}")));
    lines.extend(members.iter().map(|member| format!("  {member}")));
    context.output.say(
        &json!({
            "event": "group", "group": name, "title": group.title.as_ref().map(Title::as_str),
            "external_id": group.external_id.as_ref().map(ExternalId::as_str), "members": members,
            "roles": roles.iter().map(held::Held::json).collect::<Vec<_>>(),
        }),
        lines.join("\n"),
    )?;
    Ok(())
}

fn create(group: &GroupName, title: Option<Title>) -> Change {
    Change::one(Ask::CreateGroup(wire::GroupCreated {
        group: group.to_string(),
        title: title::text(title.as_ref()).to_owned(),
        external_id: String::new(),
    }))
}

fn set_title(group: &GroupName, title: Option<Title>) -> Change {
    let of = wire::title_set::Of::Group(group.to_string());
    Change::one(title::set(of, title.as_ref()))
}

fn delete(group: &GroupName) -> Change {
    Change::one(Ask::DeleteGroup(wire::GroupDeleted {
        group: group.to_string(),
    }))
}

fn add(group: &GroupName, users: &[UserName]) -> Change {
    Change::all(users.iter().map(|user| {
        Ask::AddGroupMember(wire::GroupMemberAdded {
            group: group.to_string(),
            user: user.to_string(),
        })
    }))
}

fn remove(group: &GroupName, users: &[UserName]) -> Change {
    Change::all(users.iter().map(|user| {
        Ask::RemoveGroupMember(wire::GroupMemberRemoved {
            group: group.to_string(),
            user: user.to_string(),
        })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_users_come_and_go_in_one_change() {
        let users = ["bob".parse().unwrap(), "carol".parse().unwrap()];
        let group = "staff".parse().unwrap();
        let asked = add(&group, &users).asks();
        let expected = ["bob", "carol"].map(|user| {
            Ask::AddGroupMember(wire::GroupMemberAdded {
                group: "staff".to_owned(),
                user: user.to_owned(),
            })
        });
        assert_eq!(asked, expected);
        assert_eq!(remove(&group, &users).asks().len(), 2);
    }
}
