//! What the gateway keeps in its buckets, field by field. Fields are only
//! ever added; `version` says which fields a reader may count on.

use bytes::Bytes;
use sotto_proto::wire;

/// The version that this gateway writes.
pub const VERSION: u32 = 1;

/// Bucket `accounts`, key `<user>.<first 32 hex digits of SHA-256 of the
/// identity key>`: written once, at sign-up. The directory says which identity
/// key a user has, and so which record counts.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct AccountRecord {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// OPAQUE's registration record, 192 bytes.
    #[prost(bytes = "bytes", tag = "2")]
    pub registration: Bytes,
    /// The identity key, sealed by the client under OPAQUE's export key.
    #[prost(bytes = "bytes", tag = "3")]
    pub identity_backup: Bytes,
}

impl std::fmt::Debug for AccountRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AccountRecord(..)")
    }
}

/// Bucket `sessions`, key: hex of the token's SHA-256.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SessionRecord {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The user.
    #[prost(string, tag = "2")]
    pub user: String,
    /// The device, 16 bytes; empty after a login by password, which may only
    /// enrol a device.
    #[prost(bytes = "bytes", tag = "3")]
    pub device: Bytes,
    /// Not valid after, in ms since 1970.
    #[prost(int64, tag = "4")]
    pub expires_ms: i64,
    /// When the password opened it, in ms since 1970; 0: a device did.
    #[prost(int64, tag = "5")]
    pub password_ms: i64,
}

/// Bucket `factors`, key: the user. One value, so that one compare-and-set
/// counts a code, or a guess. Which of these are enrolled, the directory says.
#[derive(Clone, PartialEq, prost::Message)]
pub struct FactorsRecord {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Authenticator apps.
    #[prost(message, repeated, tag = "2")]
    pub totps: Vec<TotpRecord>,
    /// Wrong codes since the last right one.
    #[prost(uint32, tag = "3")]
    pub wrong: u32,
    /// No code is looked at before, in ms since 1970.
    #[prost(int64, tag = "4")]
    pub wait_until_ms: i64,
    /// Passkeys and security keys.
    #[prost(message, repeated, tag = "5")]
    pub credentials: Vec<CredentialRecord>,
    /// Telephone numbers.
    #[prost(message, repeated, tag = "6")]
    pub phones: Vec<PhoneRecord>,
}

/// One telephone number.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PhoneRecord {
    /// 16 bytes, random.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// The number, sealed as the secrets of authenticator apps are.
    #[prost(bytes = "bytes", tag = "2")]
    pub sealed: Bytes,
    /// When its enrolment began, in ms since 1970.
    #[prost(int64, tag = "3")]
    pub begun_ms: i64,
    /// HMAC-SHA256 of the code that was sent last, bound to org, user, id and
    /// time; empty: none, or used.
    #[prost(bytes = "bytes", tag = "4")]
    pub code: Bytes,
    /// When that was, in ms since 1970.
    #[prost(int64, tag = "5")]
    pub sent_ms: i64,
    /// Wrong guesses of it.
    #[prost(uint32, tag = "6")]
    pub guesses: u32,
}

/// One passkey or security key. Nothing in it is secret.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CredentialRecord {
    /// 16 bytes, random.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// `sotto.v1.Factor`: WebAuthn or FIDO2.
    #[prost(enumeration = "wire::Factor", tag = "2")]
    pub factor: i32,
    /// What its user calls it.
    #[prost(string, tag = "3")]
    pub name: String,
    /// Public key, counter and what else `webauthn-rs` keeps: its JSON.
    #[prost(bytes = "bytes", tag = "4")]
    pub credential: Bytes,
    /// When it was enrolled, in ms since 1970.
    #[prost(int64, tag = "5")]
    pub begun_ms: i64,
    /// When its counter went backwards, in ms since 1970; 0: never. From then
    /// on it is not believed.
    #[prost(int64, tag = "6")]
    pub cloned_ms: i64,
}

