//! Whether our programs have the ports that the settings name, or could have
//! them, and whether those of the other nodes can be reached.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use sotto_service::cluster::Endpoint;
use tokio::net::{TcpSocket, TcpStream};

use super::dns;
use crate::finding::{Check, Finding};
use crate::listeners::{Holder, Listeners};
use crate::server::{Server, without_settings};

/// How long another machine may take to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A place where the server listens.
#[derive(Debug, Clone, Copy)]
struct Port {
    /// As it is called in the settings.
    setting: &'static str,
    address: SocketAddr,
    /// Whose it is.
    program: &'static str,
    /// Its process, if it runs.
    pid: Option<i32>,
}

/// Looks at every port.
pub(crate) async fn check(server: Arc<Server>) -> Vec<Finding> {
    let others = others(Arc::clone(&server));
    let own = tokio::task::spawn_blocking(move || own(&server));
    let (own, others) = future::join(own, others).await;
    let mut findings = own.unwrap_or_else(|error| {
        let advice = "report this as an error of Sotto";
        vec![Finding::not_checked(
            Check::Ports,
            error.to_string(),
            advice,
        )]
    });
    findings.extend(others);
    findings
}

fn own(server: &Server) -> Vec<Finding> {
    let Some(ports) = ports(server) else {
        return without_settings(Check::Ports);
    };
    let Some(listeners) = Listeners::look() else {
        return vec![Finding::not_checked(
            Check::Ports,
            "/proc does not say who listens",
            "look with `ss -ltnp` instead",
        )];
    };
    let findings = ports
        .into_iter()
        .map(|port| match listeners.holder(port.address, port.pid) {
            Holder::Nobody if port.pid.is_none() => judge_free(&port, can_be_bound(port.address)),
            holder => judge_taken(&port, &holder),
        });
    findings.collect()
}

fn ports(server: &Server) -> Option<Vec<Port>> {
    let settings = server.settings.as_ref()?;
    let programs = &server.programs;
    let port = |setting, address, program, runs: Option<crate::programs::Program>| Port {
        setting,
        address,
        program,
        pid: runs.map(|runs| runs.pid),
    };
    let mut ports = vec![port(
        "[nats] listen",
        settings.nats.listen,
        "nats-server",
        programs.nats,
    )];
    if server.keeps_keys() {
        let listen = settings.gateway.listen;
        ports.push(port(
            "[gateway] listen",
            listen,
            "sotto-gateway",
            programs.gateway,
        ));
        ports.extend(settings.gateway.metrics.map(|listen| {
            let listen = SocketAddr::from(listen);
            port(
                "[gateway] metrics",
                listen,
                "sotto-gateway",
                programs.gateway,
            )
        }));
    }
    ports.extend(settings.relay.metrics.map(|listen| {
        let listen = SocketAddr::from(listen);
        port("[relay] metrics", listen, "sotto-relay", programs.relay)
    }));
    if let Some(cluster) = &server.cluster {
        let routes = cluster.node.routes_listen;
        ports.push(port("routes_listen", routes, "nats-server", programs.nats));
        let admission = cluster.node.admission_listen;
        ports.push(port(
            "admission_listen",
            admission,
            "sotto-relay",
            programs.relay,
        ));
    }
    Some(ports)
}

/// Whether one could listen there; nobody is, so that nobody is kept from it.
fn can_be_bound(address: SocketAddr) -> io::Result<()> {
    let socket = match address.is_ipv4() {
        true => TcpSocket::new_v4(),
        false => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)
}

fn judge_free(port: &Port, bound: io::Result<()>) -> Finding {
    let Port {
        setting,
        address,
        program,
        ..
    } = port;
    let Err(error) = bound else {
        let what = format!("{address} ({setting}) is free for {program}");
        return Finding::ok(Check::Ports, what);
    };
    let what = format!("{program} could not listen on {address} ({setting}): {error}");
    match error.kind() {
        io::ErrorKind::PermissionDenied => Finding::warning(
            Check::Ports,
            what,
            format!(
                "run {program} by the systemd unit that it prints (`{program} unit`), which allows it, or choose a port above 1023"
            ),
        ),
        io::ErrorKind::AddrNotAvailable => Finding::problem(
            Check::Ports,
            what,
            format!(
                "set {setting} to an address that this machine has (`ip address` shows them), or to 0.0.0.0"
            ),
        ),
        _ => Finding::problem(Check::Ports, what, format!("correct {setting}")),
    }
}

