//! What an LDAP server may send, octet by octet (RFC 4511, RFC 2696).
//!
//! ldap3 takes answers apart trusting that they have the form that the protocol
//! gives them, and ends the task when they have not. So every message is held
//! against that form first, and only what has it is handed on. Nothing here
//! keeps or changes a message.

use std::str;

/// Longest message, in bytes: a group of 100,000 members.
const MESSAGE_MAX: usize = 16 * 1024 * 1024;
/// Most values, names and the like in one message.
const ELEMENTS_MAX: usize = 400_000;
/// The id of the first message of ldap3 on a connection: the bind.
pub(crate) const BIND_ID: u32 = 1;
/// OID of the control for results in pages (RFC 2696).
const PAGED_RESULTS: &[u8] = b"1.2.840.113556.1.4.319";

/// Asks for TLS: an ExtendedRequest with message id 1.
pub(crate) const START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const BIND_RESPONSE: u8 = 0x61;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const SEARCH_REFERENCE: u8 = 0x73;
const EXTENDED_RESPONSE: u8 = 0x78;
const CONTROLS: u8 = 0xa0;
const REFERRAL: u8 = 0xa3;
const SASL_CREDENTIALS: u8 = 0x87;
const RESPONSE_NAME: u8 = 0x8a;
const RESPONSE_VALUE: u8 = 0x8b;

/// Why a message is not handed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// It is none, or none that answers what was asked.
    #[error("it sent something that is no LDAP answer")]
    Malformed,
    /// It is larger than anything that an import needs.
    #[error("it sent a message of more than {MESSAGE_MAX} bytes or {ELEMENTS_MAX} values")]
    TooLarge,
    /// The server says that it ends the connection.
    #[error("it ended the connection by itself")]
    Disconnection,
}

/// Length of the message that `bytes` begin with, in bytes; `None` when there
/// are too few of them to tell.
///
/// # Errors
/// [`BadMessage`], when no message begins so or it is too long.
pub fn length(bytes: &[u8]) -> Result<Option<usize>, BadMessage> {
    match *bytes {
        [] => Ok(None),
        [SEQUENCE] => Ok(None),
        [SEQUENCE, ref rest @ ..] => match header(rest)? {
            Some((header, content)) => match content.checked_add(header + 1) {
                Some(length) if length <= MESSAGE_MAX => Ok(Some(length)),
                _ => Err(BadMessage::TooLarge),
            },
            None => Ok(None),
        },
        _ => Err(BadMessage::Malformed),
    }
}

/// Refuses a message that ldap3 must not see: it answers the bind with
/// the id 1, or a search.
///
/// # Errors
/// [`BadMessage`].
pub fn check_answer(message: &[u8]) -> Result<(), BadMessage> {
    check(message, |answer, id| match id {
        0 => Err(BadMessage::Disconnection),
        BIND_ID => answer.result(BIND_RESPONSE).map(drop),
        _ => match answer.bytes {
            [SEARCH_ENTRY, ..] => answer.entry(),
            [SEARCH_REFERENCE, ..] => answer.strings(SEARCH_REFERENCE),
            _ => answer.result(SEARCH_DONE).map(drop),
        },
    })
}

/// Whether the server agrees to [`START_TLS`].
pub(crate) fn check_start_tls(message: &[u8]) -> Result<bool, BadMessage> {
    check(message, |answer, id| match id {
        0 => Err(BadMessage::Disconnection),
        _ => Ok(answer.result(EXTENDED_RESPONSE)? == 0),
    })
}

/// One whole message; its operation is what `operation` reads.
fn check<T>(
    message: &[u8],
    operation: impl FnOnce(&mut Reader<'_>, u32) -> Result<T, BadMessage>,
) -> Result<T, BadMessage> {
    let mut elements = 0;
    let mut whole = Reader {
        bytes: message,
        elements: &mut elements,
    };
    let read = whole.within(SEQUENCE, |message| {
        let id = message.number(INTEGER)?;
        let read = operation(message, id)?;
        if !message.is_at_end() {
            message.each_within(CONTROLS, |controls| controls.control())?;
        }
        Ok(read)
    })?;
    whole.end()?;
    Ok(read)
}

/// Reads one element after the other, and fails at the first that is not the
/// one expected.
struct Reader<'a> {
    bytes: &'a [u8],
    /// How many were read in the whole message.
    elements: &'a mut usize,
}

