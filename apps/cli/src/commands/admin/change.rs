//! How every command changes the directory: preview, question, call, output.

use std::io;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use sotto_proto::wire;
use sotto_proto::wire::directory_command::Ask;

use super::entry;
use crate::device::{Context, Device};
use crate::prompt;

/// What every command that changes something takes.
#[derive(Debug, Clone, Copy, Args)]
pub struct How {
    /// Show what would be changed, judged by the server, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask before something that cannot be taken back.
    #[arg(long)]
    pub yes: bool,
}

/// What is asked of the directory.
pub struct Change {
    commands: Vec<wire::DirectoryCommand>,
    /// Whether nobody can take it back.
    for_good: bool,
}

impl Change {
    /// All of these or none, in this order.
    pub fn all(asks: impl IntoIterator<Item = Ask>) -> Self {
        let asks = asks.into_iter();
        let commands = asks.map(|ask| wire::DirectoryCommand { ask: Some(ask) });
        Self::from(commands.collect::<Vec<_>>())
    }

    /// This one.
    pub fn one(ask: Ask) -> Self {
        Self::all([ask])
    }

    /// The same, which nobody can take back.
    pub fn for_good(self) -> Self {
        Self {
            for_good: true,
            ..self
        }
    }

    /// Opens this device and has the server carry it out.
    ///
    /// # Errors
    /// As [`Change::carry_out`].
    pub async fn run(self, context: &Context, how: How) -> anyhow::Result<()> {
        let device = context.open()?;
        self.carry_out(context, &device, how).await?;
        device.session.stop().await;
        Ok(())
    }

    /// Has the server carry it out, in the way that was asked for, and prints
    /// what came of it. Whether anything was to be done, and the person wanted
    /// it.
    ///
    /// # Errors
    /// When the server refuses or is away, or nobody can be asked.
    pub async fn carry_out(
        self,
        context: &Context,
        device: &Device,
        how: How,
    ) -> anyhow::Result<bool> {
        if how.dry_run {
            let would = self.call(context, device, true).await?;
            show(context, &would, true)?;
            return Ok(false);
        }
        if self.for_good && !how.yes && !self.agreed(context, device).await? {
            return Ok(false);
        }
        let changed = self.call(context, device, false).await?;
        show(context, &changed, false)?;
        Ok(!changed.events.is_empty())
    }

    /// Shows a person what would be done, and asks.
    async fn agreed(&self, context: &Context, device: &Device) -> anyhow::Result<bool> {
        let would = self.call(context, device, true).await?;
        if would.events.is_empty() {
            show(context, &would, false)?;
            return Ok(false);
        }
        for event in &would.events {
            context.output.note(entry::sentence(event));
        }
        agreed(context, "This cannot be taken back. Do it?")
    }

    async fn call(
        &self,
        context: &Context,
        device: &Device,
        dry_run: bool,
    ) -> anyhow::Result<wire::DirectoryChanged> {
        let asked = device
            .session
            .change_directory(self.commands.clone(), dry_run);
        Ok(context.output.patiently("Asking the server", asked).await?)
    }
}

impl From<Vec<wire::DirectoryCommand>> for Change {
    fn from(commands: Vec<wire::DirectoryCommand>) -> Self {
        Self {
            commands,
            for_good: false,
        }
    }
}

#[cfg(test)]
impl Change {
    /// What is asked, in order.
    pub fn asks(self) -> Vec<Ask> {
        let asks = self.commands.into_iter().filter_map(|command| command.ask);
        asks.collect()
    }
}

/// Asks a person; an error where there is none to ask.
///
/// # Errors
/// When there is no terminal.
pub fn agreed(context: &Context, question: &str) -> anyhow::Result<bool> {
    match prompt::agreed(question)? {
        Some(true) => Ok(true),
        Some(false) => {
            context.output.note("Nothing was changed.");
            Ok(false)
        }
        None => {
            bail!("there is no terminal to ask at: look with --dry-run, then repeat it with --yes")
        }
    }
}

fn show(context: &Context, changed: &wire::DirectoryChanged, dry_run: bool) -> io::Result<()> {
    let output = context.output;
    if changed.events.is_empty() {
        output.note("Nothing to change: it is so already.");
    } else if dry_run {
        output.note("Nothing was changed. This would be:");
    }
    for event in &changed.events {
        let mut json = entry::fields(event);
        let kind = if dry_run { "would_change" } else { "changed" };
        json.insert("event".to_owned(), kind.into());
        output.say(&Value::Object(json), entry::sentence(event))?;
    }
    output.say_json(&json!({
        "event": "directory", "changes": changed.events.len(), "length": changed.length,
        "dry_run": dry_run,
    }))
}
