//! This device: its folder opened, its session running, and what it reports
//! while a command waits.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::json;
use sotto_client_core::engine::{FindRoomError, RoomSummary};
use sotto_client_core::io::{Command, Event};
use sotto_client_native::clock::Clock;
use sotto_client_native::home::{Home, Opened};
use sotto_client_native::session::{CommandError, Notice, Session};
use sotto_proto::refusals::Refusal;
use sotto_proto::wire::directory_event::Body;
use sotto_proto::{DeviceId, RoomId, UserName, wire};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::advice;
use crate::arguments::Global;
use crate::commands::admin::entry;
use crate::output::Output;
use crate::secrets::Secret;

/// The server was not there; nothing is lost.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Away(pub String);

/// What every command works with.
pub struct Context {
    pub global: Global,
    pub output: Output,
    pub clock: Clock,
    pub home: Home,
}

impl Context {
    pub fn new(global: Global, output: Output) -> anyhow::Result<Self> {
        let directory = match &global.dir {
            Some(directory) => directory.clone(),
            None => data_directory("sotto")?,
        };
        Ok(Self {
            output,
            clock: Clock::from_environment(),
            home: Home::new(directory),
            global,
        })
    }

    pub fn passphrase(&self) -> Secret<'_> {
        Secret::passphrase(self.global.passphrase_file.as_deref())
    }

    pub fn password(&self) -> Secret<'_> {
        Secret::password(self.global.password_file.as_deref())
    }

    /// Opens the folder; nothing touches the network yet.
    pub fn open(&self) -> anyhow::Result<Device> {
        self.home.check_occupied()?;
        let passphrase = self.passphrase().ask()?;
        self.start(self.home.open(&passphrase)?)
    }

    pub fn start(&self, opened: Opened) -> anyhow::Result<Device> {
        let (session, notices) = Session::start(opened, self.clock)?;
        let reports = Reports {
            output: self.output,
            notices,
            online: None,
            requests: 0,
            held: None,
        };
        Ok(Device {
            session,
            reports,
            output: self.output,
            wait: self.global.wait,
        })
    }
}

/// A device at work.
pub struct Device {
    pub session: Session,
    pub reports: Reports,
    output: Output,
    wait: Duration,
}

impl Device {
    /// The room that a person names; one that is not here may be one that this
    /// device was invited to since it last looked.
    pub async fn room(&mut self, name: &str) -> anyhow::Result<RoomSummary> {
        match self.find_room(name).await? {
            Ok(room) => Ok(room),
            Err(unknown @ FindRoomError::Unknown(_)) => {
                let looked = self.settle("Looking for the room").await;
                looked.map_err(|_| unknown)?;
                Ok(self.find_room(name).await??)
            }
            Err(ambiguous) => Err(ambiguous.into()),
        }
    }

    async fn find_room(&self, name: &str) -> anyhow::Result<Result<RoomSummary, FindRoomError>> {
        let text = name.to_owned();
        let found = self.session.look(move |engine, _| {
            let room = engine.find_room(&text)?;
            let rooms = engine.rooms();
            let found = rooms.into_iter().find(|summary| summary.room == room);
            found.ok_or(FindRoomError::Unknown(text))
        });
        Ok(found.await?)
    }

    /// Gives a command that needs the server, and waits until it is done and
    /// all that follows from it, too; the room that it made or changed.
    pub async fn carry_out(
        &mut self,
        what: &str,
        command: Command,
    ) -> anyhow::Result<Option<RoomId>> {
        let Self {
            session,
            reports,
            output,
            wait,
        } = self;
        session.go_online().await;
        let mut running = session.command(command).await;
        let carried_out = async {
            let room = running.done().await?;
            session.settled().await?;
            anyhow::Ok(room)
        };
        let deadline = Instant::now() + *wait;
        match output
            .patiently(what, reports.until(deadline, carried_out))
            .await?
        {
            Some(room) => room,
            None => Err(reports.away("this is remembered and goes on with the next command")),
        }
    }

