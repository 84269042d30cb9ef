//! Point 6 of the demo: who is not in the room neither writes to it, nor
//! reads it, nor fetches its history.

use anyhow::Context;
use sotto_e2e::case::text;
use sotto_e2e::report::Report;
use sotto_e2e::stranger::{self, Attempt, Stranger, Target};
use sotto_proto::{InviteLink, Subject, mail_stream};

use crate::plaintexts::WITNESS;
use crate::stage::{OTHER_ORG, PROJECT, Stage};

/// A device of another org, one of the same org, and nobody.
pub async fn keep_out(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.step("6  strangers");
    let target = target(stage).await?;
    let stream = mail_stream(target.room.shard);
    let before = stage.tap.org.stream_messages(&stream).await?;

    let foreign_invite = stage.server.first_invite(OTHER_ORG)?;
    let mut mallory = Stranger::sign_up(&foreign_invite, "mallory", "mallory's password").await?;
    let attempts = mallory.try_everything(&target).await?;
    check(report, "a device of another org", &attempts);

    let invite = text(
        &stage.alice.does(&["invite", "--project", PROJECT])?,
        "invite",
    )?;
    let mut eve = Stranger::sign_up(&invite, "eve", "eve's password").await?;
    let attempts = eve.try_everything(&target).await?;
    check(report, "a device of the org outside the room", &attempts);

    mallory.misdirect_acknowledgements(&target).await?;
    eve.misdirect_acknowledgements(&target).await?;

    let gateway = invite.parse::<InviteLink>()?.gateway;
    let attempts = stranger::without_credentials(&gateway).await?;
    check(report, "a client without credentials", &attempts);

    let after = stage.tap.org.stream_messages(&stream).await?;
    report.check(
        "nothing is stored in the room, not even by way of misdirected acknowledgements",
        before == after,
        format!("{after} messages"),
    );

    let before = stage.tap.devices.recorded().await?.of_kind("live");
    let text = stage.plaintexts.text(WITNESS);
    stage.alice.does(&["send", &stage.room, &text])?;
    let arrived = stage
        .synced_history(&stage.bob)?
        .iter()
        .any(|said| said.text.as_ref() == Some(&text));
    let pushed = stage.tap.devices.recorded().await?.of_kind("live") - before;
    report.check(
        "what alice says meanwhile is pushed, and reaches bob",
        arrived && pushed > 0,
        pushed,
    );
    let heard = mallory.heard().await? + eve.heard().await?;
    report.check(
        "the strangers, still subscribed, hear none of it",
        heard == 0,
        heard,
    );
    Ok(())
}

fn check(report: &mut Report, who: &str, attempts: &[Attempt]) {
    let refused = attempts.iter().filter(|attempt| attempt.refused).count();
    let allowed: Vec<String> = attempts
        .iter()
        .filter(|attempt| !attempt.refused)
        .map(|attempt| format!("{} ({})", attempt.what, attempt.answer))
        .collect();
    let seen = match allowed.is_empty() {
        true => format!("{refused} of {} attempts refused", attempts.len()),
        false => format!("allowed: {}", allowed.join(", ")),
    };
    report.check(
        &format!("{who} is refused everything"),
        allowed.is_empty() && refused > 0,
        seen,
    );
}

/// What strangers may well know: where the room is, as the server's operator
/// sees it, and which device bob has.
async fn target(stage: &mut Stage) -> anyhow::Result<Target> {
    let subjects = stage.tap.org.subjects().await?;
    let room = subjects
        .split_whitespace()
        .find_map(|subject| match subject.parse() {
            Ok(Subject::Messages(room)) if room.room.to_string() == stage.room => Some(room),
            _ => None,
        });
    let history = stage.history(&stage.bob)?;
    let bobs = history.iter().find(|said| said.user == "bob");
    Ok(Target {
        room: room.context("the tap has not seen the room")?,
        member: bobs.context("bob has said nothing")?.device.parse()?,
    })
}
