//! Chunks of a file from one room to another, and which chunks are there.

use std::num::NonZeroU64;
use std::time::Duration;

use async_nats::Client;
use prost::Message;
use sotto_jwt_accounts::policy::Proven;
use sotto_proto::refusals::{Measure, PublishAnswer, Refusal};
use sotto_proto::wire::{
    BlobRange, ChunkSpan, CopyRequest, FetchFrame, FetchRefusal, FetchRequest, RoomCursor,
};
use sotto_proto::{FileId, RoomAddress, limits};
use sotto_service::config::LimitsConfig;

use crate::org::{Device, Org, fetch, store, submission};
use crate::server::{Relay, Server, eventually, now_ms, within};

fn file() -> FileId {
    FileId::try_from(&[5; 16][..]).unwrap()
}

fn request(from: &RoomAddress, first: u32, count: u32) -> CopyRequest {
    CopyRequest {
        from: from.room.to_bytes(),
        first,
        count,
    }
}

/// Asks for a copy; the answer.
async fn copy(client: &Client, to: &RoomAddress, request: &CopyRequest) -> PublishAnswer {
    let subject = submission(client, &to.copy(file()));
    let answer = within(client.request(subject, request.encode_to_vec().into())).await;
    PublishAnswer::from_json(&answer.unwrap().payload).unwrap()
}

fn refused(answer: PublishAnswer) -> Refusal {
    match answer {
        PublishAnswer::Refused(refusal) => refusal,
        PublishAnswer::Stored { .. } => panic!("it was stored"),
    }
}

/// The file's chunks in a room, as a device reads them.
async fn read(client: &Client, device: &Device, room: &RoomAddress) -> Vec<(u32, Vec<u8>)> {
    let request = FetchRequest {
        max_bytes: limits::FETCH_BYTES,
        blobs: vec![range(room, 0, 100)],
        ..FetchRequest::default()
    };
    let frames = fetch(client, device, &request).await;
    let messages = frames.into_iter().flat_map(|frame| frame.messages);
    messages
        .map(|message| (message.index, message.payload.to_vec()))
        .collect()
}

fn range(room: &RoomAddress, first: u32, count: u32) -> BlobRange {
    BlobRange {
        room: room.room.to_bytes(),
        file: file().to_bytes(),
        first,
        count,
    }
}

fn chunks(numbers: impl IntoIterator<Item = u32>) -> Vec<(u32, Vec<u8>)> {
    let chunk = |number: u32| (number, format!("chunk {number}").into_bytes());
    numbers.into_iter().map(chunk).collect()
}

async fn upload(client: &Client, room: &RoomAddress, numbers: impl IntoIterator<Item = u32>) {
    for (number, content) in chunks(numbers) {
        store(client, &room.blob(file(), number), content).await;
    }
}

/// Two rooms of Alice's; Bob is in the second one.
struct TwoRooms {
    server: Server,
    relay: Relay,
    bob: Device,
    one: RoomAddress,
    two: RoomAddress,
    alices: Client,
    bobs: Client,
}

