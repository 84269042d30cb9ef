//! What most tests begin with: a server, and alice in a room of her own.

use std::path::Path;

use anyhow::Context;
use serde_json::Value;
use tempfile::TempDir;

use crate::person::Person;
use crate::server::Server;

/// The password of everybody.
pub const PASSWORD: &str = "correct horse battery staple";

/// A server with the org `acme`, and what is known of it. Everything goes when
/// it is dropped.
#[derive(Debug)]
pub struct Case {
    /// The server; stopped before its folder goes.
    pub server: Server,
    /// Owner of the org and of the room.
    pub alice: Person,
    /// The id of alice's room, which is called `barn`.
    pub room: String,
    folder: TempDir,
}

impl Case {
    /// Starts the server, signs alice up, makes the room.
    ///
    /// # Errors
    /// When any of that fails.
    pub fn new() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("making a folder")?;
        let server = Server::create(&folder.path().join("server"), "acme", "field")?;
        let alice = Person::new(folder.path().join("alice"), PASSWORD)?;
        alice.does(&["signup", &server.first_invite("acme")?, "alice"])?;
        let made = alice.does(&["room", "create", "barn", "--project", "field"])?;
        let room = text(&made, "room")?;
        Ok(Self {
            server,
            alice,
            room,
            folder,
        })
    }

    /// Where tests may put things.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// A device with a folder of this name, and no account yet.
    ///
    /// # Errors
    /// When `sotto` was not built.
    pub fn device(&self, name: &str) -> anyhow::Result<Person> {
        Person::new(self.folder.path().join(name), PASSWORD)
    }

    /// An invitation to the org, from alice.
    ///
    /// # Errors
    /// When alice cannot invite.
    pub fn invite(&self) -> anyhow::Result<String> {
        text(
            &self.alice.does(&["invite", "--project", "field"])?,
            "invite",
        )
    }

    /// Signs the device's user up and lets them into alice's room.
    ///
    /// # Errors
    /// When any of that fails.
    pub fn member(&self, device: Person, name: &str) -> anyhow::Result<Person> {
        device.does(&["signup", &self.invite()?, name])?;
        self.alice.does(&["room", "invite", &self.room, name])?;
        device.does(&["sync"])?;
        Ok(device)
    }
}

/// A text field of a line that a command printed.
///
/// # Errors
/// When no line has it.
pub fn text(lines: &[Value], name: &str) -> anyhow::Result<String> {
    let value = lines.iter().find_map(|line| line.get(name)?.as_str());
    value
        .map(str::to_owned)
        .with_context(|| format!("no `{name}` in {lines:?}"))
}

/// Alice with a room of her own, and bob in it; the room's id.
///
/// # Errors
/// When anything of it is refused.
pub fn two_people(folder: &Path, first_invite: &str) -> anyhow::Result<([Person; 2], String)> {
    let person = |name: &str| Person::new(folder.join(name), PASSWORD);
    let (alice, bob) = (person("alice")?, person("bob")?);
    let room = meet(&alice, &bob, first_invite)?;
    Ok(([alice, bob], room))
}

/// Alice, who comes by the org's first invitation, makes the room `barn` and
/// lets bob in; the room's id.
///
/// # Errors
/// When anything of it is refused.
pub fn meet(alice: &Person, bob: &Person, first_invite: &str) -> anyhow::Result<String> {
    alice.does(&["signup", first_invite, "alice"])?;
    let made = alice.does(&["room", "create", "barn", "--project", "field"])?;
    let room = text(&made, "room")?;
    let invited = alice.does(&["invite", "--project", "field"])?;
    bob.does(&["signup", &text(&invited, "invite")?, "bob"])?;
    alice.does(&["room", "invite", &room, "bob"])?;
    bob.does(&["sync"])?;
    Ok(room)
}
