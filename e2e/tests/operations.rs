//! What an operator asks of the server programs: is the configuration right,
//! what is in force, and how does systemd run them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use sotto_e2e::process::{binary, systemd_analyze};
use tempfile::TempDir;

const PROGRAMS: [&str; 2] = ["sotto-relay", "sotto-gateway"];

/// A server's directory, of which nothing runs.
fn server() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let init = ["init", "--dir", dir, "--org", "acme", "--project", "field"];
    let made = Command::new(binary("sotto-gateway").unwrap())
        .args(init)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", errors(&made));
    folder
}

fn asks(program: &str, dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(binary(program).unwrap())
        .args(args)
        .args(["--dir", dir.to_str().unwrap()])
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", errors(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let server = server();
    for program in PROGRAMS {
        let show = |more: &[&str], variables: &[(&str, &str)]| -> Value {
            let args = [&["config", "show", "--effective", "--json"], more].concat();
            let output = asks(program, server.path(), &args, variables);
            serde_json::from_str(&printed(&output)).unwrap()
        };
        let key = ["config", "nats", "listen"];
        let listen = |shown: &Value| key.iter().fold(shown, |at, key| &at[key]).clone();
        let environment = [("SOTTO__NATS__LISTEN", "127.0.0.1:7001")];
        let flag = ["--nats-listen", "127.0.0.1:7002"];
        let from_file = show(&[], &[]);
        assert_eq!(from_file["origins"], Value::Object(Default::default()));
        assert_eq!(listen(&show(&[], &environment)), "127.0.0.1:7001");
        let shown = show(&flag, &environment);
        assert_eq!(listen(&shown), "127.0.0.1:7002");
        assert_eq!(shown["origins"]["nats.listen"], "--nats-listen");
    }
}

#[test]
fn a_typo_is_named_with_the_key_that_was_meant() {
    let server = server();
    let path = server.path().join("server.toml");
    let text = fs::read_to_string(&path).unwrap();
    for program in PROGRAMS {
        let check = |variables: &[(&str, &str)]| {
            asks(program, server.path(), &["config", "check"], variables)
        };
        assert!(printed(&check(&[])).contains("is valid"));
        fs::write(&path, text.replace("public_host", "public_hots")).unwrap();
        let wrong = check(&[]);
        assert!(!wrong.status.success());
        assert!(
            errors(&wrong).contains("did you mean `public_host`?"),
            "{}",
            errors(&wrong)
        );
        fs::write(&path, &text).unwrap();
        let wrong = check(&[("SOTTO__RELAY__METRIC", "127.0.0.1:1")]);
        let said = errors(&wrong);
        assert!(said.contains("SOTTO__RELAY__METRIC"), "{said}");
        assert!(said.contains("did you mean `metrics`?"), "{said}");
    }
}

#[test]
fn secrets_are_not_shown_and_missing_files_are_named() {
    let server = server();
    let path = server.path().join("server.toml");
    let mut text = fs::read_to_string(&path).unwrap();
    let sms = "[sms]\nurl = \"https://sms.example/send?key=hunter2\"\n\
               bearer_file = \"/nowhere/bearer\"\n\
               fields = { to = \"{number}\", text = \"{text}\", key = \"hunter2\" }\n";
    text = text.replacen("[[orgs]]", &format!("{sms}\n[[orgs]]"), 1);
    fs::write(&path, text).unwrap();
    for program in PROGRAMS {
        for args in [&["config", "show"][..], &["config", "show", "--effective"]] {
            let shown = printed(&asks(program, server.path(), args, &[]));
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("sms.example"), "{shown}");
        }
        let wrong = asks(program, server.path(), &["config", "check"], &[]);
        assert!(
            errors(&wrong).contains("/nowhere/bearer"),
            "{}",
            errors(&wrong)
        );
    }
}

#[test]
fn a_log_can_be_lines_of_json() {
    let server = server();
    for program in PROGRAMS {
        let mut command = Command::new(binary(program).unwrap());
        command
            .args(["run", "--exit-with-parent", "--log-format", "json", "--dir"])
            .arg(server.path());
        // Nothing is written to it, and so it is asked to stop at once.
        let output = command.stdin(Stdio::null()).output().unwrap();
        let lines = errors(&output);
        let logged = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let logged: Vec<Value> = logged.collect();
        let is_said = |line: &Value| line["message"] == "the parent process is gone";
        let line = logged.iter().find(|line| is_said(line));
        let line = line.unwrap_or_else(|| panic!("{program}: {lines}"));
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["target"], "sotto_service::shutdown");
        assert!(line["timestamp"].is_string(), "{line}");
    }
}

/// The most that `systemd-analyze security` may find exposed, of 100.
const EXPOSED: u32 = 15;

#[test]
fn systemd_takes_the_units_and_finds_little_to_attack() {
    let server = tempfile::tempdir().unwrap();
    let units = tempfile::tempdir().unwrap();
    let kinds = [
        ("", ".service"),
        ("update", "-update.service"),
        ("timer", "-update.timer"),
    ];
    for program in PROGRAMS {
        let mut files = Vec::new();
        for (kind, end) in kinds {
            let file = units.path().join(format!("{program}{end}"));
            let mut args = vec!["unit"];
            args.extend(Some(kind).filter(|kind| !kind.is_empty()));
            args.extend(["--source", "https://chat.example/updates"]);
            let unit = printed(&asks(program, server.path(), &args, &[]));
            fs::write(&file, unit).unwrap();
            files.push(file);
        }
        let mut verify = systemd_analyze().unwrap();
        let verified = verify.arg("verify").args(&files).output().unwrap();
        assert!(verified.status.success(), "{}", errors(&verified));
        // The units of systemd itself, where it is unpacked and not installed.
        let warnings = errors(&verified);
        let mut warnings = warnings
            .lines()
            .filter(|line| !line.starts_with("Suspicious symlink"));
        assert_eq!(warnings.next(), None);
        let mut security = systemd_analyze().unwrap();
        let rated = security
            .args(["security", "--offline=true", "--no-pager"])
            .arg(format!("--threshold={EXPOSED}"))
            .arg(&files[0])
            .output()
            .unwrap();
        let table = String::from_utf8_lossy(&rated.stdout);
        assert!(rated.status.success(), "{table}{}", errors(&rated));
    }
}
