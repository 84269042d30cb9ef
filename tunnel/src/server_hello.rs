//! Looks at what a private server answers, until its ServerHello has selected
//! TLS 1.3. A client that also offers older versions cannot be brought to one
//! through the tunnel.

use tls_parser::{
    TlsExtensionType, TlsHandshakeType, TlsVersion, parse_tls_handshake_server_hello,
};

use crate::records::{Next, Records, extensions};
use crate::refusal::Refusal;

/// SHA-256 of "HelloRetryRequest": the random value of a ServerHello that is
/// one (RFC 8446, 4.1.3).
const HELLO_RETRY_REQUEST: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// A server's first bytes.
#[derive(Debug, Default)]
pub struct ServerHelloReader {
    records: Records,
    retried: bool,
    done: bool,
}

impl ServerHelloReader {
    /// Takes in what came, and gives back what may be passed on now.
    ///
    /// # Errors
    /// When the server does not speak TLS 1.3.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
        self.records.push(bytes);
        let mut passed = Vec::new();
        while !self.done {
            match self.records.next().map_err(|_| Refusal::NotTls)? {
                Next::Incomplete => return Ok(passed),
                // It refuses, and says why.
                Next::Alert => self.done = true,
                Next::ChangeCipherSpec if self.retried => {
                    passed.extend(self.records.take_read());
                }
                Next::ChangeCipherSpec => return Err(Refusal::NotTls),
                Next::Handshake => {
                    if self.take_message()? {
                        passed.extend(self.records.take_read());
                    }
                }
            }
        }
        passed.extend(self.records.take_all());
        Ok(passed)
    }

    /// Whether everything more may be passed on unseen.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether a message is whole, and fits.
    fn take_message(&mut self) -> Result<bool, Refusal> {
        if self
            .records
            .begins_with_other(TlsHandshakeType::ServerHello.0)
        {
            return Err(Refusal::NotTls);
        }
        // Older versions put more messages behind it.
        let message = self.records.message().map_err(|_| Refusal::Version)?;
        let Some((_, body)) = message else {
            return Ok(false);
        };
        let (rest, hello) = parse_tls_handshake_server_hello(body).map_err(|_| Refusal::NotTls)?;
        if !rest.is_empty() {
            return Err(Refusal::NotTls);
        }
        let list = hello.ext.ok_or(Refusal::Version)?;
        let [version] = extensions(list, [TlsExtensionType::SupportedVersions.0])
            .map_err(|_| Refusal::NotTls)?;
        let tls_13 = TlsVersion::Tls13.0.to_be_bytes();
        if version != Some(tls_13.as_slice()) || hello.version != TlsVersion::Tls12 {
            return Err(Refusal::Version);
        }
        match hello.random == HELLO_RETRY_REQUEST {
            true if self.retried => return Err(Refusal::NotTls),
            true => self.retried = true,
            false => self.done = true,
        }
        Ok(true)
    }
}

#[cfg(test)]
#[path = "server_hello_tests.rs"]
mod tests;
