//! What nats-server says of itself: its monitoring, asked through the system
//! account. What it does not say in time is left out.

use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::page::{Kind, Page};

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Answer<D> {
    data: Option<D>,
}

#[derive(Deserialize)]
struct Varz {
    connections: u64,
    #[serde(default)]
    routes: u64,
    subscriptions: u64,
    slow_consumers: u64,
    in_msgs: u64,
    out_msgs: u64,
    in_bytes: u64,
    out_bytes: u64,
    mem: u64,
}

#[derive(Deserialize)]
struct Jsz {
    #[serde(default)]
    storage: u64,
    #[serde(default)]
    account_details: Vec<Account>,
}

#[derive(Deserialize)]
struct Account {
    name: String,
    #[serde(default)]
    stream_detail: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    name: String,
    state: State,
    cluster: Option<Group>,
}

#[derive(Deserialize)]
struct State {
    messages: u64,
    bytes: u64,
    last_seq: u64,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    replicas: Vec<Replica>,
}

#[derive(Deserialize)]
struct Replica {
    name: String,
    #[serde(default)]
    lag: u64,
}

/// Writes down what this node's nats-server says.
pub async fn write(system: &Client, page: &mut Page) {
    let (varz, jsz) = tokio::join!(
        ask::<Varz>(system, "VARZ", ""),
        ask::<Jsz>(system, "JSZ", r#"{"accounts":true,"streams":true}"#),
    );
    let answering = u64::from(varz.is_some() && jsz.is_some());
    page.single(
        "nats_answers",
        Kind::Gauge,
        "Whether nats-server answers about itself.",
        answering,
    );
    if let Some(varz) = varz {
        write_server(&varz, page);
    }
    if let Some(jsz) = jsz {
        write_streams(&jsz, page);
    }
}

fn write_server(varz: &Varz, page: &mut Page) {
    for (name, help, value) in [
        ("nats_connections", "Connected clients.", varz.connections),
        ("nats_routes", "Connections to other nodes.", varz.routes),
        ("nats_subscriptions", "Subscriptions.", varz.subscriptions),
        ("nats_memory_bytes", "Memory of nats-server.", varz.mem),
    ] {
        page.single(name, Kind::Gauge, help, value);
    }
    for (name, help, value) in [
        ("nats_in_messages", "Messages received.", varz.in_msgs),
        ("nats_out_messages", "Messages sent.", varz.out_msgs),
        ("nats_in_bytes", "Bytes received.", varz.in_bytes),
        ("nats_out_bytes", "Bytes sent.", varz.out_bytes),
        (
            "nats_slow_consumers",
            "Connections cut for not reading.",
            varz.slow_consumers,
        ),
    ] {
        page.single(name, Kind::Counter, help, value);
    }
}

fn write_streams(jsz: &Jsz, page: &mut Page) {
    let accounts = jsz.account_details.iter();
    let streams: Vec<(&Account, &Stream)> = accounts
        .flat_map(|account| account.stream_detail.iter().map(move |s| (account, s)))
        .collect();
    let labels = |account: &'_ Account, stream: &'_ Stream| -> Vec<(&'static str, String)> {
        vec![
            ("account", account.name.clone()),
            ("stream", stream.name.clone()),
        ]
    };
    page.single(
        "nats_storage_bytes",
        Kind::Gauge,
        "What the streams take on this node's disk.",
        jsz.storage,
    );
    type Field = fn(&State) -> u64;
    let of_state: [(&str, &str, Field); 3] = [
        ("stream_messages", "Messages of a stream.", |s| s.messages),
        ("stream_bytes", "Bytes of a stream.", |s| s.bytes),
        ("stream_last_sequence", "Last sequence of a stream.", |s| {
            s.last_seq
        }),
    ];
    for (name, help, value) in of_state {
        let values = streams
            .iter()
            .map(|(account, stream)| (labels(account, stream), value(&stream.state)));
        owned(page, name, help, values.collect());
    }
    let replicas = streams.iter().flat_map(|(account, stream)| {
        let replicas = stream.cluster.iter().flat_map(|group| &group.replicas);
        replicas.map(|replica| {
            let mut labels = labels(account, stream);
            labels.push(("node", replica.name.clone()));
            (labels, replica.lag)
        })
    });
    let help = "By how many entries another node's copy of a stream is behind.";
    owned(page, "stream_lag", help, replicas.collect());
}

fn owned(page: &mut Page, name: &str, help: &str, values: Vec<(Vec<(&'static str, String)>, u64)>) {
    let values = values.iter().map(|(labels, value)| {
        let labels = labels.iter().map(|(name, value)| (*name, value.as_str()));
        (labels.collect(), *value)
    });
    page.family(name, Kind::Gauge, help, values);
}

async fn ask<D: DeserializeOwned>(system: &Client, what: &str, options: &'static str) -> Option<D> {
    let server = system.server_info().server_id;
    let subject = format!("$SYS.REQ.SERVER.{server}.{what}");
    let answer = system.request(subject, Bytes::from_static(options.as_bytes()));
    let answer = tokio::time::timeout(TIMEOUT, answer).await.ok()?.ok()?;
    let answer: Answer<D> = serde_json::from_slice(&answer.payload).ok()?;
    answer.data
}
