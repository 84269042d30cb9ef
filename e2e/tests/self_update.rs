//! Servers that update themselves from the first day: made by `sotto bootstrap`,
//! updated by the units that it leaves, under a real systemd, while people
//! write to each other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sotto_e2e::case::two_people;
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::machines::updating::SOURCE;
use sotto_e2e::machines::{self, Machines};
use sotto_e2e::process::PATIENCE;
use sotto_e2e::releases::{Releases, script};
use sotto_e2e::session::Saying;
use sotto_e2e::traffic::Traffic;
use sotto_service::Layout;
use sotto_update::Digest;

const PROGRAMS: [&str; 2] = ["sotto-relay", "sotto-gateway"];
/// The last steps of `sotto bootstrap` where both come to be updated.
const UPDATED: [&str; 4] = [
    "write-updater",
    "start-timer",
    "write-updater",
    "start-timer",
];

/// The most that `systemd-analyze security` may find exposed, of 100, in a unit
/// that serves, and in one that replaces a program, for which it is root.
const EXPOSED: u32 = 15;
const EXPOSED_UPDATE: u32 = 25;

/// A machine, and whoever releases for it.
struct Case {
    machines: Machines,
    releases: Releases,
}

impl Case {
    fn new() -> Self {
        let machines = Machines::start(1).unwrap();
        let keys = machines.folder().join("keys");
        let releases = Releases::create(&keys, &machines.source(1)).unwrap();
        let case = Self { machines, releases };
        case.machines.hurry(1).unwrap();
        case
    }

    fn bootstrap(&self, arguments: &[&str]) -> Result<Vec<Value>, String> {
        let one = ["root@m1", "--org", "acme", "--project", "field"];
        let outcome = self.machines.bootstrap(&[&one[..], arguments].concat());
        let outcome = outcome.unwrap();
        match outcome.status.success() {
            true => Ok(outcome.success().unwrap()),
            false => Err(outcome.stderr),
        }
    }

    /// What `sotto bootstrap` did, or would do.
    fn steps(&self, lines: &[Value]) -> Vec<String> {
        let steps = lines.iter().filter(|line| line["event"] == "step");
        let action = |line: &Value| line["step"]["action"].as_str().unwrap().to_owned();
        steps.map(action).collect()
    }

    fn release(&self, version: &str, names: &[&str]) {
        let released = self.machines.release(&self.releases, version, names);
        released.unwrap();
    }

    fn on(&self, command: &str) -> String {
        self.machines.on(1, command).unwrap().trim().to_owned()
    }

    fn update(&self, names: &[&str]) -> bool {
        self.machines.updates(1, names)
    }

    fn status(&self, name: &str) -> Value {
        self.machines.update_status(1, name).unwrap()
    }

    fn layout(&self) -> Layout {
        self.machines.layout(1)
    }

    fn process(&self, name: &str) -> String {
        self.machines.serving(1, name).unwrap()
    }

    fn runs(&self, name: &str) -> String {
        self.machines.runs(1, name).unwrap()
    }

    /// The one thing that the doctor says of updates, or the first of this level.
    fn doctor(&self, level: &str) -> String {
        let found = self.machines.doctor_of_updates(1).unwrap();
        let of_level = found.iter().find(|finding| finding["level"] == level);
        of_level.unwrap_or_else(|| panic!("{found:#?}")).to_string()
    }
}

