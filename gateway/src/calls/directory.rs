//! Administering an org: changing its directory, and reading the log.

use sotto_jwt_accounts::directory::{self, COMMANDS_MAX, Command, Event, Scope};
use sotto_jwt_accounts::policy::{self, Manage};
use sotto_proto::wire::{self, DirectoryChange, DirectoryChanged, DirectoryEntries, DirectoryRead};

use crate::caller::EnrolledDevice;
use crate::gateway::Gateway;
use crate::http::Serve;
use crate::refusal::Refusal;

/// Most that one answer holds of the log, in bytes.
const ENTRIES: usize = 512 * 1024;

impl Serve for DirectoryChange {
    type Caller = EnrolledDevice;

    /// Answered when it is durable and what it takes from anybody is in force
    /// at nats-server.
    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<DirectoryChanged, Refusal> {
        if !(1..=COMMANDS_MAX).contains(&self.commands.len()) {
            return Err(Refusal::malformed("number of commands"));
        }
        let commands = self.commands.into_iter().map(Command::try_from);
        let command = Command::All(commands.collect::<Result<_, _>>()?);
        gateway.provable().check_demands(&command)?;
        let (org, by, now_ms) = (&caller.org, caller.by(), gateway.now_ms());
        let (state, first, changes) = if self.dry_run {
            let state = org.newest().await?;
            let changes = directory::decide(&state, &by, command, now_ms)?;
            let first = state.head().length;
            (state, first, changes)
        } else {
            let appended = org.change(&by, command, now_ms).await?;
            org.is_in_force(appended.state.head().length).await?;
            (appended.state, appended.first, appended.changes)
        };
        let events = (first..).zip(changes).map(|(index, change)| {
            // Where it stands in the chain is for who reads the log.
            wire::DirectoryEvent::from(&Event {
                index,
                previous: None,
                at_ms: now_ms,
                actor: by.actor.clone(),
                change,
            })
        });
        Ok(DirectoryChanged {
            events: events.collect(),
            length: state.head().length,
        })
    }
}

impl Serve for DirectoryRead {
    type Caller = EnrolledDevice;

    async fn serve(
        self,
        gateway: &Gateway,
        caller: EnrolledDevice,
    ) -> Result<DirectoryEntries, Refusal> {
        let org = &caller.org;
        let state = org.newest().await?;
        let asking = caller.asking(gateway.now_ms());
        let _permit = policy::check(&state, asking, Manage, &Scope::Org)?;
        let max_bytes = usize::try_from(self.max_bytes)
            .unwrap_or(ENTRIES)
            .min(ENTRIES);
        let log = org.directory().log();
        let entries = log.entries(self.from, max_bytes).await;
        Ok(DirectoryEntries {
            entries: entries.map_err(Refusal::unavailable)?,
            length: state.head().length,
        })
    }
}
