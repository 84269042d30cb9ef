//! What every kind of client can do on a real cluster of three nodes, cell by
//! cell against the policy, and what happens to those who try other things.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test, with functions of its own"
)]

mod server;

use std::collections::BTreeSet;
use std::fmt::Write;

use futures::TryStreamExt;
use nkeys::KeyPair;
use server::{Cluster, Directory, Person, Wire, now_ms};
use sotto_jwt_accounts::directory::{Actor, Command, Role, Scope};
use sotto_jwt_accounts::policy::{self, Post, Read};
use sotto_jwt_accounts::{Credentials, push_account};
use sotto_proto::wire::JoinRule;
use sotto_proto::{
    DIRECTORY_STREAM, DIRECTORY_SUBJECT, FileId, INBOX_STREAM, RoomAddress, RoomId, Subject,
    limits, reply_prefix,
};

/// The gateway's buckets in these tests.
const BUCKETS: [&str; 2] = ["accounts", "sessions"];

/// How the acknowledgement of a stored message begins.
const ACKNOWLEDGEMENT: &str = "{\"stream\":\"MAIL-0\"";

/// An org with somebody in every role, and a room in each of two projects.
struct Org {
    cluster: Cluster,
    directory: Directory,
    people: Vec<Person>,
    rooms: Vec<RoomAddress>,
}

impl Org {
    async fn new() -> Self {
        let cluster = Cluster::start().await;
        let mut directory = Directory::new();
        let field = Scope::Project("field".parse().unwrap());
        let office = Scope::Project("office".parse().unwrap());
        let project = "office".parse().unwrap();
        directory.run(&Actor::Gateway, Command::CreateProject { project });
        let people: Vec<Person> = [
            ("orgowner", Scope::Org, Role::Owner),
            ("orguser", Scope::Org, Role::User),
            ("fieldowner", field.clone(), Role::Owner),
            ("fielduser", field.clone(), Role::User),
            ("roomowner", field.clone(), Role::User),
            ("roomuser", field.clone(), Role::User),
            ("office", office.clone(), Role::Owner),
            ("nobody", field, Role::User),
            ("revoked", office, Role::Owner),
        ]
        .into_iter()
        .zip(1..)
        .map(|((name, scope, role), number)| {
            let person = Person::new(name, number);
            directory.enrol_as(&person, scope, role);
            person
        })
        .collect();
        let find = |name: &str| people.iter().find(|p| p.name.as_str() == name).unwrap();

        let team = directory.room(find("roomowner"), 51);
        let desk = directory.room_in(find("office"), "office", 52, JoinRule::Invite);
        let hall = directory.room_in(find("fieldowner"), "field", 53, JoinRule::Open);
        directory.run(
            &find("roomowner").actor(),
            Command::GrantRole {
                user: find("roomuser").name.clone(),
                scope: Scope::Room(team.room),
                role: Role::User,
            },
        );
        directory.run(
            &find("roomuser").actor(),
            Command::JoinRoom { room: hall.room },
        );
        let (user, scope) = (
            find("nobody").name.clone(),
            Scope::Project("field".parse().unwrap()),
        );
        let revoke = Command::RevokeRole { user, scope };
        directory.run(&Actor::Gateway, revoke);
        Self {
            cluster,
            directory,
            rooms: vec![team, desk, hall],
            people,
        }
    }

    fn person(&self, name: &str) -> &Person {
        let found = self.people.iter().find(|p| p.name.as_str() == name);
        found.unwrap()
    }

    fn jwt(&self, who: &Person) -> String {
        let access = policy::nats_access(&self.directory.state, who.device, now_ms()).unwrap();
        let signer = &self.cluster.signer;
        signer.device_jwt(&access, now_ms()).unwrap().jwt
    }

    /// A device of this person on one of the nodes.
    async fn device(&self, who: &Person, node: usize) -> Wire {
        let url = &self.cluster.nodes[node].url;
        Wire::connect(url, &self.jwt(who), &who.nats_key())
            .await
            .unwrap()
    }

    async fn service(&self, credentials: &Credentials, node: usize) -> Wire {
        let (jwt, key) = opened(credentials);
        let url = &self.cluster.nodes[node].url;
        Wire::connect(url, &jwt, &key).await.unwrap()
    }

    fn reads(&self, who: &Person, room: RoomId) -> bool {
        policy::check(&self.directory.state, &who.name, Read, &room).is_ok()
    }

    fn posts(&self, who: &Person, room: RoomId) -> bool {
        policy::check(&self.directory.state, &who.name, Post, &room).is_ok()
    }

