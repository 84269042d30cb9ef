//! The whole table of who may do what, to be reviewed when it changes.

use super::*;
use crate::policy::facts::Facts;

#[test]
fn the_matrix_is_the_reviewed_one() {
    let actual = tables();
    let reviewed = include_str!("../matrix.txt");
    assert_eq!(
        actual, reviewed,
        "review the change, then put this into src/policy/matrix.txt:\n{actual}"
    );
}

fn tables() -> String {
    let mut org = Org::new();
    org.archive();
    let plain = org.clone();
    demands(&mut org);
    let tables = [
        ("A closed room; no level demands anything", &plain, closed()),
        ("An open room; no level demands anything", &plain, open()),
        (
            "An archived room; no level demands anything",
            &plain,
            archived(),
        ),
        ("An open room; every level demands something", &org, open()),
    ];
    let tables = tables.map(|(title, org, room)| {
        let matrix = matrix(&org.state, &Scope::Room(room), NOW_MS);
        format!("# {title}\n\n{matrix}")
    });
    tables.join("\n")
}

/// The org guards what owners do, its project its rooms, the room its posts.
fn demands(org: &mut Org) {
    use ActionKind::{CreateInvite, CreateProject, Invite, Join, Manage, Post, Read};
    let owners = [Invite, Manage, CreateInvite, CreateProject];
    org.demand(Scope::Org, &[factor(&owners, Factor::Totp, 3_600)]);
    let demands = [
        factor(&[Read, Post, Join], Factor::Password, 8 * 3_600),
        introductions(&[Join], 2, 5),
    ];
    org.demand(in_field(), &demands);
    org.cedar(
        Scope::Room(open()),
        r#"forbid (principal, action == Sotto::Action::"post", resource)
           unless { context.proven has fido2 && context.proven.fido2 <= 900 };
           forbid (principal, action == Sotto::Action::"post", resource)
           when { principal.guest };"#,
    );
}

/// The table supposes standings; they are what the directory would make of them.
#[test]
fn supposed_standings_are_the_directorys() {
    let object = Scope::Room(closed());
    let places = [Scope::Org, in_field(), object.clone()];
    for (place, scope) in places.into_iter().enumerate() {
        for role in [Role::User, Role::Owner] {
            let mut org = Org::new();
            org.enrol("alice");
            org.grant("alice", scope.clone(), role);
            let alice = user("alice");
            let known = Facts::of(&org.state, &alice, NOW_MS, &object).unwrap();
            let supposed = Facts::supposed(&org.state, &object, Some((place, role)), false);
            let held = |facts: &Facts<'_>| {
                let levels = facts.levels.iter();
                levels
                    .map(|level| (level.owner, level.member))
                    .collect::<Vec<_>>()
            };
            assert_eq!(held(&supposed.unwrap()), held(&known), "{role} of {scope}");
        }
    }
}
