//! `sotto factor enrol fido2` and `prove fido2`, with a security key in
//! software that is plugged in where Linux shows such keys, against the real
//! programs.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "security_key/cbor.rs"]
mod cbor;
#[path = "security_key/credential.rs"]
mod credential;
#[path = "security_key/hid.rs"]
mod hid;
#[path = "security_key/pin.rs"]
mod pin;
#[path = "security_key/software_key.rs"]
mod software_key;
#[path = "security_key/usb.rs"]
mod usb;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::{fs, panic};

use data_encoding::BASE64URL_NOPAD;
use hid::{Spoil, Wire};
use serde_json::{Value, json};
use software_key::{CTAP_2_0, CTAP_2_1, LIST, Model, SoftwareKey};
use sotto_client_native::security_key::{self, KeyError, Person as Hand, Question};
use sotto_e2e::case::PASSWORD;
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::person::Person;
use sotto_e2e::server::Server;
use tempfile::TempDir;
use usb::Usb;
use zeroize::Zeroizing;

const PIN: &str = "3141";

type Shared = Arc<Mutex<SoftwareKey>>;

fn key(model: Model) -> Shared {
    Arc::new(Mutex::new(SoftwareKey::new(model, Some(PIN))))
}

/// A key that was copied as it is now.
fn copy(key: &Shared) -> Shared {
    Arc::new(Mutex::new(key.lock().unwrap().clone()))
}

/// A server that passkeys and security keys know as `localhost`, alice, who
/// owns its org, and bob, with a room of project `field` that both are in.
struct Case {
    server: Server,
    alice: Person,
    bob: Person,
    folder: TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("server");
        let server = Server::create_at("localhost", &dir, "acme", "field").unwrap();
        let person = |name: &str| Person::new(folder.path().join(name), PASSWORD).unwrap();
        let (alice, bob) = (person("alice"), person("bob"));
        let invite = server.first_invite("acme").unwrap();
        alice.does(&["signup", &invite, "alice"]).unwrap();
        let invited = alice.does(&["invite", "--project", "field"]).unwrap();
        let invite = sotto_e2e::case::text(&invited, "invite").unwrap();
        bob.does(&["signup", &invite, "bob"]).unwrap();
        does(&alice, "room create barn --project field");
        does(&alice, "room invite barn bob");
        does(&bob, "sync");
        Self {
            server,
            alice,
            bob,
            folder,
        }
    }

    fn pin(&self, pin: &str) -> PathBuf {
        let file = self.folder.path().join("pin");
        fs::write(&file, pin).unwrap();
        file
    }
}

fn does(person: &Person, line: &str) -> Vec<Value> {
    let arguments: Vec<_> = line.split(' ').collect();
    person.does(&arguments).expect(line)
}

fn is_refused(person: &Person, line: &str) -> String {
    let arguments: Vec<_> = line.split(' ').collect();
    let outcome = person.run(&arguments).unwrap();
    assert!(!outcome.status.success(), "{line}: {:?}", outcome.lines);
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    outcome.stderr
}

fn keys(person: &Person) -> Vec<Value> {
    let listed = does(person, "factor list").into_iter();
    listed
        .filter(|factor| factor["factor"] == "fido2")
        .collect()
}

