//! A real Consul beside the server: what it is good for, and that nothing that
//! runs depends on it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};
use serde_json::json;
use sotto_e2e::case::Case;
use sotto_e2e::cluster::Cluster;
use sotto_e2e::consul::{Agent, Guarded, Liar, Lie, State, configure, configure_with};
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::links::Addresses;
use sotto_e2e::person::Person;
use sotto_e2e::process::{self, Outcome, PATIENCE, Running, binary};
use sotto_e2e::server::Part;
use sotto_faults::ports;
use sotto_service::consul::ConsulConfig;
use sotto_service::{Layout, ServerConfig};

const PROGRAMS: [&str; 2] = ["sotto-relay", "sotto-gateway"];

fn one_is(wanted: &str) -> impl Fn(&[State]) -> bool {
    move |states| matches!(states, [(state, _)] if state == wanted)
}

/// A server with this Consul, and two people in a room.
fn case_with(address: &str) -> (Case, Person) {
    let mut case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    case.server.stop().unwrap();
    configure(case.server.layout(), address).unwrap();
    case.server.start().unwrap();
    (case, bob)
}

#[test]
fn programs_are_listed_while_they_run_and_say_when_they_do_not_serve() {
    let mut agent = Agent::start().unwrap();
    let (mut case, bob) = case_with(&agent.address());
    for program in PROGRAMS {
        agent.until(program, one_is("passing")).unwrap();
    }

    // The programs log warnings only, until Consul says otherwise; what it says
    // that does not read changes nothing.
    agent.put("sotto/log", "debug").unwrap();
    thread::sleep(Duration::from_secs(4));
    agent.put("sotto/log", "h2=trace").unwrap();
    thread::sleep(Duration::from_secs(4));

    let away = AtomicBool::new(true);
    let root = case.server.layout().root().to_owned();
    thread::scope(|scope| {
        scope.spawn(|| {
            while away.load(Ordering::SeqCst) {
                if let Ok(Some(nats)) = process::find(Part::Nats.program(), &root) {
                    kill_process(nats, Signal::KILL).ok();
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        let critical = |states: &[State]| {
            let [(state, said)] = states else {
                return false;
            };
            state == "critical" && said.contains("NATS is not reachable")
        };
        let seen = PROGRAMS.map(|program| agent.until(program, critical));
        away.store(false, Ordering::SeqCst);
        for seen in seen {
            seen.unwrap();
        }
    });
    for program in PROGRAMS {
        agent.until(program, one_is("passing")).unwrap();
    }

    // It forgets everything, and is told again.
    agent.kill().unwrap();
    agent.start_again().unwrap();
    for program in PROGRAMS {
        agent.until(program, one_is("passing")).unwrap();
    }
    case.alice.does(&["send", "barn", "said after"]).unwrap();
    bob.does(&["sync"]).unwrap();
    let expected = ["said after".to_owned()];
    assert_eq!(
        difference(&history(&bob, "barn").unwrap(), "said", &expected),
        None
    );

    let stopped = case.server.stop().unwrap();
    for program in PROGRAMS {
        assert!(agent.states(program).unwrap().is_empty(), "{program}");
    }
    let said = |what: &str| stopped.stderr.matches(what).count();
    assert!(said("DEBUG sotto_") > 0, "{}", stopped.stderr);
    assert_eq!(
        said("how much is logged does not read"),
        2,
        "{}",
        stopped.stderr
    );
    assert_eq!(said("TRACE"), 0, "{}", stopped.stderr);
    assert!(
        said("Consul does not list this program") >= 2,
        "{}",
        stopped.stderr
    );
}

#[test]
fn a_consul_that_lies_hangs_or_is_gone_changes_nothing() {
    let liar = Liar::start(Lie::Silent).unwrap();
    // Also a start does not wait for it.
    let (mut case, bob) = case_with(&liar.address());
    let memory = || {
        let root = case.server.layout().root();
        PROGRAMS.map(|program| kilobytes(process::find(program, root).unwrap().unwrap()))
    };
    let before = memory();
    let mut expected = Vec::new();
    let mut says = |what: &str| {
        expected.push(format!("said while it is {what}"));
        let said = expected.last().unwrap().as_str();
        case.alice.does(&["send", "barn", said]).unwrap();
        bob.does(&["sync"]).unwrap();
        assert_eq!(
            difference(&history(&bob, "barn").unwrap(), "said", &expected),
            None
        );
    };
    for (lie, times) in [
        (Lie::Silent, 5),
        (Lie::Plausible, 20),
        (Lie::Garbage, 5),
        (Lie::Endless, 5),
        (Lie::Silent, 5),
    ] {
        liar.tells(lie, times).unwrap();
        says(&format!("{lie:?}"));
        // Five tasks in two programs.
        assert!(liar.open() <= 10, "{} connections", liar.open());
    }
    for (before, after) in before.into_iter().zip(memory()) {
        assert!(after < before + 100_000, "{before} kB, then {after}");
    }

    // It hangs when the server is stopped, and is gone when it starts again.
    let stopping = Instant::now();
    let stopped = case.server.stop().unwrap();
    assert!(stopped.status.success(), "{}", stopped.stderr);
    assert!(
        stopping.elapsed() < Duration::from_secs(20),
        "{:?}",
        stopping.elapsed()
    );
    for (said, is_there) in [
        ("TRACE", false),
        ("panicked", false),
        ("how much is logged does not read", true),
        ("Consul does not list this program", true),
    ] {
        let found = stopped.stderr.contains(said);
        assert_eq!(found, is_there, "{said}: {}", stopped.stderr);
    }
    drop(liar);
    case.server.start().unwrap();
    case.alice
        .does(&["send", "barn", "said without it"])
        .unwrap();
    bob.does(&["sync"]).unwrap();
    let said = history(&bob, "barn").unwrap();
    assert_eq!(
        difference(&said, "said without", &["said without it".to_owned()]),
        None
    );
}

fn kilobytes(pid: rustix::process::Pid) -> usize {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = fs::read_to_string(path).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_machine_that_joins_finds_its_cluster_among_liars() {
    let agent = Agent::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::alone(folder.path(), "acme", "field").unwrap();
    cluster.stop(0).unwrap();
    configure(cluster.nodes()[0].layout(), &agent.address()).unwrap();
    cluster.start(0).unwrap();
    agent.until(PROGRAMS[0], one_is("passing")).unwrap();

    let garbage = Liar::start(Lie::Garbage).unwrap();
    let nobody = ports::free().unwrap().to_string();
    for (id, address) in [
        ("a", nobody.as_str()),
        ("b", &garbage.endpoint()),
        ("z", "http://not.an/address"),
    ] {
        let meta = json!({ "admission": address });
        agent.list(id, PROGRAMS[0], meta).unwrap();
    }

    let (_, token) = cluster.token(false).unwrap();
    let consul = ConsulConfig::at(agent.address().parse().unwrap());
    // Of another secret, which nobody made.
    let wrong = format!("{}{}", "0".repeat(64), &token[64..]);
    let refused = join(&consul, &wrong, &folder.path().join("n2"), "10");
    assert!(!refused.status.success());
    assert!(
        refused.stderr.contains("was not made here"),
        "{}",
        refused.stderr
    );

    let dir = folder.path().join("n3");
    join(&consul, &token, &dir, "60").success().unwrap();
    let config = ServerConfig::load(&Layout::new(&dir)).unwrap();
    assert_eq!(config.consul, Some(consul));
    cluster.add(&dir).unwrap();
    agent
        .until(PROGRAMS[0], |states| states.len() == 2)
        .unwrap();
}

/// `sotto-relay join` of a machine that finds its cluster through Consul.
fn join(consul: &ConsulConfig, token: &str, dir: &Path, wait: &str) -> Outcome {
    let name = dir.file_name().unwrap();
    let listen = Addresses::free().unwrap();
    let mut join = Command::new(binary("sotto-relay").unwrap());
    join.args(["join", &format!("--consul={}", consul.address)])
        .args(["--token", token, "--wait", wait, "--name"])
        .args([name, "--dir".as_ref(), dir.as_ref()])
        .args(["--public-host", "127.0.0.1"])
        .args(["--nats-listen", &listen.nats.to_string()])
        .args(["--gateway-listen", &listen.gateway.to_string()])
        .args(["--routes-listen", &listen.routes.to_string()])
        .args(["--admission-listen", &listen.admission.to_string()]);
    for (flag, file) in [
        ("--consul-token-file", &consul.token_file),
        ("--consul-ca-file", &consul.ca_file),
    ] {
        if let Some(file) = file {
            join.arg(flag).arg(file);
        }
    }
    let joined = Running::start(join, Some(String::new())).unwrap().finish();
    joined.unwrap()
}

#[test]
fn a_guarded_consul_wants_just_the_rights_that_are_documented() {
    let folder = tempfile::tempdir().unwrap();
    let guarded = Guarded::start(folder.path()).unwrap();
    let agent = &guarded.agent;
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/consul.md"));
    let page = page.unwrap();
    let (_, rules) = page.split_once("```hcl\n").expect("the rules");
    let (rules, _) = rules.split_once("```").expect("their end");
    let known = guarded.lets_in("sotto", rules).unwrap();

    let mut cluster = Cluster::alone(folder.path(), "acme", "field").unwrap();
    cluster.kill_gateway().unwrap();
    cluster.stop(0).unwrap();
    configure_with(cluster.nodes()[0].layout(), known.clone()).unwrap();
    cluster.start(0).unwrap();
    cluster.start_gateway().unwrap();
    for program in PROGRAMS {
        agent.until(program, one_is("passing")).unwrap();
    }
    let started = Instant::now();
    while agent.holder("gateway").unwrap().is_none() {
        assert!(started.elapsed() < PATIENCE, "nobody has the lock");
        thread::sleep(Duration::from_millis(100));
    }
    let (_, token) = cluster.token(false).unwrap();
    join(&known, &token, &folder.path().join("n2"), "60")
        .success()
        .unwrap();

    // Whom it does not know it tells nothing.
    let stranger = guarded.lets_in("stranger", "").unwrap();
    let (_, token) = cluster.token(false).unwrap();
    let lost = join(&stranger, &token, &folder.path().join("n3"), "5");
    assert!(!lost.status.success());
    let unverified = ConsulConfig {
        ca_file: None,
        ..known
    };
    let lost = join(&unverified, &token, &folder.path().join("n4"), "5");
    assert!(!lost.status.success());
    assert!(lost.stderr.contains("certificate"), "{}", lost.stderr);
    cluster.still_runs().unwrap();
}

#[test]
fn one_gateway_of_two_has_the_lock_and_all_log_as_consul_says() {
    let agent = Agent::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::alone(folder.path(), "acme", "field").unwrap();
    cluster.kill_gateway().unwrap();
    let layout = cluster.nodes()[0].layout().clone();
    configure(&layout, &agent.address()).unwrap();
    let gateway = |listen: SocketAddr| {
        let mut command = Command::new("sh");
        let log = folder.path().join(listen.port().to_string());
        command
            .args(["-c", "log=$1; shift; exec \"$@\" 2> \"$log\"", "sh"])
            .args([log.as_path(), &binary("sotto-gateway").unwrap()])
            .args(["run", "--exit-with-parent", "--log", "info", "--dir"])
            .arg(layout.root())
            .args(["--gateway-listen", &listen.to_string()]);
        let running = Running::start(command, None).unwrap();
        let host = ServerConfig::load(&layout).unwrap().public_host;
        let name = format!("sotto-gateway-{host}-{}", listen.port());
        (running, name, log)
    };
    let has_it = |owner: &str| {
        let started = Instant::now();
        while agent.holder("gateway").unwrap().as_deref() != Some(owner) {
            assert!(started.elapsed() < PATIENCE, "{owner} never has the lock");
            thread::sleep(Duration::from_millis(100));
        }
    };
    let (first, its_name, its_log) = gateway(ports::free().unwrap());
    has_it(&its_name);
    let (second, other_name, other_log) = gateway(ports::free().unwrap());
    let both = |states: &[State]| states.len() == 2 && states.iter().all(|(s, _)| s == "passing");
    agent.until(PROGRAMS[1], both).unwrap();
    has_it(&its_name);

    let logs = [&its_log, &other_log];
    let all_say = |what: &str| {
        let started = Instant::now();
        while !logs
            .iter()
            .all(|log| fs::read_to_string(log).unwrap().contains(what))
        {
            assert!(started.elapsed() < PATIENCE, "not all say: {what}");
            thread::sleep(Duration::from_millis(100));
        }
    };
    agent.put("sotto/log", "debug").unwrap();
    all_say("so much is logged now");
    agent.remove("sotto/log").unwrap();
    all_say("it is as at the start");

    // Who stops leaves it to the other, who is killed keeps it for a while.
    assert!(first.interrupt().unwrap().status.success());
    has_it(&other_name);
    second.kill().unwrap();
    let (_third, third_name, _) = gateway(ports::free().unwrap());
    has_it(&third_name);
    cluster.still_runs().unwrap();
}
