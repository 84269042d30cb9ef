//! Why there is no update: refused, which says that somebody may be attacking,
//! or not possible just now.

use semver::Version;
use sotto_service::private_files::FileError;
use tough::error::Error as Tough;
use tough::schema::RoleType;

use crate::log::LogError;
use crate::source::SourceError;

/// Why there is no update.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// What is served must not be installed.
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    /// Nothing is served, or it cannot be reached.
    #[error("{0}: check the address and the network, then try again")]
    Source(SourceError),
    /// No root of trust was given yet.
    #[error("no root of trust is pinned in {0}: do so once with `update trust ROOT.json`")]
    NotPinned(String),
    /// Another one is pinned.
    #[error("another root of trust is pinned already; keys are changed by the releases themselves")]
    PinnedOther,
    /// The file is no root of trust.
    #[error("that file is not a root of trust that is signed as it says: {0}")]
    NotARoot(String),
    /// The disk said no.
    #[error(transparent)]
    File(#[from] FileError),
    /// What is remembered of earlier updates does not read.
    #[error(
        "{path} is damaged ({problem}): remove it and pin the root of trust again, from where \
         it came first"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Anything else that the library says.
    #[error("the update could not be checked: {0}")]
    Other(String),
}

/// Why what is served must not be installed. Each is an attack of the TUF
/// specification, or looks like one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Fewer valid signatures than the root demands.
    #[error("the {0} is not signed by enough of the keys that may")]
    Unsigned(RoleType),
    /// Its time is over: somebody holds back newer data, or the clock is wrong.
    #[error(
        "the {0} has expired: the server is out of date, or holds back updates, or the clock of \
         this machine is fast"
    )]
    Expired(RoleType),
    /// Older than what was seen before.
    #[error("the {0} is older than what was seen before")]
    RolledBack(RoleType),
    /// Parts that do not belong together.
    #[error("the {0} is not the one that belongs to the rest")]
    MixedUp(RoleType),
    /// More data than was announced or allowed.
    #[error("{0} is longer than it may be")]
    TooLong(String),
    /// Less data in a time than is useful.
    #[error("{0} comes too slowly: use another source")]
    TooSlow(String),
    /// Not the content that was signed.
    #[error("{0} is not what was signed")]
    Corrupt(String),
    /// Nothing that reads.
    #[error("the {0} does not read")]
    Malformed(RoleType),
    /// More new keys than anybody makes.
    #[error("there are too many roots of trust")]
    TooManyRoots,
    /// There is no release log, or it does not hang together.
    #[error("the release log is not whole: {0}")]
    BadLog(String),
    /// The log is not a longer one of what was seen before.
    #[error(
        "the release log was rewritten: it does not hold what this machine has seen in it. Ask \
         who signs the releases, and compare with `update status` of another machine"
    )]
    LogRewritten,
    /// A release that the log does not list, or lists in another form.
    #[error("{0} is not in the release log as it is served")]
    NotInLog(String),
    /// The newest that is offered is older than what runs.
    #[error("version {offered} is offered, and {running} is running")]
    Older {
        /// The newest in the log.
        offered: Version,
        /// What asks.
        running: Version,
    },
    /// The clock went back, or is behind the releases.
    #[error("the clock of this machine is slow: it must be right to tell new from old")]
    ClockSlow,
}

impl From<LogError> for UpdateError {
    fn from(error: LogError) -> Self {
        Refusal::BadLog(error.to_string()).into()
    }
}

impl From<Tough> for UpdateError {
    fn from(error: Tough) -> Self {
        match error {
            Tough::VerifyMetadata { role, .. } => Refusal::Unsigned(role).into(),
            Tough::ExpiredMetadata { role, .. } => Refusal::Expired(role).into(),
            Tough::OlderMetadata { role, .. } => Refusal::RolledBack(role).into(),
            Tough::OlderSnapshotInTimestamp { .. } => {
                Refusal::RolledBack(RoleType::Snapshot).into()
            }
            Tough::SnapshotRoleMissing { .. } | Tough::SnapshotRoleRollback { .. } => {
                Refusal::RolledBack(RoleType::Targets).into()
            }
            Tough::VersionMismatch { role, .. } => Refusal::MixedUp(role).into(),
            Tough::ParseMetadata { role, .. } => Refusal::Malformed(role).into(),
            Tough::MaxUpdatesExceeded { .. } => Refusal::TooManyRoots.into(),
            Tough::SystemTimeSteppedBackward { .. } => Refusal::ClockSlow.into(),
            Tough::Transport { source, url, .. } => Self::of_transport(&source, url.path()),
            other => Self::Other(other.to_string()),
        }
    }
}

impl UpdateError {
    /// A stream that failed: the library wraps what went wrong.
    pub(crate) fn of_transport(error: &tough::TransportError, path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        let Some(cause) = std::error::Error::source(error) else {
            return Self::Other(error.to_string());
        };
        let (source, library) = (
            cause.downcast_ref::<SourceError>(),
            cause.downcast_ref::<Tough>(),
        );
        match (source, library) {
            (Some(SourceError::TooSlow { .. }), _) => Refusal::TooSlow(name).into(),
            (Some(problem), _) => Self::Source(problem.clone()),
            (_, Some(Tough::MaxSizeExceeded { .. })) => Refusal::TooLong(name).into(),
            (_, Some(Tough::HashMismatch { .. })) => Refusal::Corrupt(name).into(),
            _ => Self::Other(error.to_string()),
        }
    }
}
