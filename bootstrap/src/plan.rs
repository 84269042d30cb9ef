//! What is to be done so that machines become what is wanted. Pure: nothing is
//! done here, and nothing is begun while anything speaks against any machine.

mod objections;
mod roles;
mod updates;

use std::fmt;
use std::net::SocketAddr;

use serde::Serialize;
use sotto_proto::{OrgName, ProjectName};
use sotto_service::cluster::{ADMISSION_PORT, NodeName, ROUTES_PORT};
use sotto_update::Digest;

use crate::facts::{Facts, Role};
use crate::programs::{Program, Programs};
use crate::updates::Updates;
use crate::wish::Wish;
use crate::{AUTHORITIES, Destination, PROGRAMS_DIR, USER};

pub use objections::{Objections, folder};
use roles::Roles;

/// A machine, and what it said.
#[derive(Debug, Clone)]
pub struct Machine {
    /// How ssh reaches it.
    pub destination: Destination,
    /// How people reach it, unless it says otherwise.
    pub public_host: String,
    /// How the other machines reach it, if not as people.
    pub cluster_host: Option<String>,
    /// How far its clock is ahead of ours, in seconds.
    pub ahead: i64,
    /// What it said.
    pub facts: Facts,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is to be done.
    pub steps: Vec<Step>,
    /// What each machine is in the end, in the order in which they were named.
    pub places: Vec<Place>,
    /// Which of them keeps the keys, and lets the others in.
    pub keeper: usize,
    /// The organisation whose first admin is invited.
    pub org: OrgName,
    /// Its first project.
    pub project: ProjectName,
    /// The server's folder.
    pub dir: String,
    /// How the machines update themselves, where that is to be changed.
    pub updates: Option<Updates>,
    /// Those that do not, in the end.
    pub without_updates: Vec<Destination>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// What a machine is in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// How ssh reaches it.
    pub destination: Destination,
    /// Its name in the cluster; none where it is the only machine.
    pub node: Option<NodeName>,
    /// How people reach it.
    pub public_host: String,
    /// How the other machines reach it, if not as people.
    pub cluster_host: Option<String>,
    /// Where the gateway listens, if it is one.
    pub gateway_listen: Option<SocketAddr>,
    /// Where nats-server listens for clients.
    pub nats_listen: SocketAddr,
}

/// One thing that is done on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Which of the places.
    pub machine: usize,
    /// What.
    pub action: Action,
    /// Why.
    pub why: &'static str,
}

/// What is done. Doing it twice is the same as doing it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "action")]
pub enum Action {
    /// Make the user that the programs run as.
    MakeUser,
    /// Send a program.
    SendProgram {
        /// Which.
        program: Program,
    },
    /// Make the server's folder.
    MakeFolder,
    /// Make a new server in it.
    MakeServer,
    /// Stop relay and gateway.
    Stop,
    /// Make the server the first node of a cluster.
    BecomeFirstNode,
    /// Make the machine a node of the cluster.
    Join {
        /// In the place of a node that is not there any more.
        replaces: Option<NodeName>,
    },
    /// Copy the passphrase that opens the key store.
    SendPassphrase,
    /// Write a unit of systemd.
    WriteUnit {
        /// Whose.
        role: Role,
        /// Where that listens.
        listen: SocketAddr,
    },
    /// Start a unit, and at every start of the machine; wait until it serves.
    Start {
        /// Whose.
        role: Role,
    },
    /// Restart a unit whose file is another now; wait until it serves.
    Restart {
        /// Whose.
        role: Role,
    },
    /// Pin the root of trust of the releases.
    PinRoot {
        /// Which.
        fingerprint: Digest,
    },
    /// Send the authorities of the certificate of where releases are.
    SendAuthorities,
    /// Write the unit that updates a program, and its timer.
    WriteUpdater {
        /// Whose.
        role: Role,
    },
    /// Start that timer, and at every start of the machine.
    StartTimer {
        /// Whose.
        role: Role,
    },
}

