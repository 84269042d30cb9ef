//! What nats-server says of itself: its monitoring, asked through the system
//! account. What it does not say in time is left out.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_nats::Client;
use bytes::Bytes;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sotto_service::nats::jetstream::Jsz;

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

/// As nats-server counts.
type Current = Gauge<u64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStream {
    account: String,
    stream: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReplica {
    account: String,
    stream: String,
    node: String,
}

/// Adds what this node's nats-server says.
pub async fn register(system: Option<&Client>, all: &mut Registry) {
    let (varz, jsz) = match system {
        None => (None, None),
        Some(system) => tokio::join!(
            ask::<Varz>(system, "VARZ", ""),
            ask::<Jsz>(system, "JSZ", r#"{"accounts":true,"streams":true}"#),
        ),
    };
    let answers = u64::from(varz.is_some() && jsz.is_some());
    let help = "Whether nats-server answers about itself";
    all.register("nats_answers", help, ConstGauge::new(answers));
    if let Some(varz) = varz {
        register_server(&varz, all);
    }
    if let Some(jsz) = jsz {
        register_streams(jsz, all);
    }
}

fn register_server(varz: &Varz, all: &mut Registry) {
    for (name, help, value) in [
        ("nats_connections", "Connected clients", varz.connections),
        ("nats_routes", "Connections to other nodes", varz.routes),
        ("nats_subscriptions", "Subscriptions", varz.subscriptions),
        ("nats_memory_bytes", "Memory of nats-server", varz.mem),
    ] {
        all.register(name, help, ConstGauge::new(value));
    }
    for (name, help, value) in [
        ("nats_in_messages", "Messages received", varz.in_msgs),
        ("nats_out_messages", "Messages sent", varz.out_msgs),
        ("nats_in_bytes", "Bytes received", varz.in_bytes),
        ("nats_out_bytes", "Bytes sent", varz.out_bytes),
        (
            "nats_slow_consumers",
            "Connections cut for not reading",
            varz.slow_consumers,
        ),
    ] {
        all.register(name, help, ConstCounter::new(value));
    }
}

fn register_streams(jsz: Jsz, all: &mut Registry) {
    let messages: Family<OfStream, Current> = Family::default();
    let bytes: Family<OfStream, Current> = Family::default();
    let last_sequence: Family<OfStream, Current> = Family::default();
    let lag: Family<OfReplica, Current> = Family::default();
    let storage = jsz.storage;
    for stream in jsz.streams() {
        let labels = OfStream {
            account: stream.account.clone(),
            stream: stream.name.clone(),
        };
        messages.get_or_create(&labels).set(stream.messages);
        bytes.get_or_create(&labels).set(stream.bytes);
        let last = stream.last_sequence;
        last_sequence.get_or_create(&labels).set(last);
        for node in stream.followers {
            let labels = OfReplica {
                account: stream.account.clone(),
                stream: stream.name.clone(),
                node: node.name,
            };
            lag.get_or_create(&labels).set(node.lag);
        }
    }
    let storage = ConstGauge::new(storage);
    let help = "What the streams take on this node's disk";
    all.register("nats_storage_bytes", help, storage);
    all.register("stream_messages", "Messages of a stream", messages);
    all.register("stream_bytes", "Bytes of a stream", bytes);
    let help = "Last sequence of a stream";
    all.register("stream_last_sequence", help, last_sequence);
    let help = "By how many entries another node's copy of a stream is behind";
    all.register("stream_lag", help, lag);
}

async fn ask<D: DeserializeOwned>(system: &Client, what: &str, options: &'static str) -> Option<D> {
    let server = system.server_info().server_id;
    let subject = format!("$SYS.REQ.SERVER.{server}.{what}");
    let answer = system.request(subject, Bytes::from_static(options.as_bytes()));
    let answer = tokio::time::timeout(TIMEOUT, answer).await.ok()?.ok()?;
    let answer: Answer<D> = serde_json::from_slice(&answer.payload).ok()?;
    answer.data
}
