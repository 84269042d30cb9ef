//! Point 5 of the demo: SIGKILL to the client, the relay and nats-server in
//! the middle of a burst of 100.

use anyhow::Context;
use serde_json::Value;
use sotto_e2e::conversation::{Said, difference, said};
use sotto_e2e::report::Report;
use sotto_e2e::server::Part;

use crate::plaintexts::{CLIENT_QUEUED, CLIENT_SENDING, NATS_KILLED, RELAY_KILLED, SECOND_DEVICE};
use crate::stage::Stage;

/// Messages of a burst.
const BURST: usize = 100;
/// Bytes that each is filled up to, so that a burst takes several frames.
const LENGTH: usize = 6_000;
/// Commands that a burst is typed in while a server process is killed.
const COMMANDS: usize = 10;
/// How often a client may be too quick to be killed in the middle.
const TRIES: usize = 5;

/// The client, once before anything is sent and once when a part is.
pub fn client(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.step("5a SIGKILL to the sending client");
    let queued = |line: &Value| line.get("queued").map(drop);
    kill_client(stage, report, CLIENT_QUEUED, "when all is queued", queued)?;
    let sent = |line: &Value| line.get("sent").map(drop);
    kill_client(stage, report, CLIENT_SENDING, "when a part is sent", sent)
}

fn kill_client(
    stage: &Stage,
    report: &mut Report,
    word: usize,
    moment: &str,
    reached: impl Fn(&Value) -> Option<()>,
) -> anyhow::Result<()> {
    for attempt in 1..=TRIES {
        let texts = burst(&stage.plaintexts.text(word), attempt);
        let mut sending = stage.send(&stage.alice, &texts)?;
        sending.wait_for(moment, &reached)?;
        let killed = sending.kill()?;
        let number = |name: &str| {
            let values = killed
                .lines
                .iter()
                .filter_map(|line| line.get(name)?.as_u64());
            values.max().unwrap_or_default()
        };
        let acknowledged = number("sent").max(number("first").saturating_sub(1));
        let left = number("last").saturating_sub(acknowledged);
        let in_the_middle = !killed.status.success() && left > 0;
        stage
            .alice
            .does(&["sync"])
            .context("starting alice's client again")?;
        check_burst(report, &stage.synced_history(&stage.bob)?, &texts, "bob");
        if in_the_middle || attempt == TRIES {
            report.check(
                &format!("it was killed {moment}"),
                in_the_middle,
                format!("{}, {left} of {BURST} not acknowledged", killed.status),
            );
            break;
        }
    }
    Ok(())
}

/// The relay and nats-server, while alice types and bob reads along.
pub fn server(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    for (name, part, word) in [
        ("5b SIGKILL to the relay", Part::Relay, RELAY_KILLED),
        ("5c SIGKILL to nats-server", Part::Nats, NATS_KILLED),
    ] {
        report.step(name);
        let texts = burst(&stage.plaintexts.text(word), 1);
        let mut reading = stage.bob.starts(&["recv", &stage.room, "--follow"], None)?;
        for (index, part_of_burst) in texts.chunks(BURST / COMMANDS).enumerate() {
            let mut sending = stage.send(&stage.alice, part_of_burst)?;
            if index == COMMANDS / 2 {
                sending.wait_for("queued texts", |line| line.get("queued").map(drop))?;
                let back = stage.server.kill(part)?;
                report.check(
                    "another process takes its place",
                    true,
                    format!("after {back:.1?}"),
                );
            }
            sending
                .finish()?
                .success()
                .context("sending while the server is away")?;
        }
        stage.alice.does(&["sync"])?;
        let last = texts.last().map(String::as_str);
        reading.wait_for("the last of the burst", |line| {
            (line.get("text")?.as_str() == last).then_some(())
        })?;
        let live = said(&reading.interrupt()?.lines)?;
        check_burst(report, &live, &texts, "bob, reading along,");
        check_burst(report, &stage.synced_history(&stage.bob)?, &texts, "bob");
    }

    report.step("5d everybody has everything");
    let text = format!("{} after all that", stage.plaintexts.text(SECOND_DEVICE));
    stage.phone.does(&["send", &stage.room, &text])?;
    let [alice, bob, phone] =
        [&stage.alice, &stage.bob, &stage.phone].map(|person| stage.synced_history(person));
    let (alice, bob, phone) = (alice?, bob?, phone?);
    let same = alice == bob && bob == phone;
    let seen = format!(
        "{}, {} and {} messages",
        alice.len(),
        bob.len(),
        phone.len()
    );
    report.check("all three devices have the same history", same, seen);
    Ok(())
}

fn burst(word: &str, attempt: usize) -> Vec<String> {
    let text = |n| format!("{word} {attempt}/{n:03} {:.<LENGTH$}", "");
    (1..=BURST).map(text).collect()
}

fn check_burst(report: &mut Report, history: &[Said], texts: &[String], who: &str) {
    let word = texts
        .first()
        .and_then(|text| text.split('/').next())
        .unwrap_or_default();
    let found = difference(history, word, texts);
    let seen = found
        .clone()
        .unwrap_or_else(|| format!("{BURST} of {BURST}, in order"));
    report.check(
        &format!("{who} has each of the 100 exactly once"),
        found.is_none(),
        seen,
    );
}
