//! Points 1 to 4 of the demo: people, talk, a file, a device that was off.

use std::fs;

use anyhow::Context;
use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sotto_e2e::case::text;
use sotto_e2e::conversation::{Said, difference};
use sotto_e2e::person::Person;
use sotto_e2e::qr;
use sotto_e2e::report::Report;
use sotto_proto::limits;

use crate::plaintexts::{
    ALICE_ASKS, ALICE_SAYS, BOB_ANSWERS, BOB_SAYS, LONGEST_END, LONGEST_START, OTHER_ALPHABETS,
    ROOM_NAME,
};
use crate::stage::{ORG, PROJECT, Stage};

/// Messages in all, half from each side.
const MESSAGES: usize = 200;
/// Questions of alice, each answered by bob when he has read it.
const ROUNDS: usize = 5;

/// Sign-up, a room, a second device.
pub fn people(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.step("1  alice and bob sign up, share a room, bob links a second device");
    let Stage {
        server,
        alice,
        bob,
        phone,
        ..
    } = &*stage;
    alice.does(&["signup", &server.first_invite(ORG)?, "alice"])?;
    report.check(
        "alice signs up with the first admin's invitation",
        true,
        ORG,
    );
    let invite = text(&alice.does(&["invite", "--project", PROJECT])?, "invite")?;
    bob.does(&["signup", &invite, "bob"])?;
    report.check("bob signs up with alice's invitation", true, PROJECT);

    let name = stage.plaintexts.text(ROOM_NAME);
    let room = text(
        &alice.does(&["room", "create", &name, "--project", PROJECT])?,
        "room",
    )?;
    alice.does(&["room", "invite", &room, "bob"])?;
    bob.does(&["sync"])?;
    let seen = text(&bob.does(&["rooms"])?, "name")?;
    report.check(
        "bob is in the room and sees its name",
        seen == name,
        format!("`{seen}`"),
    );

    link(bob, phone, server.gateway(), report)?;
    phone.does(&["sync"])?;
    let rooms = phone.does(&["rooms"])?;
    let joined = rooms
        .iter()
        .any(|line| line.get("room") == Some(&Value::from(room.as_str())));
    report.check(
        "the second device is in the room",
        joined,
        format!("{} rooms", rooms.len()),
    );
    stage.room = room;
    Ok(())
}

/// The new device shows a QR code, a link and a code; the old one takes the
/// link, shows its own code, and is told the new one's.
fn link(old: &Person, new: &Person, gateway: &str, report: &mut Report) -> anyhow::Result<()> {
    let mut linking = new.starts_for_people(&["device", "link", "--gateway", gateway])?;
    let typed = linking.wait_for("a link", |line| {
        let command = line
            .as_str()?
            .trim()
            .strip_prefix("sotto device approve '")?;
        Some(command.trim_end_matches('\'').to_owned())
    })?;
    let screen: Vec<String> = linking
        .seen()
        .iter()
        .filter_map(|line| Some(line.as_str()?.to_owned()))
        .collect();
    let scanned = qr::scan(&screen)?;
    report.check(
        "the QR code and the text are the same link",
        scanned == typed,
        "scanned",
    );

    let mut approving = old.starts(&["device", "approve", &scanned], None)?;
    let old_code = approving.wait_for("a code", |line| {
        Some(line.get("code")?.as_str()?.to_owned())
    })?;
    let new_code = linking.wait_for("a code", |line| {
        let text = line.as_str()?.trim();
        let digits = text.chars().filter(char::is_ascii_digit).count();
        (digits == 6 && text.len() == 7).then(|| text.to_owned())
    })?;
    let agree = old_code == new_code;
    report.check("both devices show the same short code", agree, &new_code);
    approving.type_line(&new_code)?;
    approving
        .finish()?
        .success()
        .context("approving the device")?;
    linking.finish()?.success().context("linking the device")?;
    Ok(())
}

