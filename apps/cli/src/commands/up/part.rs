//! One process of a private server: started, watched, started again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use serde_json::json;
use sotto_service::readiness::Ready;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::output::Output;

/// How long a process may take until it serves.
const START: Duration = Duration::from_secs(60);
/// How long it may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(20);
/// How often the ready file is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// The longest pause before a process is started again.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// The pauses before that.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(100))
    .with_max_delay(PAUSE_MAX)
    .without_max_times();
/// What ran this long was no failure to start.
const CALM: Duration = Duration::from_secs(30);

/// A process that is to run.
pub struct Part {
    name: &'static str,
    program: PathBuf,
    server: PathBuf,
    ready_file: PathBuf,
    child: Option<Child>,
    /// Held as long as it is to run: waiting for a child closes its own.
    lifeline: Option<ChildStdin>,
}

impl Part {
    pub fn new(name: &'static str, program: PathBuf, server: &Path, ready_file: PathBuf) -> Self {
        Self {
            name,
            program,
            server: server.to_owned(),
            ready_file,
            child: None,
            lifeline: None,
        }
    }

    /// Starts it. It stops by itself when this process is gone: its standard
    /// input ends then.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let child = Command::new(&self.program)
            .arg("run")
            .arg("--dir")
            .arg(&self.server)
            .arg("--exit-with-parent")
            .env(
                "SOTTO_LOG",
                std::env::var("SOTTO_LOG").unwrap_or("warn".to_owned()),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // Ctrl-C is for this process, which stops the others in order.
            .process_group(0)
            .spawn();
        let mut child =
            child.with_context(|| format!("cannot start {}", self.program.display()))?;
        self.lifeline = child.stdin.take();
        self.child = Some(child);
        Ok(())
    }

    /// Waits until it says that it serves.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START;
        let child = self.child.as_mut().context("it was not started")?;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait()? {
                bail!("the {} ended ({status}): see above", self.name);
            }
            let ready = Ready::read(&self.ready_file);
            if ready.is_some_and(|ready| Some(ready.pid) == child.id()) {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        bail!(
            "the {} does not serve after {} s",
            self.name,
            START.as_secs()
        )
    }

    /// Starts it again whenever it ends.
    pub async fn keep(&mut self, output: Output) -> anyhow::Result<()> {
        let mut pauses = PAUSES.build();
        loop {
            let began = Instant::now();
            let child = self.child.as_mut().context("it was not started")?;
            let status = child.wait().await?;
            if began.elapsed() > CALM {
                pauses = PAUSES.build();
            }
            output.say(
                &json!({ "event": "restarting", "part": self.name, "status": status.to_string() }),
                format_args!("The {} ended ({status}): starting it again.", self.name),
            )?;
            sleep(pauses.next().unwrap_or(PAUSE_MAX)).await;
            self.start()?;
        }
    }

    /// Stops it.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        // The end of its standard input asks it to stop.
        drop(self.lifeline.take());
        if timeout(STOP, child.wait()).await.is_err() {
            child
                .kill()
                .await
                .with_context(|| format!("cannot stop the {}", self.name))?;
        }
        Ok(())
    }
}
