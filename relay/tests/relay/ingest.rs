//! What devices submit, what of it is stored, and what it costs.

use std::fs;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use sotto_proto::refusals::{PublishAnswer, Refusal};
use sotto_proto::{FileId, RoomAddress, Subject, limits, reply_prefix};
use sotto_service::config::LimitsConfig;

use crate::org::{Device, Org, store, submission};
use crate::server::{Server, within};

/// Submits with these headers; the answer.
pub async fn submit(client: &Client, subject: &Subject, headers: &[(&str, &str)]) -> PublishAnswer {
    let mut map = HeaderMap::new();
    for &(name, value) in headers {
        map.append(name, value);
    }
    let answer = client.request_with_headers(submission(client, subject), map, "sealed".into());
    PublishAnswer::from_json(&within(answer).await.unwrap().payload).unwrap()
}

struct Case {
    server: Server,
    relay: crate::server::Relay,
    alice: Device,
    bob: Device,
    room: RoomAddress,
    client: Client,
}

impl Case {
    async fn new() -> Self {
        Self::with(LimitsConfig::default()).await
    }

    async fn with(limits: LimitsConfig) -> Self {
        let mut server = Server::new();
        server.limit(limits);
        let relay = server.start().await;
        let org = Org::found(&server).await;
        let alice = org.sign_up("alice").await;
        let bob = org.sign_up("bob").await;
        let room = org.room(&alice).await;
        let client = org.connect(&alice).await;
        drop(org);
        Self {
            server,
            relay,
            alice,
            bob,
            room,
            client,
        }
    }

