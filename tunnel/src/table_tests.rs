use nkeys::KeyPair;
use proptest::prelude::*;

use super::*;

fn key() -> String {
    KeyPair::new_server().public_key()
}

fn org(name: &str, key: &str, names: &[&str]) -> Org {
    Org {
        name: name.parse().unwrap(),
        keys: [key.to_owned()].into(),
        names: names.iter().map(|name| name.parse().unwrap()).collect(),
        connections: None,
        bytes_per_day: None,
    }
}

fn table(orgs: Vec<Org>) -> Result<NameTable, TableError> {
    NameTable::new(NamesFile {
        limits: Limits::default(),
        orgs,
    })
}

fn owner(table: &NameTable, name: &str) -> Option<String> {
    let owner = table.owner(&name.parse().unwrap());
    owner.map(|org| org.name.to_string())
}

#[test]
fn a_file_as_people_write_it() {
    let key = key();
    let table = NameTable::parse(&format!(
        r#"
        [limits]
        connections = 5

        [[org]]
        name = "acme"
        keys = ["{key}"]
        names = ["chat.acme.example", "*.rooms.acme.example"]
        connections = 3
        bytes_per_day = 1000
        "#
    ))
    .unwrap();
    assert_eq!(table.limits().connections, 5);
    assert_eq!(table.limits().waiting, WAITING);
    let acme = table.admit(&key, []).unwrap();
    assert_eq!(
        (acme.connections(), acme.bytes_per_day.unwrap().get()),
        (3, 1000)
    );
    assert_eq!(owner(&table, "a.rooms.acme.example").unwrap(), "acme");
    assert_eq!(owner(&table, "rooms.acme.example"), None);
}

#[test]
fn a_file_that_says_two_things_is_refused() {
    let (one, two) = (key(), key());
    let names = ["chat.acme.example"];
    let twice = [org("acme", &one, &names), org("emca", &two, &names)];
    assert!(matches!(table(twice.into()), Err(TableError::NameTwice(_))));
    let twice = [org("acme", &one, &names), org("emca", &one, &["b.example"])];
    assert!(matches!(table(twice.into()), Err(TableError::KeyTwice(_))));
    let twice = [org("acme", &one, &names), org("acme", &two, &["b.example"])];
    assert!(matches!(table(twice.into()), Err(TableError::OrgTwice(_))));
    for own in [LINK_NAME, "*.tunnel.sotto.internal"] {
        let own = table(vec![org("acme", &one, &[own])]);
        assert_eq!(own, Err(TableError::OwnName));
    }
    let user = KeyPair::new_user().public_key();
    assert!(matches!(
        table(vec![org("acme", &user, &names)]),
        Err(TableError::Key(_))
    ));
    for unreadable in [
        "[[org]]\nname = 3",
        "[[orgs]]",
        "[[org]]\nname = \"acme\"\nkeys = []\nnames = [\"A\"]",
    ] {
        assert!(
            matches!(NameTable::parse(unreadable), Err(TableError::Unreadable(_))),
            "{unreadable}"
        );
    }
}

#[test]
fn a_dialer_announces_only_what_its_org_is_given() {
    let (one, two) = (key(), key());
    let table = table(vec![
        org("acme", &one, &["*.example", "chat.acme.example"]),
        org("emca", &two, &["own.example"]),
    ])
    .unwrap();
    let admit = |key: &str, names: &[&str]| {
        let names: Vec<Pattern> = names.iter().map(|name| name.parse().unwrap()).collect();
        table.admit(key, &names).map(|org| org.name.to_string())
    };
    assert_eq!(
        admit(&one, &["a.example", "*.example", "chat.acme.example"]).unwrap(),
        "acme"
    );
    assert_eq!(admit(&two, &["own.example"]).unwrap(), "emca");
    for (key, stolen) in [
        (&one, "own.example"),
        (&one, "a.b.example"),
        (&one, "*.acme.example"),
        (&two, "a.example"),
        (&two, "*.example"),
    ] {
        assert!(
            matches!(admit(key, &[stolen]), Err(Denied::Name { .. })),
            "{stolen}"
        );
    }
    assert!(matches!(admit(&self::key(), &[]), Err(Denied::Key(_))));
    assert_eq!(owner(&table, "own.example").unwrap(), "emca");
    assert_eq!(owner(&table, "other.example").unwrap(), "acme");
}

proptest! {
    /// Whoever is admitted with a pattern owns every name of it, but for
    /// those that are another's by an exact entry.
    #[test]
    fn what_is_announced_is_ones_own(
        given in proptest::collection::btree_set("(\\*\\.)?[ab](\\.[ab]){0,2}", 1..4),
        others in proptest::collection::btree_set("(\\*\\.)?[ab](\\.[ab]){0,2}", 0..4),
        asked in "(\\*\\.)?[ab](\\.[ab]){0,2}",
    ) {
        let (one, two) = (key(), key());
        let given: Vec<_> = given.iter().map(String::as_str).collect();
        let others: Vec<_> = others.iter().map(String::as_str).filter(|name| !given.contains(name)).collect();
        let table = table(vec![org("acme", &one, &given), org("emca", &two, &others)]).unwrap();
        let asked: Pattern = asked.parse().unwrap();
        let name = match &asked {
            Pattern::Exact(name) => name.clone(),
            Pattern::Wildcard(parent) => format!("b.{parent}").parse().unwrap(),
        };
        if table.admit(&one, [&asked]).is_ok() {
            let owner = table.owner(&name).unwrap().name.to_string();
            let exact = others.contains(&name.as_str());
            prop_assert_eq!(owner, if exact { "emca" } else { "acme" });
        }
    }

    #[test]
    fn whatever_a_file_holds_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = NameTable::parse(&text);
    }
}
