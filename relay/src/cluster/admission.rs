//! What a node that keeps the keys answers: it lets machines in that have a
//! token, and tells nodes what is new. Other nodes answer nobody.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use sotto_log::Known;
use sotto_service::cluster::{self, Cluster, Member, Members, NODES_MAX, NodeName};
use sotto_service::handover::{Handover, Listener};
use sotto_service::nats::jetstream::Group;
use sotto_service::{Layout, private_files, tls};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::bundle::{Bundle, KeeperFiles};
use super::exchange::{self, Admitted, Answer, ExchangeError, Join, Question};
use super::group;
use super::replacement;
use super::tokens::{self, Permitted, TokenError};

/// Connections that are served at a time.
const CONNECTIONS: usize = 64;
/// Longest of the files that are sent, in bytes.
const FILE_MAX: u64 = 1024 * 1024;
/// Hosts in a node's certificate at most.
const HOSTS_MAX: usize = 16;

/// Answers nodes and machines that want to be one.
pub struct Admission {
    layout: Layout,
    members: Arc<watch::Sender<Members>>,
    group: watch::Receiver<Option<Group>>,
    /// One machine comes in at a time.
    admitting: Mutex<()>,
}

/// Listens where the node says.
///
/// # Errors
/// When the port is taken.
pub async fn listen(cluster: &Cluster, handover: &Handover) -> Result<Listener> {
    let address = cluster.node.admission_listen;
    handover.listen(address).await.with_context(|| {
        format!("cannot listen on {address} for other nodes: is it taken by another program?")
    })
}

impl Admission {
    /// Will answer for the server in `layout`; `members` changes with whoever
    /// is let in, while `group` says that everybody is there.
    pub fn new(
        layout: Layout,
        members: Arc<watch::Sender<Members>>,
        group: watch::Receiver<Option<Group>>,
    ) -> Self {
        Self {
            layout,
            members,
            group,
            admitting: Mutex::new(()),
        }
    }

