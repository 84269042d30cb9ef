//! What devices say of themselves, who hears it, and what is deleted for it.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream;
use futures::StreamExt;
use prost::Message;
use sotto_proto::wire::{Beacon, Presence, RoomCursor};
use sotto_proto::{RoomAddress, Subject};

use crate::org::{Device, Org, store};
use crate::server::{Server, eventually, within};

async fn say(client: &Client, device: &Device, cursors: &[(&RoomAddress, u64)]) {
    let cursors = cursors.iter().map(|(room, messages_after)| RoomCursor {
        room: room.room.to_bytes(),
        messages_after: *messages_after,
        handshakes_after: 0,
    });
    let beacon = Beacon {
        cursors: cursors.collect(),
        ..Beacon::default()
    };
    let subject = Subject::Beacon(device.id).to_string();
    let said = client.publish(subject, beacon.encode_to_vec().into());
    said.await.unwrap();
    client.flush().await.unwrap();
}

/// The payloads that a room's messages and handshakes still have.
async fn kept(server: &Server, room: &RoomAddress) -> Vec<u64> {
    let js = jetstream::new(server.relay().await);
    let mail = js.get_stream("MAIL-0").await.unwrap();
    let last = mail.cached_info().state.last_sequence;
    let mut kept = Vec::new();
    for sequence in 1..=last {
        if let Ok(found) = mail.get_raw_message(sequence).await
            && found.subject.contains(&room.room.to_string())
        {
            kept.push(sequence);
        }
    }
    kept
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_device_has_is_deleted_and_nothing_else() {
    let server = Server::new();
    let relay = server.start().await;
    let org = Org::found(&server).await;
    let alice = org.sign_up("alice").await;
    let bob = org.sign_up("bob").await;
    let (shared, alone) = (org.room(&alice).await, org.room(&alice).await);
    org.admit(&bob, &shared).await;
    let (alices, bobs) = (org.connect(&alice).await, org.connect(&bob).await);
    let mut sequences = Vec::new();
    for number in 0..4 {
        sequences.push(store(&alices, &shared.messages(), format!("{number}")).await);
    }
    let commit = store(&alices, &shared.handshakes(), "commit").await;
    let newest = store(&bobs, &shared.messages(), "newest").await;
    let own = store(&alices, &alone.messages(), "own").await;

    // Bob says nothing yet; a room that is not his is not his to speak of.
    say(&alices, &alice, &[(&shared, newest)]).await;
    say(&bobs, &bob, &[(&alone, own)]).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(kept(&server, &shared).await.len(), 6);

    say(&bobs, &bob, &[(&shared, sequences[2])]).await;
    let expected = [sequences[2], sequences[3], commit, newest];
    eventually("what both have is gone", async || {
        (kept(&server, &shared).await == expected).then_some(())
    })
    .await;
    assert_eq!(kept(&server, &alone).await, [own]);

    // A relay that has just started knows of nobody.
    assert!(relay.stop().await.success());
    let _relay = server.start().await;
    let bobs = org.connect(&bob).await;
    say(&bobs, &bob, &[(&shared, newest)]).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(kept(&server, &shared).await, expected);
    let alices = org.connect(&alice).await;
    say(&alices, &alice, &[(&shared, newest)]).await;
    eventually("only the newest is left", async || {
        (kept(&server, &shared).await == [commit, newest]).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_beyond_the_stream_delete_nothing() {
    let server = Server::new();
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;
    let first = store(&client, &room.messages(), "one").await;
    let last = store(&client, &room.messages(), "two").await;
    say(&client, &alice, &[(&room, last + 100)]).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert_eq!(kept(&server, &room).await, [first, last]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_hear_who_is_there_and_nobody_else_does() {
    let server = Server::new();
    let _relay = server.start().await;
    let org = Org::found(&server).await;
    let alice = org.sign_up("alice").await;
    let bob = org.sign_up("bob").await;
    let (shared, alone) = (org.room(&alice).await, org.room(&alice).await);
    org.admit(&bob, &shared).await;
    let (alices, bobs) = (org.connect(&alice).await, org.connect(&bob).await);
    let mut heard = bobs.subscribe(shared.live_wildcard()).await.unwrap();
    bobs.flush().await.unwrap();
    let mut own = alices.subscribe(alone.live_wildcard()).await.unwrap();
    alices.flush().await.unwrap();
    say(&alices, &alice, &[]).await;
    say(&alices, &alice, &[]).await;
    for heard in [&mut heard, &mut own] {
        let message = within(heard.next()).await.unwrap();
        assert!(message.subject.ends_with(".presence"));
        let presence = Presence::decode(message.payload).unwrap();
        assert_eq!(presence.device, alice.id.to_bytes());
        assert!(presence.here && presence.at_ms > 0);
    }
    // Once in a while is enough.
    let again = tokio::time::timeout(Duration::from_millis(500), heard.next()).await;
    assert!(again.is_err(), "{again:?}");
}
