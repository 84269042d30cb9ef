//! Users who are expected, groups, guests, titles, and what ends.

use sotto_proto::wire;

use super::super::super::state::UserStatus;
use super::super::super::terms::{ExternalId, Intervention, Status, Titled};
use super::*;
use crate::policy::{Factor, Proven};

const GATEWAY: &Actor = &Actor::Gateway;

fn name(name: &str) -> UserName {
    name.parse().unwrap()
}

fn team() -> GroupName {
    "team".parse().unwrap()
}

fn add_user(user: &str, title: Option<&str>, external_id: Option<&str>) -> Command {
    Command::AddUser {
        user: name(user),
        title: title.map(|title| title.parse().unwrap()),
        external_id: external_id.map(|id| id.parse().unwrap()),
    }
}

fn title(of: Titled, title: &str) -> Command {
    Command::SetTitle {
        of,
        title: Some(title.parse().unwrap()),
    }
}

fn revoke_user(user: &str) -> Command {
    Command::RevokeUser { user: name(user) }
}

fn invite_for(number: u8, user: Option<&str>, guest_until_ms: Option<i64>) -> Command {
    Command::IssueInvite {
        invite: InviteHash([number; 32]),
        expires_ms: NOW_MS,
        scope: Scope::Project(field()),
        role: Role::User,
        for_user: user.map(name),
        guest_until_ms,
    }
}

fn enrol(user: &str, number: u8) -> Command {
    Command::Enrol {
        invite: InviteHash([number; 32]),
        certificate: certificate(user, number, number),
    }
}

fn grant_group(scope: Scope, role: Role) -> Command {
    Command::GrantRole {
        holder: Holder::Group(team()),
        scope,
        role,
    }
}

impl Org {
    /// A group with these members.
    fn team(&mut self, members: &[&str]) {
        let create = Command::CreateGroup {
            group: team(),
            title: None,
            external_id: None,
        };
        self.run(&user("alice"), create);
        for member in members {
            let add = Command::AddGroupMember {
                group: team(),
                user: name(member),
            };
            self.run(&user("alice"), add);
        }
    }

    fn departed(&self) -> Vec<(String, RoomId, Option<DeviceId>)> {
        let departures = self.state.departures_since(0);
        let told = departures.map(|departure| {
            let user = departure.user.to_string();
            (user, departure.room, departure.device)
        });
        told.collect()
    }
}

#[test]
fn an_expected_user_signs_up_with_the_invite_made_for_them() {
    let mut org = Org::new();
    org.run(GATEWAY, add_user("dave", Some("Dave D."), Some("uuid-1")));
    org.run(&user("alice"), invite_for(40, None, None));
    assert_eq!(
        rule(org.try_to(&user("dave"), enrol("dave", 40))),
        Rule::UserExpected(name("dave"))
    );
    org.run(&user("alice"), invite_for(41, Some("dave"), None));
    assert_eq!(
        rule(org.try_to(&user("eve"), enrol("eve", 41))),
        Rule::InviteForAnother
    );
    org.run(&user("dave"), enrol("dave", 41));
    let dave = org.state.user(&name("dave")).unwrap();
    assert_eq!(dave.status, UserStatus::Active);
    assert_eq!(dave.title.as_ref().unwrap().as_str(), "Dave D.");
    let id: ExternalId = "uuid-1".parse().unwrap();
    assert_eq!(org.state.user_with_external_id(&id), Some(&name("dave")));
    assert_eq!(
        rule(org.try_to(GATEWAY, add_user("dave2", None, Some("uuid-1")))),
        Rule::ExternalIdTaken(id)
    );
}

#[test]
fn who_owns_a_project_cannot_become_an_expected_user() {
    let mut org = Org::new();
    let owner = Command::GrantRole {
        holder: Holder::User(name("bob")),
        scope: Scope::Project(field()),
        role: Role::Owner,
    };
    org.run(&user("alice"), owner);
    org.run(&user("bob"), invite_for(40, None, None));
    let taken_over = org.try_to(&user("bob"), invite_for(41, Some("dave"), None));
    assert!(is_denied(&taken_over));
}

