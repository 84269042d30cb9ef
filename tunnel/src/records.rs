//! TLS records in clear, and the handshake messages that they carry in pieces
//! (RFC 8446, 5.1). Bytes are kept as they came: a tunnel passes them on.

use tls_parser::{TlsRecordType, parse_tls_record_header};

use crate::refusal::Refusal;

/// Most bytes that are kept of one hello, with the headers of its records.
pub const HELLO_MAX: usize = 65_536;
/// Longest content of a record in clear (RFC 8446, 5.1).
const RECORD_MAX: usize = 1 << 14;
const RECORD_HEADER: usize = 5;
/// Type and length of a handshake message.
const MESSAGE_HEADER: usize = 4;

/// What has come in, record by record.
#[derive(Debug, Default)]
pub(crate) struct Records {
    raw: Vec<u8>,
    /// How much of `raw` is whole records that were looked at.
    read: usize,
    /// Their contents, until a message is whole.
    message: Vec<u8>,
}

/// What the next whole record brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing yet: it is not whole.
    Incomplete,
    /// A piece of a message; [`Records::message`] may be whole now.
    Handshake,
    /// An alert, in clear: its level and description (RFC 8446, 6).
    Alert([u8; 2]),
    /// A change of cipher spec, which is of no meaning (RFC 8446, D.4).
    ChangeCipherSpec,
}

impl Records {
    /// Takes in what came; at most [`HELLO_MAX`] are kept before a verdict.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.raw.extend_from_slice(bytes);
    }

    /// Looks at the next record.
    ///
    /// # Errors
    /// When it cannot be part of a hello, or the hello is too large.
    pub(crate) fn next(&mut self) -> Result<Next, Refusal> {
        let rest = self.raw.get(self.read..).unwrap_or_default();
        let kind = rest.first().map(|&kind| TlsRecordType(kind));
        let next = match kind {
            None => return Ok(Next::Incomplete),
            Some(TlsRecordType::Handshake) => Next::Handshake,
            Some(TlsRecordType::Alert) => Next::Alert([0; 2]),
            Some(TlsRecordType::ChangeCipherSpec) => Next::ChangeCipherSpec,
            Some(_) => return Err(Refusal::UnexpectedMessage),
        };
        let Ok((after, header)) = parse_tls_record_header(rest) else {
            return Ok(Next::Incomplete);
        };
        let length = usize::from(header.len);
        if length > RECORD_MAX {
            return Err(Refusal::RecordOverflow);
        }
        if length == 0 {
            return Err(Refusal::UnexpectedMessage);
        }
        let end = self.read + RECORD_HEADER + length;
        if end > HELLO_MAX {
            return Err(Refusal::Malformed);
        }
        let Some(content) = after.get(..length) else {
            return Ok(Next::Incomplete);
        };
        self.read = end;
        match next {
            Next::Handshake => self.message.extend_from_slice(content),
            Next::Alert(_) => {
                let alert = content.try_into();
                return Ok(Next::Alert(alert.map_err(|_| Refusal::Malformed)?));
            }
            _ => {}
        }
        Ok(next)
    }

    /// Type and body of the message, when it is whole. It must end where a
    /// record ends: nothing may follow a hello before keys change.
    ///
    /// # Errors
    /// When it is longer than [`HELLO_MAX`], or more follows.
    pub(crate) fn message(&self) -> Result<Option<(u8, &[u8])>, Refusal> {
        let Some((&[kind, high, middle, low], body)) =
            self.message.split_first_chunk::<MESSAGE_HEADER>()
        else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes([0, high, middle, low]));
        let length = length.map_err(|_| Refusal::Malformed)?;
        if length > HELLO_MAX {
            return Err(Refusal::Malformed);
        }
        match body.len() {
            has if has < length => Ok(None),
            has if has == length => Ok(Some((kind, body))),
            _ => Err(Refusal::UnexpectedMessage),
        }
    }

    /// Whether the message is, as its first byte says, of another type.
    pub(crate) fn begins_with_other(&self, kind: u8) -> bool {
        self.message.first().is_some_and(|&first| first != kind)
    }

    /// Whether no message is begun.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.message.is_empty()
    }

    /// The bytes of every record that was looked at, as they came.
    pub(crate) fn take_read(&mut self) -> Vec<u8> {
        let rest = self.raw.split_off(self.read);
        self.read = 0;
        self.message.clear();
        std::mem::replace(&mut self.raw, rest)
    }

    /// Everything that came and was not taken.
    pub(crate) fn take_all(&mut self) -> Vec<u8> {
        self.read = 0;
        self.message.clear();
        std::mem::take(&mut self.raw)
    }
}

/// Walks the extensions of a hello, and gives back the contents of those
/// named; each may be there once (RFC 8446, 4.2).
///
/// # Errors
/// When the list does not read, or one is there twice.
pub(crate) fn extensions<const N: usize>(
    mut list: &[u8],
    wanted: [u16; N],
) -> Result<[Option<&[u8]>; N], Refusal> {
    let mut seen = std::collections::BTreeSet::new();
    let mut found = [None; N];
    while !list.is_empty() {
        let Ok((rest, tls_parser::TlsExtension::Unknown(kind, content))) =
            tls_parser::parse_tls_extension_unknown(list)
        else {
            return Err(Refusal::Malformed);
        };
        if !seen.insert(kind.0) {
            return Err(Refusal::IllegalParameter);
        }
        for (slot, wanted) in found.iter_mut().zip(wanted) {
            if wanted == kind.0 {
                *slot = Some(content);
            }
        }
        list = rest;
    }
    Ok(found)
}
