//! Looks at what a private server answers, until its ServerHello has selected
//! TLS 1.3. A client that also offers older versions cannot be brought to one
//! through the tunnel.

use tls_parser::{
    TlsAlertSeverity, TlsExtensionType, TlsHandshakeType, TlsVersion,
    parse_tls_handshake_server_hello,
};

use crate::records::{Next, Records, extensions};
use crate::refusal::Refusal;

/// SHA-256 of "HelloRetryRequest": the random value of a ServerHello that is
/// one (RFC 8446, 4.1.3).
const HELLO_RETRY_REQUEST: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Levels of alerts. Servers that also speak older versions warn before their
/// ServerHello, for instance of a name that they do not know (RFC 6066, 3).
const WARNING: u8 = TlsAlertSeverity::Warning.0;
const FATAL: u8 = TlsAlertSeverity::Fatal.0;

/// A server's first bytes.
#[derive(Debug, Default)]
pub struct ServerHelloReader {
    records: Records,
    retried: bool,
    /// By a fatal alert: what comes behind it is passed on to nobody.
    refused: bool,
    done: bool,
}

impl ServerHelloReader {
    /// Takes in what came, and gives back what may be passed on now.
    ///
    /// # Errors
    /// When the server does not speak TLS 1.3.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut passed = Vec::new();
        if self.refused {
            return Ok(passed);
        }
        self.records.push(bytes);
        while !self.done {
            let between = self.records.is_between_messages();
            match self.records.next().map_err(|_| Refusal::NotTls)? {
                Next::Incomplete => return Ok(passed),
                Next::Alert([WARNING, _]) if between => {
                    passed.extend(self.records.take_read());
                }
                Next::Alert([FATAL, _]) if between => {
                    self.refused = true;
                    passed.extend(self.records.take_read());
                    return Ok(passed);
                }
                Next::ChangeCipherSpec if between && self.retried => {
                    passed.extend(self.records.take_read());
                }
                Next::Alert(_) | Next::ChangeCipherSpec => return Err(Refusal::NotTls),
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
