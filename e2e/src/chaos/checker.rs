//! What must hold after everything has gone wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use std::sync::Mutex;

use super::crowd::{Member, Said};
use crate::conversation::history;
use crate::person::Person;

/// What came of a run.
#[derive(Debug)]
pub struct Verdict {
    /// Of the run.
    pub seed: u64,
    /// How many the server was.
    pub nodes: usize,
    /// Whether what was not synced was lost when power was cut.
    pub forgets: bool,
    /// How long things went wrong.
    pub stormed: Duration,
    /// How long until everything was everywhere.
    pub settled: Duration,
    /// Texts that were durable on their devices.
    pub said: usize,
    /// Of these, the ones whose senders saw the tick before the storm was over.
    pub ticked: usize,
    /// How often what went wrong.
    pub faults: BTreeMap<String, usize>,
    /// What should not be; empty when all is well.
    pub findings: Vec<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {} on {} node(s): {} texts, {} of them ticked during {:.0} s of faults; everywhere {:.1} s later",
            self.seed,
            self.nodes,
            self.said,
            self.ticked,
            self.stormed.as_secs_f64(),
            self.settled.as_secs_f64()
        )?;
        if !self.forgets {
            writeln!(
                f,
                "  FUSE is not allowed here: a power cut is no more than a kill -9"
            )?;
        }
        for (fault, count) in &self.faults {
            writeln!(f, "  {count:>4} x {fault}")?;
        }
        for finding in &self.findings {
            writeln!(f, "  WRONG: {finding}")?;
        }
        Ok(())
    }
}

/// Somebody who is taken out of the room half way.
pub(super) struct Outsider {
    person: Person,
    /// What was said when they were out.
    forbidden: Mutex<Vec<String>>,
}

impl Outsider {
    /// Revokes the user, and returns when everybody knows.
    pub(super) fn take_out(
        alice: &Person,
        person: Person,
        user: &str,
        members: &[Member],
    ) -> anyhow::Result<Self> {
        person.does(&["sync"])?;
        alice.does(&["admin", "user", "revoke", user, "--yes"])?;
        for member in members {
            member
                .person
                .does(&["--wait", "60", "sync"])
                .with_context(|| format!("{} reads that {user} is out", member.name))?;
        }
        Ok(Self {
            person,
            forbidden: Mutex::new(Vec::new()),
        })
    }

    pub(super) fn must_not_see(&self, said: &[Said]) {
        if let Ok(mut forbidden) = self.forbidden.lock() {
            forbidden.extend(said.iter().map(|said| said.text.clone()));
        }
    }

    fn findings(&self, room: &str) -> anyhow::Result<Vec<String>> {
        // It fails, which is right.
        self.person.run(&["--wait", "3", "sync"])?;
        let seen = history(&self.person, room)?;
        let forbidden = self.forbidden.lock().ok();
        let forbidden = forbidden.as_deref().map(Vec::as_slice).unwrap_or_default();
        let texts = seen.iter().filter_map(|said| said.text.as_ref());
        Ok(texts
            .filter(|text| forbidden.contains(text))
            .map(|text| format!("erin, who was out, can read `{text}`"))
            .collect())
    }
}

/// Somebody of the org who was never in the room.
pub(super) struct Stranger(pub(super) Person);

impl Stranger {
    fn findings(&self, room: &str) -> anyhow::Result<Vec<String>> {
        // It fails, which is right.
        self.0.run(&["--wait", "3", "room", "join", room])?;
        let is_in = as_seen_by(&self.0, room)?.is_some_and(|seen| seen.is_member);
        let finding = "frank, whom nobody invited, is in the room".to_owned();
        Ok(is_in.then_some(finding).into_iter().collect())
    }
}

/// A room's group, as one device has it.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    is_member: bool,
    epoch: u64,
    devices: BTreeSet<(String, String)>,
}

fn as_seen_by(person: &Person, room: &str) -> anyhow::Result<Option<Group>> {
    let rooms = person.does(&["rooms"])?;
    let Some(listed) = rooms.iter().find(|listed| listed["room"] == room) else {
        return Ok(None);
    };
    let members = listed["members"].as_array().context("members")?;
    let devices = members.iter().map(|member| {
        let text = |field: &str| member[field].as_str().unwrap_or_default().to_owned();
        (text("user"), text("device"))
    });
    Ok(Some(Group {
        is_member: listed["member"] == true,
        epoch: listed["epoch"].as_u64().context("an epoch")?,
        devices: devices.collect(),
    }))
}

