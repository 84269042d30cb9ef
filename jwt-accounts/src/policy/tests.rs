//! The whole table of who may do what, to be reviewed when it changes.

use std::fmt::Write;

use crate::directory::{Change, Event, Holder, InviteHash, Role, Scope};
use ed25519_dalek::SigningKey;
use sotto_proto::wire::JoinRule;
use sotto_proto::{ProjectName, RoomId, Shard};

use super::*;

/// Who is asked about: a role in one place, and nothing else.
const STANDINGS: [(&str, Option<(Place, Role)>); 7] = [
    ("none", None),
    ("user of org", Some((Place::Org, Role::User))),
    ("owner of org", Some((Place::Org, Role::Owner))),
    ("user of project", Some((Place::Project, Role::User))),
    ("owner of project", Some((Place::Project, Role::Owner))),
    ("user of room", Some((Place::Room, Role::User))),
    ("owner of room", Some((Place::Room, Role::Owner))),
];

#[derive(Clone, Copy)]
enum Place {
    Org,
    Project,
    Room,
}

#[test]
fn the_matrix_is_the_reviewed_one() {
    let actual = matrix();
    let reviewed = include_str!("matrix.txt");
    assert_eq!(
        actual, reviewed,
        "review the change, then put this into src/policy/matrix.txt:\n{actual}"
    );
}

#[test]
fn a_denial_says_who_lacks_what_where() {
    let state = state(JoinRule::Invite, None);
    let denied = ask(&state, &alice(), Post, &room()).unwrap_err();
    assert_eq!(
        denied.to_string(),
        "alice may not post in room aeaqcaibaeaqcaibaeaqcaibae: a role in the room is needed; ask one of its owners for an invitation"
    );
}

#[test]
fn strangers_and_unknown_rooms_are_denied() {
    let state = state(JoinRule::Open, Some((Place::Room, Role::Owner)));
    let stranger: UserName = "mallory".parse().unwrap();
    assert!(ask(&state, &stranger, Read, &room()).is_err());
    let unknown = RoomId::try_from(&[9; 16][..]).unwrap();
    assert!(ask(&state, &alice(), Read, &unknown).is_err());
    let unknown: ProjectName = "nowhere".parse().unwrap();
    assert!(ask(&state, &alice(), CreateRoom, &unknown).is_err());
}

fn matrix() -> String {
    let org = || Scope::Org;
    let in_project = || Scope::Project(project());
    let in_room = || Scope::Room(room());
    let mut table = format!("{:<22}", "");
    for (standing, _) in STANDINGS {
        write!(table, "{standing:<18}").unwrap();
    }
    table.truncate(table.trim_end().len());
    table.push('\n');
    row(&mut table, "create a project", |state| {
        may(state, CreateProject, &())
    });
    row(&mut table, "create a room", |state| {
        may(state, CreateRoom, &project())
    });
    row(&mut table, "invite to the org", |state| {
        may(state, CreateInvite, &org())
    });
    row(&mut table, "invite to the project", |state| {
        may(state, CreateInvite, &in_project())
    });
    row(&mut table, "manage the org", |state| {
        may(state, Manage, &org())
    });
    row(&mut table, "manage the project", |state| {
        may(state, Manage, &in_project())
    });
    row(&mut table, "manage the room", |state| {
        may(state, Manage, &in_room())
    });
    row(&mut table, "invite to the room", |state| {
        may(state, Invite, &in_room())
    });
    row(&mut table, "read the room", |state| {
        may(state, Read, &room())
    });
    row(&mut table, "post to the room", |state| {
        may(state, Post, &room())
    });
    row(&mut table, "join the closed room", |state| {
        may(state, Join, &room())
    });
    let open = STANDINGS.map(|(_, role)| may(&state(JoinRule::Open, role), Join, &room()));
    line(&mut table, "join the open room", &open);
    table
}

fn row(table: &mut String, what: &str, may: impl Fn(&State) -> bool) {
    let answers = STANDINGS.map(|(_, role)| may(&state(JoinRule::Invite, role)));
    line(table, what, &answers);
}

fn line(table: &mut String, what: &str, answers: &[bool]) {
    let mut text = format!("{what:<22}");
    for allowed in answers {
        write!(text, "{:<18}", if *allowed { "yes" } else { "-" }).unwrap();
    }
    table.push_str(text.trim_end());
    table.push('\n');
}

fn may<A: Action>(state: &State, action: A, object: &A::Object) -> bool {
    ask(state, &alice(), action, object).is_ok()
}

fn ask<A: Action>(
    state: &State,
    user: &UserName,
    action: A,
    object: &A::Object,
) -> Result<Permit<A>, Denied> {
    let asking = Asking {
        user,
        proven: &Proven::none(),
        now_ms: 0,
    };
    check(state, asking, action, object)
}

fn alice() -> UserName {
    "alice".parse().unwrap()
}

fn project() -> ProjectName {
    "field".parse().unwrap()
}

fn room() -> RoomId {
    (&[1; 16][..]).try_into().unwrap()
}

/// An org with a project, a room and alice in it.
fn state(join_rule: JoinRule, role: Option<(Place, Role)>) -> State {
    let key = SigningKey::from_bytes(&[1; 32]).verifying_key();
    let invite = InviteHash([1; 32]);
    let mut changes = vec![
        Change::OrgCreated {
            org: "acme".parse().unwrap(),
            gateway_key: key,
        },
        Change::ProjectCreated { project: project() },
        Change::RoomCreated {
            room: room(),
            project: project(),
            shard: Shard(0),
            join_rule,
        },
        Change::InviteIssued {
            invite,
            expires_ms: 0,
            scope: Scope::Org,
            role: Role::User,
            for_user: None,
            guest_until_ms: None,
        },
        Change::UserEnrolled {
            user: alice(),
            identity_key: key,
            invite,
        },
    ];
    changes.extend(role.map(|(place, role)| Change::RoleGranted {
        holder: Holder::User(alice()),
        scope: match place {
            Place::Org => Scope::Org,
            Place::Project => Scope::Project(project()),
            Place::Room => Scope::Room(room()),
        },
        role,
    }));
    let mut state = State::default();
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
    state
}
