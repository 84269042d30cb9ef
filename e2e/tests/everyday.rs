//! What people do on ordinary days, and the demo does not show.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test"
)]

use std::fs;

use sotto_e2e::case::{Case, text};
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::process;
use sotto_e2e::server::Part;

#[test]
fn stopping_the_server_loses_nothing() {
    let mut case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    case.alice.does(&["send", "barn", "said before"]).unwrap();
    assert!(case.server.stop().unwrap().status.success());

    let waiting = case
        .alice
        .does(&["--wait", "1", "send", "barn", "said meanwhile"]);
    assert_eq!(text(&waiting.unwrap(), "done").unwrap(), "queued");
    let reading = bob.run(&["--wait", "1", "recv", "barn"]).unwrap();
    assert!(reading.status.success(), "{}", reading.stderr);
    let away = bob.run(&["--wait", "1", "sync"]).unwrap();
    assert_eq!(away.status.code(), Some(3), "{}", away.stderr);

    case.server.start().unwrap();
    case.alice.does(&["sync"]).unwrap();
    bob.does(&["sync"]).unwrap();
    let expected = ["said before".to_owned(), "said meanwhile".to_owned()];
    assert_eq!(
        difference(&history(&bob, "barn").unwrap(), "said", &expected),
        None
    );
}

#[test]
fn a_killed_server_leaves_nothing_running_and_starts_again() {
    let mut case = Case::new().unwrap();
    case.alice.does(&["send", "barn", "said before"]).unwrap();
    case.server.kill_all().unwrap();
    for part in [Part::Relay, Part::Gateway, Part::Nats] {
        let left = process::find(part.program(), case.server.layout().root()).unwrap();
        assert_eq!(left, None, "{part:?}");
    }
    case.server.start().unwrap();
    case.alice.does(&["send", "barn", "said after"]).unwrap();
    let expected = ["said before".to_owned(), "said after".to_owned()];
    assert_eq!(
        difference(&history(&case.alice, "barn").unwrap(), "said", &expected),
        None
    );
}

#[test]
fn anyone_of_the_project_joins_an_open_room() {
    let case = Case::new().unwrap();
    let open = ["room", "create", "square", "--project", "field", "--open"];
    let room = text(&case.alice.does(&open).unwrap(), "room").unwrap();
    let bob = case.device("bob").unwrap();
    bob.does(&["signup", &case.invite().unwrap(), "bob"])
        .unwrap();
    bob.does(&["room", "join", &room]).unwrap();
    case.alice.does(&["sync"]).unwrap();

    bob.does(&["send", &room, "said by bob"]).unwrap();
    case.alice.does(&["send", &room, "said by alice"]).unwrap();
    bob.does(&["sync"]).unwrap();
    let expected = ["said by bob".to_owned(), "said by alice".to_owned()];
    for person in [&case.alice, &bob] {
        assert_eq!(
            difference(&history(person, &room).unwrap(), "said", &expected),
            None
        );
    }
    assert_eq!(
        text(&bob.does(&["rooms"]).unwrap(), "name").unwrap(),
        "square"
    );
}

#[test]
fn a_device_that_logs_in_by_password_comes_into_the_rooms() {
    let case = Case::new().unwrap();
    let laptop = case.device("laptop").unwrap();
    laptop
        .does(&["login", "alice", "--gateway", case.server.gateway()])
        .unwrap();
    case.alice.does(&["sync"]).unwrap();
    laptop.does(&["sync"]).unwrap();
    case.alice
        .does(&["send", "barn", "said to the laptop"])
        .unwrap();
    laptop.does(&["sync"]).unwrap();
    let expected = ["said to the laptop".to_owned()];
    assert_eq!(
        difference(&history(&laptop, "barn").unwrap(), "said", &expected),
        None
    );
}

#[test]
fn a_file_goes_on_where_a_killed_client_left_it() {
    let case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let file = case.folder().join("map.bin");
    let content: Vec<u8> = (0..20_000_000u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(&file, &content).unwrap();
    let file = file.display().to_string();
    let mut sending = case
        .alice
        .starts(&["send", "barn", "--file", &file], None)
        .unwrap();
    sending
        .wait_for("the upload", |line| line.get("queued").map(drop))
        .unwrap();
    let killed = sending.kill().unwrap();
    assert!(
        !killed.lines.iter().any(|line| line.get("done").is_some()),
        "too quick to be killed"
    );

    case.alice.does(&["sync"]).unwrap();
    bob.does(&["sync"]).unwrap();
    let target = case.folder().join("copy.bin");
    let copy = target.display().to_string();
    bob.does(&["files", "get", "barn", "map.bin", "-o", &copy])
        .unwrap();
    assert!(fs::read(&target).unwrap() == content, "another content");
}

#[test]
fn who_was_not_invited_to_a_room_is_told_so() {
    let case = Case::new().unwrap();
    let bob = case.device("bob").unwrap();
    bob.does(&["signup", &case.invite().unwrap(), "bob"])
        .unwrap();
    let refused = bob.run(&["room", "join", &case.room]).unwrap();
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("invitation"), "{}", refused.stderr);
}

#[test]
fn a_lost_device_is_shut_out_of_the_account_and_of_the_rooms() {
    let case = Case::new().unwrap();
    let laptop = case.device("laptop").unwrap();
    let login = ["login", "alice", "--gateway", case.server.gateway()];
    let lost = text(&laptop.does(&login).unwrap(), "device").unwrap();
    case.alice.does(&["sync"]).unwrap();
    laptop.does(&["sync"]).unwrap();
    case.alice.does(&["send", "barn", "said before"]).unwrap();
    laptop.does(&["sync"]).unwrap();

    case.alice.does(&["device", "revoke", &lost]).unwrap();
    case.alice.does(&["send", "barn", "said after"]).unwrap();
    let refused = laptop.run(&["--wait", "2", "sync"]).unwrap();
    assert!(!refused.status.success());
    assert!(
        refused.stderr.contains("not enrolled"),
        "{}",
        refused.stderr
    );
    let expected = ["said before".to_owned()];
    assert_eq!(
        difference(&history(&laptop, "barn").unwrap(), "said", &expected),
        None,
        "what it has, it keeps; more it does not get"
    );
    let rooms = case.alice.does(&["rooms"]).unwrap();
    let members = rooms.iter().find_map(|line| line.get("members")).unwrap();
    assert!(!members.to_string().contains(&lost), "{members}");
}