#[test]
fn an_invite_is_worth_nothing_while_its_issuer_may_not_invite() {
    let mut org = Org::new();
    let owner = |holder: &str, scope| Command::GrantRole {
        holder: Holder::User(name(holder)),
        scope,
        role: Role::Owner,
    };
    let in_field = Scope::Project(field());
    org.run(&user("alice"), owner("bob", Scope::Org));
    org.run(&user("alice"), owner("bob", in_field.clone()));
    org.run(GATEWAY, add_user("dave", None, None));
    org.run(&user("bob"), invite_for(40, None, None));
    org.run(&user("bob"), invite_for(41, Some("dave"), None));

    org.run(&user("alice"), revoke("bob", Scope::Org));
    assert_eq!(
        rule(org.try_to(&user("dave"), enrol("dave", 41))),
        Rule::InviteOutlived,
        "an owner of a project may not invite somebody in particular"
    );
    org.run(&user("alice"), revoke("bob", in_field.clone()));
    assert_eq!(
        rule(org.try_to(&user("eve"), enrol("eve", 40))),
        Rule::InviteOutlived
    );
    org.run(&user("alice"), owner("bob", in_field));
    org.run(&user("eve"), enrol("eve", 40));
}

#[test]
fn who_is_revoked_has_nothing_and_their_invites_are_void() {
    let mut org = Org::new();
    let room = org.room("bob", 50, JoinRule::Invite);
    org.team(&["bob"]);
    let owner = Command::GrantRole {
        holder: Holder::User(name("bob")),
        scope: Scope::Org,
        role: Role::Owner,
    };
    org.run(&user("alice"), owner);
    org.run(&user("bob"), invite_for(40, None, None));
    let introduce = Command::Introduce {
        user: name("alice"),
        by: name("bob"),
    };
    org.run(&user("bob"), introduce);
    assert_eq!(org.state.introductions(&name("alice")).count(), 1);

    assert!(is_denied(&org.try_to(&user("carol"), revoke_user("bob"))));
    assert_eq!(org.try_to(&user("alice"), revoke_user("bob")), Ok(1));
    assert_eq!(org.try_to(&user("alice"), revoke_user("bob")), Ok(0));
    let bob = org.state.user(&name("bob")).unwrap();
    assert_eq!(bob.status, UserStatus::Revoked);
    assert_eq!((bob.devices().count(), bob.roles().count()), (0, 0));
    assert!(org.state.group(&team()).unwrap().members.is_empty());
    assert_eq!(org.state.introductions(&name("alice")).count(), 0);
    assert_eq!(org.departed(), [("bob".to_owned(), room, None)]);
    assert_eq!(org.state.revoked_devices().count(), 1);
    assert_eq!(
        rule(org.try_to(&user("dave"), enrol("dave", 40))),
        Rule::InviteInvalid
    );
    assert_eq!(
        rule(org.try_to(GATEWAY, add_user("bob", None, None))),
        Rule::UserTaken(name("bob"))
    );
    assert_eq!(
        rule(org.try_to(&user("alice"), grant("bob", room, Role::User))),
        Rule::UserRevoked(name("bob"))
    );
}

#[test]
fn the_last_owner_stays_whatever_way_it_goes() {
    let mut org = Org::new();
    assert_eq!(
        rule(org.try_to(GATEWAY, revoke_user("alice"))),
        Rule::LastOwner
    );
    // Bob owns by a group; then alice can go, and bob and the group cannot.
    org.team(&["bob"]);
    org.run(&user("alice"), grant_group(Scope::Org, Role::Owner));
    org.run(GATEWAY, revoke_user("alice"));
    let remove = Command::RemoveGroupMember {
        group: team(),
        user: name("bob"),
    };
    let delete = Command::DeleteGroup { group: team() };
    let revoke = Command::RevokeRole {
        holder: Holder::Group(team()),
        scope: Scope::Org,
    };
    let guest = Command::SetGuestUntil {
        user: name("bob"),
        until_ms: Some(NOW_MS),
    };
    for last in [remove, delete, revoke, revoke_user("bob")] {
        assert_eq!(rule(org.try_to(&user("bob"), last)), Rule::LastOwner);
    }
    assert_eq!(rule(org.try_to(&user("bob"), guest)), Rule::Guest);
    // An owner who has not signed up is none to rely on.
    org.run(GATEWAY, add_user("dave", None, None));
    let owner = Command::GrantRole {
        holder: Holder::User(name("dave")),
        scope: Scope::Org,
        role: Role::Owner,
    };
    org.run(GATEWAY, owner);
    assert_eq!(
        rule(org.try_to(GATEWAY, revoke_user("bob"))),
        Rule::LastOwner
    );
}

