//! The release log: every release there ever was, one line of JSON each, where
//! a line names the SHA-256 sum of the line before it. Nothing can be taken out
//! or changed later without every client noticing that has seen more.
//!
//! Pure: reads and writes text that others fetch and store.

use jiff::Timestamp;
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::Digest;

/// Name of the log among the targets of a repository.
pub const LOG_TARGET: &str = "releases.jsonl";
/// Longest log that is read, in bytes: some thousand releases.
pub const LOG_MAX: u64 = 4 * 1024 * 1024;
/// Longest artifact, in bytes.
pub const ARTIFACT_MAX: u64 = 1024 * 1024 * 1024;
/// Most artifacts of one release.
const ARTIFACTS_MAX: usize = 64;
/// Longest name of a program, a platform or a target.
const NAME_MAX: usize = 128;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// 1 for the first, one more for each.
    pub sequence: u64,
    /// The sum of the line before, without its line end; zeros for the first.
    pub previous: Digest,
    /// Higher than that of any line before.
    pub version: Version,
    /// When it was appended.
    pub released: Timestamp,
    /// What it consists of.
    pub artifacts: Vec<Artifact>,
}

/// One program for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// `sotto-relay`
    pub program: String,
    /// As [`platform`] says.
    pub platform: String,
    /// Its name among the targets of the repository.
    pub target: String,
    /// In bytes.
    pub length: u64,
    /// Of its content.
    pub sha256: Digest,
}

/// How far somebody has read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHead {
    /// Of the last line.
    pub sequence: u64,
    /// Of the last line, without its line end.
    pub sha256: Digest,
    /// When the last line says that it was appended.
    pub released: Timestamp,
}

/// A log that hangs together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReleaseLog {
    releases: Vec<(Release, Digest)>,
}

/// Why a text is no log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// A line does not read.
    #[error("line {line} is not a release: {problem}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// A line does not follow the one before it.
    #[error("line {line} does not follow the one before: {problem}")]
    Chain {
        /// From 1.
        line: usize,
        /// What does not fit.
        problem: &'static str,
    },
    /// It does not end with a line end.
    #[error("the last line is cut off")]
    CutOff,
}

/// The platform that this was compiled for, as in `x86_64-linux`.
pub fn platform() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

impl ReleaseLog {
    /// Reads a log, and checks that each line follows the one before.
    ///
    /// # Errors
    /// As [`LogError`] says.
    pub fn parse(text: &str) -> Result<Self, LogError> {
        let mut log = Self::default();
        if text.is_empty() {
            return Ok(log);
        }
        let lines = text.strip_suffix('\n').ok_or(LogError::CutOff)?;
        for (line, content) in (1..).zip(lines.split('\n')) {
            let problem = |problem: String| LogError::Line { line, problem };
            let release: Release =
                serde_json::from_str(content).map_err(|error| problem(error.to_string()))?;
            well_formed(&release).map_err(problem)?;
            log.follows(&release)
                .map_err(|problem| LogError::Chain { line, problem })?;
            log.releases.push((release, Digest::of(content.as_bytes())));
        }
        Ok(log)
    }

    /// The line that appends a release, with its line end.
    ///
    /// # Errors
    /// When the version is not higher than the last one, or a name is too long
    /// or not plain.
    pub fn append(
        &mut self,
        version: Version,
        released: Timestamp,
        artifacts: Vec<Artifact>,
    ) -> Result<String, LogError> {
        let line = self.releases.len() + 1;
        let release = Release {
            sequence: line as u64,
            previous: self.head().map_or(Digest::ZERO, |head| head.sha256),
            version,
            released,
            artifacts,
        };
        let problem = |problem: String| LogError::Line { line, problem };
        well_formed(&release).map_err(problem)?;
        self.follows(&release)
            .map_err(|problem| LogError::Chain { line, problem })?;
        let mut content =
            serde_json::to_string(&release).map_err(|error| problem(error.to_string()))?;
        self.releases
            .push((release, Digest::of(content.as_bytes())));
        content.push('\n');
        Ok(content)
    }

    /// Whether it holds everything that was read up to `head`, unchanged.
    pub fn extends(&self, head: &LogHead) -> bool {
        let index = head.sequence.checked_sub(1).map(usize::try_from);
        let Some(Ok(index)) = index else { return false };
        self.releases
            .get(index)
            .is_some_and(|(_, digest)| *digest == head.sha256)
    }

    /// How far it goes; nothing when it is empty.
    pub fn head(&self) -> Option<LogHead> {
        let (release, sha256) = self.releases.last()?;
        Some(LogHead {
            sequence: release.sequence,
            sha256: *sha256,
            released: release.released,
        })
    }

