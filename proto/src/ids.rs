//! Names that people choose and ids that programs draw. Both are safe as one
//! token of a NATS subject by construction: parse once, then trust the type.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, Encoding};
use rand::RngCore;
use serde::{Deserialize, Serialize};

/// Longest name of an org, project or user, in bytes.
const NAME_MAX: usize = 32;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` is not a valid {what}: use 1 to {NAME_MAX} of a-z, 0-9 and -, starting with a letter or digit"
)]
pub struct NameError {
    what: &'static str,
    name: String,
}

/// Why an id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {what}: 16 bytes, or 26 characters of lower-case base32, are expected")]
pub struct IdError {
    what: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
                let valid = (1..=NAME_MAX).contains(&text.len())
                    && text.bytes().all(allowed)
                    && !text.starts_with('-');
                if valid {
                    Ok(Self(text.to_owned()))
                } else {
                    // The refused name goes into a message for a person: bounded, printable.
                    let name = text.chars().take(NAME_MAX).flat_map(char::escape_default).collect();
                    Err(NameError { what: $what, name })
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// An organisation; one NATS account each.
    OrgName,
    "organisation name"
);
name!(
    /// A project of an org; a token of its rooms' subjects.
    ProjectName,
    "project name"
);
name!(
    /// A group of users of an org.
    GroupName,
    "group name"
);
name!(
    /// A user of an org.
    UserName,
    "user name"
);

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type([u8; 16]);

        impl $type {
            /// Draws a new id.
            pub fn random(rng: &mut impl RngCore) -> Self {
                let mut bytes = [0; 16];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// The 16 bytes, as they stand in protobuf fields.
            pub fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// The 16 bytes, owned, for a protobuf field.
            pub fn to_bytes(self) -> bytes::Bytes {
                bytes::Bytes::copy_from_slice(&self.0)
            }
        }

        impl TryFrom<&[u8]> for $type {
            type Error = IdError;

            fn try_from(bytes: &[u8]) -> Result<Self, IdError> {
                bytes.try_into().map(Self).map_err(|_| IdError { what: $what })
            }
        }

        impl TryFrom<&bytes::Bytes> for $type {
            type Error = IdError;

            fn try_from(bytes: &bytes::Bytes) -> Result<Self, IdError> {
                Self::try_from(bytes.as_ref())
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                decode_id(text).map(Self).ok_or(IdError { what: $what })
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> Self {
                id.to_string()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&BASE32_NOPAD.encode(&self.0).to_ascii_lowercase())
            }
        }
    };
}

/// Ids that may be shown and logged.
macro_rules! public_id {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        id!($(#[$doc])* $type, $what);

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self)
            }
        }
    };
}

/// Ids whose knowledge is a right: `Debug` hides them.
macro_rules! secret_id {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        id!($(#[$doc])* $type, $what);

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($type), "(..)"))
            }
        }
    };
}

public_id!(
    /// A room; also its MLS group id.
    RoomId,
    "room id"
);
public_id!(
    /// One device of one user.
    DeviceId,
    "device id"
);
public_id!(
    /// One file, or another blob of a room.
    FileId,
    "file id"
);
public_id!(
    /// One way of a user to prove a factor, such as one TOTP generator.
    FactorId,
    "factor id"
);
secret_id!(
    /// Whoever holds it may sign up once, until it expires.
    InviteToken,
    "invite"
);
secret_id!(
    /// A mailbox for linking one device.
    RendezvousId,
    "rendezvous id"
);

impl RoomId {
    /// The first id in order, for ranges.
    pub const FIRST: Self = Self([0; 16]);
    /// The last id in order, for ranges.
    pub const LAST: Self = Self([0xff; 16]);
}

impl FileId {
    /// The id of a public blob: the first half of its SHA-256, so that the same
    /// bytes have the same id.
    pub fn from_digest(sha256: &[u8; 32]) -> Self {
        let mut id = [0; 16];
        id.iter_mut().zip(sha256).for_each(|(to, from)| *to = *from);
        Self(id)
    }
}

/// Which of the org's `MAIL-` and `BLOB-` streams a room is kept in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Shard(pub u8);

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn decode_id(text: &str) -> Option<[u8; 16]> {
    /// `BASE32_NOPAD` with bounds checked first, so that nothing large is decoded.
    const ENCODING: Encoding = BASE32_NOPAD;
    if text.len() != 26 || text.bytes().any(|c| c.is_ascii_uppercase()) {
        return None;
    }
    let bytes = ENCODING.decode(text.to_ascii_uppercase().as_bytes()).ok()?;
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_refuse_what_subjects_cannot_hold() {
        for bad in [
            "",
            "A",
            "a.b",
            "a*",
            ">",
            "a b",
            "-a",
            "é",
            &"a".repeat(33),
            "a\n",
        ] {
            assert!(bad.parse::<UserName>().is_err(), "{bad:?} was accepted");
        }
        for good in ["a", "alice", "9-lives", &"a".repeat(32)] {
            assert_eq!(good.parse::<UserName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_refused_name_is_shown_escaped() {
        let error = "evil\u{202e}name"
            .parse::<UserName>()
            .unwrap_err()
            .to_string();
        assert!(error.contains("\\u{202e}"), "{error}");
    }

    #[test]
    fn secrets_do_not_show_in_debug() {
        let token = InviteToken([7; 16]);
        assert_eq!(format!("{token:?}"), "InviteToken(..)");
    }

    proptest! {
        #[test]
        fn ids_survive_text(bytes: [u8; 16]) {
            let id = RoomId(bytes);
            prop_assert_eq!(id.to_string().parse::<RoomId>().unwrap(), id);
        }

        #[test]
        fn parsing_never_panics(text: String) {
            let _ = text.parse::<RoomId>();
            let _ = text.parse::<OrgName>();
        }

        #[test]
        fn one_id_has_one_text(text in "[a-z2-7]{26}") {
            if let Ok(id) = text.parse::<RoomId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