impl TwoRooms {
    async fn new() -> Self {
        let server = Server::new();
        let relay = server.start().await;
        let org = Org::found(&server).await;
        let alice = org.sign_up("alice").await;
        let bob = org.sign_up("bob").await;
        let (one, two) = (org.room(&alice).await, org.room(&alice).await);
        org.admit(&bob, &two).await;
        let (alices, bobs) = (org.connect(&alice).await, org.connect(&bob).await);
        Self {
            server,
            relay,
            bob,
            one,
            two,
            alices,
            bobs,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_use_both_rooms_has_a_file_copied() {
    let TwoRooms {
        server,
        bob,
        one,
        two,
        alices,
        bobs,
        relay: _relay,
    } = TwoRooms::new().await;
    upload(&alices, &one, 0..10).await;

    for (first, count) in [(0, 4), (4, 6), (4, 6)] {
        let answer = copy(&alices, &two, &request(&one, first, count)).await;
        assert!(matches!(answer, PublishAnswer::Stored { .. }), "{answer:?}");
    }
    assert_eq!(read(&bobs, &bob, &two).await, chunks(0..10));
    assert_eq!(read(&bobs, &bob, &one).await, []);
    // What was asked for twice is stored once.
    let jetstream = async_nats::jetstream::new(server.relay().await);
    let mut blobs = jetstream.get_stream("BLOB-0").await.unwrap();
    assert_eq!(blobs.info().await.unwrap().state.messages, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_has_put_there_does_not_pass_for_a_copy() {
    let TwoRooms {
        one,
        two,
        alices,
        bobs,
        ..
    } = &TwoRooms::new().await;
    upload(alices, one, 0..2).await;
    store(bobs, &two.blob(file(), 1), "something else").await;

    let answer = copy(alices, two, &request(one, 0, 1)).await;
    assert!(matches!(answer, PublishAnswer::Stored { .. }), "{answer:?}");
    let answer = copy(alices, two, &request(one, 0, 2)).await;
    assert_eq!(refused(answer), Refusal::NothingToCopy);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_use_both_rooms_has_nothing_copied() {
    let server = Server::new();
    let _relay = server.start().await;
    let org = Org::found(&server).await;
    let alice = org.sign_up("alice").await;
    let bob = org.sign_up("bob").await;
    let (hers, theirs, his) = (
        org.room(&alice).await,
        org.room(&alice).await,
        org.room(&bob).await,
    );
    org.admit(&bob, &theirs).await;
    let (alices, bobs) = (org.connect(&alice).await, org.connect(&bob).await);
    upload(&alices, &hers, 0..2).await;
    upload(&alices, &theirs, 0..2).await;

    // Bob reads `theirs`, and not `hers`; that it is there he does not learn.
    let nothing = Refusal::NothingToCopy;
    let answer = copy(&bobs, &his, &request(&hers, 0, 2)).await;
    assert_eq!(refused(answer), nothing);
    let unknown = CopyRequest {
        from: vec![9; 16].into(),
        ..request(&hers, 0, 2)
    };
    assert_eq!(refused(copy(&bobs, &his, &unknown).await), nothing);
    // Into a room of alice's nats-server lets nothing of his pass.
    let into_hers = submission(&bobs, &hers.copy(file()));
    let payload = request(&theirs, 0, 2).encode_to_vec();
    let answer = bobs.request(into_hers, payload.into());
    let answer = tokio::time::timeout(Duration::from_millis(500), answer).await;
    assert!(!matches!(answer, Ok(Ok(_))), "{answer:?}");
    // Nor under alice's name.
    let as_alice = format!("in.{}.{}", alice.id, his.copy(file()));
    let payload = request(&hers, 0, 2).encode_to_vec();
    let answer = bobs.request(as_alice, payload.into());
    let answer = tokio::time::timeout(Duration::from_millis(500), answer).await;
    assert!(!matches!(answer, Ok(Ok(_))), "{answer:?}");

    let answer = copy(&bobs, &his, &request(&theirs, 0, 2)).await;
    assert!(matches!(answer, PublishAnswer::Stored { .. }), "{answer:?}");
    assert_eq!(read(&bobs, &bob, &his).await, chunks(0..2));

    // A room that demands factors for reading gives nothing away, as whoever
    // submits to another one has not shown them.
    org.gate(&theirs).await;
    let proven = Proven::all(now_ms());
    let bobs = org.connect_having(&bob, &proven).await;
    eventually("the gate is known", async || {
        let answer = copy(&bobs, &his, &request(&theirs, 0, 2)).await;
        (answer == PublishAnswer::Refused(nothing.clone())).then_some(())
    })
    .await;
    org.revoke(&bob).await;
    eventually("bob's device is gone", async || {
        let answer = copy(&bobs, &his, &request(&his, 0, 2)).await;
        (answer == PublishAnswer::Refused(nothing.clone())).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_or_makes_no_sense_is_not_copied() {
    let server = Server::new();
    let _relay = server.start().await;
    let org = Org::found(&server).await;
    let alice = org.sign_up("alice").await;
    let (one, two) = (org.room(&alice).await, org.room(&alice).await);
    let client = org.connect(&alice).await;
    upload(&client, &one, [0, 1, 3]).await;

    for request in [
        request(&one, 0, 4),
        request(&one, 0, 0),
        request(&one, u32::MAX, 2),
        request(&one, 0, limits::COPY_CHUNKS + 1),
        CopyRequest {
            from: vec![1].into(),
            ..request(&one, 0, 1)
        },
    ] {
        let answer = copy(&client, &two, &request).await;
        assert_eq!(refused(answer), Refusal::NothingToCopy, "{request:?}");
    }
    let subject = submission(&client, &two.copy(file()));
    let answer = within(client.request(subject, "garbage".into())).await;
    let answer = PublishAnswer::from_json(&answer.unwrap().payload).unwrap();
    assert_eq!(refused(answer), Refusal::NothingToCopy);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_counts_like_what_is_sent() {
    let mut server = Server::new();
    server.limit(LimitsConfig {
        room_messages: NonZeroU64::new(10),
        ..LimitsConfig::default()
    });
    let _relay = server.start().await;
    let org = Org::found(&server).await;
    let alice = org.sign_up("alice").await;
    let (one, two) = (org.room(&alice).await, org.room(&alice).await);
    let client = org.connect(&alice).await;
    upload(&client, &one, 0..8).await;
    upload(&client, &two, 20..26).await;

    let answer = copy(&client, &two, &request(&one, 0, 8)).await;
    let full = Refusal::RoomFull(Measure::Messages);
    assert_eq!(refused(answer), full);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_learns_which_chunks_are_there() {
    let server = Server::new();
    let _relay = server.start().await;
    let org = Org::found(&server).await;
    let alice = org.sign_up("alice").await;
    let bob = org.sign_up("bob").await;
    let room = org.room(&alice).await;
    let (alices, bobs) = (org.connect(&alice).await, org.connect(&bob).await);
    upload(&alices, &room, [0, 1, 2, 5, 7, 8, 11]).await;

    let asking = |first, count| FetchRequest {
        stored: Some(range(&room, first, count)),
        ..FetchRequest::default()
    };
    let spans = |frames: &[FetchFrame]| {
        let [frame] = frames else {
            panic!("{} frames", frames.len());
        };
        let span = |span: &ChunkSpan| (span.first, span.count);
        frame.stored.iter().map(span).collect::<Vec<_>>()
    };
    let frames = fetch(&alices, &alice, &asking(0, 11)).await;
    assert_eq!(spans(&frames), [(0, 3), (5, 1), (7, 2)]);
    let frames = fetch(&alices, &alice, &asking(1, 1)).await;
    assert_eq!(spans(&frames), [(1, 1)]);

    let frames = fetch(&bobs, &bob, &asking(0, 11)).await;
    assert_eq!(spans(&frames), []);
    assert_eq!(frames[0].refused_rooms, [room.room.to_bytes()]);

    let cursor = RoomCursor {
        room: room.room.to_bytes(),
        ..RoomCursor::default()
    };
    for malformed in [
        asking(0, limits::FILE_CHUNKS + 1),
        FetchRequest {
            rooms: vec![cursor],
            ..asking(0, 1)
        },
        FetchRequest {
            inbox_after: Some(0),
            ..asking(0, 1)
        },
    ] {
        let frames = fetch(&alices, &alice, &malformed).await;
        assert_eq!(frames[0].refusal(), FetchRefusal::Malformed);
    }
}