    /// Whether the policy lets a device of this person do this.
    fn allows(&self, who: &Person, means: &Means) -> bool {
        match *means {
            Means::Post(room) => self.posts(who, room),
            Means::Read(room) => self.reads(who, room),
            Means::SendToInbox => true,
            Means::OwnOf(device) => device == who.device,
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
                attempts.push(publish(subject.to_string(), Means::Post(room)));
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
            attempts.push(publish(format!("r.{address}.other"), Means::Service));
            attempts.push(publish(format!("r.{address}.msg.more"), Means::Service));
        }
        for device in self.people.iter().map(|person| person.device) {
            let own = Means::OwnOf(device);
            let inbox = Subject::Inbox(device);
            let replies = reply_prefix(device);
            attempts.push(publish(inbox.to_string(), Means::SendToInbox));
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
            attempts.push(publish(format!("beacon.{device}"), Means::Service));
            for address in &self.rooms {
                let subject = Subject::FetchRoom(device, address.room).to_string();
                attempts.push(publish(subject, Means::Service));
            }
        }
        for subject in [
            ">",
            "*",
            "*.>",
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
        let mut relay: Vec<String> = owned(&["$JS.API.INFO"]);
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
                credentials: signer.relay(1, now_ms()).unwrap(),
                publish: relay,
                subscribe: owned(&["live.directory", "_INBOX.relay.>"]),
            },
            Service {
                name: "relay-dev",
                credentials: signer.relay_of_devices(now_ms()).unwrap(),
                publish: owned(&["_INBOX.*.>"]),
                subscribe: owned(&["fetch.*", "fetch.*.*"]),
            },
            Service {
                name: "gateway",
                credentials: signer.gateway(&BUCKETS, now_ms()).unwrap(),
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
    Post(RoomId),
    Read(RoomId),
    SendToInbox,
    /// What only this device is there for.
    OwnOf(sotto_proto::DeviceId),
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

#[tokio::test]
async fn nats_server_allows_just_what_the_policy_does() {
    let org = Org::new().await;
    let _streams = org.cluster.streams(3).await;
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
        let (_, (_, writer)) = devices.iter_mut().enumerate().find(writes).unwrap();
        writer
            .publish(&address.messages().to_string(), "last")
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

/// The server answers to whatever subject the sender names, with rights of its
/// own: that must not reach what is stored, or whoever serves.
#[tokio::test]
async fn no_answer_of_the_server_writes_for_anybody() {
    let org = Org::new().await;
    let mut streams = org.cluster.streams(3).await;
    let member = org.person("roomuser");
    let [team, desk, _] = &org.rooms[..] else {
        panic!("three rooms")
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
    let mut relay = org.service(&org.services()[1].credentials, 1).await;
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
    let [team, desk, _] = &org.rooms[..] else {
        panic!("three rooms")
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

/// From the directory's word to the closed connection, and staying out.
#[tokio::test]
async fn a_revoked_device_is_cut_off_on_every_node() {
    let mut org = Org::new().await;
    let cluster = &org.cluster;
    let revoked = org.person("revoked");
    let (jwt, key) = (org.jwt(revoked), revoked.nats_key());
    let mut wires = Vec::new();
    for node in &cluster.nodes {
        wires.push(Wire::connect(&node.url, &jwt, &key).await.unwrap());
    }
    let mut others = org.device(org.person("roomuser"), 1).await;
    let system = cluster.system(0).await;

    let start = tokio::time::Instant::now();
    let revoke = Command::RevokeDevice {
        device: revoked.device,
    };
    let actor = revoked.actor();
    org.directory.run(&actor, revoke);
    let cluster = &org.cluster;
    let voided = policy::revoked_nats_keys(&org.directory.state);
    let account = cluster
        .keys
        .revoke(&cluster.org, &voided, now_ms())
        .unwrap();
    push_account(&system, &account).await.unwrap();
    let pushed = start.elapsed();
    let closing = wires
        .iter_mut()
        .map(|wire| async move { (wire.closed().await, start.elapsed()) });
    let closed = futures::future::join_all(closing).await;
    for ((said, after), node) in closed.iter().zip(&cluster.nodes) {
        let said = said.as_ref().expect("the connection is closed");
        assert!(said.to_lowercase().contains("revoked"), "{said}");
        println!(
            "{}: pushed after {pushed:?}, closed after {after:?}",
            node.name
        );
        assert!(after.as_secs() < 1, "{}: {after:?}", node.name);
        assert!(Wire::connect(&node.url, &jwt, &key).await.is_err());
    }
    others.say(b"").await.unwrap();
}

/// The JWT and the key of a creds file.
fn opened(credentials: &Credentials) -> (String, KeyPair) {
    let lines: Vec<&str> = credentials.expose().lines().collect();
    (lines[1].to_owned(), KeyPair::from_seed(lines[5]).unwrap())
}
