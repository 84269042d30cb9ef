//! `sotto admin log`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Subcommand;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use ed25519_dalek::VerifyingKey;
use prost::Message;
use serde_json::{Value, json};
use sotto_jwt_accounts::directory::export::{self, Exporter};
use sotto_proto::{OrgName, signed, wire};

use super::{directory, entry};
use crate::device::Context;
use crate::new_file::NewFile;

/// What can be typed after `sotto admin log`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  sotto admin log show --last 20
  sotto admin log export acme.log
  sotto admin log verify acme.log --key 8c1f…

The key is what `sotto admin org show` calls gateway_key: get it from somebody you trust, not with
the file.")]
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
    /// Write the whole log to a file, verified, for auditors to keep.
    Export {
        /// Which; it must not be there yet.
        file: PathBuf,
    },
    /// Verify an exported log without a server or an account; name the first
    /// entry that does not fit.
    Verify {
        /// What `sotto admin log export` wrote.
        file: PathBuf,
        /// The gateway's public key, in hexadecimal.
        #[arg(long, value_parser = key, value_name = "HEX")]
        key: VerifyingKey,
    },
}

pub async fn run(context: &Context, command: Log) -> anyhow::Result<()> {
    match command {
        Log::Show { from, last } => show(context, from, last).await,
        Log::Export { file } => write(context, &file).await,
        Log::Verify { file, key } => verify(context, &file, &key),
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

async fn write(context: &Context, path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let file = NewFile::create(path).with_context(|| format!("cannot make {shown}"))?;
    let mut exporter = Exporter::new(file)?;
    let state = directory::read(context, |entry| exporter.append(entry)).await?;
    let file = exporter.finish();
    file.and_then(NewFile::finish)
        .with_context(|| format!("cannot write {shown}"))?;
    let entries = state.head().length;
    context.output.say(
        &json!({ "event": "exported", "path": path, "entries": entries }),
        format_args!("Wrote {entries} entries to {shown}."),
    )?;
    Ok(())
}

fn verify(context: &Context, path: &Path, key: &VerifyingKey) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let state = export::verify(BufReader::new(file), key)?;
    let head = state.head();
    let hash = head.hash.map(|hash| HEXLOWER.encode(&hash));
    let org = state.org().map(OrgName::as_str);
    context.output.say(
        &json!({ "event": "verified", "org": org, "entries": head.length, "head": hash }),
        format_args!(
            "All {} entries of the log of {} fit.\nIts newest entry has the hash {}.",
            head.length,
            org.unwrap_or("nobody"),
            hash.as_deref().unwrap_or("-"),
        ),
    )?;
    Ok(())
}

fn key(text: &str) -> Result<VerifyingKey, String> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    let key = bytes.and_then(|bytes| signed::public_key(&bytes).ok());
    key.ok_or_else(|| {
        "give the 64 hexadecimal digits of a public key, as `sotto admin org show` prints it"
            .to_owned()
    })
}