#[test]
fn a_server_updates_itself_and_keeps_what_serves() {
    if !machines::are_possible("a_server_updates_itself_and_keeps_what_serves").unwrap() {
        return;
    }
    let case = Case::new();
    case.release("0.1.0", &PROGRAMS);
    let root = case.releases.root();
    let fingerprint = Digest::of_file(&root).unwrap().0.to_string();
    let root = root.to_str().unwrap();
    let trusting = ["--root-of-trust", root, "--fingerprint", &fingerprint];
    let from_folder = [&["--updates", SOURCE], &trusting[..]].concat();

    what_is_no_root_is_refused_before_anything(&case, &trusting);
    let shown = [&from_folder[..], &["--dry-run"]].concat();
    let shown = case.steps(&case.bootstrap(&shown).unwrap());
    let done = case.bootstrap(&from_folder).unwrap();
    assert_eq!(case.steps(&done), shown);
    let last = [&["pin-root"], &UPDATED[..]].concat();
    assert_eq!(shown[shown.len() - last.len()..], last);
    let looked = done.iter().find(|line| line["event"] == "updates").unwrap();
    assert_eq!(looked["newest"], "0.1.0", "{looked}");
    let ready = done.last().unwrap();
    assert_eq!(ready["without_updates"], json!([]));

    let before = case.machines.state(1).unwrap();
    let again = case.bootstrap(&from_folder).unwrap();
    assert_eq!(case.steps(&again), [""; 0]);
    let plain = case.bootstrap(&[]).unwrap();
    assert_eq!(plain.last().unwrap()["without_updates"], json!([]));
    whoever_is_trusted_stays(&case);
    assert_eq!(case.machines.state(1).unwrap(), before);
    units_are_sound(&case);
    the_doctor_knows_what_keeps_updates_away(&case);

    let invite = ready["invite"].as_str().unwrap();
    let ([alice, bob], room) = two_people(case.machines.folder(), invite).unwrap();
    let layout = case.layout();
    let listening = |port: u16| [format!("{}:{port}", Machines::address(1)).parse().unwrap()];
    let (gateways, nats) = ((&listening(8443)[..], 20), (&listening(4222)[..], 10));
    let org = "acme".parse().unwrap();
    let traffic = Traffic::start(&layout, &org, gateways, nats, 50).unwrap();
    let saying = Saying::start(&alice, &room).unwrap();

    newer_programs_take_over(&case);
    programs_of_no_use_are_taken_back(&case);
    updates_come_from_the_own_gateway(&case, &trusting);

    let said = saying.stop().unwrap();
    let tally = traffic.stop().unwrap();
    tally.nothing_failed().unwrap();
    assert!(!said.is_empty());
    bob.does(&["sync"]).unwrap();
    let history = history(&bob, &room).unwrap();
    assert_eq!(difference(&history, "said", &said), None);

    what_serves_for_a_while_alone_is_taken_back(&case);
}

