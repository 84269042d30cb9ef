//! `update` of a real program, from a real folder of releases: what an operator
//! types, and what comes of it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sotto_update::publish::{self, Expiry, Keyholders, NewArtifact, Releases, Roles, SigningKey};
use sotto_update::{Digest, platform};
use tempfile::TempDir;

/// A machine on which version 0.1.0 runs.
struct Machine {
    folder: TempDir,
    releases: Releases,
    keys: Vec<SigningKey>,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys: Vec<SigningKey> = (0..2).map(|_| SigningKey::generate().unwrap().0).collect();
        let holders = Keyholders {
            keys: keys.iter().map(SigningKey::public).collect(),
            threshold: NonZeroU64::new(2).unwrap(),
        };
        let roles = Roles {
            root: holders.clone(),
            targets: holders.clone(),
            snapshot: holders.clone(),
            timestamp: holders,
        };
        let mut root = publish::root(NonZeroU64::MIN, later(), &roles).unwrap();
        for key in &keys {
            publish::sign(&mut root, key).unwrap();
        }
        let releases = Releases::create(&folder.path().join("releases"), root).unwrap();
        let machine = Self {
            folder,
            releases,
            keys,
        };
        machine.build(&machine.program(), "0.1.0", "serves");
        let restart = format!(
            "test -f {ready} && kill $(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/' {ready})\n\
             rm -f {ready}\n{program} run {ready} >/dev/null 2>&1 &\nexit 0\n",
            ready = machine.path("ready.json").display(),
            program = machine.program().display(),
        );
        fs::write(machine.path("restart"), restart).unwrap();
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self) -> PathBuf {
        self.path("trial")
    }

    /// Makes the program, as if it had been compiled.
    fn build(&self, to: &Path, version: &str, behaviour: &str) {
        let trial = env::current_exe().unwrap();
        let trial = trial.ancestors().nth(2).unwrap().join("examples/trial");
        let mut build = Command::new(&trial);
        let build = build.arg("append").arg(to).args([version, behaviour]);
        let status = build.status();
        assert!(status.unwrap().success(), "{}", trial.display());
    }

    /// Releases `version`, which says of itself that it is `says`.
    fn release(&self, version: &str, says: &str, behaviour: &str) {
        let path = self.path("built");
        self.build(&path, says, behaviour);
        let artifact = NewArtifact {
            program: "trial".to_owned(),
            platform: platform(),
            path,
        };
        let version = version.parse().unwrap();
        self.releases
            .draft(version, Timestamp::now(), &[artifact], later())
            .unwrap();
        for key in &self.keys {
            publish::sign_file(&self.releases.draft_file(), key).unwrap();
        }
        let expires = Expiry {
            targets: later(),
            timestamp: later(),
        };
        self.releases.publish(&self.keys, expires).unwrap();
    }

    fn update(&self, args: &[&str]) -> Output {
        let mut update = Command::new(self.program());
        let update = update.arg("update").arg("--json").args(args);
        update
            .env("SOTTO_UPDATE_DIR", self.path("state"))
            .env("SOTTO_UPDATE_SOURCE", self.path("releases"))
            .output()
            .unwrap()
    }

    fn trust(&self) {
        let root = self.releases.first_root();
        let fingerprint = Digest::of_file(&root).unwrap().0.to_string();
        let root = root.to_str().unwrap();
        said(&self.update(&["trust", root, "--fingerprint", &fingerprint]));
    }

    fn apply(&self, more: &[&str]) -> Output {
        let (ready, restart) = (self.path("ready.json"), self.path("restart"));
        let (ready, restart) = (ready.to_str().unwrap(), restart.to_str().unwrap());
        let args = ["apply", "--ready-file", ready, "--ready-within", "3"];
        let args = [
            &args[..],
            &["--probation", "1"],
            more,
            &["--", "sh", restart],
        ];
        self.update(&args.concat())
    }

    fn runs(&self) -> String {
        let said = Command::new(self.program()).arg("--version").output();
        String::from_utf8(said.unwrap().stdout).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(text) = fs::read_to_string(self.path("ready.json")) {
            let ready: Value = serde_json::from_str(&text).unwrap_or_default();
            let pid = ready["pid"].to_string();
            let _ = Command::new("kill").arg(pid).status();
        }
    }
}

fn later() -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24)
}

fn said(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn failed(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_machine_trusts_checks_updates_and_returns() {
    let machine = Machine::new();
    machine.release("0.2.0", "0.2.0", "serves");

    let text = failed(&machine.update(&["check"]));
    assert!(text.contains("update trust"), "{text}");
    let root = machine.releases.first_root();
    let wrong = "0".repeat(64);
    let text = failed(&machine.update(&["trust", root.to_str().unwrap(), "--fingerprint", &wrong]));
    assert!(
        text.contains("not the root of trust that you meant"),
        "{text}"
    );
    machine.trust();

    let checked = said(&machine.update(&["check"]));
    assert_eq!(
        (&checked["newer"], &checked["newest"]),
        (&true.into(), &"0.2.0".into())
    );
    assert_eq!(said(&machine.apply(&[]))["outcome"], "confirmed");
    assert_eq!(machine.runs(), "trial 0.2.0\n");
    assert!(machine.path("trial.previous").exists());
    assert_eq!(said(&machine.apply(&[]))["outcome"], "up to date");
    let status = said(&machine.update(&["status"]));
    assert_eq!(status["log"]["sequence"], 1);
    assert_eq!(status["probation"], Value::Null);

    let (ready, restart) = (machine.path("ready.json"), machine.path("restart"));
    let back = ["back", "--ready-file", ready.to_str().unwrap(), "--", "sh"];
    let back = [&back[..], &[restart.to_str().unwrap()]].concat();
    said(&machine.update(&back));
    assert_eq!(machine.runs(), "trial 0.1.0\n");
    // Nothing that runs daily undoes that.
    let text = failed(&machine.apply(&[]));
    assert!(text.contains("--again"), "{text}");
}

#[test]
fn what_does_not_serve_is_taken_back_and_not_tried_again() {
    let machine = Machine::new();
    machine.trust();
    machine.release("0.2.0", "0.2.0", "crashes");
    let text = failed(&machine.apply(&[]));
    assert!(
        text.contains("taken back") && text.contains("serves again"),
        "{text}"
    );
    assert_eq!(machine.runs(), "trial 0.1.0\n");
    let text = failed(&machine.apply(&[]));
    assert!(text.contains("--again"), "{text}");
    let status = said(&machine.update(&["status"]));
    assert_eq!(status["failures"][0]["version"], "0.2.0");

    // The next release is another matter.
    machine.release("0.2.1", "0.2.1", "serves");
    assert_eq!(said(&machine.apply(&[]))["outcome"], "confirmed");
    assert_eq!(machine.runs(), "trial 0.2.1\n");
}

#[test]
fn what_is_another_program_than_it_is_called_never_gets_in_place() {
    let machine = Machine::new();
    machine.trust();
    machine.release("0.2.0", "0.1.9", "serves");
    let text = failed(&machine.apply(&[]));
    assert!(
        text.contains("does not say that it is version 0.2.0"),
        "{text}"
    );
    assert_eq!(machine.runs(), "trial 0.1.0\n");
    assert!(!machine.path("trial.previous").exists());
}
