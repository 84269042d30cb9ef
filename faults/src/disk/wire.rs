//! What the kernel and a file system in user space say to each other: version
//! 7.31 of Linux's FUSE protocol, as much of it as is needed here. Numbers are
//! in the machine's own byte order. (`linux/fuse.h` is the reference.)

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;

use super::tree::{Content, Node, Number};

/// Bytes of a write at most.
pub(super) const MAX_WRITE: u32 = 128 * 1024;

/// Bytes of any message at most.
pub(super) const MAX_MESSAGE: usize = MAX_WRITE as usize + 4_096;

/// Of the protocol.
const VERSION: [u32; 2] = [7, 31];
/// Writes may be longer than a page.
const BIG_WRITES: u32 = 1 << 5;
/// Nothing of the file is kept by the kernel.
const DIRECT_IO: u32 = 1;
/// Which fields of a `setattr` count.
const SET_MODE: u32 = 1;
const SET_SIZE: u32 = 1 << 3;
const SET_CHANGED: u32 = 1 << 5;
const SET_CHANGED_NOW: u32 = 1 << 8;
/// What stands in `mode` beside the permissions.
const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
/// A block is said to have so many bytes, and so many to be there and free:
/// 64 GiB.
const BLOCK: u32 = 4_096;
const BLOCKS: u64 = 16 * 1024 * 1024;

/// A question of the kernel.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// Names it in the answer.
    pub(super) unique: u64,
    /// What it is about.
    pub(super) node: Number,
    pub(super) ask: Ask<'a>,
}

#[derive(Debug)]
pub(super) enum Ask<'a> {
    Begin,
    LookUp(&'a OsStr),
    Attributes,
    Set(Set),
    MakeFolder {
        name: &'a OsStr,
        mode: u32,
    },
    Remove {
        name: &'a OsStr,
        is_folder: bool,
    },
    Rename {
        from: &'a OsStr,
        folder: Number,
        to: &'a OsStr,
    },
    Create {
        name: &'a OsStr,
        mode: u32,
    },
    Open,
    Read {
        at: u64,
        length: u32,
    },
    Write {
        at: u64,
        content: &'a [u8],
        flags: u32,
    },
    Close,
    Sync,
    OpenFolder,
    List {
        handle: u64,
        from: u64,
        length: u32,
    },
    CloseFolder {
        handle: u64,
    },
    Space,
    /// Nothing to do.
    Fine,
    /// It takes no answer.
    Unanswered,
    /// What is not there.
    Other,
}

/// What is to be set.
#[derive(Debug, Default)]
pub(super) struct Set {
    pub(super) mode: Option<u16>,
    pub(super) size: Option<u64>,
    pub(super) changed: Option<SystemTime>,
}

impl<'a> Request<'a> {
    /// Reads one; `None` when it is not whole.
    pub(super) fn parse(message: &'a [u8], now: SystemTime) -> Option<Self> {
        let mut head = Reader(message.get(..40)?);
        let mut body = Reader(message.get(40..)?);
        let (_length, code) = (head.u32()?, head.u32()?);
        let (unique, node) = (head.u64()?, head.u64()?);
        let ask = match code {
            1 => Ask::LookUp(body.name()?),
            2 | 36 | 42 => Ask::Unanswered,
            3 => Ask::Attributes,
            4 => Ask::Set(Set::parse(body, now)?),
            9 => {
                let [mode, umask] = body.pair()?;
                let name = body.name()?;
                Ask::MakeFolder {
                    name,
                    mode: mode & !umask,
                }
            }
            10 | 11 => Ask::Remove {
                name: body.name()?,
                is_folder: code == 11,
            },
            12 | 45 => {
                let folder = body.u64()?;
                if code == 45 && body.pair()? != [0, 0] {
                    // An exchange, or a rename that replaces nothing.
                    Ask::Other
                } else {
                    Ask::Rename {
                        from: body.name()?,
                        folder,
                        to: body.name()?,
                    }
                }
            }
            14 => Ask::Open,
            15 => {
                let (_handle, at, length) = (body.u64()?, body.u64()?, body.u32()?);
                Ask::Read { at, length }
            }
            16 => {
                let (_handle, at, length) = (body.u64()?, body.u64()?, body.u32()?);
                let (_write_flags, _owner) = (body.u32()?, body.u64()?);
                let [flags, _] = body.pair()?;
                let content = body.0.get(..length as usize)?;
                Ask::Write { at, content, flags }
            }
            17 => Ask::Space,
            18 => Ask::Close,
            20 | 30 => Ask::Sync,
            // Closing a file, and the end of everything: no reason to sync.
            25 | 38 => Ask::Fine,
            26 => Ask::Begin,
            27 => Ask::OpenFolder,
            28 => {
                let (handle, from, length) = (body.u64()?, body.u64()?, body.u32()?);
                Ask::List {
                    handle,
                    from,
                    length,
                }
            }
            29 => Ask::CloseFolder {
                handle: body.u64()?,
            },
            35 => {
                let ([_flags, mode], [umask, _]) = (body.pair()?, body.pair()?);
                let name = body.name()?;
                Ask::Create {
                    name,
                    mode: mode & !umask,
                }
            }
            _ => Ask::Other,
        };
        Some(Self { unique, node, ask })
    }
}