#[test]
fn a_group_gives_and_takes_for_all_in_it() {
    let mut org = Org::new();
    let room = org.room("bob", 50, JoinRule::Invite);
    org.team(&["bob", "carol"]);
    assert_eq!(
        org.try_to(&user("bob"), grant_group(Scope::Room(room), Role::User)),
        Ok(1)
    );
    // Again changes nothing; the owner stays owner.
    assert_eq!(
        org.try_to(&user("bob"), grant_group(Scope::Room(room), Role::User)),
        Ok(0)
    );
    let role = |org: &Org, user: &str| org.state.granted_role(&name(user), &Scope::Room(room));
    assert_eq!(role(&org, "bob"), Some(Role::Owner));
    assert_eq!(role(&org, "carol"), Some(Role::User));
    assert_eq!(org.state.rooms_of(&name("carol")).len(), 1);
    let delete = Command::DeleteGroup { group: team() };
    org.run(&user("alice"), delete);
    assert_eq!(role(&org, "carol"), None);
    // Bob has a role of his own there.
    assert_eq!(org.departed(), [("carol".to_owned(), room, None)]);
    let since = org.state.restricted_since(NOW_MS);
    assert_eq!(
        since.keys().collect::<Vec<_>>(),
        [&name("bob"), &name("carol")]
    );
    let again = Command::CreateGroup {
        group: team(),
        title: None,
        external_id: None,
    };
    assert_eq!(
        rule(org.try_to(&user("alice"), again)),
        Rule::GroupTaken(team())
    );
}

#[test]
fn a_revoked_device_leaves_the_rooms_of_its_user() {
    let mut org = Org::new();
    let room = org.room("bob", 50, JoinRule::Invite);
    let revoke = Command::RevokeDevice { device: device(2) };
    org.run(&user("bob"), revoke);
    assert_eq!(org.departed(), [("bob".to_owned(), room, Some(device(2)))]);
}

#[test]
fn guests_are_in_single_rooms_only() {
    let mut org = Org::new();
    let room = org.room("bob", 50, JoinRule::Invite);
    assert_eq!(
        rule(org.try_to(&user("alice"), invite_for(40, None, Some(NOW_MS)))),
        Rule::Guest
    );
    let invite = Command::IssueInvite {
        invite: InviteHash([41; 32]),
        expires_ms: NOW_MS,
        scope: Scope::Room(room),
        role: Role::User,
        for_user: None,
        guest_until_ms: Some(NOW_MS + 5),
    };
    org.run(&user("bob"), invite);
    org.run(&user("gail"), enrol("gail", 41));
    let gail = org.state.user(&name("gail")).unwrap();
    assert_eq!(gail.guest_until_ms, Some(NOW_MS + 5));
    let owner = grant("gail", room, Role::Owner);
    assert_eq!(rule(org.try_to(&user("bob"), owner)), Rule::Guest);
    org.team(&["gail"]);
    let project = grant_group(Scope::Project(field()), Role::User);
    assert_eq!(
        rule(org.try_to(&user("alice"), project.clone())),
        Rule::Guest
    );
    let no_guest = Command::SetGuestUntil {
        user: name("gail"),
        until_ms: None,
    };
    org.run(&user("alice"), no_guest);
    org.run(&user("alice"), project);
    let guest = Command::SetGuestUntil {
        user: name("gail"),
        until_ms: Some(NOW_MS),
    };
    assert_eq!(rule(org.try_to(&user("alice"), guest)), Rule::Guest);
}

#[test]
fn titles_do_not_pass_for_siblings() {
    let mut org = Org::new();
    let of = |user: &str| Titled::User(name(user));
    org.run(&user("alice"), title(of("alice"), "Alice Smith"));
    assert_eq!(
        rule(org.try_to(&user("alice"), title(of("bob"), "A1ice Smith"))),
        Rule::Confusable("alice".to_owned())
    );
    // Nor for a name, and a new name not for a title.
    assert_eq!(
        rule(org.try_to(&user("alice"), title(of("bob"), "Carol"))),
        Rule::Confusable("carol".to_owned())
    );
    org.run(&user("alice"), title(of("bob"), "Dave"));
    assert_eq!(
        rule(org.try_to(GATEWAY, add_user("dave", None, None))),
        Rule::Confusable("bob".to_owned())
    );
    // A project may be called like a user, and a title is free once it is gone.
    org.run(
        &user("alice"),
        title(Titled::Project(field()), "Alice Smith"),
    );
    org.run(&user("alice"), title(of("bob"), "Bob"));
    org.run(GATEWAY, add_user("dave", None, None));
    org.run(GATEWAY, revoke_user("carol"));
    org.run(&user("alice"), title(of("bob"), "Carol"));
    assert!(is_denied(
        &org.try_to(&user("bob"), title(of("bob"), "The Boss"))
    ));
}