/// Whether all devices are in the same epoch, with the same members.
fn disagreements(members: &[Member], room: &str) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut agreed: Option<(&str, Group)> = None;
    for member in members {
        let name = member.name;
        let group = as_seen_by(&member.person, room)?.context("the room is gone")?;
        if group.devices.iter().any(|(user, _)| user == "erin") {
            wrong.push(format!("{name} still has erin in the group"));
        }
        match &agreed {
            Some((other, known)) if *known != group => {
                wrong.push(format!("{name} has {group:?}, and {other} {known:?}"));
            }
            Some(_) => {}
            None => agreed = Some((name, group)),
        }
    }
    Ok(wrong)
}

/// Waits until every device has everything, at most for `patience`; what is
/// wrong then, and what was said again because the server had lost it.
pub(super) fn check(
    members: &[Member],
    room: &str,
    said: &[Said],
    (outsider, stranger): (&Outsider, &Stranger),
    patience: Duration,
) -> anyhow::Result<(Vec<String>, Vec<String>)> {
    let began = Instant::now();
    loop {
        let mut findings = Vec::new();
        let mut late = Vec::new();
        for member in members {
            // What it has not got yet, it lacks below.
            member.person.run(&["--wait", "20", "sync"])?;
            let seen = history(&member.person, room)?;
            let texts: Vec<(&str, bool)> = seen
                .iter()
                .filter_map(|said| Some((said.text.as_deref()?, said.late)))
                .collect();
            findings.extend(differences(member.name, &texts, said));
            let came_late = texts.iter().filter(|(_, late)| *late);
            late.extend(came_late.map(|(text, _)| format!("{} has `{text}` late", member.name)));
        }
        findings.extend(disagreements(members, room)?);
        if findings.is_empty() || began.elapsed() > patience {
            findings.extend(outsider.findings(room)?);
            findings.extend(stranger.findings(room)?);
            return Ok((findings, late));
        }
        thread::sleep(Duration::from_millis(500));
    }
}

/// How what one device shows, with what of it came late, differs from what was
/// said.
fn differences(who: &str, seen: &[(&str, bool)], said: &[Said]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for (text, _) in seen {
        *times.entry(text).or_default() += 1;
    }
    for said in said {
        let times = times.remove(said.text.as_str()).unwrap_or_default();
        let ticked = if said.ticked { "ticked" } else { "queued" };
        match times {
            0 if said.queued => wrong.push(format!("{who} lacks `{}`, {ticked}", said.text)),
            0 | 1 => {}
            times => wrong.push(format!("{who} has `{}` {times} times", said.text)),
        }
    }
    for (text, _) in times.iter().filter(|(text, _)| text.contains(" says ")) {
        wrong.push(format!("{who} has `{text}`, which nobody said"));
    }
    let senders: BTreeSet<&str> = said.iter().map(|said| said.by).collect();
    for sender in senders {
        let prefix = format!("{sender} says ");
        let in_time = seen.iter().filter(|(_, late)| !late);
        let numbers = in_time.filter(|(text, _)| text.starts_with(&prefix));
        if !numbers.is_sorted() {
            wrong.push(format!("{who} has what {sender} said in another order"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str, queued: bool) -> Said {
        Said {
            by: "bob",
            text: text.to_owned(),
            queued,
            ticked: queued,
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let said = [
            said("bob says 1", true),
            said("bob says 2", true),
            said("bob says 3", false),
        ];
        let wrong = |seen: &[&str]| {
            let seen: Vec<_> = seen.iter().map(|text| (*text, false)).collect();
            differences("alice", &seen, &said)
        };
        assert!(wrong(&["bob says 1", "bob says 2"]).is_empty());
        assert!(wrong(&["bob says 1", "bob says 2", "bob says 3"]).is_empty());
        assert_eq!(wrong(&["bob says 2"]), ["alice lacks `bob says 1`, ticked"]);
        assert!(wrong(&["bob says 2", "bob says 1"])[0].contains("order"));
        assert!(wrong(&["bob says 1", "bob says 2", "bob says 2"])[0].contains("2 times"));
        assert!(wrong(&["bob says 1", "bob says 2", "bob says 9"])[0].contains("nobody said"));
    }
}
