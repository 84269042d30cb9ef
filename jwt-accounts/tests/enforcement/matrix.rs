//! The table: who, by which verb, on which subject.

use std::fmt::Write;

use sotto_jwt_accounts::Credentials;
use sotto_proto::{
    DIRECTORY_STREAM, DIRECTORY_SUBJECT, DeviceId, FileId, INBOX_STREAM, RoomId, Subject,
    Submission, reply_prefix,
};

use crate::org::Org;
use crate::server::{Person, Wire, now_ms, submission};

/// The gateway's buckets here.

#[tokio::test]
async fn nats_server_allows_just_what_the_policy_does() {
    let org = Org::new().await;
    let _streams = org.cluster.streams(3).await;
    org.cluster.store_submissions(1).await;
    org.is_varied();
    let attempts = org.attempts();
    let mut table = Table::new(&attempts);
    let mut devices = Vec::new();
    for (number, person) in org.people.iter().enumerate() {
        let mut wire = org.device(person, number % 3).await;
        table.columns.push(person.name.to_string());
        for (tried, (_, row)) in attempts.iter().zip(&mut table.rows) {
            let done = attempt(&mut wire, tried).await;
            row.push((done, org.allows(person, &tried.means)));
        }
        devices.push((person, wire));
    }
    for service in org.services() {
        let mut wire = org.service(&service.credentials, 1).await;
        table.columns.push(service.name.to_owned());
        for (tried, (_, row)) in attempts.iter().zip(&mut table.rows) {
            let patterns = match tried.verb {
                Verb::Publish => &service.publish,
                Verb::Subscribe => &service.subscribe,
            };
            let done = attempt(&mut wire, tried).await;
            let should = patterns.iter().any(|p| covers(p, &tried.subject));
            row.push((done, should));
        }
    }
    let cells = table.checked();
    assert!(cells > 2_000, "{cells} cells");

    // What a room's member writes now is heard by who may read, and by no one else.
    for address in &org.rooms {
        let room = address.room;
        let writes = |(_, (person, _)): &(usize, &mut (&Person, Wire))| org.posts(person, room);
        let Some((_, (person, writer))) = devices.iter_mut().enumerate().find(writes) else {
            // Nobody writes to what is archived.
            continue;
        };
        writer
            .publish(&submission(person.device, address.messages()), "last")
            .await
            .unwrap();
        for (person, wire) in &mut devices {
            if org.reads(person, room) {
                let live = address.messages().live();
                let heard = wire
                    .hear(|h| h.subject == live && h.payload == "last")
                    .await;
                assert!(heard.is_some(), "{} misses {live}", person.name);
            }
        }
    }
    for (person, wire) in &mut devices {
        wire.say(b"").await.unwrap();
        let own_replies = format!("{}.", reply_prefix(person.device));
        let live = wire
            .heard
            .iter()
            .filter(|heard| !heard.subject.starts_with(&own_replies));
        for heard in live {
            let subject = Subject::from_live(&heard.subject).unwrap();
            let fits = match &subject {
                Subject::Messages(address) | Subject::Handshakes(address) => {
                    org.reads(person, address.room)
                }
                Subject::Inbox(device) => *device == person.device,
                _ => false,
            };
            assert!(fits, "{} heard {}", person.name, heard.subject);
        }
    }
}

impl Org {
    /// The table would say little if everybody could do the same.
    fn is_varied(&self) {
        let [team, .., archive] = &self.rooms[..] else {
            panic!("five rooms")
        };
        let user = self.person("roomuser");
        assert!(self.reads(user, archive.room) && !self.posts(user, archive.room));
        for name in ["guest", "ingroup"] {
            assert!(self.posts(self.person(name), team.room), "{name}");
        }
    }

    /// Whether the policy lets a device of this person do this.
    fn allows(&self, who: &Person, means: &Means) -> bool {
        match *means {
            Means::Post(device, room) => device == who.device && self.posts(who, room),
            Means::Read(room) => self.reads(who, room),
            Means::OwnOf(device) => device == who.device,
            Means::Gated(device, room) => device == who.device && self.gated(who, room),
            Means::Service => false,
        }
    }