    /// Answers until it is dropped.
    ///
    /// # Errors
    /// When the cluster's certificates do not read.
    pub async fn serve(self, listener: Listener) -> Result<()> {
        let tls = TlsAcceptor::from(Arc::new(cluster::server_config(&self.layout)?));
        let admission = Arc::new(self);
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let place = Arc::clone(&places).acquire_owned().await?;
            while connections.try_join_next().is_some() {}
            let (tcp, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    sotto_log::warn!(error, "a node's connection was not taken");
                    continue;
                }
            };
            let (tls, admission) = (tls.clone(), Arc::clone(&admission));
            connections.spawn(async move {
                let _place = place;
                let served = admission.connection(&tls, tcp);
                let served = tokio::time::timeout(exchange::TIMEOUT, served).await;
                if let Err(error) = served.unwrap_or(Err(ExchangeError::Slow)) {
                    sotto_log::debug!(
                        error,
                        from = Known(from),
                        "a connection of a node ended early"
                    );
                }
            });
        }
    }

    async fn connection(&self, tls: &TlsAcceptor, tcp: TcpStream) -> Result<(), ExchangeError> {
        let from = tcp.peer_addr()?;
        let mut stream = tls.accept(tcp).await?;
        let question = exchange::receive(&mut stream, exchange::QUESTION_MAX).await?;
        let answer = match question {
            Question::Join(join) => self.admit(&join, from).await,
            Question::Sync { serial, digest } => self.synced(&stream, serial, &digest),
        };
        exchange::send(&mut stream, &answer).await
    }

    /// What is new for a node, which shows its certificate.
    fn synced(&self, stream: &TlsStream<TcpStream>, serial: u64, digest: &str) -> Answer {
        let shown = stream.get_ref().1.peer_certificates();
        let shown = shown
            .and_then(<[_]>::first)
            .map(|c| cluster::fingerprint(c));
        let members = self.members.borrow().clone();
        let is_node = |shown| members.nodes.iter().any(|node| node.certificate == shown);
        if !shown.is_some_and(is_node) {
            return Answer::Refused("this machine is no node of the cluster".to_owned());
        }
        match Bundle::read(&self.layout) {
            Ok(bundle) => Answer::Synced {
                members: (members.serial > serial).then_some(members),
                bundle: (bundle.digest() != digest).then(|| Box::new(bundle)),
            },
            Err(error) => {
                sotto_log::error!(error, "what nodes need does not read");
                Answer::Later("this node cannot read its files".to_owned())
            }
        }
    }

    async fn admit(&self, join: &Join, from: SocketAddr) -> Answer {
        let _one = self.admitting.lock().await;
        // On disk, since a command may have taken one out just now.
        let members = match Members::load(&self.layout) {
            Ok(members) => members,
            Err(error) => {
                sotto_log::error!(error, "the list of nodes does not read");
                return Answer::Later("this node cannot read its files".to_owned());
            }
        };
        if !self.layout.cluster_authority_key().is_file() {
            let text = "this node does not keep the keys: ask one that does";
            return Answer::Refused(text.to_owned());
        }
        let permitted = match tokens::check(&self.layout, &join.secret, now_ms()) {
            Ok(permitted) => permitted,
            Err(error) => return not_good(&error, from),
        };
        let group = self.group.borrow().clone();
        let lost = permitted.replaces.as_ref();
        if let Err(no) = could_join(join, &members, group.as_ref(), lost) {
            return no;
        }
        if let Some(lost) = lost.and_then(|lost| members.get(lost))
            && let Err(no) = replacement::is_silent(&self.layout, lost).await
        {
            return Answer::Later(no.to_string());
        }
        if let Err(error) = tokens::consume(&self.layout, &join.secret, now_ms()) {
            return not_good(&error, from);
        }
        match self.let_in(join, &permitted) {
            Ok(admitted) => {
                sotto_log::info!(node = join.name, from = Known(from), "a node was let in");
                if let Some(lost) = lost {
                    sotto_log::warn!(node = lost, "a lost node is none any more");
                }
                Answer::Admitted(Box::new(admitted))
            }
            Err(error) => {
                sotto_log::error!(error, "a machine could not be let in");
                Answer::Refused(format!("{error:#}; the token is used up: make another"))
            }
        }
    }

    fn let_in(&self, join: &Join, permitted: &Permitted) -> Result<Admitted> {
        let layout = &self.layout;
        let gateway = permitted.gateway;
        let read = |path: &std::path::Path| private_files::read_text(path, FILE_MAX);
        let key = cluster::admit(layout, &join.node_key, join.routes.host(), gateway)?;
        let server_certificate = tls::certify_server(layout, &join.server_key, &join.hosts)?;
        let keys = match gateway {
            true => Some(KeeperFiles::read(layout)?),
            false => None,
        };
        let node = Member {
            name: join.name.clone(),
            nats_url: format!("tls://{}", join.clients),
            routes: join.routes.clone(),
            admission: join.admission.clone(),
            key: key.key,
            certificate: key.fingerprint,
            keeps_keys: gateway,
        };
        // A command may be changing the list.
        let _locked = private_files::lock(&layout.cluster())?;
        let members = Members::load(layout)?;
        let members = match &permitted.replaces {
            Some(lost) => members.with_in_place_of(node, lost),
            None => members.with(node),
        };
        let admitted = Admitted {
            config: read(&layout.config())?,
            authority: read(&layout.authority())?,
            cluster_authority: read(&layout.cluster_authority())?,
            server_certificate,
            node_certificate: key.certificate,
            bundle: Bundle::read(layout)?,
            keys,
            members: members.clone(),
        };
        members.save(layout)?;
        self.members.send_replace(members);
        Ok(admitted)
    }
}