impl Place {
    /// What it runs, and where that listens for clients.
    pub fn listens(&self) -> Vec<(Role, SocketAddr)> {
        let relay = (Role::Relay, self.nats_listen);
        let gateway = self.gateway_listen.map(|listen| (Role::Gateway, listen));
        [Some(relay), gateway].into_iter().flatten().collect()
    }

    /// Where it listens for the other nodes: nats-server, and the relay.
    pub fn cluster_listen(&self) -> [SocketAddr; 2] {
        let ip = self.nats_listen.ip();
        [ROUTES_PORT, ADMISSION_PORT].map(|port| SocketAddr::new(ip, port))
    }

    /// How the other nodes reach it.
    pub fn host_for_nodes(&self) -> &str {
        self.cluster_host.as_deref().unwrap_or(&self.public_host)
    }
}

impl Plan {
    /// What is to be done on these machines with these programs, and from where
    /// they are to get others.
    ///
    /// # Errors
    /// All that speaks against it; then nothing must be done.
    pub fn make(
        wish: &Wish,
        programs: &Programs,
        updates: Option<&Updates>,
        machines: &[Machine],
    ) -> Result<Self, Objections> {
        let dir = folder(wish)?;
        let roles = Roles::assign(wish, machines)?;
        objections::check(wish, &dir, (programs, updates), machines, &roles)?;
        let mut steps = Steps::default();
        let mut notes = objections::notes(machines, &roles);
        for (number, machine) in machines.iter().enumerate() {
            steps.prepare(number, &machine.facts, programs, &mut notes);
        }
        let keeper = roles.keeper;
        for number in roles.keeper_first(machines.len()) {
            let (Some(machine), Some(place)) = (machines.get(number), roles.places.get(number))
            else {
                continue;
            };
            let stopped = match number == keeper {
                true => steps.make_keeper(number, &machine.facts, place),
                false => {
                    let lost = roles.lost(number, machines);
                    steps.let_in(number, &machine.facts, place, lost);
                    false
                }
            };
            steps.start(number, &machine.facts, place, stopped);
            if let Some(updates) = updates {
                steps.update(number, &machine.facts, place, updates);
            }
        }
        let without_updates = match updates {
            Some(_) => Vec::new(),
            None => updates::without(machines, &roles),
        };
        let Roles {
            places,
            org,
            project,
            ..
        } = roles;
        Ok(Self {
            steps: steps.0,
            places,
            keeper,
            org,
            project,
            dir,
            updates: updates.cloned(),
            without_updates,
            notes,
        })
    }

    /// Which ports must be reachable, from where; nothing is opened for them.
    pub fn ports(&self) -> Vec<String> {
        let mut ports = Vec::new();
        for place in &self.places {
            let clients = place.listens().into_iter();
            let clients: Vec<String> = clients.map(|(_, at)| at.port().to_string()).collect();
            let clients = clients.join(" and ");
            let host = &place.public_host;
            ports.push(format!("{host}: TCP {clients}, from where people are"));
            if place.node.is_some() {
                let [routes, admission] = place.cluster_listen().map(|listen| listen.port());
                let host = place.host_for_nodes();
                ports.push(format!(
                    "{host}: TCP {routes} and {admission}, from the other machines"
                ));
            }
        }
        ports
    }
}

