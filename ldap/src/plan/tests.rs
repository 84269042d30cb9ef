use ed25519_dalek::SigningKey;
use proptest::collection::vec;
use proptest::prelude::*;
use sotto_jwt_accounts::directory::{
    Actor, By, COMMANDS_MAX, Command, Event, Role, UserStatus, decide,
};
use sotto_proto::{ProjectName, UserName};

use super::*;
use crate::import::{Entry, GroupEntry, Member};

const RULES: &str = r#"
    [[rules]]
    ou = "ou=research,ou=people,dc=x"
    project = "research"
    role = "user"
    [[rules]]
    group = "cn=admins,ou=groups,dc=x"
    role = "owner"
"#;

fn mapping(more: &str) -> Mapping {
    let text = format!(
        r#"
        [server]
        url = "ldaps://localhost"
        ca_file = "ca.pem"
        {source}
        [users]
        base = "ou=people,dc=x"
        filter = "(a=*)"
        name = "uid"
        title = "cn"
        id = "entryUUID"
        [groups]
        base = "ou=groups,dc=x"
        filter = "(a=*)"
        name = "cn"
        id = "entryUUID"
        member = "member"
        {more}
        "#,
        source = if more.contains("#second") {
            "source = \"second\""
        } else {
            ""
        }
    );
    Mapping::parse(&text).unwrap()
}

fn apply(state: &mut State, commands: Vec<Command>) {
    let by = By::from(Actor::Gateway);
    let changes = decide(state, &by, Command::All(commands), 0).unwrap();
    for change in changes {
        let event = Event {
            index: 0,
            previous: None,
            at_ms: 0,
            actor: Actor::Gateway,
            change,
        };
        state.apply(&event).unwrap();
    }
}

/// The directory after a gateway was asked for all of a plan.
fn after(state: &State, plan: &Plan) -> State {
    let mut state = state.clone();
    for commands in plan.commands.chunks(COMMANDS_MAX) {
        let commands = commands
            .iter()
            .cloned()
            .map(|command| command.try_into().unwrap());
        apply(&mut state, commands.collect());
    }
    state
}

fn org() -> State {
    let mut state = State::default();
    let create = Command::CreateOrg {
        org: "acme".parse().unwrap(),
        gateway_key: SigningKey::from_bytes(&[7; 32]).verifying_key(),
    };
    apply(&mut state, vec![create]);
    state
}

fn by_hand(state: &mut State, user: &str) {
    let add = Command::AddUser {
        user: user.parse().unwrap(),
        title: None,
        external_id: None,
    };
    apply(state, vec![add]);
}

fn entry(dn: &str, id: &str, name: &str, title: &str) -> Entry {
    Entry {
        dn: dn.parse().unwrap(),
        id: Some(id.to_owned()),
        name: Some(name.to_owned()),
        title: (!title.is_empty()).then(|| title.to_owned()),
    }
}

/// `alice` below research, `bob` above; both in `staff`, `alice` in `admins`.
fn small() -> Entries {
    let alice = "uid=alice,ou=research,ou=people,dc=x";
    let bob = "uid=bob,ou=people,dc=x";
    let group = |name: &str, members: &[&str]| GroupEntry {
        entry: entry(&format!("cn={name},ou=groups,dc=x"), name, name, ""),
        members: members
            .iter()
            .map(|dn| Member::Dn(dn.parse().unwrap()))
            .collect(),
    };
    Entries {
        users: vec![
            entry(alice, "1", "alice", "Alice Liddell"),
            entry(bob, "2", "bob", "Bob"),
        ],
        groups: vec![group("staff", &[alice, bob]), group("admins", &[alice])],
        units: vec![entry("ou=research,ou=people,dc=x", "3", "research", "")],
    }
}

fn planned(entries: &Entries, rules: &str, state: &State, remove_missing: bool) -> Plan {
    plan(
        entries,
        &mapping(rules),
        state,
        PlanOptions { remove_missing },
    )
    .unwrap()
}

fn steps(plan: &Plan) -> Vec<String> {
    plan.diff.steps.iter().map(ToString::to_string).collect()
}

fn user(name: &str) -> UserName {
    name.parse().unwrap()
}

