//! `sotto admin user`.

mod list;
mod show;

use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};
use rand::rngs::OsRng;
use sotto_jwt_accounts::directory::{ExternalId, Holder, InviteHash, Scope};
use sotto_proto::wire::directory_command::Ask;
use sotto_proto::{GroupName, InviteLink, InviteToken, Title, UserName, wire};

use super::change::{Change, How};
use super::place::Place;
use super::{role, title};
use crate::arguments::{self, Role};
use crate::commands::invite;
use crate::device::{Context, Device};

/// What can be typed after `sotto admin user`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  sotto admin user add bob --title 'Bob Brown' --group staff --role user --in project:field
  sotto admin user invite bob --in project:field
  sotto admin user guest carol --for 30d
  sotto admin user revoke mallory")]
pub enum User {
    /// List the users.
    List {
        /// Only the members of this group.
        #[arg(long)]
        group: Option<GroupName>,
    },
    /// Show everything that the directory knows of a user.
    Show {
        /// Whom.
        user: UserName,
    },
    /// Add somebody who has yet to sign up, with what they will have.
    Add(Add),
    /// Change what people read in place of a name.
    Title {
        /// Whose.
        user: UserName,
        /// The title; without it, the name is shown.
        title: Option<Title>,
        #[command(flatten)]
        how: How,
    },
    /// Take everything from a user, for good: their devices, roles and groups.
    /// Their connections drop, and the rooms they were in change their keys.
    Revoke {
        /// Whom.
        user: UserName,
        #[command(flatten)]
        how: How,
    },
    /// Make a user a guest, in single rooms only and for a time; or no guest any more.
    #[command(group = ArgGroup::new("until").required(true))]
    Guest {
        /// Whom.
        user: UserName,
        /// How long from now, such as 30d; then they are revoked.
        #[arg(long = "for", group = "until", value_parser = arguments::duration, value_name = "TIME")]
        time: Option<Duration>,
        /// Make them a guest no more.
        #[arg(long, group = "until")]
        no_more: bool,
        #[command(flatten)]
        how: How,
    },
    /// Make an invitation that only this user can use, such as one who was added.
    Invite(Invite),
    /// Vouch for a user, where a policy demands introductions.
    Introduce {
        /// Whom.
        user: UserName,
        /// Take it back.
        #[arg(long)]
        withdraw: bool,
        #[command(flatten)]
        how: How,
    },
}

/// What can be typed after `sotto admin user add`.
#[derive(Debug, Args)]
pub struct Add {
    /// The name: it stays for ever, and is never used again.
    pub user: UserName,
    /// What people read in place of the name.
    #[arg(long)]
    pub title: Option<Title>,
    /// Where they come from, such as an LDAP entryUUID.
    #[arg(long, value_name = "ID")]
    pub external_id: Option<ExternalId>,
    /// Put them into this group; can be repeated.
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<GroupName>,
    /// Give them this role.
    #[arg(long, value_enum, requires = "place")]
    pub role: Option<Role>,
    /// Where they have the role: org, project:NAME or room:NAME-OR-ID.
    #[arg(long = "in", requires = "role", value_name = "WHERE")]
    pub place: Option<Place>,
    #[command(flatten)]
    pub how: How,
}

/// What can be typed after `sotto admin user invite`.
#[derive(Debug, Args)]
pub struct Invite {
    /// The name with which they sign up.
    pub user: UserName,
    /// What they will be.
    #[arg(long, value_enum, default_value_t = Role::User)]
    pub role: Role,
    /// Where: org, project:NAME or room:NAME-OR-ID.
    #[arg(long = "in", value_name = "WHERE")]
    pub place: Place,
    /// How long the invitation is good for, such as 12h or 7d.
    #[arg(long, default_value = "7d", value_parser = arguments::duration, value_name = "TIME")]
    pub valid: Duration,
    /// Make them a guest for this long from now, such as 30d.
    #[arg(long, value_parser = arguments::duration, value_name = "TIME")]
    pub guest: Option<Duration>,
    #[command(flatten)]
    pub how: How,
}

pub async fn run(context: &Context, command: User) -> anyhow::Result<()> {
    match command {
        User::List { group } => list::run(context, group.as_ref()).await,
        User::Show { user } => show::run(context, &user).await,
        User::Add(add) => run_add(context, add).await,
        User::Title { user, title, how } => set_title(&user, title).run(context, how).await,
        User::Revoke { user, how } => revoke(&user).for_good().run(context, how).await,
        User::Guest {
            user, time, how, ..
        } => run_guest(context, &user, time, how).await,
        User::Invite(invite) => run_invite(context, invite).await,
        User::Introduce {
            user,
            withdraw,
            how,
        } => run_introduce(context, user, withdraw, how).await,
    }
}

async fn run_add(context: &Context, mut new: Add) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let role = match (new.role, new.place.take()) {
        (Some(role), Some(place)) => Some((role, place.find(&mut device).await?)),
        _ => None,
    };
    let how = new.how;
    add(new, role).carry_out(context, &device, how).await?;
    device.session.stop().await;
    Ok(())
}

fn add(new: Add, role: Option<(Role, Scope)>) -> Change {
    let user = new.user;
    let added = Ask::AddUser(wire::UserAdded {
        user: user.to_string(),
        title: title::text(new.title.as_ref()).to_owned(),
        external_id: new
            .external_id
            .map_or_else(String::new, |id| id.to_string()),
    });
    let groups = new.groups.iter().map(|group| {
        Ask::AddGroupMember(wire::GroupMemberAdded {
            group: group.to_string(),
            user: user.to_string(),
        })
    });
    let role = role.map(|(role, scope)| role::ask_grant(Holder::User(user.clone()), role, &scope));
    Change::all([added].into_iter().chain(groups).chain(role))
}

