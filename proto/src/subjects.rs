//! NATS subjects and stream names of one org's account (DESIGN section 6).

use std::fmt;
use std::str::FromStr;

use crate::wire;
use crate::{DeviceId, FileId, IdError, NameError, ProjectName, RoomId, Shard};

/// Keeps the directory log.
pub const DIRECTORY_STREAM: &str = "DIRECTORY";
/// The one subject of the directory log.
pub const DIRECTORY_SUBJECT: &str = "directory";
/// Keeps what is sent to devices' inboxes.
pub const INBOX_STREAM: &str = "INBOX";
/// What [`INBOX_STREAM`] captures.
pub const INBOX_STREAM_SUBJECTS: &str = "inbox.*";
/// Keeps who of the relays has which lock.
pub const LOCK_STREAM: &str = "LOCKS";
/// What [`LOCK_STREAM`] captures.
pub const LOCK_STREAM_SUBJECTS: &str = "lock.*";
/// Who may stop its nats-server on purpose.
pub const NATS_SERVER_LOCK: &str = "lock.nats-server";
/// First token of what streams republish after storing.
const LIVE: &str = "live";
/// First token of what devices ask relays to store.
const SUBMISSION: &str = "in";
/// In the place of a chunk's number: [`Subject::Copy`].
const COPY: &str = "copy";
/// Every [`Submission`] of every device.
pub const SUBMISSIONS: &str = "in.>";

/// The stream that keeps messages and handshakes of a shard's rooms.
pub fn mail_stream(shard: Shard) -> String {
    format!("MAIL-{shard}")
}

/// What [`mail_stream`] captures.
pub fn mail_stream_subjects(shard: Shard) -> String {
    format!("r.{shard}.>")
}

/// The stream that keeps the file chunks of a shard's rooms.
pub fn blob_stream(shard: Shard) -> String {
    format!("BLOB-{shard}")
}

/// What [`blob_stream`] captures.
pub fn blob_stream_subjects(shard: Shard) -> String {
    format!("blob.{shard}.>")
}

/// The prefix of a device's own reply subjects: it may subscribe to
/// `<prefix>.>`, and the relay answers nowhere else.
pub fn reply_prefix(device: DeviceId) -> String {
    format!("_INBOX.{device}")
}

/// Where a room is on NATS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomAddress {
    /// The stream pair that keeps the room.
    pub shard: Shard,
    /// The project that the room belongs to.
    pub project: ProjectName,
    /// The room.
    pub room: RoomId,
}

impl RoomAddress {
    /// Where application messages go.
    pub fn messages(&self) -> Subject {
        Subject::Messages(self.clone())
    }

    /// Where commits and proposals go.
    pub fn handshakes(&self) -> Subject {
        Subject::Handshakes(self.clone())
    }

    /// Where one chunk of a file goes.
    pub fn blob(&self, file: FileId, index: u32) -> Subject {
        Subject::Blob {
            address: self.clone(),
            file,
            index,
        }
    }

    /// Where a device asks for chunks of a file from another room.
    pub fn copy(&self, file: FileId) -> Subject {
        Subject::Copy {
            address: self.clone(),
            file,
        }
    }

    /// Subscription to everything the room's stream republishes.
    pub fn live_wildcard(&self) -> String {
        format!("{LIVE}.r.{self}.*")
    }

    /// What a device that may post here submits on: messages and handshakes,
    /// and the chunks of files, its own or copied. Relays refuse whatever else these cover.
    pub fn submissions(&self, device: DeviceId) -> [String; 2] {
        [
            format!("{SUBMISSION}.{device}.r.{self}.*"),
            format!("{SUBMISSION}.{device}.blob.{self}.*.*"),
        ]
    }
}

impl fmt::Display for RoomAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.shard, self.project, self.room)
    }
}

impl From<&RoomAddress> for wire::RoomAddress {
    fn from(address: &RoomAddress) -> Self {
        Self {
            shard: address.shard.0.into(),
            project: address.project.to_string(),
            room: address.room.to_bytes(),
        }
    }
}

impl TryFrom<&wire::RoomAddress> for RoomAddress {
    type Error = SubjectError;

    fn try_from(address: &wire::RoomAddress) -> Result<Self, SubjectError> {
        Ok(Self {
            shard: Shard(address.shard.try_into().map_err(|_| SubjectError::Shape)?),
            project: address.project.parse()?,
            room: RoomId::try_from(&address.room)?,
        })
    }
}

