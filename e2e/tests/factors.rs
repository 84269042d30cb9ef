//! Passkeys in a real browser, against the real programs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "factors/browser.rs"]
mod browser;

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::{io, thread};

use browser::Browser;
use serde_json::{Value, json};
use sotto_e2e::case::PASSWORD;
use sotto_e2e::person::Person;
use sotto_e2e::process::Running;
use sotto_e2e::server::Server;
use tempfile::TempDir;

/// A server that browsers reach as `localhost`, and alice, who owns its org.
struct Case {
    server: Server,
    alice: Person,
    _folder: TempDir,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("server");
        let server = Server::create_at("localhost", &dir, "acme", "field").unwrap();
        let alice = Person::new(folder.path().join("alice"), PASSWORD).unwrap();
        let invite = server.first_invite("acme").unwrap();
        alice.does(&["signup", &invite, "alice"]).unwrap();
        Self {
            server,
            alice,
            _folder: folder,
        }
    }

    fn browser(&self) -> Browser {
        Browser::start(&self.server.layout().authority())
    }

    fn does(&self, line: &str) -> Vec<Value> {
        self.alice
            .does(&line.split(' ').collect::<Vec<_>>())
            .unwrap()
    }

    fn is_refused(&self, line: &str) -> String {
        let outcome = self
            .alice
            .run(&line.split(' ').collect::<Vec<_>>())
            .unwrap();
        assert!(!outcome.status.success(), "{line}: {:?}", outcome.lines);
        outcome.stderr
    }

    /// Types a command that shows a link, and waits for it.
    fn begins(&self, line: &str) -> Ceremony {
        let arguments: Vec<_> = line.split(' ').collect();
        let mut command = self.alice.starts(&arguments, None).unwrap();
        let begun = command.wait_for("a link", |line| {
            (line["event"] == "ceremony").then(|| line.clone())
        });
        let begun = begun.unwrap();
        Ceremony {
            command,
            url: begun["url"].as_str().unwrap().to_owned(),
            code: begun["code"].as_str().unwrap().to_owned(),
        }
    }

    fn keys(&self) -> Vec<Value> {
        let listed = self.does("factor list").into_iter();
        listed
            .filter(|factor| factor["factor"] != "password")
            .collect()
    }
}

struct Ceremony {
    command: Running,
    url: String,
    code: String,
}

impl Ceremony {
    /// Goes through with it in a browser.
    fn succeeds(self, browser: &Browser) {
        browser.open(&self.url);
        browser.reads("code", &self.code);
        browser.click("go");
        browser.reads("outcome", "Done.");
        let lines = self.command.finish().unwrap().success().unwrap();
        let last = lines.last().unwrap();
        assert_eq!(
            (&last["event"], &last["factor"]),
            (&json!("proven"), &json!("webauthn"))
        );
    }

    /// Tries it in a browser, where it goes wrong.
    fn fails(&self, browser: &Browser, url: &str, why: &str) {
        browser.open(url);
        browser.reads("code", &self.code);
        browser.click("go");
        browser.reads("outcome", why);
    }
}

#[test]
fn a_key_is_enrolled_and_proven_in_a_browser_and_its_copy_is_noticed() {
    let case = Case::new();
    let browser = case.browser();
    let key = browser.plug_in(true);
    let demand = "admin policy set org --need webauthn --within 10m --for manage";
    case.is_refused(demand);

    let ceremony = case.begins("factor enrol webauthn --name blue");
    let url = ceremony.url.clone();
    browser.open(&url);
    browser.reads("code", &ceremony.code);
    browser.screenshot(&shots().join("enrol.png"));
    ceremony.succeeds(&browser);
    browser.screenshot(&shots().join("done.png"));
    let [enrolled] = &case.keys()[..] else {
        panic!("{:?}", case.keys());
    };
    assert_eq!(
        (&enrolled["factor"], &enrolled["name"]),
        (&json!("webauthn"), &json!("blue"))
    );
    assert!(enrolled["proven_ms"].is_i64() && enrolled["cloned_ms"].is_null());
    // The link is used up.
    browser.open(&url);
    browser.reads("outcome", "used or too old");

    // Now an owner can meet it, so it may be demanded.
    case.does(demand);
    case.begins("factor prove webauthn").succeeds(&browser);
    case.does("admin project create lab");

    // The same key again: its browser says so.
    let again = case.begins("factor enrol webauthn --name again");
    again.fails(&browser, &again.url, "enrolled already");
    drop(again);

    // A copy that was made before the last proof counts from there.
    let credentials = browser.unplug(&key);
    let copy = browser.plug_in(true);
    let mut credential = credentials[0].clone();
    credential["signCount"] = json!(0);
    browser.load(&copy, &credential);
    let proof = case.begins("factor prove webauthn");
    proof.fails(&browser, &proof.url, "there may be a copy");
    browser.screenshot(&shots().join("copy.png"));
    drop(proof);
    assert!(case.keys()[0]["cloned_ms"].is_i64(), "{:?}", case.keys());
    // It is not asked any more, and neither is the real one.
    let refused = case.is_refused("factor prove webauthn");
    assert!(refused.contains("factor enrol webauthn"), "{refused}");
}

#[test]
fn a_page_elsewhere_and_a_key_that_verifies_nobody_prove_nothing() {
    let case = Case::new();
    let browser = case.browser();
    let careless = browser.plug_in(false);
    let ceremony = case.begins("factor enrol webauthn");
    ceremony.fails(&browser, &ceremony.url, "The key did not answer");
    browser.unplug(&careless);

    browser.plug_in(true);
    // The same gateway, the same name, another origin: its port.
    let (_, rest) = ceremony.url.split_once("localhost:").unwrap();
    let (port, path) = rest.split_once('/').unwrap();
    let elsewhere = splice(port.parse().unwrap());
    let url = format!("https://localhost:{elsewhere}/{path}");
    ceremony.fails(&browser, &url, "made for another site");
    // Another name altogether: the browser itself refuses.
    let url = format!("https://127.0.0.1:{port}/{path}");
    ceremony.fails(&browser, &url, "");
    ceremony.succeeds(&browser);
    assert_eq!(case.keys().len(), 1);
}

/// Where screenshots go: for people to look at.
fn shots() -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A port that leads to another one.
fn splice(to: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(("127.0.0.1", to)) else {
                return;
            };
            let (near_too, far_too) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut &near, &mut &far));
            thread::spawn(move || io::copy(&mut &far_too, &mut &near_too));
        }
    });
    port
}