/// Bucket `ceremonies`, key: hex of the ticket's SHA-256. Kept for ten minutes.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub struct CeremonyRecord {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Whose.
    #[prost(string, tag = "2")]
    pub user: String,
    /// The device that began it, 16 bytes: a proof is one of this device.
    #[prost(bytes = "bytes", tag = "3")]
    pub device: Bytes,
    /// `sotto.v1.Factor`: WebAuthn or FIDO2.
    #[prost(enumeration = "wire::Factor", tag = "4")]
    pub factor: i32,
    /// What is enrolled, or was proven, 16 bytes; empty: nothing is proven yet.
    #[prost(bytes = "bytes", tag = "5")]
    pub id: Bytes,
    /// What is enrolled is called so.
    #[prost(string, tag = "6")]
    pub name: String,
    /// Not valid after, in ms since 1970.
    #[prost(int64, tag = "7")]
    pub expires_ms: i64,
    /// The challenge that waits for an answer, as `webauthn-rs` keeps it, JSON;
    /// empty: none does.
    #[prost(bytes = "bytes", tag = "8")]
    pub state: Bytes,
    /// Challenges that were drawn.
    #[prost(uint32, tag = "9")]
    pub challenges: u32,
    /// When it was proven, in ms since 1970; 0: not yet.
    #[prost(int64, tag = "10")]
    pub proven_ms: i64,
    /// What was wrong with the last answer.
    #[prost(string, tag = "11")]
    pub trouble: String,
}

impl std::fmt::Debug for CeremonyRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CeremonyRecord(..)")
    }
}

/// One authenticator app.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TotpRecord {
    /// 16 bytes, random.
    #[prost(bytes = "bytes", tag = "1")]
    pub id: Bytes,
    /// The secret: a nonce of 12 bytes, then ChaCha20-Poly1305 under a key
    /// derived from the gateway's, bound to org, user and id.
    #[prost(bytes = "bytes", tag = "2")]
    pub sealed: Bytes,
    /// When its enrolment began, in ms since 1970.
    #[prost(int64, tag = "3")]
    pub begun_ms: i64,
    /// The newest 30-second step of which a code was accepted; 0: none yet.
    #[prost(uint64, tag = "4")]
    pub last_step: u64,
}

/// Bucket `proofs`, key: the device. What was proven on it, newest per factor.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProofsRecord {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// In no order.
    #[prost(message, repeated, tag = "2")]
    pub proofs: Vec<ProofRecord>,
}

/// One proof.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProofRecord {
    /// `sotto.v1.Factor`.
    #[prost(int32, tag = "1")]
    pub factor: i32,
    /// Which one, as the directory names it; empty: the password.
    #[prost(bytes = "bytes", tag = "2")]
    pub id: Bytes,
    /// When, in ms since 1970.
    #[prost(int64, tag = "3")]
    pub proven_ms: i64,
}

/// Bucket `throttles`, key: whose tries. Kept for a day.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ThrottleRecord {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// When the leaky bucket is empty, in ms since 1970.
    #[prost(int64, tag = "2")]
    pub empty_at_ms: i64,
}

/// Bucket `tasks`, key `orders`: how far every removal order that follows from
/// the directory is stored in its room.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OrdersRecord {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Entries of the directory that were dealt with: those before this index.
    #[prost(uint64, tag = "2")]
    pub done: u64,
}

/// Bucket `key_packages`, key: the device. One value, so that one
/// compare-and-set takes a package out.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyPackagesRecord {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Not handed out yet, oldest first.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub unused: Vec<Bytes>,
    /// Handed out, again and again, when there is no other; empty: none.
    #[prost(bytes = "bytes", tag = "3")]
    pub last_resort: Bytes,
    /// First 16 bytes of SHA-256 of what was handed out, oldest first: an
    /// upload that is repeated must not bring it back.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub spent: Vec<Bytes>,
}

