//! `sotto bootstrap`, from bare machines to people who write to each other:
//! real machines, as far as namespaces go, with systemd as their first process
//! and sshd.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test"
)]

use std::cell::Cell;
use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sotto_e2e::case::{PASSWORD, meet};
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::machines::updating::SOURCE;
use sotto_e2e::machines::{self, Machines};
use sotto_e2e::person::Person;
use sotto_e2e::process::PATIENCE;
use sotto_e2e::releases::Releases;
use sotto_update::Digest;

const THREE: [&str; 7] = [
    "root@m1",
    "root@m2",
    "root@m3",
    "--org",
    "acme",
    "--project",
    "field",
];

const UPDATED: [&str; 2] = ["sotto-relay", "sotto-gateway"];

/// How many steps a run took.
fn steps(lines: &[Value]) -> usize {
    let is_step = |line: &&Value| line["event"] == "step";
    lines.iter().filter(is_step).count()
}

/// Alice, who came by the invitation that bootstrap printed, writes to bob.
fn people_write_to_each_other(machines: &Machines, invite: &str) {
    let person = |name: &str| Person::new(machines.folder().join(name), PASSWORD).unwrap();
    let (alice, bob) = (person("alice"), person("bob"));
    let room = meet(&alice, &bob, invite).unwrap();
    alice.does(&["send", &room, "said to bob"]).unwrap();
    bob.does(&["sync"]).unwrap();
    let history = history(&bob, &room).unwrap();
    assert_eq!(
        difference(&history, "said", &["said to bob".to_owned()]),
        None
    );
}

#[test]
fn three_bare_machines_become_a_cluster_that_people_use() {
    let test = "three_bare_machines_become_a_cluster_that_people_use";
    if !machines::are_possible(test).unwrap() {
        return;
    }
    let machines = Machines::start(3).unwrap();
    for number in [1, 2, 3] {
        machines.hurry(number).unwrap();
    }

    let shown = machines.bootstrap(&[&THREE[..], &["--dry-run"]].concat());
    let shown = shown.unwrap().success().unwrap();
    assert!(steps(&shown) > 20, "{shown:?}");
    assert!(shown.iter().all(|line| line["done"] != true));
    assert_eq!(
        machines
            .on(1, "ls /usr/local/bin /srv")
            .unwrap()
            .lines()
            .count(),
        3
    );

    let started = Instant::now();
    let done = machines.bootstrap(&THREE).unwrap().success().unwrap();
    eprintln!(
        "three bare machines serve after {:.1} s",
        started.elapsed().as_secs_f32()
    );
    let ready = done.last().unwrap();
    assert_eq!(ready["event"], "ready");
    assert_eq!(ready["changed"], steps(&done));
    assert_eq!(ready["without_updates"], json!(THREE[..3]));
    assert_eq!(steps(&done), steps(&shown));
    let said: String = done.iter().chain(&shown).map(Value::to_string).collect();
    let passphrase = machines.on(2, "cat /srv/sotto/unlock").unwrap();
    assert!(!said.contains(passphrase.trim()), "a secret was printed");

    let status = machines.on(
        3,
        "setpriv --reuid sotto --regid sotto --clear-groups \
         sotto-relay cluster status --json --dir /srv/sotto",
    );
    let status: Value = serde_json::from_str(&status.unwrap()).unwrap();
    for stream in status["streams"].as_array().unwrap() {
        assert_eq!(stream["copies"], 3, "{stream}");
    }
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);

    let states = [1, 2, 3].map(|number| machines.state(number).unwrap());
    let again = machines.bootstrap(&THREE).unwrap().success().unwrap();
    assert_eq!(steps(&again), 0, "{again:?}");
    assert_eq!(again.last().unwrap()["changed"], 0);
    assert_eq!(again.last().unwrap()["invite"], ready["invite"]);
    assert_eq!(
        [1, 2, 3].map(|number| machines.state(number).unwrap()),
        states
    );

    for number in [1, 2, 3] {
        confined(&machines, number);
        let gateway = format!("{}:8443", Machines::address(number));
        TcpStream::connect(gateway).unwrap();
    }
    they_update_themselves_in_the_same_minute(&machines);
    people_write_to_each_other(&machines, ready["invite"].as_str().unwrap());
}

