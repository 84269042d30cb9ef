//! What an admin does with an organisation, and what that means for the others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sotto_e2e::case::{Case, text};
use sotto_e2e::conversation::{difference, history};
use sotto_e2e::person::Person;
use sotto_e2e::process::binary;
use totp_rs::Totp;

/// Has alice type `sotto admin …`; what it printed.
fn admin(case: &Case, line: &str) -> Vec<Value> {
    let arguments: Vec<_> = ["admin"].into_iter().chain(line.split(' ')).collect();
    case.alice.does(&arguments).expect(line)
}

/// The lines of this kind.
fn of_kind<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    let matching = lines.iter().filter(|line| line["event"] == event);
    matching.collect()
}

/// How long the log is.
fn length(case: &Case) -> usize {
    of_kind(&admin(case, "log show"), "entry").len()
}

/// The code that an authenticator app shows now.
fn code(url: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let totp = Totp::from_url(url).unwrap();
    totp.generate(now.as_secs()).to_string()
}

/// Enrols a code generator and types its first code.
fn enrol_totp(person: &Person) -> Vec<Value> {
    let mut enrolling = person.starts(&["factor", "enrol", "totp"], None).unwrap();
    let url = |line: &Value| Some(line.get("url")?.as_str()?.to_owned());
    let url = enrolling.wait_for("the enrolment", url).unwrap();
    enrolling.type_line(&code(&url)).unwrap();
    enrolling.finish().unwrap().success().unwrap()
}

/// Bob, who was added to the group `staff` of project `lab` and signed up.
fn bob_of_the_staff(case: &Case) -> Person {
    admin(case, "project create lab --title Laboratory");
    admin(case, "group create staff --title Staff");
    admin(case, "role grant group:staff user project:lab");
    admin(case, "user add bob --title Bob --group staff");
    let invited = admin(case, "user invite bob --in project:lab");
    let link = text(&invited, "invite").unwrap();

    let stranger = case.device("stranger").unwrap();
    let refused = stranger.run(&["signup", &link, "eve"]).unwrap();
    assert!(
        !refused.status.success(),
        "an invitation is for whom it names"
    );
    let bob = case.device("bob").unwrap();
    bob.does(&["signup", &link, "bob"]).unwrap();
    bob
}

#[test]
fn what_a_policy_demands_is_named_proven_and_then_enough() {
    let case = Case::new().unwrap();
    let bob = bob_of_the_staff(&case);
    let made = ["room", "create", "bench", "--project", "lab"];
    case.alice.does(&made).unwrap();
    case.alice
        .does(&["room", "invite", "bench", "bob"])
        .unwrap();
    bob.does(&["sync"]).unwrap();
    admin(
        &case,
        "policy set project:lab --need totp --within 8h --for create-room,read,post",
    );

    let said = bob.run(&["send", "bench", "said by bob"]).unwrap();
    assert_eq!(said.status.code(), Some(4));
    assert_eq!(of_kind(&said.lines, "done")[0]["done"], "queued");
    let missing = &of_kind(&said.lines, "error")[0]["missing"];
    assert_eq!(
        (&missing[0]["place"], &missing[0]["command"]),
        (&"project:lab".into(), &"sotto factor enrol totp".into())
    );
    case.alice.run(&["sync"]).unwrap();
    let nothing: [String; 0] = [];
    assert_eq!(
        difference(&history(&case.alice, "bench").unwrap(), "said", &nothing),
        None
    );
    let make = ["room", "create", "attic", "--project", "lab"];
    let denied = bob.run(&make).unwrap();
    assert_eq!(denied.status.code(), Some(4));
    assert!(
        denied
            .stderr
            .contains("project:lab demands totp proven within 8h")
            && denied.stderr.contains("`sotto factor enrol totp`"),
        "{}",
        denied.stderr
    );
    let missing = &of_kind(&denied.lines, "error")[0]["missing"];
    assert_eq!(missing[0]["place"], "project:lab");
    assert_eq!(missing[0]["demand"]["factor"], "totp");
    assert_eq!(missing[0]["enrolled"], json!(false));

    let enrolled = enrol_totp(&bob);
    assert_eq!(of_kind(&enrolled, "proven")[0]["factor"], "totp");
    bob.does(&make).unwrap();
    // What was refused was kept, and goes out now.
    bob.does(&["sync"]).unwrap();
    enrol_totp(&case.alice);
    case.alice.does(&["sync"]).unwrap();
    let expected = ["said by bob".to_owned()];
    assert_eq!(
        difference(&history(&case.alice, "bench").unwrap(), "said", &expected),
        None
    );

    let factors = bob.does(&["factor", "list"]).unwrap();
    let totp = of_kind(&factors, "factor");
    let totp = totp.iter().find(|line| line["factor"] == "totp").unwrap();
    assert!(totp["proven_ms"].is_i64(), "{totp}");
    let id = totp["id"].as_str().unwrap();
    bob.does(&["factor", "remove", id]).unwrap();
    let again = ["room", "create", "cellar", "--project", "lab"];
    let denied = bob.run(&again).unwrap();
    assert!(
        denied.stderr.contains("`sotto factor enrol totp`"),
        "what was proven with it goes with it: {}",
        denied.stderr
    );
}

