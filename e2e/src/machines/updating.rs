//! Machines whose programs update themselves: what they are told, and what
//! serves there.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use sotto_service::Layout;
use sotto_service::readiness::Ready;

use super::Machines;
use crate::process::PATIENCE;
use crate::releases::{Releases, with_version};

/// Where releases are on a machine.
pub const SOURCE: &str = "/srv/releases";
const PROGRAMS: [&str; 2] = ["sotto-relay", "sotto-gateway"];

impl Machines {
    /// Has updates of a machine go faster, as with `systemctl edit`.
    ///
    /// # Errors
    /// When its disk says no.
    pub fn hurry(&self, number: u8) -> anyhow::Result<()> {
        for name in PROGRAMS {
            let own = "SOTTO_STAND_BY_SECONDS=1 SOTTO_SUCCESSOR_READY_SECONDS=20";
            let update = "SOTTO_UPDATE_PROBATION_SECONDS=3 SOTTO_UPDATE_READY_SECONDS=30";
            for (unit, variables) in [("", own), ("-update", update)] {
                let folder = format!("etc/systemd/system/{name}{unit}.service.d");
                let folder = self.disk(number).join(folder);
                fs::create_dir_all(&folder)?;
                let text = format!("[Service]\nEnvironment={variables}\n");
                fs::write(folder.join("hurry.conf"), text)?;
            }
        }
        Ok(())
    }

    /// The folder of releases of a machine, as it is seen from here.
    pub fn source(&self, number: u8) -> PathBuf {
        self.disk(number).join(SOURCE.trim_start_matches('/'))
    }

    /// Releases the programs that are sent under another version.
    ///
    /// # Errors
    /// When that is refused.
    pub fn release(
        &self,
        releases: &Releases,
        version: &str,
        names: &[&str],
    ) -> anyhow::Result<()> {
        let made = |name: &str| {
            let to = self.folder().join(format!("{name}-{version}"));
            with_version(&self.programs().join(name), version, &to).map(|()| to)
        };
        let files: Vec<_> = names
            .iter()
            .map(|name| made(name))
            .collect::<Result<_, _>>()?;
        let programs = names.iter().copied().zip(files.iter().map(|f| f.as_path()));
        let programs: Vec<_> = programs.collect();
        releases.publish(version, &programs)
    }

    /// Does what a timer does; for both at a time when both are named. Whether
    /// they went well.
    pub fn updates(&self, number: u8, names: &[&str]) -> bool {
        let units = names.iter().map(|name| format!("{name}-update.service"));
        let units: Vec<String> = units.collect();
        let start = format!("systemctl start {}", units.join(" "));
        self.on(number, &start).is_ok()
    }

    /// What the updates of a program say of themselves.
    ///
    /// # Errors
    /// When they do not.
    pub fn update_status(&self, number: u8, name: &str) -> anyhow::Result<Value> {
        let status = format!("{name} update --state /var/lib/sotto-update --json status");
        Ok(serde_json::from_str(&self.on(number, &status)?)?)
    }

    /// The server of a machine, as it is seen from here.
    pub fn layout(&self, number: u8) -> Layout {
        Layout::new(self.disk(number).join("srv/sotto"))
    }

    /// The main process of a unit, once that is the one that serves: a
    /// predecessor stands by for a moment.
    ///
    /// # Errors
    /// When it does not serve in the end.
    pub fn serving(&self, number: u8, name: &str) -> anyhow::Result<String> {
        let ready = match name {
            "sotto-relay" => self.layout(number).relay_ready(),
            _ => self.layout(number).gateway_ready(),
        };
        let began = Instant::now();
        loop {
            let main = self.on(number, &format!("systemctl show -p MainPID --value {name}"))?;
            let main = main.trim();
            if Ready::read(&ready).is_some_and(|ready| ready.pid.to_string() == main) {
                return Ok(main.to_owned());
            }
            ensure!(
                began.elapsed() < PATIENCE,
                "{name} does not serve on m{number}"
            );
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// The version that the process of a unit was started from, which is also
    /// what the next start would take.
    ///
    /// # Errors
    /// When it does not serve in the end, or another file would be started.
    pub fn runs(&self, number: u8, name: &str) -> anyhow::Result<String> {
        let pid = self.serving(number, name)?;
        let file = self.on(number, &format!("readlink /proc/{pid}/exe"))?;
        ensure!(
            file.trim() == format!("/usr/local/bin/{name}"),
            "m{number} runs {file}"
        );
        let said = self.on(number, &format!("/proc/{pid}/exe --version"))?;
        let version = said.trim().rsplit(' ').next();
        Ok(version.context("it does not say its version")?.to_owned())
    }

    /// What the doctor says of a machine's updates, as root: how bad, what is
    /// so, and what to do.
    ///
    /// # Errors
    /// When it says nothing.
    pub fn doctor_of_updates(&self, number: u8) -> anyhow::Result<Vec<Value>> {
        let doctor = self.disk(number).join("root/sotto");
        if !doctor.exists() {
            fs::copy(self.programs().join("sotto"), doctor)?;
        }
        // It ends with an error when anything of the machine is a problem.
        let said = self.on(number, "/root/sotto doctor --json --dir /srv/sotto || true")?;
        let lines = said.lines().map(serde_json::from_str::<Value>);
        let lines: Vec<Value> = lines.collect::<Result<_, _>>()?;
        let updates = |line: &Value| line.get("check").is_some_and(|check| check == "updates");
        let found: Vec<Value> = lines.into_iter().filter(updates).collect();
        ensure!(!found.is_empty(), "the doctor says nothing of updates");
        Ok(found)
    }
}
