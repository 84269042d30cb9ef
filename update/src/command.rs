//! `update` as a subcommand of every program that updates itself.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use semver::Version;
use serde_json::json;
use sotto_service::private_files;
use sotto_service::readiness::Ready;
use tokio::process::Command;

use crate::slot::Guarded;
use crate::updater::Offer;
use crate::{
    Bounds, Checked, Outcome, Pace, Program, Service, Slot, Source, TrustFile, check, gate,
    platform,
};

/// How long a program may take to say its version.
const VERSION_WITHIN: Duration = Duration::from_secs(30);
/// Longest file that says that a program is ready, in bytes.
const READY_MAX: u64 = 64 * 1024;

/// The arguments of `update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// The folder in which updates are remembered.
    #[arg(long, global = true, env = "SOTTO_UPDATE_DIR", value_name = "DIR")]
    state: Option<PathBuf>,
    /// Print JSON lines.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: UpdateCommand,
}

#[derive(Debug, Subcommand)]
enum UpdateCommand {
    /// Pin the root of trust, once: the file that came with the first release.
    Trust(Trust),
    /// Say whether there is a newer release.
    Check(SourceArgs),
    /// Install the newest release, and return to this one when it does not serve.
    Apply(Apply),
    /// Say what is pinned, seen, on probation and failed.
    Status,
    /// Return to the program that ran before.
    Back(Restart),
    /// Count a start, and take back a release that is started again and again.
    /// For a unit's ExecStartPre, run by the previous program.
    Guard(Guard),
}

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

#[derive(Debug, Args)]
struct Restart {
    /// The systemd unit to restart.
    #[arg(long, value_name = "UNIT", conflicts_with = "restart")]
    unit: Option<String>,
    /// Instead: the command that restarts the program.
    #[arg(last = true, value_name = "COMMAND")]
    restart: Vec<String>,
    /// The file by which the running program says that it is ready.
    #[arg(long, value_name = "FILE")]
    ready_file: PathBuf,
    /// Seconds from the start until it must be ready.
    #[arg(long, default_value = "120", value_name = "SECONDS")]
    ready_within: u32,
}

#[derive(Debug, Args)]
struct Apply {
    #[command(flatten)]
    from: SourceArgs,
    #[command(flatten)]
    restart: Restart,
    /// Seconds for which it has to stay ready.
    #[arg(long, default_value = "600", value_name = "SECONDS")]
    probation: u32,
    /// Try a release again that failed on this machine.
    #[arg(long)]
    again: bool,
}

#[derive(Debug, Args)]
struct Guard {
    /// The program that is about to be started.
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
}