#[test]
fn lists_and_explanations_come_from_the_verified_log() {
    let case = Case::new().unwrap();
    let _bob = bob_of_the_staff(&case);
    let made = ["room", "create", "bench", "--project", "lab"];
    let bench = text(&case.alice.does(&made).unwrap(), "room").unwrap();
    let room = format!("room:{}", case.room);
    admin(
        &case,
        "policy set project:lab --need totp --within 8h --for read,post",
    );
    admin(&case, &format!("role grant bob user {room}"));
    admin(
        &case,
        "policy set org --introductions 1of3 --for create-project",
    );
    admin(&case, "user introduce bob");

    let projects = admin(&case, "project list");
    let lab = of_kind(&projects, "project");
    let lab = lab.iter().find(|line| line["project"] == "lab").unwrap();
    assert_eq!(lab["title"], "Laboratory");
    assert_eq!(lab["status"], "active");
    let rooms = admin(&case, "room list --project field");
    assert_eq!(of_kind(&rooms, "room")[0]["room"], case.room);
    let users = admin(&case, "user list --group staff");
    let [bob] = &of_kind(&users, "user")[..] else {
        panic!("{users:?}")
    };
    assert_eq!(
        (&bob["user"], &bob["title"]),
        (&"bob".into(), &"Bob".into())
    );
    let shown = admin(&case, "user show bob");
    let shown = of_kind(&shown, "user")[0];
    assert_eq!(shown["groups"], json!(["staff"]));
    assert_eq!(shown["introduced_by"], json!(["alice"]));
    assert_eq!(shown["devices"].as_array().unwrap().len(), 1);
    let group = admin(&case, "group show staff");
    assert_eq!(of_kind(&group, "group")[0]["members"], json!(["bob"]));
    let roles = admin(&case, "role list --in project:lab");
    let roles = of_kind(&roles, "role");
    let holders = roles.iter().map(|role| (&role["user"], &role["group"]));
    // Bob by the invitation that he took, and all of his group.
    let expected = [
        (&"bob".into(), &Value::Null),
        (&Value::Null, &"staff".into()),
    ];
    assert_eq!(holders.collect::<Vec<_>>(), expected);
    let org = admin(&case, "org show");
    assert_eq!(of_kind(&org, "org")[0]["owners"], json!(["alice"]));
    let policies = admin(&case, "policy show project:lab");
    let policy = &of_kind(&policies, "policy")[0]["policy"];
    assert_eq!(policy["demands"][0]["within_seconds"], 28_800);

    let allowed = admin(&case, &format!("policy explain bob read {room}"));
    assert_eq!(of_kind(&allowed, "explanation")[0]["allowed"], json!(true));
    let denied = admin(&case, &format!("policy explain bob manage {room}"));
    assert_eq!(of_kind(&denied, "explanation")[0]["allowed"], json!(false));
    let wanting = admin(&case, &format!("policy explain alice read room:{bench}"));
    let wanting = of_kind(&wanting, "explanation")[0];
    assert_eq!(wanting["allowed"], json!(false));
    assert_eq!(wanting["missing"][0]["place"], "project:lab");
    let proven = format!("policy explain alice read room:{bench} --proven totp=1h");
    let proven = admin(&case, &proven);
    assert_eq!(of_kind(&proven, "explanation")[0]["allowed"], json!(true));
    let stale = format!("policy explain alice read room:{bench} --proven totp=9h");
    let stale = admin(&case, &stale);
    assert_eq!(of_kind(&stale, "explanation")[0]["allowed"], json!(false));

    let matrix = admin(&case, &format!("policy matrix room:{bench}"));
    let matrix = of_kind(&matrix, "matrix")[0];
    let rows = matrix["rows"].as_array().unwrap();
    let reading = rows.iter().find(|row| row["action"] == "read").unwrap();
    let cells = reading["cells"].as_array().unwrap();
    assert_eq!(cells.len(), matrix["standings"].as_array().unwrap().len());
    let demanded = cells.iter().filter_map(Value::as_array).flatten();
    let mut demanded = demanded.map(|missing| &missing["demand"]["factor"]);
    assert!(demanded.all(|factor| factor == "totp"), "{reading}");
    assert!(
        cells.contains(&Value::Null),
        "somebody may never read: {reading}"
    );
}

