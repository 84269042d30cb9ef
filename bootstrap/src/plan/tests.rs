use std::path::PathBuf;

use clap::Parser;
use sotto_service::ServerConfig;
use sotto_service::cluster::{Endpoint, Member, Members, Node};
use sotto_update::RootOfTrust;

use super::*;
use crate::facts::Folder;
use crate::programs::Binary;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    wish: Wish,
}

fn wish(words: &[&str]) -> Wish {
    let words = ["bootstrap"].iter().chain(words);
    Line::try_parse_from(words).unwrap().wish
}

fn programs() -> Programs {
    let binary = |program: Program| Binary {
        program,
        path: PathBuf::from(program.name()),
        sum: format!("sum of {program}"),
        size: 1,
    };
    Programs {
        binaries: Program::ALL.map(binary).to_vec(),
        machine: "x86_64",
    }
}

/// Machines without anything, called m1, m2, …
fn bare(count: usize) -> Vec<Machine> {
    let machine = |number: usize| Machine {
        destination: format!("root@m{number}").parse().unwrap(),
        public_host: format!("m{number}"),
        cluster_host: None,
        ahead: 0,
        facts: Facts {
            system: "Linux".to_owned(),
            machine: "x86_64".to_owned(),
            systemd: true,
            ..Facts::default()
        },
    };
    (1..=count).map(machine).collect()
}

fn plan(wish: &Wish, machines: &[Machine]) -> Plan {
    Plan::make(wish, &programs(), None, machines).unwrap()
}

fn updates() -> Updates {
    let text = "root".to_owned();
    let fingerprint = Digest::of(text.as_bytes());
    Updates {
        source: "https://releases.example".to_owned(),
        root: RootOfTrust { text, fingerprint },
        authorities: Some("authority".to_owned()),
    }
}

fn updating(wish: &Wish, machines: &[Machine]) -> Plan {
    Plan::make(wish, &programs(), Some(&updates()), machines).unwrap()
}

fn objections(wish: &Wish, machines: &[Machine]) -> String {
    let refused = Plan::make(wish, &programs(), None, machines).unwrap_err();
    refused.to_string()
}

fn config(place: &Place, plan: &Plan) -> ServerConfig {
    let gateway = place.gateway_listen.unwrap_or(([0, 0, 0, 0], 8443).into());
    toml::from_str(&format!(
        "server_name = 'sotto'\npublic_host = '{}'\nshards = 1\n[gateway]\nlisten = '{gateway}'\n\
         [nats]\nlisten = '{}'\n[[orgs]]\nname = '{}'\nproject = '{}'\n",
        place.public_host, place.nats_listen, plan.org, plan.project
    ))
    .unwrap()
}

/// What the machines are after a step.
fn after(machines: &mut [Machine], plan: &Plan, step: &Step) {
    let place = &plan.places[step.machine];
    let member = || Member {
        name: place.node.clone().unwrap(),
        nats_url: String::new(),
        routes: Endpoint::new(place.host_for_nodes(), ROUTES_PORT).unwrap(),
        admission: Endpoint::new(place.host_for_nodes(), ADMISSION_PORT).unwrap(),
        key: format!("key of {}", place.public_host),
        certificate: String::new(),
        keeps_keys: place.gateway_listen.is_some(),
    };
    let node = || Node {
        name: place.node.clone().unwrap(),
        routes_listen: place.cluster_listen()[0],
        admission_listen: place.cluster_listen()[1],
    };
    let facts = &mut machines[step.machine].facts;
    match &step.action {
        Action::MakeUser => facts.user = true,
        Action::SendProgram { program } => {
            let sum = format!("sum of {program}");
            facts.programs.insert(program.name().to_owned(), sum);
        }
        Action::MakeFolder => {
            facts.folder = Folder {
                exists: true,
                owner: USER.to_owned(),
                filled: facts.folder.filled,
            }
        }
        Action::MakeServer => {
            facts.folder.filled = true;
            facts.keys = true;
            facts.passphrase = true;
            facts.config = Some(config(place, plan));
        }
        Action::Stop => facts
            .units
            .values_mut()
            .for_each(|unit| unit.active = false),
        Action::BecomeFirstNode => {
            assert!(!facts.unit_of(Role::Relay).active);
            let nodes = vec![member()];
            facts.members = Some(Members {
                serial: 1,
                nodes,
                replaced: Vec::new(),
            });
            facts.node = Some(node());
        }
        Action::Join { replaces } => {
            facts.config = Some(config(place, plan));
            facts.node = Some(node());
            facts.keys = place.gateway_listen.is_some();
            let keeper = &mut machines[plan.keeper].facts;
            assert!(keeper.unit_of(Role::Relay).active);
            let members = keeper.members.take().unwrap();
            let known = members.get(place.node.as_ref().unwrap());
            assert_eq!(known, None, "a name that is taken");
            let members = match replaces {
                Some(lost) => {
                    let members = members.with_in_place_of(member(), lost);
                    members.with_forgotten(lost)
                }
                None => members.with(member()),
            };
            keeper.members = Some(members.clone());
            machines[step.machine].facts.members = Some(members);
        }
        Action::SendPassphrase => facts.passphrase = true,
        Action::WriteUnit { role, listen } => {
            let like = Role::like(listen.port());
            facts.units.entry(*role).or_default().like = vec![like.to_owned()];
        }
        Action::Start { role } => {
            let unit = facts.units.get_mut(role).unwrap();
            (unit.active, unit.enabled) = (true, true);
            let listens = place.listens().into_iter();
            let listens = listens.filter(|(other, _)| other == role);
            facts.listening.extend(listens.map(|(_, listen)| listen));
        }
        Action::Restart { .. } => {}
        Action::PinRoot { fingerprint } => facts.pinned = Some(*fingerprint),
        Action::SendAuthorities => {
            let pem = plan.updates.as_ref().unwrap().authorities.as_ref();
            facts.authorities = Some(Digest::of(pem.unwrap().as_bytes()));
        }
        Action::WriteUpdater { role } => {
            facts.units.get_mut(role).unwrap().updater_printed = true;
        }
        Action::StartTimer { role } => {
            let unit = facts.units.get_mut(role).unwrap();
            assert!(unit.updater_printed && facts.pinned.is_some());
            unit.timer_runs = true;
        }
    }
}

