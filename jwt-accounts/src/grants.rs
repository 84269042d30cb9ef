//! Which subjects each kind of client may use (DESIGN section 6).
//!
//! Devices are users of their own account, which reaches the org's by imports
//! only (see `accounts`); gateways are users of the org's account, relays of both.
//! A device never gets a `$JS.API` grant: `DIRECT.GET` cannot be restricted by
//! subject, so with it a device could read every room of a stream.

use sotto_proto::{
    DIRECTORY_STREAM, DIRECTORY_SUBJECT, DeviceId, INBOX_STREAM, LOCK_STREAM, LOCK_STREAM_SUBJECTS,
    SUBMISSIONS, Shard, Subject, Submission, blob_stream, limits, mail_stream, reply_prefix,
};

use crate::claims::{ConnectionType, Limit, Permissions, Rights, Subjects};
use crate::policy::RoomAccess;
use crate::push::PUSH_ACCOUNT;
use crate::status::ASK_ACCOUNTS;

/// Inbox prefix of every relay.
pub const RELAY_INBOX: &str = "_INBOX.relay";
/// Inbox prefix of every gateway.
pub const GATEWAY_INBOX: &str = "_INBOX.gateway";
/// Inbox prefix of whoever commands the server in the system account.
pub const SYSTEM_INBOX: &str = "_INBOX.system";

/// The handshakes of every room, where the gateway's removal orders go.
const ROOM_NOTICES: &str = "r.*.*.*.hs";

/// Where relays tell rooms who is there.
const PRESENCES: &str = "live.r.*.*.*.presence";
/// What relays store for devices.
const STORED: [&str; 4] = ["r.*.*.*.msg", "r.*.*.*.hs", "blob.*.*.*.*.*", "inbox.*"];

/// Subscriptions of a device beside those of its rooms: its inbox, and one for
/// each answer that it waits for.
const DEVICE_SUBSCRIPTIONS: u64 = 1_024;
/// Subscriptions of a relay or gateway.
const SERVICE_SUBSCRIPTIONS: u64 = 10_000;

/// What the relays and gateways of an org are there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Services<'a> {
    /// How many shards the relays keep.
    pub shards: u8,
    /// The key-value buckets that the gateways keep.
    pub buckets: &'a [&'a str],
}

/// What a device may do: ask relays under its own name to store something in
/// its rooms or in an inbox, and to send what is stored; say that it is there;
/// hear what is stored in its rooms and its inbox, and answers to itself. A
/// gated room has a subject of its own to ask the relay on: with the grant for
/// it the server vouches for what was proven.
pub fn device(device: DeviceId, rooms: &[RoomAccess]) -> Rights {
    let mut publish = vec![
        Submission::inboxes(device),
        Subject::Fetch(device).to_string(),
        Subject::Beacon(device).to_string(),
    ];
    let mut subscribe = vec![
        Subject::Inbox(device).live(),
        format!("{}.>", reply_prefix(device)),
    ];
    for RoomAccess {
        address,
        post,
        gated,
    } in rooms
    {
        subscribe.push(address.live_wildcard());
        if *post {
            publish.extend(address.submissions(device));
        }
        if *gated {
            publish.push(Subject::FetchRoom(device, address.room).to_string());
        }
    }
    // A room is one subscription, or two on a slow link.
    let subscriptions = DEVICE_SUBSCRIPTIONS.saturating_add(2 * rooms.len() as u64);
    rights(publish, subscribe, subscriptions)
}

