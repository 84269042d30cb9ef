//! What is wrong with a server, or would be when it starts: looked at from the
//! machine that it runs on, for an operator who has no systems team.
//!
//! One file of `checks` for each subject. Each looks first and judges then, and
//! what judges takes figures and knows no disk, clock or network. A check
//! changes nothing, takes a few seconds at most, and stops no other when it
//! fails. Nothing here prints, reads a seed or repairs anything.

mod checks;
mod finding;
mod listeners;
mod programs;
mod server;
mod system;
mod units;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use sotto_service::config::Sources;

pub use finding::{Check, Finding, Level};

use checks::{certificates, directory, disk, dns, gateway, limits, nats, ports, updates};
use server::Server;

/// How long one check may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at the server in this directory, with these settings. What belongs
/// together stands together.
pub async fn examine(sources: Sources) -> Vec<Finding> {
    let looked = tokio::task::spawn_blocking(move || Server::look(&sources)).await;
    let (server, mut findings) = match looked {
        Ok(looked) => looked,
        Err(error) => return vec![broken(Check::Directory, &error.to_string())],
    };
    let Some(server) = server.map(Arc::new) else {
        return findings;
    };
    findings.extend(checks::programs::judge(&server.standing()));
    let found = future::join_all([
        blocking(Check::Directory, &server, directory::check),
        bounded(Check::Dns, dns::check(Arc::clone(&server))),
        bounded(Check::Ports, ports::check(Arc::clone(&server))),
        blocking(Check::Disk, &server, disk::check),
        blocking(Check::Tls, &server, certificates::check),
        bounded(Check::Tls, gateway::check(Arc::clone(&server))),
        bounded(Check::Nats, nats::check(Arc::clone(&server))),
        blocking(Check::Memory, &server, limits::check),
        bounded(Check::Updates, updates::check(Arc::clone(&server))),
    ]);
    findings.extend(found.await.into_iter().flatten());
    // Stable: within a subject they stay in the order in which they came.
    findings.sort_by_key(|finding| finding.check);
    findings
}

/// A check under way.
type Checking = Pin<Box<dyn Future<Output = Vec<Finding>> + Send>>;

/// One that waits for the network, for so long and no longer.
fn bounded(check: Check, looking: impl Future<Output = Vec<Finding>> + Send + 'static) -> Checking {
    within(PATIENCE, check, looking)
}

fn within(
    patience: Duration,
    check: Check,
    looking: impl Future<Output = Vec<Finding>> + Send + 'static,
) -> Checking {
    let looking = Box::pin(looking);
    Box::pin(async move {
        match tokio::time::timeout(patience, looking).await {
            Ok(findings) => findings,
            Err(_) => vec![Finding::not_checked(
                check,
                format!("it took more than {} seconds", patience.as_secs()),
                "run this again when the machine and its network have less to do",
            )],
        }
    })
}

/// One that waits for the disk.
fn blocking(check: Check, server: &Arc<Server>, look: fn(&Server) -> Vec<Finding>) -> Checking {
    let server = Arc::clone(server);
    bounded(check, async move {
        let looked = tokio::task::spawn_blocking(move || look(&server)).await;
        looked.unwrap_or_else(|error| vec![broken(check, &error.to_string())])
    })
}

/// A check that ended before it found anything.
fn broken(check: Check, why: &str) -> Finding {
    Finding::not_checked(
        check,
        format!("the check itself failed ({why})"),
        "report this as an error of Sotto",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_that_is_no_server_is_one_finding() {
        let folder = tempfile::tempdir().unwrap();
        for dir in [folder.path(), &folder.path().join("missing")] {
            let [finding] = &examine(Sources::new(dir, Vec::new())).await[..] else {
                panic!()
            };
            assert_eq!(finding.level, Level::Problem);
            assert!(finding.what.contains("no Sotto server"), "{finding:?}");
        }
    }

    #[tokio::test]
    async fn a_check_that_never_ends_stops_nobody() {
        let found = future::join_all([
            within(Duration::from_millis(10), Check::Dns, future::pending()),
            bounded(Check::Ports, async { vec![Finding::ok(Check::Ports, "x")] }),
        ]);
        let found = found.await.concat();
        let levels: Vec<Level> = found.iter().map(|finding| finding.level).collect();
        assert_eq!(levels, [Level::NotChecked, Level::Ok]);
    }
}
