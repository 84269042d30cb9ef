//! What goes into the engine and what comes out of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use sotto_proto::refusals::Refusal;
use sotto_proto::wire::{self, FetchFrame, FetchRequest};
use sotto_proto::{DeviceId, FileId, ProjectName, RoomAddress, RoomId, Subject, UserName};

use crate::pace::Pace;
use crate::store::WriteBatch;

/// Milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// Which of the shell's commands an event answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Which publish an answer belongs to. Never reused while an engine lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishId(pub u64);

/// Which gateway call an answer belongs to. Never reused while an engine lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Something that happened outside.
#[derive(Debug, Clone)]
pub enum Input {
    /// NATS is connected, and `live.…` of the rooms and of the inbox is
    /// subscribed.
    Online {
        /// What the connection may do.
        grants: Grants,
        /// How slow it is.
        pace: Pace,
    },
    /// The connection is gone; no answer to anything outstanding will come.
    Offline,
    /// A republished message.
    Live(LiveMessage),
    /// A part of the answer to [`Output::Fetch`].
    Fetched(FetchFrame),
    /// The answer to [`Output::Fetch`] did not come, or not in whole.
    FetchFailed,
    /// The stream stored a [`Publish`].
    Published {
        /// Which one.
        id: PublishId,
        /// Its sequence in the stream.
        sequence: u64,
    },
    /// A [`Publish`] was not, or perhaps not, stored.
    PublishFailed {
        /// Which one.
        id: PublishId,
        /// Why.
        failure: PublishFailure,
    },
    /// The gateway answered an [`Output::Call`], or did not.
    Answered {
        /// Which call.
        id: CallId,
        /// The encoded answer.
        answer: Result<Bytes, CallFailure>,
    },
    /// What [`Output::Recall`] asked for.
    Recalled {
        /// As asked.
        room: RoomId,
        /// As asked.
        recall: Recall,
        /// From [`crate::engine::Engine::recall`].
        entries: Vec<Recalled>,
    },
    /// A relay says who is there.
    Presence {
        /// In which room.
        room: RoomId,
        /// Who.
        device: DeviceId,
        /// Whether it is there, or is not any more.
        here: bool,
    },
    /// A person wants something; [`Event::Done`] or [`Event::Failed`] follows,
    /// at once or when it is durable at the server.
    Command(Ticket, Command),
    /// Some seconds went by; what failed for a while is tried again.
    Tick,
}

/// What the JWT in force grants.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// The rooms.
    pub rooms: Vec<RoomAddress>,
    /// Of these, the ones that demand factors: each is fetched on a subject of
    /// its own.
    pub gated: BTreeSet<RoomId>,
    /// Rooms of the user that are not granted until factors are proven.
    pub withheld: BTreeMap<RoomId, FactorNeeded>,
}

impl Grants {
    /// Reads the gateway's answer; what makes no sense in it is left out.
    pub fn of(jwt: &wire::Jwt) -> Self {
        let withheld = |withheld: &wire::WithheldRoom| {
            let address = RoomAddress::try_from(withheld.room.as_ref()?).ok()?;
            let missing = withheld.missing.iter().take(FactorNeeded::MOST);
            let needed = FactorNeeded {
                sentence: WITHHELD.to_owned(),
                missing: missing.cloned().collect(),
            };
            Some((address.room, needed))
        };
        let address = |room| RoomAddress::try_from(room).ok();
        let gated = jwt.gated_rooms.iter();
        Self {
            rooms: jwt.rooms.iter().filter_map(address).collect(),
            gated: gated
                .filter_map(|room| RoomId::try_from(room).ok())
                .collect(),
            withheld: jwt.withheld.iter().filter_map(withheld).collect(),
        }
    }
}

const WITHHELD: &str = "this room is closed to you until you prove more than your device; what you say meanwhile is kept here, and sent then";

/// A message as the stream republished it, from the `Nats-…` headers.
#[derive(Debug, Clone)]
pub struct LiveMessage {
    /// The subject without `live.`.
    pub subject: Subject,
    /// `Nats-Sequence`.
    pub sequence: u64,
    /// `Nats-Last-Sequence`: the one before on the same subject; 0 for none.
    pub last_sequence: u64,
    /// `Nats-Time-Stamp`.
    pub stored_at: Timestamp,
    /// The payload.
    pub payload: Bytes,
}

/// Why a publish did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishFailure {
    /// The expected last sequence was not the last (error 10071).
    Conflict,
    /// The server's permissions forbid it.
    Denied,
    /// The relay or JetStream does not take it.
    Refused(Refusal),
    /// No answer came: it may or may not be stored.
    Lost,
}

/// Why a gateway call did not succeed.
#[derive(Debug, Clone)]
pub enum CallFailure {
    /// The gateway said no.
    Refused(wire::ApiError),
    /// No, or no sensible, answer came.
    Unreachable,
}

