//! An org with somebody in every role, on three nodes.

use std::sync::Arc;

use nkeys::KeyPair;
use sotto_jwt_accounts::Credentials;
use sotto_jwt_accounts::directory::{Actor, Command, Holder, Role, Scope, Status};
use sotto_jwt_accounts::policy::{self, Action, Asking, LevelPolicy, Post, Proven, Read};
use sotto_proto::wire::{self, JoinRule};
use sotto_proto::{GroupName, RoomAddress, RoomId};

use crate::server::{Cluster, Directory, Person, Wire, now_ms};

/// An org with somebody in every role, and a room in each of two projects.
pub struct Org {
    pub cluster: Cluster,
    pub directory: Directory,
    pub people: Vec<Person>,
    pub rooms: Vec<RoomAddress>,
}

impl Org {
    pub async fn new() -> Self {
        let cluster = Cluster::start().await;
        let mut directory = Directory::new();
        let field = Scope::Project("field".parse().unwrap());
        let office = Scope::Project("office".parse().unwrap());
        let project = "office".parse().unwrap();
        directory.run(&Actor::Gateway, Command::CreateProject { project });
        let people: Vec<Person> = [
            ("orgowner", Scope::Org, Role::Owner),
            ("orguser", Scope::Org, Role::User),
            ("fieldowner", field.clone(), Role::Owner),
            ("fielduser", field.clone(), Role::User),
            ("roomowner", field.clone(), Role::User),
            ("roomuser", field.clone(), Role::User),
            ("user-proven", field.clone(), Role::User),
            ("ingroup", office.clone(), Role::User),
            ("office", office.clone(), Role::Owner),
            ("nobody", field.clone(), Role::User),
            ("revoked", office, Role::Owner),
        ]
        .into_iter()
        .zip(1..)
        .map(|((name, scope, role), number)| {
            let person = Person::new(name, number);
            directory.enrol_as(&person, scope, role);
            person
        })
        .collect();
        let mut org = Self {
            cluster,
            directory,
            rooms: Vec::new(),
            people,
        };

        let team = org.room("roomowner", "field", 51, JoinRule::Invite);
        org.room("office", "office", 52, JoinRule::Invite);
        let hall = org.room("fieldowner", "field", 53, JoinRule::Open);
        let vault = org.room("roomowner", "field", 54, JoinRule::Invite);
        let archive = org.room("roomowner", "field", 55, JoinRule::Invite);
        org.run("roomuser", Command::JoinRoom { room: hall });
        for user in ["roomuser", "user-proven"] {
            for room in [team, vault, archive] {
                let holder = Holder::User(user.parse().unwrap());
                org.grant(holder, room);
            }
        }
        org.invite_guest(team);
        org.make_group(team);
        let scope = field;
        let holder = Holder::User("nobody".parse().unwrap());
        org.gateway(Command::RevokeRole { holder, scope });
        org.run("roomowner", demand_totp(vault));
        let status = Status::Archived;
        let room = archive;
        org.run("roomowner", Command::SetRoomStatus { room, status });
        org
    }

    fn room(&mut self, owner: &str, project: &str, number: u8, rule: JoinRule) -> RoomId {
        let owner = self.people.iter().find(|p| p.name.as_str() == owner);
        let made = self
            .directory
            .room_in(owner.unwrap(), project, number, rule);
        let room = made.room;
        self.rooms.push(made);
        room
    }

    fn run(&mut self, actor: &str, command: Command) {
        let actor = Actor::User(actor.parse().unwrap());
        self.directory.run(&actor, command);
    }

    fn gateway(&mut self, command: Command) {
        self.directory.run(&Actor::Gateway, command);
    }

    fn grant(&mut self, holder: Holder, room: RoomId) {
        let (scope, role) = (Scope::Room(room), Role::User);
        let grant = Command::GrantRole {
            holder,
            scope,
            role,
        };
        self.gateway(grant);
    }

    /// Someone whose only role is in one room, for an hour.
    fn invite_guest(&mut self, room: RoomId) {
        let guest = Person::new("guest", 90);
        self.directory
            .enrol_as(&guest, Scope::Room(room), Role::User);
        let until_ms = Some(now_ms() + 3_600_000);
        let user = guest.name.clone();
        self.gateway(Command::SetGuestUntil { user, until_ms });
        self.people.push(guest);
    }

    /// `ingroup` is in a room by a group only.
    fn make_group(&mut self, room: RoomId) {
        let group: GroupName = "night-shift".parse().unwrap();
        self.gateway(Command::CreateGroup {
            group: group.clone(),
            title: None,
            external_id: None,
        });
        self.gateway(Command::AddGroupMember {
            group: group.clone(),
            user: "ingroup".parse().unwrap(),
        });
        self.grant(Holder::Group(group), room);
    }

    pub fn person(&self, name: &str) -> &Person {
        let found = self.people.iter().find(|p| p.name.as_str() == name);
        found.unwrap()
    }

    pub fn jwt(&self, who: &Person) -> String {
        let access =
            policy::nats_access(&self.directory.state, who.device, &proven(who), now_ms()).unwrap();
        let signer = &self.cluster.signer;
        signer.device_jwt(&access, now_ms()).unwrap().jwt
    }

    /// A device of this person on one of the nodes.
    pub async fn device(&self, who: &Person, node: usize) -> Wire {
        let url = &self.cluster.nodes[node].url;
        Wire::connect(url, &self.jwt(who), &who.nats_key())
            .await
            .unwrap()
    }

    pub async fn service(&self, credentials: &Credentials, node: usize) -> Wire {
        let (jwt, key) = opened(credentials);
        let url = &self.cluster.nodes[node].url;
        Wire::connect(url, &jwt, &key).await.unwrap()
    }

    pub fn reads(&self, who: &Person, room: RoomId) -> bool {
        self.may(who, &proven(who), Read, room)
    }

    pub fn posts(&self, who: &Person, room: RoomId) -> bool {
        self.may(who, &proven(who), Post, room)
    }

    /// Whether the policy asks for something that this person has proven.
    pub fn gated(&self, who: &Person, room: RoomId) -> bool {
        self.reads(who, room) && !self.may(who, &Proven::none(), Read, room)
    }

    fn may<A>(&self, who: &Person, proven: &Proven, action: A, room: RoomId) -> bool
    where
        A: Action<Object = RoomId>,
    {
        let asking = Asking {
            user: &who.name,
            proven,
            now_ms: now_ms(),
        };
        policy::check(&self.directory.state, asking, action, &room).is_ok()
    }
}

/// Who reads or posts has proven a one-time code.
fn demand_totp(room: RoomId) -> Command {
    let demand = wire::Demand {
        actions: vec![
            wire::PolicyAction::Read.into(),
            wire::PolicyAction::Post.into(),
        ],
        factor: wire::Factor::Totp.into(),
        max_age_seconds: 8 * 3_600,
        ..Default::default()
    };
    let policy = wire::Policy {
        demands: vec![demand],
        ..Default::default()
    };
    Command::SetPolicy {
        scope: Scope::Room(room),
        policy: Some(Arc::new(LevelPolicy::try_from(policy).unwrap())),
    }
}

/// What somebody's session has proven.
fn proven(who: &Person) -> Proven {
    if who.name.as_str().ends_with("-proven") {
        Proven::all(now_ms())
    } else {
        Proven::none()
    }
}

/// The JWT and the key of a creds file.
fn opened(credentials: &Credentials) -> (String, KeyPair) {
    let key = KeyPair::from_seed(credentials.seed()).unwrap();
    (credentials.jwt().to_owned(), key)
}
