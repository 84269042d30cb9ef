//! A device driven through the client's library, for what would take too long
//! as a process each.

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
    tls::install_provider();
    let room: RoomId = room.parse()?;
    let opened = Home::new(person.dir()).open(person.password())?;
    let runtime = tokio::runtime::Runtime::new().context("starting tokio")?;
    runtime.block_on(async {
        let (session, mut notices) = Session::start(opened, Clock::default())?;
        // They are many, and nobody reads them.
        let drain = tokio::spawn(async move { while notices.recv().await.is_some() {} });
        session.go_online().await;
        session.settled().await?;
        for number in 0..count {
            let texts = vec![format!("text {number:05}")];
            let command = Command::SendTexts { room, texts };
            session.command(command).await.done().await?;
        }
        session.stop().await;
        drain.await.context("reading notices")
    })
}
