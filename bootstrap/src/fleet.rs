//! The machines, connected: asks them what they are and does the steps of a
//! plan. Decides nothing that a plan could decide.

mod serving;
mod updating;

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use futures::future;
use serde::Deserialize;
use sotto_proto::InviteLink;
use sotto_service::Layout;
use sotto_service::cluster::{ADMISSION_PORT, Endpoint, NameError, NodeName};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::facts::{Facts, FactsError, Role};
use crate::plan::{self, Action, Machine, Objections, Place, Plan, Step};
use crate::programs::{Program, Programs};
use crate::ssh::{self, Input, Ssh, SshError};
use crate::updates::Updates;
use crate::wish::Wish;
use crate::{AUTHORITIES, Destination, PROGRAMS_DIR, UPDATE_DIR, USER, scripts};

/// Longest text that is read of a small file, in bytes.
const FILE_MAX: usize = 4_096;
/// How long a machine that joins waits for the others, in seconds.
const JOIN_WAIT: &str = "300";

/// Connections to all machines. They end when it is dropped.
#[derive(Debug)]
pub struct Fleet {
    machines: Vec<(Destination, Ssh)>,
    /// Where the control sockets are.
    _sockets: TempDir,
}

/// What went wrong, and where.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// On a machine.
    #[error("{machine}: {problem}")]
    Machine {
        /// Which.
        machine: Destination,
        /// What.
        problem: MachineError,
    },
    /// Here.
    #[error("cannot make a folder for ssh's sockets: {0}")]
    Sockets(std::io::Error),
    /// Not as many hosts as machines.
    #[error("say {option} once for each machine, in their order: {said} and {machines} were given")]
    Hosts {
        /// Which option.
        option: &'static str,
        /// How often it was said.
        said: usize,
        /// How many machines there are.
        machines: usize,
    },
    /// The server's folder cannot be one.
    #[error(transparent)]
    Folder(#[from] Objections),
    /// The plan is for other machines.
    #[error("the plan is for other machines than these")]
    OtherPlan,
}