fn set_title(user: &UserName, title: Option<Title>) -> Change {
    let of = wire::title_set::Of::User(user.to_string());
    Change::one(title::set(of, title.as_ref()))
}

fn revoke(user: &UserName) -> Change {
    Change::one(Ask::RevokeUser(wire::UserRevoked {
        user: user.to_string(),
    }))
}

async fn run_guest(
    context: &Context,
    user: &UserName,
    time: Option<Duration>,
    how: How,
) -> anyhow::Result<()> {
    let device = context.open()?;
    let until_ms = match time {
        Some(time) => after(server_now(context, &device).await?, time),
        None => 0,
    };
    guest(user, until_ms)
        .carry_out(context, &device, how)
        .await?;
    device.session.stop().await;
    Ok(())
}

/// `until_ms` 0: no guest any more.
fn guest(user: &UserName, until_ms: i64) -> Change {
    Change::one(Ask::SetGuestUntil(wire::GuestUntilSet {
        user: user.to_string(),
        until_ms,
    }))
}

async fn run_invite(context: &Context, invite: Invite) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let scope = invite.place.clone().find(&mut device).await?;
    let now_ms = server_now(context, &device).await?;
    // Drawn here: the server is told its hash only.
    let token = InviteToken::random(&mut OsRng);
    let change = issue(&invite, &scope, &token, now_ms);
    if change.carry_out(context, &device, invite.how).await? {
        let gateway = device
            .session
            .look(|engine, _| engine.account().gateway.clone());
        let link = InviteLink {
            gateway: gateway.await?,
            invite: token,
        };
        invite::show(
            context,
            &link,
            after(now_ms, invite.valid),
            Some(&invite.user),
        )?;
    }
    device.session.stop().await;
    Ok(())
}

fn issue(invite: &Invite, scope: &Scope, token: &InviteToken, now_ms: i64) -> Change {
    let hash = InviteHash::from(token);
    Change::one(Ask::IssueInvite(wire::InviteIssued {
        invite_hash: hash.0.to_vec().into(),
        expires_ms: after(now_ms, invite.valid),
        scope: Some(scope.into()),
        role: wire::Role::from(invite.role).into(),
        for_user: invite.user.to_string(),
        guest_until_ms: invite.guest.map_or(0, |time| after(now_ms, time)),
    }))
}

async fn run_introduce(
    context: &Context,
    user: UserName,
    withdraw: bool,
    how: How,
) -> anyhow::Result<()> {
    let device = context.open()?;
    let own = device
        .session
        .look(|engine, _| engine.account().user.clone());
    let (user, by) = (user.to_string(), own.await?.to_string());
    let ask = match withdraw {
        false => Ask::Introduce(wire::IntroductionGiven { user, by }),
        true => Ask::WithdrawIntroduction(wire::IntroductionWithdrawn { user, by }),
    };
    Change::one(ask).carry_out(context, &device, how).await?;
    device.session.stop().await;
    Ok(())
}

/// The server's time, in ms since 1970: this machine's clock may be wrong.
async fn server_now(context: &Context, device: &Device) -> anyhow::Result<i64> {
    let org = device
        .session
        .look(|engine, _| engine.account().org.clone());
    let request = wire::ServerInfoRequest {
        org: org.await?.to_string(),
    };
    let asked = device.session.call(&request);
    let info = context.output.patiently("Asking the server", asked).await?;
    Ok(info.now_ms)
}

fn after(now_ms: i64, time: Duration) -> i64 {
    let time_ms = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    now_ms.saturating_add(time_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOW: How = How {
        dry_run: false,
        yes: false,
    };

    #[test]
    fn whoever_is_added_gets_groups_and_role_in_the_same_change() {
        let new = Add {
            user: "bob".parse().unwrap(),
            title: None,
            external_id: Some("f81d4fae-7dec-11d0".parse().unwrap()),
            groups: vec!["staff".parse().unwrap(), "crew".parse().unwrap()],
            role: None,
            place: None,
            how: HOW,
        };
        let asks = add(new, Some((Role::User, Scope::Org))).asks();
        let [
            Ask::AddUser(user),
            Ask::AddGroupMember(first),
            Ask::AddGroupMember(second),
            Ask::GrantRole(role),
        ] = &asks[..]
        else {
            panic!("{asks:?}")
        };
        assert_eq!(user.external_id, "f81d4fae-7dec-11d0");
        assert_eq!((&*first.group, &*second.group), ("staff", "crew"));
        assert_eq!((&*role.user, role.role()), ("bob", wire::Role::User));
    }

    #[test]
    fn an_invitation_holds_the_hash_and_ends_in_time() {
        let invite = Invite {
            user: "bob".parse().unwrap(),
            role: Role::User,
            place: Place::Org,
            valid: Duration::from_secs(60),
            guest: Some(Duration::from_secs(3_600)),
            how: HOW,
        };
        let token = InviteToken::random(&mut OsRng);
        let asks = issue(&invite, &Scope::Org, &token, 1_000).asks();
        let [Ask::IssueInvite(issued)] = &asks[..] else {
            panic!("{asks:?}")
        };
        assert_eq!(issued.invite_hash.as_ref(), InviteHash::from(&token).0);
        assert_eq!(
            (issued.expires_ms, issued.guest_until_ms),
            (61_000, 3_601_000)
        );
        assert_eq!(issued.for_user, "bob");
        assert_eq!(after(i64::MAX, Duration::from_secs(1)), i64::MAX);
    }
}
