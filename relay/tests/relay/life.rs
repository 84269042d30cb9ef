//! Crashes, restarts and stops.

use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream;
use prost::Message;
use rustix::process::{Signal, kill_process};
use sotto_proto::wire::{FetchRequest, RoomCursor};
use sotto_proto::{RoomAddress, Subject};

use crate::org::{Device, Org, store, submission, try_fetch};
use crate::server::{PATIENCE, Server, eventually, eventually_within, is_alive};

/// What the room holds, as a device is told.
pub async fn payloads(client: &Client, device: &Device, room: &RoomAddress) -> Vec<String> {
    let request = FetchRequest {
        rooms: vec![RoomCursor {
            room: room.room.to_bytes(),
            ..RoomCursor::default()
        }],
        max_bytes: u32::MAX,
        ..FetchRequest::default()
    };
    let subject = Subject::Fetch(device.id);
    let frames = eventually("catch-up is answered", async || {
        let request = request.encode_to_vec().into();
        try_fetch(client, &subject, request, Duration::from_secs(5)).await
    })
    .await;
    let messages = frames.iter().flat_map(|frame| &frame.messages);
    messages
        .map(|message| String::from_utf8(message.payload.to_vec()).unwrap())
        .collect()
}

/// Publishes until it is acknowledged, as a device does.
pub async fn store_surely(client: &Client, subject: &Subject, id: &str) {
    let js = jetstream::new(client.clone());
    eventually("a message is stored", async || {
        let message = jetstream::message::PublishMessage::build()
            .message_id(id)
            .payload(id.to_owned().into());
        let ack = js.send_publish(submission(client, subject), message);
        let ack = ack.await.ok()?;
        ack.await.ok()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_nats_server_is_restarted_and_nothing_stored_is_lost() {
    let server = Server::new();
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;

    let mut expected = Vec::new();
    for round in 0..3 {
        for number in 0..20 {
            let text = format!("{round}-{number}");
            store_surely(&client, &room.messages(), &text).await;
            expected.push(text);
        }
        let killed = server.nats_pid().unwrap();
        kill_process(killed, Signal::KILL).unwrap();
        eventually("another nats-server runs", async || {
            server.nats_pid().filter(|pid| *pid != killed)
        })
        .await;
    }
    store_surely(&client, &room.messages(), "last").await;
    expected.push("last".to_owned());
    assert_eq!(payloads(&client, &alice, &room).await, expected);
}

/// It takes a minute: so long it may be busy without being taken for one that
/// hangs.
#[tokio::test(flavor = "multi_thread")]
async fn a_nats_server_that_hangs_is_replaced_and_nothing_stored_is_lost() {
    let server = Server::new();
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;
    let mut expected: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for text in &expected {
        store_surely(&client, &room.messages(), text).await;
    }

    let hanging = server.nats_pid().unwrap();
    kill_process(hanging, Signal::STOP).unwrap();
    let replaced = "another nats-server runs in its place";
    eventually_within(3 * PATIENCE, replaced, async || {
        let other = server.nats_pid().filter(|pid| *pid != hanging);
        other.filter(|_| !is_alive(hanging))
    })
    .await;
    store_surely(&client, &room.messages(), "last").await;
    expected.push("last".to_owned());
    assert_eq!(payloads(&client, &alice, &room).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_relay_stops_the_orphan_of_a_killed_one_and_serves() {
    let server = Server::new();
    let relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;
    store(&client, &room.messages(), "before").await;

    let orphan = server.nats_pid().unwrap();
    relay.kill().await;
    assert!(
        is_alive(orphan),
        "the child must outlive a killed relay here"
    );
    let _relay = server.start().await;
    assert!(!is_alive(orphan));
    assert_ne!(server.nats_pid(), Some(orphan));

    store_surely(&client, &room.messages(), "after").await;
    assert_eq!(payloads(&client, &alice, &room).await, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_relay_leaves_no_process_behind() {
    let server = Server::new();
    let relay = server.start().await;
    let nats = server.nats_pid().unwrap();
    assert!(relay.stop().await.success());
    assert!(!is_alive(nats));
    assert!(!server.layout.relay_ready().exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_stops_when_its_parent_is_gone() {
    let server = Server::new();
    let mut relay = server.start().await;
    let nats = server.nats_pid().unwrap();
    drop(relay.child.stdin.take());
    let status = crate::server::within(relay.child.wait()).await.unwrap();
    assert!(status.success());
    assert!(!is_alive(nats));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_relay_on_the_same_directory_is_refused() {
    let server = Server::new();
    let _relay = server.start().await;
    let nats = server.nats_pid().unwrap();
    let (status, said) = server.spawn(&[]).ends().await;
    assert!(!status.success());
    assert!(said.contains("another sotto-relay"), "{said}");
    assert!(is_alive(nats));
}