    /// CPU time of the relay and of its nats-server so far, in milliseconds.
    fn busy(&self) -> [f64; 2] {
        let relay = self.relay.child.id().unwrap();
        let tasks = fs::read_dir(format!("/proc/{relay}/task")).unwrap();
        let children = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")));
        let children: String = children.filter_map(Result::ok).collect();
        let nats = children.split_whitespace().next().unwrap();
        [&relay.to_string(), nats].map(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
            let ticks: f64 = fields
                .skip(11)
                .take(2)
                .map(|field| field.parse::<f64>().unwrap())
                .sum();
            // `USER_HZ` is a hundred.
            ticks * 10.0
        })
    }

    /// How many messages the shard keeps.
    async fn stored(&self) -> u64 {
        let jetstream = async_nats::jetstream::new(self.server.relay().await);
        let mut mail = jetstream.get_stream("MAIL-0").await.unwrap();
        mail.info().await.unwrap().state.messages
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_a_device_do_not_reach_a_stream() {
    let case = Case::new().await;
    let messages = case.room.messages();
    let id = ("Nats-Msg-Id", "one");
    let stored = |sequence, duplicate| PublishAnswer::Stored {
        sequence,
        duplicate,
    };
    assert_eq!(
        submit(&case.client, &messages, &[id]).await,
        stored(1, false)
    );
    assert_eq!(
        submit(&case.client, &messages, &[id]).await,
        stored(1, true)
    );
    for headers in [
        // The first stops a replicated stream of nats-server 2.15.1 for everybody.
        &[("Nats-Expected-Last-Msg-Id", "other")][..],
        &[("Nats-Expected-Last-Sequence", "99")],
        &[("Nats-Rollup", "all")],
        &[("Nats-TTL", "1s")],
        &[("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "1")],
        &[
            ("Nats-Schedule", "@every 1s"),
            ("Nats-Schedule-Target", "inbox.x"),
        ],
        &[("Nats-Sequence", "900")],
    ] {
        let answer = submit(&case.client, &messages, headers).await;
        let expected = PublishAnswer::Refused(Refusal::HeaderNotAllowed);
        assert_eq!(answer, expected, "{headers:?}");
    }
    let handshakes = case.room.handshakes();
    let expecting = |sequence| [("Nats-Expected-Last-Subject-Sequence", sequence)];
    let answer = submit(&case.client, &handshakes, &expecting("0")).await;
    assert_eq!(answer, stored(2, false));
    let answer = submit(&case.client, &handshakes, &expecting("0")).await;
    assert_eq!(answer, PublishAnswer::Refused(Refusal::WrongLastSequence));
    assert_eq!(case.stored().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stored_or_answered_for_who_names_anothers_reply() {
    let case = Case::new().await;
    let to = submission(&case.client, &case.room.messages());
    for reply in [
        format!("{}.1", reply_prefix(case.bob.id)),
        case.room.messages().live(),
        case.room.messages().to_string(),
        "directory".to_owned(),
    ] {
        let publish = case
            .client
            .publish_with_reply(to.clone(), reply, "x".into());
        publish.await.unwrap();
    }
    case.client.publish(to, "x".into()).await.unwrap();
    // What is not asked for under the own name, the server refuses.
    let others = format!("in.{}.{}", case.bob.id, case.room.messages());
    let reply = format!("{}.x", reply_prefix(case.alice.id));
    let mut answers = case.client.subscribe(reply.clone()).await.unwrap();
    let forged = case.client.publish_with_reply(others, reply, "x".into());
    forged.await.unwrap();
    let last = store(&case.client, &case.room.messages(), "ordinary").await;
    assert_eq!(last, 1);
    assert_eq!(case.stored().await, 1);
    let answer = tokio::time::timeout(Duration::from_millis(200), answers.next()).await;
    assert!(answer.is_err(), "{answer:?}");
}

/// Messages per second, and the times from request to answer.
async fn measure(
    client: &Client,
    subject: impl Fn(u32) -> String,
    bytes: usize,
    window: usize,
    messages: u32,
) -> (f64, Vec<Duration>) {
    let payload: bytes::Bytes = vec![7; bytes].into();
    let mut took = Vec::new();
    let mut outstanding = FuturesUnordered::new();
    let start = Instant::now();
    for number in 0..messages {
        if outstanding.len() >= window {
            took.push(outstanding.next().await.unwrap());
        }
        let (client, subject, payload) = (client.clone(), subject(number), payload.clone());
        outstanding.push(async move {
            let begun = Instant::now();
            let answer = client.request(subject, payload).await.unwrap();
            let answer = PublishAnswer::from_json(&answer.payload);
            assert!(
                matches!(answer, Some(PublishAnswer::Stored { .. })),
                "{answer:?}"
            );
            begun.elapsed()
        });
    }
    while let Some(done) = outstanding.next().await {
        took.push(done);
    }
    let rate = f64::from(messages) / start.elapsed().as_secs_f64();
    took.sort_unstable();
    (rate, took)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_stays_as_its_sender_has_stored_it() {
    let case = Case::new().await;
    let file = FileId::try_from(&[5; 16][..]).unwrap();
    let chunk = case.room.blob(file, 0);
    let first = submit(&case.client, &chunk, &[("Nats-Msg-Id", "first")]).await;
    let PublishAnswer::Stored { sequence, .. } = first else {
        panic!("{first:?}");
    };
    // Who has read the announcement knows the file's id, and has another id of
    // a message.
    let request = case
        .client
        .request(submission(&case.client, &chunk), "something else".into());
    let answer = PublishAnswer::from_json(&within(request).await.unwrap().payload);
    let there = PublishAnswer::Stored {
        sequence,
        duplicate: true,
    };
    assert_eq!(answer, Some(there));
    let jetstream = async_nats::jetstream::new(case.server.relay().await);
    let blobs = jetstream.get_stream("BLOB-0").await.unwrap();
    let subject = chunk.to_string();
    let last = blobs.get_last_raw_message_by_subject(&subject).await;
    let last = last.unwrap();
    assert_eq!(
        (last.sequence, &last.payload[..]),
        (sequence, &b"sealed"[..])
    );
    assert_eq!(blobs.cached_info().state.messages, 1);
}

/// What taking in costs against publishing to the stream itself, as who has the
/// relay's grants can. `cargo nextest run -p sotto-relay --run-ignored only
/// --no-capture -E 'test(taking_in_costs)'`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints times, asserts none"]
async fn taking_in_costs() {
    let case = Case::with(LimitsConfig {
        burst: NonZeroU64::new(1_000_000),
        ..LimitsConfig::default()
    });
    let case = case.await;
    let direct = case.server.relay().await;
    let file = |number: u8| FileId::try_from(&[number; 16][..]).unwrap();
    for (name, bytes, window, messages) in [
        ("1 KiB, 256 outstanding", 1_024, 256, 10_000),
        ("1 KiB, one at a time", 1_024, 1, 1_000),
        ("512 KiB, 4 outstanding", limits::CHUNK, 4, 400),
        ("512 KiB, 16 outstanding", limits::CHUNK, 16, 400),
    ] {
        let mut ratios = Vec::new();
        for round in 0..5 {
            let chunk = |of: u8, number| case.room.blob(file(of), number + round * messages);
            let straight = |number| match bytes {
                1_024 => case.room.messages().to_string(),
                _ => chunk(1, number).to_string(),
            };
            let through = |number| match bytes {
                1_024 => submission(&case.client, &case.room.messages()),
                _ => submission(&case.client, &chunk(2, number)),
            };
            let busy = [case.busy()];
            let (raw, raw_took) = measure(&direct, straight, bytes, window, messages).await;
            let busy = [busy[0], case.busy()];
            let (own, own_took) = measure(&case.client, through, bytes, window, messages).await;
            let busy = [busy[0], busy[1], case.busy()];
            let each = |phase: usize, who: usize| {
                (busy[phase + 1][who] - busy[phase][who]) / f64::from(messages)
            };
            eprintln!(
                "{name}: CPU ms each: direct nats-server {:.3}, taken in nats-server {:.3} and relay {:.3}",
                each(0, 1),
                each(1, 1),
                each(1, 0),
            );
            let middle = |took: &[Duration]| took[took.len() / 2];
            let late = |took: &[Duration]| took[took.len() * 99 / 100];
            eprintln!(
                "{name}: direct {raw:.0}/s p50 {:?} p99 {:?}, taken in {own:.0}/s p50 {:?} p99 {:?}",
                middle(&raw_took),
                late(&raw_took),
                middle(&own_took),
                late(&own_took),
            );
            ratios.push(own / raw);
        }
        ratios.sort_by(f64::total_cmp);
        eprintln!("{name}: ratio {:.3} (median of {ratios:.2?})", ratios[2]);
    }
}
