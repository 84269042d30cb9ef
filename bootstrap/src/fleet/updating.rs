//! What lets a machine update itself, done there.

use serde::Deserialize;
use sotto_update::RootOfTrust;

use super::{MachineError, run};
use crate::facts::Role;
use crate::ssh::{Input, Ssh};
use crate::updates::Updates;
use crate::{AUTHORITIES, PROGRAMS_DIR, UPDATE_DIR, scripts};

/// Has a machine trust whoever releases.
pub(super) async fn pin(ssh: &Ssh, root: &RootOfTrust) -> Result<(), MachineError> {
    let fingerprint = root.fingerprint.to_string();
    let program = program(Role::Relay);
    let words = [program.as_str(), UPDATE_DIR, &fingerprint];
    let pinned = ssh.run(
        scripts::PIN_ROOT,
        &words,
        Input::Bytes(root.text.as_bytes()),
    );
    Ok(pinned.await.map(drop)?)
}

/// Has it know the source's certificate.
pub(super) async fn send_authorities(ssh: &Ssh, pem: &str) -> Result<(), MachineError> {
    let sent = ssh.run(
        scripts::RECEIVE_FILE,
        &[AUTHORITIES],
        Input::Bytes(pem.as_bytes()),
    );
    Ok(sent.await.map(drop)?)
}

/// Writes the unit that updates a program, and its timer.
pub(super) async fn write(
    ssh: &Ssh,
    dir: &str,
    updates: &Updates,
    role: Role,
) -> Result<(), MachineError> {
    let program = program(role);
    let file = |end: &str| format!("/etc/systemd/system/{}-update.{end}", role.program());
    let (service, timer) = (file("service"), file("timer"));
    let mut words = vec![service.as_str(), &program, "unit", "update", "--dir", dir];
    words.extend(["--update-dir", UPDATE_DIR]);
    words.extend(options(updates));
    run(ssh, scripts::WRITE_UNIT, &words).await?;
    let words = [timer.as_str(), &program, "unit", "timer", "--dir", dir];
    run(ssh, scripts::WRITE_UNIT, &words).await
}

/// Starts the timer, now and at every start of the machine; again, when its
/// unit was another before.
pub(super) async fn start(ssh: &Ssh, role: Role) -> Result<(), MachineError> {
    let timer = role.timer();
    run(ssh, scripts::START_UNIT, &[&timer, "restart"]).await
}

/// The newest release that it finds for its relay.
pub(super) async fn newest(ssh: &Ssh, updates: &Updates) -> Result<String, MachineError> {
    #[derive(Deserialize)]
    struct Checked {
        newest: String,
    }
    let program = program(Role::Relay);
    let mut words = vec![program.as_str(), "update", "--state", UPDATE_DIR];
    words.extend(["--json", "check"]);
    words.extend(options(updates));
    let said = ssh.run(scripts::AS_ROOT, &words, Input::Nothing).await?;
    let checked: Option<Checked> = serde_json::from_slice(&said).ok();
    let checked = checked.ok_or(MachineError::Answer("sotto-relay update check"))?;
    Ok(checked.newest)
}

/// How the programs there are told where releases are.
pub(super) fn options(updates: &Updates) -> Vec<&str> {
    let mut words = vec!["--source", &updates.source];
    if updates.authorities.is_some() {
        words.extend(["--ca-file", AUTHORITIES]);
    }
    words
}

fn program(role: Role) -> String {
    format!("{PROGRAMS_DIR}/{}", role.program())
}