fn judge_taken(port: &Port, holder: &Holder) -> Finding {
    let Port {
        setting,
        address,
        program,
        pid,
    } = port;
    let other: &str = match holder {
        Holder::Own => {
            let what = format!("{program} listens on {address} ({setting})");
            return Finding::ok(Check::Ports, what);
        }
        Holder::Nobody => {
            return Finding::problem(
                Check::Ports,
                format!("{program} runs, but does not listen on {address} ({setting})"),
                format!(
                    "start {program} again if the setting was changed; its log says what it waits for otherwise"
                ),
            );
        }
        Holder::Unseen if pid.is_some() => {
            return Finding::not_checked(
                Check::Ports,
                format!(
                    "whether it is {program} that listens on {address} ({setting}) can only its user see"
                ),
                "run this as the user that the server runs as, or as root",
            );
        }
        Holder::Unseen => "a program of another user",
        Holder::Other(name) => name,
    };
    Finding::problem(
        Check::Ports,
        format!("{address} ({setting}) is taken by {other}, so that {program} cannot have it"),
        format!("stop {other}, or choose another port for {setting}"),
    )
}

/// Where the other nodes are to be reached.
async fn others(server: Arc<Server>) -> Vec<Finding> {
    let ports = server.others().flat_map(|node| {
        let place = |at: &Endpoint| (at.host().to_owned(), at.port());
        let places = [
            ("routes", Some(place(&node.routes))),
            ("admission", Some(place(&node.admission))),
            ("clients", dns::host_of(&node.nats_url)),
        ];
        let places = places.into_iter();
        places.filter_map(|(what, at)| Some((node.name.to_string(), what, at?)))
    });
    let reached = ports.map(async |(node, what, (host, port))| {
        let connecting = TcpStream::connect((host.as_str(), port));
        let connected = match tokio::time::timeout(TIMEOUT, connecting).await {
            Ok(connected) => connected.map(drop).map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} seconds", TIMEOUT.as_secs())),
        };
        judge_other(&node, what, &host, port, connected)
    });
    future::join_all(reached).await
}

fn judge_other(
    node: &str,
    what: &str,
    host: &str,
    port: u16,
    connected: Result<(), String>,
) -> Finding {
    match connected {
        Ok(()) => Finding::ok(
            Check::Ports,
            format!("the node {node} can be reached at {host}, port {port} ({what})"),
        ),
        Err(why) => Finding::problem(
            Check::Ports,
            format!("the node {node} cannot be reached at {host}, port {port} ({what}): {why}"),
            format!(
                "see that {node} runs and that no firewall on the way keeps port {port} closed"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    fn port(pid: Option<i32>) -> Port {
        Port {
            setting: "[gateway] listen",
            address: "192.0.2.1:443".parse().unwrap(),
            program: "sotto-gateway",
            pid,
        }
    }

    #[test]
    fn a_port_of_a_stopped_server_must_be_free() {
        assert_eq!(judge_free(&port(None), Ok(())).level, Level::Ok);
        let refused = |kind: io::ErrorKind| judge_free(&port(None), Err(kind.into()));
        assert_eq!(
            refused(io::ErrorKind::PermissionDenied).level,
            Level::Warning
        );
        let elsewhere = refused(io::ErrorKind::AddrNotAvailable);
        assert_eq!(elsewhere.level, Level::Problem);
        assert!(elsewhere.advice.unwrap().contains("[gateway] listen"));
        let taken = judge_taken(&port(None), &Holder::Other("nginx (process 9)".to_owned()));
        assert_eq!(taken.level, Level::Problem);
        assert!(taken.what.contains("192.0.2.1:443"));
        assert!(taken.advice.unwrap().contains("stop nginx (process 9)"));
        assert_eq!(
            judge_taken(&port(None), &Holder::Unseen).level,
            Level::Problem
        );
    }

    #[test]
    fn a_port_of_a_running_server_must_be_its_own() {
        let levels = [
            (Holder::Own, Level::Ok),
            (Holder::Nobody, Level::Problem),
            (Holder::Unseen, Level::NotChecked),
            (Holder::Other("x".to_owned()), Level::Problem),
        ];
        for (holder, level) in levels {
            assert_eq!(judge_taken(&port(Some(7)), &holder).level, level);
        }
    }

    #[test]
    fn other_nodes_must_be_reached() {
        let judged = |connected| judge_other("n2", "routes", "n2.example", 6222, connected);
        assert_eq!(judged(Ok(())).level, Level::Ok);
        let lost = judged(Err("refused".to_owned()));
        assert_eq!(lost.level, Level::Problem);
        assert!(lost.what.contains("6222") && lost.what.contains("refused"));
    }

    #[tokio::test]
    async fn a_port_that_is_taken_cannot_be_bound() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(can_be_bound(taken.local_addr().unwrap()).is_err());
        assert!(can_be_bound("127.0.0.1:0".parse().unwrap()).is_ok());
    }
}
