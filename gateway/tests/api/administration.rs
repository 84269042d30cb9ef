//! Changing the directory over the API, and reading its log.

use sotto_gateway::clock::Clock;
use sotto_jwt_accounts::directory::State;
use sotto_proto::wire::directory_command::Ask;
use sotto_proto::wire::{
    Accounts, AccountsRequest, ApiErrorCode, DirectoryChange, DirectoryCommand, DirectoryEntries,
    DirectoryRead, JoinRule, MeRequest, ProjectCreated, Role, RoleGranted, Scope, UserAdded,
    UserRevoked, directory_event, scope::Place,
};

use super::person::Person;
use super::revocation::Online;
use super::server::{Server, code};

fn create(project: &str) -> Ask {
    Ask::CreateProject(ProjectCreated {
        project: project.to_owned(),
    })
}

fn commands(asks: impl IntoIterator<Item = Ask>, dry_run: bool) -> DirectoryChange {
    let asks = asks.into_iter();
    DirectoryChange {
        commands: asks
            .map(|ask| DirectoryCommand { ask: Some(ask) })
            .collect(),
        dry_run,
    }
}

fn make_owner(user: &Person) -> Ask {
    Ask::GrantRole(RoleGranted {
        user: user.user.to_string(),
        scope: Some(Scope {
            place: Some(Place::Org(true)),
        }),
        role: Role::Owner.into(),
        group: String::new(),
    })
}

async fn projects(server: &Server, person: &Person) -> Vec<String> {
    person.call(server, &MeRequest {}).await.unwrap().projects
}

/// The whole log, in pieces of so many bytes, verified.
async fn read_log(server: &Server, person: &Person, max_bytes: u32) -> (State, usize) {
    let key = server.gateway.key().verifying_key();
    let (mut state, mut pages) = (State::default(), 0);
    loop {
        let from = state.head().length;
        let call = DirectoryRead { from, max_bytes };
        let DirectoryEntries { entries, length } = person.call(server, &call).await.unwrap();
        for entry in &entries {
            state.advance(entry, &key).unwrap();
        }
        pages += 1;
        if state.head().length == length {
            return (state, pages);
        }
        assert!(!entries.is_empty(), "no entry from {from} of {length}");
        let bytes: usize = entries.iter().map(bytes::Bytes::len).sum();
        assert!(entries.len() == 1 || bytes <= max_bytes as usize, "{bytes}");
    }
}

#[tokio::test]
async fn an_owner_sees_which_version_of_the_accounts_each_server_has() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    // A device's connection has the devices' account loaded, too.
    let _online = Online::connect(&server, &alice).await;
    let Accounts { accounts } = alice.call(&server, &AccountsRequest {}).await.unwrap();
    let names: Vec<&str> = accounts
        .iter()
        .map(|account| account.name.as_str())
        .collect();
    assert_eq!(names, ["acme", "acme devices"]);
    for account in accounts {
        assert!(account.account.starts_with('A'));
        assert_eq!(account.held.len(), 1, "{:?}", account.held);
        assert_eq!(account.held[0].version, account.stored);
    }
    let refused = bob.call(&server, &AccountsRequest {}).await;
    assert_eq!(code(refused), ApiErrorCode::Denied);
}

#[tokio::test]
async fn all_commands_of_one_call_or_none() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let length = || server.org("acme").state().unwrap().head().length;
    let before = length();
    let taken = alice
        .change(&server, [create("one"), create("field")])
        .await;
    assert_eq!(code(taken.clone()), ApiErrorCode::Conflict);
    let message = taken.unwrap_err().message;
    assert!(message.contains("command 2"), "{message}");
    assert_eq!(length(), before);

    let dry = commands([create("one"), create("two")], true);
    let would = alice.call(&server, &dry).await.unwrap();
    assert_eq!((would.length, length()), (before, before));
    let both = [create("one"), create("two")];
    let changed = alice.change(&server, both).await.unwrap();
    assert_eq!(changed.length, before + 2);
    assert_eq!(projects(&server, &alice).await, ["field", "one", "two"]);
    for (would, event) in would.events.iter().zip(&changed.events) {
        assert_eq!((would.index, &would.body), (event.index, &event.body));
    }
    assert_eq!(changed.events[1].index, before + 1);
    assert_eq!(changed.events[1].actor, "alice");
    assert_eq!(changed.events[1].at_ms, server.clock.now_ms());
    let created = ProjectCreated {
        project: "two".to_owned(),
    };
    let created = Some(directory_event::Body::ProjectCreated(created));
    assert_eq!(changed.events[1].body, created);
}