    /// Every subject of DESIGN section 6, and those that nobody needs.
    fn attempts(&self) -> Vec<Attempt> {
        let file = FileId::try_from(&[5; 16][..]).unwrap();
        let mut attempts = Vec::new();
        for address in &self.rooms {
            let room = address.room;
            for subject in [
                address.messages(),
                address.handshakes(),
                address.blob(file, 0),
            ] {
                attempts.push(publish(subject.to_string(), Means::Service));
                for device in self.people.iter().map(|person| person.device) {
                    let subject = submission(device, subject.clone());
                    attempts.push(publish(subject, Means::Post(device, room)));
                }
                attempts.push(publish(subject.live(), Means::Service));
                attempts.push(subscribe(subject.to_string(), Means::Service));
            }
            for live in [
                address.live_wildcard(),
                format!("live.r.{address}.>"),
                address.messages().live(),
                address.handshakes().live(),
            ] {
                attempts.push(subscribe(live, Means::Read(room)));
            }
            let presence = Subject::Presence(address.clone()).to_string();
            attempts.push(publish(presence, Means::Service));
            attempts.push(publish(format!("r.{address}.other"), Means::Service));
            attempts.push(publish(format!("r.{address}.msg.more"), Means::Service));
        }
        for device in self.people.iter().map(|person| person.device) {
            let own = Means::OwnOf(device);
            let inbox = Subject::Inbox(device);
            let replies = reply_prefix(device);
            attempts.push(publish(inbox.to_string(), Means::Service));
            attempts.push(publish(submission(device, inbox.clone()), own));
            let victim = Subject::Inbox(self.people[0].device);
            attempts.push(publish(submission(device, victim), own));
            attempts.push(subscribe(Submission::inboxes(device), Means::Service));
            attempts.push(publish(inbox.live(), Means::Service));
            attempts.push(subscribe(inbox.to_string(), Means::Service));
            attempts.push(subscribe(inbox.live(), own));
            attempts.push(publish(Subject::Fetch(device).to_string(), own));
            attempts.push(subscribe(
                Subject::Fetch(device).to_string(),
                Means::Service,
            ));
            attempts.push(publish(format!("{replies}.x.1"), Means::Service));
            attempts.push(subscribe(format!("{replies}.>"), own));
            attempts.push(subscribe(format!("{replies}.x"), own));
            attempts.push(publish(Subject::Beacon(device).to_string(), own));
            for address in &self.rooms {
                let subject = Subject::FetchRoom(device, address.room).to_string();
                attempts.push(publish(subject, Means::Gated(device, address.room)));
            }
        }
        for subject in [
            ">",
            "*",
            "*.>",
            "in.>",
            "in.*.r.>",
            "r.>",
            "r.*.*.*.msg",
            "r.*.*.*.hs",
            "live.>",
            "live.r.>",
            "live.r.*.*.*.*",
            "live.inbox.*",
            "live.directory",
            "inbox.>",
            "blob.>",
            "fetch.>",
            "fetch.*",
            "fetch.*.*",
            "beacon.*",
            "directory",
            "_INBOX.>",
            "_INBOX.relay.>",
            "_INBOX.gateway.>",
            "_INBOX.system.>",
            "_R_.>",
            "_R_.x.y",
            "_GR_.>",
            "$JS.>",
            "$JS.API.>",
            "$JS.API.INFO",
            "$JS.API.STREAM.LIST",
            "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.INFO.MAIL-0",
            "$JS.API.STREAM.CREATE.MAIL-0",
            "$JS.API.STREAM.UPDATE.MAIL-0",
            "$JS.API.STREAM.DELETE.MAIL-0",
            "$JS.API.STREAM.PURGE.MAIL-0",
            "$JS.API.STREAM.MSG.GET.MAIL-0",
            "$JS.API.STREAM.MSG.DELETE.MAIL-0",
            "$JS.API.DIRECT.GET.MAIL-0",
            "$JS.API.DIRECT.GET.MAIL-0.r.0.field.x.msg",
            "$JS.API.DIRECT.GET.DIRECTORY",
            "$JS.API.DIRECT.GET.KV_accounts",
            "$JS.API.DIRECT.GET.KV_sessions.$KV.sessions.x",
            "$JS.API.STREAM.MSG.GET.KV_others",
            "$JS.API.CONSUMER.CREATE.MAIL-0",
            "$JS.API.CONSUMER.CREATE.MAIL-0.x.>",
            "$JS.API.CONSUMER.DURABLE.CREATE.INBOX.x",
            "$JS.ACK.MAIL-0.x.1.1.1.1.1",
            "$JS.FC.MAIL-0.x",
            "$JS.EVENT.>",
            "$JSC.>",
            "$NRG.>",
            "$KV.accounts.bob",
            "$KV.others.x",
            "$KV.>",
            "$O.files.x",
            "$G.>",
            "$SYS.>",
            "$SYS.ACCOUNT.>",
            "$SYS.REQ.CLAIMS.UPDATE",
            "$SYS.REQ.USER.INFO",
            "$SYS.REQ.ACCOUNT.PING.CONNZ",
            "$SYS.REQ.SERVER.PING",
            "$SRV.PING",
        ] {
            attempts.push(subscribe(subject.to_owned(), Means::Service));
            // Published, a wildcard would be an ordinary token: the rooms and
            // inboxes of nobody. What servers hear there is in the other tests.
            if !subject.contains(['*', '>']) && !subject.starts_with("$SYS.REQ") {
                attempts.push(publish(subject.to_owned(), Means::Service));
            }
        }
        attempts
    }