impl<'a> Reader<'a> {
    /// `LDAPResult` with what `BindResponse` and `ExtendedResponse` add; its code.
    fn result(&mut self, tag: u8) -> Result<u32, BadMessage> {
        self.within(tag, |result| {
            let code = result.number(ENUMERATED)?;
            result.text(OCTET_STRING)?;
            result.text(OCTET_STRING)?;
            while let Some(&next) = result.bytes.first() {
                match next {
                    REFERRAL => result.strings(REFERRAL)?,
                    RESPONSE_NAME => result.text(RESPONSE_NAME)?,
                    SASL_CREDENTIALS | RESPONSE_VALUE => drop(result.take(next)?),
                    _ => return Err(BadMessage::Malformed),
                }
            }
            Ok(code)
        })
    }

    /// `SearchResultEntry`.
    fn entry(&mut self) -> Result<(), BadMessage> {
        self.within(SEARCH_ENTRY, |entry| {
            entry.text(OCTET_STRING)?;
            entry.each_within(SEQUENCE, |attributes| {
                attributes.within(SEQUENCE, |attribute| {
                    attribute.text(OCTET_STRING)?;
                    attribute.each_within(SET, |values| values.take(OCTET_STRING).map(drop))
                })
            })
        })
    }

    fn control(&mut self) -> Result<(), BadMessage> {
        self.within(SEQUENCE, |control| {
            let kind = control.take(OCTET_STRING)?;
            str::from_utf8(kind).map_err(|_| BadMessage::Malformed)?;
            if control.bytes.first() == Some(&BOOLEAN) && control.take(BOOLEAN)?.len() != 1 {
                return Err(BadMessage::Malformed);
            }
            if kind != PAGED_RESULTS && control.is_at_end() {
                return Ok(());
            }
            let value = control.take(OCTET_STRING)?;
            if kind != PAGED_RESULTS {
                return Ok(());
            }
            let mut paged = Reader {
                bytes: value,
                elements: &mut *control.elements,
            };
            paged.within(SEQUENCE, |paged| {
                paged.number(INTEGER)?;
                paged.take(OCTET_STRING).map(drop)
            })?;
            paged.end()
        })
    }

    fn strings(&mut self, tag: u8) -> Result<(), BadMessage> {
        self.each_within(tag, |uris| uris.text(OCTET_STRING))
    }

    fn text(&mut self, tag: u8) -> Result<(), BadMessage> {
        str::from_utf8(self.take(tag)?).map_err(|_| BadMessage::Malformed)?;
        Ok(())
    }

    /// A number from 0 to 2^31 - 1.
    fn number(&mut self, tag: u8) -> Result<u32, BadMessage> {
        let bytes = self.take(tag)?;
        match bytes {
            [first, ..] if bytes.len() <= 4 && *first < 0x80 => Ok(bytes
                .iter()
                .fold(0, |number, &byte| number << 8 | u32::from(byte))),
            _ => Err(BadMessage::Malformed),
        }
    }

