//! Whatever is stored on a room's subjects or sent to an inbox, the engines of
//! its members go on.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use sotto_client_core::io::Command;
use sotto_proto::{RoomAddress, Subject, wire};
use sotto_sim::World;

struct Room {
    world: World,
    address: RoomAddress,
    injected: u32,
}

fn room() -> Room {
    let mut world = World::new(1);
    let (alice, _) = (world.sign_up("alice"), world.sign_up("bob"));
    world.settle();
    let room = world.create_room(alice, wire::JoinRule::Invite);
    let user = "bob".parse().expect("a valid name");
    world.command(alice, Command::Invite { room, user, role: wire::Role::User });
    world.settle();
    let address = world.machines[alice].engine().rooms()[0].address.clone();
    Room { world, address: address.expect("a registered room"), injected: 0 }
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::new(room());
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, payload)) = bytes.split_first() else { return };
    ROOM.with_borrow_mut(|there| {
        if there.injected == 10_000 {
            *there = room();
        }
        there.injected += 1;
        let subject = match first % 3 {
            0 => there.address.messages(),
            1 => there.address.handshakes(),
            _ => Subject::Inbox(there.world.machines[1].device),
        };
        there.world.inject(subject, payload);
        there.world.settle_connected();
    });
});
