//! Which machine becomes what: what is there stays as it is, and the rest
//! follows what was asked for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sotto_proto::{OrgName, ProjectName};
use sotto_service::ServerConfig;
use sotto_service::cluster::{Member, NodeName};

use super::objections::Objections;
use super::{Machine, Place};
use crate::wish::Wish;

const GATEWAY_PORT: u16 = 8443;
const NATS_PORT: u16 = 4222;

/// What everybody is to be.
#[derive(Debug)]
pub(super) struct Roles {
    pub(super) places: Vec<Place>,
    pub(super) keeper: usize,
    pub(super) org: OrgName,
    pub(super) project: ProjectName,
}

impl Roles {
    pub(super) fn assign(wish: &Wish, machines: &[Machine]) -> Result<Self, Objections> {
        let keeper = keeper(machines);
        let members = machines
            .get(keeper)
            .and_then(|machine| machine.facts.members.as_ref());
        let members = members.map(|members| members.nodes.as_slice());
        let members = members.unwrap_or_default();
        let clustered = machines.len() > 1 || !members.is_empty();
        let mut places: Vec<Option<Place>> = vec![None; machines.len()];
        let mut taken: Vec<String> = members.iter().map(|node| node.name.to_string()).collect();
        for number in keeper_first(keeper, machines.len()) {
            let Some(machine) = machines.get(number) else {
                continue;
            };
            let mut place = place(wish, machine, number == keeper, members);
            if clustered {
                let node = match own_name(machine) {
                    Some(name) => name,
                    None => new_name(&taken)?,
                };
                taken.push(node.to_string());
                place.node = Some(node);
            }
            if let Some(slot) = places.get_mut(number) {
                *slot = Some(place);
            }
        }
        let config = machines.get(keeper).and_then(|m| m.facts.config.as_ref());
        let (org, project) = first_org(wish, config)?;
        Ok(Self {
            places: places.into_iter().flatten().collect(),
            keeper,
            org,
            project,
        })
    }

    /// The numbers of all machines, in the order in which they become nodes.
    pub(super) fn keeper_first(&self, count: usize) -> impl Iterator<Item = usize> + use<> {
        keeper_first(self.keeper, count)
    }

    /// Which node the cluster expects at a machine that has nothing of it. It
    /// is not made that node again: for five minutes nats-server takes no node
    /// back that was taken out.
    pub(super) fn lost(&self, number: usize, machines: &[Machine]) -> Option<NodeName> {
        let machine = machines.get(number)?;
        let place = self.places.get(number)?;
        let members = machines.get(self.keeper)?.facts.members.as_ref()?;
        let mut nodes = members.nodes.iter();
        let there = nodes.find(|node| node.routes.host() == place.host_for_nodes())?;
        own_name(machine).is_none().then(|| there.name.clone())
    }
}

fn keeper_first(keeper: usize, count: usize) -> impl Iterator<Item = usize> {
    let others = (0..count).filter(move |number| *number != keeper);
    std::iter::once(keeper).chain(others)
}

/// The first that has a server with its keys, else the first.
fn keeper(machines: &[Machine]) -> usize {
    let keeps = |machine: &Machine| machine.facts.config.is_some() && machine.facts.keys;
    machines.iter().position(keeps).unwrap_or(0)
}

fn place(wish: &Wish, machine: &Machine, keeper: bool, members: &[Member]) -> Place {
    let facts = &machine.facts;
    let any = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port);
    let config = facts.config.as_ref();
    let gateway = config.map(|config| config.gateway.listen);
    let gateway = gateway.or(wish.gateway_listen).unwrap_or(any(GATEWAY_PORT));
    let nats = config.map(|config| config.nats.listen);
    let own = facts.node.as_ref();
    let own = own.and_then(|own| members.iter().find(|member| member.name == own.name));
    let is_gateway = match own {
        Some(own) => own.keeps_keys,
        None => keeper || !wish.one_gateway,
    };
    Place {
        destination: machine.destination.clone(),
        node: None,
        public_host: match config {
            Some(config) => config.public_host.clone(),
            None => machine.public_host.clone(),
        },
        cluster_host: match own {
            Some(own) => Some(own.routes.host().to_owned()),
            None => machine.cluster_host.clone(),
        },
        gateway_listen: is_gateway.then_some(gateway),
        nats_listen: nats.or(wish.nats_listen).unwrap_or(any(NATS_PORT)),
    }
}

/// The name of a machine that is a node, completely.
fn own_name(machine: &Machine) -> Option<NodeName> {
    let facts = &machine.facts;
    let node = facts.node.as_ref().filter(|_| facts.config.is_some())?;
    Some(node.name.clone())
}

fn new_name(taken: &[String]) -> Result<NodeName, Objections> {
    let mut names = (1..=taken.len() + 1).map(|number| format!("n{number}"));
    let free = names.find(|name| !taken.contains(name));
    let name = free.unwrap_or_default().parse();
    name.map_err(|error| Objections::general(format!("{error}")))
}

fn first_org(
    wish: &Wish,
    config: Option<&ServerConfig>,
) -> Result<(OrgName, ProjectName), Objections> {
    let named = |error: &dyn std::fmt::Display| Objections::general(error.to_string());
    let serves = |config: &ServerConfig| {
        let mut orgs = config.orgs.iter();
        let org = orgs.find(|org| wish.org.as_ref().is_none_or(|wanted| *wanted == org.name));
        org.map(|org| (org.name.clone(), org.project.clone()))
    };
    if let Some(config) = config {
        return serves(config).ok_or_else(|| {
            Objections::general(
                "the server that is there serves no such organisation: leave --org out, or add it with `sotto-gateway org add`".to_owned(),
            )
        });
    }
    let org = match &wish.org {
        Some(org) => org.clone(),
        None => "home".parse().map_err(|error| named(&error))?,
    };
    let project = match &wish.project {
        Some(project) => project.clone(),
        None => "general".parse().map_err(|error| named(&error))?,
    };
    Ok((org, project))
}