/// Told where releases are when they serve already.
fn they_update_themselves_in_the_same_minute(machines: &Machines) {
    let (keys, first) = (machines.folder().join("keys"), machines.source(1));
    let releases = Releases::create(&keys, &first).unwrap();
    // A mirror each.
    let mirror = || {
        for number in [2, 3] {
            let to = machines.source(number);
            fs::create_dir_all(&to).unwrap();
            let mut copy = Command::new("cp");
            copy.arg("-a").arg(first.join(".")).arg(&to);
            assert!(copy.status().unwrap().success());
        }
    };
    machines.release(&releases, "0.1.0", &UPDATED).unwrap();
    mirror();
    let root = releases.root();
    let fingerprint = Digest::of_file(&root).unwrap().0.to_string();
    let root = root.to_str().unwrap();
    let trusting = ["--root-of-trust", root, "--fingerprint", &fingerprint];
    let told = [&THREE[..], &["--updates", SOURCE], &trusting[..]].concat();
    let done = machines.bootstrap(&told).unwrap().success().unwrap();
    assert_eq!(steps(&done), 3 * 5, "{done:?}");
    assert_eq!(done.last().unwrap()["without_updates"], json!([]));
    let again = machines.bootstrap(&told).unwrap().success().unwrap();
    assert_eq!(steps(&again), 0, "{again:?}");

    let numbers = [1, 2, 3];
    for number in numbers {
        let [finding] = &machines.doctor_of_updates(number).unwrap()[..] else {
            panic!("the doctor says more than one thing of m{number}")
        };
        assert_eq!(finding["level"], "ok", "{finding}");
    }
    machines.release(&releases, "0.2.0", &UPDATED).unwrap();
    mirror();
    let began = Instant::now();
    thread::scope(|scope| {
        for number in numbers {
            scope.spawn(move || assert!(machines.updates(number, &UPDATED), "m{number}"));
        }
    });
    eprintln!("three machines are updated after {:.1?}", began.elapsed());
    for number in numbers {
        for name in UPDATED {
            assert_eq!(machines.runs(number, name).unwrap(), "0.2.0");
            let status = machines.update_status(number, name).unwrap();
            assert_eq!(status["confirmed"], "0.2.0", "{status}");
        }
    }
}

/// What the units promise holds for the processes.
fn confined(machines: &Machines, number: u8) {
    for unit in ["sotto-relay", "sotto-gateway"] {
        let status = format!("cat /proc/$(systemctl show -p MainPID --value {unit})/status");
        let status = machines.on(number, &status).unwrap();
        for expected in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000"] {
            assert!(status.contains(expected), "{unit}: {status}");
        }
        assert!(!status.contains("Uid:\t0"), "{unit} runs as root");
    }
    let seen = machines.on(number, "ls -ld /srv/sotto").unwrap();
    assert!(
        seen.starts_with("drwx------") && seen.contains("sotto sotto"),
        "{seen}"
    );
}

/// What takes more than the unit says is ended by the kernel, and nothing else.
fn memory_is_limited(machines: &Machines, number: u8) {
    let group = "/sys/fs/cgroup/memory/system.slice/sotto-relay.service";
    let read = format!("cat {group}/memory.limit_in_bytes");
    let Ok(limit) = machines.on(number, &read) else {
        eprintln!("skipped: no controller of memory that can be had here");
        return;
    };
    assert_eq!(limit.trim(), (2_u64 << 30).to_string());
    let show = "systemctl show -p MainPID -p NRestarts sotto-relay; cat /srv/sotto/nats/*.pid";
    let before = machines.on(number, show).unwrap();
    let hog = format!(
        "echo $$ > {group}/cgroup.procs && \
         exec perl -e '$size = shift; $taken = \"x\" x $size; sleep 600' 3000000000"
    );
    machines.on(number, &hog).unwrap_err();
    let failures = format!("cat {group}/memory.failcnt");
    assert_ne!(machines.on(number, &failures).unwrap().trim(), "0");
    assert_eq!(machines.on(number, show).unwrap(), before);
}

#[test]
fn a_run_that_is_killed_again_and_again_is_completed() {
    if !machines::are_possible("a_run_that_is_killed_again_and_again_is_completed").unwrap() {
        return;
    }
    let machines = Machines::start(2).unwrap();
    let two = [&THREE[..2], &THREE[3..]].concat();
    let mut runs = 0;
    let completed = loop {
        runs += 1;
        assert!(runs < 40, "it is never completed");
        let mut run = machines.starts_bootstrap(&two).unwrap();
        // When so many things are done, the next one has begun.
        let seen = Cell::new(0);
        let killed_after = runs % 4 + 1;
        let reached = run.wait_for("step", |line| {
            seen.set(seen.get() + usize::from(line["event"] == "step"));
            let ready = line["event"] == "ready";
            (ready || seen.get() == killed_after).then_some(ready)
        });
        match reached.unwrap() {
            true => break run.finish().unwrap().success().unwrap(),
            false => drop(run.kill().unwrap()),
        }
    };
    assert!(runs > 5, "{runs}");
    let again = machines.bootstrap(&two).unwrap().success().unwrap();
    assert_eq!(steps(&again), 0, "{again:?}");
    let ready = completed.last().unwrap();
    people_write_to_each_other(&machines, ready["invite"].as_str().unwrap());
}