/// What speaks against letting in a machine that has a good token: `lost` is
/// the node that it is to replace.
fn could_join(
    join: &Join,
    members: &Members,
    group: Option<&Group>,
    lost: Option<&NodeName>,
) -> Result<(), Answer> {
    let refused = |why: String| Err(Answer::Refused(why));
    if members.get(&join.name).is_some() || members.replaced.contains(&join.name) {
        return refused(format!(
            "there is a node {} already: choose another --name",
            join.name
        ));
    }
    if join.hosts.len() > HOSTS_MAX {
        return refused("too many hosts".to_owned());
    }
    if lost.is_none() && members.nodes.len() >= NODES_MAX {
        return refused(format!(
            "the cluster has {NODES_MAX} nodes already: remove one first"
        ));
    }
    let Some(group) = group else {
        let why = "the nodes have not agreed on a leader";
        return Err(Answer::Later(why.to_owned()));
    };
    let unsettled = match lost {
        None => group::unsettled(group, members, &[]),
        Some(lost) => {
            if members.get(lost).is_none() {
                return refused(replacement::no_member(members, lost));
            }
            if group::answers(group, lost) {
                return Err(Answer::Later(replacement::is_there(lost)));
            }
            // Those before it may wait for this machine to be forgotten.
            let gone = [std::slice::from_ref(lost), &members.replaced].concat();
            group::unsettled(group, members, &gone)
        }
    };
    match unsettled {
        Some(why) => Err(Answer::Later(why)),
        None => Ok(()),
    }
}

/// Why a machine is not let in with its token.
fn not_good(error: &TokenError, from: SocketAddr) -> Answer {
    if matches!(error, TokenError::File(_) | TokenError::Damaged) {
        sotto_log::error!(error, "tokens cannot be checked");
        return Answer::Later("this node cannot check tokens now".to_owned());
    }
    sotto_log::warn!(from = Known(from), error, "a machine was not let in");
    Answer::Refused(error.to_string())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::tests::{group, members, name};

    fn join(node: &str) -> Join {
        Join {
            secret: String::new(),
            name: name(node),
            routes: "127.0.0.1:6222".parse().unwrap(),
            admission: "127.0.0.1:6223".parse().unwrap(),
            clients: "127.0.0.1:4222".parse().unwrap(),
            hosts: Vec::new(),
            node_key: String::new(),
            server_key: String::new(),
        }
    }

    #[test]
    fn a_machine_comes_in_for_a_node_that_is_away_and_while_the_others_are_whole() {
        let mut members = members(&["a", "b", "c"]);
        members.replaced.push(name("z"));
        let answer = |node: &str, lost: Option<&str>, group: &Group| {
            let lost = lost.map(name);
            match could_join(&join(node), &members, Some(group), lost.as_ref()) {
                Ok(()) => "yes".to_owned(),
                Err(Answer::Refused(why)) => format!("no: {why}"),
                Err(Answer::Later(why)) => format!("later: {why}"),
                Err(other) => panic!("{other:?}"),
            }
        };
        let lost = group(&[("b", true), ("c", false), ("z", false)]);
        assert_eq!(answer("d", Some("c"), &lost), "yes");
        let all = group(&[("b", true), ("c", true)]);
        assert_eq!(answer("d", None, &all), "yes");
        let late = group(&[("b", false), ("c", false)]);
        for (node, replaces, group, why) in [
            ("d", None, &lost, "later: the node c is away"),
            ("d", Some("c"), &late, "later: the node b is away"),
            ("d", Some("c"), &all, "later: c is there"),
            ("d", Some("a"), &lost, "later: a is there"),
            ("d", Some("x"), &lost, "no: there is no node x"),
            (
                "d",
                Some("z"),
                &lost,
                "no: another machine was let in for z",
            ),
            ("c", Some("c"), &lost, "no: there is a node c already"),
            ("z", Some("c"), &lost, "no: there is a node z already"),
        ] {
            let said = answer(node, replaces, group);
            assert!(said.starts_with(why), "{said}");
        }
    }

    #[test]
    fn a_cluster_has_no_more_nodes_than_it_may_but_one_in_the_place_of_another() {
        let members = members(&["a", "b", "c", "d", "e"]);
        let group = group(&[("b", true), ("c", true), ("d", true), ("e", false)]);
        let asked = |lost| could_join(&join("f"), &members, Some(&group), lost);
        assert!(matches!(asked(None), Err(Answer::Refused(_))));
        assert!(asked(Some(&name("e"))).is_ok());
        let unled = could_join(&join("f"), &members, None, Some(&name("e")));
        assert!(matches!(unled, Err(Answer::Later(_))));
    }
}
