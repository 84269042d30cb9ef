//! `sotto admin ldap`: users and groups from an LDAP server.

use std::io;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use sotto_jwt_accounts::directory::COMMANDS_MAX;
use sotto_ldap::Mapping;
use sotto_ldap::plan::{Diff, Plan, PlanOptions, plan};
use sotto_proto::wire::DirectoryCommand;
use zeroize::Zeroizing;

use super::change::{Change, How, agreed};
use super::directory;
use crate::device::{Context, Device};
use crate::output::Output;
use crate::secrets::Secret;

/// What can be typed after `sotto admin ldap`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  sotto admin ldap import --mapping acme.toml --dry-run
  sotto admin ldap import --mapping acme.toml --remove-missing --yes")]
pub enum Ldap {
    /// Read users and groups, show what would change, and change it. Can be
    /// repeated: what is there already stays as it is.
    Import(Import),
}

/// What can be typed after `sotto admin ldap import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Which server, and what becomes of what it has: a TOML file.
    #[arg(long, value_name = "FILE")]
    pub mapping: PathBuf,
    /// Also take from the organisation what came from LDAP and is gone there.
    #[arg(long)]
    pub remove_missing: bool,
    /// Read the password for the LDAP server from this file [env:
    /// SOTTO_LDAP_PASSWORD=the password itself].
    #[arg(long, value_name = "FILE")]
    pub ldap_password_file: Option<PathBuf>,
    #[command(flatten)]
    pub how: How,
}

pub async fn run(context: &Context, Ldap::Import(import): Ldap) -> anyhow::Result<()> {
    let mapping = Mapping::read(&import.mapping)?;
    let password = match mapping.bind_dn() {
        Some(_) => Secret::ldap(import.ldap_password_file.as_deref()).ask()?,
        None => Zeroizing::default(),
    };
    let device = context.open()?;
    let fetching = sotto_ldap::import::fetch(&mapping, &password);
    let what = "Reading from the LDAP server";
    let entries = context.output.patiently(what, fetching).await?;
    let state = directory::state_at(context, &device).await?;
    let options = PlanOptions {
        remove_missing: import.remove_missing,
    };
    let Plan { commands, diff } = plan(&entries, &mapping, &state, options)?;
    show(context.output, &diff)?;
    if commands.is_empty() {
        context.output.note("Nothing to change: it is so already.");
    } else if import.how.dry_run {
        context.output.note("Nothing was changed.");
    } else if import.how.yes || agreed(context, "Change the organisation so?")? {
        carry_out(context, &device, commands, import.how).await?;
    }
    device.session.stop().await;
    Ok(())
}

fn show(output: Output, diff: &Diff) -> io::Result<()> {
    let steps = diff.steps.iter().map(|step| ("step", step));
    let kept = diff.kept.iter().map(|step| ("kept", step));
    for (kind, step) in steps.chain(kept) {
        output.say_json(&json!({ "event": "difference", "kind": kind, "step": step }))?;
    }
    let refused = diff.refused.iter().map(|remark| ("refused", remark));
    let remarks = diff.remarks.iter().map(|remark| ("remark", remark));
    for (kind, remark) in refused.chain(remarks) {
        output.say_json(&json!({
            "event": "difference", "kind": kind, "about": remark.about, "why": remark.why,
        }))?;
    }
    output.say_text(diff)
}

/// In portions: the server takes only so many commands at once. Whatever is
/// not done after a failure is found again by the next import.
async fn carry_out(
    context: &Context,
    device: &Device,
    commands: Vec<DirectoryCommand>,
    how: How,
) -> anyhow::Result<()> {
    let all = commands.len();
    for (portion, commands) in commands.chunks(COMMANDS_MAX).enumerate() {
        let done = portion * COMMANDS_MAX;
        Change::from(commands.to_vec())
            .carry_out(context, device, how)
            .await
            .with_context(|| format!("{done} of {all} changes were made: import again"))?;
    }
    Ok(())
}
