//! The values in a mapping file, each checked as it is read.

use std::fmt;
use std::time::Duration;

use rustls_pki_types::ServerName;
use serde::Deserialize;
use url::Url;

use crate::dn::shown;

/// Longest filter, in bytes; also bounds how deep one is nested.
const FILTER_MAX: usize = 1_024;
const ATTRIBUTE_MAX: usize = 64;
const PAGE_MAX: u16 = 10_000;
const PATIENCE_MAX: Duration = Duration::from_secs(3_600);

/// Where the server is. It is never talked to in the clear.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ServerUrl {
    /// What its certificate must say.
    pub(crate) host: ServerName<'static>,
    pub(crate) port: u16,
    /// Whether TLS begins with the connection or after asking for it.
    pub(crate) start_tls: bool,
}

impl TryFrom<String> for ServerUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bad = || {
            format!(
                "`{}` is not like `ldaps://ldap.example.org` or, with StartTLS, \
                 `ldap://ldap.example.org:389`",
                shown(&text)
            )
        };
        let url = Url::parse(&text).map_err(|_| bad())?;
        let (start_tls, port) = match url.scheme() {
            "ldaps" => (false, 636),
            "ldap" => (true, 389),
            _ => return Err(bad()),
        };
        let bare = matches!(url.path(), "" | "/")
            && url.username().is_empty()
            && url.query().is_none()
            && url.fragment().is_none();
        let host = url.host_str().unwrap_or_default();
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        match ServerName::try_from(host) {
            Ok(host) if bare => Ok(Self {
                host,
                port: url.port().unwrap_or(port),
                start_tls,
            }),
            _ => Err(bad()),
        }
    }
}

/// An LDAP search filter (RFC 4515).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Filter(String);

impl Filter {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Filter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.len() <= FILTER_MAX && ldap3::parse_filter(&text).is_ok() {
            return Ok(Self(text));
        }
        Err(format!(
            "`{}` is not an LDAP filter like `(objectClass=inetOrgPerson)` of at most \
             {FILTER_MAX} bytes",
            shown(&text)
        ))
    }
}

/// The name of an LDAP attribute; compared without regard to case.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Attribute(String);

impl Attribute {
    /// What organizational units are called by.
    pub(crate) fn unit_name() -> Self {
        Self("ou".to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Attribute {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let valid = (1..=ATTRIBUTE_MAX).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        if valid {
            return Ok(Self(text));
        }
        Err(format!(
            "`{}` is not the name of an attribute, like `displayName`",
            shown(&text)
        ))
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one server of several is called.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct SourceName(pub(super) String);

impl TryFrom<String> for SourceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if (1..=32).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(Self(text));
        }
        Err(format!(
            "`{}` is no source: use 1 to 32 of a-z, 0-9 and -",
            shown(&text)
        ))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
pub(crate) struct PageSize(pub(crate) u16);

impl Default for PageSize {
    fn default() -> Self {
        Self(500)
    }
}

impl TryFrom<u16> for PageSize {
    type Error = String;

    fn try_from(size: u16) -> Result<Self, String> {
        if (1..=PAGE_MAX).contains(&size) {
            return Ok(Self(size));
        }
        Err(format!("a page has 1 to {PAGE_MAX} entries"))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub(crate) struct Patience(pub(crate) Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(Duration::from_secs(300))
    }
}

impl TryFrom<u64> for Patience {
    type Error = String;

    fn try_from(seconds: u64) -> Result<Self, String> {
        let patience = Duration::from_secs(seconds);
        if seconds > 0 && patience <= PATIENCE_MAX {
            return Ok(Self(patience));
        }
        Err(format!(
            "an import takes 1 to {} seconds",
            PATIENCE_MAX.as_secs()
        ))
    }
}
