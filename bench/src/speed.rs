//! Messages and files through the whole product, beside raw NATS on the same
//! machine in the same run, with the same `sync_interval: always`. Runs of one
//! and the other take turns, and medians are compared.

mod aggregate;
mod burst;
mod catch_up;
mod fan_out;
mod file;
mod idle;
mod latency;
mod raw;
mod stage;

use std::num::NonZeroU8;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::figures::{Figures, Goal};
use stage::Stage;

/// Bytes of a message.
const TEXT: usize = 1_024;

/// How much is measured.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
    /// What to measure; without it, everything.
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Runs of each, of which the median counts.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Messages of a burst.
    #[arg(long, default_value_t = 20_000)]
    messages: usize,
    /// Senders at a time, each in a room of their own.
    #[arg(long, default_value_t = 100)]
    senders: usize,
    /// Listeners of the largest room.
    #[arg(long, default_value_t = 1_000)]
    listeners: usize,
    /// Messages of a catch-up.
    #[arg(long, default_value_t = 100_000)]
    backlog: usize,
    /// Rooms that these are spread over.
    #[arg(long, default_value_t = 50)]
    backlog_rooms: usize,
    /// MiB of the file.
    #[arg(long, default_value_t = 1_024)]
    file_mib: u64,
    /// Machines of the server, all of them this one.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Streams that the rooms are spread over.
    #[arg(long, default_value_t = NonZeroU8::MIN)]
    shards: NonZeroU8,
    /// Idle connections.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One sender to one receiver.
    Burst,
    /// Many senders, each in a room of their own.
    Aggregate,
    /// One sender to many listeners.
    FanOut,
    /// From send to shown.
    Latency,
    /// A device that was away.
    CatchUp,
    /// A large file, up and down.
    File,
    /// Connections that say nothing.
    Idle,
}

/// Measures what `load` asks for.
pub(crate) async fn measure(load: &Load, figures: &mut Figures) -> anyhow::Result<()> {
    let mut stage = Stage::set(load.nodes, load.shards)?;
    let all = [
        Part::Burst,
        Part::Latency,
        Part::FanOut,
        Part::CatchUp,
        Part::File,
        Part::Aggregate,
        Part::Idle,
    ];
    let asked = |part: &Part| load.parts.is_empty() || load.parts.contains(part);
    for part in all.into_iter().filter(asked) {
        match part {
            Part::Burst => burst::measure(&mut stage, load, figures).await?,
            Part::Aggregate => aggregate::measure(&mut stage, load, figures).await?,
            Part::FanOut => fan_out::measure(&mut stage, load, figures).await?,
            Part::Latency => latency::measure(&mut stage, load, figures).await?,
            Part::CatchUp => catch_up::measure(&mut stage, load, figures).await?,
            Part::File => file::measure(&mut stage, load, figures).await?,
            Part::Idle => idle::measure(&mut stage, load, figures).await?,
        }
    }
    Ok(())
}

/// Runs of the product and of raw NATS, in turns.
#[derive(Debug, Default)]
struct Turns {
    ours: Vec<f64>,
    raw: Vec<f64>,
}

impl Turns {
    /// Notes both medians and their ratio, for which `goal` is the least.
    fn note(mut self, what: &str, unit: &'static str, goal: f64, figures: &mut Figures) {
        let (ours, raw) = (median(&mut self.ours), median(&mut self.raw));
        figures.note(format!("{what}: sotto"), ours, unit, None);
        figures.note(format!("{what}: raw NATS"), raw, unit, None);
        let goal = Some(Goal::AtLeast(goal));
        figures.note(format!("{what}: ratio"), ours / raw, "", goal);
    }
}

fn median(runs: &mut [f64]) -> f64 {
    runs.sort_unstable_by(f64::total_cmp);
    runs.get(runs.len() / 2).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::cast_precision_loss, reason = "some millions")]
fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// A text of [`TEXT`] bytes that is unlike the others.
fn text(number: usize) -> String {
    format!("{number:0width$}", width = TEXT)
}
