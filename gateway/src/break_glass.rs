//! `sotto-gateway org admit` and `org lift`: whoever runs the server lets an
//! owner back in who lost what a policy demands.
//!
//! One entry of the directory's log does it, with the reason, and every member
//! of the org is told when their device connects next (docs/break-glass.md).
//! Nothing here must ever do without that entry.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use async_nats::jetstream;
use sotto_jwt_accounts::directory::{Actor, By, Command, DirectoryWriter, Intervention, Scope};
use sotto_jwt_accounts::grants::GATEWAY_INBOX;
use sotto_proto::{OrgName, ProjectName, RoomId, Title, UserName};
use sotto_service::cluster::Cluster;
use sotto_service::{Layout, ServerConfig, nats};

use crate::clock::{Clock, SystemClock};
use crate::provision;

/// Whose factors to forget.
#[derive(Debug, clap::Args)]
pub struct AdmitArgs {
    /// The organisation.
    org: OrgName,

    /// Who lost their factors. With their password they enrol new ones.
    user: UserName,

    #[command(flatten)]
    step_in: StepIn,
}

/// Which policy to lift.
#[derive(Debug, clap::Args)]
pub struct LiftArgs {
    /// The organisation.
    org: OrgName,

    /// The level whose own policy ends: `org`, `project:NAME` or `room:ID`.
    #[arg(value_parser = place)]
    place: Scope,

    #[command(flatten)]
    step_in: StepIn,
}

#[derive(Debug, clap::Args)]
struct StepIn {
    /// Why. Every member of the organisation reads it.
    #[arg(long, value_name = "TEXT")]
    reason: Title,

    /// The server's data directory.
    #[arg(long, env = "SOTTO_SERVER_DIR", value_name = "DIR")]
    dir: PathBuf,
}

/// Forgets every factor of a user.
///
/// # Errors
/// When the server does not run, or there is nothing to forget.
pub async fn admit(args: &AdmitArgs) -> anyhow::Result<()> {
    let what = Intervention::FactorsReset(args.user.clone());
    step_in(&args.org, what, &args.step_in).await
}

/// Lifts the policy of a level.
///
/// # Errors
/// When the server does not run, or the level has no policy of its own.
pub async fn lift(args: &LiftArgs) -> anyhow::Result<()> {
    let what = Intervention::PolicyLifted(args.place.clone());
    step_in(&args.org, what, &args.step_in).await
}

async fn step_in(org: &OrgName, what: Intervention, args: &StepIn) -> anyhow::Result<()> {
    let layout = Layout::new(&args.dir);
    let config = ServerConfig::load(&layout)?;
    ensure!(
        config.orgs.iter().any(|served| served.name == *org),
        "this server has no organisation `{org}`: check the spelling"
    );
    let key = provision::read_gateway_key(&layout)?;
    let login = nats::Login {
        name: "sotto-gateway org",
        credentials: &layout.gateway_creds(org),
        inbox_prefix: GATEWAY_INBOX,
    };
    let client = nats::connect(&layout, &config, login).await?;
    let jetstream = jetstream::new(client);
    let copies = Cluster::copies(&layout)?;
    let directory = DirectoryWriter::open(&jetstream, copies, org.clone(), key, None).await;
    let directory = directory.context("the directory cannot be read")?;
    let intervene = Command::Intervene {
        what,
        reason: args.reason.clone(),
    };
    let by = By::from(Actor::Gateway);
    let done = directory
        .append(&by, intervene, SystemClock.now_ms())
        .await?;
    ensure!(
        !done.changes.is_empty(),
        "there is nothing to do: the user has no factor, or the level no policy of its own"
    );
    sotto_log::warn!(index = done.first, "stepped in; every member is told");
    Ok(())
}

/// A place as `sotto admin` writes it.
fn place(text: &str) -> Result<Scope, String> {
    let project = |name: &str| name.parse::<ProjectName>().map(Scope::Project).ok();
    let room = |id: &str| id.parse::<RoomId>().map(Scope::Room).ok();
    let place = match text.split_once(':') {
        None if text == "org" => Some(Scope::Org),
        Some(("project", name)) => project(name),
        Some(("room", id)) => room(id),
        _ => None,
    };
    place.ok_or_else(|| "write `org`, `project:NAME` or `room:ID`".to_owned())
}
