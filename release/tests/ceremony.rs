//! `sotto-release` as people use it, and what it makes as others check it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sotto_update::{Checked, Digest, Pace, Program, Source, TrustFile, check, platform};
use tempfile::TempDir;

struct Case {
    folder: TempDir,
}

impl Case {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tries(&self, command: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_sotto-release"))
            .args(command.split_whitespace())
            .current_dir(self.folder.path())
            .output()
            .unwrap()
    }

    fn does(&self, command: &str) -> String {
        let output = self.tries(command);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn fails(&self, command: &str) -> String {
        let output = self.tries(command);
        assert!(!output.status.success(), "{command}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// What a machine hears that runs 0.0.0.
    async fn newest(&self, program: &str) -> String {
        sotto_service::tls::install_provider();
        let trust = TrustFile::new(&self.path("machine"));
        let root = self.path("releases/metadata/1.root.json");
        trust.pin(&root).unwrap();
        let folder = self.path("releases");
        let source = Source::new(folder.to_str().unwrap(), None, Pace::default()).unwrap();
        let program = Program {
            name: program.to_owned(),
            platform: platform(),
            version: "0.0.0".parse().unwrap(),
        };
        match check(&trust, &source, &program).await.unwrap() {
            Checked::Newer(offer) => offer.release.version.to_string(),
            Checked::UpToDate(version) => version.to_string(),
        }
    }
}

#[tokio::test]
async fn several_people_release_each_with_a_key_of_their_own() {
    let case = Case::new();
    for name in ["ann", "ben", "cem", "online"] {
        case.does(&format!("key {name}"));
    }
    assert!(case.fails("key ann").contains("not overwritten"));
    let people = "--offline ann.pub --offline ben.pub --offline cem.pub --online online.pub";
    case.does(&format!("root root.json --threshold 2 {people}"));
    case.does("sign root.json --key ann");
    let text = case.fails("trust releases --root root.json");
    assert!(text.contains("needs more signatures"), "{text}");
    case.does("sign root.json --key ben");
    case.does("trust releases --root root.json");

    fs::write(case.path("built"), "program").unwrap();
    case.does("draft releases --version 0.1.0 --program sotto-relay=built");
    case.does("sign releases/draft.json --key ben");
    let text = case.fails("publish releases --online online");
    assert!(text.contains("needs more signatures"), "{text}");
    case.does("sign releases/draft.json --key cem");
    case.does("publish releases --online online");
    assert_eq!(case.newest("sotto-relay").await, "0.1.0");
    case.does("refresh releases --online online");
    let text = case.fails("draft releases --version 0.1.0 --program sotto-relay=built");
    assert!(text.contains("not higher"), "{text}");

    // Ann leaves, and dan comes.
    case.does("key dan");
    let people = people.replace("ann", "dan");
    case.does(&format!(
        "root next.json --version 2 --threshold 2 {people}"
    ));
    case.does("sign next.json --key dan");
    case.does("sign next.json --key ben");
    let text = case.fails("trust releases --root next.json");
    assert!(
        text.contains("needs more signatures"),
        "of the old keys: {text}"
    );
    case.does("sign next.json --key ann");
    case.does("trust releases --root next.json");
    case.does("draft releases --version 0.2.0 --program sotto-relay=built");
    case.does("sign releases/draft.json --key ann");
    case.does("sign releases/draft.json --key ben");
    let text = case.fails("publish releases --online online");
    assert!(
        text.contains("needs more signatures"),
        "ann signs no more: {text}"
    );
    case.does("sign releases/draft.json --key dan");
    case.does("publish releases --online online");
    assert_eq!(case.newest("sotto-relay").await, "0.2.0");
}

#[tokio::test]
async fn what_is_assembled_can_be_checked_by_others() {
    let case = Case::new();
    for program in ["one", "two"] {
        fs::write(case.path(program), format!("#!/bin/sh\necho {program}\n")).unwrap();
    }
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let commit = "0123456789012345678901234567890123456789";
    let assemble = format!(
        "--manifest {} --version 0.7.0 --commit {commit} --source-date-epoch 1764000000 \
         --compiler rustc",
        manifest.display()
    );
    let programs = "--program sotto-relay=one --program sotto-gateway=two";
    case.does(&format!("assemble out {assemble} {programs}"));

    // A machine takes it, as the tool has already seen for itself.
    fs::rename(case.path("out/releases"), case.path("releases")).unwrap();
    assert_eq!(case.newest("sotto-gateway").await, "0.7.0");
    let summed = Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(case.path("out"))
        .output()
        .unwrap();
    assert!(summed.status.success());

    let keys = "--key out/keys/offline-1.pub --key out/keys/offline-2.pub";
    case.does(&format!("verify out/provenance.dsse.json {keys}"));
    let others = "--key out/keys/offline-1.pub --key out/keys/online.pub";
    let text = case.fails(&format!("verify out/provenance.dsse.json {others}"));
    assert!(text.contains("1 of the keys"), "{text}");
    fs::write(case.path("out/programs/sotto-relay"), "another").unwrap();
    let text = case.fails(&format!("verify out/provenance.dsse.json {keys}"));
    assert!(text.contains("not the file that was signed"), "{text}");

    // The same but for keys and signatures.
    case.does(&format!("assemble again {assemble} {programs}"));
    for same in ["sbom.cdx.json", "LICENSES.txt"] {
        let of = |folder: &str| fs::read(case.path(folder).join(same)).unwrap();
        assert_eq!(of("out"), of("again"), "{same}");
    }

    // A relay with nats-server inside, of which the same is said.
    let nats_server = "mod\tgithub.com/nats-io/nats-server/v2\tv2.99.0\t\n\
        dep\tgithub.com/nats-io/nkeys\tv0.9.0\th1:abc=\n";
    fs::write(case.path("nats"), nats_server).unwrap();
    let assemble = format!("assemble carrying {assemble} {programs} --nats-server nats");
    let text = case.fails(&assemble);
    assert!(text.contains("does not carry nats"), "{text}");
    fs::remove_dir_all(case.path("carrying")).unwrap();
    let sum = Digest::of(nats_server.as_bytes());
    fs::write(case.path("one"), format!("#!/bin/sh\necho {sum}\n")).unwrap();
    case.does(&assemble);
    case.does(&format!(
        "verify carrying/provenance.dsse.json {}",
        keys.replace("out/", "carrying/")
    ));
    let says = |file: &str, what: &str| {
        let text = fs::read_to_string(case.path("carrying").join(file)).unwrap();
        assert!(text.contains(what), "{file}: {what}");
    };
    says(
        "sbom.cdx.json",
        "pkg:golang/github.com/nats-io/nkeys@v0.9.0",
    );
    says("sbom.cdx.json", &sum.to_string());
    says("LICENSES.txt", "github.com/nats-io/nkeys");
    says("SHA256SUMS", "LICENSES.txt");
}
