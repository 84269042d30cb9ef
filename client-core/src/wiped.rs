//! Bytes that are wiped once nobody needs them: what is said, and keys, on
//! their way between the disk and the network.
//!
//! `Zeroizing<Vec<u8>>` wipes, too, but a byte and a barrier at a time, which
//! took an eighth of a catch-up; and what it outgrows it leaves behind.

use std::io::{self, Write};
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroize;

/// See the module. Never leaves a copy where it was before it grew.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Wiped(Vec<u8>);

impl Wiped {
    /// Has room for so many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// Adds bytes at the end.
    pub(crate) fn extend(&mut self, bytes: &[u8]) {
        if self.0.capacity() - self.0.len() < bytes.len() {
            let needed = self.0.len() + bytes.len();
            let mut grown = Self::with_capacity(needed.max(2 * self.0.capacity()));
            grown.0.extend_from_slice(&self.0);
            *self = grown;
        }
        self.0.extend_from_slice(bytes);
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        // All of its memory, whether in use or not, in one go.
        self.0.clear();
        self.0.spare_capacity_mut().zeroize();
    }
}

impl Deref for Wiped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Wiped {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Serialize for Wiped {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Wiped {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::deserialize(deserializer).map(Self)
    }
}

impl Write for Wiped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl std::fmt::Debug for Wiped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wiped({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_there() {
        let mut wiped = Wiped::with_capacity(2);
        for part in [&b"a"[..], b"bc", b"", b"defghij"] {
            wiped.write_all(part).unwrap();
        }
        assert_eq!(&wiped[..], b"abcdefghij");
        assert_eq!(Wiped::from(b"abcdefghij".to_vec()), wiped);
    }

    #[test]
    fn debug_shows_no_byte() {
        let wiped = Wiped::from(b"secret".to_vec());
        assert_eq!(format!("{wiped:?}"), "Wiped(6 bytes)");
    }
}