/// A subject that something is published to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// MLS application messages of a room.
    Messages(RoomAddress),
    /// MLS commits and proposals of a room.
    Handshakes(RoomAddress),
    /// One chunk of a file.
    Blob {
        /// The room that the file was sent to.
        address: RoomAddress,
        /// The file.
        file: FileId,
        /// Which chunk, from 0.
        index: u32,
    },
    /// Where a device asks relays to store chunks of a file that another room
    /// has. No stream keeps it.
    Copy {
        /// The room that is to get them.
        address: RoomAddress,
        /// The file.
        file: FileId,
    },
    /// What a device is told outside any room.
    Inbox(DeviceId),
    /// A device's catch-up requests, for its inbox and every room that demands
    /// no factor.
    Fetch(DeviceId),
    /// A device's catch-up requests for one room that demands factors: who may
    /// publish here has proven them.
    FetchRoom(DeviceId, RoomId),
    /// That a device is there, and how far it has come.
    Beacon(DeviceId),
    /// Who is there of a room. No stream keeps it and no device publishes it:
    /// relays publish it in its live form.
    Presence(RoomAddress),
}

impl Subject {
    /// Whether a stream keeps what is published here.
    pub fn is_stored(&self) -> bool {
        match self {
            Self::Messages(_) | Self::Handshakes(_) | Self::Blob { .. } | Self::Inbox(_) => true,
            Self::Copy { .. }
            | Self::Fetch(_)
            | Self::FetchRoom(..)
            | Self::Beacon(_)
            | Self::Presence(_) => false,
        }
    }

    /// The subject under which the stream republishes this one once it is stored.
    pub fn live(&self) -> String {
        format!("{LIVE}.{self}")
    }

    /// Reads a republished subject.
    ///
    /// # Errors
    /// When the text is not `live.` and a subject of ours.
    pub fn from_live(text: &str) -> Result<Self, SubjectError> {
        let rest = text
            .strip_prefix(LIVE)
            .and_then(|rest| rest.strip_prefix('.'));
        rest.ok_or(SubjectError::Shape)?.parse()
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Messages(address) => write!(f, "r.{address}.msg"),
            Self::Handshakes(address) => write!(f, "r.{address}.hs"),
            Self::Blob {
                address,
                file,
                index,
            } => write!(f, "blob.{address}.{file}.{index}"),
            Self::Copy { address, file } => write!(f, "blob.{address}.{file}.{COPY}"),
            Self::Inbox(device) => write!(f, "inbox.{device}"),
            Self::Fetch(device) => write!(f, "fetch.{device}"),
            Self::FetchRoom(device, room) => write!(f, "fetch.{device}.{room}"),
            Self::Beacon(device) => write!(f, "beacon.{device}"),
            Self::Presence(address) => write!(f, "r.{address}.presence"),
        }
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let tokens: Vec<&str> = text.splitn(8, '.').collect();
        match *tokens.as_slice() {
            ["r", shard, project, room, "msg"] => Ok(address(shard, project, room)?.messages()),
            ["r", shard, project, room, "hs"] => Ok(address(shard, project, room)?.handshakes()),
            ["r", shard, project, room, "presence"] => {
                Ok(Self::Presence(address(shard, project, room)?))
            }
            ["blob", shard, project, room, file, COPY] => {
                Ok(address(shard, project, room)?.copy(file.parse()?))
            }
            ["blob", shard, project, room, file, index] => {
                Ok(address(shard, project, room)?.blob(file.parse()?, number(index)?))
            }
            ["beacon", device] => Ok(Self::Beacon(device.parse()?)),
            ["inbox", device] => Ok(Self::Inbox(device.parse()?)),
            ["fetch", device] => Ok(Self::Fetch(device.parse()?)),
            ["fetch", device, room] => Ok(Self::FetchRoom(device.parse()?, room.parse()?)),
            _ => Err(SubjectError::Shape),
        }
    }
}

/// What a device asks a relay to store, published to `in.<device>.<subject>`.
/// No JWT grants another device's name there, so that the relay knows who asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Submission {
    /// Who asks.
    pub device: DeviceId,
    /// Where it is to be stored: a room's messages or handshakes, a chunk, or
    /// an inbox. Or what is to be copied there.
    pub subject: Subject,
}

impl Submission {
    /// What a device submits to inboxes on.
    pub fn inboxes(device: DeviceId) -> String {
        format!("{SUBMISSION}.{device}.inbox.*")
    }

    /// The device that a subject names, whatever it asks for.
    pub fn device_of(text: &str) -> Option<DeviceId> {
        match *text.splitn(3, '.').collect::<Vec<_>>() {
            [SUBMISSION, device, _] => device.parse().ok(),
            _ => None,
        }
    }
}

impl fmt::Display for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SUBMISSION}.{}.{}", self.device, self.subject)
    }
}

