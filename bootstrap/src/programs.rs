//! The programs to be put on machines: which there must be, and for what kind
//! of machine they were built.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use object::Endianness;
use object::elf;
use object::read::elf::FileHeader;
use serde::Serialize;
use sha2::{Digest, Sha256};

/// Length of the longest header of an ELF file, in bytes.
const HEADER: u64 = 64;

/// A program of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Program {
    /// Runs nats-server.
    SottoRelay,
    /// Accounts, keys and rooms.
    SottoGateway,
    /// Stores and passes on; may be inside the relay.
    NatsServer,
    /// For people; on a server, for its `sotto doctor`.
    Sotto,
}

impl Program {
    /// All.
    pub const ALL: [Self; 4] = [
        Self::SottoRelay,
        Self::SottoGateway,
        Self::NatsServer,
        Self::Sotto,
    ];

    /// Its file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::SottoRelay => "sotto-relay",
            Self::SottoGateway => "sotto-gateway",
            Self::NatsServer => "nats-server",
            Self::Sotto => "sotto",
        }
    }

    /// A server does not run without it.
    fn is_needed(self) -> bool {
        matches!(self, Self::SottoRelay | Self::SottoGateway)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A file that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// Which program it is.
    pub program: Program,
    /// Where it is here.
    pub path: PathBuf,
    /// SHA-256, hexadecimal.
    pub sum: String,
    /// Length, in bytes.
    pub size: u64,
}

/// All files that are to be sent, for one kind of machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The files.
    pub binaries: Vec<Binary>,
    /// The kind, as `uname -m` names it.
    pub machine: &'static str,
}

/// Why there is nothing to send.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// One is missing.
    #[error("{program} is not in {folder}: name the folder of a release with --programs")]
    Missing {
        /// Which.
        program: Program,
        /// Where it was looked for.
        folder: String,
    },
    /// It does not read.
    #[error("{path} cannot be read: {problem}")]
    File {
        /// Which.
        path: String,
        /// Why.
        problem: io::Error,
    },
    /// It is no program for Linux.
    #[error("{0} is not a program for a Linux machine that is known here")]
    NotForLinux(String),
    /// They are for different machines.
    #[error("{0} is for {1}, and {2} for {3}: take all programs from one release")]
    Mixed(Program, &'static str, Program, &'static str),
}

impl Programs {
    /// Those in `folder`: nats-server may be missing where the relay carries
    /// it, and `sotto` always.
    ///
    /// # Errors
    /// See [`ProgramsError`].
    pub fn find(folder: &Path) -> Result<Self, ProgramsError> {
        let mut found: Vec<(Binary, &'static str)> = Vec::new();
        for program in Program::ALL {
            let path = folder.join(program.name());
            if path.is_file() {
                found.push(read(program, &path)?);
            } else if program.is_needed() {
                let folder = folder.display().to_string();
                return Err(ProgramsError::Missing { program, folder });
            }
        }
        let machine = found.first().map(|(_, machine)| *machine).unwrap_or("");
        for ((one, first), (other, second)) in found.iter().zip(found.iter().skip(1)) {
            if first != second {
                return Err(ProgramsError::Mixed(
                    one.program,
                    first,
                    other.program,
                    second,
                ));
            }
        }
        Ok(Self {
            machine,
            binaries: found.into_iter().map(|(binary, _)| binary).collect(),
        })
    }
}

fn read(program: Program, path: &Path) -> Result<(Binary, &'static str), ProgramsError> {
    let failed = |problem| ProgramsError::File {
        path: path.display().to_string(),
        problem,
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut start = Vec::new();
    (&mut file)
        .take(HEADER)
        .read_to_end(&mut start)
        .map_err(failed)?;
    let machine = machine(&start);
    let machine = machine.ok_or_else(|| ProgramsError::NotForLinux(path.display().to_string()))?;
    let mut hash = Sha256::new();
    hash.update(&start);
    let rest = io::copy(&mut file, &mut hash).map_err(failed)?;
    let binary = Binary {
        program,
        path: path.to_owned(),
        sum: HEXLOWER.encode(&hash.finalize()),
        size: rest.saturating_add(start.len() as u64),
    };
    Ok((binary, machine))
}

/// For what an ELF file with this header is, as `uname -m` says it. Sotto is
/// released for no 32-bit machine.
fn machine(header: &[u8]) -> Option<&'static str> {
    let header = elf::FileHeader64::<Endianness>::parse(header).ok()?;
    match header.e_machine(header.endian().ok()?) {
        elf::EM_X86_64 => Some("x86_64"),
        elf::EM_AARCH64 => Some("aarch64"),
        elf::EM_RISCV => Some("riscv64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(machine: u16) -> Vec<u8> {
        let mut header = b"\x7fELF\x02\x01\x01".to_vec();
        header.resize(64, 0);
        header[18..20].copy_from_slice(&machine.to_le_bytes());
        header
    }

    fn folder(files: &[(&str, Vec<u8>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    #[test]
    fn this_program_is_for_this_machine() {
        let own = std::env::current_exe().unwrap();
        let (binary, machine) = read(Program::Sotto, &own).unwrap();
        assert_eq!(machine, std::env::consts::ARCH);
        assert_eq!(binary.size, std::fs::metadata(&own).unwrap().len());
    }

    #[test]
    fn nothing_is_sent_that_does_not_belong_together() {
        let (here, there) = (elf(elf::EM_X86_64), elf(elf::EM_AARCH64));
        let whole = folder(&[
            ("sotto-relay", here.clone()),
            ("sotto-gateway", here.clone()),
        ]);
        let found = Programs::find(whole.path()).unwrap();
        assert_eq!((found.machine, found.binaries.len()), ("x86_64", 2));
        let alone = folder(&[("sotto-relay", here.clone())]);
        let error = Programs::find(alone.path()).unwrap_err();
        assert!(error.to_string().contains("sotto-gateway"), "{error}");
        let mixed = folder(&[("sotto-relay", here.clone()), ("sotto-gateway", there)]);
        let error = Programs::find(mixed.path()).unwrap_err();
        assert!(matches!(error, ProgramsError::Mixed(..)), "{error}");
        for other in [b"#!/bin/sh\n".to_vec(), Vec::new(), elf(elf::EM_386)] {
            let script = folder(&[("sotto-relay", other), ("sotto-gateway", here.clone())]);
            let error = Programs::find(script.path()).unwrap_err();
            assert!(matches!(error, ProgramsError::NotForLinux(_)), "{error}");
        }
    }
}
