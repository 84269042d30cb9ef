//! Whether the programs that belong together run together.

use crate::finding::{Check, Finding};
use crate::programs::{Program, Programs};

/// What is known of the programs, and which of them should run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    /// Those that run.
    pub programs: Programs,
    /// Whether this machine can be a gateway.
    pub keeps_keys: bool,
    /// Whether it is a node of a cluster, where another may be the gateway.
    pub is_node: bool,
}

/// What to say of them.
pub(crate) fn judge(standing: &Standing) -> Vec<Finding> {
    let Programs {
        relay,
        gateway,
        nats,
    } = standing.programs;
    if !standing.programs.any() {
        let what = "nothing of this server runs: looked at is whether it could be started";
        return vec![Finding::ok(Check::Programs, what)];
    }
    let mut findings = Vec::new();
    match (relay, nats) {
        (None, Some(_)) => findings.push(Finding::problem(
            Check::Programs,
            "nats-server was left behind by a sotto-relay that was killed",
            "start sotto-relay again: it stops what was left behind and starts its own",
        )),
        (None, None) => findings.push(Finding::problem(
            Check::Programs,
            "sotto-relay does not run, so that nothing is stored or delivered",
            "start sotto-relay; if it ends again, the last lines of its log say why",
        )),
        (Some(_), None) => findings.push(Finding::problem(
            Check::Programs,
            "sotto-relay runs, but the nats-server that it looks after does not",
            "read nats/nats.log: the relay starts it again by itself as soon as it can run",
        )),
        (Some(_), Some(_)) => {}
    }
    findings.extend(relay.and_then(|relay| is_slow("sotto-relay", relay)));
    findings.extend(gateway.and_then(|gateway| is_slow("sotto-gateway", gateway)));
    if gateway.is_none() && standing.keeps_keys {
        findings.push(match standing.is_node {
            true => Finding::warning(
                Check::Programs,
                "no sotto-gateway runs on this node, which keeps the keys",
                "start one, unless another node is the gateway",
            ),
            false => Finding::problem(
                Check::Programs,
                "sotto-gateway does not run, so that nobody can sign up or log in, and devices lose their access within an hour",
                "start sotto-gateway; if it ends again, the last lines of its log say why",
            ),
        });
    }
    if findings.is_empty() {
        let names: Vec<&str> = standing.programs.named().map(|(name, _)| name).collect();
        let what = format!("running: {}", names.join(", "));
        findings.push(Finding::ok(Check::Programs, what));
    }
    findings
}

fn is_slow(name: &str, program: Program) -> Option<Finding> {
    let finding = Finding::warning(
        Check::Programs,
        format!("{name} runs, but does not serve yet"),
        format!(
            "run this again in a minute; if it stays so, the log of {name} says what it waits for (on a node: for a majority of the nodes)"
        ),
    );
    (!program.serves).then_some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level::{self, Ok, Problem, Warning};

    const SERVES: Option<Program> = Some(Program {
        pid: 1,
        serves: true,
    });
    const STARTS: Option<Program> = Some(Program {
        pid: 1,
        serves: false,
    });

    fn levels(programs: [Option<Program>; 3], keeps_keys: bool, is_node: bool) -> Vec<Level> {
        let [relay, gateway, nats] = programs;
        let standing = Standing {
            programs: Programs {
                relay,
                gateway,
                nats,
            },
            keeps_keys,
            is_node,
        };
        let findings = judge(&standing).into_iter();
        findings.map(|finding| finding.level).collect()
    }

    #[test]
    fn all_or_nothing_is_fine() {
        assert_eq!(levels([None; 3], true, false), [Ok]);
        assert_eq!(levels([SERVES; 3], true, false), [Ok]);
        assert_eq!(levels([SERVES, None, SERVES], false, true), [Ok]);
    }

    #[test]
    fn what_is_missing_is_a_problem() {
        assert_eq!(levels([None, SERVES, None], true, false), [Problem]);
        assert_eq!(levels([None, SERVES, SERVES], true, false), [Problem]);
        assert_eq!(levels([SERVES, SERVES, None], true, false), [Problem]);
        assert_eq!(levels([SERVES, None, SERVES], true, false), [Problem]);
        assert_eq!(levels([SERVES, None, SERVES], true, true), [Warning]);
        assert_eq!(levels([STARTS, SERVES, SERVES], true, true), [Warning]);
    }
}
