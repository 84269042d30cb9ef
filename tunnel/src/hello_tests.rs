//! Hellos of a real client, and a table of malformed ones after the style of
//! BoringSSL's runner: one thing wrong in each, and the alert that it gets.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tls_parser::TlsAlertDescription as Alert;

use super::*;

/// What rustls sends.
fn real(name: &'static str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

fn sized<const N: usize>(content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    [&length[length.len() - N..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [kind.to_be_bytes().to_vec(), sized::<2>(content)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &sized::<2>(&[vec![0], sized::<2>(name)].concat()))
}

fn versions(versions: &[u16]) -> Vec<u8> {
    let list: Vec<u8> = versions
        .iter()
        .flat_map(|version| version.to_be_bytes())
        .collect();
    extension(43, &sized::<1>(&list))
}

fn usual() -> Vec<Vec<u8>> {
    vec![server_name(b"chat.example"), versions(&[0x0304])]
}

/// A ClientHello's body; nothing is right but what a tunnel looks at.
fn body(extensions: &[Vec<u8>]) -> Vec<u8> {
    [
        vec![3, 3],
        vec![7; 32],
        sized::<1>(&[9; 32]),
        sized::<2>(&[0x13, 0x01]),
        sized::<1>(&[0]),
        sized::<2>(&extensions.concat()),
    ]
    .concat()
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [vec![kind], sized::<3>(body)].concat()
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [vec![kind, 3, 1], sized::<2>(content)].concat()
}

fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    record(22, &message(1, &body(extensions)))
}

fn read(bytes: &[u8]) -> Result<Option<ClientHello>, Refusal> {
    HelloReader::default().push(bytes)
}

fn name_of(bytes: &[u8]) -> String {
    read(bytes).unwrap().unwrap().name.to_string()
}

#[test]
fn a_real_hello_is_passed_on_as_it_came_with_what_is_behind_it() {
    let mut bytes = real("chat.example");
    let hello = read(&bytes).unwrap().unwrap();
    assert_eq!(hello.name.as_str(), "chat.example");
    assert_eq!((&hello.bytes, hello.rest.len()), (&bytes, 0));
    bytes.extend(b"early data");
    let hello = read(&bytes).unwrap().unwrap();
    assert_eq!(hello.rest, b"early data");
    assert_eq!(hello.bytes.len() + hello.rest.len(), bytes.len());
}

#[test]
fn what_is_not_known_is_passed_on() {
    let names = [
        hello(
            &[
                vec![extension(0x1a1a, b"")],
                usual(),
                vec![extension(0xdada, b"x")],
            ]
            .concat(),
        ),
        hello(&[
            server_name(b"chat.example"),
            versions(&[0x7a7a, 0x0304, 0x0303]),
        ]),
        // An encrypted ClientHello (0xfe0d): the outer name counts.
        hello(&[usual(), vec![extension(0xfe0d, &[0; 200])]].concat()),
        // Names of other kinds are for others.
        hello(&[
            versions(&[0x0304]),
            extension(
                0,
                &sized::<2>(&[vec![5, 0, 1, b'x', 0], sized::<2>(b"CHAT.example")].concat()),
            ),
        ]),
        // Extensions whose content some parsers refuse.
        hello(
            &[
                usual(),
                vec![
                    extension(28, b""),
                    extension(0xffce, b"?"),
                    extension(23, b"!"),
                ],
            ]
            .concat(),
        ),
    ];
    for bytes in names {
        assert_eq!(name_of(&bytes), "chat.example");
    }
}

#[test]
fn acme_s_hello_passes() {
    let alpn = extension(16, &sized::<2>(&sized::<1>(b"acme-tls/1")));
    assert_eq!(
        name_of(&hello(&[usual(), vec![alpn]].concat())),
        "chat.example"
    );
}

#[test]
fn records_of_one_byte_each_carry_a_hello() {
    let message = message(1, &body(&usual()));
    let records: Vec<u8> = message
        .iter()
        .flat_map(|&byte| record(22, &[byte]))
        .collect();
    assert_eq!(name_of(&records), "chat.example");
    let mut reader = HelloReader::default();
    for &byte in &records[..records.len() - 1] {
        assert_eq!(reader.push(&[byte]), Ok(None));
    }
    let hello = reader.push(&records[records.len() - 1..]).unwrap().unwrap();
    assert_eq!(hello.bytes, records);
}

#[test]
fn a_hello_may_take_64_kib_and_not_more() {
    let padded = |padding: usize| {
        let padding = extension(21, &vec![0; padding]);
        let message = message(1, &body(&[usual(), vec![padding]].concat()));
        message
            .chunks(16_384)
            .flat_map(|piece| record(22, piece))
            .collect::<Vec<_>>()
    };
    let overhead = padded(0).len() + 3 * 5;
    let largest = padded(HELLO_MAX - overhead);
    assert_eq!(largest.len(), HELLO_MAX);
    assert_eq!(name_of(&largest), "chat.example");
    assert_eq!(
        read(&padded(HELLO_MAX - overhead + 1)),
        Err(Refusal::Malformed)
    );
}

#[test]
fn every_malformed_hello_gets_its_alert() {
    let with = |extra: Vec<Vec<u8>>| hello(&[usual(), extra].concat());
    let named = |content: &[u8]| hello(&[versions(&[0x0304]), extension(0, content)]);
    let versioned = |content: &[u8]| hello(&[server_name(b"chat.example"), extension(43, content)]);
    let cut = |body: Vec<u8>, by: usize| record(22, &message(1, &body[..body.len() - by]));
    let changed = |at: usize, to: Vec<u8>| {
        let mut body = body(&usual());
        body.splice(at..=at, to);
        record(22, &message(1, &body))
    };
    let whole = message(1, &body(&usual()));
    let cases: Vec<(&str, Vec<u8>, Alert)> = vec![
        (
            "plain HTTP",
            b"GET / HTTP/1.1\r\n".to_vec(),
            Alert::UnexpectedMessage,
        ),
        ("SSL 2", vec![0x80, 0x2e, 1, 3, 1], Alert::UnexpectedMessage),
        (
            "application data",
            record(23, b"x"),
            Alert::UnexpectedMessage,
        ),
        ("an alert", record(21, &[1, 0]), Alert::UnexpectedMessage),
        (
            "a change of cipher spec",
            record(20, &[1]),
            Alert::UnexpectedMessage,
        ),
        ("an empty record", record(22, &[]), Alert::UnexpectedMessage),
        (
            "an alert inside of a hello",
            [record(22, &whole[..9]), record(21, &[1, 0])].concat(),
            Alert::UnexpectedMessage,
        ),
        (
            "a record too long",
            [vec![22, 3, 1], 16_385_u16.to_be_bytes().to_vec()].concat(),
            Alert::RecordOverflow,
        ),
        (
            "a ServerHello",
            record(22, &message(2, &body(&usual()))),
            Alert::UnexpectedMessage,
        ),
        (
            "two messages in one record",
            record(22, &[whole.clone(), vec![1]].concat()),
            Alert::UnexpectedMessage,
        ),
        (
            "a message too long",
            record(22, &[1, 1, 0, 1]),
            Alert::DecodeError,
        ),
        (
            "an empty message",
            record(22, &message(1, &[])),
            Alert::DecodeError,
        ),
        (
            "a body that is cut",
            cut(body(&usual()), 1),
            Alert::DecodeError,
        ),
        (
            "a body with more behind",
            record(22, &message(1, &[body(&usual()), vec![0]].concat())),
            Alert::DecodeError,
        ),
        (
            "a session id too long",
            changed(34, vec![33]),
            Alert::DecodeError,
        ),
        ("no cipher suites", changed(68, vec![0]), Alert::DecodeError),
        (
            "half a cipher suite",
            changed(68, vec![1]),
            Alert::DecodeError,
        ),
        ("no compression", changed(71, vec![0]), Alert::DecodeError),
        ("compression", changed(72, vec![1]), Alert::IllegalParameter),
        (
            "two compressions",
            {
                let mut body = body(&usual());
                body.splice(71..73, [2, 0, 1]);
                record(22, &message(1, &body))
            },
            Alert::IllegalParameter,
        ),
        (
            "no extensions at all",
            cut(body(&[]), 2),
            Alert::ProtocolVersion,
        ),
        (
            "an empty list of extensions",
            hello(&[]),
            Alert::ProtocolVersion,
        ),
        (
            "an extension that is cut",
            with(vec![vec![0, 99, 0, 5, 1]]),
            Alert::DecodeError,
        ),
        (
            "an extension twice",
            with(vec![versions(&[0x0304])]),
            Alert::IllegalParameter,
        ),
        (
            "an unknown extension twice",
            with(vec![extension(999, b""), extension(999, b"")]),
            Alert::IllegalParameter,
        ),
        (
            "no versions",
            hello(&[server_name(b"chat.example")]),
            Alert::ProtocolVersion,
        ),
        (
            "TLS 1.2 only",
            hello(&[server_name(b"chat.example"), versions(&[0x0303, 0x0302])]),
            Alert::ProtocolVersion,
        ),
        (
            "a draft of TLS 1.3",
            hello(&[server_name(b"chat.example"), versions(&[0x7f1c])]),
            Alert::ProtocolVersion,
        ),
        (
            "an empty list of versions",
            versioned(&[0]),
            Alert::DecodeError,
        ),
        ("no list of versions", versioned(&[]), Alert::DecodeError),
        (
            "half a version",
            versioned(&[3, 3, 4, 3]),
            Alert::DecodeError,
        ),
        (
            "a server's choice of version",
            versioned(&[3, 4]),
            Alert::DecodeError,
        ),
        (
            "versions longer than they say",
            versioned(&[2, 3, 4, 3, 3]),
            Alert::DecodeError,
        ),
        (
            "versions shorter than they say",
            versioned(&[4, 3, 4]),
            Alert::DecodeError,
        ),
        (
            "no name",
            hello(&[versions(&[0x0304])]),
            Alert::MissingExtension,
        ),
        (
            "an empty extension of names",
            named(&[]),
            Alert::DecodeError,
        ),
        ("an empty list of names", named(&[0, 0]), Alert::DecodeError),
        ("an empty name", named(&[0, 3, 0, 0, 0]), Alert::DecodeError),
        (
            "a name that is cut",
            named(&[0, 4, 0, 0, 9, b'a']),
            Alert::DecodeError,
        ),
        (
            "a name with more behind",
            named(&[0, 4, 0, 0, 1, b'a', b'b']),
            Alert::DecodeError,
        ),
        (
            "only a name of another kind",
            named(&[0, 4, 7, 0, 1, b'a']),
            Alert::MissingExtension,
        ),
        (
            "two names",
            named(&[0, 8, 0, 0, 1, b'a', 0, 0, 1, b'b']),
            Alert::IllegalParameter,
        ),
        (
            "an IPv4 address",
            hello(&[server_name(b"127.0.0.1"), versions(&[0x0304])]),
            Alert::UnrecognizedName,
        ),
        (
            "an IPv6 address",
            hello(&[server_name(b"::1"), versions(&[0x0304])]),
            Alert::UnrecognizedName,
        ),
        (
            "a name with a null",
            hello(&[server_name(b"chat.example\0.evil"), versions(&[0x0304])]),
            Alert::UnrecognizedName,
        ),
        (
            "a name with a dot behind",
            hello(&[server_name(b"chat.example."), versions(&[0x0304])]),
            Alert::UnrecognizedName,
        ),
        (
            "a name that is no UTF-8",
            hello(&[server_name(&[0xff, 0xfe]), versions(&[0x0304])]),
            Alert::UnrecognizedName,
        ),
        (
            "a name too long",
            hello(&[server_name(&[b'a'; 300]), versions(&[0x0304])]),
            Alert::UnrecognizedName,
        ),
    ];
    for (what, bytes, alert) in cases {
        let refusal = read(&bytes).expect_err(what);
        assert_eq!(refusal.alert(), alert, "{what}");
        assert_eq!(refusal.record(), [21, 3, 3, 0, 2, 2, alert.0], "{what}");
    }
}

#[test]
fn no_prefix_of_a_hello_is_one_or_is_refused() {
    for bytes in [real("chat.example"), hello(&usual())] {
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Ok(None), "{end}");
        }
    }
}

