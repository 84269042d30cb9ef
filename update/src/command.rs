//! `update` as a subcommand of every program that updates itself: of those that
//! serve all the time (`service`), and of those that people start (`tool`).

mod service;
pub mod tool;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use semver::Version;
use serde_json::json;
use sotto_service::private_files;
use tokio::process::Command;

use crate::updater::Offer;
use crate::{
    Bounds, Checked, Outcome, Pace, Program, Service, Slot, Source, TrustFile, check, gate,
    journal, platform,
};

pub use service::{UpdateArgs, run};

/// How long a program may take to say its version.
const VERSION_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
struct Trust {
    /// `1.root.json` of the releases.
    file: PathBuf,
    /// Its SHA-256 sum, as you were told by those who release.
    #[arg(long)]
    fingerprint: Option<crate::Digest>,
}

#[derive(Debug, Args)]
struct SourceArgs {
    /// Where releases are: https://…, or a folder.
    #[arg(long, env = "SOTTO_UPDATE_SOURCE", value_name = "ADDRESS")]
    source: String,
    /// Authorities of that server's certificate, PEM, instead of the system's.
    #[arg(long, env = "SOTTO_UPDATE_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

fn program(name: &str, version: &str) -> anyhow::Result<Program> {
    Ok(Program {
        name: name.to_owned(),
        platform: platform(),
        version: version.parse().context("this program's version")?,
    })
}

async fn check_only(
    trust: &TrustFile,
    from: &SourceArgs,
    program: &Program,
    output: &Output,
) -> anyhow::Result<()> {
    let checked = check(trust, &source(from)?, program).await?;
    let newest = match &checked {
        Checked::UpToDate(version) => version,
        Checked::Newer(offer) => &offer.release.version,
    };
    let newer = matches!(checked, Checked::Newer(_));
    let words = match newer {
        true => format!("Version {newest} is there; {} is running.", program.version),
        false => format!("Version {newest} is the newest, and is running."),
    };
    let json = json!({ "running": program.version, "newest": newest, "newer": newer });
    output.say(&words, json);
    Ok(())
}

fn pin(trust: &TrustFile, args: &Trust, output: &Output) -> anyhow::Result<()> {
    if let Some(expected) = args.fingerprint {
        let (found, _) = crate::Digest::of_file(&args.file)
            .with_context(|| format!("reading {}", args.file.display()))?;
        ensure!(
            found == expected,
            "the file has the fingerprint {found}: it is not the root of trust that you meant"
        );
    }
    let fingerprint = trust.pin(&args.file)?;
    let words = format!(
        "Pinned the root of trust {fingerprint}. Compare this with what you were told by those \
         who release."
    );
    output.say(&words, json!({ "fingerprint": fingerprint }));
    Ok(())
}

/// Goes on with an update that was interrupted, or fetches the newest release
/// and puts it through the gate; one that failed here before only when it is to
/// be tried `again`.
async fn put_in_place(
    state: &Path,
    slot: &Slot,
    program: &Program,
    (from, again): (&SourceArgs, bool),
    (service, bounds): (&mut dyn Service, Bounds),
    output: &Output,
) -> anyhow::Result<()> {
    let _only_one = one_updater(state, slot)?;
    if let Some(outcome) = gate::resume(slot, service, bounds)? {
        return report(&outcome, output);
    }
    let trust = TrustFile::new(state);
    let offer = match check(&trust, &source(from)?, program).await? {
        Checked::Newer(offer) => offer,
        Checked::UpToDate(version) => {
            let words = format!("Version {version} is the newest, and is running.");
            output.say(
                &words,
                json!({ "outcome": "up to date", "version": version }),
            );
            return Ok(());
        }
    };
    let version = offer.release.version.clone();
    if !again && slot.journal().read()?.has_failed(&version) {
        bail!("version {version} failed on this machine before: `update apply --again` tries it");
    }
    download(slot, &offer).await?;
    says_its_version(&slot.next(), &version).await?;
    let versions = (&version, &program.version);
    let outcome = gate::update(slot, offer.artifact.sha256, versions, service, bounds)?;
    report(&outcome, output)
}

async fn download(slot: &Slot, offer: &Offer) -> anyhow::Result<()> {
    private_files::remove(&slot.next())?;
    let bar = ProgressBar::new(offer.artifact.length);
    if !io::stderr().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    offer
        .download(&slot.next(), |received| bar.set_position(received))
        .await?;
    bar.finish_and_clear();
    Ok(())
}

/// A program for another machine, or one that lacks a library, is found out
/// before anything is stopped.
async fn says_its_version(next: &Path, version: &Version) -> anyhow::Result<()> {
    let said = Command::new(next)
        .arg("--version")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let said = tokio::time::timeout(VERSION_WITHIN, said)
        .await
        .with_context(|| format!("version {version} does not say its version in time"))?
        .with_context(|| format!("version {version} does not start on this machine"))?;
    let text = String::from_utf8_lossy(&said.stdout);
    let says_it = text
        .split_whitespace()
        .any(|word| word.parse::<Version>().is_ok_and(|said| said == *version));
    ensure!(
        said.status.success() && says_it,
        "the new program does not say that it is version {version}: nothing was replaced"
    );
    Ok(())
}

fn status(
    trust: &TrustFile,
    slot: &Slot,
    program: &Program,
    output: &Output,
) -> anyhow::Result<()> {
    let trust = trust.load()?;
    let journal = slot.journal().read()?;
    let mut words = format!(
        "{} {} for {}",
        program.name, program.version, program.platform
    );
    words.push_str(&format!("\nroot of trust: {}", trust.pinned));
    match &trust.log {
        Some(head) => {
            let line = format!("\nrelease log: {} releases, {}", head.sequence, head.sha256);
            words.push_str(&line);
        }
        None => words.push_str("\nrelease log: not seen yet"),
    }
    if let Some(version) = &journal.confirmed {
        words.push_str(&format!("\nproved itself last: {version}"));
    }
    if let Some(probation) = &journal.probation {
        let (version, since) = (&probation.version, &probation.since);
        words.push_str(&format!("\non probation: {version} since {since}"));
    }
    for failure in &journal.failures {
        let line = format!(
            "\nfailed: {} at {}: {}",
            failure.version, failure.at, failure.why
        );
        words.push_str(&line);
    }
    let json = json!({
        "program": program.name, "version": program.version, "platform": program.platform,
        "pinned": trust.pinned, "log": trust.log, "confirmed": journal.confirmed,
        "probation": journal.probation, "failures": journal.failures,
    });
    output.say(&words, json);
    Ok(())
}

fn report(outcome: &Outcome, output: &Output) -> anyhow::Result<()> {
    match outcome {
        Outcome::Confirmed(version) => {
            let words = format!("Version {version} is in place.");
            output.say(
                &words,
                json!({ "outcome": "confirmed", "version": version }),
            );
            Ok(())
        }
        Outcome::Returned {
            version,
            why,
            old_is_ready: true,
        } => bail!("version {version} was taken back: {why}. The old one serves again"),
        Outcome::Returned { version, why, .. } => bail!(
            "version {version} was taken back: {why}. The old one is in place, and NOT ready: \
             look at its log"
        ),
    }
}

fn source(from: &SourceArgs) -> anyhow::Result<Source> {
    Ok(Source::new(
        &from.source,
        from.ca_file.as_deref(),
        Pace::default(),
    )?)
}

/// Of the program that runs this.
fn own_slot(state: &Path) -> anyhow::Result<Slot> {
    let program = std::env::current_exe()
        .and_then(std::fs::canonicalize)
        .context("cannot find this program's file: was it replaced just now?")?;
    let kept = program
        .extension()
        .is_some_and(|end| end == "previous" || end == "next");
    ensure!(!kept, "run the program itself, not {}", program.display());
    Ok(Slot::new(&program, state)?)
}

fn one_updater(state: &Path, slot: &Slot) -> anyhow::Result<File> {
    let path = journal::file_of(state, slot.program(), "updater");
    let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    file.try_lock()
        .map_err(|_| anyhow::anyhow!("another update of this program is under way"))?;
    Ok(file)
}

struct Output {
    json: bool,
}

impl Output {
    fn back(&self) {
        let words = "The previous program is in place again.";
        self.say(words, json!({ "outcome": "back" }));
    }

    #[expect(clippy::print_stdout, reason = "what was asked for")]
    fn say(&self, words: &str, json: serde_json::Value) {
        match self.json {
            true => println!("{json}"),
            false => println!("{words}"),
        }
    }
}
