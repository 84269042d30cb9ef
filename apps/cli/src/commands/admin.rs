//! `sotto admin`: the directory and the policy of an organisation. One file per
//! subject: what can be typed, what is asked of the server, what is shown.
//!
//! Who may do what is the server's to judge. Lists are made of the directory's
//! log, which this device verifies itself.

mod accounts;
mod change;
mod directory;
pub mod entry;
mod export;
mod group;
mod ldap;
mod log;
pub mod names;
mod org;
pub mod place;
pub mod policy;
mod project;
mod role;
mod room;
mod title;
mod user;

use clap::Subcommand;

use crate::device::Context;

/// What can be typed after `sotto admin`.
#[derive(Debug, Subcommand)]
pub enum Admin {
    /// The organisation itself.
    #[command(subcommand)]
    Org(org::Org),
    /// Its projects.
    #[command(subcommand)]
    Project(project::Project),
    /// The rooms of its projects.
    #[command(subcommand)]
    Room(room::Room),
    /// Its users.
    #[command(subcommand)]
    User(user::User),
    /// Groups of users, which can have roles like users.
    #[command(subcommand)]
    Group(group::Group),
    /// Who is user or owner of what.
    #[command(subcommand)]
    Role(role::Role),
    /// What must be proven, for what, at which level.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// The log that all of this is: signed, and only ever appended to.
    #[command(subcommand)]
    Log(log::Log),
    /// The organisation's NATS accounts.
    #[command(subcommand)]
    Accounts(accounts::Accounts),
    /// Users and groups from an LDAP server.
    #[command(subcommand)]
    Ldap(ldap::Ldap),
    /// Write the organisation's tree to a file.
    Export(export::Export),
}

pub async fn run(context: &Context, command: Admin) -> anyhow::Result<()> {
    match command {
        Admin::Org(command) => org::run(context, command).await,
        Admin::Project(command) => project::run(context, command).await,
        Admin::Room(command) => room::run(context, command).await,
        Admin::User(command) => user::run(context, command).await,
        Admin::Group(command) => group::run(context, command).await,
        Admin::Role(command) => role::run(context, command).await,
        Admin::Policy(command) => policy::run(context, command).await,
        Admin::Log(command) => log::run(context, command).await,
        Admin::Accounts(command) => accounts::run(context, command).await,
        Admin::Ldap(command) => ldap::run(context, command).await,
        Admin::Export(command) => export::run(context, command).await,
    }
}