#[test]
fn nothing_new_happens_in_what_is_archived() {
    let mut org = Org::new();
    let room = org.room("bob", 50, JoinRule::Open);
    let archive = |status| Command::SetProjectStatus {
        project: field(),
        status,
    };
    org.run(&user("alice"), archive(Status::Archived));
    assert_eq!(org.try_to(&user("alice"), archive(Status::Archived)), Ok(0));
    assert!(org.state.is_archived(&Scope::Room(room)));
    assert_eq!(org.state.rooms_of(&name("bob")).len(), 1);
    assert!(
        org.try_to(&user("bob"), grant("carol", room, Role::User))
            .is_err()
    );
    assert_eq!(
        rule(org.try_to(GATEWAY, grant("carol", room, Role::User))),
        Rule::Archived(Scope::Room(room))
    );
    assert_eq!(
        rule(org.try_to(GATEWAY, invite_for(40, None, None))),
        Rule::Archived(Scope::Project(field()))
    );
    assert!(org.state.restricted_at_ms(&name("bob")).is_some());
    org.run(&user("alice"), archive(Status::Active));
    org.run(GATEWAY, grant("carol", room, Role::User));
    assert!(org.departed().is_empty());
}

#[test]
fn what_is_deleted_is_gone_for_good() {
    let mut org = Org::new();
    let room = org.room("bob", 50, JoinRule::Open);
    let delete = |project| Command::SetProjectStatus {
        project,
        status: Status::Deleted,
    };
    assert_eq!(
        rule(org.try_to(&user("alice"), delete(field()))),
        Rule::ProjectHoldsRooms(field())
    );
    let gone = Command::SetRoomStatus {
        room,
        status: Status::Deleted,
    };
    org.run(&user("bob"), gone);
    assert_eq!(org.state.room(room), None);
    assert!(org.state.rooms_of(&name("bob")).is_empty());
    assert!(org.state.restricted_at_ms(&name("bob")).is_some());
    assert_eq!(
        rule(org.try_to(GATEWAY, grant("carol", room, Role::User))),
        Rule::UnknownRoom
    );
    org.run(&user("alice"), delete(field()));
    assert_eq!(org.state.projects().count(), 0);
    let again = Command::CreateProject { project: field() };
    assert_eq!(
        rule(org.try_to(GATEWAY, again)),
        Rule::ProjectTaken(field())
    );
}

/// A room is in a project, a project in the org: there is no way to write down
/// a place in a room, so nothing can be moved into itself.
#[test]
fn a_moved_room_keeps_its_address_and_inherits_anew() {
    let mut org = Org::new();
    let room = org.room("bob", 50, JoinRule::Open);
    let place: ProjectName = "lab".parse().unwrap();
    let project = place.clone();
    org.run(GATEWAY, Command::CreateProject { project });
    let owner = Command::GrantRole {
        holder: Holder::User(name("carol")),
        scope: Scope::Project(place.clone()),
        role: Role::Owner,
    };
    org.run(&user("alice"), owner);
    let move_room = |project: &ProjectName| Command::MoveRoom {
        room,
        project: project.clone(),
    };
    let before = org.state.room(room).unwrap().address.clone();
    // Each of them owns one end only.
    assert!(is_denied(&org.try_to(&user("bob"), move_room(&place))));
    assert!(is_denied(&org.try_to(&user("carol"), move_room(&place))));
    org.run(&user("alice"), move_room(&place));
    assert_eq!(org.try_to(&user("alice"), move_room(&place)), Ok(0));
    let found = org.state.room(room).unwrap();
    assert_eq!((&found.address, &found.project), (&before, &place));
    let effective = org.state.effective_role(&name("carol"), &Scope::Room(room));
    assert_eq!(effective, Some(Role::Owner));
    let nowhere: ProjectName = "nowhere".parse().unwrap();
    assert_eq!(
        rule(org.try_to(GATEWAY, move_room(&nowhere))),
        Rule::UnknownProject(nowhere)
    );
}