    /// What relays, gateways and administrators are for.
    fn services(&self) -> [Service; 4] {
        let signer = &self.cluster.signer;
        let stream = |name: &str| {
            [
                format!("$JS.API.STREAM.INFO.{name}"),
                format!("$JS.API.STREAM.CREATE.{name}"),
                format!("$JS.API.STREAM.UPDATE.{name}"),
                format!("$JS.API.STREAM.MSG.GET.{name}"),
                format!("$JS.API.DIRECT.GET.{name}"),
                format!("$JS.API.DIRECT.GET.{name}.>"),
            ]
        };
        let owned = |subjects: &[&str]| subjects.iter().map(|s| (*s).to_owned()).collect();
        let relay_streams = ["MAIL-0", "BLOB-0", INBOX_STREAM, DIRECTORY_STREAM];
        let gateway_streams = [DIRECTORY_STREAM, "KV_accounts", "KV_sessions"];
        let mut relay: Vec<String> = owned(&[
            "$JS.API.INFO",
            "r.*.*.*.msg",
            "r.*.*.*.hs",
            "blob.*.*.*.*.*",
            "inbox.*",
            "$JS.API.STREAM.PURGE.MAIL-0",
        ]);
        relay.extend(relay_streams.iter().flat_map(|name| stream(name)));
        let mut gateway: Vec<String> = owned(&[
            "$JS.API.INFO",
            DIRECTORY_SUBJECT,
            "r.*.*.*.hs",
            "$KV.accounts.>",
            "$KV.sessions.>",
        ]);
        gateway.extend(gateway_streams.iter().flat_map(|name| stream(name)));
        [
            Service {
                name: "relay",
                credentials: signer.relay(now_ms()).unwrap(),
                publish: relay,
                subscribe: owned(&["live.directory", "_INBOX.relay.>"]),
            },
            Service {
                name: "relay-dev",
                credentials: signer.relay_of_devices().unwrap(),
                publish: owned(&["_INBOX.*.>", "live.r.*.*.*.presence"]),
                subscribe: owned(&["fetch.*", "fetch.*.*", "beacon.*", "in.>"]),
            },
            Service {
                name: "gateway",
                credentials: signer.gateway(now_ms()).unwrap(),
                publish: gateway,
                subscribe: owned(&["live.directory", "_INBOX.gateway.>"]),
            },
            Service {
                name: "system",
                credentials: self.cluster.keys.system_credentials(now_ms()).unwrap(),
                publish: owned(&["$SYS.REQ.>"]),
                subscribe: owned(&["$SYS.>", "_INBOX.system.>"]),
            },
        ]
    }
}

