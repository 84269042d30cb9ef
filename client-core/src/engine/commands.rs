//! What people ask for: each command is checked whole, then either done,
//! refused with a reason, or noted down as a goal of its room.

use prost::Message;
use rand::{CryptoRng, RngCore};
use sotto_proto::{ProjectName, RoomId, UserName, limits, wire};

use super::{Engine, Goal, Waiting};
use crate::io::{Command, Event, Ticket, Timestamp};
use crate::records::Key;
use crate::room::{Phase, Room, RoomRecord};

/// One sentence for a person.
pub(super) type Refusal = String;

impl Engine {
    pub(super) fn command(
        &mut self,
        ticket: Ticket,
        command: Command,
        now: Timestamp,
        rng: &mut (impl RngCore + CryptoRng),
    ) {
        let result = match command {
            Command::CreateRoom {
                project,
                name,
                join_rule,
            } => self.create_room(ticket, project, name, join_rule, rng),
            Command::Invite { room, user, role } => self.invite(ticket, room, user, role),
            Command::Join { room } => self.join(ticket, room),
            Command::SendTexts { room, texts } => self.send_texts(ticket, room, &texts, now),
            Command::BeginUpload(upload) => self.begin_upload(ticket, upload, rng),
            Command::AdvanceUpload { file, next } => self.advance_upload(ticket, file, next, now),
            Command::UploadInstead { file } => self.upload_instead(ticket, file, rng),
            Command::CancelUpload { file } => {
                self.cancel_upload(file);
                self.event(Event::Done { ticket, room: None });
                Ok(())
            }
            Command::AdmitDevice { device } => {
                self.link.me_due = true;
                self.ask_me();
                self.wait_everywhere(ticket, Goal::Admitted(device));
                Ok(())
            }
            Command::DismissDevice { device } => {
                self.unwant_devices(|member| member.device == device);
                self.wait_everywhere(ticket, Goal::Dismissed(device));
                Ok(())
            }
            Command::MarkRead { room, position } => self.mark_read(ticket, room, position),
        };
        if let Err(reason) = result {
            self.event(Event::Failed {
                ticket,
                reason,
                factor_needed: None,
                refusal: None,
            });
        }
    }

    fn create_room(
        &mut self,
        ticket: Ticket,
        project: ProjectName,
        name: String,
        join_rule: wire::JoinRule,
        rng: &mut (impl RngCore + CryptoRng),
    ) -> Result<(), Refusal> {
        check_name(&name, "room")?;
        let id = RoomId::random(rng);
        let mut record = RoomRecord::new(Phase::Creating, Some(project), join_rule);
        record.name = Some(name);
        record.name_due = true;
        self.rooms.insert(id, Room::new(id, record));
        self.wait(ticket, id, Goal::Member);
        Ok(())
    }

    fn invite(
        &mut self,
        ticket: Ticket,
        room: RoomId,
        user: UserName,
        role: wire::Role,
    ) -> Result<(), Refusal> {
        let own = self.own_member();
        let record = self.member_of(room)?;
        let owner = record
            .group()
            .is_some_and(|group| group.rules().is_owner(&own));
        if !owner {
            return Err("only an owner of the room can invite: ask one".to_owned());
        }
        record.record.invites.insert(user.clone(), role.into());
        self.wait(ticket, room, Goal::Invited(user));
        Ok(())
    }

    fn join(&mut self, ticket: Ticket, room: RoomId) -> Result<(), Refusal> {
        let there = self.rooms.get(&room).map(|room| room.record.phase);
        if matches!(there, None | Some(Phase::Removed)) {
            let record = RoomRecord::new(Phase::Joining, None, wire::JoinRule::Open);
            self.rooms.insert(room, Room::new(room, record));
        }
        self.wait(ticket, room, Goal::Member);
        Ok(())
    }

    fn send_texts(
        &mut self,
        ticket: Ticket,
        room: RoomId,
        texts: &[String],
        now: Timestamp,
    ) -> Result<(), Refusal> {
        for text in texts {
            check_text(text)?;
        }
        let record = &mut self.member_of(room)?.record;
        let first = record.counter + 1;
        record.counter += texts.len() as u64;
        let last = record.counter;
        for (counter, text) in (first..).zip(texts) {
            let body = wire::Text { text: text.clone() }.encode_to_vec();
            self.queue_entry(room, counter, wire::EntryKind::Text, body, now);
        }
        self.event(Event::Queued {
            ticket,
            first,
            last,
        });
        self.wait(ticket, room, Goal::Sent(last));
        Ok(())
    }

    /// For a goal in every room at once.
    fn wait_everywhere(&mut self, ticket: Ticket, goal: Goal) {
        let room = None;
        self.waiting.push(Waiting { ticket, room, goal });
    }

    fn mark_read(&mut self, ticket: Ticket, room: RoomId, position: u64) -> Result<(), Refusal> {
        let record = &mut self.rooms.get_mut(&room).ok_or_else(unknown_room)?.record;
        record.read_position = position
            .min(record.history_length)
            .max(record.read_position);
        self.touched.insert(room);
        self.event(Event::Done {
            ticket,
            room: Some(room),
        });
        Ok(())
    }

    /// Puts an entry into the room's outbox; its counter was just drawn.
    pub(super) fn queue_entry(
        &mut self,
        room: RoomId,
        counter: u64,
        kind: wire::EntryKind,
        body: Vec<u8>,
        now: Timestamp,
    ) {
        let kind = i32::from(kind).unsigned_abs();
        let entry = wire::Entry {
            counter,
            sent_at_ms: now.0,
            kind,
            body: body.into(),
        };
        self.provider
            .records()
            .put_bytes(Key::Outbox(room, counter), entry.encode_to_vec());
        self.touched.insert(room);
    }

    pub(super) fn wait(&mut self, ticket: Ticket, room: RoomId, goal: Goal) {
        self.touched.insert(room);
        let room = Some(room);
        self.waiting.push(Waiting { ticket, room, goal });
    }

    /// A room that this device is a member of.
    pub(super) fn member_of(&mut self, room: RoomId) -> Result<&mut Room, Refusal> {
        let room = self.rooms.get_mut(&room).ok_or_else(unknown_room)?;
        match room.record.phase {
            Phase::Member => Ok(room),
            Phase::Creating | Phase::Joining => Err(
                "you are not in this room yet: run `sotto sync` while the server can be reached"
                    .to_owned(),
            ),
            Phase::Removed => Err(
                "you are no longer a member of this room: ask an owner to invite you".to_owned(),
            ),
        }
    }
}

pub(super) fn unknown_room() -> Refusal {
    "there is no such room: `sotto rooms` lists yours".to_owned()
}

pub(super) fn check_name(name: &str, what: &str) -> Result<(), Refusal> {
    if name.trim().is_empty()
        || name.len() > limits::DISPLAY_NAME
        || name.chars().any(char::is_control)
    {
        let most = limits::DISPLAY_NAME;
        return Err(format!(
            "a {what} name has 1 to {most} bytes and no control characters: choose another"
        ));
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), Refusal> {
    if text.is_empty() {
        return Err("a message cannot be empty: nothing was queued".to_owned());
    }
    if text.len() > limits::TEXT {
        let (length, most) = (text.len(), limits::TEXT);
        return Err(format!(
            "the message has {length} bytes and the most is {most}: nothing was queued; shorten it or send it as a file"
        ));
    }
    Ok(())
}
