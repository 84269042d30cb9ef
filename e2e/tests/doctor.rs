//! What an operator without a systems team is told: `sotto doctor` on servers
//! that are well, that are stopped, and that are not well.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use rcgen::{CertificateParams, Issuer, KeyPair};
use serde_json::Value;
use sotto_e2e::cluster::Cluster;
use sotto_e2e::process::{PATIENCE, binary, with_clock_off};
use sotto_e2e::server::Server;
use sotto_faults::ports;
use sotto_service::{Layout, ServerConfig};
use tempfile::TempDir;

const CHECKS: [&str; 11] = [
    "accounts",
    "clock",
    "directory",
    "disk",
    "dns",
    "memory",
    "nats",
    "ports",
    "programs",
    "tls",
    "updates",
];

/// What the doctor said.
struct Examined {
    code: i32,
    findings: Vec<Value>,
}

impl Examined {
    /// The findings of this level.
    fn of(&self, level: &str) -> Vec<&Value> {
        let findings = self.findings.iter();
        findings
            .filter(|finding| finding["level"] == level)
            .collect()
    }

    /// The one problem that there is; every other finding is less.
    fn problem(&self) -> &Value {
        let problems = self.of("problem");
        assert_eq!((self.code, problems.len()), (1, 1), "{:#?}", self.findings);
        problems[0]
    }
}

fn doctor(dir: &Path, more: &[&str]) -> Command {
    let mut doctor = Command::new(binary("sotto").unwrap());
    doctor.args(["doctor", "--dir"]).arg(dir).args(more);
    // The folder of a device is another thing.
    doctor.env("SOTTO_DIR", "/nowhere/alice");
    doctor
}

fn run(dir: &Path, more: &[&str]) -> Output {
    doctor(dir, more).output().unwrap()
}

fn examine(dir: &Path) -> Examined {
    examined(&run(dir, &["--json"]))
}

fn examined(output: &Output) -> Examined {
    let text = std::str::from_utf8(&output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    let lines: Vec<Value> = lines.collect();
    let findings = lines.iter().filter(|line| line["event"] == "finding");
    for finding in findings.clone() {
        let advised = finding["advice"].is_string();
        assert_eq!(advised, finding["level"] != "ok", "{finding}");
    }
    let count = lines.iter().filter(|line| line["event"] == "examined");
    assert!(count.count() <= 1);
    Examined {
        code: output.status.code().unwrap(),
        findings: findings.cloned().collect(),
    }
}

fn says(finding: &Value, what: &str, advice: &str) {
    assert!(
        finding["what"].as_str().unwrap().contains(what),
        "{finding:#}"
    );
    let advised = finding["advice"].as_str().unwrap();
    assert!(advised.contains(advice), "{finding:#}");
}

/// A server's directory, of which nothing runs.
fn stopped() -> (TempDir, Layout) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new(folder.path().join("server"));
    let mut init = Command::new(binary("sotto-gateway").unwrap());
    init.args(["init", "--org", "acme", "--project", "field"])
        .args(["--gateway-listen", &ports::free().unwrap().to_string()])
        .args(["--nats-listen", &ports::free().unwrap().to_string()])
        .arg("--dir")
        .arg(layout.root());
    let made = init.output().unwrap();
    assert!(made.status.success(), "{made:?}");
    (folder, layout)
}

/// Every file with its size and when it was changed.
fn files(folder: &Path) -> BTreeMap<PathBuf, (u64, SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            files.extend(self::files(&entry.path()));
        }
        files.insert(entry.path(), (metadata.len(), metadata.modified().unwrap()));
    }
    files
}

