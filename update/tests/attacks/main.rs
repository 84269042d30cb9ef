//! The attacks that the specification of The Update Framework lists (section
//! 1.5.2), each played against the updater by a real server.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

mod case;
mod mirror;

use std::fs;

use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use sotto_update::publish::{self, Releases};
use sotto_update::{Checked, Refusal, UpdateError};
use tough::schema::{RoleType, Signed, Timestamp as TimestampRole};

use crate::case::{Case, Keys, PLATFORM, PROGRAM, content, release};
use crate::mirror::Lie;

fn refusal<T: std::fmt::Debug>(result: Result<T, UpdateError>) -> Refusal {
    match result {
        Err(UpdateError::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn what_is_signed_and_logged_is_fetched() {
    let case = Case::new().await;
    assert_eq!(
        case.fetch("0.1.0").await.unwrap(),
        content(PROGRAM, "0.2.0")
    );
    let checked = case.check("0.2.0").await.unwrap();
    assert!(matches!(checked, Checked::UpToDate(_)), "{checked:?}");
    case.release(&case.releases, "0.3.0");
    assert_eq!(
        case.fetch("0.2.0").await.unwrap(),
        content(PROGRAM, "0.3.0")
    );
}

#[tokio::test]
async fn arbitrary_installation() {
    let case = Case::new().await;
    let mut evil = content(PROGRAM, "0.2.0");
    evil[0] ^= 1;
    let name = format!("{PROGRAM}-0.2.0-{PLATFORM}");
    case.mirror.lie(&name, Lie::Instead(evil));
    let corrupt = refusal(case.fetch("0.1.0").await);
    assert!(matches!(corrupt, Refusal::Corrupt(_)), "{corrupt:?}");

    // Everything signed anew, by keys of the attacker.
    let keys = Keys::new();
    let base = case.folder.path().join("evil");
    let releases = Releases::create(&base, keys.root(1, 2)).unwrap();
    release(
        case.folder.path(),
        &releases,
        ("0.9.0", Timestamp::now()),
        &keys,
    );
    case.mirror.serve(base);
    let unsigned = refusal(case.check("0.1.0").await);
    assert_eq!(unsigned, Refusal::Unsigned(RoleType::Timestamp));
}

#[tokio::test]
async fn endless_data() {
    for end in [
        "timestamp.json",
        "1.snapshot.json",
        "1.targets.json",
        "releases.jsonl",
    ] {
        let case = Case::new().await;
        case.mirror.lie(end, Lie::Endless);
        let too_long = refusal(case.check("0.1.0").await);
        assert!(
            matches!(too_long, Refusal::TooLong(_)),
            "{end}: {too_long:?}"
        );
    }
    let case = Case::new().await;
    case.mirror.lie("2.root.json", Lie::Endless);
    let too_long = refusal(case.check("0.1.0").await);
    assert!(matches!(too_long, Refusal::TooLong(_)), "{too_long:?}");
    case.mirror.repent();
    case.mirror.lie(PLATFORM, Lie::Endless);
    let too_long = refusal(case.fetch("0.1.0").await);
    assert!(matches!(too_long, Refusal::TooLong(_)), "{too_long:?}");
    let written = fs::metadata(case.folder.path().join("fetched"))
        .unwrap()
        .len();
    assert!(
        written <= content(PROGRAM, "0.2.0").len() as u64,
        "{written}"
    );
}

#[tokio::test]
async fn extraneous_dependencies() {
    let case = Case::new().await;
    case.fetch("0.1.0").await.unwrap();
    let asked = case.mirror.asked();
    let programs: Vec<_> = asked
        .iter()
        .filter(|path| path.ends_with(PLATFORM))
        .collect();
    assert!(
        matches!(programs[..], [one] if one.contains(PROGRAM)),
        "{asked:?}"
    );
}

#[tokio::test]
async fn fast_forward() {
    let mut case = Case::new().await;
    case.check("0.1.0").await.unwrap();

    // Whoever has the online key makes every machine see an enormous version.
    let path = case.base().join("metadata/timestamp.json");
    let mut timestamp: Signed<TimestampRole> =
        serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    timestamp.signed.version = u64::MAX.try_into().unwrap();
    publish::sign(&mut timestamp, &case.keys.online).unwrap();
    let honest = fs::read(&path).unwrap();
    fs::write(&path, serde_json::to_vec(&timestamp).unwrap()).unwrap();
    case.check("0.1.0").await.unwrap();
    fs::write(&path, honest).unwrap();
    let stuck = refusal(case.check("0.1.0").await);
    assert_eq!(stuck, Refusal::RolledBack(RoleType::Timestamp));

    // A new root with another online key is all that the machines need.
    case.keys.online = Keys::new().online;
    case.releases.change_root(case.keys.root(2, 2)).unwrap();
    case.release(&case.releases, "0.3.0");
    assert_eq!(
        case.fetch("0.1.0").await.unwrap(),
        content(PROGRAM, "0.3.0")
    );
}

#[tokio::test]
async fn indefinite_freeze() {
    let case = Case::new().await;
    let past = Timestamp::now() - SignedDuration::from_secs(1);
    let online = std::slice::from_ref(&case.keys.online);
    case.releases.refresh(online, past).unwrap();
    let expired = refusal(case.check("0.1.0").await);
    assert_eq!(expired, Refusal::Expired(RoleType::Timestamp));
    let soon = Timestamp::from_second(Timestamp::now().as_second() + 3_600).unwrap();
    case.releases.refresh(online, soon).unwrap();
    case.check("0.1.0").await.unwrap();
    // And the machine knows until when it need not wonder.
    assert_eq!(case.trust.load().unwrap().good_until(), Some(soon));
}

#[tokio::test]
async fn malicious_mirror() {
    let case = Case::new().await;
    for status in [StatusCode::NOT_FOUND, StatusCode::INTERNAL_SERVER_ERROR] {
        for file in [
            "timestamp.json",
            "1.snapshot.json",
            "1.targets.json",
            "releases.jsonl",
        ] {
            case.mirror.lie(file, Lie::Status(status));
            let failed = case.check("0.1.0").await.unwrap_err();
            assert!(
                matches!(failed, UpdateError::Source(_)),
                "{file}: {failed:?}"
            );
            case.mirror.repent();
        }
    }
    for nonsense in ["", "{}", "[[[[", "\u{0}"] {
        case.mirror
            .lie("timestamp.json", Lie::Instead(nonsense.into()));
        let refused = refusal(case.check("0.1.0").await);
        assert_eq!(refused, Refusal::Malformed(RoleType::Timestamp));
        case.mirror.repent();
    }
    // None of it did lasting harm.
    case.fetch("0.1.0").await.unwrap();
}

#[tokio::test]
async fn mix_and_match() {
    let case = Case::new().await;
    let old = |name: &str| fs::read(case.base().join("metadata").join(name)).unwrap();
    let (snapshot, targets) = (old("1.snapshot.json"), old("1.targets.json"));
    case.release(&case.releases, "0.3.0");
    for (name, content) in [("2.snapshot.json", snapshot), ("2.targets.json", targets)] {
        case.mirror.lie(name, Lie::Instead(content));
        let refused = refusal(case.check("0.1.0").await);
        let mixed = matches!(refused, Refusal::Corrupt(_) | Refusal::TooLong(_));
        assert!(mixed, "{refused:?}");
        case.mirror.repent();
    }
    case.check("0.1.0").await.unwrap();
}

#[tokio::test]
async fn rollback() {
    let case = Case::new().await;
    let path = case.base().join("metadata/timestamp.json");
    let old = fs::read(&path).unwrap();
    case.release(&case.releases, "0.3.0");
    case.check("0.1.0").await.unwrap();
    case.mirror.lie("timestamp.json", Lie::Instead(old));
    let refused = refusal(case.check("0.1.0").await);
    assert_eq!(refused, Refusal::RolledBack(RoleType::Timestamp));
    case.mirror.repent();

    // A machine that has seen nothing yet still knows what it runs.
    let older = refusal(case.check("0.4.0").await);
    assert!(matches!(older, Refusal::Older { .. }), "{older:?}");
}

#[tokio::test]
async fn slow_retrieval() {
    let case = Case::new().await;
    case.mirror.lie("timestamp.json", Lie::Trickle);
    let slow = refusal(case.check("0.1.0").await);
    assert!(matches!(slow, Refusal::TooSlow(_)), "{slow:?}");
    case.mirror.repent();
    case.mirror.lie(PLATFORM, Lie::Trickle);
    let slow = refusal(case.fetch("0.1.0").await);
    assert!(matches!(slow, Refusal::TooSlow(_)), "{slow:?}");
}

#[tokio::test]
async fn key_compromise() {
    let mut case = Case::new().await;
    case.check("0.1.0").await.unwrap();

    // The online key and one of those who release, where two are needed.
    let base = case.folder.path().join("stolen");
    let releases = Releases::create(&base, case.keys.root(1, 1)).unwrap();
    let mut stolen = Keys::new();
    stolen.offline.swap_with_slice(&mut case.keys.offline);
    for key in &mut stolen.offline[1..] {
        *key = Keys::new().online;
    }
    stolen.online = std::mem::replace(&mut case.keys.online, Keys::new().online);
    release(
        case.folder.path(),
        &releases,
        ("0.8.0", Timestamp::now()),
        &stolen,
    );
    release(
        case.folder.path(),
        &releases,
        ("0.9.0", Timestamp::now()),
        &stolen,
    );
    case.mirror.serve(base);
    let refused = refusal(case.check("0.1.0").await);
    assert_eq!(refused, Refusal::Unsigned(RoleType::Targets));
}

#[tokio::test]
async fn keys_that_were_taken_out_sign_nothing_any_more() {
    let mut case = Case::new().await;
    let new = Keys::new();
    let mut root = new.root(2, 2);
    for key in &case.keys.offline {
        publish::sign(&mut root, key).unwrap();
    }
    // The old keys go on as if nothing had happened.
    let old = case.other_history("old");
    case.release(&old, "0.2.0");
    case.release(&old, "0.3.0");
    case.releases.change_root(root).unwrap();
    let text = fs::read(case.base().join("metadata/2.root.json")).unwrap();
    fs::write(case.folder.path().join("old/metadata/2.root.json"), text).unwrap();
    case.mirror.serve(case.folder.path().join("old"));
    let refused = refusal(case.check("0.1.0").await);
    assert_eq!(refused, Refusal::Unsigned(RoleType::Timestamp));
}

#[tokio::test]
async fn a_root_that_the_old_keys_did_not_sign_is_refused() {
    let case = Case::new().await;
    let usurper = serde_json::to_vec(&Keys::new().root(2, 2)).unwrap();
    case.mirror.lie("2.root.json", Lie::Instead(usurper));
    let refused = refusal(case.check("0.1.0").await);
    assert_eq!(refused, Refusal::Unsigned(RoleType::Root));
}

#[tokio::test]
async fn wrong_software() {
    let case = Case::new().await;
    // The gateway of the same release, signed and all, under the relay's name.
    let name = format!("{PROGRAM}-0.2.0-{PLATFORM}");
    case.mirror
        .lie(&name, Lie::Instead(content("sotto-gateway", "0.2.0")));
    let refused = refusal(case.fetch("0.1.0").await);
    let other = matches!(refused, Refusal::Corrupt(_) | Refusal::TooLong(_));
    assert!(other, "{refused:?}");
    case.mirror.repent();

    for (program, platform) in [("sotto-tunnel", PLATFORM), (PROGRAM, "aarch64-linux")] {
        let refused = refusal(case.check_for(program, platform, "0.1.0").await);
        assert!(matches!(refused, Refusal::NotInLog(_)), "{refused:?}");
    }
}

#[tokio::test]
async fn a_log_that_was_rewritten_by_all_the_keys_together() {
    let case = Case::new().await;
    case.check("0.1.0").await.unwrap();
    let rewritten = case.other_history("rewritten");
    case.release(&rewritten, "0.2.1");
    case.release(&rewritten, "0.3.0");
    case.mirror.serve(case.folder.path().join("rewritten"));
    assert_eq!(refusal(case.check("0.1.0").await), Refusal::LogRewritten);
    // And the machine still knows what it has seen.
    case.mirror.serve(case.base());
    case.release(&case.releases, "0.3.0");
    case.release(&case.releases, "0.4.0");
    case.check("0.1.0").await.unwrap();
}

#[tokio::test]
async fn a_clock_that_is_behind_the_releases() {
    let case = Case::new().await;
    let tomorrow = Timestamp::now() + SignedDuration::from_hours(48);
    case.release_at(&case.releases, "0.3.0", tomorrow);
    assert_eq!(refusal(case.check("0.1.0").await), Refusal::ClockSlow);
}

#[tokio::test]
async fn only_one_root_is_ever_pinned_and_it_must_be_signed() {
    let case = Case::new().await;
    case.trust.pin(&case.releases.first_root()).unwrap();
    let other = case.folder.path().join("other.json");
    fs::write(&other, serde_json::to_vec(&Keys::new().root(1, 2)).unwrap()).unwrap();
    let refused = case.trust.pin(&other).unwrap_err();
    assert!(matches!(refused, UpdateError::PinnedOther), "{refused}");

    let mut unsigned = case.keys.root(1, 2);
    unsigned.signatures.truncate(1);
    fs::write(&other, serde_json::to_vec(&unsigned).unwrap()).unwrap();
    let refused = case.trust.pin(&other).unwrap_err();
    assert!(matches!(refused, UpdateError::NotARoot(_)), "{refused}");
}

#[tokio::test]
async fn damaged_memory_is_not_taken_for_a_new_machine() {
    let case = Case::new().await;
    case.check("0.1.0").await.unwrap();
    let path = case.folder.path().join("state/trust.json");
    let text = fs::read(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    let failed = case.check("0.1.0").await.unwrap_err();
    assert!(matches!(failed, UpdateError::Damaged { .. }), "{failed}");
}
