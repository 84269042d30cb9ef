//! Names that clients ask for, and patterns of them that may be announced.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name by which a public end knows a dialer that comes to its listener:
/// nobody else may have it.
pub const LINK_NAME: &str = "link.tunnel.sotto.internal";

/// Longest name, in bytes (RFC 1035, 2.3.4).
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// A host name in ASCII, lower case, without a dot at its end. Never an IP
/// address (RFC 6066, 3).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(String);

/// A name, or `*.` before one: any one label more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pattern {
    /// This name.
    Exact(HostName),
    /// Any one label before this name.
    Wildcard(HostName),
}

/// Not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a host name: write it in lower case, in ASCII, for instance chat.example.org or *.example.org"
)]
pub struct NameError(String);

impl NameError {
    /// It may be a stranger's: no line of a log is to be forged by it.
    fn new(text: &str) -> Self {
        let start = text.chars().take(80);
        Self(start.flat_map(char::escape_debug).collect())
    }
}

impl HostName {
    /// A name as a ClientHello has it, in whatever case.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > NAME_MAX || !bytes.is_ascii() {
            return None;
        }
        let name = std::str::from_utf8(bytes).ok()?.to_ascii_lowercase();
        is_host(&name).then_some(Self(name))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is left without the first label, if that leaves a name.
    pub fn parent(&self) -> Option<Self> {
        let (_, parent) = self.0.split_once('.')?;
        Some(Self(parent.to_owned()))
    }
}

fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_".contains(&c))
    };
    let is_number = |label: &str| label.bytes().all(|c| c.is_ascii_digit());
    (1..=NAME_MAX).contains(&name.len())
        && name.split('.').all(label)
        // An address of IPv4 ends in a number; no top-level domain does.
        && !name.rsplit('.').next().is_some_and(is_number)
}

impl Pattern {
    /// Whether it stands for this name.
    pub fn matches(&self, name: &HostName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Wildcard(parent) => name.parent().as_ref() == Some(parent),
        }
    }

    /// Whether every name that `other` stands for is one of this, too.
    pub fn covers(&self, other: &Self) -> bool {
        match other {
            Self::Exact(name) => self.matches(name),
            Self::Wildcard(_) => self == other,
        }
    }
}

impl FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let name = is_host(text).then(|| Self(text.to_owned()));
        name.ok_or_else(|| NameError::new(text))
    }
}

impl FromStr for Pattern {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let pattern = match text.strip_prefix("*.") {
            Some(parent) => parent.parse().map(Self::Wildcard),
            None => text.parse().map(Self::Exact),
        };
        pattern.map_err(|_| NameError::new(text))
    }
}

impl TryFrom<String> for Pattern {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> HostName {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_no_host_name_is_refused() {
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a.b",
            "a-.b",
            "A.b",
            "a b",
            "ä.de",
            "127.0.0.1",
            "1.2",
            "::1",
            "a/b",
            "*",
            "*.",
            "a.*.b",
            "*.*.a",
        ] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
        }
        let forged = "a\nERROR \u{1b}[31m".parse::<Pattern>().unwrap_err();
        assert!(!forged.to_string().contains(char::is_control), "{forged}");
        let long = format!("{}.example", "a".repeat(64));
        assert!(long.parse::<Pattern>().is_err());
        let long = ["a"; 128].join(".");
        assert!(long.parse::<Pattern>().is_err(), "{}", long.len());
    }

    #[test]
    fn a_name_on_the_wire_has_any_case() {
        assert_eq!(
            HostName::from_wire(b"Chat.Example"),
            Some(name("chat.example"))
        );
        assert_eq!(HostName::from_wire(b"10.0.0.1"), None);
        assert_eq!(HostName::from_wire("ä.example".as_bytes()), None);
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let pattern: Pattern = "*.acme.example".parse().unwrap();
        assert!(pattern.matches(&name("chat.acme.example")));
        for other in ["acme.example", "a.b.acme.example", "chat.acme.test"] {
            assert!(!pattern.matches(&name(other)), "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_pattern_that_covers_another_matches_what_that_matches(
            host in "[a-z]{1,3}(\\.[a-z]{1,3}){1,3}",
            one in "(\\*\\.)?[a-z]{1,3}(\\.[a-z]{1,3}){0,2}",
            two in "(\\*\\.)?[a-z]{1,3}(\\.[a-z]{1,3}){0,2}",
        ) {
            let host = name(&host);
            let candidates = [
                one.parse::<Pattern>().unwrap(),
                two.parse().unwrap(),
                Pattern::Exact(host.clone()),
                Pattern::Wildcard(host.parent().unwrap()),
            ];
            for a in &candidates {
                for b in &candidates {
                    if a.covers(b) && b.matches(&host) {
                        prop_assert!(a.matches(&host), "{a} {b} {host}");
                    }
                }
            }
        }

        #[test]
        fn whatever_comes_gives_a_name_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Some(name) = HostName::from_wire(&bytes) {
                prop_assert_eq!(name.as_str().parse::<HostName>().unwrap(), name);
            }
        }
    }
}
