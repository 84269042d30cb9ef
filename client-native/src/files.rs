//! Files on their way between this machine's disk and a room's blobs.

mod copy;
mod download;
mod name;
mod source;
mod upload;
mod window;

use std::io;
use std::path::Path;

use sotto_client_core::files;
use sotto_proto::refusals::Refusal;

pub use download::{download, download_range};
pub use name::safe_name;
pub use upload::Upload;

use crate::session::CommandError;

/// Why a file did not get through.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The file on this machine.
    #[error("{path}: {reason}")]
    Disk {
        /// Which one.
        path: String,
        /// From the operating system.
        reason: io::Error,
    },
    /// Only files have content of a known length.
    #[error("{0} is not a file: give the path of a file")]
    NotAFile(String),
    /// It is not what it was when the upload began.
    #[error("{0} was changed or removed before it was sent, so nobody was given it: send it again")]
    Changed(String),
    /// Nothing is overwritten.
    #[error("{0} is there already: choose another name with -o")]
    Exists(String),
    /// The server's permissions forbid it.
    #[error(
        "the server does not let this device send files to this room: ask an owner of the room"
    )]
    Denied,
    /// The server's disk or a quota.
    #[error("{0}; `sotto sync` goes on where this ended")]
    Refused(Refusal),
    /// It is shorter than what was asked for.
    #[error("the file has {0} bytes: ask for a range within them")]
    BeyondTheEnd(u64),
    /// What was got cannot be written.
    #[error("what was got cannot be written: {0}")]
    Output(io::Error),
    /// Not all of it is on the server.
    #[error(
        "the server does not have this file any more, or not all of it: files are kept for some weeks at most; ask its sender to send it again"
    )]
    Missing,
    /// What came is not what was sent.
    #[error("the file arrived damaged and was not kept: ask its sender to send it again")]
    Damaged,
    /// A chunk, or the message about the file.
    #[error(transparent)]
    File(#[from] files::FileError),
    /// The engine said no, or has ended.
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl TransferError {
    fn disk(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |reason| Self::Disk { path, reason }
    }
}
