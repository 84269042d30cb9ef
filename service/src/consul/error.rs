//! Why Consul is of no use. What is shown of its answers is short and one line:
//! whoever answers must not write lines of their own into a log.

use crate::cause::innermost;
use crate::private_files::FileError;

/// How much of a refusal is told, in characters.
const TOLD: usize = 120;

/// Why Consul is of no use at this moment, or at all.
#[derive(Debug, thiserror::Error)]
pub enum ConsulError {
    /// A file that the configuration names.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file holds no token.
    #[error("{0} does not hold a token for Consul, which is one line of text")]
    Token(String),
    /// The file holds no certificates.
    #[error("{0} does not hold certificates in PEM")]
    Certificates(String),
    /// The flags do not fit.
    #[error("{0}")]
    Flags(String),
    /// HTTPS cannot be set up.
    #[error("cannot set up the way to Consul: {0}")]
    Setup(String),
    /// Nobody answers, or not in time.
    #[error("Consul does not answer: {0}")]
    Unreachable(String),
    /// Consul says no.
    #[error("Consul refuses it ({status}): {said}")]
    Refused {
        /// HTTP's code.
        status: u16,
        /// The beginning of what it says.
        said: String,
    },
    /// The answer is longer than any that makes sense.
    #[error("what Consul answers has no end")]
    Endless,
    /// The answer is none of Consul's.
    #[error("what answers for Consul says {0}")]
    NotConsul(&'static str),
}

sotto_log::log_safe!(ConsulError);

impl ConsulError {
    pub(super) fn unreachable(error: reqwest::Error) -> Self {
        Self::Unreachable(match error.is_timeout() {
            true => "it takes too long".to_owned(),
            false => innermost(&error),
        })
    }

    pub(super) fn refused(status: u16, said: &[u8]) -> Self {
        let said = String::from_utf8_lossy(said);
        let said = said.trim().chars().take(TOLD);
        Self::Refused {
            status,
            said: said.flat_map(char::escape_default).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_short_and_one_line() {
        let said = format!("no\nERROR all is lost\u{1b}[31m{}", "x".repeat(10_000));
        let shown = ConsulError::refused(500, said.as_bytes()).to_string();
        assert!(
            shown.starts_with("Consul refuses it (500): no\\nERROR"),
            "{shown}"
        );
        assert!(shown.len() < 250 && shown.is_ascii(), "{shown}");
        assert!(!shown.chars().any(char::is_control), "{shown}");
    }
}
