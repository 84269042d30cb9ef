//! What connections cost that say nothing.

use std::fs;
use std::time::Duration;

use sotto_e2e::tap::Crowd;
use sotto_e2e::traffic;
use sotto_service::ServerConfig;
use tokio::time::sleep;

use super::Load;
use super::stage::{Stage, memory_mib};
use crate::figures::Figures;

/// How long the idle server is watched.
const WATCH: Duration = Duration::from_secs(20);

pub(super) async fn measure(
    stage: &mut Stage,
    load: &Load,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let before = stage.cpu()?;
    sleep(WATCH).await;
    stage.cpu()?.note(before, WATCH, "idle server", figures);

    let org = "acme".parse()?;
    let layout = stage.layout()?.clone();
    let crowd = Crowd::new(&layout, &org)?;
    let nats = stage.process("nats-server")?;
    note_memory(stage, "without clients", figures)?;
    let memory = || anyhow::Ok((memory_mib(&nats, "VmRSS")?, memory_mib("self", "VmRSS")?));
    let (server_before, client_before) = memory()?;
    let mut connections = Vec::new();
    while connections.len() < load.connections {
        let client = crowd.hear().await?;
        // What a device subscribes to: replies, its inbox, and a room.
        let mut subscriptions = Vec::new();
        for subject in ["_INBOX.d.>", "live.inbox.d", "live.r.0.field.x.>"] {
            subscriptions.push(client.subscribe(subject).await?);
        }
        connections.push((client, subscriptions));
    }
    sleep(Duration::from_secs(2)).await;
    let (server, client) = memory()?;
    // A device has one to its gateway, too, for a while after it has asked.
    let gateway = ServerConfig::load(&layout)?.gateway.listen;
    let held = traffic::silent(&layout, &[gateway], connections.len()).await?;
    let when = format!("with {} clients", held.len());
    note_memory(stage, &when, figures)?;
    drop(held);
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let each = |mib: f64| mib * 1_024.0 / connections.len() as f64;
    let what = format!("of {} idle connections, each", connections.len());
    figures.note(
        format!("memory {what}: nats-server"),
        each(server - server_before),
        "KiB",
        None,
    );
    figures.note(
        format!("memory {what}: client"),
        each(client - client_before),
        "KiB",
        None,
    );
    let open = fs::read_dir(format!("/proc/{nats}/fd"))?.count();
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    figures.note(
        "files that nats-server has open then",
        open as f64,
        "",
        None,
    );
    Ok(())
}

/// Notes what each of the server's programs takes.
fn note_memory(stage: &Stage, when: &str, figures: &mut Figures) -> anyhow::Result<()> {
    for name in ["sotto-relay", "sotto-gateway", "nats-server"] {
        let memory = memory_mib(&stage.process(name)?, "VmRSS")?;
        figures.note(format!("memory {when}: {name}"), memory, "MiB", None);
    }
    Ok(())
}