impl FromStr for Submission {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let tokens: Vec<&str> = text.splitn(3, '.').collect();
        let [SUBMISSION, device, subject] = *tokens.as_slice() else {
            return Err(SubjectError::Shape);
        };
        let subject: Subject = subject.parse()?;
        let device = device.parse()?;
        if subject.is_stored() || matches!(subject, Subject::Copy { .. }) {
            Ok(Self { device, subject })
        } else {
            Err(SubjectError::Shape)
        }
    }
}

/// Why a subject was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Not one of the forms of DESIGN section 6.
    #[error("not a subject of Sotto")]
    Shape,
    /// A token that should be an id is none.
    #[error(transparent)]
    Id(#[from] IdError),
    /// A token that should be a name is none.
    #[error(transparent)]
    Name(#[from] NameError),
}

fn address(shard: &str, project: &str, room: &str) -> Result<RoomAddress, SubjectError> {
    Ok(RoomAddress {
        shard: Shard(number(shard)?),
        project: project.parse()?,
        room: room.parse()?,
    })
}

/// A number in its only spelling: no sign, no leading zero.
fn number<N: FromStr + fmt::Display>(text: &str) -> Result<N, SubjectError> {
    let number: N = text.parse().map_err(|_| SubjectError::Shape)?;
    if number.to_string() == text {
        Ok(number)
    } else {
        Err(SubjectError::Shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_address() -> impl Strategy<Value = RoomAddress> {
        (any::<u8>(), "[a-z0-9][a-z0-9-]{0,31}", any::<[u8; 16]>()).prop_map(
            |(shard, project, room)| RoomAddress {
                shard: Shard(shard),
                project: project.parse().unwrap(),
                room: RoomId::try_from(&room[..]).unwrap(),
            },
        )
    }

    fn any_subject() -> impl Strategy<Value = Subject> {
        let device = any::<[u8; 16]>().prop_map(|b| DeviceId::try_from(&b[..]).unwrap());
        prop_oneof![
            any_address().prop_map(|a| a.messages()),
            any_address().prop_map(|a| a.handshakes()),
            (any_address(), any::<[u8; 16]>(), any::<u32>())
                .prop_map(|(a, f, n)| a.blob(FileId::try_from(&f[..]).unwrap(), n)),
            (any_address(), any::<[u8; 16]>())
                .prop_map(|(a, f)| a.copy(FileId::try_from(&f[..]).unwrap())),
            device.clone().prop_map(Subject::Inbox),
            device.clone().prop_map(Subject::Fetch),
            device.clone().prop_map(Subject::Beacon),
            any_address().prop_map(Subject::Presence),
            (device, any::<[u8; 16]>())
                .prop_map(|(d, r)| Subject::FetchRoom(d, RoomId::try_from(&r[..]).unwrap())),
        ]
    }

    proptest! {
        #[test]
        fn subjects_survive_text(subject in any_subject()) {
            prop_assert_eq!(subject.to_string().parse::<Subject>().unwrap(), subject.clone());
            prop_assert_eq!(Subject::from_live(&subject.live()).unwrap(), subject);
        }

        #[test]
        fn submissions_survive_text(device: [u8; 16], subject in any_subject()) {
            let device = DeviceId::try_from(&device[..]).unwrap();
            let stored = subject.is_stored() || matches!(subject, Subject::Copy { .. });
            let submission = Submission { device, subject };
            let text = submission.to_string();
            prop_assert_eq!(Submission::device_of(&text), Some(device));
            prop_assert_eq!(text.parse::<Submission>().ok(), stored.then_some(submission));
        }

        #[test]
        fn one_subject_has_one_text(text in "(r|blob)\\.[0-9+]{1,3}\\.[a-z]{1,3}\\.[a-z2-7]{26}\\.(msg|hs)") {
            if let Ok(subject) = text.parse::<Subject>() {
                prop_assert_eq!(subject.to_string(), text);
            }
        }

        #[test]
        fn parsing_never_panics(text in ".{0,200}") {
            let _ = text.parse::<Subject>();
            let _ = Subject::from_live(&text);
            let _ = text.parse::<Submission>();
            let _ = Submission::device_of(&text);
        }

        #[test]
        fn addresses_survive_protobuf(address in any_address()) {
            prop_assert_eq!(RoomAddress::try_from(&wire::RoomAddress::from(&address)).unwrap(), address);
        }
    }

    #[test]
    fn wildcards_are_not_subjects() {
        for text in [
            "r.0.>",
            "r.0.p.*.msg",
            "live.>",
            "inbox.*",
            "r.256.p.aaaaaaaaaaaaaaaaaaaaaaaaaa.msg",
        ] {
            assert!(text.parse::<Subject>().is_err(), "{text}");
        }
    }
}
