//! What happens to a snapshot on a bad disk.

use ed25519_dalek::SigningKey;

use super::super::super::chain;
use super::*;
use crate::directory::{Actor, Change};

fn key() -> VerifyingKey {
    SigningKey::from_bytes(&[200; 32]).verifying_key()
}

fn org() -> OrgName {
    "acme".parse().unwrap()
}

fn state() -> State {
    let create = Change::OrgCreated {
        org: org(),
        gateway_key: key(),
    };
    let project = Change::ProjectCreated {
        project: "field".parse().unwrap(),
    };
    let gateway = SigningKey::from_bytes(&[200; 32]);
    let mut state = State::default();
    let head = state.head().clone();
    for entry in chain::sign(&head, &Actor::Gateway, &[create, project], 1, &gateway) {
        state.advance(&entry, &key()).unwrap();
    }
    state
}

fn written() -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&state(), &mut bytes).unwrap();
    bytes
}

#[test]
fn what_was_written_is_read() {
    assert_eq!(read(&written()[..], &org(), &key()).unwrap(), state());
}

#[test]
fn a_truncated_one_is_noticed_wherever_it_ends() {
    let bytes = written();
    for length in 0..bytes.len() {
        let error = read(&bytes[..length], &org(), &key()).unwrap_err();
        assert!(matches!(error, BadSnapshot::Truncated), "{length}: {error}");
    }
    let longer = [&bytes[..], b"x"].concat();
    let error = read(&longer[..], &org(), &key()).unwrap_err();
    assert!(matches!(error, BadSnapshot::Truncated), "{error}");
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is() {
    let bytes = written();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(read(&flipped[..], &org(), &key()).is_err(), "bit {bit}");
    }
}

#[test]
fn another_org_key_or_version_is_refused() {
    let bytes = written();
    let other = SigningKey::from_bytes(&[1; 32]).verifying_key();
    for (org, key) in [("other".parse().unwrap(), key()), (org(), other)] {
        let error = read(&bytes[..], &org, &key).unwrap_err();
        assert!(matches!(error, BadSnapshot::OtherOrg), "{error}");
    }
    let mut newer = bytes;
    newer[11] = 2;
    let error = read(&newer[..], &org(), &key()).unwrap_err();
    assert!(matches!(error, BadSnapshot::Version(2)), "{error}");
    let error = read(&b"something else, and long"[..], &org(), &key()).unwrap_err();
    assert!(matches!(error, BadSnapshot::Magic), "{error}");
}

#[test]
fn a_length_that_lies_allocates_nothing() {
    let mut bytes = [&MAGIC[..], &VERSION.to_be_bytes()].concat();
    bytes.extend(RECORD_MAX.to_be_bytes());
    assert!(matches!(
        read(&bytes[..], &org(), &key()),
        Err(BadSnapshot::Truncated)
    ));
    bytes.truncate(12);
    bytes.extend(u32::MAX.to_be_bytes());
    assert!(matches!(
        read(&bytes[..], &org(), &key()),
        Err(BadSnapshot::Malformed(_))
    ));
}
