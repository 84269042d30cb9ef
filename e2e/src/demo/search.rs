//! Point 7 of the demo: what was said is with those who talk, and nowhere else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use sotto_e2e::markers::{Findings, Marker, Search};
use sotto_e2e::report::Report;

use crate::plaintexts::PASSWORD;
use crate::stage::Stage;

/// Searches the server, the tap and the devices' stores, and then the same
/// way what the devices decrypt.
pub async fn nowhere_else(mut stage: Stage, report: &mut Report) -> anyhow::Result<()> {
    report.step("7  20 plaintexts are searched everywhere");
    let decrypted = stage.decrypt_everything()?;
    let [org, devices] = stage.tap.recorded().await?;
    let stopped = stage.server.stop()?;
    report.check(
        "the server stops cleanly",
        stopped.status.success(),
        stopped.status,
    );
    let size = fs::metadata(&stage.file)?.len();
    let interruptions = stage.tap.org.gaps() + stage.tap.devices.gaps();
    report.check(
        "the taps have heard the file on its way in and on its way out",
        org.bytes > size && devices.bytes > size,
        format!(
            "{} and {} messages, {:.1} and {:.1} MB; interrupted {interruptions} times, when \
             nats-server was killed",
            org.messages,
            devices.messages,
            org.bytes as f64 / 1e6,
            devices.bytes as f64 / 1e6,
        ),
    );
    report.figure("tap_messages", org.messages + devices.messages);
    report.figure("tap_bytes", org.bytes + devices.bytes);
    report.figure("tap_interruptions", interruptions);
    report.figure("largest_nats_message", org.largest.0.max(devices.largest.0));

    let markers = stage.plaintexts.all();
    let search = Search::new(markers)?;
    let look = |path: &Path| -> anyhow::Result<Findings> {
        let mut findings = Findings::default();
        search.look_in(path, &mut findings)?;
        Ok(findings)
    };
    for (what, path) in [
        ("under the server's directory", stage.server.layout().root()),
        ("in what passed through NATS", stage.tap.folder()),
        (
            "in the stores of the devices",
            &stage.folder.join("devices"),
        ),
    ] {
        let findings = look(path)?;
        let clean = findings.hits.is_empty() && findings.bytes > 0;
        report.check(
            &format!("none of {} {what}", markers.len()),
            clean,
            describe(&findings, markers),
        );
    }

    let findings = look(&decrypted)?;
    let belong: BTreeSet<usize> = (0..markers.len())
        .filter(|&marker| marker != PASSWORD)
        .collect();
    let all = findings.markers() == belong;
    let what = format!(
        "the same search finds all {} that belong there",
        belong.len()
    );
    report.check(
        &format!("{what} in what was decrypted"),
        all,
        describe(&findings, markers),
    );
    Ok(())
}

fn describe(findings: &Findings, markers: &[Marker]) -> String {
    let Findings { files, bytes, hits } = findings;
    let searched = format!("{files} files, {:.1} MB", *bytes as f64 / 1e6);
    let names = hits.iter().filter_map(|hit| {
        let name = &markers.get(hit.marker)?.name;
        Some(format!("{name} in {}", hit.path.display()))
    });
    match hits.len() {
        0 => format!("{searched}: not found"),
        1..=3 => format!("{searched}: {}", names.collect::<Vec<_>>().join(", ")),
        _ => format!("{searched}: {} found", findings.markers().len()),
    }
}
