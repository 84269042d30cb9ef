//! The org's tree as LDIF, as slapd takes it.

use std::fs;
use std::path::PathBuf;

use ed25519_dalek::SigningKey;
use sotto_jwt_accounts::directory::{
    Actor, By, Command, Event, Holder, Role, Scope, State, Titled, decide,
};
use sotto_ldap::import::fetch;
use sotto_ldap::plan::{PlanOptions, plan};
use sotto_ldap::{Dn, Mapping, ldif};
use sotto_proto::RoomId;
use sotto_proto::wire::JoinRule;

use crate::slapd::{self, PASSWORD, SUFFIX, Slapd};

pub fn apply(state: &mut State, commands: Vec<Command>) {
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

pub fn org() -> State {
    let mut state = State::default();
    let create = Command::CreateOrg {
        org: "acme".parse().unwrap(),
        gateway_key: SigningKey::from_bytes(&[7; 32]).verifying_key(),
    };
    apply(&mut state, vec![create]);
    state
}

/// Users with and without titles, one of them revoked, groups with and without
/// members, roles at each level.
fn reference() -> State {
    let mut state = org();
    let title = |text: &str| Some(text.parse().unwrap());
    let add = |name: &str, text: &str| Command::AddUser {
        user: name.parse().unwrap(),
        title: (!text.is_empty()).then(|| text.parse().unwrap()),
        external_id: None,
    };
    let group = |name: &str| Command::CreateGroup {
        group: name.parse().unwrap(),
        title: title(&format!("Gruppe „{name}“, für alle")),
        external_id: None,
    };
    let member = |group: &str, user: &str| Command::AddGroupMember {
        group: group.parse().unwrap(),
        user: user.parse().unwrap(),
    };
    let grant = |holder, scope, role| Command::GrantRole {
        holder,
        scope,
        role,
    };
    let user = |name: &str| Holder::User(name.parse().unwrap());
    let project = || "research".parse().unwrap();
    apply(
        &mut state,
        vec![
            Command::SetTitle {
                of: Titled::Org,
                title: title("Acme & Söhne"),
            },
            add("alice", "Alice Liddell"),
            add("zoe", "Zoë Ångström-Müller"),
            add("plain", ""),
            add("gone", "Gone"),
            Command::RevokeUser {
                user: "gone".parse().unwrap(),
            },
            group("staff"),
            group("empty"),
            member("staff", "alice"),
            member("staff", "zoe"),
            Command::CreateProject { project: project() },
            grant(user("alice"), Scope::Org, Role::Owner),
            grant(user("plain"), Scope::Project(project()), Role::User),
            grant(
                Holder::Group("staff".parse().unwrap()),
                Scope::Project(project()),
                Role::Owner,
            ),
        ],
    );
    // Only users make rooms, so this one is made by an event of its own.
    let room = RoomId::try_from([5; 16].as_slice()).unwrap();
    let created = Event {
        index: 0,
        previous: None,
        at_ms: 0,
        actor: Actor::Gateway,
        change: sotto_jwt_accounts::directory::Change::RoomCreated {
            room,
            project: project(),
            shard: sotto_proto::Shard(0),
            join_rule: JoinRule::Invite,
        },
    };
    state.apply(&created).unwrap();
    apply(
        &mut state,
        vec![grant(user("zoe"), Scope::Room(room), Role::User)],
    );
    state
}

fn exported(state: &State, base: &str) -> (tempfile::TempDir, PathBuf, String) {
    let mut out = Vec::new();
    let base: Dn = base.parse().unwrap();
    ldif::write(state, &base, &mut out).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tree.ldif");
    fs::write(&path, &out).unwrap();
    (folder, path, String::from_utf8(out).unwrap())
}

#[test]
fn slapadd_takes_the_tree_at_every_kind_of_base() {
    for base in ["dc=example,dc=org", "o=Söhne", "ou=Acme\\, Inc.,c=DE"] {
        let (_folder, path, _) = exported(&reference(), base);
        slapd::slapadd(&path, base).unwrap();
    }
    let out: &mut Vec<u8> = &mut Vec::new();
    for base in ["cn=x", "o=a+ou=b", ""] {
        let error = ldif::write(&reference(), &base.parse().unwrap(), &mut *out).unwrap_err();
        assert!(error.to_string().contains("use a base like"), "{error}");
    }
    let error = ldif::write(&State::default(), &"o=x".parse().unwrap(), out).unwrap_err();
    assert!(matches!(error, ldif::LdifError::NoOrg));
}

#[test]
fn the_tree_says_who_is_what() {
    let (_folder, _, ldif) = exported(&reference(), "o=acme");
    for line in [
        "dn: uid=alice,ou=users,o=acme",
        "displayName: Alice Liddell",
        "sn: Liddell",
        "dn: cn=owner,o=acme",
        "dn: cn=user,ou=research,ou=projects,o=acme",
        "member: uid=plain,ou=users,o=acme",
        "dn: cn=owner,ou=research,ou=projects,o=acme",
        "member: cn=staff,ou=groups,o=acme",
        "member: ",
    ] {
        assert!(
            ldif.lines().any(|found| found == line),
            "{line} is not in\n{ldif}"
        );
    }
    assert!(!ldif.contains("gone"), "{ldif}");
    assert!(ldif.lines().all(|line| line.len() <= 76));
}

#[tokio::test]
async fn ldapadd_takes_it_and_an_import_brings_it_back() {
    let slapd = Slapd::start("", "");
    let (_folder, _, ldif) = exported(&reference(), SUFFIX);
    slapd.modify(&ldif).unwrap();

    let rules = format!(
        "[[rules]]\ngroup = \"cn=staff,ou=groups,{SUFFIX}\"\nproject = \"research\"\nrole = \"owner\""
    );
    let text = slapd.mapping_text(&slapd.start_tls_url(), &slapd.authority(), &rules);
    let mapping = Mapping::parse(&text.replace("ou=people", "ou=users")).unwrap();
    let entries = fetch(&mapping, PASSWORD).await.unwrap();
    let plan = plan(&entries, &mapping, &org(), PlanOptions::default()).unwrap();
    assert!(plan.diff.refused.is_empty(), "{}", plan.diff);
    let mut state = org();
    let commands = plan.commands.into_iter();
    apply(
        &mut state,
        commands
            .map(|command| command.try_into().unwrap())
            .collect(),
    );
    for (name, user) in reference()
        .users()
        .filter(|(name, _)| name.as_str() != "gone")
    {
        let back = state.user(name).unwrap();
        assert_eq!(
            (&back.title, &back.groups),
            (&user.title, &user.groups),
            "{name}"
        );
    }
    for (name, group) in reference().groups() {
        assert_eq!(state.group(name).unwrap().title, group.title, "{name}");
    }
}