#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn add(&mut self, machine: usize, action: Action, why: &'static str) {
        self.0.push(Step {
            machine,
            action,
            why,
        });
    }

    /// What every machine needs before anything is made on any.
    fn prepare(
        &mut self,
        number: usize,
        facts: &Facts,
        programs: &Programs,
        notes: &mut Vec<String>,
    ) {
        if !facts.user {
            self.add(number, Action::MakeUser, "there is no such user");
        }
        for binary in &programs.binaries {
            let program = binary.program;
            let send = Action::SendProgram { program };
            match facts.programs.get(program.name()) {
                None => self.add(number, send, "it is not there"),
                Some(sum) if *sum == binary.sum => {}
                // What serves is replaced by updates, which can be taken back.
                Some(_) if facts.config.is_some() => notes.push(format!(
                    "{program} on a machine that serves is another version and stays: `{program} update` changes it"
                )),
                Some(_) => self.add(number, send, "another version is there"),
            }
        }
        if !facts.folder.exists || facts.folder.owner != USER {
            self.add(
                number,
                Action::MakeFolder,
                "there is no such folder of this user",
            );
        }
    }

    /// Whether it has to be stopped.
    fn make_keeper(&mut self, number: usize, facts: &Facts, place: &Place) -> bool {
        if facts.config.is_none() {
            self.add(number, Action::MakeServer, "there is no server");
        }
        if place.node.is_none() || facts.node.is_some() {
            return false;
        }
        let runs = Role::ALL.iter().any(|role| facts.unit_of(*role).active);
        if runs {
            self.add(
                number,
                Action::Stop,
                "only a stopped server can become a node",
            );
        }
        self.add(number, Action::BecomeFirstNode, "others are to join it");
        runs
    }

    fn let_in(&mut self, number: usize, facts: &Facts, place: &Place, replaces: Option<NodeName>) {
        if facts.config.is_none() {
            let why = match &replaces {
                Some(_) => "it never came, or lost its disk",
                None => "it is no node of the cluster",
            };
            self.add(number, Action::Join { replaces }, why);
        }
        if place.gateway_listen.is_some() && !facts.passphrase {
            let why = "its gateway opens the key store with it";
            self.add(number, Action::SendPassphrase, why);
        }
    }

    fn start(&mut self, number: usize, facts: &Facts, place: &Place, stopped: bool) {
        let mut rewritten = Vec::new();
        for (role, listen) in place.listens() {
            if !facts.unit_of(role).is_for(listen.port()) {
                let why = "it is not there, or not what the program prints";
                self.add(number, Action::WriteUnit { role, listen }, why);
                rewritten.push(role);
            }
        }
        for (role, _) in place.listens() {
            let unit = facts.unit_of(role);
            if stopped || !unit.active || !unit.enabled {
                let why = "it does not run, or not after a restart";
                self.add(number, Action::Start { role }, why);
            } else if rewritten.contains(&role) {
                self.add(number, Action::Restart { role }, "its unit is another now");
            }
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MakeUser => write!(f, "make the user {USER}, who can log in nowhere"),
            Self::SendProgram { program } => write!(f, "send {program} to {PROGRAMS_DIR}"),
            Self::MakeFolder => f.write_str("make the server's folder, for that user alone"),
            Self::MakeServer => f.write_str("make a new server"),
            Self::Stop => f.write_str("stop the gateway and the relay"),
            Self::BecomeFirstNode => f.write_str("make the server the first node of a cluster"),
            Self::Join { replaces: None } => {
                f.write_str("join the cluster, with a token for this once")
            }
            Self::Join {
                replaces: Some(node),
            } => write!(
                f,
                "join the cluster in the place of {node}, with a token for this once"
            ),
            Self::SendPassphrase => f.write_str("copy the passphrase of the key store"),
            Self::WriteUnit { role, .. } => write!(f, "write the unit {}", role.unit()),
            Self::Start { role } => write!(f, "start {}, and with the machine", role.unit()),
            Self::Restart { role } => write!(f, "restart {}", role.unit()),
            Self::PinRoot { fingerprint } => write!(f, "pin the root of trust {fingerprint}"),
            Self::SendAuthorities => write!(f, "send the authorities to {AUTHORITIES}"),
            Self::WriteUpdater { role } => {
                write!(f, "write the unit of its daily update, {}", role.timer())
            }
            Self::StartTimer { role } => write!(f, "start {}, and with the machine", role.timer()),
        }
    }
}

#[cfg(test)]
mod tests;
