//! What people do most, and what they see of it, in few words.

use sotto_client_core::io::{Command, Ticket};
use sotto_proto::{RoomId, wire};

use crate::World;

impl World {
    /// Says a text. Settles nothing.
    pub fn say(&mut self, machine: usize, room: RoomId, text: &str) -> Ticket {
        let texts = vec![text.to_owned()];
        self.command(machine, Command::SendTexts { room, texts })
    }

    /// Invites somebody as a user. Settles nothing.
    pub fn invite(&mut self, machine: usize, room: RoomId, user: &str) -> Ticket {
        #[expect(clippy::expect_used, reason = "a name in a test")]
        let user = user.parse().expect("the name of a user");
        let role = wire::Role::User;
        self.command(machine, Command::Invite { room, user, role })
    }

    /// Every text of a room, in order.
    pub fn texts(&self, machine: usize, room: RoomId) -> Vec<String> {
        let texts = self.machines[machine].texts(room).into_iter();
        texts.map(|(_, text)| text).collect()
    }

    /// Alice and bob, who are new, in a room of hers.
    pub fn room_of_two(&mut self) -> ([usize; 2], RoomId) {
        let (alice, bob) = (self.sign_up("alice"), self.sign_up("bob"));
        self.settle();
        let room = self.create_room(alice, wire::JoinRule::Invite);
        self.invite(alice, room, "bob");
        self.settle();
        ([alice, bob], room)
    }
}
