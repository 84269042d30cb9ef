//! `[consul]` of `server.toml`: where Consul is, and what opens it.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use reqwest::Url;
use serde::{Deserialize, Serialize};

/// Longest prefix of keys, in characters, without the slash at its end.
const PREFIX_MAX: usize = 128;

/// Where Consul is and how it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsulConfig {
    /// The HTTP API of an agent: `http://` on this machine, else `https://`.
    pub address: Address,
    /// A file with the token that opens it; without one, none is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// Authorities of the agent's certificate, PEM; without it, those that the
    /// system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// What our keys begin with.
    #[serde(default, skip_serializing_if = "Prefix::is_default")]
    pub prefix: Prefix,
}

/// Where an agent's HTTP API is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(Url);

/// What our keys begin with; ends with a slash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

/// Why a setting is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// It is no address of an agent.
    #[error(
        "`address` of [consul] must be a URL such as http://127.0.0.1:8500, without user, path and query"
    )]
    Address,
    /// Others could read and change what is said.
    #[error("`address` of [consul] must begin with https:// unless it is on this machine")]
    InClear,
    /// It is no prefix of keys.
    #[error(
        "`prefix` of [consul] must be names of letters, digits and `-_.` with slashes between, at most {PREFIX_MAX} characters"
    )]
    Prefix,
}

impl ConsulConfig {
    /// The agent at this address, without a token.
    pub fn at(address: Address) -> Self {
        Self {
            address,
            token_file: None,
            ca_file: None,
            prefix: Prefix::default(),
        }
    }

    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = self.token_file.iter().chain(&self.ca_file);
        files.map(PathBuf::as_path)
    }
}

impl Address {
    pub(super) fn url(&self) -> &Url {
        &self.0
    }

    pub(super) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl FromStr for Address {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let url: Url = text.parse().map_err(|_| SettingError::Address)?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none()
            && url.fragment().is_none();
        let Some(host) = url.host_str().filter(|_| plain) else {
            return Err(SettingError::Address);
        };
        match url.scheme() {
            "https" => Ok(Self(url)),
            "http" if is_here(host) => Ok(Self(url)),
            "http" => Err(SettingError::InClear),
            _ => Err(SettingError::Address),
        }
    }
}

fn is_here(host: &str) -> bool {
    let v6 = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.parse().is_ok_and(|ip: Ipv4Addr| ip.is_loopback())
        || v6.parse().is_ok_and(|ip: Ipv6Addr| ip.is_loopback())
}

impl TryFrom<String> for Address {
    type Error = SettingError;

    fn try_from(text: String) -> Result<Self, SettingError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl Prefix {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Prefix {
    fn default() -> Self {
        Self("sotto/".to_owned())
    }
}

impl FromStr for Prefix {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, SettingError> {
        let path = text.strip_suffix('/').unwrap_or(text);
        let is_name = |name: &str| {
            let fits = |c: u8| c.is_ascii_alphanumeric() || b"-_.".contains(&c);
            !name.trim_matches('.').is_empty() && name.bytes().all(fits)
        };
        match path.len() <= PREFIX_MAX && path.split('/').all(is_name) {
            true => Ok(Self(format!("{path}/"))),
            false => Err(SettingError::Prefix),
        }
    }
}

impl TryFrom<String> for Prefix {
    type Error = SettingError;

    fn try_from(text: String) -> Result<Self, SettingError> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(Prefix(text): Prefix) -> Self {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_clear() {
        for good in [
            "http://127.0.0.1:8500",
            "http://[::1]:8500",
            "http://localhost:8500",
            "https://consul.example:8501",
        ] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for reachable in [
            "http://10.0.0.1:8500",
            "http://127.0.0.1.example",
            "http://[::]:1",
        ] {
            assert_eq!(
                reachable.parse::<Address>(),
                Err(SettingError::InClear),
                "{reachable}"
            );
        }
        for wrong in [
            "",
            "127.0.0.1:8500",
            "unix:///run/consul",
            "ftp://127.0.0.1",
            "https://token@consul.example",
            "https://consul.example/v1",
            "https://consul.example?token=a",
        ] {
            assert_eq!(
                wrong.parse::<Address>(),
                Err(SettingError::Address),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_longest_prefix_is_read_again_as_it_is_written() {
        let longest = "a".repeat(PREFIX_MAX).parse::<Prefix>().unwrap();
        assert_eq!(String::from(longest.clone()).parse(), Ok(longest));
        let longer = "a".repeat(PREFIX_MAX + 1).parse::<Prefix>();
        assert_eq!(longer, Err(SettingError::Prefix));
    }

    #[test]
    fn a_prefix_is_names_between_slashes() {
        for (said, meant) in [
            ("sotto/", "sotto/"),
            ("a/b-c", "a/b-c/"),
            ("x.y_z", "x.y_z/"),
        ] {
            assert_eq!(said.parse::<Prefix>().unwrap().as_str(), meant);
        }
        for wrong in [
            "",
            "/",
            "/a",
            "a//b",
            "..",
            "a/../b",
            "a b",
            "ä",
            &"a".repeat(200),
        ] {
            assert_eq!(
                wrong.parse::<Prefix>(),
                Err(SettingError::Prefix),
                "{wrong}"
            );
        }
    }

    #[test]
    fn what_is_left_out_has_a_default_and_what_is_unknown_is_refused() {
        let config: ConsulConfig = toml::from_str("address = \"http://127.0.0.1:8500\"").unwrap();
        assert_eq!(config, ConsulConfig::at(config.address.clone()));
        let written = toml::to_string(&config).unwrap();
        assert_eq!(written, "address = \"http://127.0.0.1:8500\"\n");
        let unknown = "address = \"http://127.0.0.1:8500\"\ntoken = \"secret\"";
        assert!(toml::from_str::<ConsulConfig>(unknown).is_err());
    }
}