/// Does what was asked, for the program `name` of this version, which is the
/// one that is running.
///
/// # Errors
/// When it cannot be done, or was refused.
pub async fn run(args: UpdateArgs, name: &str, version: &str) -> anyhow::Result<()> {
    let state = args.state.context(
        "name the folder in which updates are remembered: --state DIR, or SOTTO_UPDATE_DIR",
    )?;
    let output = Output { json: args.json };
    let version: Version = version.parse().context("this program's version")?;
    let program = Program {
        name: name.to_owned(),
        platform: platform(),
        version,
    };
    let trust = TrustFile::new(&state);
    match args.command {
        UpdateCommand::Trust(args) => pin(&trust, &args, &output),
        UpdateCommand::Check(from) => {
            let checked = check(&trust, &source(&from)?, &program).await?;
            let newest = match &checked {
                Checked::UpToDate(version) => version,
                Checked::Newer(offer) => &offer.release.version,
            };
            let newer = matches!(checked, Checked::Newer(_));
            let words = match newer {
                true => format!("Version {newest} is there; {} is running.", program.version),
                false => format!("Version {newest} is the newest, and is running."),
            };
            let json = json!({
                "running": program.version, "newest": newest, "newer": newer,
            });
            output.say(&words, json);
            Ok(())
        }
        UpdateCommand::Apply(args) => apply(&state, &program, &args, &output).await,
        UpdateCommand::Status => status(&trust, &own_slot(&state)?, &program, &output),
        UpdateCommand::Back(args) => back(&own_slot(&state)?, &args, &output),
        UpdateCommand::Guard(args) => guard(&Slot::new(&args.program, &state)?, &output),
    }
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

async fn apply(
    state: &Path,
    program: &Program,
    args: &Apply,
    output: &Output,
) -> anyhow::Result<()> {
    let slot = own_slot(state)?;
    let _only_one = one_updater(state)?;
    let bounds = Bounds {
        ready: Duration::from_secs(args.restart.ready_within.into()),
        probation: Duration::from_secs(args.probation.into()),
        ..Bounds::default()
    };
    let mut service = service(&slot, &args.restart)?;
    if let Some(outcome) = gate::resume(&slot, &mut service, bounds)? {
        return report(&outcome, output);
    }
    let trust = TrustFile::new(state);
    let offer = match check(&trust, &source(&args.from)?, program).await? {
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
    if !args.again && slot.journal().read()?.has_failed(&version) {
        bail!("version {version} failed on this machine before: `update apply --again` tries it");
    }
    download(&slot, &offer).await?;
    says_its_version(&slot.next(), &version).await?;
    let versions = (&version, &program.version);
    let outcome = gate::update(&slot, offer.artifact.sha256, versions, &mut service, bounds)?;
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
    match &trust.log {
        Some(head) => {
            let line = format!("\nrelease log: {} releases, {}", head.sequence, head.sha256);
            words.push_str(&line);
        }
        None => words.push_str("\nrelease log: not seen yet"),
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
        "log": trust.log, "probation": journal.probation, "failures": journal.failures,
    });
    output.say(&words, json);
    Ok(())
}

fn back(slot: &Slot, args: &Restart, output: &Output) -> anyhow::Result<()> {
    slot.back("somebody took it back")?;
    let mut service = service(slot, args)?;
    service.restart().context("the program does not restart")?;
    output.say(
        "The previous program is in place again.",
        json!({ "outcome": "back" }),
    );
    Ok(())
}

fn guard(slot: &Slot, output: &Output) -> anyhow::Result<()> {
    match slot.guard()? {
        Guarded::Nothing => {}
        Guarded::Started(version, starts) => {
            let words = format!("Version {version} is on probation: start {starts}.");
            output.say(&words, json!({ "probation": version, "starts": starts }));
        }
        Guarded::Returned(version) => {
            let words = format!("Version {version} does not stay up: the old one is back.");
            output.say(&words, json!({ "returned": version }));
        }
    }
    Ok(())
}

fn report(outcome: &Outcome, output: &Output) -> anyhow::Result<()> {
    match outcome {
        Outcome::Confirmed(version) => {
            let words = format!("Version {version} serves.");
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

fn one_updater(state: &Path) -> anyhow::Result<File> {
    private_files::create_dir(state)?;
    let path = state.join("updater");
    let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    file.try_lock()
        .map_err(|_| anyhow::anyhow!("another update of this program is under way"))?;
    Ok(file)
}

fn service(slot: &Slot, args: &Restart) -> anyhow::Result<Restarted> {
    let restart = match &args.unit {
        Some(unit) => vec!["systemctl".to_owned(), "restart".to_owned(), unit.clone()],
        None => args.restart.clone(),
    };
    ensure!(
        !restart.is_empty(),
        "say how the program is restarted: --unit UNIT, or -- COMMAND"
    );
    Ok(Restarted {
        restart,
        ready_file: args.ready_file.clone(),
        program: slot.program().to_owned(),
    })
}

/// A program that a command restarts, and that says in a file that it is ready.
struct Restarted {
    restart: Vec<String>,
    ready_file: PathBuf,
    program: PathBuf,
}

impl Service for Restarted {
    fn restart(&mut self) -> io::Result<()> {
        let (command, arguments) = self
            .restart
            .split_first()
            .ok_or(io::ErrorKind::InvalidInput)?;
        let status = std::process::Command::new(command)
            .args(arguments)
            .status()?;
        if status.success() {
            return Ok(());
        }
        Err(io::Error::other(format!("`{command}` ended with {status}")))
    }

    fn ready(&mut self) -> Option<u32> {
        let text = private_files::read_text(&self.ready_file, READY_MAX).ok()?;
        let ready: Ready = serde_json::from_str(&text).ok()?;
        // A file that a killed process left behind names a process that is gone,
        // or another program; one that was replaced is marked by the system.
        let runs = std::fs::read_link(format!("/proc/{}/exe", ready.pid)).ok()?;
        (runs == self.program).then_some(ready.pid)
    }
}

struct Output {
    json: bool,
}

impl Output {
    #[expect(clippy::print_stdout, reason = "what was asked for")]
    fn say(&self, words: &str, json: serde_json::Value) {
        match self.json {
            true => println!("{json}"),
            false => println!("{words}"),
        }
    }
}
