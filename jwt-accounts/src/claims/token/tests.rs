use proptest::prelude::*;

use super::super::{Limit, Permissions, Subjects};
use super::*;
use crate::grants;

fn account_key() -> KeyPair {
    KeyPair::new_from_raw(KeyPairType::Account, [1; 32]).unwrap()
}

fn device_claims() -> Claims<User> {
    let user = KeyPair::new_from_raw(KeyPairType::User, [2; 32]).unwrap();
    let device = (&[3; 16][..]).try_into().unwrap();
    Claims {
        subject: user.public_key(),
        name: "a device".to_owned(),
        expires_s: Some(2_000),
        nats: User {
            issuer_account: account_key().public_key(),
            rights: Some(grants::device(device, &[])),
        },
    }
}

#[test]
fn claims_come_back_as_signed() {
    let claims = device_claims();
    let token = claims.sign(&account_key(), 1_000).unwrap();
    let verified = Claims::<User>::verify(&token).unwrap();
    assert_eq!(verified.claims, claims);
    assert_eq!(verified.issuer, account_key().public_key());
    assert_eq!(verified.issued_s, 1_000);
}

#[test]
fn a_changed_token_is_refused() {
    let token = device_claims().sign(&account_key(), 1_000).unwrap();
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(Claims::<User>::verify(&changed).is_err(), "character {at}");
    }
    assert!(Claims::<User>::verify(&token[..token.len() - 4]).is_err());
}

#[test]
fn a_token_of_one_kind_is_none_of_another() {
    let token = device_claims().sign(&account_key(), 1_000).unwrap();
    assert!(matches!(
        Claims::<Account>::verify(&token),
        Err(ClaimsError::Malformed)
    ));
}

#[test]
fn only_keys_of_the_right_kind_sign() {
    let wrong_issuer = device_claims().sign(&KeyPair::new_operator(), 1_000);
    assert!(matches!(
        wrong_issuer,
        Err(ClaimsError::Key {
            expected: "account"
        })
    ));
    let mut claims = device_claims();
    claims.subject = account_key().public_key();
    let wrong_subject = claims.sign(&account_key(), 1_000);
    assert!(matches!(
        wrong_subject,
        Err(ClaimsError::Key { expected: "user" })
    ));
    let public_only = KeyPair::from_public_key(&account_key().public_key()).unwrap();
    assert!(matches!(
        device_claims().sign(&public_only, 1_000),
        Err(ClaimsError::Sign(_))
    ));
}

#[test]
fn another_algorithm_is_refused() {
    let token = device_claims().sign(&account_key(), 1_000).unwrap();
    let rest = token.split_once('.').unwrap().1;
    for header in [
        r#"{"typ":"JWT","alg":"none"}"#,
        r#"{"typ":"JWT","alg":"HS256"}"#,
        r#"{"alg":"ed25519-nkey","typ":"JWT"}"#,
    ] {
        let forged = format!("{}.{rest}", BASE64URL_NOPAD.encode(header.as_bytes()));
        assert!(Claims::<User>::verify(&forged).is_err(), "{header}");
    }
}

#[test]
fn a_limit_is_never_left_out() {
    let token = device_claims().sign(&account_key(), 1_000).unwrap();
    let payload = token.split('.').nth(1).unwrap();
    let json = BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let nats = json.get("nats").unwrap();
    for (limit, value) in [("subs", 1_024), ("payload", 524_288), ("data", -1)] {
        assert_eq!(nats.get(limit).unwrap().as_i64(), Some(value), "{limit}");
    }
    assert_eq!(nats.get("bearer_token").unwrap().as_bool(), Some(false));
    assert_eq!(nats.get("version").unwrap().as_i64(), Some(2));
}

#[test]
fn nothing_allowed_is_said_as_everything_denied() {
    for nothing in [Subjects::only(Vec::new()), Permissions::nothing().publish] {
        let json = serde_json::to_string(&nothing).unwrap();
        assert_eq!(json, r#"{"deny":[">"]}"#);
    }
}

proptest! {
    #[test]
    fn limits_survive_json(bound in 0..i64::MAX as u64) {
        for limit in [Limit::AtMost(bound), Limit::Unlimited] {
            let json = serde_json::to_string(&limit).unwrap();
            prop_assert_eq!(serde_json::from_str::<Limit>(&json).unwrap(), limit);
        }
    }

    #[test]
    fn verifying_never_panics(text in ".{0,300}", payload in any::<Vec<u8>>()) {
        prop_assert!(Claims::<User>::verify(&text).is_err());
        let header = BASE64URL_NOPAD.encode(HEADER.as_bytes());
        let payload = BASE64URL_NOPAD.encode(&payload);
        let token = format!("{header}.{payload}.{text}");
        prop_assert!(Claims::<User>::verify(&token).is_err());
    }
}