/// The gateway's word that factors must be proven first.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct FactorNeeded {
    /// What is wrong and what to do.
    pub sentence: String,
    /// Each factor, with the level that demands it: prove all of these. At most
    /// [`FactorNeeded::MOST`].
    pub missing: Vec<wire::MissingFactor>,
}

impl FactorNeeded {
    /// Factors that are named at most; a gateway that names more is cut short.
    pub const MOST: usize = 64;

    /// Reads an error of the gateway; `None` when it is about something else.
    pub fn of(error: &wire::ApiError) -> Option<Self> {
        (error.code() == wire::ApiErrorCode::FactorNeeded).then(|| Self {
            sentence: error.message.clone(),
            missing: error.missing.iter().take(Self::MOST).cloned().collect(),
        })
    }
}

/// What a person can ask for.
#[derive(Debug, Clone)]
pub enum Command {
    /// Makes a room; done when its creator can write to it, or could when they
    /// prove what the room's policy demands.
    CreateRoom {
        /// Where in the org.
        project: ProjectName,
        /// What members call it.
        name: String,
        /// Who may join.
        join_rule: wire::JoinRule,
    },
    /// Gives a user a role in a room and adds all of their devices; done when
    /// the commit is stored and the Welcomes are on their way.
    Invite {
        /// The room.
        room: RoomId,
        /// Whom.
        user: UserName,
        /// As what.
        role: wire::Role,
    },
    /// Joins an open room; done when the commit is stored.
    Join {
        /// The room.
        room: RoomId,
    },
    /// Queues texts, all or none; [`Event::Queued`] says that they are durable
    /// here, done that all are durable at the server.
    SendTexts {
        /// The room.
        room: RoomId,
        /// Each at most [`sotto_proto::limits::TEXT`] bytes and not empty.
        texts: Vec<String>,
    },
    /// Remembers a file to send, as a copy when this device has sent the same
    /// content before; answered by [`Event::UploadBegun`], then done.
    BeginUpload(NewUpload),
    /// The file's chunks below `next` are stored. With `next` = all chunks the
    /// file's message is queued and the upload forgotten, in one write; done
    /// when the message is durable at the server.
    AdvanceUpload {
        /// Which upload.
        file: FileId,
        /// The first chunk that is not stored yet.
        next: u32,
    },
    /// The server does not copy what this upload is a copy of: it is to be
    /// uploaded like any other, from the first chunk; done at once.
    UploadInstead {
        /// Which upload.
        file: FileId,
    },
    /// Forgets an upload, for instance because the file changed; done at once.
    CancelUpload {
        /// Which upload.
        file: FileId,
    },
    /// Brings a device of the same user, just enrolled, into every room that
    /// this one is in; done when it is in all of them.
    AdmitDevice {
        /// Which.
        device: DeviceId,
    },
    /// Takes a device that was just revoked out of every room where this device
    /// may: those of the same user anywhere, others where the user is an owner;
    /// done when it is in none of them.
    DismissDevice {
        /// Which.
        device: DeviceId,
    },
    /// Everything in the room's history before this position was shown; done
    /// at once.
    MarkRead {
        /// The room.
        room: RoomId,
        /// The first position that was not shown yet.
        position: u64,
    },
}

/// A file to send.
#[derive(Debug, Clone)]
pub struct NewUpload {
    /// The room.
    pub room: RoomId,
    /// What receivers see; at most [`sotto_proto::limits::DISPLAY_NAME`] bytes.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// Of its content.
    pub sha256: [u8; 32],
    /// Where the shell finds it again after a restart.
    pub path: String,
}

/// What the shell must do. Drain all of them, in order, after every input; an
/// output that comes after a [`Output::Persist`] must not be acted on before
/// that batch is durable.
#[derive(Debug)]
pub enum Output {
    /// Commit this to the store. When that fails, drop the engine and open a
    /// new one from the store.
    Persist(WriteBatch),
    /// Publish this to JetStream and answer with [`Input::Published`] or
    /// [`Input::PublishFailed`]. Several may be outstanding; keep their order.
    Publish(Publish),
    /// Send this to a `fetch.…` subject of the device and answer with
    /// [`Input::Fetched`]. One is outstanding at a time.
    Fetch {
        /// The gated room that it is about; absent: the device's common subject.
        gated: Option<RoomId>,
        /// The request.
        request: FetchRequest,
    },
    /// `POST` this to the gateway, with the session, and answer with
    /// [`Input::Answered`].
    Call {
        /// To be repeated in the answer.
        id: CallId,
        /// From `sotto_proto::api`.
        path: &'static str,
        /// The encoded request.
        body: Bytes,
    },
    /// The grants have changed: get a new JWT, connect with it, subscribe, and
    /// say [`Input::Online`] again.
    RefreshGrants,
    /// Read own entries with [`crate::engine::Engine::recall`] and answer with
    /// [`Input::Recalled`]: somebody lacks them.
    Recall {
        /// Of which room.
        room: RoomId,
        /// Which.
        recall: Recall,
    },
    /// Publish this on the device's beacon subject, if there is a connection;
    /// nothing answers.
    Beacon(wire::Beacon),
    /// Something for the person.
    Event(Event),
}

