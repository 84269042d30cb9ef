//! From built programs to a folder that updaters accept:
//!
//! ```text
//! OUT/programs/…              what was built
//! OUT/sbom.cdx.json           CycloneDX
//! OUT/LICENSES.txt            of all that is in the programs
//! OUT/SHA256SUMS              of these, for `sha256sum --check`
//! OUT/provenance.dsse.json    of all of it, signed by those who release
//! OUT/releases/               metadata/ and targets/: what a server hands out
//! OUT/keys/                   only when no keys were given: throw-away ones
//! ```

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use jiff::Timestamp;
use semver::Version;
use sotto_service::private_files;
use sotto_update::publish::{self, Expiry, Keyholders, NewArtifact, Releases, Roles, SigningKey};
use sotto_update::{Checked, Digest, Pace, Program, Source, TrustFile, check, platform};

use crate::ceremony::{in_days, program};
use crate::contents::Contents;
use crate::envelope::Envelope;
use crate::nats_server::NatsServer;
use crate::provenance::{self, Build};
use crate::{keys, licences, sbom};

/// Throw-away keys: so many, and so many of them sign.
const OFFLINE: usize = 3;
const THRESHOLD: u64 = 2;

#[derive(Args)]
pub(crate) struct AssembleArgs {
    /// The folder to make.
    out: PathBuf,
    /// A built program.
    #[arg(long, required = true, value_name = "PROGRAM=FILE", value_parser = program)]
    program: Vec<(String, PathBuf)>,
    /// The workspace's Cargo.toml.
    #[arg(long)]
    manifest: PathBuf,
    /// Of the release.
    #[arg(long)]
    version: Version,
    /// Commit of the sources.
    #[arg(long)]
    commit: String,
    /// When the commit was made, in seconds since 1970.
    #[arg(long, env = "SOURCE_DATE_EPOCH")]
    source_date_epoch: i64,
    /// `rustc --version --verbose`
    #[arg(long)]
    compiler: String,
    /// The nats-server that sotto-relay carries.
    #[arg(long, value_name = "FILE")]
    nats_server: Option<PathBuf>,
    /// Secret keys of those who release; with --releases and --online.
    #[arg(long, requires_all = ["releases", "online"])]
    offline: Vec<PathBuf>,
    /// The secret online key.
    #[arg(long, requires = "offline")]
    online: Option<PathBuf>,
    /// A folder of releases to publish into, instead of a new one.
    #[arg(long, requires = "offline")]
    releases: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "what was made")]
pub(crate) async fn assemble(args: &AssembleArgs) -> anyhow::Result<()> {
    let out = &args.out;
    ensure!(!out.exists(), "{} exists already", out.display());
    let programs = out.join("programs");
    make(&programs)?;
    let made = Timestamp::from_second(args.source_date_epoch).context("SOURCE_DATE_EPOCH")?;
    let mut files = Vec::new();
    for (name, path) in &args.program {
        let to = programs.join(name);
        fs::copy(path, &to).with_context(|| format!("copying {}", path.display()))?;
        files.push(summed(out, &format!("programs/{name}"))?);
    }

    let names: Vec<&str> = args.program.iter().map(|(name, _)| name.as_str()).collect();
    let nats_server = carried(args, &programs)?;
    let version = args.version.to_string();
    let contents = Contents::of(&args.manifest, &names)?;
    let bill = sbom::describe(&contents, nats_server.as_ref(), &version, made)?;
    put(&out.join("sbom.cdx.json"), &bill)?;
    files.push(summed(out, "sbom.cdx.json")?);
    let texts = licences::texts(&contents, nats_server.is_some())?;
    put(&out.join("LICENSES.txt"), texts.as_bytes())?;
    files.push(summed(out, "LICENSES.txt")?);
    let sums = files.iter().map(|(name, sum)| format!("{sum}  {name}\n"));
    put(&out.join("SHA256SUMS"), sums.collect::<String>().as_bytes())?;
    files.push(summed(out, "SHA256SUMS")?);

    let signers = Signers::find(args)?;
    let (lock, _) = Digest::of_file(&args.manifest.with_file_name("Cargo.lock"))
        .context("reading Cargo.lock")?;
    let build = Build {
        version: &version,
        commit: &args.commit,
        compiler: &args.compiler,
        lock,
        nats_server: nats_server.as_ref(),
        platform: &platform(),
        made,
    };
    let statement = provenance::state(&build, &files)?;
    let envelope = Envelope::seal(&statement, provenance::PAYLOAD_TYPE, &signers.offline)?;
    put(
        &out.join("provenance.dsse.json"),
        &serde_json::to_vec_pretty(&envelope)?,
    )?;

    signers.publish(args, &programs)?;
    for name in names {
        accepted(&signers.releases, name, &args.version, &programs.join(name)).await?;
    }
    println!(
        "{}: {} programs of version {version}, accepted by the updater",
        out.display(),
        args.program.len()
    );
    Ok(())
}

