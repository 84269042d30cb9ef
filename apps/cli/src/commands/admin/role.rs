//! `sotto admin role`.

pub mod held;

use clap::Subcommand;
use sotto_jwt_accounts::directory::{Holder, Scope};
use sotto_proto::wire;
use sotto_proto::wire::directory_command::Ask;

use super::change::{Change, How};
use super::place::{Place, holder_fields, read_holder};
use crate::arguments;
use crate::device::Context;

/// What can be typed after `sotto admin role`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
WHO is a user or group:NAME; WHERE is org, project:NAME or room:NAME-OR-ID.
A role in the organisation holds in every project of it. What is said in a room can be read only
with a role in that room itself.

Examples:
  sotto admin role grant bob owner project:field
  sotto admin role grant group:staff user project:field
  sotto admin role list --in project:field")]
pub enum Role {
    /// Give a role.
    Grant {
        /// A user, or group:NAME.
        #[arg(value_parser = read_holder)]
        who: Holder,
        /// Which role.
        #[arg(value_enum)]
        role: arguments::Role,
        /// Where.
        #[arg(value_name = "WHERE")]
        place: Place,
        #[command(flatten)]
        how: How,
    },
    /// Take the role that was given in just this place.
    Revoke {
        /// A user, or group:NAME.
        #[arg(value_parser = read_holder)]
        who: Holder,
        /// Where.
        #[arg(value_name = "WHERE")]
        place: Place,
        #[command(flatten)]
        how: How,
    },
    /// List the roles that were given.
    List {
        /// Only those of this user or group:NAME.
        #[arg(value_parser = read_holder)]
        who: Option<Holder>,
        /// Only those given in just this place.
        #[arg(long = "in", value_name = "WHERE")]
        place: Option<Place>,
    },
}

pub async fn run(context: &Context, command: Role) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let (change, how) = match command {
        Role::List { who, place } => {
            let place = match place {
                Some(place) => Some(place.find(&mut device).await?),
                None => None,
            };
            return held::list(context, &device, who, place).await;
        }
        Role::Grant {
            who,
            role,
            place,
            how,
        } => (grant(who, role, &place.find(&mut device).await?), how),
        Role::Revoke { who, place, how } => (revoke(who, &place.find(&mut device).await?), how),
    };
    change.carry_out(context, &device, how).await?;
    device.session.stop().await;
    Ok(())
}

fn grant(who: Holder, role: arguments::Role, scope: &Scope) -> Change {
    Change::one(ask_grant(who, role, scope))
}

/// Gives a role.
pub fn ask_grant(who: Holder, role: arguments::Role, scope: &Scope) -> Ask {
    let (user, group) = holder_fields(who);
    Ask::GrantRole(wire::RoleGranted {
        user,
        group,
        scope: Some(scope.into()),
        role: wire::Role::from(role).into(),
    })
}

fn revoke(who: Holder, scope: &Scope) -> Change {
    let (user, group) = holder_fields(who);
    Change::one(Ask::RevokeRole(wire::RoleRevoked {
        user,
        group,
        scope: Some(scope.into()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_told_apart_on_the_wire() {
        let scope = Scope::Project("field".parse().unwrap());
        let place = Some(wire::Scope::from(&scope));
        let staff = read_holder("group:staff").unwrap();
        let granted = grant(staff, arguments::Role::Owner, &scope).asks();
        assert_eq!(
            granted,
            [Ask::GrantRole(wire::RoleGranted {
                user: String::new(),
                group: "staff".to_owned(),
                scope: place.clone(),
                role: wire::Role::Owner.into(),
            })]
        );
        let revoked = revoke(read_holder("bob").unwrap(), &scope).asks();
        assert_eq!(
            revoked,
            [Ask::RevokeRole(wire::RoleRevoked {
                user: "bob".to_owned(),
                group: String::new(),
                scope: place,
            })]
        );
    }
}
