//! `sotto admin log`.

use std::collections::VecDeque;
use std::io;

use clap::Subcommand;
use prost::Message;
use serde_json::Value;
use sotto_proto::wire;

use super::{directory, entry};
use crate::device::Context;

/// What can be typed after `sotto admin log`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  sotto admin log show --last 20")]
pub enum Log {
    /// Show the entries, verified.
    Show {
        /// From this index on.
        #[arg(long, default_value_t = 0, value_name = "INDEX")]
        from: u64,
        /// Only so many of the newest.
        #[arg(long, value_name = "COUNT")]
        last: Option<usize>,
    },
}

pub async fn run(context: &Context, command: Log) -> anyhow::Result<()> {
    match command {
        Log::Show { from, last } => show(context, from, last).await,
    }
}

async fn show(context: &Context, from: u64, last: Option<usize>) -> anyhow::Result<()> {
    let mut newest = Newest {
        from,
        most: last.unwrap_or(usize::MAX),
        events: VecDeque::new(),
    };
    directory::read(context, |entry| newest.take(entry)).await?;
    for event in &newest.events {
        let mut json = entry::fields(event);
        json.insert("event".to_owned(), "entry".into());
        context
            .output
            .say(&Value::Object(json), entry::line(event))?;
    }
    Ok(())
}

/// The newest events, from an index on.
struct Newest {
    from: u64,
    most: usize,
    events: VecDeque<wire::DirectoryEvent>,
}

impl Newest {
    fn take(&mut self, entry: &[u8]) -> io::Result<()> {
        let signed = wire::Signed::decode(entry)?;
        let event = wire::DirectoryEvent::decode(signed.statement)?;
        if event.index >= self.from {
            self.events.push_back(event);
        }
        if self.events.len() > self.most {
            self.events.pop_front();
        }
        Ok(())
    }
}
