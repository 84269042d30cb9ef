//! What speaks against it, of every machine, before anything is changed on any.

use std::fmt;
use std::path::Path;

use sotto_service::cluster::{Endpoint, NODES_MAX, REPLICAS_FROM};

use super::roles::Roles;
use super::{Machine, Place, updates};
use crate::facts::{Facts, Role};
use crate::programs::Programs;
use crate::updates::Updates;
use crate::wish::{DIR, Wish};
use crate::{Destination, USER};

/// How far clocks may be apart, in seconds, before it is worth a word.
const CLOCKS_APART: i64 = 10;

/// What speaks against it, one line for each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Objections(Vec<String>);

impl Objections {
    /// One that is of no machine.
    pub(super) fn general(text: String) -> Self {
        Self(vec![text])
    }
}

impl fmt::Display for Objections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing was changed: ")?;
        match self.0.as_slice() {
            [one] => f.write_str(one),
            several => several.iter().try_for_each(|text| write!(f, "\n  {text}")),
        }
    }
}

/// The server's folder: a path that a unit of systemd can hold, and that its
/// program can reach from there.
///
/// # Errors
/// Why it cannot be one.
pub fn folder(wish: &Wish) -> Result<String, Objections> {
    let dir = wish.dir.as_deref().unwrap_or(Path::new(DIR));
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let hidden = [
        "/home", "/root", "/run", "/tmp", "/var/tmp", "/dev", "/proc", "/sys",
    ];
    let text = dir.to_str().unwrap_or_default();
    let plain = text.chars().all(plain) && !text.contains("..");
    if !plain || !dir.is_absolute() || dir.components().count() < 3 {
        return Err(Objections::general(format!(
            "--dir must be an absolute path below a folder, of letters, digits and /._-, such as {DIR}"
        )));
    }
    match hidden.iter().find(|hidden| dir.starts_with(hidden)) {
        Some(hidden) => Err(Objections::general(format!(
            "a service sees nothing below {hidden}: choose another --dir, such as {DIR}"
        ))),
        None => Ok(text.trim_end_matches('/').to_owned()),
    }
}

pub(super) fn check(
    wish: &Wish,
    dir: &str,
    (programs, updates): (&Programs, Option<&Updates>),
    machines: &[Machine],
    roles: &Roles,
) -> Result<(), Objections> {
    let mut found = Vec::new();
    together(machines, roles, &mut found);
    for (number, (machine, place)) in machines.iter().zip(&roles.places).enumerate() {
        let mut say = |text: String| found.push(format!("{}: {text}", machine.destination));
        fitness(&machine.facts, programs, &mut say);
        occupied(&machine.facts, dir, &mut say);
        settings(wish, machine, place, &mut say);
        ports(&machine.facts, place, &mut say);
        if let Some(updates) = updates {
            updates::check(&machine.facts, updates, &mut say);
        }
        if number != roles.keeper {
            belongs(machine, machines.get(roles.keeper), place, &mut say);
        }
    }
    match found.is_empty() {
        true => Ok(()),
        false => Err(Objections(found)),
    }
}

/// What is no obstacle, but good to know.
pub(super) fn notes(machines: &[Machine], roles: &Roles) -> Vec<String> {
    let mut notes = Vec::new();
    let nodes = roles.places.iter().filter(|place| place.node.is_some());
    if (2..REPLICAS_FROM).contains(&nodes.count()) {
        notes.push(
            "two machines keep everything once, on one of the two: a third makes it safe"
                .to_owned(),
        );
    }
    for machine in machines {
        if machine.ahead.abs() > CLOCKS_APART {
            notes.push(format!(
                "the clock of {} is {} s off ours: codes, sessions and updates go by it",
                machine.destination, machine.ahead
            ));
        }
    }
    notes
}

fn together(machines: &[Machine], roles: &Roles, found: &mut Vec<String>) {
    let twice = |one: &(usize, &Place)| {
        let mut before = roles.places.iter().take(one.0);
        before.any(|other| other.host_for_nodes() == one.1.host_for_nodes())
    };
    if let Some((_, place)) = roles.places.iter().enumerate().find(twice) {
        found.push(format!(
            "two of the machines are reached as {}: name each once, or say --public-host or --cluster-host for each",
            place.host_for_nodes()
        ));
    }
    let mut names: Vec<_> = roles
        .places
        .iter()
        .filter_map(|p| p.node.as_ref())
        .collect();
    names.sort_unstable();
    if names.array_windows().any(|[one, other]| one == other) {
        found.push("two of the machines are nodes of one name, of different clusters".to_owned());
    }
    let members = machines
        .get(roles.keeper)
        .and_then(|m| m.facts.members.as_ref());
    let more = names
        .iter()
        .filter(|name| members.is_none_or(|members| members.get(name).is_none()));
    let lost = (0..machines.len()).filter_map(|number| roles.lost(number, machines));
    let all = members.map_or(0, |members| members.nodes.len()) + more.count();
    let all = all.saturating_sub(lost.count());
    if all > NODES_MAX {
        found.push(format!(
            "a cluster has at most {NODES_MAX} nodes, these would be {all}"
        ));
    }
}

