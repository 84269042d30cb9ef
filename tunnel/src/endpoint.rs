//! Where a public end is, and by what it is known.

use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use sotto_service::cluster::Endpoint;

const SCHEME: &str = "tunnel://";

/// `tunnel://HOST:PORT/FINGERPRINT`, as `sotto-tunnel serve` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicEnd {
    /// Host and port.
    pub at: Endpoint,
    /// SHA-256 of its authority's certificate, DER.
    pub fingerprint: [u8; 32],
}

/// Not the address of a public end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no public end: copy tunnel://HOST:PORT/FINGERPRINT from what `sotto-tunnel serve` prints"
)]
pub struct EndpointError(String);

impl FromStr for PublicEnd {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let read = || {
            let (at, fingerprint) = text.strip_prefix(SCHEME)?.split_once('/')?;
            let fingerprint = HEXLOWER_PERMISSIVE.decode(fingerprint.as_bytes()).ok()?;
            Some(Self {
                at: at.parse().ok()?,
                fingerprint: fingerprint.try_into().ok()?,
            })
        };
        read().ok_or_else(|| EndpointError(text.chars().take(120).collect()))
    }
}

impl fmt::Display for PublicEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{SCHEME}{}/{}",
            self.at,
            HEXLOWER.encode(&self.fingerprint)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_and_nothing_else() {
        let good = format!("tunnel://[::1]:443/{}", "ab".repeat(32));
        assert_eq!(good.parse::<PublicEnd>().unwrap().to_string(), good);
        for bad in [
            "",
            "tunnel://a:1",
            "tunnel://a:1/",
            "tunnel://a:1/abcd",
            &format!("tunnel://a/{}", "ab".repeat(32)),
            &format!("https://a:1/{}", "ab".repeat(32)),
        ] {
            assert!(bad.parse::<PublicEnd>().is_err(), "{bad}");
        }
    }
}
