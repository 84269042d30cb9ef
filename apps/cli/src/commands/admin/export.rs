//! `sotto admin export`: the organisation's tree for other programs.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use sotto_ldap::{Dn, ldif};

use super::directory;
use crate::device::Context;
use crate::new_file::NewFile;

/// What can be typed after `sotto admin export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sotto admin export --ldif --base dc=acme,dc=example --output acme.ldif
  slapadd -l acme.ldif")]
pub struct Export {
    /// As LDIF (RFC 2849), which slapd accepts.
    #[arg(long, required = true)]
    pub ldif: bool,
    /// Under which entry the tree hangs.
    #[arg(long, value_name = "DN")]
    pub base: Dn,
    /// Which file to write; it must not be there yet.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
}

pub async fn run(context: &Context, command: Export) -> anyhow::Result<()> {
    let path = command.output.display();
    let state = directory::state(context).await?;
    let mut file =
        NewFile::create(&command.output).with_context(|| format!("cannot make {path}"))?;
    ldif::write(&state, &command.base, &mut file)?;
    file.finish()
        .with_context(|| format!("cannot write {path}"))?;
    context.output.say(
        &json!({ "event": "exported", "path": command.output }),
        format_args!("Wrote {path}."),
    )?;
    Ok(())
}
