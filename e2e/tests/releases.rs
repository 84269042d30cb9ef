//! An operator puts releases on a gateway, and the programs on the machines
//! find them there.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sotto_e2e::process::{binary, with_clock_off};
use sotto_e2e::releases::Releases;
use sotto_e2e::server::Server;
use sotto_service::ServerConfig;

fn run(program: &str, folder: &Path, command: &str) -> Result<String, String> {
    let output = Command::new(binary(program).unwrap())
        .args(command.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[test]
fn programs_find_the_newest_release_at_their_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let built = folder.join("built");
    fs::write(&built, "relay").unwrap();
    let releases = Releases::create(&folder.join("keys"), &folder.join("releases")).unwrap();
    let release = |version: &str| {
        releases
            .publish(version, &[("sotto-relay", &built)])
            .unwrap()
    };
    release("7.0.0");
    let mut server = Server::create(&folder.join("server"), "acme", "field").unwrap();
    server.stop().unwrap();
    let mut config = ServerConfig::load(server.layout()).unwrap();
    config.gateway.releases = Some(folder.join("releases"));
    config.save(server.layout()).unwrap();
    server.start().unwrap();

    let root = "releases/metadata/1.root.json";
    run(
        "sotto-relay",
        folder,
        &format!("update --state seen trust {root}"),
    )
    .unwrap();
    let source = format!("https://{}/releases", config.gateway.listen);
    let authority = server.layout().authority();
    let check = format!(
        "update --state seen --json check --source {source} --ca-file {}",
        authority.display()
    );
    let newest = || -> Value {
        let said = run("sotto-relay", folder, &check).unwrap();
        serde_json::from_str(&said).unwrap()
    };
    assert_eq!(newest()["newest"], "7.0.0");
    // While the gateway runs.
    release("7.0.1");
    assert_eq!(newest()["newest"], "7.0.1");
    assert_eq!(newest()["newer"], true);

    // What is not what was signed.
    let timestamp = folder.join("releases/metadata/timestamp.json");
    let text = fs::read_to_string(&timestamp).unwrap();
    fs::write(
        &timestamp,
        text.replacen("\"version\": 2", "\"version\": 9", 1),
    )
    .unwrap();
    assert_ne!(fs::read_to_string(&timestamp).unwrap(), text);
    let error = run("sotto-relay", folder, &check).unwrap_err();
    assert!(
        error.contains("not signed by enough of the keys"),
        "{error}"
    );
}

/// Somebody's own `sotto`, which nobody restarts for them.
#[test]
fn people_update_their_program_and_only_to_what_says_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let releases = Releases::create(&folder.join("keys"), &folder.join("releases")).unwrap();
    let release = |version: &str, says: &str| {
        let built = folder.join("built");
        fs::write(&built, format!("#!/bin/sh\necho {says}\n")).unwrap();
        releases.publish(version, &[("sotto", &built)]).unwrap();
    };
    let own = folder.join("sotto");
    fs::copy(binary("sotto").unwrap(), &own).unwrap();
    let update_at = |days: Option<i32>, command: &str| {
        let mut update = Command::new(&own);
        update
            .args(["--json", "update", "--state", "seen"])
            .args(command.split_whitespace())
            .current_dir(folder);
        if let Some(days) = days {
            with_clock_off(&mut update, days).unwrap();
        }
        let output = update.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    };
    let update = |command: &str| update_at(None, command);
    let runs = || {
        let output = Command::new(&own).arg("--version").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let before = runs();

    release("9.0.0", "sotto 8.0.0");
    let unknown = update("check --source releases").unwrap_err();
    assert!(unknown.contains("trust"), "{unknown}");
    update("trust releases/metadata/1.root.json").unwrap();
    let error = update("apply --source releases").unwrap_err();
    assert!(
        error.contains("does not say that it is version 9.0.0"),
        "{error}"
    );
    assert_eq!(runs(), before);

    release("9.0.1", "sotto 9.0.1");
    for (days, wrong) in [(365, "fast"), (-365, "slow")] {
        let error = update_at(Some(days), "apply --source releases").unwrap_err();
        let clock = format!("the clock of this machine is {wrong}");
        assert!(error.contains(&clock), "{error}");
        assert_eq!(runs(), before);
    }
    let said: Value = serde_json::from_str(&update("apply --source releases").unwrap()).unwrap();
    assert_eq!(said["outcome"], "confirmed");
    assert_eq!(runs(), "sotto 9.0.1\n");
    let previous = Command::new(folder.join("sotto.previous"))
        .arg("--version")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(previous.stdout).unwrap(), before);
}