/// A client that serves, and what it is for, in patterns.
struct Service {
    name: &'static str,
    credentials: Credentials,
    publish: Vec<String>,
    subscribe: Vec<String>,
}

struct Attempt {
    verb: Verb,
    subject: String,
    means: Means,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verb {
    Publish,
    Subscribe,
}

/// What doing it comes to.
#[derive(Clone, Copy)]
enum Means {
    /// Asking a relay, by this device, to store something in the room.
    Post(DeviceId, RoomId),
    Read(RoomId),
    /// What only this device is there for.
    OwnOf(DeviceId),
    /// Asking the relay, by this device, for a room that demands factors.
    Gated(DeviceId, RoomId),
    /// What no device may do.
    Service,
}

fn publish(subject: String, means: Means) -> Attempt {
    Attempt {
        verb: Verb::Publish,
        subject,
        means,
    }
}

fn subscribe(subject: String, means: Means) -> Attempt {
    Attempt {
        verb: Verb::Subscribe,
        subject,
        means,
    }
}

/// Whether nats-server takes `asked` for one of `pattern`: token by token,
/// where `>` is one like any other, so that `a.*` lets `a.>` through. No grant
/// of ours ends in `*` with anything below it.
fn covers(pattern: &str, asked: &str) -> bool {
    let (mut pattern, mut asked) = (pattern.split('.'), asked.split('.'));
    loop {
        match (pattern.next(), asked.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Tries it, as a queue subscription too.
async fn attempt(wire: &mut Wire, attempt: &Attempt) -> bool {
    let subject = &attempt.subject;
    let refused = |answer: Result<(), String>| match answer {
        Ok(()) => false,
        Err(error) => {
            assert!(
                error.contains("Permissions Violation"),
                "{subject}: {error}"
            );
            true
        }
    };
    match attempt.verb {
        Verb::Publish => !refused(wire.publish(subject, "tried").await),
        Verb::Subscribe => {
            let plain = refused(wire.subscribe(subject).await);
            let queued = refused(wire.queue_subscribe(subject, "relay").await);
            assert_eq!(plain, queued, "{subject}, in a queue");
            !plain
        }
    }
}

/// What was tried and what came of it, and the same as it should be.
#[derive(Default)]
struct Table {
    columns: Vec<String>,
    rows: Vec<(String, Vec<(bool, bool)>)>,
}

impl Table {
    fn new(attempts: &[Attempt]) -> Self {
        let name = |attempt: &Attempt| format!("{:?} {}", attempt.verb, attempt.subject);
        Self {
            columns: Vec::new(),
            rows: attempts.iter().map(|a| (name(a), Vec::new())).collect(),
        }
    }

    /// How many cells there are, when every one is as it should be.
    fn checked(&self) -> usize {
        let mut text = format!("{:70} {}\n", "", self.columns.join(" "));
        let mut wrong = 0;
        for (name, cells) in &self.rows {
            write!(text, "{name:70}").unwrap();
            for ((is, should), column) in cells.iter().zip(&self.columns) {
                let shown = match (is, should) {
                    (true, true) => "yes",
                    (false, false) => "-",
                    (true, false) => "YES!",
                    (false, true) => "NO!",
                };
                wrong += usize::from(is != should);
                write!(text, " {shown:width$}", width = column.len()).unwrap();
            }
            text.push('\n');
        }
        assert_eq!(wrong, 0, "cells differ from the policy:\n{text}");
        self.rows.iter().map(|(_, cells)| cells.len()).sum()
    }
}