fn carried_out(machines: &mut [Machine], plan: &Plan, steps: usize) {
    for step in plan.steps.iter().take(steps) {
        after(machines, plan, step);
    }
}

#[test]
fn wherever_it_is_cut_off_the_next_run_completes_it_and_the_one_after_has_nothing_to_do() {
    for count in [1, 2, 3, 5] {
        let names: Vec<String> = (1..=count)
            .map(|number| format!("root@m{number}"))
            .collect();
        let mut words: Vec<&str> = names.iter().map(String::as_str).collect();
        words.extend(["--org", "acme", "--gateway-listen", "0.0.0.0:443"]);
        let wish = wish(&words);
        let whole = plan(&wish, &bare(count));
        for done in 0..=whole.steps.len() {
            let mut machines = bare(count);
            carried_out(&mut machines, &whole, done);
            let rest = plan(&wish, &machines);
            assert!(rest.steps.len() <= whole.steps.len() - done + 2);
            carried_out(&mut machines, &rest, rest.steps.len());
            assert_eq!(
                plan(&wish, &machines).steps,
                [],
                "after {done} of {count} machines"
            );
            let nodes = machines
                .iter()
                .filter(|machine| machine.facts.node.is_some());
            assert_eq!(nodes.count(), if count > 1 { count } else { 0 });
        }
    }
}

#[test]
fn wherever_it_is_cut_off_machines_update_themselves_in_the_end() {
    let wish = wish(&["root@m1", "root@m2", "--one-gateway"]);
    let whole = updating(&wish, &bare(2));
    assert_eq!(whole.without_updates, []);
    let timers = |step: &&Step| matches!(step.action, Action::StartTimer { .. });
    assert_eq!(whole.steps.iter().filter(timers).count(), 3);
    for done in 0..=whole.steps.len() {
        let mut machines = bare(2);
        carried_out(&mut machines, &whole, done);
        let rest = updating(&wish, &machines);
        carried_out(&mut machines, &rest, rest.steps.len());
        assert_eq!(updating(&wish, &machines).steps, [], "after {done}");
        assert_eq!(plan(&wish, &machines).without_updates, []);
    }
}

#[test]
fn it_is_said_which_machines_do_not_update_themselves() {
    let mut machines = bare(2);
    let first = wish(&["root@m1"]);
    let alone = updating(&first, &machines[..1]);
    carried_out(&mut machines[..1], &alone, alone.steps.len());
    let both = plan(&wish(&["root@m1", "root@m2"]), &machines);
    assert_eq!(both.without_updates, ["root@m2".parse().unwrap()]);
}

#[test]
fn whoever_is_trusted_already_is_not_replaced() {
    let mut machines = bare(1);
    let one = wish(&["root@m1"]);
    let other = Digest::of(b"another root");
    machines[0].facts.pinned = Some(other);
    let refused = Plan::make(&one, &programs(), Some(&updates()), &machines);
    let said = refused.unwrap_err().to_string();
    assert!(said.contains(&other.to_string()), "{said}");
    assert!(said.contains("trust.json"), "{said}");
    assert_ne!(plan(&one, &machines).steps, []);
}

#[test]
fn one_machine_grows_to_three_and_is_stopped_for_it() {
    let mut machines = bare(3);
    let first = wish(&["root@m1"]);
    let alone = plan(&first, &machines[..1]);
    carried_out(&mut machines[..1], &alone, alone.steps.len());
    let three = wish(&["root@m1", "root@m2", "root@m3"]);
    let grown = plan(&three, &machines);
    let of_first = grown.steps.iter().filter(|step| step.machine == 0);
    let of_first: Vec<Action> = of_first.map(|step| step.action.clone()).collect();
    let start = Role::ALL.map(|role| Action::Start { role });
    assert_eq!(of_first[..2], [Action::Stop, Action::BecomeFirstNode]);
    assert_eq!(of_first[2..], start);
    carried_out(&mut machines, &grown, grown.steps.len());
    assert_eq!(plan(&three, &machines).steps, []);
}

