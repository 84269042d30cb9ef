//! `sotto admin policy`.

pub mod form;
mod shown;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use sotto_jwt_accounts::directory::Scope;
use sotto_proto::wire;
use sotto_proto::wire::directory_command::Ask;

use super::change::{Change, How};
use super::place::Place;
use crate::device::Context;
use form::Demands;

/// Longest Cedar file that is read, in bytes; the server takes less.
const CEDAR: u64 = 64 * 1024;

/// What can be typed after `sotto admin policy`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
WHERE is org, project:NAME or room:NAME-OR-ID. A level demands what it sets and what the levels
above it set: it can tighten, never loosen. A policy that would lock out every owner is refused.

Actions: read, post, join, invite, manage, create-invite, create-room, create-project, introduce.

Examples:
  sotto admin policy set project:field --need totp --within 8h --for read,post
  sotto admin policy set org --need password --within 30d --introductions 2of5 --for create-room
  sotto admin policy show")]
pub enum Policy {
    /// Show what a level demands, or all of them.
    Show {
        /// Which level; without it, every level that has a policy.
        #[arg(value_name = "WHERE")]
        place: Option<Place>,
        /// Also show the Cedar that the demands come to.
        #[arg(long)]
        cedar: bool,
    },
    /// Set what a level demands, in place of what it demanded.
    Set(Set),
    /// Have a level demand nothing of its own.
    Clear {
        /// Which level.
        #[arg(value_name = "WHERE")]
        place: Place,
        #[command(flatten)]
        how: How,
    },
}

/// What can be typed after `sotto admin policy set`.
#[derive(Debug, Args)]
pub struct Set {
    /// Which level.
    #[arg(value_name = "WHERE")]
    pub place: Place,
    #[command(flatten)]
    pub demands: Demands,
    /// Add the Cedar policies of this file; `forbid` only.
    #[arg(long, value_name = "FILE")]
    pub cedar: Option<PathBuf>,
    #[command(flatten)]
    pub how: How,
}

pub async fn run(context: &Context, command: Policy) -> anyhow::Result<()> {
    match command {
        Policy::Show { place, cedar } => shown::run(context, place, cedar).await,
        Policy::Set(set) => {
            let how = set.how;
            let cedar = set.cedar.as_deref().map(read_cedar).transpose()?;
            let policy = wire::Policy {
                demands: set.demands.0,
                cedar: cedar.unwrap_or_default(),
            };
            ensure!(
                policy != wire::Policy::default(),
                "say what is demanded with --need, --introductions or --cedar; `sotto admin policy \
                 clear` demands nothing"
            );
            run_set(context, set.place, Some(policy), how).await
        }
        Policy::Clear { place, how } => run_set(context, place, None, how).await,
    }
}

async fn run_set(
    context: &Context,
    place: Place,
    policy: Option<wire::Policy>,
    how: How,
) -> anyhow::Result<()> {
    let mut device = context.open()?;
    let scope = place.find(&mut device).await?;
    set(&scope, policy).carry_out(context, &device, how).await?;
    device.session.stop().await;
    Ok(())
}

fn set(scope: &Scope, policy: Option<wire::Policy>) -> Change {
    Change::one(Ask::SetPolicy(wire::PolicySet {
        scope: Some(scope.into()),
        policy,
    }))
}

fn read_cedar(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(CEDAR + 1).read_to_string(&mut text))
        .with_context(|| format!("cannot read {}", path.display()))?;
    if text.len() as u64 > CEDAR {
        bail!("{} is too long for a policy: shorten it", path.display());
    }
    Ok(text)
}
