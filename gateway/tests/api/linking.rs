//! The mailbox for linking a device.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::rngs::OsRng;
use sotto_proto::wire::{ApiErrorCode, LinkBody, LinkGet, LinkPut, LinkSlot, LinkStored};
use sotto_proto::{RendezvousId, limits};

use super::server::{Server, code};

const SLOTS: [LinkSlot; 4] = [
    LinkSlot::Commitment,
    LinkSlot::Nonce,
    LinkSlot::Reveal,
    LinkSlot::Payload,
];

fn put(rendezvous: RendezvousId, slot: LinkSlot, body: impl Into<Bytes>) -> LinkPut {
    LinkPut {
        org: "acme".to_owned(),
        rendezvous: rendezvous.to_bytes(),
        slot: slot.into(),
        body: body.into(),
    }
}

fn get(rendezvous: RendezvousId, slot: LinkSlot, wait_ms: u32) -> LinkGet {
    LinkGet {
        org: "acme".to_owned(),
        rendezvous: rendezvous.to_bytes(),
        slot: slot.into(),
        wait_ms,
    }
}

#[tokio::test]
async fn each_slot_is_written_once() {
    let server = Server::start().await;
    let rendezvous = RendezvousId::random(&mut OsRng);
    for slot in SLOTS {
        let empty = server.call(None, &get(rendezvous, slot, 0)).await.unwrap();
        assert_eq!(empty, LinkBody { body: None });
        let body = format!("{slot:?}");
        let first = put(rendezvous, slot, body.clone());
        assert_eq!(server.call(None, &first).await, Ok(LinkStored {}));
        // The same again: its answer may have got lost.
        assert_eq!(server.call(None, &first).await, Ok(LinkStored {}));
        let other = put(rendezvous, slot, "other");
        assert_eq!(
            code(server.call(None, &other).await),
            ApiErrorCode::Conflict
        );
        let found = server.call(None, &get(rendezvous, slot, 0)).await.unwrap();
        assert_eq!(found.body.unwrap(), body);
    }
    // Another mailbox, and the same one of another org, are empty.
    let elsewhere = get(RendezvousId::random(&mut OsRng), LinkSlot::Nonce, 0);
    assert_eq!(server.call(None, &elsewhere).await.unwrap().body, None);
    let mut elsewhere = get(rendezvous, LinkSlot::Nonce, 0);
    elsewhere.org = "other".to_owned();
    assert_eq!(server.call(None, &elsewhere).await.unwrap().body, None);
}

#[tokio::test]
async fn of_many_who_write_one_wins() {
    let server = Server::start().await;
    let rendezvous = RendezvousId::random(&mut OsRng);
    let puts: Vec<_> = (0..20)
        .map(|n| put(rendezvous, LinkSlot::Nonce, format!("device {n}")))
        .collect();
    let stored = futures::future::join_all(puts.iter().map(|put| server.call(None, put))).await;
    let winners: Vec<_> = puts
        .iter()
        .zip(stored)
        .filter(|(_, stored)| stored.is_ok())
        .collect();
    assert_eq!(winners.len(), 1);
    let found = server
        .call(None, &get(rendezvous, LinkSlot::Nonce, 0))
        .await
        .unwrap();
    assert_eq!(found.body.as_ref(), Some(&winners[0].0.body));
}

#[tokio::test]
async fn a_reader_waits_for_the_writer() {
    let server = Server::start().await;
    let rendezvous = RendezvousId::random(&mut OsRng);
    let began = Instant::now();
    let nothing = server
        .call(None, &get(rendezvous, LinkSlot::Reveal, 500))
        .await
        .unwrap();
    assert_eq!(nothing.body, None);
    assert!(began.elapsed() < Duration::from_secs(5));

    let call = get(rendezvous, LinkSlot::Reveal, 25_000);
    let call_of_writer = put(rendezvous, LinkSlot::Reveal, "here");
    let (read, written) =
        tokio::join!(server.call(None, &call), server.call(None, &call_of_writer));
    written.unwrap();
    assert_eq!(read.unwrap().body.unwrap(), "here");
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let server = Server::start().await;
    let rendezvous = RendezvousId::random(&mut OsRng);
    let largest = put(rendezvous, LinkSlot::Payload, vec![1; limits::LINK_BODY]);
    for bad in [
        put(
            rendezvous,
            LinkSlot::Payload,
            vec![1; limits::LINK_BODY + 1],
        ),
        put(rendezvous, LinkSlot::Payload, ""),
        put(rendezvous, LinkSlot::Unspecified, "x"),
        LinkPut {
            slot: 5,
            ..largest.clone()
        },
        LinkPut {
            rendezvous: Bytes::from_static(b"short"),
            ..largest.clone()
        },
    ] {
        assert_eq!(code(server.call(None, &bad).await), ApiErrorCode::Malformed);
    }
    server.call(None, &largest).await.unwrap();
    let found = server
        .call(None, &get(rendezvous, LinkSlot::Payload, 0))
        .await
        .unwrap();
    assert_eq!(found.body.unwrap().len(), limits::LINK_BODY);
}