/// What a relay may do in the org's account: keep and read its streams, the
/// directory's among them, store in them what devices submit, delete what every
/// device of a room has, and agree with other relays on locks. It cannot write
/// to the directory.
pub fn relay(shards: u8) -> Rights {
    let mut publish = vec!["$JS.API.INFO".to_owned()];
    publish.extend(STORED.map(str::to_owned));
    publish.push(LOCK_STREAM_SUBJECTS.to_owned());
    let shards = (0..shards).map(Shard);
    // What every device of a room has is deleted there.
    let purged = shards.clone().map(mail_stream);
    publish.extend(purged.map(|stream| format!("$JS.API.STREAM.PURGE.{stream}")));
    let mail_and_blobs = shards.flat_map(|shard| [mail_stream(shard), blob_stream(shard)]);
    let others = [INBOX_STREAM, DIRECTORY_STREAM, LOCK_STREAM].map(str::to_owned);
    for stream in mail_and_blobs.chain(others) {
        publish.extend(keep_and_read(&stream));
    }
    let subscribe = vec![directory_live(), format!("{RELAY_INBOX}.>")];
    rights(publish, subscribe, SERVICE_SUBSCRIPTIONS)
}

/// What a relay may do in the account of the org's devices: hear what they ask
/// for and submit and that they are there, answer below their own reply
/// prefixes, and tell rooms who is there.
pub fn relay_of_devices() -> Rights {
    let publish = ["_INBOX.*.>", PRESENCES].map(str::to_owned).to_vec();
    let subscribe = ["fetch.*", "fetch.*.*", "beacon.*", SUBMISSIONS].map(str::to_owned);
    rights(publish, subscribe.to_vec(), SERVICE_SUBSCRIPTIONS)
}

/// What a gateway may do: write the directory, use its own key-value buckets,
/// and tell rooms whom they are to remove. It can read no room.
pub fn gateway(buckets: &[&str]) -> Rights {
    let mut publish = vec!["$JS.API.INFO".to_owned(), DIRECTORY_SUBJECT.to_owned()];
    publish.push(ROOM_NOTICES.to_owned());
    publish.extend(keep_and_read(DIRECTORY_STREAM));
    for bucket in buckets {
        publish.extend(keep_and_read(&format!("KV_{bucket}")));
        publish.push(format!("$KV.{bucket}.>"));
    }
    let subscribe = vec![directory_live(), format!("{GATEWAY_INBOX}.>")];
    rights(publish, subscribe, SERVICE_SUBSCRIPTIONS)
}

/// What whoever runs the server may do in the system account: push accounts,
/// ask for the servers' state, take a server out of a cluster. A relay watches
/// its nats-server with it.
pub fn admin() -> Rights {
    let publish = ["$SYS.REQ.>", "$JS.API.SERVER.REMOVE"].map(str::to_owned);
    let publish = publish.to_vec();
    let subscribe = vec!["$SYS.>".to_owned(), format!("{SYSTEM_INBOX}.>")];
    rights(publish, subscribe, SERVICE_SUBSCRIPTIONS)
}

/// What a gateway may do in the system account: push accounts, and ask which
/// versions of them the servers hold.
pub fn gateway_of_system() -> Rights {
    let publish = [PUSH_ACCOUNT, ASK_ACCOUNTS].map(str::to_owned).to_vec();
    let subscribe = vec![format!("{SYSTEM_INBOX}.>")];
    rights(publish, subscribe, SERVICE_SUBSCRIPTIONS)
}

/// Where the directory's stream says that something was appended.
pub(crate) fn directory_live() -> String {
    format!("live.{DIRECTORY_SUBJECT}")
}

/// The JetStream calls that make, inspect and read one stream.
fn keep_and_read(stream: &str) -> [String; 6] {
    [
        format!("$JS.API.STREAM.INFO.{stream}"),
        format!("$JS.API.STREAM.CREATE.{stream}"),
        format!("$JS.API.STREAM.UPDATE.{stream}"),
        format!("$JS.API.STREAM.MSG.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}.>"),
    ]
}

fn rights(publish: Vec<String>, subscribe: Vec<String>, subscriptions: u64) -> Rights {
    Rights {
        permissions: Permissions {
            publish: Subjects::only(publish),
            subscribe: Subjects::only(subscribe),
        },
        subs: Limit::AtMost(subscriptions),
        payload: Limit::AtMost(limits::NATS_MESSAGE as u64),
        data: Limit::Unlimited,
        bearer_token: false,
        allowed_connection_types: vec![ConnectionType::Standard, ConnectionType::Websocket],
    }
}
