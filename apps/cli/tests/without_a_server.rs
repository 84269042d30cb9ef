//! What the program says when there is no server, no account or no sense in
//! what was typed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const INVITE: &str = "sotto://127.0.0.1:1/acme/invite/aaaaaaaaaaaaaaaaaaaaaaaaaa\
    ?ca=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn sotto(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sotto"))
        .arg("--dir")
        .arg(directory)
        .args(arguments)
        .env("SOTTO_PASSWORD", "the password")
        .env("SOTTO_PASSPHRASE", "the passphrase")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The exit code and what a person reads.
fn said(arguments: &[&str]) -> (i32, String) {
    let directory = tempfile::tempdir().unwrap();
    let output = sotto(&directory.path().join("device"), arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn without_an_account_every_command_says_how_to_get_one() {
    for arguments in [
        &["rooms"][..],
        &["sync"],
        &["devices"],
        &["invite"],
        &["send", "room", "text"],
        &["recv", "room"],
        &["files", "list", "room"],
        &["room", "create", "name"],
        &["safety", "bob"],
        &["factor", "list"],
        &["factor", "prove", "password"],
        &["admin", "org", "show"],
        &["admin", "project", "create", "field"],
        &["admin", "room", "list"],
        &["admin", "user", "list"],
        &["admin", "group", "list"],
        &["admin", "role", "list"],
        &["admin", "policy", "show"],
        &["admin", "log", "show"],
    ] {
        let (code, text) = said(arguments);
        assert_eq!(code, 1, "{arguments:?}: {text}");
        assert!(text.contains("sotto signup"), "{arguments:?}: {text}");
    }
}

#[test]
fn a_server_that_is_away_is_said_and_leaves_no_account() {
    let directory = tempfile::tempdir().unwrap();
    let device = directory.path().join("device");
    let output = sotto(&device, &["signup", INVITE, "alice"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(
        text.contains("127.0.0.1:1") && text.contains("check the network"),
        "{text}"
    );
    assert!(!device.join("key").exists());
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    for arguments in [
        &[][..],
        &["signup", "https://example.org", "alice"],
        &["signup", INVITE, "Alice!"],
        &["send", "room"],
        &["send", "room", "text", "--file", "also a file"],
        &["invite", "--valid", "soon"],
        &["room", "join", "not an id"],
        &["factor", "prove", "pin"],
        &["admin", "project", "create", "Field!"],
        &["admin", "project", "title", "field", "two\nlines"],
        &["admin", "role", "grant", "bob", "king", "org"],
        &["admin", "role", "grant", "bob", "user", "field"],
        &["admin", "user", "guest", "bob"],
        &["admin", "user", "add", "bob", "--role", "user"],
        &["admin", "policy", "set", "org", "--within", "8h"],
        &["admin", "policy", "set", "org", "--introductions", "5of2"],
        &["admin", "policy", "explain", "bob", "fly", "org"],
        &["admin", "log", "verify", "file", "--key", "not hex"],
        &["admin", "export"],
        &["up"],
    ] {
        let (code, text) = said(arguments);
        assert_eq!(code, 2, "{arguments:?}: {text}");
    }
    let (_, text) = said(&["signup", "https://example.org", "alice"]);
    assert!(text.contains("sotto://"), "{text}");
}

#[test]
fn programs_get_the_error_as_json_too() {
    let directory = tempfile::tempdir().unwrap();
    let output = sotto(directory.path(), &["--json", "rooms"]);
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    let message = line["message"].as_str().unwrap();
    assert_eq!(
        (&line["event"], &line["code"]),
        (&"error".into(), &1.into())
    );
    assert!(String::from_utf8(output.stderr).unwrap().contains(message));
}

#[test]
fn every_command_has_help() {
    for command in [
        &["up"][..],
        &["signup"],
        &["login"],
        &["invite"],
        &["device", "link"],
        &["device", "approve"],
        &["devices"],
        &["rooms"],
        &["room", "create"],
        &["room", "invite"],
        &["room", "join"],
        &["send"],
        &["recv"],
        &["sync"],
        &["files", "list"],
        &["files", "get"],
        &["safety"],
        &["factor", "list"],
        &["factor", "enrol", "totp"],
        &["factor", "prove", "password"],
        &["factor", "prove", "totp"],
        &["factor", "remove"],
        &["admin", "org"],
        &["admin", "project"],
        &["admin", "room"],
        &["admin", "user"],
        &["admin", "group"],
        &["admin", "role"],
        &["admin", "policy", "set"],
        &["admin", "policy", "explain"],
        &["admin", "policy", "matrix"],
        &["admin", "log", "verify"],
        &["admin", "ldap", "import"],
        &["admin", "export"],
    ] {
        let directory = tempfile::tempdir().unwrap();
        let output = sotto(directory.path(), &[command, &["--help"]].concat());
        assert!(output.status.success(), "{command:?}");
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(help.contains("Usage: sotto"), "{command:?}: {help}");
    }
}

#[test]
fn no_secret_is_asked_for_where_there_is_no_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sotto"))
        .arg("--dir")
        .arg(directory.path())
        .args(["signup", INVITE, "alice"])
        .env_remove("SOTTO_PASSWORD")
        .env_remove("SOTTO_PASSPHRASE")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text.contains("SOTTO_PASSWORD") && text.contains("--password-file"),
        "{text}"
    );
}

#[test]
fn every_subject_of_an_admin_has_examples() {
    for subject in [
        "org", "project", "room", "user", "group", "role", "policy", "log", "ldap",
    ] {
        let directory = tempfile::tempdir().unwrap();
        let output = sotto(directory.path(), &["admin", subject, "--help"]);
        let help = String::from_utf8(output.stdout).unwrap();
        let example = format!("  sotto admin {subject} ");
        assert!(
            help.contains("Examples:") && help.contains(&example),
            "{help}"
        );
    }
}

#[test]
fn a_log_that_is_none_is_said_offline() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("log");
    std::fs::write(&file, "not a log").unwrap();
    let path = file.to_str().unwrap();
    let key = "11".repeat(32);
    let (code, text) = said(&["admin", "log", "verify", path, "--key", &key]);
    assert_eq!(code, 1, "{text}");
    assert!(!text.contains("sotto signup"), "{text}");
}
