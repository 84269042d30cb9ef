//! What a gateway is told to be the answer of a passkey or a security key, of
//! which only the challenge is right. Nobody gets in with it.

#![no_main]

use std::sync::LazyLock;

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::SigningKey;
use libfuzzer_sys::fuzz_target;
use sotto_gateway::webauthn::{Challenge, RelyingParty};
use sotto_jwt_accounts::policy::Factor;
use sotto_proto::{OrgName, UserName};

const ORIGIN: &str = "https://chat.example";

static PARTY: LazyLock<RelyingParty> = LazyLock::new(|| {
    RelyingParty::new(&SigningKey::from_bytes(&[7; 32]), ORIGIN).expect("an origin")
});

/// What was asked, and its challenge.
static ASKED: LazyLock<(Challenge, String)> = LazyLock::new(|| {
    let org: OrgName = "acme".parse().expect("a name");
    let user: UserName = "alice".parse().expect("a name");
    let challenge = PARTY.ask_for_new((&org, &user), Factor::Webauthn, None, |_| true);
    let challenge = challenge.unwrap_or_else(|_| panic!("a challenge"));
    let text = String::from_utf8(challenge.options.clone()).expect("JSON");
    let drawn = text.split("\"challenge\":\"").nth(1).expect("a challenge");
    let drawn = drawn.split('"').next().expect("its end").to_owned();
    (challenge, drawn)
});

fn answer(attestation: &[u8]) -> String {
    let client = format!(
        r#"{{"type":"webauthn.create","challenge":"{}","origin":"{ORIGIN}","crossOrigin":false}}"#,
        ASKED.1
    );
    format!(
        r#"{{"id":"AAAA","rawId":"AAAA","type":"public-key","extensions":{{}},"response":{{"attestationObject":"{}","clientDataJSON":"{}"}}}}"#,
        BASE64URL_NOPAD.encode(attestation),
        BASE64URL_NOPAD.encode(client.as_bytes()),
    )
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, content)) = bytes.split_first() else {
        return;
    };
    let whole;
    let answer = match how & 1 {
        0 => content,
        _ => {
            whole = answer(content);
            whole.as_bytes()
        }
    };
    let state = &ASKED.0.state;
    if let Ok(record) = PARTY.add(Default::default(), answer, state, None, |_| true) {
        // A key of its own choice may come in; it then has to sign.
        let asked = PARTY.ask_for_proof(Factor::Webauthn, Some(&record), |_| true);
        if let Ok(asked) = asked {
            let proven = PARTY.check(Factor::Webauthn, content, &asked.state, Some(record), |_| true, 0);
            assert!(proven.is_err());
        }
    }
    let proven = PARTY.check(Factor::Webauthn, answer, state, None, |_| true, 0);
    assert!(proven.is_err());
});
