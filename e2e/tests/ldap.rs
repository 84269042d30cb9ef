//! Users and groups from a real LDAP server, by `sotto admin ldap`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]

#[path = "../../ldap/tests/server/slapd.rs"]
#[allow(dead_code, reason = "sotto-ldap's own tests need all of it")]
mod slapd;

use std::fs;

use serde_json::{Value, json};
use slapd::{PASSWORD, SUFFIX, Slapd, organisation, person_dn};
use sotto_e2e::case::{Case, text};

/// How many people the LDAP server knows.
const PEOPLE: usize = 12;

/// What lines of this kind say under `name`.
fn told<'a>(lines: &'a [Value], event: &str, name: &str) -> Vec<&'a Value> {
    let matching = lines.iter().filter(|line| line["event"] == event);
    matching.map(|line| &line[name]).collect()
}

#[test]
fn an_import_brings_everybody_once_and_takes_who_is_gone_when_told() {
    let case = Case::new().unwrap();
    let slapd = Slapd::start("", &organisation(PEOPLE, 3));
    let rules = format!(
        "[[rules]]\ngroup = \"cn=group-0,ou=groups,{SUFFIX}\"\nproject = \"field\"\nrole = \"user\"\n"
    );
    let mapping = case.folder().join("mapping.toml");
    let url = slapd.start_tls_url();
    let written = slapd.mapping_text(&url, &slapd.authority(), &rules);
    fs::write(&mapping, written).unwrap();
    let password = case.folder().join("ldap-password");
    fs::write(&password, PASSWORD).unwrap();
    let [mapping, password] = [&mapping, &password].map(|path| path.to_str().unwrap());
    let import = |more: &[&str]| {
        let import = ["admin", "ldap", "import", "--mapping", mapping];
        let secret = ["--ldap-password-file", password];
        let arguments = [&import, &secret[..], more].concat();
        case.alice.does(&arguments).unwrap()
    };
    let users = || case.alice.does(&["admin", "user", "list"]).unwrap();

    let would = import(&["--dry-run"]);
    assert!(!told(&would, "difference", "step").is_empty());
    assert_eq!(told(&users(), "user", "user"), ["alice"]);

    let first = import(&["--yes"]);
    assert!(!told(&first, "changed", "change").is_empty());
    assert_eq!(told(&users(), "user", "user").len(), 1 + PEOPLE);
    let roles = case.alice.does(&["admin", "role", "list"]).unwrap();
    let roles = roles.iter().filter(|line| line["group"] == "group-0");
    let places: Vec<_> = roles.map(|line| &line["place"]).collect();
    assert_eq!(places, ["project:field"]);

    let again = import(&["--yes", "--remove-missing"]);
    assert!(told(&again, "difference", "step").is_empty(), "{again:?}");
    assert!(told(&again, "changed", "change").is_empty(), "{again:?}");

    // Who was imported signs up with an invite of their own, and is cut off
    // when they are gone from LDAP.
    let invite = [
        "admin",
        "user",
        "invite",
        "person-3",
        "--in",
        "project:field",
    ];
    let invited = case.alice.does(&invite).unwrap();
    let person = case.device("person-3").unwrap();
    let link = text(&invited, "invite").unwrap();
    person.does(&["signup", &link, "person-3"]).unwrap();
    slapd
        .modify(&format!("dn: {}\nchangetype: delete\n", person_dn(3)))
        .unwrap();
    assert!(told(&import(&["--yes"]), "changed", "change").is_empty());
    let removed = import(&["--yes", "--remove-missing"]);
    let removed = told(&removed, "changed", "change");
    assert!(removed.contains(&&json!("user_revoked")), "{removed:?}");
    let refused = person.run(&["--wait", "2", "sync"]).unwrap();
    assert!(!refused.status.success());
}
