//! `sotto doctor`: what is wrong with the server in a directory, or would be
//! when it starts, and what to do about it. `sotto-doctor` looks and judges.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use serde_json::{Value, json};
use sotto_doctor::{Check, Finding, Level, examine};
use sotto_service::Layout;
use sotto_service::config::Sources;

use crate::arguments::Doctor;
use crate::device::Context;

/// Where a device's folder is named, which no server is in.
pub const DEVICE_VARIABLE: &str = "SOTTO_DIR";

pub async fn run(context: &Context, doctor: &Doctor) -> anyhow::Result<()> {
    let output = context.output;
    let device = env::var_os(DEVICE_VARIABLE).map(PathBuf::from);
    let directory = directory(doctor.dir.as_deref(), device.as_deref());
    let sources = Sources::new(directory, doctor.set.clone());
    let examining = Box::pin(examine(sources));
    let findings = output.patiently("Examining the server", examining).await;
    for finding in &findings {
        output.say(&fields(finding), line(finding))?;
    }
    let count = |level| findings.iter().filter(|found| found.level == level).count();
    let (problems, warnings) = (count(Level::Problem), count(Level::Warning));
    let not_checked = count(Level::NotChecked);
    let summary = json!({
        "event": "examined", "ok": count(Level::Ok), "warnings": warnings,
        "problems": problems, "not_checked": not_checked,
    });
    output.say_json(&summary)?;
    ensure!(
        problems == 0,
        "{}: do what is said above, and run this again",
        counted(problems, "problem")
    );
    output.note(format_args!(
        "No problem, {}, {} not checked.",
        counted(warnings, "warning"),
        counted(not_checked, "thing")
    ));
    Ok(())
}

/// The server's directory: what was named, else this one. A device's folder
/// that is named for all commands is not meant, unless a server is in it.
fn directory<'a>(named: Option<&'a Path>, device: Option<&Path>) -> &'a Path {
    let meant =
        named.filter(|named| Some(*named) != device || Layout::new(*named).is_initialised());
    meant.unwrap_or(Path::new("."))
}

fn fields(finding: &Finding) -> Value {
    json!({
        "event": "finding",
        "check": finding.check,
        "level": finding.level,
        "what": finding.what,
        "advice": finding.advice,
    })
}

/// The finding on one line, and what to do on the next.
fn line(finding: &Finding) -> String {
    let Finding {
        check,
        level,
        what,
        advice,
    } = finding;
    let because = match level {
        Level::NotChecked => "because: ",
        _ => "",
    };
    let mut line = columns(
        &level.to_string(),
        Some(*check),
        &format!("{because}{what}"),
    );
    if let Some(advice) = advice {
        line.push('\n');
        line.push_str(&columns("", None, &format!("-> {advice}")));
    }
    line
}

fn columns(level: &str, check: Option<Check>, text: &str) -> String {
    let check = check.map(|check| check.to_string()).unwrap_or_default();
    format!("{level:<11}  {check:<9}  {text}")
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_stands_below_what_is_wrong() {
        let wrong = Finding::problem(Check::Dns, "no name", "make one");
        assert_eq!(
            line(&wrong),
            "problem      dns        no name\n                        -> make one"
        );
        let fine = line(&Finding::ok(Check::Directory, "fine"));
        assert_eq!(fine, "ok           directory  fine");
        let unknown = line(&Finding::not_checked(Check::Nats, "it is off", "start it"));
        assert!(unknown.starts_with("not checked  nats       because: it is off"));
    }

    #[test]
    fn the_folder_of_a_device_is_not_a_server() {
        let folder = tempfile::tempdir().unwrap();
        let [device, server] = ["device", "server"].map(|name| folder.path().join(name));
        let here = Path::new(".");
        assert_eq!(directory(None, Some(&device)), here);
        assert_eq!(directory(Some(&device), Some(&device)), here);
        assert_eq!(directory(Some(&server), Some(&device)), server);
        std::fs::create_dir(&device).unwrap();
        std::fs::write(device.join("server.toml"), "").unwrap();
        assert_eq!(directory(Some(&device), Some(&device)), device);
    }
}
