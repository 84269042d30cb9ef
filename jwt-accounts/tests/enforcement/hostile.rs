//! What clients do not normally do.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use nkeys::KeyPair;
use sotto_proto::{INBOX_STREAM, Subject, limits, reply_prefix};

use crate::org::Org;
use crate::server::Wire;

/// How the acknowledgement of a stored message begins.
const ACKNOWLEDGEMENT: &str = "{\"stream\":\"MAIL-0\"";

/// The server answers to whatever subject the sender names, with rights of its
/// own: that must not reach what is stored, or whoever serves.
#[tokio::test]
async fn no_answer_of_the_server_writes_for_anybody() {
    let org = Org::new().await;
    let mut streams = org.cluster.streams(3).await;
    let member = org.person("roomuser");
    let [team, desk, ..] = &org.rooms[..] else {
        panic!("two rooms")
    };
    let victim = org.person("office");
    let mut listening = org.device(victim, 2).await;
    for own in [
        Subject::Inbox(victim.device).live(),
        format!("{}.>", reply_prefix(victim.device)),
        desk.live_wildcard(),
    ] {
        listening.subscribe(&own).await.unwrap();
    }
    let mut relay = org
        .service(&org.cluster.signer.relay_of_devices().unwrap(), 1)
        .await;
    relay.subscribe("fetch.*").await.unwrap();

    let mut hostile = org.device(member, 0).await;
    let to = team.messages().to_string();
    let replies = [
        desk.messages().to_string(),
        desk.messages().live(),
        Subject::Inbox(victim.device).to_string(),
        Subject::Inbox(victim.device).live(),
        format!("{}.x", reply_prefix(victim.device)),
        Subject::Fetch(victim.device).to_string(),
        "directory".to_owned(),
        "$KV.accounts.bob".to_owned(),
        "$JS.API.STREAM.PURGE.MAIL-0".to_owned(),
        "$JS.API.STREAM.DELETE.INBOX".to_owned(),
        "$SYS.REQ.CLAIMS.UPDATE".to_owned(),
        "_R_.x.y".to_owned(),
        "_GR_.x.y.z".to_owned(),
        "_INBOX.relay.x".to_owned(),
        "$JS.ACK.MAIL-0.x.1.1.1.1.1".to_owned(),
    ];
    for reply in &replies {
        // What the server refuses outright needs no more looking at.
        let _refused = hostile.publish_with_reply(&to, reply, "tricked").await;
        let fetch = Subject::Fetch(member.device).to_string();
        let _refused = hostile.publish_with_reply(&fetch, reply, "tricked").await;
    }
    // Published, a wildcard is a token, and nobody's inbox.
    for subject in ["inbox.*", "inbox.>"] {
        let _refused = hostile.publish(subject, "tricked").await;
    }
    let own = reply_prefix(member.device);
    hostile.subscribe(&format!("{own}.>")).await.unwrap();
    let last = hostile.request(&to, &own, &[]).await.unwrap();
    assert!(last.contains("\"seq\""), "{last}");
    // An ordinary message to the victim, behind everything else.
    let inbox = Subject::Inbox(victim.device);
    hostile
        .publish(&inbox.to_string(), "ordinary")
        .await
        .unwrap();
    let ordinary = listening.hear(|heard| heard.payload == "ordinary").await;
    assert_eq!(ordinary.unwrap().subject, inbox.live());

    // A stream's acknowledgement can be sent astray among the devices, where
    // nothing is stored. It holds no word of the sender's and none of the
    // headers without which nobody takes it for a message.
    for heard in listening
        .heard
        .iter()
        .filter(|heard| heard.payload != "ordinary")
    {
        assert_eq!(heard.headers, "", "{heard:?}");
        assert!(heard.payload.starts_with(ACKNOWLEDGEMENT), "{heard:?}");
    }
    relay.say(b"").await.unwrap();
    // Under another device's name there is only noise, which asks for no answer.
    let fetch = Subject::Fetch(member.device).to_string();
    for request in relay.heard.iter().filter(|heard| heard.subject != fetch) {
        assert_eq!(request.reply, None, "{request:?}");
        assert!(request.payload.starts_with(ACKNOWLEDGEMENT), "{request:?}");
    }
    let mut stored = BTreeSet::new();
    for stream in &mut streams {
        let subjects = stream.info_with_subjects(">").await.unwrap();
        let subjects: Vec<_> = subjects.try_collect().await.unwrap();
        stored.extend(subjects.into_iter().map(|(subject, _)| subject));
    }
    // The inboxes `*` and `>` are as good as any that nobody has.
    let nobodys = ["inbox.*", "inbox.>"].map(str::to_owned);
    let expected: BTreeSet<_> = nobodys.into_iter().chain([to, inbox.to_string()]).collect();
    assert_eq!(stored, expected);
}