#[test]
fn a_machine_that_lost_its_disk_joins_again_in_its_own_place() {
    let mut machines = bare(5);
    let wish = wish(&["root@m1", "root@m2", "root@m3", "root@m4", "root@m5"]);
    let whole = plan(&wish, &machines);
    carried_out(&mut machines, &whole, whole.steps.len());
    let members = machines[0].facts.members.clone();
    machines[1].facts.members = members;
    machines[0].facts = bare(1)[0].facts.clone();
    let again = plan(&wish, &machines);
    assert_eq!(again.keeper, 1);
    assert_eq!(again.places[0].node, Some("n6".parse().unwrap()));
    let join = Action::Join {
        replaces: Some("n1".parse().unwrap()),
    };
    assert!(
        again
            .steps
            .iter()
            .any(|step| step.machine == 0 && step.action == join)
    );
    carried_out(&mut machines, &again, again.steps.len());
    assert_eq!(plan(&wish, &machines).steps, []);
}

#[test]
fn a_program_that_serves_is_left_to_updates() {
    let mut machines = bare(1);
    let wish = wish(&["root@m1"]);
    let whole = plan(&wish, &machines);
    let other = || "another".to_owned();
    machines[0]
        .facts
        .programs
        .insert("sotto-relay".to_owned(), other());
    let relay = Action::SendProgram {
        program: Program::SottoRelay,
    };
    let replaces = |plan: &Plan| plan.steps.iter().any(|step| step.action == relay);
    assert!(replaces(&plan(&wish, &machines)));
    carried_out(&mut machines, &whole, whole.steps.len());
    machines[0]
        .facts
        .programs
        .insert("sotto-relay".to_owned(), other());
    let again = plan(&wish, &machines);
    assert!(!replaces(&again));
    assert!(
        again.notes[0].contains("sotto-relay update"),
        "{:?}",
        again.notes
    );
}

#[test]
fn whatever_speaks_against_any_machine_stops_everything() {
    type Change = fn(&mut Machine);
    let three = wish(&["root@m1", "root@m2", "root@m3"]);
    let with = |change: Change| {
        let mut machines = bare(3);
        change(&mut machines[1]);
        objections(&three, &machines)
    };
    let cases: [(Change, &str); 8] = [
        (|m| m.facts.machine = "aarch64".to_owned(), "for aarch64"),
        (|m| m.facts.system = "FreeBSD".to_owned(), "runs FreeBSD"),
        (|m| m.facts.systemd = false, "systemd"),
        (
            |m| m.facts.lacks.push("setpriv".to_owned()),
            "lacks setpriv",
        ),
        (
            |m| m.facts.listening.push(([0, 0, 0, 0], 4222).into()),
            "port 4222",
        ),
        (
            |m| m.facts.listening.push(([127, 0, 0, 1], 6223).into()),
            "port 6223",
        ),
        (|m| m.public_host = "m1".to_owned(), "reached as m1"),
        (
            |m| {
                m.facts.folder = Folder {
                    exists: true,
                    owner: "root".to_owned(),
                    filled: true,
                }
            },
            "is not empty",
        ),
    ];
    for (change, expected) in cases {
        let said = with(change);
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(said.starts_with("nothing was changed"), "{said}");
    }
    let mut serving = bare(1);
    let wish_of_one = wish(&["root@m1"]);
    let whole = plan(&wish_of_one, &serving);
    carried_out(&mut serving, &whole, whole.steps.len());
    serving[0].facts.config = None;
    assert!(objections(&wish_of_one, &serving).contains("from another folder"));
    let one = wish(&["root@m1", "--dir", "/home/sotto"]);
    assert!(objections(&one, &bare(1)).contains("/home"));
    let one = wish(&["root@m1", "--dir", "/srv/a b"]);
    assert!(objections(&one, &bare(1)).contains("--dir"));
}

#[test]
fn two_servers_do_not_become_one() {
    let mut machines = bare(2);
    for machine in 0..2 {
        let alone = &mut machines[machine..=machine];
        let wish = wish(&["root@m1"]);
        let whole = plan(&wish, alone);
        carried_out(alone, &whole, whole.steps.len());
    }
    let both = wish(&["root@m1", "root@m2"]);
    assert!(objections(&both, &machines).contains("no node of the cluster of root@m1"));
}

#[test]
fn what_is_there_is_not_made_into_something_else() {
    let mut machines = bare(1);
    let whole = plan(&wish(&["root@m1", "--org", "acme"]), &machines);
    carried_out(&mut machines, &whole, whole.steps.len());
    let refused = |words: &[&str], expected: &str| {
        let words = [&["root@m1"], words].concat();
        let said = objections(&wish(&words), &machines);
        assert!(said.contains(expected), "{said}");
    };
    refused(&["--org", "other"], "no such organisation");
    refused(
        &["--nats-listen", "0.0.0.0:4223"],
        "listens on 0.0.0.0:4222",
    );
    refused(
        &["--gateway-listen", "0.0.0.0:443"],
        "listens on 0.0.0.0:8443",
    );
}