fn fitness(facts: &Facts, programs: &Programs, say: &mut impl FnMut(String)) {
    if facts.system != "Linux" {
        say(format!(
            "it runs {}, and servers run on Linux",
            facts.system
        ));
        return;
    }
    if facts.machine != programs.machine {
        say(format!(
            "it is a machine for {} and these programs are for {}: take those of the other release with --programs",
            facts.machine, programs.machine
        ));
    }
    if !facts.systemd {
        say("systemd does not run it: install the server by hand".to_owned());
    }
    if !facts.lacks.is_empty() {
        say(format!("it lacks {}: install them", facts.lacks.join(", ")));
    }
}

/// A folder of somebody else is not touched, nor a server in another one.
fn occupied(facts: &Facts, dir: &str, say: &mut impl FnMut(String)) {
    if facts.folder.filled && facts.folder.owner != USER {
        say(format!(
            "{dir} belongs to {} and is not empty: choose another --dir",
            facts.folder.owner
        ));
    }
    let mut units = Role::ALL.into_iter().map(|role| facts.unit_of(role));
    if facts.config.is_none() && units.any(|unit| unit.active || unit.enabled) {
        say(format!(
            "it serves already, from another folder than {dir}: say --dir, or disable its units"
        ));
    }
}

/// What was asked for must be what is there, or can still be made.
fn settings(wish: &Wish, machine: &Machine, place: &Place, say: &mut impl FnMut(String)) {
    for host in [&place.public_host, place.host_for_nodes()] {
        if Endpoint::new(host, 1).is_err() {
            say(format!(
                "`{host}` is no host name or address: say --public-host"
            ));
        }
    }
    let Some(config) = &machine.facts.config else {
        return;
    };
    let listens = [
        (wish.gateway_listen, config.gateway.listen, "gateway"),
        (wish.nats_listen, config.nats.listen, "nats-server"),
    ];
    for (wanted, is, what) in listens {
        if wanted.is_some_and(|wanted| wanted != is) {
            say(format!(
                "its {what} listens on {is} already: leave the option out, or change server.toml there"
            ));
        }
    }
    if !wish.public_hosts.is_empty() && machine.public_host != config.public_host {
        say(format!(
            "people reach it as {} already: leave --public-host out",
            config.public_host
        ));
    }
}

fn ports(facts: &Facts, place: &Place, say: &mut impl FnMut(String)) {
    let mut wanted = Vec::new();
    for (role, listen) in place.listens() {
        if !facts.unit_of(role).active {
            wanted.push((listen, role.program()));
        }
    }
    let serves_nodes = facts.node.is_some() && facts.unit_of(Role::Relay).active;
    if place.node.is_some() && !serves_nodes {
        let [routes, admission] = place.cluster_listen();
        wanted.push((routes, "nats-server, for the other nodes"));
        wanted.push((admission, "sotto-relay, for the other nodes"));
    }
    for (address, who) in wanted {
        if facts.is_taken(address) {
            say(format!(
                "another program listens on port {}, which {who} needs: stop it, or choose another port",
                address.port()
            ));
        }
    }
}

/// A machine that has a server must be a node of this cluster, and one that is to
/// have the keys must be able to get them.
fn belongs(
    machine: &Machine,
    keeper: Option<&Machine>,
    place: &Place,
    say: &mut impl FnMut(String),
) {
    let Some(keeper) = keeper else { return };
    let facts = &machine.facts;
    if facts.config.is_some() {
        let here = keeper.facts.members.as_ref().zip(facts.node.as_ref());
        let here = here.and_then(|(members, own)| members.get(&own.name));
        let there = facts.members.as_ref().zip(facts.node.as_ref());
        let there = there.and_then(|(members, own)| members.get(&own.name));
        let same = here
            .zip(there)
            .is_some_and(|(here, there)| here.key == there.key);
        if !same {
            say(other_server(&keeper.destination));
        }
    } else if place.gateway_listen.is_some()
        && keeper.facts.config.is_some()
        && !keeper.facts.passphrase
    {
        say(format!(
            "{} does not keep the passphrase of its keys in the server's folder, so that it cannot be copied: say --one-gateway, or let this machine join by hand",
            keeper.destination
        ));
    }
}

fn other_server(keeper: &Destination) -> String {
    format!(
        "it has a server that is no node of the cluster of {keeper}: choose another --dir, or leave it out"
    )
}