/// On streams of one replica, as they are made today: nats-server 2.15.1 stops
/// acknowledging in a replicated stream, for everybody, once somebody sends it
/// `Nats-Expected-Last-Msg-Id` with an id that is not the last one.
#[tokio::test]
async fn headers_give_nobody_more() {
    let org = Org::new().await;
    let streams = org.cluster.streams(1).await;
    let mut mail = streams.into_iter().next().unwrap();
    let [team, desk, ..] = &org.rooms[..] else {
        panic!("two rooms")
    };
    let (member, victim) = (org.person("roomuser"), org.person("office"));
    let (mut hostile, mut other) = (org.device(member, 0).await, org.device(victim, 1).await);
    let own = reply_prefix(member.device);
    hostile.subscribe(&format!("{own}.>")).await.unwrap();
    hostile.subscribe(&team.live_wildcard()).await.unwrap();
    let theirs = reply_prefix(victim.device);
    other.subscribe(&format!("{theirs}.>")).await.unwrap();
    other.subscribe(&desk.live_wildcard()).await.unwrap();
    let kept = other
        .request(
            &desk.messages().to_string(),
            &theirs,
            &[("Nats-Msg-Id", "theirs")],
        )
        .await;
    assert!(kept.unwrap().contains("\"seq\":1"));

    let to = team.messages().to_string();
    let desk_messages = desk.messages().to_string();
    let refused: [&[(&str, &str)]; 11] = [
        &[("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "1")],
        &[
            ("Nats-Batch-Id", "b"),
            ("Nats-Batch-Sequence", "1"),
            ("Nats-Batch-Commit", "1"),
        ],
        &[("Nats-Rollup", "all")],
        &[("Nats-Rollup", "sub")],
        &[("Nats-Expected-Stream", INBOX_STREAM)],
        &[("Nats-Expected-Last-Sequence", "99")],
        &[("Nats-Expected-Last-Subject-Sequence", "99")],
        &[("Nats-Expected-Last-Msg-Id", "other")],
        &[
            ("Nats-Schedule", "@every 1s"),
            ("Nats-Schedule-Target", &desk_messages),
        ],
        &[("Nats-Incr", "1")],
        &[("Nats-TTL", "-5")],
    ];
    for headers in refused {
        hostile
            .publish_with_headers(&to, &own, headers)
            .await
            .unwrap();
    }
    let answer = hostile.request(&to, &own, &[]).await.unwrap();
    assert!(answer.contains("\"seq\":2"), "one was stored: {answer}");
    assert_eq!(mail.info().await.unwrap().state.messages, 2);

    // A trace would be the server's own message, on any subject.
    for subject in [desk_messages.as_str(), "directory", "_INBOX.relay.x"] {
        let trace = [("Nats-Trace-Dest", subject)];
        let _refused = hostile.publish_with_headers(&to, &own, &trace).await;
    }
    // Where in the stream a message is, the stream says last: it leaves what
    // the sender claims standing, so readers must take the last of each.
    let claims = [("Nats-Sequence", "999"), ("Nats-Last-Sequence", "998")];
    hostile.request(&to, &own, &claims).await.unwrap();
    let claimed = hostile.hear(|heard| heard.headers.contains("998")).await;
    let headers = claimed.unwrap().headers;
    let last = headers.rfind("Nats-Sequence: ").unwrap();
    assert!(
        !headers[last..].starts_with("Nats-Sequence: 999"),
        "{headers}"
    );

    other.publish(&desk_messages, "last").await.unwrap();
    other.hear(|heard| heard.payload == "last").await.unwrap();
    assert_eq!(other.heard.len(), 3, "{:?}", other.heard);
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_cut_off() {
    let org = Org::new().await;
    let _streams = org.cluster.streams(3).await;
    let member = org.person("roomuser");
    let to = org.rooms[0].messages().to_string();
    let length = limits::NATS_MESSAGE + 1;
    let large = format!("PUB {to} {length}\r\n{}\r\n", "x".repeat(length));
    let long_line = format!("PUB {} 1\r\nx\r\n", "x".repeat(200 * 1024));
    for (said, expected) in [
        (large.as_str(), "maximum payload"),
        (&long_line, "maximum control line"),
        ("RS+ acme > \r\n", "unknown protocol"),
        ("A+ SYS\r\n", "unknown protocol"),
        ("CONNECT {\"jwt\": \"\"}\r\n", "authorization violation"),
    ] {
        let mut wire = org.device(member, 1).await;
        let short: String = said.chars().take(20).collect();
        let error = wire.say(said.as_bytes()).await.expect_err(&short);
        assert!(error.to_lowercase().contains(expected), "{short}: {error}");
        assert!(wire.closed().await.is_some(), "{short}: still connected");
    }
    let url = &org.cluster.nodes[2].url;
    let (jwt, key) = (org.jwt(member), member.nats_key());
    assert!(Wire::connect(url, "", &key).await.is_err());
    assert!(
        Wire::connect(url, &jwt, &KeyPair::new_user())
            .await
            .is_err()
    );
    let account = org.cluster.keys.account_jwts(&org.cluster.org).unwrap();
    assert!(Wire::connect(url, &account[1], &key).await.is_err());
}