/// Bucket `group_infos`, key: the room. The bytes are in chunks under
/// `<room>.<generation>.<n>`: the GroupInfo, then the tree.
#[derive(Clone, PartialEq, prost::Message)]
pub struct GroupInfoRecord {
    /// [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The MLS epoch.
    #[prost(uint64, tag = "2")]
    pub epoch: u64,
    /// The stream sequence of the commit that began the epoch.
    #[prost(uint64, tag = "3")]
    pub commit_sequence: u64,
    /// Random, 32 hex digits: which chunks belong to this value.
    #[prost(string, tag = "4")]
    pub generation: String,
    /// Number of chunks.
    #[prost(uint32, tag = "5")]
    pub chunks: u32,
    /// Length of the GroupInfo in bytes; the rest is the tree.
    #[prost(uint64, tag = "6")]
    pub group_info_length: u64,
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn stored_bytes_stay_readable() {
        let account = AccountRecord {
            version: VERSION,
            registration: Bytes::from_static(b"r"),
            identity_backup: Bytes::from_static(b"b"),
        };
        assert_eq!(account.encode_to_vec(), b"\x08\x01\x12\x01r\x1a\x01b");
        let session = SessionRecord {
            version: VERSION,
            user: "u".to_owned(),
            device: Bytes::from_static(b"d"),
            expires_ms: 5,
            password_ms: 6,
        };
        assert_eq!(
            session.encode_to_vec(),
            b"\x08\x01\x12\x01u\x1a\x01d\x20\x05\x28\x06"
        );
        let factors = FactorsRecord {
            version: VERSION,
            totps: vec![TotpRecord {
                id: Bytes::from_static(b"i"),
                sealed: Bytes::from_static(b"s"),
                begun_ms: 7,
                last_step: 8,
            }],
            wrong: 9,
            wait_until_ms: 10,
            credentials: vec![CredentialRecord {
                id: Bytes::from_static(b"i"),
                factor: 4,
                name: "n".to_owned(),
                credential: Bytes::from_static(b"c"),
                begun_ms: 5,
                cloned_ms: 6,
            }],
            phones: vec![PhoneRecord {
                id: Bytes::from_static(b"i"),
                sealed: Bytes::from_static(b"s"),
                begun_ms: 5,
                code: Bytes::from_static(b"c"),
                sent_ms: 6,
                guesses: 7,
            }],
        };
        assert_eq!(
            factors.encode_to_vec(),
            b"\x08\x01\x12\x0a\x0a\x01i\x12\x01s\x18\x07\x20\x08\x18\x09\x20\x0a\
              \x2a\x0f\x0a\x01i\x10\x04\x1a\x01n\x22\x01c\x28\x05\x30\x06\
              \x32\x0f\x0a\x01i\x12\x01s\x18\x05\x22\x01c\x28\x06\x30\x07"
        );
        let ceremony = CeremonyRecord {
            version: VERSION,
            user: "u".to_owned(),
            device: Bytes::from_static(b"d"),
            factor: 4,
            id: Bytes::from_static(b"i"),
            name: "n".to_owned(),
            expires_ms: 5,
            state: Bytes::from_static(b"s"),
            challenges: 6,
            proven_ms: 7,
            trouble: "t".to_owned(),
        };
        assert_eq!(
            ceremony.encode_to_vec(),
            b"\x08\x01\x12\x01u\x1a\x01d\x20\x04\x2a\x01i\x32\x01n\x38\x05\x42\x01s\
              \x48\x06\x50\x07\x5a\x01t"
        );
        let proofs = ProofsRecord {
            version: VERSION,
            proofs: vec![ProofRecord {
                factor: 2,
                id: Bytes::from_static(b"i"),
                proven_ms: 3,
            }],
        };
        assert_eq!(
            proofs.encode_to_vec(),
            b"\x08\x01\x12\x07\x08\x02\x12\x01i\x18\x03"
        );
        let throttle = ThrottleRecord {
            version: VERSION,
            empty_at_ms: 2,
        };
        assert_eq!(throttle.encode_to_vec(), b"\x08\x01\x10\x02");
        let orders = OrdersRecord {
            version: VERSION,
            done: 4,
        };
        assert_eq!(orders.encode_to_vec(), b"\x08\x01\x10\x04");
        let packages = KeyPackagesRecord {
            version: VERSION,
            unused: vec![Bytes::from_static(b"a"), Bytes::from_static(b"b")],
            last_resort: Bytes::from_static(b"l"),
            spent: vec![Bytes::from_static(b"s")],
        };
        assert_eq!(
            packages.encode_to_vec(),
            b"\x08\x01\x12\x01a\x12\x01b\x1a\x01l\x22\x01s"
        );
        let group_info = GroupInfoRecord {
            version: VERSION,
            epoch: 2,
            commit_sequence: 3,
            generation: "g".to_owned(),
            chunks: 4,
            group_info_length: 5,
        };
        assert_eq!(
            group_info.encode_to_vec(),
            b"\x08\x01\x10\x02\x18\x03\x22\x01g\x28\x04\x30\x05"
        );
    }

    #[test]
    fn an_account_record_does_not_show() {
        let record = AccountRecord {
            registration: Bytes::from_static(b"registration"),
            ..AccountRecord::default()
        };
        assert_eq!(format!("{record:?}"), "AccountRecord(..)");
    }
}