#[test]
fn a_key_is_enrolled_and_proven_and_opens_the_room_that_demands_it() {
    let case = Case::new();
    let pin = case.pin(PIN);
    let pin = pin.display();
    let none = is_refused(&case.alice, "factor enrol fido2");
    assert!(none.contains("no security key is plugged in"), "{none}");

    let (blue, old) = (key(CTAP_2_1), key(CTAP_2_0));
    let usb = Usb::with([Wire::to(&blue)]);
    let alice = case.alice.clone().within(usb.enter());
    let enrolled = does(
        &alice,
        &format!("factor enrol fido2 --name blue --pin-file {pin}"),
    );
    let last = enrolled.last().unwrap();
    assert_eq!(
        (&last["event"], &last["factor"]),
        (&json!("proven"), &json!("fido2"))
    );
    let [known] = &keys(&alice)[..] else {
        panic!("{:?}", keys(&alice));
    };
    assert_eq!(known["name"], "blue");
    assert!(known["proven_ms"].is_i64() && known["cloned_ms"].is_null());
    let again = is_refused(&alice, &format!("factor enrol fido2 --pin-file {pin}"));
    assert!(again.contains("enrolled already"), "{again}");

    does(
        &alice,
        "admin policy set project:field --need fido2 --within 1h --for read,post",
    );
    let shut = is_refused(&case.bob, "send barn said-by-bob");
    assert!(shut.contains("`sotto factor enrol fido2`"), "{shut}");

    let usb = Usb::with([Wire::to(&old)]);
    let bob = case.bob.clone().within(usb.enter());
    does(&bob, &format!("factor enrol fido2 --pin-file {pin}"));
    does(&bob, &format!("factor prove fido2 --pin-file {pin}"));
    does(&bob, "sync");
    does(&alice, &format!("factor prove fido2 --pin-file {pin}"));
    does(&alice, "sync");
    let expected = ["said-by-bob".to_owned()];
    let said = history(&alice, "barn").unwrap();
    assert_eq!(difference(&said, "said", &expected), None);
    drop(case.server);
}

#[test]
fn a_wrong_pin_is_said_counted_once_and_locks_the_key_in_the_end() {
    let case = Case::new();
    let key = key(CTAP_2_1);
    let usb = Usb::with([Wire::to(&key)]);
    let alice = case.alice.clone().within(usb.enter());
    let enrol = |pin: &str| {
        let pin = case.pin(pin);
        format!("factor enrol fido2 --pin-file {}", pin.display())
    };
    let tries_left = || key.lock().unwrap().tries_left();

    // None of these can be a PIN: no try is spent.
    for unfit in ["12", &"1".repeat(64)] {
        let refused = is_refused(&alice, &enrol(unfit));
        assert!(refused.contains("did not count"), "{refused}");
    }
    assert_eq!(tries_left(), 8);
    let refused = is_refused(&alice, &enrol("2718"));
    assert!(refused.contains("the PIN is wrong"), "{refused}");
    assert!(refused.contains("after 7 more"), "{refused}");
    assert_eq!(tries_left(), 7);
    does(&alice, &enrol(PIN));
    assert_eq!(tries_left(), 8);

    for left in (0..8).rev() {
        let prove = enrol("2718").replace("enrol", "prove");
        let refused = is_refused(&alice, &prove);
        assert_eq!(tries_left(), left);
        let said = match (left, left % 3) {
            (0, _) | (_, 2) => "takes no PIN any more",
            (1, _) => "the next wrong one locks",
            _ => "the PIN is wrong",
        };
        assert!(refused.contains(said), "{left}: {refused}");
        if left % 3 == 2 {
            // Three in a row: it must be unplugged, and no try counts until then.
            is_refused(&alice, &prove);
            assert_eq!(tries_left(), left);
            key.lock().unwrap().pin.as_mut().unwrap().power_cycle();
        }
    }
    let locked = is_refused(&alice, &enrol(PIN).replace("enrol", "prove"));
    assert!(locked.contains("it must be reset"), "{locked}");
}