proptest! {
    /// The verdict does not depend on how the bytes are cut into packets, nor
    /// the name on how they are cut into records.
    #[test]
    fn however_it_is_cut(
        records in proptest::collection::vec(1..200_usize, 1..60),
        packets in proptest::collection::vec(1..300_usize, 1..60),
        behind in proptest::collection::vec(any::<u8>(), 0..50),
    ) {
        let message = message(1, &body(&usual()));
        let (mut bytes, mut rest) = (Vec::new(), message.as_slice());
        for length in records.iter().cycle() {
            let (piece, more) = rest.split_at((*length).min(rest.len()));
            bytes.extend(record(22, piece));
            rest = more;
            if rest.is_empty() { break; }
        }
        let whole = bytes.len();
        bytes.extend(&behind);
        let (mut reader, mut sent) = (HelloReader::default(), 0);
        for length in packets.iter().cycle() {
            let end = (sent + length).min(bytes.len());
            let hello = reader.push(&bytes[sent..end]).unwrap();
            sent = end;
            if let Some(hello) = hello {
                prop_assert_eq!(hello.name.as_str(), "chat.example");
                prop_assert_eq!(&hello.bytes, &bytes[..whole]);
                prop_assert_eq!(&hello.rest, &bytes[whole..sent]);
                break;
            }
            prop_assert!(sent < whole);
        }
    }

    /// Any damage gives a verdict or more waiting, the same at once and byte
    /// by byte, and what is passed on is what came.
    #[test]
    fn whatever_comes(
        damage in proptest::collection::vec((0..300_usize, any::<u8>()), 0..6),
        cut in 0..300_usize,
    ) {
        let mut bytes = hello(&usual());
        for (at, byte) in damage {
            let length = bytes.len();
            bytes[at % length] = byte;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()) / 8);
        let at_once = read(&bytes);
        let mut reader = HelloReader::default();
        let mut one_by_one = Ok(None);
        for &byte in &bytes {
            one_by_one = reader.push(&[byte]);
            if one_by_one != Ok(None) { break; }
        }
        match (&at_once, &one_by_one) {
            (Ok(Some(a)), Ok(Some(b))) => {
                prop_assert_eq!(&a.name, &b.name);
                prop_assert_eq!(&a.bytes, &b.bytes);
                prop_assert_eq!([a.bytes.clone(), a.rest.clone()].concat(), bytes);
            }
            _ => prop_assert_eq!(&at_once, &one_by_one),
        }
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = read(&bytes);
        let _ = read(&record(22, &message(1, &bytes)));
    }
}
