//! Every size and time that both sides must agree on.

use std::time::Duration;

/// A whole NATS message, headers included, in bytes. Also the `payload` limit
/// of every device's JWT.
pub const NATS_MESSAGE: usize = 524_288;

/// Room kept in a NATS message for headers and for the frame around a payload.
const ENVELOPE: usize = 8_192;

/// A payload on a room's, an inbox' or a blob's subject: it still fits into a
/// NATS message when the relay answers with it from catch-up.
pub const PAYLOAD: usize = NATS_MESSAGE - ENVELOPE;

/// A text message, in bytes of UTF-8.
pub const TEXT: usize = 65_536;

/// The entries of one frame, encoded, before padding.
pub const FRAME: usize = 262_144;

/// One chunk of a file before sealing, in bytes.
pub const CHUNK: usize = PAYLOAD - 1_024;

/// Chunks of one file: 4 GiB.
pub const FILE_CHUNKS: u32 = 8_400;

/// Chunks that one request has copied from another room at most: they are there
/// before a device takes its connection for dead.
pub const COPY_CHUNKS: u32 = 64;

/// How long the chunks of a file are kept at most; an org may say less.
pub const FILE: Duration = Duration::from_secs(30 * 24 * 3_600);

/// A file's or a room's name, in bytes of UTF-8.
pub const DISPLAY_NAME: usize = 255;

/// A ratchet tree that travels inline, once with each invitation; a larger one
/// is shared as a blob.
pub const INLINE_TREE: usize = 65_536;

/// A ratchet tree or GroupInfo in all, however it travels.
pub const RATCHET_TREE: usize = 16 * 1024 * 1024;

/// An HTTP request or answer body at the gateway that holds no tree.
pub const HTTP_BODY: usize = 1024 * 1024;

/// What a link mailbox slot holds.
pub const LINK_BODY: usize = 16_384;

/// Rooms in one catch-up request, and in one beacon.
pub const FETCH_ROOMS: usize = 4_096;

/// A beacon, in bytes: as many rooms, with their numbers at their longest.
pub const BEACON: usize = 64 * FETCH_ROOMS;

/// Heads in a frame, and spans of each kind.
pub const FRAME_HEADS: usize = 16;

/// Epochs before the newest for which a frame says what newcomers are owed.
pub const FRAME_OWED: usize = 4;

/// Payload bytes that one catch-up request is answered with at most.
pub const FETCH_BYTES: u32 = 16 * 1024 * 1024;

/// Devices of one user.
pub const DEVICES_PER_USER: usize = 16;

/// Unused key packages that a device keeps at the gateway.
pub const KEY_PACKAGES: u32 = 20;

/// Lifetime of a device's NATS JWT.
pub const JWT: Duration = Duration::from_secs(3_600);

/// Lifetime of a gateway session.
pub const SESSION: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Lifetime of a link mailbox.
pub const LINK: Duration = Duration::from_secs(600);

/// How far a session statement's time may be from the gateway's.
pub const SESSION_SKEW: Duration = Duration::from_secs(300);

/// Lifetime of a JoinGrant.
pub const JOIN_GRANT: Duration = Duration::from_secs(24 * 3_600);

/// How long a removal order is carried out after the right to be in the room
/// ended.
pub const REMOVAL_ORDER: Duration = Duration::from_secs(30 * 24 * 3_600);

/// A gateway's notice on a room's handshakes, in bytes.
pub const NOTICE: usize = 1_024;

/// Removal orders that one commit carries out.
pub const REMOVAL_ORDERS: usize = 64;

/// By how much clocks may differ before a certificate's or key package's times
/// are held against it.
pub const CLOCK_SKEW: Duration = Duration::from_secs(24 * 3_600);

/// Lifetime of a device certificate.
pub const DEVICE_CERTIFICATE: Duration = Duration::from_secs(5 * 365 * 24 * 3_600);