#[test]
fn a_first_import_makes_everything_and_a_second_nothing() {
    let first = planned(&small(), RULES, &org(), false);
    assert_eq!(
        steps(&first),
        [
            "+ project research",
            "+ user alice (Alice Liddell)",
            "+ user bob (Bob)",
            "+ group admins",
            "+ group staff",
            "+ group research",
            "+ user alice in group admins",
            "+ user alice in group research",
            "+ user alice in group staff",
            "+ user bob in group staff",
            "+ role user in project research for group research",
            "+ role owner in the organisation for group admins",
        ]
    );
    assert!(first.diff.refused.is_empty() && first.diff.remarks.is_empty());
    let state = after(&org(), &first);
    assert_eq!(
        state.user(&user("alice")).unwrap().status,
        UserStatus::Added
    );
    let research: ProjectName = "research".parse().unwrap();
    let scope = Scope::Project(research);
    assert_eq!(
        state.effective_role(&user("alice"), &scope),
        Some(Role::Owner)
    );
    assert_eq!(state.effective_role(&user("bob"), &scope), None);
    for remove_missing in [false, true] {
        let second = planned(&small(), RULES, &state, remove_missing);
        assert_eq!(second.diff, Diff::default());
        assert!(second.commands.is_empty());
    }
}

#[test]
fn a_new_name_is_a_new_title_and_a_move_a_new_group() {
    let state = after(&org(), &planned(&small(), RULES, &org(), false));
    let mut moved = small();
    moved.users[1] = entry(
        "uid=robert,ou=research,ou=people,dc=x",
        "2",
        "robert",
        "  Robert   B. ",
    );
    moved.groups[0].members[1] = Member::Dn(moved.users[1].dn.clone());
    let plan = planned(&moved, RULES, &state, true);
    assert_eq!(
        steps(&plan),
        [
            "~ user bob is called Robert B.",
            "+ user bob in group research",
        ]
    );
    let state = after(&state, &plan);
    assert!(planned(&moved, RULES, &state, true).commands.is_empty());
}

#[test]
fn what_disappeared_is_taken_only_when_told_to() {
    let mut state = after(&org(), &planned(&small(), RULES, &org(), false));
    by_hand(&mut state, "helper");
    apply(
        &mut state,
        vec![Command::AddGroupMember {
            group: "staff".parse().unwrap(),
            user: user("helper"),
        }],
    );
    let mut fewer = small();
    fewer.users.pop();
    fewer.groups.truncate(1);
    fewer.groups[0].members.clear();
    let rules = RULES.split("[[rules]]").nth(1).unwrap();
    let rules = format!("[[rules]]{rules}");
    let gone = [
        "- user alice in group staff",
        "- user bob",
        "- group admins",
    ];

    let kept = planned(&fewer, &rules, &state, false);
    assert!(kept.commands.is_empty());
    let lines: Vec<String> = kept.diff.kept.iter().map(ToString::to_string).collect();
    assert_eq!(lines, gone);

    let removed = planned(&fewer, &rules, &state, true);
    assert_eq!(steps(&removed), gone);
    let state = after(&state, &removed);
    assert_eq!(
        state.user(&user("bob")).unwrap().status,
        UserStatus::Revoked
    );
    assert_eq!(state.user(&user("helper")).unwrap().groups.len(), 1);
    assert!(planned(&fewer, &rules, &state, true).diff.steps.is_empty());

    // The name of somebody who was revoked is never anyone's again.
    let back = planned(&small(), &rules, &state, false);
    let refused = &back.diff.refused[0];
    assert!(refused.about.starts_with("uid=bob"), "{refused:?}");
    assert!(refused.why.contains("[users.names]"), "{refused:?}");
}

#[test]
fn another_server_is_none_of_its_business() {
    let first = after(&org(), &planned(&small(), RULES, &org(), false));
    let mut other = small();
    for (entry, name) in other.users.iter_mut().zip(["carol", "dave"]) {
        entry.name = Some(name.to_owned());
        entry.title = None;
    }
    other.groups.clear();
    other.units.clear();
    let plan = planned(&other, "#second", &first, true);
    assert_eq!(steps(&plan), ["+ user carol", "+ user dave"]);
    let both = after(&first, &plan);
    assert!(planned(&small(), RULES, &both, true).commands.is_empty());
}