#[test]
fn who_may_not_is_told_so_and_changes_nothing() {
    let case = Case::new().unwrap();
    let bob = bob_of_the_staff(&case);
    let before = length(&case);
    for line in [
        "admin project create mine",
        "admin role grant bob owner org",
        "admin user revoke alice --yes",
        "admin policy clear org",
        "admin user list",
        "admin log show",
    ] {
        let arguments: Vec<_> = line.split(' ').collect();
        let refused = bob.run(&arguments).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{line}");
        assert!(
            refused.stderr.contains("may not"),
            "{line}: {}",
            refused.stderr
        );
    }
    for line in [
        "admin user revoke alice --yes",
        "admin role revoke alice org",
        "admin project create field",
        "admin project delete field --yes",
        "admin policy set org --need fido2 --for manage",
    ] {
        let arguments: Vec<_> = line.split(' ').collect();
        let refused = case.alice.run(&arguments).unwrap();
        assert_eq!(
            refused.status.code(),
            Some(1),
            "{line}: {:?}",
            refused.lines
        );
    }
    assert_eq!(length(&case), before);
}

#[test]
fn a_dry_run_changes_nothing_and_tells_what_it_would() {
    let case = Case::new().unwrap();
    let _bob = bob_of_the_staff(&case);
    let room = format!("room:{}", case.room);
    let before = length(&case);
    for (line, change) in [
        ("org title Acme", "title_set"),
        ("project create shop --title Shop", "project_created"),
        ("project title lab", "title_set"),
        ("project archive lab", "project_status_set"),
        ("project delete lab", "project_status_set"),
        (&format!("room archive {room}"), "room_status_set"),
        (&format!("room delete {room}"), "room_status_set"),
        (&format!("room move {room} lab"), "room_moved"),
        ("user add carol --role user --in project:lab", "user_added"),
        ("user title bob Robert", "title_set"),
        ("user revoke bob", "user_revoked"),
        ("user invite bob2 --in project:lab", "invite_issued"),
        ("user introduce bob", "introduction_given"),
        ("group create crew", "group_created"),
        ("group title staff Everybody", "title_set"),
        ("group remove staff bob", "group_member_removed"),
        ("group delete staff", "group_deleted"),
        ("role grant bob owner project:lab", "role_granted"),
        ("role revoke group:staff project:lab", "role_revoked"),
        ("policy set project:lab --need password", "policy_set"),
    ] {
        let lines = admin(&case, &format!("{line} --dry-run"));
        let would = of_kind(&lines, "would_change");
        assert_eq!(would[0]["change"], change, "{line}");
        assert!(of_kind(&lines, "invite").is_empty(), "{line}");
    }
    assert_eq!(length(&case), before);
}

#[test]
fn what_cannot_be_taken_back_needs_a_yes() {
    let case = Case::new().unwrap();
    admin(&case, "project create lab");
    let before = length(&case);
    let asked = case
        .alice
        .run(&["admin", "project", "delete", "lab"])
        .unwrap();
    assert_eq!(asked.status.code(), Some(1));
    assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
    assert_eq!(length(&case), before);
    let deleted = admin(&case, "project delete lab --yes");
    assert_eq!(of_kind(&deleted, "changed")[0]["status"], "deleted");
    let taken = case
        .alice
        .run(&["admin", "project", "create", "lab"])
        .unwrap();
    assert!(!taken.status.success(), "the name is never used again");
}

