//! Catch-up, as devices see it.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use rand::rngs::OsRng;
use sotto_jwt_accounts::policy::Proven;
use sotto_proto::wire::{
    BlobRange, FetchFrame, FetchRefusal, FetchRequest, RoomCursor, StoredKind, StoredMessage,
};
use sotto_proto::{FileId, RoomAddress, Subject, limits, reply_prefix};

use crate::org::{Org, fetch, fetch_raw, store, try_fetch};
use crate::server::{PATIENCE, Server, eventually, now_ms, within};

fn cursor(room: &RoomAddress, messages_after: u64, handshakes_after: u64) -> RoomCursor {
    RoomCursor {
        room: room.room.to_bytes(),
        messages_after,
        handshakes_after,
    }
}

fn rooms(cursors: Vec<RoomCursor>) -> FetchRequest {
    FetchRequest {
        rooms: cursors,
        max_bytes: limits::FETCH_BYTES,
        ..FetchRequest::default()
    }
}

fn messages(frames: &[FetchFrame]) -> Vec<&StoredMessage> {
    frames.iter().flat_map(|frame| &frame.messages).collect()
}

fn refusal(frames: &[FetchFrame]) -> FetchRefusal {
    frames.last().unwrap().refusal()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_in_the_order_of_the_stream() {
    let server = Server::new();
    let _relay = server.start().await;
    let org = Org::found(&server).await;
    let alice = org.sign_up("alice").await;
    let (one, two) = (org.room(&alice).await, org.room(&alice).await);
    let client = org.connect(&alice).await;

    let mut expected = Vec::new();
    for number in 0..60 {
        let (room, kind) = match number % 5 {
            0 => (&one, StoredKind::Handshake),
            1 | 2 => (&one, StoredKind::Message),
            _ => (&two, StoredKind::Message),
        };
        let subject = match kind {
            StoredKind::Handshake => room.handshakes(),
            _ => room.messages(),
        };
        let text = number.to_string();
        let sequence = store(&client, &subject, text.clone()).await;
        expected.push((room.room.to_bytes(), kind, sequence, Bytes::from(text)));
    }
    expected.sort_by_key(|(room, _, sequence, _)| (*room != one.room.to_bytes(), *sequence));
    store(&client, &Subject::Inbox(alice.id), "welcome").await;

    let request = FetchRequest {
        inbox_after: Some(0),
        ..rooms(vec![cursor(&one, 0, 0), cursor(&two, 0, 0)])
    };
    let frames = fetch(&client, &alice, &request).await;
    assert_eq!(refusal(&frames), FetchRefusal::None);
    assert!(!frames.last().unwrap().more);
    let mut found = messages(&frames).into_iter();
    let inbox = found.next().unwrap();
    assert_eq!(inbox.kind(), StoredKind::Inbox);
    assert_eq!(
        (inbox.payload.as_ref(), inbox.room.len()),
        (&b"welcome"[..], 0)
    );
    let found: Vec<_> = found
        .map(|m| (m.room.clone(), m.kind(), m.sequence, m.payload.clone()))
        .collect();
    assert_eq!(found, expected);
    let now = crate::server::now_ms();
    for message in messages(&frames) {
        assert!((now - message.stored_at_ms).abs() < 60_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_before_what_was_read_says_so() {
    let server = Server::new();
    let _relay = server.start().await;
    let org = Org::found(&server).await;
    let alice = org.sign_up("alice").await;
    let (one, two) = (org.room(&alice).await, org.room(&alice).await);
    let client = org.connect(&alice).await;
    let last = store(&client, &one.messages(), b"one".to_vec()).await;

    let request = rooms(vec![cursor(&one, last, last + 1), cursor(&two, last, last)]);
    let frames = fetch(&client, &alice, &request).await;
    let rewound = &frames.last().unwrap().rewound;
    assert_eq!(rewound.len(), 1, "{rewound:?}");
    assert_eq!(rewound[0].room, one.room.to_bytes());
    assert_eq!(rewound[0].last_sequence, last);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_a_sender_made_up_are_not_believed() {
    let server = Server::new();
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;

    let first = store(&client, &room.messages(), "one").await;
    let mut forged = async_nats::HeaderMap::new();
    for (name, value) in [
        ("Nats-Stream", "INBOX"),
        ("Nats-Subject", "inbox.somebody"),
        ("Nats-Sequence", "900"),
        ("Nats-Last-Sequence", "800"),
        ("Nats-Time-Stamp", "never"),
        ("Nats-Num-Pending", "0"),
    ] {
        forged.insert(name, value);
    }
    let subject = room.messages().to_string();
    // No device gets these past a relay: they are put into the stream itself.
    let storing = server.relay().await;
    let inbox = storing.new_inbox();
    let mut acks = storing.subscribe(inbox.clone()).await.unwrap();
    storing
        .publish_with_reply_and_headers(subject, inbox, forged, "two".into())
        .await
        .unwrap();
    within(acks.next()).await.unwrap();
    let last = store(&client, &room.messages(), "three").await;

    let frames = fetch(&client, &alice, &rooms(vec![cursor(&room, 0, 0)])).await;
    assert_eq!(refusal(&frames), FetchRefusal::None);
    let found: Vec<_> = messages(&frames)
        .into_iter()
        .map(|message| (message.sequence, message.payload.clone()))
        .collect();
    let expected = [(first, "one"), (first + 1, "two"), (last, "three")];
    assert_eq!(found, expected.map(|(at, text)| (at, Bytes::from(text))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_is_caught_up_in_portions_that_can_be_resumed() {
    let server = Server::new();
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;

    // More than a page and a frame hold, and the longest there can be.
    let mut expected = Vec::new();
    for number in 0..1_200_usize {
        let (subject, length) = match number {
            n if n % 400 == 7 => (room.messages(), limits::PAYLOAD),
            n if n % 9 == 0 => (room.handshakes(), 900),
            n => (room.messages(), n % 700),
        };
        let mut payload = vec![b'x'; length];
        payload.extend_from_slice(number.to_string().as_bytes());
        payload.truncate(limits::PAYLOAD);
        let sequence = store(&client, &subject, payload.clone()).await;
        expected.push((sequence, payload.len()));
    }

    let (mut messages_after, mut handshakes_after) = (0, 0);
    let mut found = Vec::new();
    let mut requests = 0;
    loop {
        let request = FetchRequest {
            max_bytes: 150_000,
            ..rooms(vec![cursor(&room, messages_after, handshakes_after)])
        };
        let frames = fetch(&client, &alice, &request).await;
        requests += 1;
        let sum: usize = messages(&frames).iter().map(|m| m.payload.len()).sum();
        assert!(sum <= 150_000 || messages(&frames).len() == 1, "{sum}");
        for message in messages(&frames) {
            found.push((message.sequence, message.payload.len()));
            match message.kind() {
                StoredKind::Handshake => handshakes_after = message.sequence,
                _ => messages_after = message.sequence,
            }
        }
        if !frames.last().unwrap().more {
            break;
        }
    }
    assert_eq!(found, expected);
    assert!(requests > 3, "{requests}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_served_and_missing_ones_left_out() {
    let server = Server::new();
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;
    let file = FileId::random(&mut OsRng);
    for index in [0, 1, 2, 5] {
        let payload = vec![index as u8; limits::PAYLOAD];
        store(&client, &room.blob(file, index), payload).await;
    }
    let request = FetchRequest {
        blobs: vec![BlobRange {
            room: room.room.to_bytes(),
            file: file.to_bytes(),
            first: 1,
            count: u32::MAX,
        }],
        max_bytes: limits::FETCH_BYTES,
        ..FetchRequest::default()
    };
    let frames = fetch(&client, &alice, &request).await;
    let chunks: Vec<_> = messages(&frames)
        .into_iter()
        .map(|m| (m.kind(), m.file.clone(), m.index, m.payload.len()))
        .collect();
    let chunk = |index| (StoredKind::Blob, file.to_bytes(), index, limits::PAYLOAD);
    assert_eq!(chunks, [chunk(1), chunk(2), chunk(5)]);
    assert!(
        frames.last().unwrap().more,
        "more chunks were asked for than are looked for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_of_others_is_refused_and_the_rest_served() {
    let server = Server::new();
    let _relay = server.start().await;
    let org = Org::found(&server).await;
    let (alice, bob) = (org.sign_up("alice").await, org.sign_up("bob").await);
    let (hers, his) = (org.room(&alice).await, org.room(&bob).await);
    let client = org.connect(&alice).await;
    store(&client, &hers.messages(), "hers").await;
    let file = FileId::random(&mut OsRng);
    let bobs = org.connect(&bob).await;
    store(&bobs, &his.messages(), "his").await;
    store(&bobs, &his.blob(file, 0), "his file").await;

    let unknown = Bytes::from_static(&[1; 16]);
    let mut request = rooms(vec![
        cursor(&his, 0, 0),
        cursor(&hers, 0, 0),
        RoomCursor {
            room: unknown.clone(),
            ..RoomCursor::default()
        },
    ]);
    request.blobs = vec![BlobRange {
        room: his.room.to_bytes(),
        file: file.to_bytes(),
        first: 0,
        count: 1,
    }];
    let frames = fetch(&client, &alice, &request).await;
    let payloads: Vec<_> = messages(&frames)
        .iter()
        .map(|m| m.payload.clone())
        .collect();
    assert_eq!(payloads, [Bytes::from("hers")]);
    let refused: Vec<Bytes> = frames
        .iter()
        .flat_map(|f| f.refused_rooms.clone())
        .collect();
    assert_eq!(refused.len(), 2);
    assert!(refused.contains(&unknown) && refused.contains(&his.room.to_bytes()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_room_is_served_on_its_own_subject_to_who_has_proven_what_it_takes() {
    let server = Server::new();
    let _relay = server.start().await;
    let org = Org::found(&server).await;
    let alice = org.sign_up("alice").await;
    let (gated, open) = (org.room(&alice).await, org.room(&alice).await);
    org.gate(&gated).await;
    let proven = Proven::all(now_ms());
    let having = org.connect_having(&alice, &proven).await;
    store(&having, &gated.messages(), "behind the door").await;
    store(&having, &open.messages(), "outside").await;

    let request = rooms(vec![cursor(&gated, 0, 0), cursor(&open, 0, 0)]);
    let own = Subject::FetchRoom(alice.id, gated.room);
    let common = Subject::Fetch(alice.id);
    for (subject, served, refused) in [
        (&own, "behind the door", &open),
        (&common, "outside", &gated),
    ] {
        let request = request.encode_to_vec().into();
        let frames = try_fetch(&having, subject, request, PATIENCE)
            .await
            .unwrap();
        let texts: Vec<Bytes> = messages(&frames)
            .iter()
            .map(|message| message.payload.clone())
            .collect();
        assert_eq!(texts, [Bytes::from(served)]);
        let refusals: Vec<_> = frames
            .iter()
            .flat_map(|f| f.refused_rooms.clone())
            .collect();
        assert_eq!(refusals, [refused.room.to_bytes()]);
    }

    // Without the factor nats-server does not let the question pass.
    let without = org.connect(&alice).await;
    let request = request.encode_to_vec().into();
    let unheard = try_fetch(&without, &own, request, Duration::from_secs(1)).await;
    assert_eq!(unheard, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_granted_a_moment_ago_is_served() {
    let server = Server::new();
    let _relay = server.start().await;
    let org = Org::found(&server).await;
    for number in 0..5 {
        let alice = org.sign_up(&format!("alice{number}")).await;
        let room = org.room(&alice).await;
        let client = org.connect(&alice).await;
        let frames = fetch(&client, &alice, &rooms(vec![cursor(&room, 0, 0)])).await;
        assert_eq!(refusal(&frames), FetchRefusal::None);
        assert_eq!(frames[0].refused_rooms, Vec::<Bytes>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_answered_with_a_refusal() {
    let server = Server::new();
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;
    let encoded = |request: FetchRequest| Bytes::from(request.encode_to_vec());
    let short_id = RoomCursor {
        room: Bytes::from_static(b"short"),
        ..RoomCursor::default()
    };
    let many = (0..=limits::FETCH_ROOMS).map(|n| RoomCursor {
        room: Bytes::from([&[0; 8][..], &n.to_be_bytes()].concat()),
        ..RoomCursor::default()
    });
    for garbage in [
        Bytes::from_static(b"\xff\xff\xff"),
        Bytes::from(vec![0xff; 500_000]),
        encoded(rooms(vec![short_id])),
        encoded(rooms(vec![cursor(&room, 0, 0), cursor(&room, 5, 5)])),
        encoded(rooms(many.collect())),
    ] {
        let frames = fetch_raw(&client, &alice, garbage).await;
        assert_eq!(frames.len(), 1);
        assert_eq!(refusal(&frames), FetchRefusal::Malformed);
    }
    // And it still serves, even the emptiest request.
    let frames = fetch(&client, &alice, &FetchRequest::default()).await;
    assert_eq!((frames.len(), refusal(&frames)), (1, FetchRefusal::None));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_outside_the_devices_own_prefix() {
    let server = Server::new();
    let _relay = server.start().await;
    let org = Org::found(&server).await;
    let (alice, bob) = (org.sign_up("alice").await, org.sign_up("bob").await);
    let (hers, his) = (org.room(&alice).await, org.room(&bob).await);
    let alices = org.connect(&alice).await;
    let bobs = org.connect(&bob).await;
    store(&alices, &hers.messages(), "for alice").await;
    let stray = format!("{}.stray", reply_prefix(bob.id));
    let mut heard = bobs.subscribe(stray.clone()).await.unwrap();
    let mut live = bobs.subscribe(his.live_wildcard()).await.unwrap();
    bobs.flush().await.unwrap();

    for reply in [
        stray,
        his.messages().live(),
        his.messages().to_string(),
        Subject::Inbox(bob.id).to_string(),
        Subject::Fetch(bob.id).to_string(),
        "directory".to_owned(),
    ] {
        let subject = Subject::Fetch(alice.id).to_string();
        let request = rooms(vec![cursor(&hers, 0, 0)]).encode_to_vec().into();
        alices
            .publish_with_reply(subject, reply, request)
            .await
            .unwrap();
    }
    // The requests of one connection are taken in order: when this one is
    // answered, the relay has passed over the others.
    let frames = fetch(&alices, &alice, &rooms(vec![cursor(&hers, 0, 0)])).await;
    assert_eq!(messages(&frames).len(), 1);
    let request = FetchRequest {
        inbox_after: Some(0),
        ..rooms(vec![cursor(&his, 0, 0)])
    };
    // And whatever reached Bob would have done so before this.
    let frames = fetch(&bobs, &bob, &request).await;
    assert_eq!(refusal(&frames), FetchRefusal::None);
    assert_eq!(messages(&frames), Vec::<&StoredMessage>::new());
    for subscription in [&mut heard, &mut live] {
        let message = futures::poll!(subscription.next());
        assert!(message.is_pending(), "{message:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_device_is_refused_even_while_its_connection_lives() {
    let server = Server::new();
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;
    store(&client, &room.messages(), "text").await;
    org.revoke(&alice).await;
    let request = rooms(vec![cursor(&room, 0, 0)]);
    // The relay hears of it a moment later.
    let frames = eventually("the device is refused", async || {
        let frames = fetch(&client, &alice, &request).await;
        (refusal(&frames) != FetchRefusal::None).then_some(frames)
    })
    .await;
    assert_eq!(refusal(&frames), FetchRefusal::UnknownDevice);
    assert_eq!(messages(&frames).len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_requests_at_once_are_all_answered() {
    let server = Server::new();
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;
    for _ in 0..50 {
        store(&client, &room.messages(), vec![1; 10_000]).await;
    }
    let request = rooms(vec![cursor(&room, 0, 0)]);
    // More than are served at once; as many as a device may have subscriptions.
    let answers = (0..14).map(|_| fetch(&client, &alice, &request));
    let answers = within(futures::future::join_all(answers)).await;
    let (served, refused): (Vec<_>, Vec<_>) = answers
        .iter()
        .partition(|frames| refusal(frames) == FetchRefusal::None);
    assert!(served.len() >= 8, "{}", served.len());
    assert!(served.iter().all(|frames| messages(frames).len() == 50));
    assert!(
        refused
            .iter()
            .all(|frames| refusal(frames) == FetchRefusal::Unavailable)
    );
}
