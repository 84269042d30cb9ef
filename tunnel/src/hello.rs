//! Reads a ClientHello as it comes, in as many pieces as its sender likes, and
//! says to whom it wants: nothing else of it is looked at, and not a byte of
//! it is changed.
//!
//! What an encrypted ClientHello hides stays hidden: its outer name is the one
//! that counts here, as it is meant to be. Values and extensions that are
//! not known, GREASE among them (RFC 8701), are passed on.

use tls_parser::{
    SNIType, TlsExtension, TlsExtensionType, TlsHandshakeType, TlsVersion,
    parse_tls_extension_sni_content, parse_tls_handshake_client_hello,
};

use crate::name::HostName;
pub use crate::records::HELLO_MAX;
use crate::records::{Next, Records, extensions};
use crate::refusal::Refusal;

/// A ClientHello that is coming in.
#[derive(Debug, Default)]
pub struct HelloReader {
    records: Records,
}

/// One that offers TLS 1.3 and names a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    /// The server's name.
    pub name: HostName,
    /// The hello as it came.
    pub bytes: Vec<u8>,
    /// What came behind it, for instance early data.
    pub rest: Vec<u8>,
}

impl HelloReader {
    /// Takes in what came; `None` while the hello is not whole. Afterwards
    /// this begins anew.
    ///
    /// # Errors
    /// When no hello that can be passed on will come of it.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<ClientHello>, Refusal> {
        self.records.push(bytes);
        loop {
            match self.records.next()? {
                Next::Incomplete => return Ok(None),
                Next::Alert(_) | Next::ChangeCipherSpec => {
                    return Err(Refusal::UnexpectedMessage);
                }
                Next::Handshake => {}
            }
            if self
                .records
                .begins_with_other(TlsHandshakeType::ClientHello.0)
            {
                return Err(Refusal::UnexpectedMessage);
            }
            let Some((_, body)) = self.records.message()? else {
                continue;
            };
            let name = name(body)?;
            return Ok(Some(ClientHello {
                name,
                bytes: self.records.take_read(),
                rest: self.records.take_all(),
            }));
        }
    }
}

/// The server's name in a ClientHello that offers TLS 1.3.
fn name(body: &[u8]) -> Result<HostName, Refusal> {
    let (rest, hello) = parse_tls_handshake_client_hello(body).map_err(|_| Refusal::Malformed)?;
    if !rest.is_empty() || hello.ciphers.is_empty() || hello.comp.is_empty() {
        return Err(Refusal::Malformed);
    }
    // Without extensions it is older than TLS 1.3.
    let list = hello.ext.ok_or(Refusal::Version)?;
    let wanted = [
        TlsExtensionType::SupportedVersions.0,
        TlsExtensionType::ServerName.0,
    ];
    let [versions, names] = extensions(list, wanted)?;
    if !offers_tls_13(versions.ok_or(Refusal::Version)?)? {
        return Err(Refusal::Version);
    }
    // RFC 8446, 4.1.2: exactly one byte, zero.
    if !matches!(hello.comp.as_slice(), [only] if only.0 == 0) {
        return Err(Refusal::IllegalParameter);
    }
    host_name(names.ok_or(Refusal::NoName)?)
}

/// RFC 8446, 4.2.1. Read here: the crate's function neither compares the two
/// lengths nor tells a client's list from a server's choice.
fn offers_tls_13(content: &[u8]) -> Result<bool, Refusal> {
    let (&length, list) = content.split_first().ok_or(Refusal::Malformed)?;
    let (versions, odd) = list.as_chunks::<2>();
    if usize::from(length) != list.len() || versions.is_empty() || !odd.is_empty() {
        return Err(Refusal::Malformed);
    }
    Ok(versions.contains(&TlsVersion::Tls13.0.to_be_bytes()))
}

/// RFC 6066, 3.
fn host_name(content: &[u8]) -> Result<HostName, Refusal> {
    let Ok((rest, TlsExtension::SNI(names))) = parse_tls_extension_sni_content(content) else {
        return Err(Refusal::Malformed);
    };
    // The crate stops silently at a name that does not read.
    let read: usize = names.iter().map(|(_, name)| name.len() + 3).sum();
    if !rest.is_empty() || names.is_empty() || read + 2 != content.len() {
        return Err(Refusal::Malformed);
    }
    let mut hosts = names.iter().filter(|(kind, _)| *kind == SNIType::HostName);
    let (_, host) = hosts.next().ok_or(Refusal::NoName)?;
    if hosts.next().is_some() {
        return Err(Refusal::IllegalParameter);
    }
    if host.is_empty() {
        return Err(Refusal::Malformed);
    }
    // Not a name that anybody could announce.
    HostName::from_wire(host).ok_or(Refusal::UnknownName)
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