    /// One element that holds exactly what `inner` reads.
    fn within<T>(
        &mut self,
        tag: u8,
        inner: impl FnOnce(&mut Reader<'_>) -> Result<T, BadMessage>,
    ) -> Result<T, BadMessage> {
        let bytes = self.take(tag)?;
        let mut content = Reader {
            bytes,
            elements: &mut *self.elements,
        };
        let read = inner(&mut content)?;
        content.end()?;
        Ok(read)
    }

    /// One element that holds any number of what `inner` reads.
    fn each_within(
        &mut self,
        tag: u8,
        mut inner: impl FnMut(&mut Reader<'_>) -> Result<(), BadMessage>,
    ) -> Result<(), BadMessage> {
        self.within(tag, |content| {
            while !content.is_at_end() {
                inner(content)?;
            }
            Ok(())
        })
    }

    /// The content of the next element, which must have this tag.
    fn take(&mut self, tag: u8) -> Result<&'a [u8], BadMessage> {
        *self.elements += 1;
        if *self.elements > ELEMENTS_MAX {
            return Err(BadMessage::TooLarge);
        }
        let bytes = self.bytes;
        let after_tag = bytes.strip_prefix(&[tag]).ok_or(BadMessage::Malformed)?;
        let (header, length) = header(after_tag)?.ok_or(BadMessage::Malformed)?;
        let split = after_tag
            .get(header..)
            .and_then(|content| content.split_at_checked(length));
        let (content, rest) = split.ok_or(BadMessage::Malformed)?;
        self.bytes = rest;
        Ok(content)
    }

    fn is_at_end(&self) -> bool {
        self.bytes.is_empty()
    }

    fn end(&self) -> Result<(), BadMessage> {
        if self.is_at_end() {
            Ok(())
        } else {
            Err(BadMessage::Malformed)
        }
    }
}

/// How many bytes say the length, and the length that they say. The definite
/// form only, as LDAP demands.
fn header(bytes: &[u8]) -> Result<Option<(usize, usize)>, BadMessage> {
    match *bytes {
        [] => Ok(None),
        [short @ 0..=0x7f, ..] => Ok(Some((1, short.into()))),
        [long @ 0x81..=0x84, ref rest @ ..] => {
            let count = usize::from(long - 0x80);
            let Some(length) = rest.get(..count) else {
                return Ok(None);
            };
            let length = length
                .iter()
                .fold(0, |length, &byte| length << 8 | usize::from(byte));
            Ok(Some((1 + count, length)))
        }
        _ => Err(BadMessage::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&[tag, 0x84], length.as_slice(), content].concat()
    }

    fn message(id: u8, operation: &[u8]) -> Vec<u8> {
        element(SEQUENCE, &[&[INTEGER, 1, id], operation].concat())
    }

    fn result(tag: u8, code: u8, more: &[u8]) -> Vec<u8> {
        let result = [
            &[ENUMERATED, 1, code, OCTET_STRING, 0, OCTET_STRING, 0],
            more,
        ];
        element(tag, &result.concat())
    }

    fn entry(dn: &[u8], values: &[&[u8]]) -> Vec<u8> {
        let values: Vec<u8> = values
            .iter()
            .flat_map(|v| element(OCTET_STRING, v))
            .collect();
        let attribute = [element(OCTET_STRING, b"cn"), element(SET, &values)].concat();
        let attributes = element(SEQUENCE, &element(SEQUENCE, &attribute));
        element(
            SEARCH_ENTRY,
            &[element(OCTET_STRING, dn), attributes].concat(),
        )
    }

    fn done_with_cookie(cookie: &[u8]) -> Vec<u8> {
        let value = [&[INTEGER, 1, 0], element(OCTET_STRING, cookie).as_slice()].concat();
        let value = element(OCTET_STRING, &element(SEQUENCE, &value));
        let control = [element(OCTET_STRING, PAGED_RESULTS), value].concat();
        let controls = element(CONTROLS, &element(SEQUENCE, &control));
        message(2, &[result(SEARCH_DONE, 0, &[]), controls].concat())
    }

    #[test]
    fn answers_to_what_was_asked_pass() {
        for answer in [
            message(1, &result(BIND_RESPONSE, 49, &[])),
            message(1, &result(BIND_RESPONSE, 0, &[SASL_CREDENTIALS, 1, b'x'])),
            message(2, &entry(b"cn=a", &[b"a", b"\xff\xfe"])),
            message(2, &entry(b"", &[])),
            message(
                3,
                &element(SEARCH_REFERENCE, &element(OCTET_STRING, b"ldap://x")),
            ),
            message(
                9,
                &result(
                    SEARCH_DONE,
                    10,
                    &element(REFERRAL, &element(4, b"ldap://x")),
                ),
            ),
            done_with_cookie(b"more"),
        ] {
            assert_eq!(length(&answer), Ok(Some(answer.len())));
            assert_eq!(check_answer(&answer), Ok(()), "{answer:02x?}");
        }
    }

    #[test]
    fn answers_to_something_else_do_not() {
        let malformed = Err(BadMessage::Malformed);
        for answer in [
            message(2, &result(BIND_RESPONSE, 0, &[])),
            message(1, &entry(b"cn=a", &[])),
            message(1, &result(SEARCH_DONE, 0, &[])),
            message(2, &result(0x79, 0, &[])),
            message(2, &entry(b"cn=\xff", &[])),
            message(2, &element(SEARCH_ENTRY, &[])),
            message(2, &element(SEARCH_DONE, &[ENUMERATED, 0])),
            message(2, &[]),
            element(SEQUENCE, &[]),
            element(SEQUENCE, &[INTEGER, 1, 0xff, SEARCH_DONE, 0]),
            [message(2, &entry(b"cn=a", &[])), vec![0]].concat(),
            // A control without the value that ldap3 relies on.
            message(
                2,
                &[
                    result(SEARCH_DONE, 0, &[]),
                    element(
                        CONTROLS,
                        &element(SEQUENCE, &element(OCTET_STRING, PAGED_RESULTS)),
                    ),
                ]
                .concat(),
            ),
        ] {
            assert_eq!(check_answer(&answer), malformed, "{answer:02x?}");
        }
        let goodbye = message(0, &result(EXTENDED_RESPONSE, 52, &[]));
        assert_eq!(check_answer(&goodbye), Err(BadMessage::Disconnection));
    }

    #[test]
    fn nesting_cannot_be_deep() {
        let mut deep = vec![SET, 0];
        for _ in 0..100_000 {
            let length = u32::try_from(deep.len()).unwrap().to_be_bytes();
            deep.splice(..0, [&[SET, 0x84], length.as_slice()].concat());
            if deep.len() > 4_000 {
                break;
            }
        }
        let attribute = [element(OCTET_STRING, b"cn"), deep].concat();
        let attributes = element(SEQUENCE, &element(SEQUENCE, &attribute));
        let entry = [element(OCTET_STRING, b"cn=a"), attributes].concat();
        let entry = message(2, &element(SEARCH_ENTRY, &entry));
        assert_eq!(check_answer(&entry), Err(BadMessage::Malformed));
    }

    #[test]
    fn sizes_are_bounded_before_they_are_read() {
        assert_eq!(
            length(&[SEQUENCE, 0x84, 1, 0, 0, 0]),
            Err(BadMessage::TooLarge)
        );
        assert_eq!(length(&[SEQUENCE, 0x80]), Err(BadMessage::Malformed));
        assert_eq!(length(&[SEQUENCE, 0x88, 0]), Err(BadMessage::Malformed));
        assert_eq!(length(b"HTTP/1.1 400"), Err(BadMessage::Malformed));
        assert_eq!(length(&[SEQUENCE, 0x82, 1]), Ok(None));
        let many: Vec<&[u8]> = vec![b""; ELEMENTS_MAX];
        let many = message(2, &entry(b"cn=a", &many));
        assert_eq!(check_answer(&many), Err(BadMessage::TooLarge));
    }

    #[test]
    fn start_tls_is_agreed_to_with_success_only() {
        assert_eq!(length(START_TLS), Ok(Some(START_TLS.len())));
        let answer = |code| check_start_tls(&message(1, &result(EXTENDED_RESPONSE, code, &[])));
        assert_eq!(answer(0), Ok(true));
        assert_eq!(answer(2), Ok(false));
        let other = message(1, &result(SEARCH_DONE, 0, &[]));
        assert_eq!(check_start_tls(&other), Err(BadMessage::Malformed));
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in vec(any::<u8>(), 0..200)) {
            let _ = (length(&bytes), check_answer(&bytes), check_start_tls(&bytes));
        }

        #[test]
        fn a_flipped_byte_never_panics(at in 0..60_usize, byte: u8) {
            let mut answer = done_with_cookie(b"cookie");
            let at = at % answer.len();
            answer[at] = byte;
            let _ = check_answer(&answer);
        }
    }
}