    /// Waits until everything new is here and everything queued is sent. What
    /// the server refuses until somebody makes room is not waited for: then
    /// this fails when all else is done.
    pub async fn settle(&mut self, what: &str) -> anyhow::Result<()> {
        let Self {
            session,
            reports,
            output,
            wait,
        } = self;
        session.go_online().await;
        let deadline = Instant::now() + *wait;
        let settled = reports.until(deadline, session.settled());
        match output.patiently(what, settled).await? {
            Some(settled) => {
                settled?;
                let refused = session.look(|engine, _| engine.held_for_space().cloned());
                match refused.await? {
                    Some(refusal) => Err(CommandError::Held(refusal).into()),
                    None => Ok(()),
                }
            }
            None => Err(match reports.held.take() {
                Some(refusal) => CommandError::Held(refusal).into(),
                None => reports.away("what is queued stays queued"),
            }),
        }
    }
}

/// What the device reports while something else is waited for.
pub struct Reports {
    output: Output,
    notices: mpsc::UnboundedReceiver<Notice>,
    /// Whether messages flow; at first nobody knows.
    online: Option<Result<(), String>>,
    /// Catch-up requests so far.
    pub requests: u32,
    /// What the server does not take for now, and why.
    held: Option<Refusal>,
}

/// What a command may react to.
pub enum Report {
    /// Own entries up to this counter are durable at the server.
    Sent { room: RoomId, through: u64 },
    /// A room's history has grown.
    Received { room: RoomId },
    /// Somebody is there, or not any more.
    Presence {
        room: RoomId,
        user: UserName,
        device: DeviceId,
        here: bool,
    },
    /// Everything else was dealt with.
    Other,
}

impl Reports {
    /// Drives `future` and deals with what is reported meanwhile.
    pub async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> anyhow::Result<T> {
        tokio::pin!(future);
        loop {
            tokio::select! {
                biased;
                report = self.next() => {
                    report?;
                }
                result = &mut future => return Ok(result),
            }
        }
    }

    /// The same; `None` when the time is over first.
    pub async fn until<T>(
        &mut self,
        deadline: Instant,
        future: impl Future<Output = T>,
    ) -> anyhow::Result<Option<T>> {
        let result = self.meanwhile(timeout_at(deadline, future)).await?;
        Ok(result.ok())
    }

    /// The next report; an error when the device cannot go on.
    pub async fn next(&mut self) -> anyhow::Result<Report> {
        let Some(notice) = self.notices.recv().await else {
            bail!("sotto has stopped working: run the command again");
        };
        match notice {
            Notice::Online => self.link_changed(Ok(()))?,
            Notice::Offline { reason } => self.link_changed(Err(reason))?,
            Notice::Withheld { room, needed } => {
                self.output.say_json(&json!({
                    "event": "withheld", "room": room, "missing": advice::json(&needed),
                }))?;
                let lines = advice::lines(&needed).join("; ");
                self.output.note(format_args!(
                    "Room {room} is closed to this device: {lines}."
                ));
            }
            Notice::StoreFailed { reason } => return Err(anyhow!(reason)),
            Notice::Event(event) => return self.event(event),
        }
        Ok(Report::Other)
    }

