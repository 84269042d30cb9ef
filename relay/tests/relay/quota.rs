//! What is full says so, and takes in again once there is room.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream;
use sotto_proto::refusals::{Measure, PublishAnswer, Refusal};
use sotto_proto::{RoomAddress, Subject};
use sotto_service::config::LimitsConfig;

use crate::ingest::submit;
use crate::org::{Org, store};
use crate::server::{Server, eventually};

/// A relay with these limits, and alice's device with two rooms.
async fn case(limits: LimitsConfig) -> (Server, crate::server::Relay, Client, [RoomAddress; 2]) {
    let mut server = Server::new();
    server.limit(limits);
    let relay = server.start().await;
    let org = Org::found(&server).await;
    let alice = org.sign_up("alice").await;
    let rooms = [org.room(&alice).await, org.room(&alice).await];
    let client = org.connect(&alice).await;
    drop(org);
    (server, relay, client, rooms)
}

/// Submits until something is refused.
async fn fill(client: &Client, subject: &Subject) -> (u64, Refusal) {
    for stored in 0..1_000 {
        match submit(client, subject, &[]).await {
            PublishAnswer::Stored { .. } => {}
            PublishAnswer::Refused(refusal) => return (stored, refusal),
        }
    }
    panic!("nothing is refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_room_says_so_and_others_go_on() {
    let limits = LimitsConfig {
        room_messages: NonZeroU64::new(20),
        ..LimitsConfig::default()
    };
    let (server, relay, client, [one, other]) = case(limits).await;
    let full = Refusal::RoomFull(Measure::Messages);
    // What is stored while a room is counted may be missed once.
    let (stored, refusal) = fill(&client, &one.messages()).await;
    assert!((20..25).contains(&stored), "{stored}");
    assert_eq!(refusal, full);
    store(&client, &other.messages(), "elsewhere").await;
    // Commits go on: somebody may have to leave.
    store(&client, &one.handshakes(), "commit").await;

    // A relay that has just started asks the stream.
    assert!(relay.stop().await.success());
    let _relay = server.start().await;
    eventually("the room is full again", async || {
        let answer = submit(&client, &one.messages(), &[("Nats-Msg-Id", "again")]).await;
        (answer == PublishAnswer::Refused(full.clone())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_org_says_so_until_something_is_gone() {
    let limits = LimitsConfig {
        org_messages: NonZeroU64::new(20),
        ..LimitsConfig::default()
    };
    let (server, _relay, client, [one, other]) = case(limits).await;
    let full = Refusal::OrgFull(Measure::Messages);
    let (stored, refusal) = fill(&client, &one.messages()).await;
    assert!((20..25).contains(&stored), "{stored}");
    assert_eq!(refusal, full);
    let refused = submit(&client, &other.messages(), &[]).await;
    assert_eq!(refused, PublishAnswer::Refused(full));

    let js = jetstream::new(server.relay().await);
    let mail = js.get_stream("MAIL-0").await.unwrap();
    mail.purge()
        .filter(one.messages().to_string())
        .await
        .unwrap();
    eventually("there is room again", async || {
        let answer = submit(&client, &other.messages(), &[]).await;
        matches!(answer, PublishAnswer::Stored { .. }).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_too_fast_is_told_when_to_try_again() {
    let limits = LimitsConfig {
        burst: NonZeroU64::new(30),
        messages_per_second: NonZeroU32::new(1),
        ..LimitsConfig::default()
    };
    let (_server, _relay, client, [one, _]) = case(limits).await;
    let (stored, refusal) = fill(&client, &one.messages()).await;
    assert!((30..40).contains(&stored), "{stored}");
    let Refusal::TooFast { retry_after } = refusal else {
        panic!("{refusal:?}")
    };
    assert!(retry_after <= Duration::from_secs(1), "{retry_after:?}");
    tokio::time::sleep(retry_after).await;
    store(&client, &one.messages(), "later").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_files_are_kept_as_long_as_the_org_says() {
    let limits = LimitsConfig {
        retention_days: NonZeroU16::new(7),
        ..LimitsConfig::default()
    };
    let (server, _relay, client, [one, _]) = case(limits).await;
    let message = store(&client, &one.messages(), "for a week").await;
    let commit = store(&client, &one.handshakes(), "for ever").await;
    let js = jetstream::new(server.relay().await);
    let mail = js.get_stream("MAIL-0").await.unwrap();
    let kept = async |sequence| {
        let stored = mail.get_raw_message(sequence).await.unwrap();
        stored.headers.get("Nats-TTL").map(ToString::to_string)
    };
    assert_eq!(kept(message).await.as_deref(), Some("604800"));
    assert_eq!(kept(commit).await, None);
    let blobs = js.get_stream("BLOB-0").await.unwrap();
    let week = Duration::from_secs(7 * 24 * 3_600);
    assert_eq!(blobs.cached_info().config.max_age, week);
}
