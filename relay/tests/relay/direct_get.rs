//! What catch-up takes for granted of nats-server's batched Direct Get.

use async_nats::{Client, Message};
use futures::StreamExt;
use serde_json::{Value, json};
use sotto_proto::RoomAddress;

use crate::org::{Org, store};
use crate::server::{Server, within};

/// What a batch is answered with: the messages, then what ends it.
async fn batch(client: &Client, request: Value) -> (Vec<Message>, Message) {
    let inbox = client.new_inbox();
    let mut answers = client.subscribe(inbox.clone()).await.unwrap();
    let request = request.to_string().into();
    client
        .publish_with_reply("$JS.API.DIRECT.GET.MAIL-0", inbox, request)
        .await
        .unwrap();
    let mut messages = Vec::new();
    loop {
        let answer = within(answers.next()).await.unwrap();
        if answer.status.is_some() {
            return (messages, answer);
        }
        messages.push(answer);
    }
}

fn header<'a>(message: &'a Message, name: &str) -> &'a str {
    message
        .headers
        .as_ref()
        .unwrap()
        .get(name)
        .unwrap()
        .as_str()
}

fn sequences(messages: &[Message]) -> Vec<u64> {
    let sequence = |message| header(message, "Nats-Sequence").parse().unwrap();
    messages.iter().map(sequence).collect()
}

fn status(end: &Message) -> u16 {
    end.status.unwrap().as_u16()
}

/// A room with messages at 1, 3, 5, … and another room's between them.
async fn filled(server: &Server) -> (RoomAddress, RoomAddress) {
    let org = Org::found(server).await;
    let alice = org.sign_up("alice").await;
    let (room, other) = (org.room(&alice).await, org.room(&alice).await);
    let client = org.connect(&alice).await;
    for _ in 0..20 {
        store(&client, &room.messages(), vec![1; 1_000]).await;
        store(&client, &other.messages(), "other").await;
    }
    (room, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filtered_batch_is_chained_and_ends_in_204() {
    let server = Server::new();
    let _relay = server.start().await;
    let (room, _) = filled(&server).await;
    let subject = room.messages().to_string();
    let client = server.relay().await;
    let ask = async |seq: u64, count: usize, bytes: usize| {
        let request =
            json!({"seq": seq, "next_by_subj": subject, "batch": count, "max_bytes": bytes});
        batch(&client, request).await
    };

    // The filter holds, each names the one before, and the end what is left.
    let (messages, end) = ask(1, 5, 1 << 20).await;
    assert_eq!(sequences(&messages), [1, 3, 5, 7, 9]);
    for (message, before) in messages.iter().zip(["0", "1", "3", "5", "7"]) {
        assert_eq!(header(message, "Nats-Subject"), subject);
        assert_eq!(header(message, "Nats-Last-Sequence"), before);
        assert!(!header(message, "Nats-Time-Stamp").is_empty());
    }
    assert_eq!(status(&end), 204);
    assert_eq!(header(&end, "Nats-Num-Pending"), "15");
    assert_eq!(header(&end, "Nats-Last-Sequence"), "9");

    // `max_bytes` cuts, but never to nothing.
    let (messages, end) = ask(1, 100, 3_000).await;
    assert!((1..5).contains(&messages.len()), "{}", messages.len());
    assert_eq!(status(&end), 204);
    let (messages, _) = ask(1, 100, 1).await;
    assert_eq!(sequences(&messages), [1]);

    // A batch that reaches the end says that nothing is left.
    let (messages, end) = ask(35, 100, 1 << 20).await;
    assert_eq!(sequences(&messages), [35, 37, 39]);
    assert_eq!(header(&end, "Nats-Num-Pending"), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_nothing_the_answer_is_404() {
    let server = Server::new();
    let _relay = server.start().await;
    let (room, _) = filled(&server).await;
    let client = server.relay().await;
    let beyond = json!({"seq": 40, "next_by_subj": room.messages().to_string(), "batch": 5});
    let never = json!({"seq": 1, "next_by_subj": room.handshakes().to_string(), "batch": 5});
    for request in [beyond, never] {
        let (messages, end) = batch(&client, request).await;
        assert_eq!((messages.len(), status(&end)), (0, 404));
    }
    let (_, end) = batch(&client, json!({"seq": "garbage"})).await;
    assert_eq!(status(&end), 408);
}