impl Set {
    fn parse(mut body: Reader<'_>, now: SystemTime) -> Option<Self> {
        let [which, _] = body.pair()?;
        let (_handle, size, _owner) = (body.u64()?, body.u64()?, body.u64()?);
        let (_read, seconds, _) = (body.u64()?, body.u64()?, body.u64()?);
        let ([_, nanoseconds], [_, mode]) = (body.pair()?, body.pair()?);
        let changed = match which {
            which if which & SET_CHANGED_NOW != 0 => Some(now),
            which if which & SET_CHANGED != 0 => {
                UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds.min(999_999_999)))
            }
            _ => None,
        };
        Some(Self {
            mode: (which & SET_MODE != 0).then(|| permissions(mode)),
            size: (which & SET_SIZE != 0).then_some(size),
            changed,
        })
    }
}

/// Of a mode, what is not a kind of file.
#[expect(clippy::cast_possible_truncation, reason = "12 bits")]
pub(super) fn permissions(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

/// Takes one field after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_ne_bytes(*bytes))
    }

    fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_ne_bytes(*bytes))
    }

    fn pair(&mut self) -> Option<[u32; 2]> {
        Some([self.u32()?, self.u32()?])
    }

    /// A name and the zero behind it.
    fn name(&mut self) -> Option<&'a OsStr> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let (name, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.get(1..)?;
        Some(OsStr::from_bytes(name))
    }
}

/// Puts one field after the other.
#[derive(Debug, Default)]
pub(super) struct Answer(Vec<u8>);

impl Answer {
    fn u16(mut self, number: u16) -> Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn u32(mut self, number: u32) -> Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn u64(mut self, number: u64) -> Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn zeros(mut self, bytes: usize) -> Self {
        self.0.resize(self.0.len() + bytes, 0);
        self
    }

    /// The first answer of all.
    pub(super) fn begin() -> Self {
        let [major, minor] = VERSION;
        let read_ahead = MAX_WRITE;
        let versions = Self::default().u32(major).u32(minor);
        let sizes = versions.u32(read_ahead).u32(BIG_WRITES).u16(16).u16(12);
        // Times to the nanosecond.
        sizes.u32(MAX_WRITE).u32(1).zeros(36)
    }

    pub(super) fn bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(super) fn written(length: usize) -> Self {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        Self::default().u32(length).u32(0)
    }

    /// A file or folder that was looked up or made. The kernel keeps nothing
    /// of it: it would not know of a power cut.
    pub(super) fn found(number: Number, node: &Node) -> Self {
        let head = Self::default().u64(number).u64(0).zeros(24);
        head.attributes(number, node)
    }

    /// The same for the one that was asked about.
    pub(super) fn described(number: Number, node: &Node) -> Self {
        Self::default().zeros(16).attributes(number, node)
    }

    fn attributes(self, number: Number, node: &Node) -> Self {
        let kind = match node.content {
            Content::Folder(_) => FOLDER,
            Content::File(_) => FILE,
        };
        let changed = node.changed.duration_since(UNIX_EPOCH);
        let changed = changed.unwrap_or_default();
        let mut answer = self.u64(number).u64(node.length());
        answer = answer.u64(node.length().div_ceil(512));
        for _ in 0..3 {
            answer = answer.u64(changed.as_secs());
        }
        for _ in 0..3 {
            answer = answer.u32(changed.subsec_nanos());
        }
        let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
        answer = answer.u32(kind | u32::from(node.mode)).u32(1);
        answer = answer.u32(user.as_raw()).u32(group.as_raw());
        answer.u32(0).u32(BLOCK).u32(0)
    }

    /// A file that is open now; behind what was made, if it was.
    pub(super) fn opened(self) -> Self {
        self.u64(0).u32(DIRECT_IO).u32(0)
    }

    /// A folder that is open now.
    pub(super) fn opened_folder(handle: u64) -> Self {
        Self::default().u64(handle).u32(0).u32(0)
    }

    /// What is in a folder, from a place on, in at most so many bytes.
    pub(super) fn listed(names: &[(Number, bool, OsString)], from: u64, length: u32) -> Self {
        let mut answer = Self::default();
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        for ((number, is_folder, name), next) in names.iter().zip(1..).skip(from) {
            let name = name.as_bytes();
            let padded = (24 + name.len()).next_multiple_of(8);
            if answer.0.len() + padded > length as usize {
                break;
            }
            let kind = if *is_folder { FOLDER } else { FILE };
            let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
            answer = answer.u64(*number).u64(next).u32(length).u32(kind >> 12);
            answer.0.extend(name);
            answer = answer.zeros(padded - 24 - name.len());
        }
        answer
    }

    pub(super) fn space() -> Self {
        let blocks = Self::default().u64(BLOCKS).u64(BLOCKS).u64(BLOCKS);
        let files = blocks.u64(1_000_000).u64(1_000_000);
        files.u32(BLOCK).u32(255).u32(BLOCK).zeros(28)
    }
}

/// What goes to the kernel.
pub(super) fn message(unique: u64, answer: Result<Answer, Errno>) -> Vec<u8> {
    let (error, body) = match answer {
        Ok(Answer(body)) => (0, body),
        Err(error) => (-error.raw_os_error(), Vec::new()),
    };
    let length = u32::try_from(16 + body.len()).unwrap_or(u32::MAX);
    let mut message = Answer::default().u32(length).0;
    message.extend(error.to_ne_bytes());
    message.extend(unique.to_ne_bytes());
    message.extend(body);
    message
}