#[test]
fn several_commands_are_all_done_or_none() {
    let mut org = Org::new();
    let create = Command::CreateProject {
        project: "lab".parse().unwrap(),
    };
    let into_it = Command::GrantRole {
        holder: Holder::User(name("bob")),
        scope: Scope::Project("lab".parse().unwrap()),
        role: Role::Owner,
    };
    let both = vec![create.clone(), into_it];
    assert_eq!(
        org.try_to(&user("alice"), Command::All(both.clone())),
        Ok(2)
    );
    let again = org.try_to(&user("alice"), Command::All(both));
    let taken = Rule::ProjectTaken("lab".parse().unwrap());
    assert_eq!(
        again,
        Err(Refusal::Nth {
            number: 1,
            refusal: Box::new(taken.into())
        })
    );
    let too_many = vec![create; COMMANDS_MAX + 1];
    assert_eq!(
        rule(org.try_to(&user("alice"), Command::All(too_many))),
        Rule::TooManyAtOnce
    );
    let nested = Command::All(vec![Command::All(Vec::new())]);
    assert!(org.try_to(&user("alice"), nested).is_err());
}

#[test]
fn factors_are_changed_by_who_has_just_proven_one() {
    let mut org = Org::new();
    let id = |number: u8| FactorId::try_from(&[number; 16][..]).unwrap();
    let enrol = |number| Command::EnrolFactor {
        factor: Factor::Totp,
        id: id(number),
    };
    let by = |factor, age_ms| By {
        actor: user("bob"),
        proven: Proven::none().with(factor, NOW_MS - age_ms),
    };
    let missing = |refused: Result<_, Refusal>| match refused {
        Err(Refusal::Denied(denied)) => match denied.missing() {
            [missing] => (missing.demand.factor(), missing.enrolled),
            missing => panic!("{missing:?}"),
        },
        other => panic!("{other:?}"),
    };
    // Without a factor it is the password, and it alone.
    let nothing = decide(&org.state, &user("bob").into(), enrol(1), NOW_MS);
    assert_eq!(missing(nothing), (Factor::Password, true));
    let stale = decide(&org.state, &by(Factor::Password, 600_001), enrol(1), NOW_MS);
    assert_eq!(missing(stale), (Factor::Password, true));
    let another = decide(&org.state, &by(Factor::Totp, 0), enrol(1), NOW_MS);
    assert_eq!(missing(another), (Factor::Password, true));
    org.enrol("bob", Factor::Totp, id(1));
    let password = decide(&org.state, &by(Factor::Password, 0), enrol(2), NOW_MS);
    assert_eq!(missing(password), (Factor::Totp, true));
    assert!(decide(&org.state, &by(Factor::Totp, 600_000), enrol(2), NOW_MS).is_ok());
    assert!(decide(&org.state, &by(Factor::Totp, 600_001), enrol(2), NOW_MS).is_err());
    let remove = Command::RemoveFactor {
        user: name("bob"),
        id: id(1),
    };
    assert!(is_denied(&org.try_to(&user("carol"), remove.clone())));
    assert_eq!(org.try_to(&user("alice"), remove.clone()), Ok(1));
    assert_eq!(org.try_to(&user("alice"), remove), Ok(0));
}

fn demand_in_org(action: wire::PolicyAction, factor: wire::Factor) -> Command {
    let demand = wire::Demand {
        actions: vec![action.into()],
        factor: factor.into(),
        ..wire::Demand::default()
    };
    let policy = LevelPolicy::try_from(wire::Policy {
        demands: vec![demand],
        cedar: String::new(),
    });
    Command::SetPolicy {
        scope: Scope::Org,
        policy: Some(Arc::new(policy.unwrap())),
    }
}

