//! From a request to what is to be read for it.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use prost::Message;
use sotto_jwt_accounts::directory::State;
use sotto_jwt_accounts::policy::{self, Asking, Permit, Proven, Read};
use sotto_proto::wire::{BlobRange, FetchRefusal, FetchRequest};
use sotto_proto::{DeviceId, FileId, RoomAddress, RoomId, Subject, limits, reply_prefix};

/// Longest request that is looked at, in bytes: the most rooms, and as much
/// again for files.
const REQUEST_MAX: usize = 128 * limits::FETCH_ROOMS;
/// Longest reply subject that is answered to, in bytes.
const REPLY_MAX: usize = 256;
/// Chunks that one request is answered with at most. What is asked beyond is
/// as beyond the byte limit: ask again.
const CHUNKS_MAX: usize = 1_024;

/// What to read, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The inbox, from after this sequence.
    pub inbox_after: Option<u64>,
    /// The rooms.
    pub rooms: Vec<RoomPlan>,
    /// The chunks of files.
    pub chunks: Vec<ChunkPlan>,
    /// Whether chunks were asked for that are not in `chunks`.
    pub more_chunks: bool,
    /// The chunks of which is asked only whether they are there.
    pub stored: Option<StoredPlan>,
    /// Rooms that this device is not served.
    pub refused_rooms: Vec<RoomId>,
    /// Payload bytes to answer with at most.
    pub max_bytes: usize,
}

/// Who asks and for what, by the subject of the request: nats-server let it
/// pass only because the device's JWT grants that subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The device.
    pub device: DeviceId,
    /// The one room that it may ask for, which demands factors: that it may
    /// ask here proves them. Without it, what demands none.
    pub gated: Option<RoomId>,
}

impl Origin {
    /// Reads the subject of a request.
    pub fn of(subject: &str) -> Option<Self> {
        match subject.parse().ok()? {
            Subject::Fetch(device) => Some(Self {
                device,
                gated: None,
            }),
            Subject::FetchRoom(device, room) => Some(Self {
                device,
                gated: Some(room),
            }),
            _ => None,
        }
    }

    fn covers(self, room: RoomId) -> bool {
        self.gated.is_none_or(|gated| gated == room)
    }
}

/// One room to read.
#[derive(Debug, PartialEq, Eq)]
pub struct RoomPlan {
    /// Where it is.
    pub address: RoomAddress,
    /// Of the device's user, to read just this room.
    pub permit: Permit<Read>,
    /// The last sequence of its messages that the device has.
    pub messages_after: u64,
    /// The last sequence of its handshakes that the device has.
    pub handshakes_after: u64,
}

/// One chunk to read.
#[derive(Debug, PartialEq, Eq)]
pub struct ChunkPlan {
    /// The room of its file.
    pub address: RoomAddress,
    /// Of the device's user, to read that room.
    pub permit: Permit<Read>,
    /// The file.
    pub file: FileId,
    /// Which chunk.
    pub index: u32,
}

/// Chunks to look for.
#[derive(Debug, PartialEq, Eq)]
pub struct StoredPlan {
    /// The room of their file.
    pub address: RoomAddress,
    /// Of the device's user, to read that room.
    pub permit: Permit<Read>,
    /// The file.
    pub file: FileId,
    /// Which chunks: of no more than a file may have.
    pub chunks: Range<u32>,
}

/// Whether an answer to `device` may go to `reply`: only below its own prefix,
/// which only it can subscribe to. Elsewhere a device could flood another one,
/// or put words into `live.…`.
pub fn is_own_reply(device: DeviceId, reply: &str) -> bool {
    let rest = reply
        .strip_prefix(&reply_prefix(device))
        .and_then(|rest| rest.strip_prefix('.'));
    rest.is_some_and(|rest| {
        let token = |token: &str| {
            !token.is_empty()
                && token
                    .bytes()
                    .all(|c| c.is_ascii_graphic() && !b"*>".contains(&c))
        };
        rest.len() <= REPLY_MAX && rest.split('.').all(token)
    })
}