/// Which own entries are to be said again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recall {
    /// By their counters.
    Counters {
        /// The first.
        from: u64,
        /// The last.
        through: u64,
    },
    /// What was stored after this sequence, the newest at most.
    After {
        /// The last sequence that the stream still has.
        sequence: u64,
    },
}

/// An own entry, to be said again.
#[derive(Debug, Clone)]
pub struct Recalled {
    /// Of the newest frame that carried it.
    pub epoch: u64,
    /// The entry.
    pub entry: wire::Entry,
}

/// A message for JetStream.
#[derive(Debug, Clone)]
pub struct Publish {
    /// To be repeated in the answer.
    pub id: PublishId,
    /// Where to.
    pub subject: Subject,
    /// For the header `Nats-Msg-Id`.
    pub message_id: String,
    /// For the header `Nats-Expected-Last-Subject-Sequence`.
    pub expected_last_sequence: Option<u64>,
    /// The body.
    pub payload: Bytes,
}

/// Something that a person may want to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The command did all that it should.
    Done {
        /// Which command.
        ticket: Ticket,
        /// The room that it made or changed.
        room: Option<RoomId>,
    },
    /// The command did not, and will not, do what it should.
    Failed {
        /// Which command.
        ticket: Ticket,
        /// One sentence: what is wrong and what to do.
        reason: String,
        /// What must be proven first, when that is why.
        factor_needed: Option<FactorNeeded>,
        /// What the server does not take, when that is why; it stays queued.
        refusal: Option<Refusal>,
    },
    /// Texts are durable on this device under these counters (inclusive).
    Queued {
        /// Which command.
        ticket: Ticket,
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The upload is remembered: publish its chunks.
    UploadBegun {
        /// Which command.
        ticket: Ticket,
        /// Its id.
        file: FileId,
    },
    /// Own entries up to this counter are durable at the server.
    Sent {
        /// The room.
        room: RoomId,
        /// The newest counter.
        through: u64,
    },
    /// The room's history has grown to this many records.
    Received {
        /// The room.
        room: RoomId,
        /// The length of the history.
        length: u64,
    },
    /// This device has become a member of a room.
    Joined {
        /// The room.
        room: RoomId,
    },
    /// This device is no longer a member of a room.
    Removed {
        /// The room.
        room: RoomId,
    },
    /// Everything that the server had when asked is stored here.
    CaughtUp {
        /// How many requests it took.
        requests: u32,
    },
    /// A user's identity key is not the one seen before. Nothing is shared
    /// with the new one.
    IdentityChanged {
        /// Whose.
        user: UserName,
    },
    /// Somebody said something that did not come; the history says so, too. It
    /// is asked for, and may still come.
    Missing {
        /// The room.
        room: RoomId,
        /// Who said it.
        user: UserName,
        /// On which device.
        device: DeviceId,
        /// The first counter.
        from: u64,
        /// The last.
        through: u64,
    },
    /// A device said different things to different members under one number;
    /// the history says so, too.
    Contradicted {
        /// The room.
        room: RoomId,
        /// Whose device.
        user: UserName,
        /// Which.
        device: DeviceId,
        /// The number.
        counter: u64,
    },
    /// The server has lost the end of the room's stream. What this device said
    /// there is sent again, and the history says so.
    Rewound {
        /// The room.
        room: RoomId,
        /// The last sequence that is left.
        last_sequence: u64,
    },
    /// Somebody is there, or not any more, as the server says.
    Presence {
        /// In which room.
        room: RoomId,
        /// Who.
        user: UserName,
        /// On which device.
        device: DeviceId,
        /// Whether they are there.
        here: bool,
    },
    /// The server does not take what was said, for now: it stays queued.
    Held {
        /// The room.
        room: RoomId,
        /// Why.
        refusal: Refusal,
    },
    /// Whoever runs the server stepped in, by an entry of the directory's log
    /// that the gateway signed; said once per entry.
    Intervened {
        /// Its place in the log.
        index: u64,
        /// When.
        at: Timestamp,
        /// What was done, and why.
        what: wire::OperatorIntervened,
    },
    /// A stored message could not be used and was passed over.
    Skipped {
        /// The room.
        room: RoomId,
        /// Its stream sequence.
        sequence: u64,
        /// Why.
        reason: String,
    },
}
