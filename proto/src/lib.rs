//! The wire of Sotto: ids, NATS subjects, limits, signed statements and the
//! protobuf messages, each built and parsed in this one place.
//!
//! No I/O, no clock, and nothing here decides who may do what. A change must
//! keep old clients working with new servers: protobuf fields are only added.

pub mod api;
mod ids;
pub mod limits;
mod links;
pub mod padding;
pub mod password;
pub mod refusals;
pub mod signed;
mod subjects;
mod titles;

pub use ids::{
    DeviceId, FactorId, FileId, GroupName, IdError, InviteToken, NameError, OrgName, ProjectName,
    RendezvousId, RoomId, Shard, UserName,
};
pub use links::{DeviceLink, GatewayAddress, InviteLink, LinkError};
pub use subjects::{
    DIRECTORY_STREAM, DIRECTORY_SUBJECT, INBOX_STREAM, INBOX_STREAM_SUBJECTS, LOCK_STREAM,
    LOCK_STREAM_SUBJECTS, NATS_SERVER_LOCK, RoomAddress, SUBMISSIONS, Subject, SubjectError,
    Submission, blob_stream, blob_stream_subjects, mail_stream, mail_stream_subjects, reply_prefix,
};
pub use titles::{Title, TitleError, Unfit, skeleton};

/// The protobuf messages of `proto/wire`, as generated.
pub mod wire {
    #![allow(missing_docs, clippy::all, reason = "generated from proto/wire")]
    include!(concat!(env!("OUT_DIR"), "/sotto.v1.rs"));
}