/// 200 messages both ways.
pub fn talk(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.step("2  200 messages both ways");
    let Stage {
        alice,
        bob,
        room,
        plaintexts,
        ..
    } = &*stage;
    let mut by_alice = Vec::new();
    let mut by_bob = Vec::new();
    let mut answered = 0;
    for round in 1..=ROUNDS {
        let question = format!("{} {round}?", plaintexts.text(ALICE_ASKS));
        alice.does(&["send", room, &question])?;
        let read = stage.synced_history(bob)?;
        answered += usize::from(
            read.last()
                .is_some_and(|said| said.text.as_ref() == Some(&question)),
        );
        let answer = format!("{} {round}.", plaintexts.text(BOB_ANSWERS));
        bob.does(&["send", room, &answer])?;
        by_alice.push(question);
        by_bob.push(answer);
    }
    report.check(
        "bob reads each question before he answers",
        answered == ROUNDS,
        answered,
    );

    let alphabets = format!(
        "Zażółć gęślą jaźń · 你好 · مرحبا · 👩‍🌾🚜 · {}",
        plaintexts.text(OTHER_ALPHABETS)
    );
    let empty_looking = "\u{200b}\u{2800} \u{200b}".to_owned();
    let longest = longest(
        &plaintexts.text(LONGEST_START),
        &plaintexts.text(LONGEST_END),
    );
    for text in [&alphabets, &empty_looking, &longest] {
        alice.does(&["send", room, text])?;
    }
    by_alice.extend([alphabets, empty_looking, longest.clone()]);

    let too_long = alice.run(&["send", room, &format!("{longest}x")])?;
    let clear = !too_long.status.success() && too_long.stderr.contains(&limits::TEXT.to_string());
    report.check(
        "one byte too many is refused, naming the limit",
        clear,
        too_long.stderr.trim(),
    );

    let words = |which, count| {
        (1..=count)
            .map(|n| format!("{} {n}", plaintexts.text(which)))
            .collect::<Vec<String>>()
    };
    let alices = words(ALICE_SAYS, MESSAGES / 2 - by_alice.len());
    let bobs = words(BOB_SAYS, MESSAGES / 2 - by_bob.len());
    let sending = [stage.send(alice, &alices)?, stage.send(bob, &bobs)?];
    for running in sending {
        running.finish()?.success().context("sending in a burst")?;
    }
    by_alice.extend(alices);
    by_bob.extend(bobs);

    let [at_alice, at_bob] = [stage.synced_history(alice)?, stage.synced_history(bob)?];
    report.check(
        "alice and bob have the same messages in the same order",
        at_alice == at_bob && at_bob.len() == MESSAGES,
        format!("{} and {}", at_alice.len(), at_bob.len()),
    );
    for (user, expected) in [("alice", by_alice), ("bob", by_bob)] {
        let theirs: Vec<Said> = at_bob
            .iter()
            .filter(|said| said.user == user)
            .cloned()
            .collect();
        let found = difference(&theirs, "", &expected);
        report.check(
            &format!("everything that {user} said, once, in order"),
            found.is_none(),
            found.unwrap_or_else(|| format!("{} messages", expected.len())),
        );
    }
    Ok(())
}

/// As long as a text may be.
fn longest(start: &str, end: &str) -> String {
    let filler = limits::TEXT - start.len() - end.len();
    format!(
        "{start}{}{end}",
        "·".repeat(filler / 2) + &".".repeat(filler % 2)
    )
}

/// A file of many chunks.
pub async fn file(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.step("3  a file, in chunks");
    let size = fs::metadata(&stage.file)?.len();
    report.check(
        "the file has at least 15 MB",
        size >= 15_000_000,
        format!("{size} bytes"),
    );
    let path = stage.file.display().to_string();
    stage.alice.does(&["send", &stage.room, "--file", &path])?;
    report.check("alice sends it", true, format!("{} bytes", size));

    stage.bob.does(&["sync"])?;
    let listed = stage.bob.does(&["files", "list", &stage.room])?;
    let id = text(&listed, "file")?;
    let copy = stage.decrypted()?.join("bobs-copy");
    let target = copy.display().to_string();
    stage
        .bob
        .does(&["files", "get", &stage.room, &id, "-o", &target])?;
    let hash = HEXLOWER.encode(&Sha256::digest(
        fs::read(&copy).context("reading bob's copy")?,
    ));
    report.check(
        "bob's copy has the same SHA-256",
        hash == stage.file_hash,
        hash,
    );

    let heard = stage.tap.recorded().await?;
    let (largest, subject) = heard
        .into_iter()
        .map(|heard| heard.largest)
        .max()
        .unwrap_or_default();
    report.check(
        "no NATS message, headers included, is larger than 524,288 bytes",
        largest <= limits::NATS_MESSAGE && largest > limits::CHUNK,
        format!("the largest has {largest} bytes, on {}", kind(&subject)),
    );
    Ok(())
}

fn kind(subject: &str) -> &str {
    subject.split('.').next().unwrap_or_default()
}

/// The device that was off all the while.
pub fn catch_up(stage: &mut Stage, report: &mut Report) -> anyhow::Result<()> {
    report.step("4  bob's second device was off and catches up");
    let before = stage.history(&stage.phone)?.len();
    report.check(
        "it had nothing of all this",
        before == 0,
        format!("{before} messages"),
    );
    let synced = stage.phone.does(&["sync"])?;
    let requests = synced
        .iter()
        .find_map(|line| line.get("requests")?.as_u64());
    report.check(
        "one request to the relay is enough",
        requests == Some(1),
        format!("{requests:?}"),
    );
    let [first, second] = [stage.history(&stage.bob)?, stage.history(&stage.phone)?];
    report.check(
        "it has what the first device has, in order, once",
        first == second && second.len() > MESSAGES,
        format!("{} of {} messages", second.len(), first.len()),
    );
    Ok(())
}