#[tokio::test]
async fn only_who_may_changes_or_reads_the_directory() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let bob = alice.invite_new(&server, "bob").await;
    let read = DirectoryRead {
        from: 0,
        max_bytes: 1_000,
    };
    for refused in [
        code(bob.change(&server, [create("one")]).await),
        code(bob.call(&server, &commands([create("one")], true)).await),
        code(bob.change(&server, [make_owner(&bob)]).await),
        code(bob.call(&server, &read).await),
    ] {
        assert_eq!(refused, ApiErrorCode::Denied);
    }
    alice.change(&server, [make_owner(&bob)]).await.unwrap();
    bob.change(&server, [create("one")]).await.unwrap();
    bob.call(&server, &read).await.unwrap();
}

#[tokio::test]
async fn what_is_no_command_is_said_so() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let nothing = commands([], false);
    let unknown = DirectoryChange {
        commands: vec![DirectoryCommand { ask: None }],
        dry_run: false,
    };
    let too_many = commands((0..501).map(|n| create(&format!("p{n}"))), false);
    let bad_name = commands([create("No Name")], false);
    for call in [nothing, unknown, too_many, bad_name] {
        let refused = alice.call(&server, &call).await;
        assert_eq!(code(refused), ApiErrorCode::Malformed);
    }
    let most = (0..500).map(|n| create(&format!("p{n}")));
    alice.change(&server, most).await.unwrap();
    assert_eq!(projects(&server, &alice).await.len(), 501);
}

#[tokio::test]
async fn the_log_is_read_in_pieces_and_verifies() {
    let server = Server::start().await;
    let alice = Person::first(&server, "acme", "alice").await;
    let users = (0..300).map(|n| {
        Ask::AddUser(UserAdded {
            user: format!("user-{n}"),
            title: format!("User {n}"),
            external_id: String::new(),
        })
    });
    alice.change(&server, users).await.unwrap();
    alice.create_room(&server, JoinRule::Open).await;
    let truth = server.org("acme").state().unwrap();
    let (whole, pages) = read_log(&server, &alice, u32::MAX).await;
    assert!(whole == *truth, "another state than the gateway's");
    assert_eq!(pages, 1);
    let (in_pieces, pages) = read_log(&server, &alice, 2_000).await;
    assert!(in_pieces == *truth, "another state than the gateway's");
    assert!(pages > 10, "{pages}");
    let (one_by_one, _) = read_log(&server, &alice, 0).await;
    assert!(one_by_one == *truth, "another state than the gateway's");

    let beyond = DirectoryRead {
        from: u64::MAX,
        max_bytes: 5_000,
    };
    let answer = alice.call(&server, &beyond).await.unwrap();
    assert!(answer.entries.is_empty());
    assert_eq!(answer.length, truth.head().length);
}

/// Her session ends, her connection closes, her name stays taken.
#[tokio::test]
async fn a_revoked_user_is_out_everywhere() {
    let one = Server::start().await;
    let two = Server::start_on(one.directory.clone()).await;
    let alice = Person::first(&one, "acme", "alice").await;
    let bob = alice.invite_new(&one, "bob").await;
    let second = bob.on_another_device(&one).await;
    let mut online = [
        Online::connect(&one, &bob).await,
        Online::connect(&two, &second).await,
    ];
    let revoke = Ask::RevokeUser(UserRevoked {
        user: "bob".to_owned(),
    });
    alice.change(&one, [revoke.clone()]).await.unwrap();
    for lost in &mut online {
        lost.is_cut().await;
    }
    for (server, person) in [(&one, &bob), (&two, &second)] {
        let refused = person.call(server, &MeRequest {}).await;
        assert_eq!(code(refused), ApiErrorCode::SessionExpired);
        let proof = person.proof(server, 0);
        let session = person.open_session(server, &proof).await;
        assert_eq!(code(session), ApiErrorCode::Denied);
    }
    // Again changes nothing, and the last owner stays.
    let again = alice.change(&one, [revoke]).await.unwrap();
    assert!(again.events.is_empty());
    let herself = Ask::RevokeUser(UserRevoked {
        user: "alice".to_owned(),
    });
    let refused = alice.change(&one, [herself]).await;
    assert_eq!(code(refused), ApiErrorCode::Conflict);
    let invite = alice.invite(&one, "field").await;
    let taken = Person::sign_up(&one, "acme", "bob", &invite).await;
    assert_eq!(code(taken.map(drop)), ApiErrorCode::NameTaken);
}