/// What a device's request comes down to in this state of the directory. A
/// gated room has a subject of its own, and is refused on the common one.
///
/// # Errors
/// When the request is refused as a whole.
pub fn plan(
    origin: Origin,
    request: &Bytes,
    state: &State,
    now_ms: i64,
) -> Result<Plan, FetchRefusal> {
    let request = parse(request).ok_or(FetchRefusal::Malformed)?;
    let device = state
        .device(origin.device)
        .ok_or(FetchRefusal::UnknownDevice)?;
    let proven = match origin.gated {
        Some(_) => Proven::all(now_ms),
        None => Proven::none(),
    };
    let asking = Asking {
        user: &device.certificate.user,
        proven: &proven,
        now_ms,
    };

    let mut plan = Plan {
        inbox_after: request.inbox_after.filter(|_| origin.gated.is_none()),
        max_bytes: request.max_bytes as usize,
        ..Plan::default()
    };
    let mut refused = BTreeSet::new();
    let mut permitted = |room: RoomId| {
        let permit = origin
            .covers(room)
            .then(|| policy::check(state, asking, Read, &room).ok());
        match permit.flatten().zip(state.room(room)) {
            Some((permit, found)) => Some((permit, found.address.clone())),
            None => {
                refused.insert(room);
                None
            }
        }
    };
    for cursor in &request.rooms {
        if let Some((permit, address)) = permitted(cursor.room) {
            plan.rooms.push(RoomPlan {
                address,
                permit,
                messages_after: cursor.messages_after,
                handshakes_after: cursor.handshakes_after,
            });
        }
    }
    for range in &request.chunks {
        let Some((permit, address)) = permitted(range.room) else {
            continue;
        };
        for index in range.first..range.first.saturating_add(range.count) {
            if plan.chunks.len() == CHUNKS_MAX {
                plan.more_chunks = true;
                break;
            }
            plan.chunks.push(ChunkPlan {
                address: address.clone(),
                permit: permit.clone(),
                file: range.file,
                index,
            });
        }
    }
    if let Some(range) = &request.stored
        && let Some((permit, address)) = permitted(range.room)
    {
        plan.stored = Some(StoredPlan {
            address,
            permit,
            file: range.file,
            chunks: range.first..range.first.saturating_add(range.count),
        });
    }
    plan.refused_rooms = refused.into_iter().collect();
    Ok(plan)
}

/// A request whose every field is what it should be.
struct Request {
    rooms: Vec<Cursor>,
    inbox_after: Option<u64>,
    chunks: Vec<ChunkRange>,
    stored: Option<ChunkRange>,
    max_bytes: u32,
}

struct Cursor {
    room: RoomId,
    messages_after: u64,
    handshakes_after: u64,
}

struct ChunkRange {
    room: RoomId,
    file: FileId,
    first: u32,
    count: u32,
}

impl ChunkRange {
    fn parse(range: &BlobRange) -> Option<Self> {
        Some(Self {
            room: RoomId::try_from(&range.room).ok()?,
            file: FileId::try_from(&range.file).ok()?,
            first: range.first,
            count: range.count,
        })
    }
}

