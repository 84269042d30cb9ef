//! What clients do not normally do.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use nkeys::KeyPair;
use sotto_proto::{FileId, INBOX_STREAM, SUBMISSIONS, Subject, limits, reply_prefix};

use crate::org::Org;
use crate::server::{Wire, submission};

/// Stores what devices submit through the first node, where this device hears
/// of it as soon as it is so.
async fn store_submissions(org: &Org, device: &mut Wire, prefix: &str) {
    let relay = org.cluster.store_submissions(0).await;
    let ready = format!("{prefix}.ready");
    relay.publish(ready.clone(), "".into()).await.unwrap();
    let heard = device.hear(|heard| heard.subject == ready).await;
    assert!(heard.is_some(), "nobody stores what is submitted");
}

/// Whatever a device names as the subject of an answer, the server writes
/// nothing there: streams hear no device, and what relays hear is only text.
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
    for asked in ["fetch.*", "fetch.*.*", "beacon.*", SUBMISSIONS] {
        relay.subscribe(asked).await.unwrap();
    }

    let mut hostile = org.device(member, 0).await;
    let to = submission(member.device, team.messages());
    let replies = [
        desk.messages().to_string(),
        desk.messages().live(),
        Subject::Inbox(victim.device).to_string(),
        Subject::Inbox(victim.device).live(),
        format!("{}.x", reply_prefix(victim.device)),
        Subject::Fetch(victim.device).to_string(),
        submission(victim.device, desk.messages()),
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
    let fetch = Subject::Fetch(member.device).to_string();
    let beacon = Subject::Beacon(member.device).to_string();
    for reply in &replies {
        for subject in [&to, &fetch, &beacon] {
            // What the server refuses outright needs no more looking at.
            let _refused = hostile.publish_with_reply(subject, reply, "tricked").await;
        }
    }
    // An ordinary message to the victim, behind everything else.
    let own = reply_prefix(member.device);
    hostile.subscribe(&format!("{own}.>")).await.unwrap();
    store_submissions(&org, &mut hostile, &own).await;
    let inbox = Subject::Inbox(victim.device);
    hostile
        .publish(&submission(member.device, inbox.clone()), "ordinary")
        .await
        .unwrap();
    let ordinary = listening.hear(|heard| heard.payload == "ordinary").await;
    assert_eq!(ordinary.unwrap().subject, inbox.live());
    assert_eq!(listening.heard.len(), 1, "{:?}", listening.heard);

    relay.say(b"").await.unwrap();
    // A relay hears it under the sender's own name only.
    for request in &relay.heard {
        let name = member.device.to_string();
        assert_eq!(request.subject.split('.').nth(1), Some(name.as_str()));
    }
    let mut stored = BTreeSet::new();
    for stream in &mut streams {
        let subjects = stream.info_with_subjects(">").await.unwrap();
        let subjects: Vec<_> = subjects.try_collect().await.unwrap();
        stored.extend(subjects.into_iter().map(|(subject, _)| subject));
    }
    assert_eq!(stored, BTreeSet::from([inbox.to_string()]));
}

/// Permissions cannot see headers, and streams obey them: one
/// `Nats-Expected-Last-Msg-Id` with an id that is not the last stops the
/// acknowledgements of a replicated stream of nats-server 2.15.1 for everybody.
/// So no device reaches a stream with any.
#[tokio::test]
async fn headers_of_a_device_reach_no_stream() {
    let org = Org::new().await;
    let mut streams = org.cluster.streams(3).await;
    let [team, desk, ..] = &org.rooms[..] else {
        panic!("two rooms")
    };
    let member = org.person("roomuser");
    let mut hostile = org.device(member, 0).await;
    let own = reply_prefix(member.device);
    hostile.subscribe(&format!("{own}.>")).await.unwrap();
    let desk_messages = desk.messages().to_string();
    let headers: [&[(&str, &str)]; 12] = [
        &[],
        &[("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "1")],
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
        &[("Nats-Sequence", "999"), ("Nats-Last-Sequence", "998")],
    ];
    let file = FileId::try_from(&[5; 16][..]).unwrap();
    for subject in [
        team.messages(),
        team.handshakes(),
        team.blob(file, 0),
        Subject::Inbox(member.device),
    ] {
        let subject = subject.to_string();
        for headers in headers {
            let sent = hostile.publish_with_headers(&subject, &own, headers);
            let refused = sent.await.unwrap_err();
            assert!(refused.contains("Permissions Violation"), "{refused}");
        }
    }
    // A trace would be the server's own message, on any subject.
    let to = submission(member.device, team.messages());
    for subject in [desk_messages.as_str(), "directory", "_INBOX.relay.x"] {
        let trace = [("Nats-Trace-Dest", subject)];
        let _refused = hostile.publish_with_headers(&to, &own, &trace).await;
    }
    for stream in &mut streams {
        assert_eq!(stream.info().await.unwrap().state.messages, 0);
    }
    store_submissions(&org, &mut hostile, &own).await;
    let stored = hostile.request(&to, &own, &[]).await.unwrap();
    assert!(stored.contains("\"seq\":1"), "{stored}");
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_cut_off() {
    let org = Org::new().await;
    let _streams = org.cluster.streams(3).await;
    let member = org.person("roomuser");
    let to = submission(member.device, org.rooms[0].messages());
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
