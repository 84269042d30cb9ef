//! Where programs come from: an in-toto statement with a SLSA 1.0 provenance,
//! in a DSSE envelope that is signed by those who release.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Args;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sotto_service::private_files;
use sotto_update::Digest;

use crate::envelope::Envelope;
use crate::keys;
use crate::nats_server::NatsServer;

/// Type of what is in the envelope.
pub(crate) const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// What `cargo xtask release` does.
const BUILD_TYPE: &str = "https://sotto.example/build/xtask-release/v1";
/// Longest envelope that is read, in bytes.
const ENVELOPE_MAX: u64 = 1024 * 1024;

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// `provenance.dsse.json` beside the files that it names.
    file: PathBuf,
    /// Public keys of those who release.
    #[arg(long, required = true, value_name = "FILE.pub")]
    key: Vec<PathBuf>,
    /// How many of them must have signed.
    #[arg(long, default_value = "2")]
    threshold: usize,
}

/// What is said of a build.
pub(crate) struct Build<'a> {
    pub(crate) version: &'a str,
    /// Commit of the sources.
    pub(crate) commit: &'a str,
    /// `rustc --version --verbose`
    pub(crate) compiler: &'a str,
    /// Sum of Cargo.lock.
    pub(crate) lock: Digest,
    /// What is carried, and comes as it is.
    pub(crate) nats_server: Option<&'a NatsServer>,
    pub(crate) platform: &'a str,
    /// Time of the commit: the build itself has none.
    pub(crate) made: Timestamp,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    predicate_type: String,
    predicate: serde_json::Value,
}

#[derive(Serialize, Deserialize)]
struct Subject {
    name: String,
    digest: Sums,
}

#[derive(Serialize, Deserialize)]
struct Sums {
    sha256: Digest,
}

/// The statement about these files.
pub(crate) fn state(build: &Build<'_>, files: &[(String, Digest)]) -> anyhow::Result<Vec<u8>> {
    let subject = files.iter().map(|(name, sha256)| Subject {
        name: name.clone(),
        digest: Sums { sha256: *sha256 },
    });
    let mut dependencies = vec![
        json!({ "name": "sources", "digest": { "gitCommit": build.commit } }),
        json!({ "name": "Cargo.lock", "digest": { "sha256": build.lock } }),
    ];
    dependencies.extend(build.nats_server.map(|carried| {
        json!({ "name": carried.server.reference(), "digest": { "sha256": carried.sha256 } })
    }));
    let statement = Statement {
        kind: STATEMENT.to_owned(),
        subject: subject.collect(),
        predicate_type: PREDICATE.to_owned(),
        predicate: json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "version": build.version, "platform": build.platform },
                "internalParameters": { "compiler": build.compiler },
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": { "id": BUILD_TYPE },
                "metadata": { "startedOn": build.made },
            },
        }),
    };
    Ok(serde_json::to_vec(&statement)?)
}

#[expect(clippy::print_stdout, reason = "what was found")]
pub(crate) fn verify(args: &VerifyArgs) -> anyhow::Result<()> {
    let text = private_files::read_text(&args.file, ENVELOPE_MAX)?;
    let envelope: Envelope = serde_json::from_str(&text)
        .with_context(|| format!("{} is no envelope", args.file.display()))?;
    let public = args.key.iter().map(|file| keys::read_public(file));
    let public: Vec<_> = public.collect::<anyhow::Result<_>>()?;
    let payload = envelope.open(PAYLOAD_TYPE, &public, args.threshold)?;
    let statement: Statement =
        serde_json::from_slice(&payload).context("what is signed is no statement")?;
    ensure!(
        statement.kind == STATEMENT && statement.predicate_type == PREDICATE,
        "what is signed is no provenance"
    );
    let folder = args.file.parent().unwrap_or(Path::new("."));
    for subject in &statement.subject {
        let path = folder.join(&subject.name);
        ensure!(
            !subject.name.contains(".."),
            "`{}` is not a file beside the provenance",
            subject.name
        );
        let found = match fs::metadata(&path) {
            Ok(_) => Digest::of_file(&path)?.0,
            Err(_) => bail!("{} is not there", path.display()),
        };
        ensure!(
            found == subject.digest.sha256,
            "{} is not the file that was signed",
            path.display()
        );
    }
    println!("{} files are as they were signed.", statement.subject.len());
    Ok(())
}
