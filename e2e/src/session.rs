//! A device driven through the client's library, for what would take too long
//! as a process each.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context;
use sotto_client_core::io::Command;
use sotto_client_native::clock::Clock;
use sotto_client_native::home::Home;
use sotto_client_native::session::Session;
use sotto_client_native::tls;
use sotto_proto::RoomId;

use crate::person::Person;

/// Sends so many texts, each once the one before is acknowledged, so that each
/// is a frame of its own.
///
/// # Errors
/// When the folder does not open, or a text is not sent.
pub fn send_one_by_one(person: &Person, room: &str, count: usize) -> anyhow::Result<()> {
    let room: RoomId = room.parse()?;
    online(person, async |session| {
        for number in 0..count {
            let texts = vec![format!("text {number:05}")];
            let command = Command::SendTexts { room, texts };
            session.command(command).await.done().await?;
        }
        Ok(())
    })
}

/// Does something with a device that is online and has heard all there is.
///
/// # Errors
/// When the folder does not open, or that fails.
pub fn online<T>(
    person: &Person,
    work: impl AsyncFnOnce(&Session) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    tls::install_provider();
    let opened = Home::new(person.dir()).open(person.password())?;
    let runtime = tokio::runtime::Runtime::new().context("starting tokio")?;
    runtime.block_on(async {
        let (session, mut notices) = Session::start(opened, Clock::default())?;
        // They are many, and nobody reads them.
        let drain = tokio::spawn(async move { while notices.recv().await.is_some() {} });
        session.go_online().await;
        session.settled().await?;
        let done = work(&session).await?;
        session.stop().await;
        drain.await.context("reading notices")?;
        Ok(done)
    })
}

/// Somebody who goes on saying things.
#[derive(Debug)]
pub struct Saying {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Vec<String>>>,
}

impl Saying {
    /// Begins, with one text after the other.
    ///
    /// # Errors
    /// When the room is none.
    pub fn start(person: &Person, room: &str) -> anyhow::Result<Self> {
        tls::install_provider();
        let (person, room) = (person.clone(), room.parse()?);
        let stop = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&stop);
        let thread = thread::spawn(move || say(&person, room, &until));
        Ok(Self { stop, thread })
    }

    /// Ends it; what was said and acknowledged.
    ///
    /// # Errors
    /// When something was not.
    pub fn stop(self) -> anyhow::Result<Vec<String>> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow::anyhow!("the thread panicked"))?
    }
}

fn say(person: &Person, room: RoomId, stop: &AtomicBool) -> anyhow::Result<Vec<String>> {
    online(person, async |session| {
        let mut said = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let text = format!("said {:05}", said.len());
            let texts = vec![text.clone()];
            let command = Command::SendTexts { room, texts };
            session.command(command).await.done().await?;
            said.push(text);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(said)
    })
}