#[test]
fn a_server_that_is_well_has_no_problem_running_or_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("server");
    let mut server = Server::create(&dir, "acme", "field").unwrap();
    let running = examine(&dir);
    assert_eq!(
        (running.code, running.of("problem").len()),
        (0, 0),
        "{:#?}",
        running.findings
    );
    let looked_at: BTreeSet<&str> = running
        .findings
        .iter()
        .map(|finding| finding["check"].as_str().unwrap())
        .collect();
    assert_eq!(looked_at, CHECKS.into());
    // One machine has no other to compare its clock with.
    let unknown = running.of("not_checked");
    assert!(
        unknown.iter().all(|finding| finding["check"] == "clock"),
        "{unknown:#?}"
    );
    let text = String::from_utf8(run(&dir, &[]).stdout).unwrap();
    for said in [
        "running: sotto-relay, sotto-gateway, nats-server",
        "every write is synced",
        "answers over TLS 1.3",
        "only pulling the plug proves it",
        "the newest version is in force",
    ] {
        assert!(text.contains(said), "{text}");
    }

    server.stop().unwrap();
    let before = files(&dir);
    let stopped = examine(&dir);
    assert_eq!(files(&dir), before, "the doctor changed something");
    assert_eq!(
        (stopped.code, stopped.of("problem").len()),
        (0, 0),
        "{:#?}",
        stopped.findings
    );
    let free = stopped
        .of("ok")
        .into_iter()
        .filter(|finding| finding["check"] == "ports");
    assert_eq!(free.count(), 2, "{:#?}", stopped.findings);
    let unknown = stopped.of("not_checked");
    assert!(
        unknown.iter().any(|finding| finding["check"] == "nats"),
        "{unknown:#?}"
    );
}

#[test]
fn a_file_that_others_can_read_is_named() {
    let (_folder, layout) = stopped();
    fs::set_permissions(layout.system_creds(), Permissions::from_mode(0o644)).unwrap();
    let examined = examine(layout.root());
    says(examined.problem(), "creds/system.creds", "chmod -R go=");
}

#[test]
fn a_port_that_is_taken_is_named_with_who_has_it() {
    let (_folder, layout) = stopped();
    let listen = ServerConfig::load(&layout).unwrap().gateway.listen;
    let taken = TcpListener::bind(listen).unwrap();
    let examined = examine(layout.root());
    let own = format!("process {}", std::process::id());
    says(examined.problem(), &listen.to_string(), &own);
    drop(taken);
    assert_eq!(examine(layout.root()).code, 0);
}

#[test]
fn a_certificate_that_expired_is_named() {
    let (_folder, layout) = stopped();
    let authority = fs::read_to_string(layout.authority()).unwrap();
    let authority_key = fs::read_to_string(layout.authority_key()).unwrap();
    let authority_key = KeyPair::from_pem(&authority_key).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&authority, authority_key).unwrap();
    let hosts = ServerConfig::load(&layout).unwrap().certificate_hosts();
    let mut params = CertificateParams::new(hosts).unwrap();
    let day = Duration::from_secs(24 * 3_600);
    params.not_before = (SystemTime::now() - 90 * day).into();
    params.not_after = (SystemTime::now() - 3 * day).into();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    fs::write(layout.server_certificate(), certificate.pem() + &authority).unwrap();
    fs::write(layout.server_key(), key.serialize_pem()).unwrap();
    let examined = examine(layout.root());
    says(
        examined.problem(),
        "tls/server.pem expired 3 days ago",
        "clock",
    );
}

#[test]
fn settings_that_do_not_read_stop_no_other_check() {
    let (_folder, layout) = stopped();
    let text = fs::read_to_string(layout.config()).unwrap();
    fs::write(layout.config(), text.replace("public_host", "public_hots")).unwrap();
    let examined = examine(layout.root());
    says(
        examined.problem(),
        "did you mean `public_host`?",
        "server.toml",
    );
    let looked_at = examined
        .of("ok")
        .into_iter()
        .map(|finding| &finding["check"]);
    let looked_at: Vec<&str> = looked_at.filter_map(Value::as_str).collect();
    assert!(
        looked_at.contains(&"disk") && looked_at.contains(&"tls"),
        "{looked_at:?}"
    );
}