#[test]
fn who_is_there_already_is_linked_only_when_the_mapping_says_so() {
    let mut state = org();
    by_hand(&mut state, "alice");
    let unlinked = planned(&small(), RULES, &state, false);
    let refused = &unlinked.diff.refused[0];
    assert!(
        refused.why.contains("`alice` is there already"),
        "{refused:?}"
    );

    let names = "[users.names]\n\"uid=alice,ou=research,ou=people,dc=x\" = \"alice\"";
    let rules = format!("{RULES}\n{names}");
    let linked = planned(&small(), &rules, &state, false);
    assert!(linked.diff.refused.is_empty());
    assert!(steps(&linked).contains(&"~ user alice is called Alice Liddell".to_owned()));
    let state = after(&state, &linked);
    assert!(planned(&small(), &rules, &state, true).commands.is_empty());
    // Who did not come from the server is not revoked because of it.
    let mut fewer = small();
    fewer.users.remove(0);
    let plan = planned(&fewer, &rules, &state, true);
    assert_eq!(steps(&plan), Vec::<String>::new());
}

#[test]
fn names_that_do_not_fit_are_refused_one_by_one() {
    let mut entries = small();
    let person = |n: usize, name: &str, title: &str| {
        entry(
            &format!("uid={n},ou=people,dc=x"),
            &n.to_string(),
            name,
            title,
        )
    };
    entries.users.extend([
        person(10, "алиса", "Алиса"),
        person(11, &"long".repeat(10), ""),
        person(12, "", ""),
        person(13, "J.Doe", "Bob"),
        person(14, "j_doe", ""),
        person(15, "evil", "ev\u{202e}il"),
        Entry {
            id: None,
            ..person(16, "nobody", "")
        },
        person(2, "second-bob", ""),
    ]);
    let plan = planned(&entries, RULES, &org(), false);
    let refused: Vec<(&str, &str)> = plan
        .diff
        .refused
        .iter()
        .map(|remark| (remark.about.as_str(), remark.why.as_str()))
        .collect();
    for ((about, why), part) in refused.iter().zip([
        ("uid=10,", "`алиса` cannot be written"),
        ("uid=11,", "is not a valid user name"),
        ("uid=12,", "is not a valid user name"),
        ("uid=14,", "`j-doe` comes from another entry"),
        ("uid=16,", "no usable id"),
        ("uid=bob,", "the same id"),
    ]) {
        assert!(
            about.starts_with(part.0) && why.contains(part.1),
            "{about}: {why}"
        );
    }
    assert_eq!(refused.len(), 6, "{refused:?}");
    // Two of the same title, and one that is none.
    let added = steps(&plan);
    assert!(
        added.contains(&"+ user j-doe (Bob)".to_owned()),
        "{added:?}"
    );
    assert!(added.contains(&"+ user evil".to_owned()));
    assert!(plan.diff.remarks[0].why.contains("U+202E"));

    let with_name = format!("{RULES}\n[users.names]\n\"uid=10,ou=people,dc=x\" = \"alisa\"");
    let plan = planned(&entries, &with_name, &org(), false);
    assert!(steps(&plan).contains(&"+ user alisa (Алиса)".to_owned()));

    let error = super::plan(
        &entries,
        &mapping(RULES),
        &org(),
        PlanOptions {
            remove_missing: true,
        },
    );
    assert_eq!(error, Err(PlanError::Unidentified(1)));
}

#[test]
fn titles_that_change_places_end_where_they_belong() {
    let people = |titles: [&str; 3]| Entries {
        users: titles
            .iter()
            .zip(["a", "b", "c"])
            .map(|(title, name)| entry(&format!("uid={name},dc=x"), name, name, title))
            .collect(),
        ..Entries::default()
    };
    let mut state = org();
    for titles in [
        ["John Smith", "John Smith", "Ann"],
        ["Ann", "John Smith", "John Smith"],
        ["John Smith", "Ann", "Eve"],
        ["Ann", "Eve", "John Smith"],
        ["b", "c", "a"],
    ] {
        let plan = planned(&people(titles), "", &state, false);
        state = after(&state, &plan);
        let again = planned(&people(titles), "", &state, false);
        assert_eq!(steps(&again), Vec::<String>::new(), "{titles:?}");
    }
    let title = |name| state.user(&user(name)).unwrap().title.clone().unwrap();
    assert_eq!(title("a").as_str(), "b (a)");
}

