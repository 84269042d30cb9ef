//! What a relay shows to whoever watches it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use prost::Message;
use rustix::process::{Signal, kill_process};
use sotto_proto::Subject;
use sotto_proto::refusals::PublishAnswer;
use sotto_proto::wire::Beacon;

use crate::ingest::submit;
use crate::look;
use crate::org::{Org, store};
use crate::server::{Server, eventually, nats_server};

#[tokio::test(flavor = "multi_thread")]
async fn counters_and_nats_own_figures_are_shown_without_names() {
    let mut server = Server::new();
    let address = server.show_metrics();
    let _relay = server.start().await;
    let (org, alice, room) = Org::with_alice(&server).await;
    let client = org.connect(&alice).await;
    for _ in 0..3 {
        store(&client, &room.messages(), vec![7; 1_000]).await;
    }
    let refused = submit(&client, &room.messages(), &[("Nats-TTL", "1s")]).await;
    assert!(matches!(refused, PublishAnswer::Refused(_)));
    let beacon = Beacon {
        said_again: 5,
        ..Beacon::default()
    };
    let subject = Subject::Beacon(alice.id).to_string();
    let said = client.publish(subject, beacon.encode_to_vec().into());
    said.await.unwrap();

    let (shown, values) = eventually("the beacon is counted", async || {
        let (shown, values) = look::metrics(address).await;
        let counted = shown.contains("sotto_repair_said_again_total 5");
        counted.then_some((shown, values))
    })
    .await;
    let value = |name: &str, labels: &str| look::value(&values, &format!("sotto_{name}"), labels);
    for (name, labels, expected) in [
        ("rooms", "org=acme", 1.0),
        ("ingest_stored_total", "", 3.0),
        ("ingest_stored_bytes_total", "", 3_000.0),
        ("ingest_refused_total", "reason=not_allowed", 1.0),
        ("ingest_refused_total", "reason=org_bytes", 0.0),
        ("ingest_in_flight", "", 0.0),
        ("repair_said_again_total", "", 5.0),
        ("repair_streams_rewound_total", "", 0.0),
        ("nats_answers", "", 1.0),
        ("nats_slow_consumers_total", "", 0.0),
    ] {
        assert_eq!(value(name, labels), expected, "{name}: {shown}");
    }
    for (name, at_least) in [
        ("nats_connections", 2.0),
        ("nats_subscriptions", 2.0),
        ("nats_memory_bytes", 1e6),
        ("nats_storage_bytes", 3_000.0),
        ("nats_in_messages_total", 4.0),
        ("nats_out_messages_total", 4.0),
        ("nats_in_bytes_total", 3_000.0),
        ("nats_out_bytes_total", 1.0),
    ] {
        assert!(value(name, "") >= at_least, "{name}: {shown}");
    }
    let of_mail = |name: &str| {
        let name = format!("sotto_{name}");
        let mut values = values.iter();
        let found = values.find(|((of, labels), _)| *of == name && labels.ends_with("=MAIL-0"));
        *found.unwrap_or_else(|| panic!("{name}: {shown}")).1
    };
    assert_eq!(of_mail("stream_messages"), 3.0);
    assert_eq!(of_mail("stream_last_sequence"), 3.0);
    assert!(of_mail("stream_bytes") > 3_000.0);
    for name in [
        "alice",
        "field",
        &room.room.to_string(),
        &alice.id.to_string(),
    ] {
        assert!(!shown.contains(name), "{name}: {shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_ready_while_nats_is_there_and_it_is_not_asked_to_stop() {
    let mut server = Server::new();
    let address = server.show_metrics();
    // A nats-server that starts when the test says so.
    let (held, may_start) = (
        server.layout.root().join("held-nats-server"),
        server.layout.root().join("may-start"),
    );
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec {real} --version\n\
         while [ ! -e {may_start} ]; do sleep 0.05; done\nexec {real} -c \"$2\"\n",
        real = nats_server().display(),
        may_start = may_start.display(),
    );
    fs::write(&held, script).unwrap();
    fs::set_permissions(&held, fs::Permissions::from_mode(0o700)).unwrap();
    let relay = server.spawn(&["--nats-server", held.to_str().unwrap()]);
    let without_nats = "starting\nNATS is not reachable\n";
    eventually("it waits for NATS", async || {
        let answer = look::get(address, "/readyz").await?;
        assert_eq!(answer.status, 503);
        (answer.body == without_nats).then_some(())
    })
    .await;
    assert_eq!(look::get(address, "/healthz").await.unwrap().status, 200);
    let (_, values) = look::metrics(address).await;
    assert_eq!(look::value(&values, "sotto_nats_answers", ""), 0.0);
    fs::write(&may_start, "").unwrap();
    assert_eq!(look::ready(address, 200).await, "ready\n");

    fs::remove_file(&may_start).unwrap();
    let nats = server.nats_pid().unwrap();
    kill_process(nats, Signal::KILL).unwrap();
    assert_eq!(look::ready(address, 503).await, "NATS is not reachable\n");
    fs::write(&may_start, "").unwrap();
    look::ready(address, 200).await;

    // Stopping takes as long as nats-server does.
    let nats = eventually("there is another", async || {
        server.nats_pid().filter(|pid| *pid != nats)
    })
    .await;
    kill_process(nats, Signal::STOP).unwrap();
    let stopping = tokio::spawn(relay.stop());
    assert_eq!(look::ready(address, 503).await, "draining\n");
    assert_eq!(look::get(address, "/healthz").await.unwrap().status, 200);
    kill_process(nats, Signal::CONT).unwrap();
    assert!(stopping.await.unwrap().success());
    assert!(look::get(address, "/healthz").await.is_none());
}