fn parse(request: &Bytes) -> Option<Request> {
    if request.len() > REQUEST_MAX {
        return None;
    }
    let request = FetchRequest::decode(request.clone()).ok()?;
    if request.rooms.len() > limits::FETCH_ROOMS || request.blobs.len() > limits::FETCH_ROOMS {
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut rooms = Vec::with_capacity(request.rooms.len());
    for cursor in &request.rooms {
        let room = RoomId::try_from(&cursor.room).ok()?;
        if !seen.insert(room) {
            return None;
        }
        rooms.push(Cursor {
            room,
            messages_after: cursor.messages_after,
            handshakes_after: cursor.handshakes_after,
        });
    }
    let chunks: Option<Vec<_>> = request.blobs.iter().map(ChunkRange::parse).collect();
    let chunks = chunks?;
    let stored = match &request.stored {
        None => None,
        // The answer is the last frame, and has it to itself.
        Some(_) if !(rooms.is_empty() && chunks.is_empty() && request.inbox_after.is_none()) => {
            return None;
        }
        Some(range) if range.count > limits::FILE_CHUNKS => return None,
        Some(range) => Some(ChunkRange::parse(range)?),
    };
    Some(Request {
        rooms,
        inbox_after: request.inbox_after,
        chunks,
        stored,
        max_bytes: request.max_bytes.min(limits::FETCH_BYTES),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;
    use sotto_jwt_accounts::directory::{Actor, Command, Event, InviteHash, Role, Scope, decide};
    use sotto_jwt_accounts::policy::LevelPolicy;
    use sotto_proto::UserName;
    use sotto_proto::signed::DeviceCertificate;
    use sotto_proto::wire::{self, JoinRule, RoomCursor};

    use super::*;

    const ALICE: [u8; 16] = [1; 16];
    const HERS: [u8; 16] = [11; 16];
    const HIS: [u8; 16] = [12; 16];

    fn device(id: [u8; 16]) -> DeviceId {
        DeviceId::try_from(&id[..]).unwrap()
    }

    fn room(id: [u8; 16]) -> RoomId {
        RoomId::try_from(&id[..]).unwrap()
    }

    fn run(state: &mut State, actor: &Actor, command: Command) {
        for change in decide(state, &actor.clone().into(), command, 0).unwrap() {
            let event = Event {
                index: 0,
                previous: None,
                at_ms: 0,
                actor: actor.clone(),
                change,
            };
            state.apply(&event).unwrap();
        }
    }

    /// Alice and Bob, each with a device and a room of their own.
    fn org() -> State {
        let mut state = State::default();
        let gateway = &Actor::Gateway;
        let found = Command::CreateOrg {
            org: "acme".parse().unwrap(),
            gateway_key: SigningKey::from_bytes(&[9; 32]).verifying_key(),
        };
        run(&mut state, gateway, found);
        let project = "field".parse().unwrap();
        run(&mut state, gateway, Command::CreateProject { project });
        for (name, number, hold) in [("alice", 1, HERS), ("bob", 2, HIS)] {
            let user: UserName = name.parse().unwrap();
            let invite = InviteHash([number; 32]);
            let issue = Command::IssueInvite {
                invite,
                expires_ms: 1,
                scope: Scope::Org,
                role: Role::Owner,
                for_user: None,
                guest_until_ms: None,
            };
            run(&mut state, gateway, issue);
            let identity = SigningKey::from_bytes(&[number; 32]);
            let certificate = DeviceCertificate {
                org: "acme".parse().unwrap(),
                user: user.clone(),
                device: device([number; 16]),
                identity_key: identity.verifying_key(),
                signature_key: SigningKey::from_bytes(&[number + 100; 32]).verifying_key(),
                nats_key: nkeys::KeyPair::new_user().public_key(),
                not_before_ms: 0,
                not_after_ms: 1,
            };
            let certificate = certificate.sign(&identity);
            let actor = Actor::User(user);
            run(
                &mut state,
                &actor,
                Command::Enrol {
                    invite,
                    certificate,
                },
            );
            let create = Command::CreateRoom {
                room: room(hold),
                project: "field".parse().unwrap(),
                join_rule: JoinRule::Invite,
                shards: std::num::NonZeroU8::MIN,
            };
            run(&mut state, &actor, create);
        }
        state
    }

    fn cursor(id: [u8; 16]) -> RoomCursor {
        RoomCursor {
            room: room(id).to_bytes(),
            messages_after: 3,
            handshakes_after: 4,
        }
    }

    fn range(id: [u8; 16], first: u32, count: u32) -> BlobRange {
        BlobRange {
            room: room(id).to_bytes(),
            file: room(id).to_bytes(),
            first,
            count,
        }
    }

    fn of(id: [u8; 16], gated: Option<RoomId>) -> Origin {
        let device = device(id);
        Origin { device, gated }
    }

    fn planned(request: &FetchRequest) -> Result<Plan, FetchRefusal> {
        plan(of(ALICE, None), &request.encode_to_vec().into(), &org(), 0)
    }

    #[test]
    fn own_rooms_are_planned_and_others_refused_once() {
        let request = FetchRequest {
            rooms: vec![cursor(HIS), cursor(HERS), cursor([99; 16])],
            blobs: vec![range(HIS, 0, 5), range(HERS, 7, 2)],
            inbox_after: Some(8),
            max_bytes: u32::MAX,
            stored: None,
        };
        let plan = planned(&request).unwrap();
        assert_eq!(plan.refused_rooms, [room(HIS), room([99; 16])]);
        let [hers] = plan.rooms.as_slice() else {
            panic!("{:?}", plan.rooms)
        };
        assert_eq!(
            (hers.address.room, hers.permit.object()),
            (room(HERS), &room(HERS))
        );
        assert_eq!((hers.messages_after, hers.handshakes_after), (3, 4));
        let indices: Vec<u32> = plan.chunks.iter().map(|chunk| chunk.index).collect();
        assert_eq!((indices, plan.more_chunks), (vec![7, 8], false));
        assert_eq!(plan.inbox_after, Some(8));
        assert_eq!(plan.max_bytes, limits::FETCH_BYTES as usize);
    }

    #[test]
    fn a_gated_room_is_served_on_its_own_subject_and_nothing_else_is_there() {
        let mut state = org();
        let demand = wire::Demand {
            actions: vec![wire::PolicyAction::Read.into()],
            factor: wire::Factor::Totp.into(),
            max_age_seconds: 600,
            ..wire::Demand::default()
        };
        let policy = wire::Policy {
            demands: vec![demand],
            cedar: String::new(),
        };
        let policy = LevelPolicy::try_from(policy).unwrap();
        let gate = Command::SetPolicy {
            scope: Scope::Room(room(HERS)),
            policy: Some(Arc::new(policy)),
        };
        run(&mut state, &Actor::Gateway, gate);
        let mut second = [0; 16];
        second[0] = 13;
        let alice = Actor::User("alice".parse().unwrap());
        let create = Command::CreateRoom {
            room: room(second),
            project: "field".parse().unwrap(),
            join_rule: JoinRule::Invite,
            shards: std::num::NonZeroU8::MIN,
        };
        run(&mut state, &alice, create);

        let request = FetchRequest {
            rooms: vec![cursor(HERS), cursor(second), cursor(HIS)],
            blobs: vec![range(HERS, 0, 1), range(second, 0, 1)],
            inbox_after: Some(8),
            max_bytes: u32::MAX,
            stored: None,
        };
        let request = request.encode_to_vec().into();
        for (gated, served, refused) in [
            (None, second, [HERS, HIS]),
            (Some(room(HERS)), HERS, [HIS, second]),
        ] {
            let plan = plan(of(ALICE, gated), &request, &state, 0).unwrap();
            let rooms: Vec<RoomId> = plan.rooms.iter().map(|r| r.address.room).collect();
            let chunks: Vec<RoomId> = plan.chunks.iter().map(|c| c.address.room).collect();
            assert_eq!((rooms, chunks), (vec![room(served)], vec![room(served)]));
            assert_eq!(plan.refused_rooms, refused.map(room));
            assert_eq!(plan.inbox_after.is_some(), gated.is_none());
        }
        // The subject proves factors, not a role.
        let stranger = plan(of(ALICE, Some(room(HIS))), &request, &state, 0).unwrap();
        assert!(stranger.rooms.is_empty());
    }

    #[test]
    fn only_fetch_subjects_have_an_origin() {
        let subject = Subject::FetchRoom(device(ALICE), room(HERS)).to_string();
        assert_eq!(Origin::of(&subject), Some(of(ALICE, Some(room(HERS)))));
        let subject = Subject::Fetch(device(ALICE)).to_string();
        assert_eq!(Origin::of(&subject), Some(of(ALICE, None)));
        let inbox = Subject::Inbox(device(ALICE)).to_string();
        for other in [inbox, format!("{subject}.x"), "fetch".to_owned()] {
            assert_eq!(Origin::of(&other), None);
        }
    }

    #[test]
    fn no_request_makes_the_relay_look_for_chunks_without_end() {
        let request = FetchRequest {
            blobs: vec![
                range(HERS, u32::MAX - 2, u32::MAX),
                range(HERS, 0, u32::MAX),
            ],
            ..FetchRequest::default()
        };
        let plan = planned(&request).unwrap();
        assert_eq!((plan.chunks.len(), plan.more_chunks), (CHUNKS_MAX, true));
    }

    #[test]
    fn an_unknown_device_is_refused() {
        let refusal = plan(of([77; 16], None), &Bytes::new(), &org(), 0);
        assert_eq!(refusal, Err(FetchRefusal::UnknownDevice));
    }

    #[test]
    fn a_request_that_breaks_a_limit_is_malformed() {
        let twice = FetchRequest {
            rooms: vec![cursor(HERS), cursor(HERS)],
            ..FetchRequest::default()
        };
        let many = FetchRequest {
            blobs: vec![range(HERS, 0, 1); limits::FETCH_ROOMS + 1],
            ..FetchRequest::default()
        };
        for request in [twice, many] {
            assert_eq!(planned(&request), Err(FetchRefusal::Malformed));
        }
    }

    #[test]
    fn the_largest_request_is_looked_at() {
        let id = |n: u16| {
            [&n.to_be_bytes()[..], &[1; 14]]
                .concat()
                .try_into()
                .unwrap()
        };
        let rooms = (0..limits::FETCH_ROOMS as u16).map(|n| RoomCursor {
            messages_after: u64::MAX,
            handshakes_after: u64::MAX,
            ..cursor(id(n))
        });
        let request = FetchRequest {
            rooms: rooms.collect(),
            blobs: vec![range(HERS, u32::MAX, u32::MAX); limits::FETCH_ROOMS],
            inbox_after: Some(u64::MAX),
            max_bytes: u32::MAX,
            stored: None,
        };
        assert!(planned(&request).is_ok());
    }

    #[test]
    fn only_a_devices_own_prefix_is_answered_to() {
        let own = reply_prefix(device(ALICE));
        for good in [format!("{own}.a"), format!("{own}.a.b-c_d")] {
            assert!(is_own_reply(device(ALICE), &good), "{good}");
        }
        let other = reply_prefix(device([2; 16]));
        for bad in [
            String::new(),
            own.clone(),
            format!("{own}."),
            format!("{own}x.a"),
            format!("{own}.*"),
            format!("{own}.a.>"),
            format!("{own}.a..b"),
            format!("{own}.a b"),
            format!("{own}.a\r\nPUB x"),
            format!("{own}.{}", "a".repeat(300)),
            format!("{other}.a"),
            "live.r.0.field.x.msg".to_owned(),
        ] {
            assert!(!is_own_reply(device(ALICE), &bad), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_planned_or_refused(bytes: Vec<u8>) {
            let bytes = bytes.into();
            for gated in [None, Some(room(HERS))] {
                let _ = plan(of(ALICE, gated), &bytes, &State::default(), 0);
            }
        }
    }
}
