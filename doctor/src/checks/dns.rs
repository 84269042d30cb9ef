//! Whether the names lead somewhere: that of this server, and those of the
//! other nodes.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use futures::future;

use crate::finding::{Check, Finding};
use crate::server::{Server, without_settings};

/// How long a name may take.
const TIMEOUT: Duration = Duration::from_secs(4);

/// What a name leads to, or why to nothing.
type Answer = Result<Vec<IpAddr>, String>;

/// Asks for every name.
pub(crate) async fn check(server: Arc<Server>) -> Vec<Finding> {
    let Some(settings) = &server.settings else {
        return without_settings(Check::Dns);
    };
    let own = &settings.public_host;
    let others = future::join_all(names(&server).into_iter().map(async |(node, host)| {
        let answer = resolve(&host).await;
        judge_other(&node, &host, &answer)
    }));
    let (answer, others) = future::join(resolve(own), others).await;
    let mut findings = vec![judge_own(own, &answer, is_here)];
    findings.extend(others);
    findings
}

/// The names of the other nodes, each once.
fn names(server: &Server) -> BTreeSet<(String, String)> {
    let mut names = BTreeSet::new();
    for node in server.others() {
        let clients = host_of(&node.nats_url).map(|(host, _)| host);
        let hosts = [node.routes.host(), node.admission.host()].map(str::to_owned);
        for host in hosts.into_iter().chain(clients) {
            if host.parse::<IpAddr>().is_err() {
                names.insert((node.name.to_string(), host));
            }
        }
    }
    names
}

/// The host, without brackets, and the port of `tls://host:port`.
pub(crate) fn host_of(url: &str) -> Option<(String, u16)> {
    let (_, rest) = url.split_once("://")?;
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some((host.to_owned(), port.parse().ok()?))
}

async fn resolve(host: &str) -> Answer {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    let asked = tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((bare, 0)));
    match asked.await {
        Ok(Ok(found)) => {
            let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
            addresses.sort_unstable();
            addresses.dedup();
            Ok(addresses)
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} seconds", TIMEOUT.as_secs())),
    }
}

/// Whether an address is one of this machine: only those can be bound.
fn is_here(address: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(address, 0)).is_ok()
}

fn judge_own(host: &str, answer: &Answer, is_here: impl Fn(IpAddr) -> bool) -> Finding {
    let addresses = match answer {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Ok(_) => return leads_nowhere(host, "it has no address"),
        Err(error) => return leads_nowhere(host, error),
    };
    let shown = listed(addresses);
    let is_name = host.parse::<IpAddr>().is_err();
    let what = match is_name {
        true => format!("{host} leads to {shown}"),
        false => format!("people reach this server at {shown}"),
    };
    if addresses.iter().all(IpAddr::is_loopback) {
        let what = format!("{what}, which only this machine reaches: as public_host says");
        return Finding::ok(Check::Dns, what);
    }
    if addresses.iter().copied().any(is_here) {
        return Finding::ok(Check::Dns, format!("{what}, an address of this machine"));
    }
    Finding::warning(
        Check::Dns,
        format!("{what}, which is no address of this machine"),
        "nothing is to be done when a router, a load balancer or a tunnel passes on what arrives there; otherwise correct the name's entry in DNS, or public_host",
    )
}

fn leads_nowhere(host: &str, why: &str) -> Finding {
    Finding::problem(
        Check::Dns,
        format!("the name {host}, by which people reach this server, leads nowhere: {why}"),
        format!("make an entry for {host} in DNS, or correct public_host in server.toml"),
    )
}

fn judge_other(node: &str, host: &str, answer: &Answer) -> Finding {
    let why: &str = match answer {
        Ok(addresses) if !addresses.is_empty() => {
            let what = format!("{host}, the node {node}, leads to {}", listed(addresses));
            return Finding::ok(Check::Dns, what);
        }
        Ok(_) => "it has no address",
        Err(error) => error,
    };
    Finding::problem(
        Check::Dns,
        format!("the name {host} of the node {node} leads nowhere from here: {why}"),
        format!("make an entry for {host} in DNS or in /etc/hosts of this machine"),
    )
}

fn listed(addresses: &[IpAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    addresses.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    fn judged(host: &str, addresses: &[&str]) -> Finding {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        let here: IpAddr = "192.0.2.1".parse().unwrap();
        judge_own(host, &Ok(addresses.collect()), |address| address == here)
    }

    #[test]
    fn a_name_must_lead_somewhere() {
        assert_eq!(judged("chat.example", &[]).level, Level::Problem);
        let failed = judge_own("chat.example", &Err("no such name".to_owned()), |_| true);
        assert_eq!(failed.level, Level::Problem);
        assert!(failed.what.contains("no such name"));
        assert!(failed.advice.unwrap().contains("public_host"));
    }

    #[test]
    fn an_address_of_another_machine_is_only_a_warning() {
        let elsewhere = judged("chat.example", &["198.51.100.9"]);
        assert_eq!(elsewhere.level, Level::Warning);
        for addresses in [
            &["192.0.2.1"][..],
            &["198.51.100.9", "192.0.2.1"],
            &["127.0.0.1"],
        ] {
            assert_eq!(judged("chat.example", addresses).level, Level::Ok);
        }
        assert_eq!(judged("192.0.2.1", &["192.0.2.1"]).level, Level::Ok);
    }

    #[test]
    fn other_nodes_must_be_found() {
        let found = judge_other("n2", "n2.example", &Ok(vec!["192.0.2.2".parse().unwrap()]));
        assert_eq!(found.level, Level::Ok);
        let lost = judge_other("n2", "n2.example", &Err("no".to_owned()));
        assert_eq!(lost.level, Level::Problem);
    }

    #[test]
    fn hosts_are_read_from_addresses() {
        let host = |url| host_of(url).unwrap();
        assert_eq!(
            host("tls://n2.example:4222"),
            ("n2.example".to_owned(), 4222)
        );
        assert_eq!(host("tls://[2001:db8::1]:4222").0, "2001:db8::1");
        assert_eq!(host_of("n2.example"), None);
    }

    #[tokio::test]
    async fn this_machine_knows_itself() {
        assert!(is_here("127.0.0.1".parse().unwrap()));
        assert!(!is_here("192.0.2.77".parse().unwrap()));
        assert!(!resolve("localhost").await.unwrap().is_empty());
    }
}
