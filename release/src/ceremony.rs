//! What people do with keys, one step a command, so that each key can stay on
//! a machine of its own.

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use semver::Version;
use sotto_service::private_files;
use sotto_update::publish::{self, Expiry, Keyholders, NewArtifact, Releases, Roles};
use sotto_update::{Digest, platform};
use tough::schema::{Root, Signed};

use crate::keys;

/// Longest root that is read, in bytes.
const ROOT_MAX: u64 = 512 * 1024;

#[derive(Args)]
pub(crate) struct RootArgs {
    /// The file to write.
    file: PathBuf,
    /// 1 for the first, one more for each that changes keys.
    #[arg(long, default_value = "1")]
    version: NonZeroU64,
    /// How many of the offline keys must sign.
    #[arg(long, default_value = "2")]
    threshold: NonZeroU64,
    /// Public keys of those who release, and may change keys.
    #[arg(long, required = true, value_name = "FILE.pub")]
    offline: Vec<PathBuf>,
    /// Public key of the machine that says daily that there is nothing newer.
    #[arg(long, required = true, value_name = "FILE.pub")]
    online: Vec<PathBuf>,
    /// For how many days it is good.
    #[arg(long, default_value = "730")]
    days: u32,
}

#[derive(Args)]
pub(crate) struct SignArgs {
    /// The root of trust, or draft.json of a folder of releases.
    file: PathBuf,
    /// The secret key.
    #[arg(long)]
    key: PathBuf,
}

#[derive(Args)]
pub(crate) struct TrustArgs {
    /// The folder of releases.
    folder: PathBuf,
    /// The root of trust, signed by enough keys; when it changes keys, by
    /// enough of the old ones, too.
    #[arg(long)]
    root: PathBuf,
}

#[derive(Args)]
pub(crate) struct DraftArgs {
    /// The folder of releases.
    folder: PathBuf,
    /// Of the release; higher than the last one.
    #[arg(long)]
    version: Version,
    /// A program of it.
    #[arg(long, required = true, value_name = "PROGRAM=FILE", value_parser = program)]
    program: Vec<(String, PathBuf)>,
    /// What they run on, as in aarch64-linux; this machine's, when left out.
    #[arg(long)]
    platform: Option<String>,
    /// For how many days it is good.
    #[arg(long, default_value = "365")]
    days: u32,
}

#[derive(Args)]
pub(crate) struct PublishArgs {
    /// The folder of releases.
    folder: PathBuf,
    /// The secret online key.
    #[arg(long, required = true)]
    online: Vec<PathBuf>,
    /// For how many days the list of documents is good.
    #[arg(long, default_value = "365")]
    days: u32,
    /// For how many days it is said that there is nothing newer.
    #[arg(long, default_value = "7")]
    fresh_days: u32,
}

pub(crate) fn root(args: &RootArgs) -> anyhow::Result<()> {
    let public = |files: &[PathBuf]| -> anyhow::Result<Vec<_>> {
        files.iter().map(|file| keys::read_public(file)).collect()
    };
    let offline = Keyholders {
        keys: public(&args.offline)?,
        threshold: args.threshold,
    };
    let online = Keyholders {
        keys: public(&args.online)?,
        threshold: NonZeroU64::MIN,
    };
    let roles = Roles {
        root: offline.clone(),
        targets: offline,
        snapshot: online.clone(),
        timestamp: online,
    };
    let root = publish::root(args.version, in_days(args.days), &roles)?;
    ensure!(
        !args.file.exists(),
        "{} exists already",
        args.file.display()
    );
    let json = serde_json::to_vec_pretty(&root)?;
    fs::write(&args.file, json).with_context(|| format!("writing {}", args.file.display()))
}

pub(crate) fn sign(args: &SignArgs) -> anyhow::Result<()> {
    Ok(publish::sign_file(&args.file, &keys::read(&args.key)?)?)
}

#[expect(
    clippy::print_stdout,
    reason = "the fingerprint is what people compare"
)]
pub(crate) fn trust(args: &TrustArgs) -> anyhow::Result<()> {
    let text = private_files::read_text(&args.root, ROOT_MAX)?;
    let root: Signed<Root> = serde_json::from_str(&text)
        .with_context(|| format!("{} is no root of trust", args.root.display()))?;
    let releases = if args.folder.join("metadata").exists() {
        let mut releases = Releases::open(&args.folder)?;
        releases.change_root(root)?;
        releases
    } else {
        Releases::create(&args.folder, root)?
    };
    let (fingerprint, _) = Digest::of_file(&releases.first_root())?;
    println!("{fingerprint}");
    Ok(())
}

pub(crate) fn draft(args: &DraftArgs) -> anyhow::Result<()> {
    let platform = args.platform.clone().unwrap_or_else(platform);
    let programs: Vec<NewArtifact> = args
        .program
        .iter()
        .map(|(program, path)| NewArtifact {
            program: program.clone(),
            platform: platform.clone(),
            path: path.clone(),
        })
        .collect();
    let releases = Releases::open(&args.folder)?;
    let expires = in_days(args.days);
    Ok(releases.draft(args.version.clone(), Timestamp::now(), &programs, expires)?)
}

pub(crate) fn publish(args: &PublishArgs) -> anyhow::Result<()> {
    let expires = Expiry {
        targets: in_days(args.days),
        timestamp: in_days(args.fresh_days),
    };
    let online = keys::read_all(&args.online)?;
    Ok(Releases::open(&args.folder)?.publish(&online, expires)?)
}

pub(crate) fn refresh(args: &PublishArgs) -> anyhow::Result<()> {
    let online = keys::read_all(&args.online)?;
    let releases = Releases::open(&args.folder)?;
    Ok(releases.refresh(&online, in_days(args.fresh_days))?)
}

/// `PROGRAM=FILE`
pub(crate) fn program(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("say PROGRAM=FILE")?;
    Ok((name.to_owned(), Path::new(file).to_owned()))
}

pub(crate) fn in_days(days: u32) -> Timestamp {
    let later = SignedDuration::from_hours(i64::from(days) * 24);
    Timestamp::now()
        .checked_add(later)
        .unwrap_or(Timestamp::MAX)
}
