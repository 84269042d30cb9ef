//! Whether the programs of this server update themselves: by the units that
//! `sotto bootstrap` leaves, of which systemd knows how they went, and by what
//! the updates remember. Where systemd does not run the server, nothing is
//! said against it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use jiff::Timestamp;
use sotto_service::unit::UPDATE_DIR;
use sotto_update::journal::{Journal, JournalFile};
use sotto_update::{TrustFile, UpdateError};

use crate::broken;
use crate::finding::{Check, Finding};
use crate::server::Server;
use crate::units::{self, Unit};

/// There when systemd is the machine's first process.
const SYSTEMD: &str = "/run/systemd/system";
const PROGRAMS: [&str; 2] = ["sotto-relay", "sotto-gateway"];
const HOW: &str = "run `sotto bootstrap` again with --updates, or do by hand what docs/install.md says of updates";

/// One program, as it is updated.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Updated {
    name: &'static str,
    timer: Unit,
    update: Unit,
    journal: Result<Journal, String>,
}

/// What the updates of a machine remember of those who release.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trusted {
    /// Somebody; until when, where releases were seen.
    Pinned(Option<Timestamp>),
    Nobody,
    /// The file does not read.
    Damaged(String),
    /// Only root can see it.
    Hidden,
}

/// Asks systemd, and reads what it may.
pub(crate) async fn check(server: Arc<Server>) -> Vec<Finding> {
    if !Path::new(SYSTEMD).exists() {
        return vec![elsewhere("systemd does not run this machine")];
    }
    let mut updated = Vec::new();
    for name in PROGRAMS {
        let units = [".service", "-update.timer", "-update.service"];
        let units = units.map(|end| format!("{name}{end}"));
        let Ok([unit, timer, update]) = units::ask(&units).await else {
            return vec![Finding::not_checked(
                Check::Updates,
                "systemd does not say how the programs are updated",
                "look with `systemctl list-timers 'sotto-*'`",
            )];
        };
        let root = server.layout.root().as_os_str();
        let is_ours = unit.word_after("--dir").is_some_and(|dir| dir == root);
        if unit.is_there && is_ours {
            updated.push((name, timer, update));
        }
    }
    if updated.is_empty() {
        return vec![elsewhere("no unit of systemd runs this server")];
    }
    let read = move || {
        let state = updated
            .iter()
            .find_map(|(.., update)| update.word_after("--state"));
        let state = state.map_or_else(|| PathBuf::from(UPDATE_DIR), PathBuf::from);
        let updated = updated.into_iter().map(|(name, timer, update)| Updated {
            name,
            timer,
            update,
            journal: JournalFile::new(&state, Path::new(name))
                .read()
                .map_err(|error| error.to_string()),
        });
        judge(
            &updated.collect::<Vec<_>>(),
            &trusted(&state),
            Timestamp::now(),
        )
    };
    let found = tokio::task::spawn_blocking(read).await;
    found.unwrap_or_else(|error| vec![broken(Check::Updates, &error.to_string())])
}

fn elsewhere(why: &str) -> Finding {
    let what = format!("{why}: updates are a matter of whoever runs its programs");
    Finding::ok(Check::Updates, what)
}

fn trusted(state: &Path) -> Trusted {
    match fs::read_dir(state) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Trusted::Hidden,
        _ => {}
    }
    match TrustFile::new(state).load() {
        Ok(trust) => Trusted::Pinned(trust.good_until()),
        Err(UpdateError::NotPinned(_)) => Trusted::Nobody,
        Err(error) => Trusted::Damaged(error.to_string()),
    }
}

fn judge(updated: &[Updated], trusted: &Trusted, now: Timestamp) -> Vec<Finding> {
    let mut findings: Vec<Finding> = updated.iter().filter_map(judge_timer).collect();
    if updated.iter().all(|program| !program.timer.is_there) {
        // Nobody set them up: no more is to be said.
        return findings;
    }
    findings.extend(judge_trusted(trusted, now));
    if *trusted != Trusted::Hidden {
        findings.extend(updated.iter().filter_map(judge_journal));
    }
    findings.extend(updated.iter().filter_map(judge_last));
    if findings.is_empty() {
        let names: Vec<&str> = updated.iter().map(|program| program.name).collect();
        let what = format!(
            "{} update themselves, and the last time all was well",
            names.join(" and ")
        );
        findings.push(Finding::ok(Check::Updates, what));
    }
    findings
}

fn judge_timer(program: &Updated) -> Option<Finding> {
    let Updated { name, timer, .. } = program;
    if !timer.is_there {
        let what = format!(
            "nothing updates {name}: it stays as it is, with whatever is found to be wrong with it"
        );
        return Some(Finding::warning(Check::Updates, what, HOW));
    }
    let (missing, start) = match (timer.is_enabled, timer.is_active) {
        (true, true) => return None,
        (false, _) => ("is not enabled", "enable --now"),
        (true, false) => ("does not run", "start"),
    };
    Some(Finding::warning(
        Check::Updates,
        format!("{name} is not updated: {name}-update.timer {missing}"),
        format!("`systemctl {start} {name}-update.timer`"),
    ))
}

fn judge_trusted(trusted: &Trusted, now: Timestamp) -> Option<Finding> {
    match trusted {
        Trusted::Pinned(Some(until)) if *until < now => Some(Finding::problem(
            Check::Updates,
            format!(
                "what this machine knows of releases was good until {until}: it has heard nothing newer since"
            ),
            "see with `journalctl -u 'sotto-*-update'` why; if the machine's clock is right and the source answers, those who release have stopped to say that there is nothing newer: tell them",
        )),
        Trusted::Pinned(_) => None,
        Trusted::Nobody => Some(Finding::problem(
            Check::Updates,
            "no root of trust is pinned, so that no update is ever taken",
            HOW,
        )),
        Trusted::Damaged(problem) => Some(Finding::problem(
            Check::Updates,
            format!("no update is taken: {problem}"),
            "do what it says; the root of trust and its fingerprint come from those who release",
        )),
        Trusted::Hidden => Some(Finding::not_checked(
            Check::Updates,
            "only root can see whom updates trust and how they went",
            "run this as root",
        )),
    }
}