#[test]
fn a_copy_of_a_key_is_noticed_and_what_was_proven_with_it_counts_no_more() {
    let case = Case::new();
    let pin = case.pin(PIN);
    let real = key(CTAP_2_1);
    let usb = Usb::with([Wire::to(&real)]);
    let alice = case.alice.clone().within(usb.enter());
    let prove = format!("factor prove fido2 --pin-file {}", pin.display());
    does(&alice, &prove.replace("prove", "enrol"));
    let demand = "admin policy set org --need fido2 --within 1h --for create-project";
    does(&alice, demand);
    let copied = copy(&real);
    does(&alice, &prove);
    does(&alice, "admin project create lab");

    let usb = Usb::with([Wire::to(&copied)]);
    let thief = case.alice.clone().within(usb.enter());
    let noticed = is_refused(&thief, &prove);
    assert!(noticed.contains("there may be a copy"), "{noticed}");
    let [known] = &keys(&alice)[..] else {
        panic!("{:?}", keys(&alice));
    };
    assert!(
        known["cloned_ms"].is_i64() && known["proven_ms"].is_null(),
        "{known}"
    );
    let shut = is_refused(&alice, "admin project create attic");
    assert!(shut.contains("fido2"), "{shut}");
    let real = is_refused(&alice, &prove);
    assert!(real.contains("factor enrol fido2"), "{real}");
}

#[test]
fn what_a_key_signs_for_another_site_or_does_not_sign_proves_nothing() {
    let case = Case::new();
    let pin = case.pin(PIN);
    let key = key(CTAP_2_1);
    let usb = Usb::with([Wire::to(&key)]);
    let alice = case.alice.clone().within(usb.enter());
    let prove = format!("factor prove fido2 --pin-file {}", pin.display());
    does(&alice, &prove.replace("prove", "enrol"));
    let enrolled_ms = keys(&alice)[0]["proven_ms"].clone();

    // A key that signs for somebody else, and one that signs something else.
    key.lock().unwrap().answers_for = Some("elsewhere.example".to_owned());
    let refused = is_refused(&alice, &prove);
    assert!(refused.contains("made for another site"), "{refused}");
    key.lock().unwrap().answers_for = None;
    let spoils: [fn(&mut Vec<u8>); 3] = [
        |answer| *answer.last_mut().unwrap() ^= 1,
        |answer| {
            // The length of the authenticator data, and one byte of it less.
            let at = answer.windows(2).position(|two| two == [0x58, 37]);
            let at = at.unwrap();
            answer[at + 1] = 36;
            answer.remove(at + 2);
        },
        |answer| {
            // That the key has verified who uses it.
            let at = answer.windows(2).position(|two| two == [0x58, 37]);
            answer[at.unwrap() + 2 + 32] &= !0x04;
        },
    ];
    for spoil in spoils {
        let spoil: Spoil = Box::new(move |_, mut answer| {
            // The last answer is the longest by far.
            if answer.len() > 150 && answer.windows(2).any(|two| two == [0x58, 37]) {
                spoil(&mut answer);
            }
            answer
        });
        let usb = Usb::with([Wire::to(&key).spoiled(spoil)]);
        let alice = case.alice.clone().within(usb.enter());
        let refused = is_refused(&alice, &prove);
        assert!(
            refused.contains("does not fit") || refused.contains("did not check who you are"),
            "{refused}"
        );
    }
    // The gateway is asked for by a name that the person does not know.
    let refused = is_refused(&alice, &format!("{prove} --site chat.example"));
    assert!(refused.contains("your key was not asked"), "{refused}");
    assert_eq!(keys(&alice)[0]["proven_ms"], enrolled_ms);

    // Nobody touches it, two are there, another one is there.
    key.lock().unwrap().is_touched = false;
    let refused = is_refused(&alice, &prove);
    assert!(refused.contains("was not touched"), "{refused}");
    key.lock().unwrap().is_touched = true;
    let other = self::key(CTAP_2_0);
    let usb = Usb::with([Wire::to(&key), Wire::to(&other)]);
    let refused = is_refused(&case.alice.clone().within(usb.enter()), &prove);
    assert!(refused.contains("more than one"), "{refused}");
    let usb = Usb::with([Wire::to(&other)]);
    let refused = is_refused(&case.alice.clone().within(usb.enter()), &prove);
    assert!(refused.contains("is not one of yours"), "{refused}");
    does(&alice, &prove);
}

/// Somebody who knows the PIN.
struct Owner;

impl Hand for Owner {
    fn pin(&self) -> Option<Zeroizing<String>> {
        Some(Zeroizing::new(PIN.to_owned()))
    }