#[test]
fn a_revoked_user_is_cut_off_and_the_rooms_change_their_keys() {
    let case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    let carol = case.member(case.device("carol").unwrap(), "carol").unwrap();
    bob.does(&["sync"]).unwrap();
    case.alice.does(&["send", "barn", "said before"]).unwrap();
    let follow = |person: &Person| person.starts(&["recv", "barn", "--follow"], None).unwrap();
    let (mut mallory, mut witness) = (follow(&bob), follow(&carol));
    let heard = |line: &Value| (line["text"] == "said before").then_some(());
    mallory.wait_for("the text", heard).unwrap();
    witness.wait_for("the text", heard).unwrap();

    admin(&case, "user revoke bob --yes");
    let offline = |line: &Value| (line["event"] == "offline").then_some(());
    mallory
        .wait_for("the end of the connection", offline)
        .unwrap();
    case.alice.does(&["sync"]).unwrap();
    let rooms = case.alice.does(&["rooms"]).unwrap();
    let members = of_kind(&rooms, "room")[0]["members"].to_string();
    assert!(
        members.contains("carol") && !members.contains("bob"),
        "{members}"
    );
    case.alice.does(&["send", "barn", "said after"]).unwrap();
    let heard = |line: &Value| (line["text"] == "said after").then_some(());
    witness.wait_for("the text", heard).unwrap();
    witness.interrupt().unwrap();
    mallory.kill().unwrap();

    let refused = bob.run(&["--wait", "2", "sync"]).unwrap();
    assert!(!refused.status.success());
    let expected = ["said before".to_owned()];
    assert_eq!(
        difference(&history(&bob, "barn").unwrap(), "said", &expected),
        None
    );
    let shown = admin(&case, "user show bob");
    assert_eq!(of_kind(&shown, "user")[0]["status"], "revoked");
}

#[test]
fn the_log_is_verified_without_a_server_and_a_flipped_byte_is_named() {
    let case = Case::new().unwrap();
    let _bob = bob_of_the_staff(&case);
    let org = admin(&case, "org show");
    let key = of_kind(&org, "org")[0]["gateway_key"].as_str().unwrap();
    let file = case.folder().join("acme.log");
    let path = file.display().to_string();
    let exported = admin(&case, &format!("log export {path}"));
    let entries = of_kind(&exported, "exported")[0]["entries"]
        .as_u64()
        .unwrap();
    assert_eq!(entries, length(&case) as u64);

    let nobody = case.device("auditor").unwrap();
    let verify = ["admin", "log", "verify", &path, "--key", key];
    let verified = nobody.does(&verify).unwrap();
    let verified = of_kind(&verified, "verified")[0];
    assert_eq!(
        (&verified["entries"], &verified["org"]),
        (&entries.into(), &"acme".into())
    );

    let other = "11".repeat(32);
    let refused = nobody.run(&["admin", "log", "verify", &path, "--key", &other]);
    assert_eq!(refused.unwrap().status.code(), Some(1));

    let good = fs::read(&file).unwrap();
    let mut named = Vec::new();
    for part in 1..8 {
        let mut bytes = good.clone();
        let at = bytes.len() * part / 8;
        bytes[at] ^= 1;
        fs::write(&file, &bytes).unwrap();
        let refused = nobody.run(&verify).unwrap();
        assert_eq!(refused.status.code(), Some(1), "byte {at}");
        let said = refused.stderr;
        let index = said
            .split("entry ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        named.push(
            index
                .unwrap_or_else(|| panic!("{said}"))
                .parse::<u64>()
                .unwrap(),
        );
    }
    assert!(named.is_sorted() && named[6] > named[0], "{named:?}");

    fs::write(&file, &good[..good.len() - 1]).unwrap();
    let refused = nobody.run(&verify).unwrap();
    assert!(refused.stderr.contains("truncated"), "{}", refused.stderr);
}