/// What went wrong on a machine.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// On the way, or there.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// How the others are to reach it makes no sense.
    #[error(transparent)]
    Name(#[from] NameError),
    /// What it says makes no sense.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// A program there says something else than it should.
    #[error("`{0}` there does not answer as it should: is it of another release?")]
    Answer(&'static str),
    /// A unit does not serve.
    #[error("{unit} does not serve: {why}")]
    Unready {
        /// Which.
        unit: String,
        /// What it said last.
        why: String,
    },
    /// The copies do not grow.
    #[error("not everything is kept on all machines: {0}; see `sotto-relay cluster status` there")]
    Unsettled(String),
}

impl Fleet {
    /// Connects to every machine, one after the other, since ssh may have to
    /// ask; `next` is told of each.
    ///
    /// # Errors
    /// When one cannot be reached.
    pub async fn connect(
        wish: &Wish,
        mut next: impl FnMut(&Destination),
    ) -> Result<Self, FleetError> {
        let sockets = tempfile::Builder::new()
            .prefix("sotto-")
            .tempdir()
            .map_err(FleetError::Sockets)?;
        let mut machines = Vec::new();
        for (number, destination) in wish.machines.iter().enumerate() {
            next(destination);
            let connecting = Ssh::connect(destination, sockets.path(), number);
            let ssh = connecting.await.map_err(at(destination))?;
            machines.push((destination.clone(), ssh));
        }
        Ok(Self {
            machines,
            _sockets: sockets,
        })
    }

    /// Asks every machine what it is, and whether it updates itself like that.
    ///
    /// # Errors
    /// When one does not say.
    pub async fn look(
        &self,
        wish: &Wish,
        updates: Option<&Updates>,
    ) -> Result<Vec<Machine>, FleetError> {
        let count = self.machines.len();
        fits("--public-host", wish.public_hosts.len(), count)?;
        fits("--cluster-host", wish.cluster_hosts.len(), count)?;
        let dir = &plan::folder(wish)?;
        let machines = self.machines.iter().enumerate();
        let asked = machines.map(|(number, (destination, ssh))| async move {
            let public_host = match wish.public_hosts.get(number) {
                Some(host) => host.clone(),
                None => ssh::host_of(destination).await.map_err(at(destination))?,
            };
            let facts = ask(ssh, dir, updates).await.map_err(in_it(destination))?;
            Ok(Machine {
                destination: destination.clone(),
                public_host,
                cluster_host: wish.cluster_hosts.get(number).cloned(),
                ahead: facts.clock.saturating_sub(now()),
                facts,
            })
        });
        future::try_join_all(asked).await
    }

    /// Does one step of a plan.
    ///
    /// # Errors
    /// When it fails; it may be done again.
    pub async fn perform(
        &self,
        plan: &Plan,
        programs: &Programs,
        step: &Step,
    ) -> Result<(), FleetError> {
        let place = plan.places.get(step.machine).ok_or(FleetError::OtherPlan)?;
        let ssh = self.ssh(step.machine)?;
        let done = match &step.action {
            Action::MakeUser => run(ssh, scripts::MAKE_USER, &[USER]).await,
            Action::MakeFolder => run(ssh, scripts::MAKE_FOLDER, &[USER, &plan.dir]).await,
            Action::SendProgram { program } => send(ssh, programs, *program).await,
            Action::MakeServer => as_user(ssh, &init(plan, place)).await.map(drop),
            Action::Stop => {
                // The gateway first: it needs NATS to the end.
                let units = [Role::Gateway, Role::Relay].map(Role::unit);
                run(
                    ssh,
                    scripts::STOP_UNITS,
                    &units.each_ref().map(String::as_str),
                )
                .await
            }
            Action::BecomeFirstNode => as_user(ssh, &first_node(plan, place)).await.map(drop),
            Action::Join { replaces } => {
                let replaces = replaces.as_ref();
                return self.join(plan, step.machine, place, replaces).await;
            }
            Action::SendPassphrase => return self.send_passphrase(plan, step.machine).await,
            Action::WriteUnit { role, listen } => write_unit(ssh, plan, *role, *listen).await,
            Action::Start { role } => serving::start(ssh, &plan.dir, *role, "start").await,
            Action::Restart { role } => serving::start(ssh, &plan.dir, *role, "restart").await,
            Action::PinRoot { .. } => updating::pin(ssh, &updates(plan)?.root).await,
            Action::SendAuthorities => {
                let pem = updates(plan)?.authorities.as_deref();
                updating::send_authorities(ssh, pem.ok_or(FleetError::OtherPlan)?).await
            }
            Action::WriteUpdater { role } => {
                updating::write(ssh, &plan.dir, updates(plan)?, *role).await
            }
            Action::StartTimer { role } => updating::start(ssh, *role).await,
        };
        done.map_err(in_it(&place.destination))
    }

    /// Waits until every node is there and everything is kept as often as it
    /// should be; nothing to wait for where there is one machine.
    ///
    /// # Errors
    /// When that does not happen.
    pub async fn settle(&self, plan: &Plan) -> Result<(), FleetError> {
        let keeper = plan.places.get(plan.keeper).ok_or(FleetError::OtherPlan)?;
        if keeper.node.is_none() {
            return Ok(());
        }
        let ssh = self.ssh(plan.keeper)?;
        let settled = serving::settle(ssh, &plan.dir).await;
        settled.map_err(in_it(&keeper.destination))
    }

    /// The newest release that a machine finds where it is to look for them.
    ///
    /// # Errors
    /// When it finds none.
    pub async fn newest_release(&self, plan: &Plan, number: usize) -> Result<String, FleetError> {
        let (destination, ssh) = self.machines.get(number).ok_or(FleetError::OtherPlan)?;
        let newest = updating::newest(ssh, updates(plan)?).await;
        newest.map_err(in_it(destination))
    }

    /// The invitation of the org's first admin, until it is used.
    ///
    /// # Errors
    /// When the machine does not say.
    pub async fn invitation(&self, plan: &Plan) -> Result<Option<InviteLink>, FleetError> {
        let (destination, ssh) = self
            .machines
            .get(plan.keeper)
            .ok_or(FleetError::OtherPlan)?;
        let path = Layout::new(&plan.dir).first_invite(&plan.org);
        let path = path.display().to_string();
        let text = ssh.run(scripts::READ, &[&path], Input::Nothing).await;
        let text = text.map_err(at(destination))?;
        let text = String::from_utf8_lossy(&text);
        let link = match text.trim() {
            "" => return Ok(None),
            text => text.parse().ok(),
        };
        let wrong = || MachineError::Answer("first-invite");
        let link = link.ok_or_else(wrong).map_err(in_it(destination))?;
        Ok(Some(link))
    }

    /// The token goes from one machine to the other through this process alone.
    async fn join(
        &self,
        plan: &Plan,
        number: usize,
        place: &Place,
        replaces: Option<&NodeName>,
    ) -> Result<(), FleetError> {
        let (keeper, keeping) = self
            .machines
            .get(plan.keeper)
            .ok_or(FleetError::OtherPlan)?;
        let mut command = vec!["cluster", "token", "--json", "--hours", "1"];
        command.extend(["--dir", &plan.dir]);
        if place.gateway_listen.is_some() {
            command.push("--gateway");
        }
        if let Some(lost) = replaces {
            command.extend(["--replaces", lost.as_str()]);
        }
        let made = as_user(keeping, &relay(&command)).await;
        let made = made.map_err(in_it(keeper))?;
        let token: Option<Token> = serde_json::from_slice(&made).ok();
        let token = token.ok_or(MachineError::Answer("sotto-relay cluster token"));
        let Token { token } = token.map_err(in_it(keeper))?;
        let first = plan.places.get(plan.keeper).ok_or(FleetError::OtherPlan)?;
        let command = join(plan, first, place);
        let command = command.map_err(|error| in_it(keeper)(error.into()))?;
        let mut words = vec![USER];
        words.extend(command.iter().map(String::as_str));
        let line = Zeroizing::new(format!("{}\n", *token));
        let ssh = self.ssh(number)?;
        let joined = ssh.run(
            scripts::AS_USER_WITH_TOKEN,
            &words,
            Input::Bytes(line.as_bytes()),
        );
        joined.await.map(drop).map_err(at(&place.destination))
    }

    /// So does the passphrase.
    async fn send_passphrase(&self, plan: &Plan, number: usize) -> Result<(), FleetError> {
        let (keeper, keeping) = self
            .machines
            .get(plan.keeper)
            .ok_or(FleetError::OtherPlan)?;
        let (destination, ssh) = self.machines.get(number).ok_or(FleetError::OtherPlan)?;
        let path = format!("{}/unlock", plan.dir);
        let secret = keeping.run(scripts::READ, &[&path], Input::Nothing).await;
        let secret = secret.map_err(at(keeper))?;
        if secret.is_empty() || secret.len() > FILE_MAX {
            return Err(in_it(keeper)(MachineError::Answer("unlock")));
        }
        let words = [USER, path.as_str()];
        let sent = ssh.run(scripts::RECEIVE_SECRET, &words, Input::Bytes(&secret));
        sent.await.map(drop).map_err(at(destination))
    }

    fn ssh(&self, number: usize) -> Result<&Ssh, FleetError> {
        let machine = self.machines.get(number).ok_or(FleetError::OtherPlan)?;
        Ok(&machine.1)
    }
}

/// What `sotto-relay cluster token --json` says, of which the address is known
/// here.
#[derive(Deserialize)]
struct Token {
    token: Zeroizing<String>,
}

async fn ask(ssh: &Ssh, dir: &str, updates: Option<&Updates>) -> Result<Facts, MachineError> {
    let programs = Program::ALL.map(Program::name).join(" ");
    let mut words = vec![USER, dir, PROGRAMS_DIR, &programs, UPDATE_DIR, AUTHORITIES];
    words.extend(updates.map(updating::options).unwrap_or_default());
    let said = ssh.run(scripts::FACTS, &words, Input::Nothing).await?;
    Ok(Facts::parse(&said)?)
}

async fn run(ssh: &Ssh, script: &str, arguments: &[&str]) -> Result<(), MachineError> {
    Ok(ssh.run(script, arguments, Input::Nothing).await.map(drop)?)
}

async fn as_user(ssh: &Ssh, command: &[String]) -> Result<Zeroizing<Vec<u8>>, MachineError> {
    let mut words = vec![USER];
    words.extend(command.iter().map(String::as_str));
    Ok(ssh.run(scripts::AS_USER, &words, Input::Nothing).await?)
}

async fn send(ssh: &Ssh, programs: &Programs, program: Program) -> Result<(), MachineError> {
    let mut binaries = programs.binaries.iter();
    let binary = binaries.find(|binary| binary.program == program);
    let binary = binary.ok_or(MachineError::Answer(program.name()))?;
    let path = format!("{PROGRAMS_DIR}/{program}");
    let words = [path.as_str(), &binary.sum];
    let sent = ssh.run(scripts::RECEIVE_PROGRAM, &words, Input::File(&binary.path));
    Ok(sent.await.map(drop)?)
}

async fn write_unit(
    ssh: &Ssh,
    plan: &Plan,
    role: Role,
    listen: SocketAddr,
) -> Result<(), MachineError> {
    let file = format!("/etc/systemd/system/{}", role.unit());
    let program = format!("{PROGRAMS_DIR}/{}", role.program());
    let listen = listen.to_string();
    let mut words = vec![file.as_str(), &program, "unit", "--dir", &plan.dir];
    words.extend(["--user", USER, "--listen", &listen]);
    run(ssh, scripts::WRITE_UNIT, &words).await
}

fn init(plan: &Plan, place: &Place) -> Vec<String> {
    let mut words = vec![format!("{PROGRAMS_DIR}/sotto-gateway"), "init".to_owned()];
    let mut say = |option: &str, value: String| words.extend([option.to_owned(), value]);
    say("--dir", plan.dir.clone());
    say("--org", plan.org.to_string());
    say("--project", plan.project.to_string());
    say("--public-host", place.public_host.clone());
    say("--nats-listen", place.nats_listen.to_string());
    if let Some(listen) = place.gateway_listen {
        say("--gateway-listen", listen.to_string());
    }
    words
}

fn first_node(plan: &Plan, place: &Place) -> Vec<String> {
    let mut words = relay(&["bootstrap", "--dir", &plan.dir]);
    words.extend(places(place));
    words
}

fn join(plan: &Plan, first: &Place, place: &Place) -> Result<Vec<String>, NameError> {
    let address = Endpoint::new(first.host_for_nodes(), ADMISSION_PORT)?;
    let address = address.to_string();
    let mut words = relay(&["join", &address, "--dir", &plan.dir, "--wait", JOIN_WAIT]);
    words.extend(places(place));
    let mut say = |option: &str, value: String| words.extend([option.to_owned(), value]);
    say("--public-host", place.public_host.clone());
    say("--nats-listen", place.nats_listen.to_string());
    if let Some(listen) = place.gateway_listen {
        say("--gateway-listen", listen.to_string());
    }
    Ok(words)
}

/// How a node is called and where the others reach it.
fn places(place: &Place) -> Vec<String> {
    let [routes, admission] = place.cluster_listen().map(|listen| listen.to_string());
    let mut words = Vec::new();
    let mut say = |option: &str, value: String| words.extend([option.to_owned(), value]);
    if let Some(node) = &place.node {
        say("--name", node.to_string());
    }
    say("--routes-listen", routes);
    say("--admission-listen", admission);
    if let Some(host) = &place.cluster_host {
        say("--cluster-host", host.clone());
    }
    words
}

fn relay(words: &[&str]) -> Vec<String> {
    let mut all = vec![format!("{PROGRAMS_DIR}/sotto-relay")];
    all.extend(words.iter().map(|word| (*word).to_owned()));
    all
}

fn fits(option: &'static str, said: usize, machines: usize) -> Result<(), FleetError> {
    match said == 0 || said == machines {
        true => Ok(()),
        false => Err(FleetError::Hosts {
            option,
            said,
            machines,
        }),
    }
}

fn updates(plan: &Plan) -> Result<&Updates, FleetError> {
    plan.updates.as_ref().ok_or(FleetError::OtherPlan)
}

fn at(destination: &Destination) -> impl FnOnce(SshError) -> FleetError + use<> {
    let at = in_it(destination);
    move |error| at(error.into())
}

fn in_it(destination: &Destination) -> impl FnOnce(MachineError) -> FleetError + use<> {
    let machine = destination.clone();
    move |problem| FleetError::Machine { machine, problem }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}