    fn touch(&self) {}
}

const ORIGIN: &str = "https://chat.example:8443";

/// What a gateway asks for a new key, in which it knows so many already.
fn registration(excluded: &[Vec<u8>]) -> Value {
    json!({ "publicKey": {
        "rp": { "name": "Sotto", "id": "chat.example" },
        "user": {
            "id": BASE64URL_NOPAD.encode(&[7; 32]),
            "name": "alice@acme", "displayName": "alice@acme",
        },
        "challenge": BASE64URL_NOPAD.encode(&[9; 32]),
        "pubKeyCredParams": [
            { "type": "public-key", "alg": -8 }, { "type": "public-key", "alg": -7 },
        ],
        "excludeCredentials": listed(excluded),
        "authenticatorSelection": {
            "requireResidentKey": false, "userVerification": "required",
        },
    } })
}

fn proof(allowed: &[Vec<u8>]) -> Value {
    json!({ "publicKey": {
        "challenge": BASE64URL_NOPAD.encode(&[9; 32]),
        "rpId": "chat.example",
        "allowCredentials": listed(allowed),
        "userVerification": "required",
    } })
}

fn listed(ids: &[Vec<u8>]) -> Vec<Value> {
    let ids = ids.iter().map(|id| {
        json!({
            "type": "public-key", "id": BASE64URL_NOPAD.encode(id),
            "transports": ["usb", "nfc", "ble", "internal"],
        })
    });
    ids.collect()
}

fn ask(wire: Wire, question: Question, options: &Value) -> Result<Value, KeyError> {
    let options = options.to_string();
    let asked = (ORIGIN, options.as_bytes());
    let answer = security_key::answer(vec![wire], question, "chat.example", asked, &Owner);
    answer.map(|answer| serde_json::from_slice(&answer).unwrap())
}

fn enrol(key: &Shared) -> Vec<u8> {
    ask(Wire::to(key), Question::Enrol, &registration(&[])).unwrap();
    key.lock().unwrap().newest()
}

#[test]
fn the_make_of_a_key_stays_here() {
    let key = key(CTAP_2_1);
    let made = ask(Wire::to(&key), Question::Enrol, &registration(&[])).unwrap();
    let object = made["response"]["attestationObject"].as_str().unwrap();
    let object = BASE64URL_NOPAD.decode(object.as_bytes()).unwrap();
    let holds = |part: &[u8]| object.windows(part.len()).any(|bytes| bytes == part);
    assert!(holds(&key.lock().unwrap().newest()));
    assert!(holds(b"none") && !holds(b"packed") && !holds(b"x5c"));
    assert!(!holds(credential::AAGUID));
}

#[test]
fn a_key_that_takes_short_lists_is_asked_more_than_once() {
    for model in [CTAP_2_0, CTAP_2_1] {
        let key = key(model);
        let own = enrol(&key);
        for others in [0, 1, LIST - 1, LIST, 2 * LIST + 3] {
            let mut ids: Vec<_> = (0..others).map(|n| vec![n as u8; 90]).collect();
            // No key of this make has an id like that.
            ids.push(vec![1; 900]);
            let unknown = ask(Wire::to(&key), Question::Prove, &proof(&ids));
            assert!(matches!(unknown, Err(KeyError::Unknown)), "{unknown:?}");
            ids.push(own.clone());
            let signed = ask(Wire::to(&key), Question::Prove, &proof(&ids)).unwrap();
            let id = signed["rawId"].as_str().unwrap();
            assert_eq!(BASE64URL_NOPAD.decode(id.as_bytes()).unwrap(), own);
            let again = ask(Wire::to(&key), Question::Enrol, &registration(&ids));
            assert!(matches!(again, Err(KeyError::Enrolled)), "{again:?}");
        }
    }
}