#[test]
fn a_room_is_made_although_its_maker_may_not_post_yet() {
    let case = Case::new().unwrap();
    let bob = bob_of_the_staff(&case);
    admin(
        &case,
        "policy set project:lab --need totp --within 8h --for read,post",
    );
    let made = case
        .alice
        .does(&["room", "create", "vault", "--project", "lab"])
        .expect("a room that is there is no error");
    let room = text(&made, "room").unwrap();
    let withheld = of_kind(&made, "withheld")[0];
    assert_eq!(
        (&withheld["room"], &withheld["missing"][0]["command"]),
        (&room.as_str().into(), &"sotto factor enrol totp".into())
    );
    enrol_totp(&case.alice);
    case.alice
        .does(&["room", "invite", "vault", "bob"])
        .unwrap();
    enrol_totp(&bob);
    bob.does(&["sync"]).unwrap();
    let rooms = bob.does(&["rooms"]).unwrap();
    assert_eq!(of_kind(&rooms, "room")[0]["name"], "vault");
}

#[test]
fn a_device_that_was_off_learns_that_its_role_was_taken() {
    let case = Case::new().unwrap();
    let bob = case.member(case.device("bob").unwrap(), "bob").unwrap();
    case.alice.does(&["send", "barn", "said before"]).unwrap();
    bob.does(&["recv", "barn"]).unwrap();
    // Bob's device is off, and so is every other one.
    admin(&case, &format!("role revoke bob room:{}", case.room));
    let synced = bob.does(&["sync"]).unwrap();
    assert_eq!(of_kind(&synced, "removed")[0]["room"], case.room);
    let rooms = bob.does(&["rooms"]).unwrap();
    let barn = of_kind(&rooms, "room")[0];
    assert_eq!(
        (&barn["member"], &barn["removed"]),
        (&json!(false), &json!(true))
    );
    let refused = bob.run(&["send", "barn", "still me"]).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused.stderr.contains("no longer a member"),
        "{}",
        refused.stderr
    );
    let expected = ["said before".to_owned()];
    assert_eq!(
        difference(&history(&bob, "barn").unwrap(), "said", &expected),
        None,
        "what was said stays readable"
    );
    // Let in again, he is a member like any other.
    case.alice.does(&["room", "invite", "barn", "bob"]).unwrap();
    bob.does(&["sync"]).unwrap();
    bob.does(&["send", "barn", "back again"]).unwrap();
}

#[test]
fn who_runs_the_server_lets_an_owner_back_in_and_everybody_knows() {
    let case = Case::new().unwrap();
    let bob = bob_of_the_staff(&case);
    enrol_totp(&case.alice);
    admin(&case, "policy set org --need totp --within 1m --for manage");
    let operator = |arguments: &[&str]| {
        let mut command = Command::new(binary("sotto-gateway").unwrap());
        command.args(["org", arguments[0], "acme", arguments[1]]);
        command.args(&arguments[2..]).arg("--dir");
        command.arg(case.server.layout().root()).output().unwrap()
    };
    let lost = "alice lost her phone, called on 555-0100";
    // Not without saying why.
    assert!(!operator(&["admit", "alice"]).status.success());
    assert!(
        operator(&["admit", "alice", "--reason", lost])
            .status
            .success()
    );
    let again = operator(&["admit", "alice", "--reason", lost]);
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains("nothing to do"), "{said}");

    for person in [&bob, &case.alice] {
        let told = person.does(&["sync"]).unwrap();
        let told = of_kind(&told, "intervened")[0];
        assert_eq!(
            (&told["factors_of"], &told["reason"], &told["actor"]),
            (&"alice".into(), &lost.into(), &Value::Null)
        );
        let told_again = person.does(&["sync"]).unwrap();
        assert!(of_kind(&told_again, "intervened").is_empty());
    }
    let factors = case.alice.does(&["factor", "list"]).unwrap();
    assert!(
        of_kind(&factors, "factor")
            .iter()
            .all(|line| line["factor"] != "totp")
    );
    // The password and a new code generator let her in.
    enrol_totp(&case.alice);
    let log = admin(&case, "log show");
    let entries = of_kind(&log, "entry");
    let kind = "operator_intervened";
    assert_eq!(
        entries
            .iter()
            .filter(|entry| entry["change"] == kind)
            .count(),
        1
    );

    assert!(
        operator(&["lift", "org", "--reason", "nobody can"])
            .status
            .success()
    );
    let policies = admin(&case, "policy show org");
    assert!(of_kind(&policies, "policy")[0]["policy"].is_null());
    let told = bob.does(&["sync"]).unwrap();
    assert_eq!(of_kind(&told, "intervened")[0]["policy_of"], "org");
}