fn judge_journal(program: &Updated) -> Option<Finding> {
    let name = program.name;
    let journal = match &program.journal {
        Ok(journal) => journal,
        Err(problem) => {
            let what = format!("{name} cannot be updated: {problem}");
            return Some(Finding::problem(Check::Updates, what, "do what it says"));
        }
    };
    if let Some(probation) = &journal.probation {
        let (version, since) = (&probation.version, &probation.since);
        let what = format!("{name} {version} is on probation since {since}");
        return Some(Finding::ok(Check::Updates, what));
    }
    let failure = journal.failures.last()?;
    let is_over = journal.confirmed.as_ref() >= Some(&failure.version);
    (!is_over).then(|| {
        Finding::problem(
            Check::Updates,
            format!(
                "{name} {} was taken back ({}), and is not tried again",
                failure.version, failure.why
            ),
            format!("see with `journalctl -u {name}` why it did not serve, and tell those who release: a newer release is tried by itself, this one by `{name} update apply --again`"),
        )
    })
}

fn judge_last(program: &Updated) -> Option<Finding> {
    let name = program.name;
    program.update.has_failed.then(|| {
        Finding::problem(
            Check::Updates,
            format!("the last update of {name} failed; it is tried again within a day"),
            format!("`journalctl -u {name}-update` says why; to try it at once: `systemctl start {name}-update`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::finding::Level;

    fn relay() -> Updated {
        let well = Unit {
            is_there: true,
            is_enabled: true,
            is_active: true,
            ..Unit::default()
        };
        Updated {
            name: "sotto-relay",
            timer: well.clone(),
            update: well,
            journal: Ok(Journal::default()),
        }
    }

    fn judged(change: impl Fn(&mut Updated), trusted: Trusted) -> Vec<(Level, String)> {
        let mut relay = relay();
        change(&mut relay);
        let findings = judge(&[relay], &trusted, Timestamp::UNIX_EPOCH);
        let told = findings.into_iter().map(|finding| {
            let advised = finding.advice.unwrap_or_default();
            (finding.level, format!("{} {advised}", finding.what))
        });
        told.collect()
    }

    fn journal(failed: &str, confirmed: &str) -> Journal {
        let json = json!({
            "probation": null, "confirmed": confirmed,
            "failures": [{"version": failed, "at": "2026-01-01T00:00:00Z", "why": "it crashed"}],
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_machine_that_updates_itself_is_fine() {
        for trusted in [
            Trusted::Pinned(None),
            Trusted::Pinned(Some(Timestamp::UNIX_EPOCH)),
        ] {
            let [(Level::Ok, _)] = &judged(|_| {}, trusted)[..] else {
                panic!()
            };
        }
    }

    #[test]
    fn what_keeps_updates_away_is_named_with_what_to_do() {
        let second = jiff::SignedDuration::from_secs(1);
        let past = Timestamp::UNIX_EPOCH - second;
        let pinned = || Trusted::Pinned(None);
        let none = |_: &mut Updated| {};
        let cases = [
            (
                judged(|relay| relay.timer.is_enabled = false, pinned()),
                Level::Warning,
                "enable --now",
            ),
            (
                judged(|relay| relay.timer.is_active = false, pinned()),
                Level::Warning,
                "`systemctl start sotto-relay-update.timer`",
            ),
            (
                judged(|relay| relay.update.has_failed = true, pinned()),
                Level::Problem,
                "journalctl -u sotto-relay-update",
            ),
            (
                judged(
                    |relay| relay.journal = Ok(journal("0.3.0", "0.2.0")),
                    pinned(),
                ),
                Level::Problem,
                "0.3.0 was taken back (it crashed)",
            ),
            (
                judged(
                    |relay| relay.journal = Err("it is damaged".to_owned()),
                    pinned(),
                ),
                Level::Problem,
                "it is damaged",
            ),
            (
                judged(none, Trusted::Nobody),
                Level::Problem,
                "no root of trust",
            ),
            (
                judged(none, Trusted::Damaged("it is cut off".to_owned())),
                Level::Problem,
                "it is cut off",
            ),
            (
                judged(none, Trusted::Pinned(Some(past))),
                Level::Problem,
                "clock",
            ),
            (judged(none, Trusted::Hidden), Level::NotChecked, "as root"),
        ];
        for (findings, level, word) in cases {
            let [(found, said)] = &findings[..] else {
                panic!("{findings:?}")
            };
            assert_eq!(*found, level, "{said}");
            assert!(said.contains(word), "{word}: {said}");
        }
    }

    #[test]
    fn nothing_but_the_missing_timers_is_said_where_nobody_set_updates_up() {
        let bare = judged(|relay| relay.timer = Unit::default(), Trusted::Nobody);
        let [(Level::Warning, said)] = &bare[..] else {
            panic!("{bare:?}")
        };
        assert!(said.contains("--updates"), "{said}");
    }

    #[test]
    fn a_failure_is_forgotten_when_something_newer_proved_itself() {
        let later = judged(
            |relay| relay.journal = Ok(journal("0.3.0", "0.3.1")),
            Trusted::Pinned(None),
        );
        assert_eq!(later[0].0, Level::Ok);
    }
}