    /// The newest release that has this program for this platform.
    pub fn newest(&self, program: &str, platform: &str) -> Option<(&Release, &Artifact)> {
        self.releases.iter().rev().find_map(|(release, _)| {
            let mut artifacts = release.artifacts.iter();
            let artifact = artifacts
                .find(|artifact| artifact.program == program && artifact.platform == platform)?;
            Some((release, artifact))
        })
    }

    /// Every release, the oldest first.
    pub fn releases(&self) -> impl Iterator<Item = &Release> {
        self.releases.iter().map(|(release, _)| release)
    }

    fn follows(&self, release: &Release) -> Result<(), &'static str> {
        let (sequence, previous) = self
            .head()
            .map_or((0, Digest::ZERO), |head| (head.sequence, head.sha256));
        if release.sequence != sequence + 1 {
            return Err("the numbers are not one after the other");
        }
        if release.previous != previous {
            return Err("the sum of the line before is another");
        }
        let last = self.releases.last();
        if last.is_some_and(|(last, _)| last.version >= release.version) {
            return Err("the version is not higher");
        }
        Ok(())
    }
}

fn well_formed(release: &Release) -> Result<(), String> {
    if release.artifacts.len() > ARTIFACTS_MAX {
        return Err(format!("it has more than {ARTIFACTS_MAX} artifacts"));
    }
    for artifact in &release.artifacts {
        for name in [&artifact.program, &artifact.platform, &artifact.target] {
            if !is_plain(name) {
                return Err(format!("`{}` is not a plain name", name.escape_default()));
            }
        }
        if artifact.length > ARTIFACT_MAX {
            return Err(format!("`{}` is too long", artifact.target));
        }
    }
    Ok(())
}

/// Safe as a part of a path and of a URL, and not hidden.
fn is_plain(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"-._+".contains(&c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(versions: &[&str]) -> (ReleaseLog, String) {
        let mut log = ReleaseLog::default();
        let text = versions
            .iter()
            .map(|version| {
                let artifact = Artifact {
                    program: "sotto-relay".to_owned(),
                    platform: "x86_64-linux".to_owned(),
                    target: format!("sotto-relay-{version}"),
                    length: 5,
                    sha256: Digest::of(version.as_bytes()),
                };
                let time = "2026-11-27T00:00:00Z".parse().unwrap();
                log.append(version.parse().unwrap(), time, vec![artifact])
                    .unwrap()
            })
            .collect();
        (log, text)
    }

    #[test]
    fn what_was_appended_reads_back() {
        let (log, text) = log(&["0.1.0", "0.2.0"]);
        assert_eq!(ReleaseLog::parse(&text).unwrap(), log);
        let (release, _) = log.newest("sotto-relay", "x86_64-linux").unwrap();
        assert_eq!(release.version.to_string(), "0.2.0");
        assert!(log.newest("sotto-relay", "aarch64-linux").is_none());
    }

    #[test]
    fn a_line_that_was_taken_out_or_changed_is_noticed() {
        let (_, text) = log(&["0.1.0", "0.2.0", "0.3.0"]);
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let without_second = [lines[0], lines[2]].concat();
        let changed = text.replacen("sotto-relay-0.1.0", "sotto-relay-9.9.9", 1);
        let cut = &text[..text.len() - 1];
        for wrong in [without_second.as_str(), &changed, cut, &lines[1..].concat()] {
            assert!(ReleaseLog::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_a_longer_log_with_the_same_beginning_extends() {
        let (short, _) = log(&["0.1.0", "0.2.0"]);
        let (long, _) = log(&["0.1.0", "0.2.0", "0.3.0"]);
        let (other, _) = log(&["0.1.0", "0.2.1", "0.3.0"]);
        let head = short.head().unwrap();
        assert!(short.extends(&head) && long.extends(&head));
        assert!(!other.extends(&head));
        assert!(!short.extends(&long.head().unwrap()));
    }

    #[test]
    fn versions_only_go_up() {
        let (mut log, _) = log(&["0.2.0"]);
        for version in ["0.2.0", "0.1.9"] {
            let time = "2026-11-27T00:00:00Z".parse().unwrap();
            let appended = log.append(version.parse().unwrap(), time, Vec::new());
            assert!(appended.is_err(), "{version}");
        }
    }

    #[test]
    fn names_are_not_paths() {
        for name in ["../a", "a/b", "", ".a", "a b", &"a".repeat(129)] {
            assert!(!is_plain(name), "{name}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[ -~\n]{0,400}") {
            let _ = ReleaseLog::parse(&text);
        }
    }
}