/// A machine whose nats-server listens at one of its addresses alone.
#[test]
fn systemd_looks_after_whoever_serves_after_a_reload() {
    if !machines::are_possible("systemd_looks_after_whoever_serves_after_a_reload").unwrap() {
        return;
    }
    let machines = Machines::start(1).unwrap();
    let listen = format!("{}:4222", Machines::address(1));
    let one = ["root@m1", "--org", "acme", "--project", "field"];
    let done = machines.bootstrap(&[&one[..], &["--nats-listen", &listen]].concat());
    let done = done.unwrap().success().unwrap();

    let units = ["sotto-relay", "sotto-gateway"];
    let serving = |unit: &str| {
        let show = format!("systemctl show -p MainPID --value {unit}");
        machines.on(1, &show).unwrap().trim().to_owned()
    };
    let before = units.map(serving);
    machines
        .on(1, "systemctl reload sotto-relay sotto-gateway")
        .unwrap();
    for (unit, before) in units.iter().zip(&before) {
        let started = Instant::now();
        while serving(unit) == *before {
            assert!(started.elapsed() < PATIENCE, "{unit} has no successor");
            thread::sleep(Duration::from_millis(500));
        }
        // Its predecessor ends, and systemd takes that for nothing bad.
        let ended = format!("while [ -e /proc/{before} ]; do sleep 0.5; done");
        machines.on(1, &ended).unwrap();
        let show = format!("systemctl show -p ActiveState -p Result -p NRestarts {unit}");
        let state = machines.on(1, &show).unwrap();
        for expected in ["ActiveState=active", "Result=success", "NRestarts=0"] {
            assert!(state.contains(expected), "{unit}: {state}");
        }
    }
    confined(&machines, 1);
    memory_is_limited(&machines, 1);
    let ready = done.last().unwrap();
    people_write_to_each_other(&machines, ready["invite"].as_str().unwrap());
}

#[test]
fn what_speaks_against_it_is_said_before_anything_changes() {
    if !machines::are_possible("what_speaks_against_it_is_said_before_anything_changes").unwrap() {
        return;
    }
    let machines = Machines::start(2).unwrap();
    let before = [1, 2].map(|number| machines.state(number).unwrap());
    let refused = |arguments: &[&str], expected: &str| {
        let outcome = machines.bootstrap(arguments).unwrap();
        assert_eq!(outcome.status.code(), Some(1), "{}", outcome.stderr);
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
        let now = [1, 2].map(|number| machines.state(number).unwrap());
        assert_eq!(now, before, "{expected}");
    };
    let both = ["root@m1", "root@m2"];

    let foreign = machines.folder().join("foreign");
    fs::create_dir(&foreign).unwrap();
    for program in ["sotto-relay", "sotto-gateway", "nats-server"] {
        let mut bytes = fs::read(machines.programs().join(program)).unwrap();
        // The header says for what machine: here for s390x, for none, and for
        // the other one of those that there are releases for.
        let other = if bytes[18] == 62 { 183 } else { 62 };
        bytes[18] = other;
        fs::write(foreign.join(program), bytes).unwrap();
    }
    let foreign = foreign.to_str().unwrap();
    refused(
        &["root@m1", "--programs", foreign],
        "these programs are for",
    );

    let listen = "systemd-run --quiet --unit other --property Type=exec \
                  perl -MSocket -e 'socket(S, AF_INET, SOCK_STREAM, 0); \
                  bind(S, sockaddr_in(4222, INADDR_ANY)) or die; listen(S, 1); sleep 600' \
                  && until grep -q ':107E .* 0A ' /proc/net/tcp; do sleep 0.1; done";
    machines.on(2, listen).unwrap();
    refused(&both, "root@m2: another program listens on port 4222");
    machines.on(2, "systemctl stop other").unwrap();

    let guests = "for name in guest helper; do \
                  useradd --create-home --password '*' $name; \
                  install -d -o $name -m 700 /home/$name/.ssh; \
                  install -o $name /root/.ssh/authorized_keys /home/$name/.ssh; done; \
                  echo 'helper ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/helper";
    machines.on(1, guests).unwrap();
    let before = [1, 2].map(|number| machines.state(number).unwrap());
    let sudo_asks = machines.bootstrap(&["guest@m1"]).unwrap();
    assert!(
        sudo_asks.stderr.contains("sudo asks for a password"),
        "{}",
        sudo_asks.stderr
    );
    let stranger = machines.bootstrap(&["nobody@m1"]).unwrap();
    assert!(
        stranger.stderr.contains("no connection"),
        "{}",
        stranger.stderr
    );
    let now = [1, 2].map(|number| machines.state(number).unwrap());
    assert_eq!(now, before);

    let alone = machines.bootstrap(&["helper@m1", "--gateway-listen", "0.0.0.0:443"]);
    let alone = alone.unwrap().success().unwrap();
    assert_eq!(alone.last().unwrap()["machines"], 1);
    let other = machines
        .bootstrap(&["helper@m1", "--org", "other"])
        .unwrap();
    assert!(
        other.stderr.contains("no such organisation"),
        "{}",
        other.stderr
    );
    let node = json!(null);
    assert!(
        alone
            .iter()
            .filter(|line| line["event"] == "step")
            .all(|line| line["node"] == node)
    );
}