#[test]
fn the_last_factor_that_lets_an_owner_manage_stays() {
    let mut org = Org::new();
    let id = FactorId::try_from(&[1; 16][..]).unwrap();
    let factor = Factor::Totp;
    org.enrol("alice", factor, id);
    let set = demand_in_org(wire::PolicyAction::Manage, wire::Factor::Totp);
    org.run(&user("alice"), set);
    let by = By {
        actor: user("alice"),
        proven: Proven::none().with(factor, NOW_MS),
    };
    let remove = Command::RemoveFactor {
        user: name("alice"),
        id,
    };
    let refused = decide(&org.state, &by, remove.clone(), NOW_MS);
    assert!(matches!(refused, Err(Refusal::LockedOut(_))), "{refused:?}");
    let clear = Command::SetPolicy {
        scope: Scope::Org,
        policy: None,
    };
    let both = Command::All(vec![clear, remove]);
    assert!(decide(&org.state, &by, both, NOW_MS).is_ok());
}

#[test]
fn an_ask_on_the_wire_is_the_event_it_asks_for() {
    use wire::directory_command::Ask;
    let command = |ask| Command::try_from(wire::DirectoryCommand { ask: Some(ask) });
    let grant = wire::RoleGranted {
        user: String::new(),
        scope: Some((&Scope::Org).into()),
        role: wire::Role::Owner.into(),
        group: "team".to_owned(),
    };
    assert_eq!(
        command(Ask::GrantRole(grant.clone())),
        Ok(grant_group(Scope::Org, Role::Owner))
    );
    let both = wire::RoleGranted {
        user: "bob".to_owned(),
        ..grant
    };
    assert!(command(Ask::GrantRole(both)).is_err());
    let unreadable = wire::UserAdded {
        user: "dave".to_owned(),
        title: "D\u{202e}ave".to_owned(),
        external_id: String::new(),
    };
    let why = command(Ask::AddUser(unreadable)).unwrap_err().to_string();
    assert!(why.contains("U+202E"), "{why}");
    assert!(Command::try_from(wire::DirectoryCommand::default()).is_err());
}

#[test]
fn only_who_runs_the_server_steps_in_and_it_is_remembered() {
    let mut org = Org::new();
    let id = |number: u8| FactorId::try_from(&[number; 16][..]).unwrap();
    let (one, other) = (id(1), id(2));
    org.enrol("alice", Factor::Totp, one);
    let reset = |reason: &str| Command::Intervene {
        what: Intervention::FactorsReset(name("alice")),
        reason: reason.parse().unwrap(),
    };
    let lift = Command::Intervene {
        what: Intervention::PolicyLifted(Scope::Org),
        reason: "a typo".parse().unwrap(),
    };
    for who in ["alice", "bob"] {
        for command in [reset("mine"), lift.clone()] {
            let refused = org.try_to(&user(who), command);
            assert!(matches!(refused, Err(Refusal::Denied(_))), "{refused:?}");
        }
    }
    // Not even by an entry that says so.
    let forged = Event {
        index: 0,
        previous: None,
        at_ms: NOW_MS,
        actor: user("alice"),
        change: Change::Intervened {
            what: Intervention::FactorsReset(name("alice")),
            reason: "mine".parse().unwrap(),
        },
    };
    assert_eq!(org.state.clone().apply(&forged), Err(Rule::Intervention));

    assert_eq!(org.try_to(GATEWAY, lift), Ok(0), "there is no policy");
    assert_eq!(org.try_to(GATEWAY, reset("lost")), Ok(1));
    let alice = org.state.user(&name("alice")).unwrap();
    assert_eq!(alice.factors().count(), 0);
    assert_eq!(org.try_to(GATEWAY, reset("again")), Ok(0));
    assert_eq!(org.state.interventions(NOW_MS).count(), 1);
    let later = NOW_MS + 91 * 24 * 3_600_000;
    assert_eq!(org.state.interventions(later).count(), 0);
    org.enrol("alice", Factor::Totp, other);
    for _ in 0..10 {
        org.run(GATEWAY, reset("lost again"));
        org.enrol("alice", Factor::Totp, other);
    }
    assert_eq!(org.state.interventions(NOW_MS).count(), 8);
    let mut snapshot = Vec::new();
    crate::directory::snapshot::write(&org.state, &mut snapshot).unwrap();
    let acme = "acme".parse().unwrap();
    let key = key(200).verifying_key();
    let read = crate::directory::snapshot::read(&snapshot[..], &acme, &key).unwrap();
    assert!(
        read.interventions(NOW_MS)
            .eq(org.state.interventions(NOW_MS))
    );
}
