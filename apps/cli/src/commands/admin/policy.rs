//! `sotto admin policy`.

pub mod form;
mod judge;
mod shown;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use sotto_jwt_accounts::directory::Scope;
use sotto_proto::wire::directory_command::Ask;
use sotto_proto::{UserName, wire};

use super::change::{Change, How};
use super::names::Named;
use super::place::Place;
use crate::arguments;
use crate::device::Context;
use form::Demands;
use judge::Question;

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
  sotto admin policy explain bob post room:barn --proven totp=2h
  sotto admin policy matrix project:field")]
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
    /// Show whether a user may do something, and which rule decides.
    Explain {
        /// Who.
        user: UserName,
        /// Does what.
        #[arg(value_parser = wire::PolicyAction::named)]
        action: wire::PolicyAction,
        /// To what: org, project:NAME or room:NAME-OR-ID.
        object: Place,
        /// As if this factor had been proven so long ago, such as totp=2h; can be repeated.
        #[arg(long, value_parser = proven, value_name = "FACTOR[=TIME]")]
        proven: Vec<(wire::Factor, Duration)>,
    },
    /// Print who may do what, by role and by what must be proven.
    Matrix {
        /// Of what; without it, of the organisation and of each project. Reading and posting are
        /// of rooms, so only the matrix of a room has them.
        object: Option<Place>,
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
        Policy::Explain {
            user,
            action,
            object,
            proven,
        } => {
            let question = Question {
                user,
                action,
                object,
                proven,
            };
            judge::explain(context, question).await
        }
        Policy::Matrix { object } => judge::matrix(context, object).await,
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

/// `totp` or `totp=2h`.
fn proven(text: &str) -> Result<(wire::Factor, Duration), String> {
    match text.split_once('=') {
        Some((factor, time)) => Ok((wire::Factor::named(factor)?, arguments::duration(time)?)),
        None => Ok((wire::Factor::named(text)?, Duration::ZERO)),
    }
}
