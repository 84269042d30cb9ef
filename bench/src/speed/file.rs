//! A large file, up by one device and down by another, beside messages of half
//! a MiB. All are processes of their own, whose memory is looked at: it is the
//! same for a file of any length.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;
use sotto_e2e::person::Person;
use tokio::task::block_in_place;

use super::raw::Raw;
use super::stage::{Stage, memory_mib};
use super::{Load, Turns, median};
use crate::figures::Figures;

/// A chunk, in bytes.
const CHUNK: usize = 512 * 1024;

/// Chunks that wait for their acknowledgement, or their answer, at a time.
const OUTSTANDING: usize = 16;

pub(super) async fn measure(
    stage: &mut Stage,
    load: &Load,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let folder = stage.folder().join("files");
    fs::create_dir_all(&folder)?;
    let (name, reader) = stage.person()?;
    let room = stage.room.clone();
    block_in_place(|| {
        stage.alice.does(&["room", "invite", &room, &name])?;
        reader.does(&["sync"])
    })?;
    let chunks = usize::try_from(load.file_mib * 2)?;
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let mib = load.file_mib as f64;
    let (mut up, mut down) = (Turns::default(), Turns::default());
    let mut peaks = Peaks::default();
    let [relay, nats] = ["sotto-relay", "nats-server"].map(|name| stage.process(name));
    let servers = [("relay", relay?), ("nats-server", nats?)];
    for run in 0..load.runs {
        let file = folder.join(format!("file{run}"));
        write(&file, load.file_mib, run as u64)?;
        let path = file.display().to_string();
        let wait = ["--wait", "600"];
        let sends = [&wait[..], &["send", &room, "--file", &path]].concat();
        servers.iter().try_for_each(|(_, pid)| forget_peak(pid))?;
        let (took, peak) = block_in_place(|| watch(&stage.alice, &sends))?;
        up.ours.push(mib / took.as_secs_f64());
        peaks.note("up", "sender", peak);
        peaks.note_servers("up", &servers)?;
        block_in_place(|| reader.does(&["sync"]))?;
        let target = folder.join("copy").display().to_string();
        let name = format!("file{run}");
        let gets = [&wait[..], &["files", "get", &room, &name, "-o", &target]].concat();
        servers.iter().try_for_each(|(_, pid)| forget_peak(pid))?;
        let (took, peak) = block_in_place(|| watch(&reader, &gets))?;
        down.ours.push(mib / took.as_secs_f64());
        peaks.note("down", "receiver", peak);
        peaks.note_servers("down", &servers)?;
        fs::remove_file(&target)?;
        fs::remove_file(&file)?;

        let raw = Raw::start(1).await?;
        let took = raw.publish_sized(chunks, CHUNK, OUTSTANDING).await?;
        up.raw.push(mib / took.as_secs_f64());
        let began = Instant::now();
        read(&raw, chunks).await?;
        down.raw.push(mib / began.elapsed().as_secs_f64());
    }
    let what = format!("file of {} MiB", load.file_mib);
    up.note(&format!("{what}, up"), "MiB/s", 0.8, figures);
    down.note(&format!("{what}, down"), "MiB/s", 0.8, figures);
    for ((way, who), mut peaks) in peaks.0 {
        let what = format!("{what}, {way}: peak memory of the {who}");
        figures.note(what, median(&mut peaks), "MiB", None);
    }
    Ok(())
}

/// The most memory that each program held, in MiB, of each run.
#[derive(Default)]
struct Peaks(BTreeMap<(&'static str, &'static str), Vec<f64>>);

impl Peaks {
    fn note(&mut self, way: &'static str, who: &'static str, mib: f64) {
        self.0.entry((way, who)).or_default().push(mib);
    }

    fn note_servers(
        &mut self,
        way: &'static str,
        servers: &[(&'static str, String)],
    ) -> anyhow::Result<()> {
        for (who, pid) in servers {
            self.note(way, who, memory_mib(pid, "VmHWM")?);
        }
        Ok(())
    }
}

/// From now on the peak is of what comes (proc(5), `clear_refs`).
fn forget_peak(pid: &str) -> anyhow::Result<()> {
    Ok(fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

fn write(path: &Path, mib: u64, seed: u64) -> anyhow::Result<()> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut file = BufWriter::new(fs::File::create(path)?);
    let mut block = vec![0; 1024 * 1024];
    for _ in 0..mib {
        rng.fill_bytes(&mut block);
        file.write_all(&block)?;
    }
    Ok(file.flush()?)
}

/// Runs a command; how long it took, and the most memory that it held, in MiB.
fn watch(person: &Person, arguments: &[&str]) -> anyhow::Result<(Duration, f64)> {
    let began = Instant::now();
    let mut running = person.starts(arguments, None)?;
    let pid = running.pid()?.as_raw_nonzero().to_string();
    let mut peak: f64 = 0.0;
    loop {
        // It is gone when it has ended.
        match memory_mib(&pid, "VmHWM") {
            Ok(memory) => peak = peak.max(memory),
            Err(_) => break,
        }
        let done = running.seen().iter().any(|line| line.get("done").is_some());
        if done {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    running.finish()?.success()?;
    Ok((began.elapsed(), peak))
}

async fn read(raw: &Raw, chunks: usize) -> anyhow::Result<()> {
    let js = jetstream::new(raw.connect().await?);
    let stream = &js.get_stream("RAW-0").await?;
    let gets = (1..=chunks as u64).map(|sequence| stream.direct_get(sequence));
    let mut gets = futures::StreamExt::buffered(futures::stream::iter(gets), OUTSTANDING);
    while let Some(got) = futures::StreamExt::next(&mut gets).await {
        got?;
    }
    Ok(())
}
