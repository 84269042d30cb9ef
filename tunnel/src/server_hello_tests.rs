use std::sync::Arc;

use proptest::prelude::*;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use super::*;

/// What a real server answers to a real client that prefers another group, if
/// `retry`, and so must be asked again.
fn answers(version: &'static SupportedProtocolVersion, retry: bool) -> (Vec<u8>, Vec<u8>) {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certified = rcgen::generate_simple_self_signed(["chat.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let mut strange = provider.clone();
    if retry {
        strange.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::SECP384R1];
    }
    let server = ServerConfig::builder_with_provider(strange.into())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.into()], key)
        .unwrap();
    let client = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&[&TLS12, &TLS13])
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let mut client =
        ClientConnection::new(Arc::new(client), "chat.example".try_into().unwrap()).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    let mut exchange = || {
        let (mut there, mut back) = (Vec::new(), Vec::new());
        client.write_tls(&mut there).unwrap();
        server.read_tls(&mut there.as_slice()).unwrap();
        // Ignored: a client that trusts nobody says so.
        drop(server.process_new_packets());
        while server.wants_write() {
            server.write_tls(&mut back).unwrap();
        }
        client.read_tls(&mut back.as_slice()).unwrap();
        drop(client.process_new_packets());
        back
    };
    (exchange(), exchange())
}

fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, bool), Refusal> {
    let mut reader = ServerHelloReader::default();
    let mut passed = Vec::new();
    for piece in pieces {
        passed.extend(reader.push(piece)?);
    }
    Ok((passed, reader.is_done()))
}

#[test]
fn tls_13_is_passed_on_as_it_came() {
    let (answer, _) = answers(&TLS13, false);
    assert_eq!(read(&[&answer]), Ok((answer.clone(), true)));
    let bytes: Vec<&[u8]> = answer.chunks(1).collect();
    assert_eq!(read(&bytes), Ok((answer, true)));
}

#[test]
fn a_retry_is_passed_on_and_what_follows_is_looked_at() {
    let (retry, answer) = answers(&TLS13, true);
    assert_eq!(read(&[&retry]), Ok((retry.clone(), false)));
    assert_eq!(
        read(&[&retry, &answer]),
        Ok(([retry.clone(), answer].concat(), true))
    );
    let (old, _) = answers(&TLS12, false);
    assert_eq!(read(&[&retry, &old]), Err(Refusal::Version));
    assert_eq!(read(&[&retry, &retry]), Err(Refusal::NotTls));
}

#[test]
fn tls_12_is_refused_before_anything_is_passed_on() {
    let (old, _) = answers(&TLS12, false);
    let mut reader = ServerHelloReader::default();
    let mut passed = 0;
    let refused = old.iter().find_map(|&byte| match reader.push(&[byte]) {
        Ok(bytes) => {
            passed += bytes.len();
            None
        }
        Err(refusal) => Some(refusal),
    });
    assert_eq!((refused, passed), (Some(Refusal::Version), 0));
}

#[test]
fn a_server_may_refuse_and_whatever_else_it_says_is_no_tls() {
    let alert = [21, 3, 3, 0, 2, 2, 40];
    assert_eq!(read(&[&alert]), Ok((alert.to_vec(), false)));
    for other in [
        b"INFO {}\r\n".as_slice(),
        b"HTTP/1.1 400 Bad Request\r\n",
        &[20, 3, 3, 0, 1, 1],
        &[23, 3, 3, 0, 1, 1],
        &[21, 3, 3, 0, 1, 2],
        &[21, 3, 3, 0, 2, 3, 40],
        &[22, 3, 3, 0, 0],
        &[22, 3, 3, 0, 4, 1, 0, 0, 0],
        &[22, 3, 3, 0, 4, 2, 0, 0, 0],
    ] {
        assert_eq!(read(&[other]), Err(Refusal::NotTls), "{other:?}");
    }
}

#[test]
fn nothing_older_hides_behind_an_alert() {
    let (old, _) = answers(&TLS12, false);
    let (new, _) = answers(&TLS13, false);
    let (retry, answer) = answers(&TLS13, true);
    // `unrecognized_name`, and a fatal alert.
    let (warning, fatal) = ([21, 3, 3, 0, 2, 1, 112], [21, 3, 3, 0, 2, 2, 40]);
    assert_eq!(read(&[&warning, &old]), Err(Refusal::Version));
    assert_eq!(
        read(&[&[&warning, new.as_slice()].concat()]),
        Ok(([&warning, new.as_slice()].concat(), true))
    );
    for later in [&old, &new] {
        let together = [&fatal, later.as_slice()].concat();
        assert_eq!(read(&[&together]), Ok((fatal.to_vec(), false)));
        assert_eq!(read(&[&fatal, later]), Ok((fatal.to_vec(), false)));
    }
    // Nor in the middle of a message, of which the first piece would pass.
    let change = [20, 3, 3, 0, 1, 1];
    let (_, body) = answer.split_at(5);
    let piece = [&[22, 3, 3, 0, 4], &body[..4]].concat();
    for between in [change.as_slice(), &warning, &fatal] {
        assert_eq!(
            read(&[&retry, &piece, between]),
            Err(Refusal::NotTls),
            "{between:?}"
        );
    }
}

proptest! {
    #[test]
    fn damage_does_no_harm(damage in proptest::collection::vec((0..200_usize, any::<u8>()), 0..4)) {
        let mut answer = vec![22, 3, 3, 0, 50, 2, 0, 0, 46, 3, 3];
        answer.extend([5; 32]);
        answer.extend([0, 0x13, 1, 0, 0, 6, 0, 43, 0, 2, 3, 4]);
        for (at, byte) in damage {
            let length = answer.len();
            answer[at % length] = byte;
        }
        if let Ok((passed, true)) = read(&[&answer]) {
            prop_assert_eq!(passed, answer);
        }
    }
}