#[test]
fn what_is_said_in_place_of_the_file_counts() {
    let (_folder, layout) = stopped();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let said = format!("gateway.listen={taken}");
    let output = run(layout.root(), &["--set", &said]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("--set gateway.listen"), "{text}");
    assert!(text.contains(&format!("{taken}")), "{text}");
    assert_eq!(output.status.code(), Some(1));
    let output = run(layout.root(), &["--set", "gateway.lisen=x"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("did you mean `listen`?"), "{text}");
}

#[test]
fn the_passphrase_is_looked_for_where_the_gateway_has_it_from() {
    let (folder, layout) = stopped();
    let credentials = folder.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let unlock = layout.root().join("unlock");
    fs::rename(&unlock, credentials.join("sotto-unlock")).unwrap();
    let is_missing = |doctor: &mut Command| {
        let output = doctor.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.contains("the passphrase that opens the keys is not in")
    };
    let doctor = || {
        let mut doctor = Command::new(binary("sotto").unwrap());
        doctor.args(["doctor", "--dir"]).arg(layout.root());
        doctor
    };
    assert!(is_missing(&mut doctor()));
    assert!(!is_missing(
        doctor().env("CREDENTIALS_DIRECTORY", &credentials)
    ));
    // As systemd starts it, and a doctor that knows nothing of it.
    let mut gateway = Command::new(binary("sotto-gateway").unwrap());
    gateway
        .args(["run", "--exit-with-parent", "--dir"])
        .arg(layout.root())
        .env("CREDENTIALS_DIRECTORY", &credentials)
        .stdin(Stdio::piped())
        .stderr(Stdio::null());
    let mut gateway = gateway.spawn().unwrap();
    let started = Instant::now();
    while is_missing(&mut doctor()) {
        assert!(started.elapsed() < PATIENCE, "the gateway is not seen");
        assert!(gateway.try_wait().unwrap().is_none(), "it has ended");
    }
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}

#[test]
fn a_folder_without_a_server_is_one_problem() {
    let folder = tempfile::tempdir().unwrap();
    let examined = examine(folder.path());
    says(examined.problem(), "no Sotto server", "--dir");
    assert_eq!(examined.findings.len(), 1);
}

/// Fast, it is not that of the others; slow, nothing is good yet.
fn a_clock_a_year_off_is_named(dir: &Path) {
    let at = |days: i32| {
        let mut doctor = doctor(dir, &["--json"]);
        with_clock_off(&mut doctor, days).unwrap();
        examined(&doctor.output().unwrap())
    };
    let fast = at(365);
    let clocks = fast.of("problem");
    let clocks = clocks.iter().filter(|found| found["check"] == "clock");
    assert_eq!(clocks.clone().count(), 2, "{:#?}", fast.findings);
    for clock in clocks {
        says(clock, "behind", "NTP");
    }
    let slow = at(-365);
    let problems = slow.of("problem");
    let named = |found: &&&Value| found["advice"].as_str().unwrap().contains("clock");
    assert!(problems.iter().any(|found| named(&found)), "{problems:#?}");
}

#[test]
fn a_node_that_is_gone_is_named_on_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::create(folder.path(), "acme", "field", 3).unwrap();
    cluster.is_settled().unwrap();
    let dir = cluster.nodes()[1].layout().root().to_owned();
    let well = examine(&dir);
    assert_eq!(
        (well.code, well.of("problem").len()),
        (0, 0),
        "{:#?}",
        well.findings
    );
    let clocks = well
        .of("ok")
        .into_iter()
        .filter(|finding| finding["check"] == "clock");
    assert_eq!(clocks.count(), 2, "{:#?}", well.findings);

    a_clock_a_year_off_is_named(&dir);

    let name = cluster.nodes()[2].layout().cluster_node();
    let name: Value = serde_json::from_slice(&fs::read(name).unwrap()).unwrap();
    let name = name["name"].as_str().unwrap();
    cluster.kill(2).unwrap();
    // Until whatever it led is led by another, and it has been silent for long.
    let started = Instant::now();
    loop {
        let gone = examine(&dir);
        assert_eq!(gone.code, 1);
        let problems = gone.of("problem");
        let names = |problem: &&&Value| problem["what"].as_str().unwrap().contains(name);
        let of = |check: &str| problems.iter().any(|problem| problem["check"] == check);
        let named = problems.iter().filter(names).count();
        if named == problems.len() && of("ports") && of("nats") {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{problems:#?}");
    }
}