    fn event(&mut self, event: Event) -> anyhow::Result<Report> {
        match event {
            Event::Sent { room, through } => {
                self.held = None;
                return Ok(Report::Sent { room, through });
            }
            Event::Received { room, .. } => return Ok(Report::Received { room }),
            Event::CaughtUp { requests } => self.requests += requests,
            Event::IdentityChanged { user } => self.output.say(
                &json!({ "event": "identity_changed", "user": user }),
                format_args!(
                    "WARNING: the identity of {user} is not the one seen before. Nothing is shared \
                     with the new one. Ask {user} in person, and your administrator, what happened."
                ),
            )?,
            Event::Missing {
                room,
                user,
                device,
                from,
                through,
            } => self.output.say_json(&json!({
                "event": "missing", "room": room, "user": user, "device": device,
                "from": from, "through": through,
            }))?,
            Event::Contradicted {
                room,
                user,
                device,
                counter,
            } => self.output.say_json(&json!({
                "event": "contradicted", "room": room, "user": user, "device": device,
                "counter": counter,
            }))?,
            Event::Rewound {
                room,
                last_sequence,
            } => self.output.say_json(&json!({
                "event": "rewound", "room": room, "last_sequence": last_sequence,
            }))?,
            Event::Presence {
                room,
                user,
                device,
                here,
            } => {
                return Ok(Report::Presence {
                    room,
                    user,
                    device,
                    here,
                });
            }
            Event::Held { room, refusal } => {
                self.output.say_json(&json!({
                    "event": "held", "room": room, "code": refusal.code(),
                    "reason": refusal.to_string(),
                }))?;
                self.output.note(&refusal);
                self.held = Some(refusal);
            }
            Event::Skipped {
                room,
                sequence,
                reason,
            } => {
                self.output.say_json(&json!({
                    "event": "skipped", "room": room, "sequence": sequence, "reason": reason,
                }))?;
                self.output.note(format_args!(
                    "message {sequence} of room {room} cannot be shown: {reason}"
                ));
            }
            Event::Intervened { index, at, what } => {
                let entry = wire::DirectoryEvent {
                    index,
                    at_ms: at.0,
                    body: Some(Body::OperatorIntervened(what)),
                    ..wire::DirectoryEvent::default()
                };
                let mut json = entry::fields(&entry);
                json.insert("event".to_owned(), "intervened".into());
                let what = entry::line(&entry);
                self.output
                    .say(&json.into(), format_args!("WARNING: {what}"))?;
            }
            Event::Joined { room } => {
                self.output
                    .say_json(&json!({ "event": "joined", "room": room }))?;
            }
            Event::Removed { room } => {
                let json = json!({ "event": "removed", "room": room });
                self.output
                    .say(&json, format_args!("You are no longer in room {room}."))?;
            }
            // Answers to commands come another way.
            Event::Done { .. }
            | Event::Failed { .. }
            | Event::Queued { .. }
            | Event::UploadBegun { .. } => {}
        }
        Ok(Report::Other)
    }

    /// Tells it only when it is news.
    fn link_changed(&mut self, online: Result<(), String>) -> anyhow::Result<()> {
        let is_news = match (&self.online, &online) {
            (None, Ok(())) => false,
            (Some(before), now) => before.is_ok() != now.is_ok(),
            (None, Err(_)) => true,
        };
        if is_news {
            match &online {
                Ok(()) => {
                    self.output.say_json(&json!({ "event": "online" }))?;
                    self.output.note("Connected again.");
                }
                Err(reason) => {
                    self.output
                        .say_json(&json!({ "event": "offline", "reason": reason }))?;
                    self.output.note(format_args!("Not connected: {reason}."));
                }
            }
        }
        self.online = Some(online);
        Ok(())
    }

    /// Whether messages flow now.
    pub fn is_online(&self) -> bool {
        matches!(self.online, Some(Ok(())))
    }

    /// The error of a command whose time is over.
    pub fn away(&self, consequence: &str) -> anyhow::Error {
        let text = match &self.online {
            Some(Ok(())) => {
                format!("the server has not answered everything in time: {consequence}")
            }
            Some(Err(reason)) => format!("{reason}; {consequence}"),
            None => {
                format!("the server has not answered in time: check the network; {consequence}")
            }
        };
        Away(text).into()
    }
}

/// Where a folder of this name is when nothing else is said.
pub fn data_directory(name: &str) -> anyhow::Result<std::path::PathBuf> {
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let home = home.context("there is no home directory: choose a folder with --dir")?;
    Ok(home.join(".local/share").join(name))
}
