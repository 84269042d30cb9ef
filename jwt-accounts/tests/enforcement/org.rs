//! An org with somebody in every role, on three nodes.

use nkeys::KeyPair;
use sotto_jwt_accounts::Credentials;
use sotto_jwt_accounts::directory::{Actor, Command, Role, Scope};
use sotto_jwt_accounts::policy::{self, Action, Asking, Post, Proven, Read};
use sotto_proto::wire::JoinRule;
use sotto_proto::{RoomAddress, RoomId};

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
            ("office", office.clone(), Role::Owner),
            ("nobody", field, Role::User),
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
        let find = |name: &str| people.iter().find(|p| p.name.as_str() == name).unwrap();

        let team = directory.room(find("roomowner"), 51);
        let desk = directory.room_in(find("office"), "office", 52, JoinRule::Invite);
        let hall = directory.room_in(find("fieldowner"), "field", 53, JoinRule::Open);
        directory.run(
            &find("roomowner").actor(),
            Command::GrantRole {
                user: find("roomuser").name.clone(),
                scope: Scope::Room(team.room),
                role: Role::User,
            },
        );
        directory.run(
            &find("roomuser").actor(),
            Command::JoinRoom { room: hall.room },
        );
        let (user, scope) = (
            find("nobody").name.clone(),
            Scope::Project("field".parse().unwrap()),
        );
        let revoke = Command::RevokeRole { user, scope };
        directory.run(&Actor::Gateway, revoke);
        Self {
            cluster,
            directory,
            rooms: vec![team, desk, hall],
            people,
        }
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
    let lines: Vec<&str> = credentials.expose().lines().collect();
    (lines[1].to_owned(), KeyPair::from_seed(lines[5]).unwrap())
}