/// What the relay carries, when it does.
fn carried(args: &AssembleArgs, programs: &Path) -> anyhow::Result<Option<NatsServer>> {
    let Some(file) = &args.nats_server else {
        return Ok(None);
    };
    let nats_server = NatsServer::read(file)?;
    let relay = programs.join(sbom::CARRIER);
    ensure!(
        nats_server.is_in(&relay)?,
        "{} does not carry {}",
        relay.display(),
        file.display()
    );
    Ok(Some(nats_server))
}

/// Who signs, and into which folder.
struct Signers {
    offline: Vec<SigningKey>,
    online: Vec<SigningKey>,
    releases: Releases,
}

impl Signers {
    fn find(args: &AssembleArgs) -> anyhow::Result<Self> {
        match (&args.releases, &args.online) {
            (Some(releases), Some(online)) => Ok(Self {
                offline: keys::read_all(&args.offline)?,
                online: vec![keys::read(online)?],
                releases: Releases::open(releases)?,
            }),
            _ => Self::throw_away(&args.out),
        }
    }

    /// Two of three, and an online key, beside what they sign: good for a trial
    /// and for nothing else.
    fn throw_away(out: &Path) -> anyhow::Result<Self> {
        let folder = out.join("keys");
        private_files::create_dir(&folder)?;
        let make = |name: String| -> anyhow::Result<SigningKey> {
            let (key, pem) = SigningKey::generate()?;
            private_files::write(&folder.join(&name), pem.as_bytes())?;
            let public = serde_json::to_vec(&key.public())?;
            put(&folder.join(format!("{name}.pub")), &public)?;
            Ok(key)
        };
        let offline: Vec<SigningKey> = (1..=OFFLINE)
            .map(|number| make(format!("offline-{number}")))
            .collect::<anyhow::Result<_>>()?;
        let online = vec![make("online".to_owned())?];
        let holders = |keys: &[SigningKey], threshold| {
            let threshold = NonZeroU64::new(threshold).unwrap_or(NonZeroU64::MIN);
            Keyholders {
                keys: keys.iter().map(SigningKey::public).collect(),
                threshold,
            }
        };
        let roles = Roles {
            root: holders(&offline, THRESHOLD),
            targets: holders(&offline, THRESHOLD),
            snapshot: holders(&online, 1),
            timestamp: holders(&online, 1),
        };
        let mut root = publish::root(NonZeroU64::MIN, in_days(30), &roles)?;
        for key in &offline {
            publish::sign(&mut root, key)?;
        }
        Ok(Self {
            releases: Releases::create(&out.join("releases"), root)?,
            offline,
            online,
        })
    }

    fn publish(&self, args: &AssembleArgs, programs: &Path) -> anyhow::Result<()> {
        let artifacts = args.program.iter().map(|(name, _)| NewArtifact {
            program: name.clone(),
            platform: platform(),
            path: programs.join(name),
        });
        let artifacts: Vec<NewArtifact> = artifacts.collect();
        let expires = Expiry {
            targets: in_days(365),
            timestamp: in_days(7),
        };
        let version = args.version.clone();
        self.releases
            .draft(version, Timestamp::now(), &artifacts, expires.targets)?;
        for key in &self.offline {
            publish::sign_file(&self.releases.draft_file(), key)?;
        }
        Ok(self.releases.publish(&self.online, expires)?)
    }
}

/// Plays a machine that runs something older.
async fn accepted(
    releases: &Releases,
    name: &str,
    version: &Version,
    built: &Path,
) -> anyhow::Result<()> {
    let machine = tempfile::tempdir()?;
    let trust = TrustFile::new(machine.path());
    trust.pin(&releases.first_root())?;
    let folder = releases.folder().to_str().context("the folder's name")?;
    let source = Source::new(folder, None, Pace::default())?;
    let program = Program {
        name: name.to_owned(),
        platform: platform(),
        version: Version::new(0, 0, 0),
    };
    let Checked::Newer(offer) = check(&trust, &source, &program).await? else {
        bail!("the updater does not see {name}");
    };
    ensure!(
        offer.release.version == *version,
        "the updater sees another version of {name}"
    );
    let fetched = machine.path().join("fetched");
    offer.download(&fetched, |_| ()).await?;
    ensure!(
        Digest::of_file(&fetched)? == Digest::of_file(built)?,
        "what the updater fetched is not the {name} that was built"
    );
    Ok(())
}

fn summed(out: &Path, name: &str) -> anyhow::Result<(String, Digest)> {
    let path = out.join(name);
    let summed = Digest::of_file(&path);
    let (sum, _) = summed.with_context(|| format!("reading {}", path.display()))?;
    Ok((name.to_owned(), sum))
}

fn make(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))
}

fn put(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}