fn what_is_no_root_is_refused_before_anything(case: &Case, trusting: &[&str]) {
    let before = case.machines.state(1).unwrap();
    let zeros = "0".repeat(64);
    let [root_of_trust, root, fingerprint, sum] = trusting else {
        unreachable!();
    };
    let programs = case.machines.programs().join("sotto-relay");
    let other_root = [root_of_trust, root, fingerprint, zeros.as_str()];
    let no_root = [root_of_trust, programs.to_str().unwrap(), fingerprint, sum];
    let refused: [(&str, &[&str], &str); 4] = [
        (SOURCE, &other_root, "--fingerprint says another"),
        (SOURCE, &no_root, "sotto-relay"),
        ("releases", trusting, "--updates must be https://"),
        (SOURCE, &trusting[..2], "--fingerprint <SHA256>"),
    ];
    for (source, trusting, expected) in refused {
        let said = case.bootstrap(&[&["--updates", source], trusting].concat());
        let said = said.unwrap_err();
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert_eq!(case.machines.state(1).unwrap(), before);
}

fn whoever_is_trusted_stays(case: &Case) {
    let folder = case.machines.folder();
    let others = Releases::create(&folder.join("others"), &folder.join("of-others")).unwrap();
    let root = others.root();
    let sum = Digest::of_file(&root).unwrap().0.to_string();
    let root = root.to_str().unwrap();
    let words = ["--updates", SOURCE, "--root-of-trust", root];
    let said = case.bootstrap(&[&words[..], &["--fingerprint", &sum]].concat());
    let said = said.unwrap_err();
    assert!(said.contains("it trusts other releases"), "{said}");
    assert!(said.contains("trust.json"), "{said}");
}

fn units_are_sound(case: &Case) {
    let verified = case.on(
        "cd /etc/systemd/system; systemd-analyze verify sotto-*.service sotto-*.timer 2>&1; true",
    );
    assert_eq!(verified, "");
    for name in PROGRAMS {
        for (end, exposed) in [("", EXPOSED), ("-update", EXPOSED_UPDATE)] {
            case.on(&format!(
                "systemd-analyze security --offline=true --no-pager --threshold={exposed} \
                 /etc/systemd/system/{name}{end}.service"
            ));
        }
        let show = "systemctl show -p UnitFileState -p ActiveState -p NextElapseUSecRealtime";
        let timer = case.on(&format!("{show} {name}-update.timer"));
        for expected in ["UnitFileState=enabled", "ActiveState=active"] {
            assert!(timer.contains(expected), "{timer}");
        }
        assert!(!timer.contains("NextElapseUSecRealtime=\n"), "{timer}");
        assert!(!timer.ends_with("NextElapseUSecRealtime="), "{timer}");
    }
}

fn the_doctor_knows_what_keeps_updates_away(case: &Case) {
    let well = case.doctor("ok");
    assert!(well.contains("update themselves"), "{well}");
    case.on("systemctl disable --now sotto-relay-update.timer");
    let disabled = case.doctor("warning");
    assert!(
        disabled.contains("sotto-relay-update.timer is not enabled"),
        "{disabled}"
    );
    // What it says is to be done is what helps.
    case.on("systemctl enable --now sotto-relay-update.timer");
    case.on("mv /var/lib/sotto-update/trust.json /root/trust.json");
    let nobody = case.doctor("problem");
    assert!(nobody.contains("no root of trust is pinned"), "{nobody}");
    case.on("mv /root/trust.json /var/lib/sotto-update/trust.json");
    case.doctor("ok");
}

fn newer_programs_take_over(case: &Case) {
    let before = PROGRAMS.map(|name| case.process(name));
    case.release("0.2.0", &PROGRAMS);
    assert!(case.update(&PROGRAMS), "{}", case.on("journalctl -n 60"));
    for (name, before) in PROGRAMS.iter().zip(before) {
        assert_eq!(case.runs(name), "0.2.0");
        assert_ne!(case.process(name), before, "{name}");
        let status = case.status(name);
        assert_eq!(status["version"], "0.2.0");
        assert_eq!(status["confirmed"], "0.2.0");
        assert_eq!(status["failures"], json!([]));
    }
}

/// One crashes, the other is never ready.
fn programs_of_no_use_are_taken_back(case: &Case) {
    let built = |name: &str, does: &str| {
        let to = case.machines.folder().join(format!("{name}-of-no-use"));
        script(name, "0.3.0", does, &to).unwrap();
        to
    };
    let relay = built("sotto-relay", "exit 1");
    let gateway = built("sotto-gateway", "exec sleep 600");
    let files: [&Path; 2] = [&relay, &gateway];
    let files: Vec<_> = PROGRAMS.into_iter().zip(files).collect();
    case.releases.publish("0.3.0", &files).unwrap();
    let said = |name: &str| case.on(&format!("systemctl status {name}-update.service; true"));
    assert!(!case.update(&PROGRAMS));
    for name in PROGRAMS {
        assert_eq!(case.runs(name), "0.2.0");
        let failures = &case.status(name)["failures"];
        assert_eq!(failures[0]["version"], "0.3.0", "{failures}");
        assert_eq!(failures[0]["why"], "it was not ready within 30 s");
        let said = said(name);
        assert!(said.contains("version 0.3.0 was taken back"), "{said}");
        assert!(said.contains("The old one serves again"), "{said}");
        let of_program = case.on(&format!("journalctl -u {name} -o cat"));
        let why = match name {
            "sotto-relay" => "it ended (exit status: 1)",
            _ => "it does not serve in time",
        };
        assert!(of_program.contains(why), "{of_program}");
    }
    let processes = PROGRAMS.map(|name| case.process(name));
    assert!(!case.update(&PROGRAMS));
    for name in PROGRAMS {
        let said = said(name);
        assert!(said.contains("failed on this machine before"), "{said}");
        assert_eq!(case.status(name)["failures"].as_array().unwrap().len(), 1);
    }
    assert_eq!(PROGRAMS.map(|name| case.process(name)), processes);
    let told = case.doctor("problem");
    assert!(told.contains("sotto-relay 0.3.0 was taken back"), "{told}");
}

/// It is healthy for a moment, and then it ends, which people notice on a server
/// of one machine.
fn what_serves_for_a_while_alone_is_taken_back(case: &Case) {
    case.release("0.5.0", &PROGRAMS[..1]);
    let before = case.process("sotto-relay");
    // Here it takes a moment to see that it serves.
    case.on(
        "printf '[Service]\nEnvironment=SOTTO_UPDATE_PROBATION_SECONDS=60' \
         > /etc/systemd/system/sotto-relay-update.service.d/later.conf; \
         systemctl daemon-reload; systemctl start --no-block sotto-relay-update.service",
    );
    let began = Instant::now();
    // Once it is the main process, nobody stands by for it any more.
    let new = loop {
        match case.process("sotto-relay") {
            now if now != before => break now,
            _ => thread::sleep(Duration::from_millis(50)),
        }
        assert!(began.elapsed() < PATIENCE, "it has no successor");
    };
    case.on(&format!("kill -KILL {new}"));
    while case.on("systemctl is-active sotto-relay-update; true") == "activating" {
        assert!(began.elapsed() < PATIENCE, "it does not end");
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(case.runs("sotto-relay"), "0.4.0");
    let failures = case.status("sotto-relay")["failures"].clone();
    let last = failures.as_array().unwrap().last().unwrap();
    assert_eq!(last["version"], "0.5.0", "{failures}");
    let why = last["why"].as_str().unwrap();
    assert!(why.starts_with("it was ready, and then"), "{why}");
}

/// The machine's own gateway hands releases out, with the certificate of the
/// server's own authority.
fn updates_come_from_the_own_gateway(case: &Case, trusting: &[&str]) {
    let source = format!("https://{}:8443/releases", Machines::address(1));
    let authority = case.layout().authority();
    let authority = authority.to_str().unwrap();
    let from = ["--updates", &source, "--updates-ca-file", authority];
    let done = case.bootstrap(&[&from[..], trusting].concat()).unwrap();
    assert_eq!(
        case.steps(&done),
        [&["send-authorities"], &UPDATED[..]].concat()
    );
    let looked = done.iter().find(|line| line["event"] == "updates").unwrap();
    assert_eq!(looked["newest"], Value::Null);
    let problem = looked["problem"].as_str().unwrap();
    assert!(problem.contains("404"), "{problem}");

    let names = format!(r#"s|^\[gateway\]|&\nreleases = "{SOURCE}"|"#);
    case.on(&format!("sed -i '{names}' /srv/sotto/server.toml"));
    let before = case.process("sotto-gateway");
    case.on("systemctl reload sotto-gateway");
    let began = Instant::now();
    while case.process("sotto-gateway") == before {
        assert!(began.elapsed() < PATIENCE, "it has no successor");
        thread::sleep(Duration::from_millis(200));
    }
    case.release("0.4.0", &PROGRAMS[..1]);
    assert!(
        case.update(&PROGRAMS[..1]),
        "{}",
        case.on("journalctl -n 60")
    );
    assert_eq!(case.runs("sotto-relay"), "0.4.0");
}