#[test]
fn groups_in_groups_count_even_in_circles() {
    let mut entries = small();
    let [staff, admins] = [0, 1].map(|n| entries.groups[n].entry.dn.clone());
    entries.groups[0].members = vec![
        Member::Dn(admins),
        Member::Dn("uid=nobody,dc=x".parse().unwrap()),
    ];
    entries.groups[1].members.push(Member::Dn(staff));
    let plan = planned(&entries, RULES, &org(), false);
    let state = after(&org(), &plan);
    let staff = state.group(&"staff".parse().unwrap()).unwrap();
    assert!(staff.members.contains(&user("alice")));
    assert!(plan.diff.remarks[0].why.starts_with("1 of its members"));

    entries.groups[0].members = vec![Member::Name("ALICE".into()), Member::Name("x".into())];
    entries.groups[1].members.clear();
    let state = after(&org(), &planned(&entries, RULES, &org(), false));
    let staff = state.group(&"staff".parse().unwrap()).unwrap();
    assert_eq!(staff.members.len(), 1);
}

#[test]
fn what_cannot_be_the_truth_is_no_plan() {
    let options = PlanOptions::default();
    let nobody = plan(&Entries::default(), &mapping(""), &org(), options);
    assert_eq!(nobody, Err(PlanError::Nobody));
    let mut entries = small();
    entries.groups.pop();
    let error = plan(&entries, &mapping(RULES), &org(), options).unwrap_err();
    assert!(error.to_string().contains("cn=admins"), "{error}");
}

#[test]
fn scripts_read_the_same() {
    let plan = planned(&small(), RULES, &org(), false);
    let json = serde_json::to_value(&plan.diff).unwrap();
    assert_eq!(
        json["steps"][1],
        serde_json::json!({
            "change": "add_user", "user": "alice", "title": "Alice Liddell", "external_id": "1"
        })
    );
    assert_eq!(
        json["steps"][10],
        serde_json::json!({
            "change": "grant_role", "group": "research", "project": "research", "role": "user"
        })
    );
    assert!(
        plan.diff
            .to_string()
            .ends_with("12 changes, 0 kept although gone from LDAP, 0 refused")
    );
}

fn some_entries() -> impl Strategy<Value = Entries> {
    let name = prop_oneof!["[a-c]{1,2}", "[a-b.@ ]{1,3}", "\\PC{0,3}"];
    let title = prop_oneof!["[abAB]{1,2}", "", "John", "\\PC{0,4}"];
    let person = (0..12_usize, any::<bool>(), name.clone(), title.clone());
    let people = vec(person, 1..10);
    let groups = vec((0..5_usize, name, title, vec(0..20_usize, 0..6)), 0..5);
    (people, groups).prop_map(|(people, groups)| {
        let person_dn = |n: usize, below: bool| {
            let unit = if below {
                "ou=research,ou=people,dc=x"
            } else {
                "ou=people,dc=x"
            };
            format!("uid={n},{unit}")
        };
        let group_dn = |n: usize| format!("cn={n},ou=groups,dc=x");
        let member = |n: usize| match n {
            0..12 => person_dn(n, n.is_multiple_of(2)),
            _ => group_dn(n - 12),
        };
        let users = people.into_iter().map(|(n, below, name, title)| {
            entry(&person_dn(n, below), &n.to_string(), &name, &title)
        });
        let groups = groups
            .into_iter()
            .map(|(n, name, title, members)| GroupEntry {
                entry: entry(&group_dn(n), &n.to_string(), &name, &title),
                members: members
                    .into_iter()
                    .map(|n| Member::Dn(member(n).parse().unwrap()))
                    .collect(),
            });
        Entries {
            users: users.collect(),
            groups: groups.collect(),
            units: vec![entry("ou=research,ou=people,dc=x", "unit", "research", "")],
        }
    })
}

proptest! {
    /// Whatever the server says: every command is accepted, the second import
    /// asks for nothing, and nobody loses anything unless that was asked for.
    #[test]
    fn imports_are_accepted_and_repeatable(
        imports in vec((some_entries(), any::<bool>()), 1..4),
    ) {
        let rules = RULES.split("[[rules]]").nth(1).unwrap();
        let rules = format!("[[rules]]{rules}");
        let mut state = org();
        by_hand(&mut state, "ab");
        for (entries, remove_missing) in imports {
            let first = planned(&entries, &rules, &state, remove_missing);
            let takes = first.diff.steps.iter().any(|step| matches!(
                step,
                Step::RemoveMember { .. } | Step::RevokeUser { .. } | Step::DeleteGroup { .. }
            ));
            prop_assert!(remove_missing || !takes);
            state = after(&state, &first);
            prop_assert_eq!(state.user(&user("ab")).unwrap().status, UserStatus::Added);
            let second = planned(&entries, &rules, &state, remove_missing);
            prop_assert_eq!(steps(&second), Vec::<String>::new());
        }
    }
}