#[test]
fn nothing_is_signed_for_a_site_that_the_person_does_not_know() {
    let key = key(CTAP_2_1);
    let own = enrol(&key);
    for (origin, party) in [
        ("https://bank.example", "bank.example"),
        ("https://chat.example", "bank.example"),
        ("https://chat.example", "example"),
        ("https://chat.example.bank.example", "chat.example"),
        ("https://bank.example", "chat.example"),
        ("https://127.0.0.1", "127.0.0.1"),
        ("chat.example", "chat.example"),
        ("", ""),
    ] {
        for (question, mut options) in [
            (Question::Enrol, registration(&[])),
            (Question::Prove, proof(std::slice::from_ref(&own))),
        ] {
            match question {
                Question::Enrol => options["publicKey"]["rp"]["id"] = party.into(),
                Question::Prove => options["publicKey"]["rpId"] = party.into(),
            }
            let options = options.to_string();
            let asked = (origin, options.as_bytes());
            let wires = vec![Wire::to(&key)];
            let answer = security_key::answer(wires, question, "chat.example", asked, &Owner);
            assert!(
                matches!(
                    answer,
                    Err(KeyError::OtherSite { .. } | KeyError::BadQuestion(_))
                ),
                "{origin} {party} {answer:?}"
            );
        }
    }
}

/// What may become of an answer on its way, or in a key that is broken or
/// hostile; the first byte is the status.
fn ruin(how: usize, answer: &[u8]) -> Option<Vec<u8>> {
    let text = |text: &str| ciborium::Value::from(text);
    let as_map = || match cbor::read(&answer[1..])? {
        ciborium::Value::Map(map) => Some(map),
        _ => None,
    };
    let written = |value: &ciborium::Value| Some([&[0][..], &cbor::write(value)].concat());
    Some(match how {
        0 => Vec::new(),
        1 => vec![0],
        2 => answer[..answer.len() / 2].to_vec(),
        3 => [answer, b"more"].concat(),
        4 => vec![0xf0],
        5 => vec![0xdf],
        6 => [&[0][..], &[0x9f; 7_000]].concat(),
        7 => [&[0][..], &[0x81; 7_000]].concat(),
        // A string of many gigabytes.
        8 => [&[0, 0xa1, 1, 0x5b][..], &[0x7f; 8]].concat(),
        9 => [&[0, 0xa0][..]].concat(),
        10 => return written(&text("a text")),
        11 => vec![0x7a; 7_609],
        how => {
            // Each field: gone, of another kind, empty, long.
            let mut map = as_map()?;
            let (field, what) = ((how - 12) / 5, (how - 12) % 5);
            let value = &mut map.get_mut(field)?.1;
            match what {
                0 => {
                    map.remove(field);
                }
                1 => *value = text("a text"),
                2 => *value = ciborium::Value::Bytes(Vec::new()),
                3 => *value = ciborium::Value::Bytes(vec![0xff; 3_000]),
                _ => *value = cbor::map([(1, ciborium::Value::Null)]),
            }
            return written(&ciborium::Value::Map(map));
        }
    })
}

#[test]
fn whatever_a_key_answers_is_an_answer_or_a_sentence() {
    let mut refused = 0;
    for model in [CTAP_2_0, CTAP_2_1] {
        for question in [Question::Enrol, Question::Prove] {
            for step in 0..8 {
                for how in 0..60 {
                    let key = key(model);
                    let own = enrol(&key);
                    let options = match question {
                        Question::Enrol => registration(&[]),
                        Question::Prove => proof(&[own]),
                    };
                    let spoil: Spoil = Box::new(move |number, answer| match number == step {
                        true => ruin(how, &answer).unwrap_or(answer),
                        false => answer,
                    });
                    let wire = Wire::to(&key).spoiled(spoil);
                    let place = format!("{question:?}, answer {step}, {how}");
                    let asked = panic::AssertUnwindSafe(|| ask(wire, question, &options));
                    let answer = panic::catch_unwind(asked).expect(&place);
                    if let Err(error) = answer {
                        let said = error.to_string();
                        assert!(said.len() > 20 && !said.contains('\n'), "{place}: {said}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}
