//! Real processes behind the gate: programs that crash, hang, end after a
//! while, and updaters that are killed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use semver::Version;
use sotto_update::slot::Guarded;
use sotto_update::{Bounds, Digest, Outcome, Service, Serving, Slot, gate};
use tempfile::TempDir;

/// Writes its process id when it is ready, and waits.
const SERVES: &str = "echo $$ > ready.new; mv ready.new ready; exec sleep 600";
const CRASHES: &str = "exit 1";
const HANGS: &str = "exec sleep 600";
const ENDS: &str = "echo $$ > ready.new; mv ready.new ready; sleep 0.3; exit 1";
/// Serves for longer than a probation without a part of it, and ends when that
/// is to come.
const ENDS_LATE: &str =
    "touch partial; echo $$ > ready.new; mv ready.new ready; sleep 1.5; rm partial; exit 1";
/// The same, where the part comes.
const COMPLETES: &str = "touch partial; echo $$ > ready.new; mv ready.new ready; sleep 1.5; \
                         rm partial; exec sleep 600";

const BOUNDS: Bounds = Bounds {
    ready: Duration::from_secs(2),
    probation: Duration::from_secs(1),
    look: Duration::from_millis(20),
};

struct Case {
    /// Removed when dropped.
    _folder: TempDir,
    slot: Slot,
    running: Running,
}

/// The program as a child of this process.
struct Running {
    folder: PathBuf,
    child: Option<Child>,
}

impl Case {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        write_program(&program, "0.1.0", SERVES);
        let slot = Slot::new(&program, &folder.path().join("state")).unwrap();
        let mut running = Running {
            folder: folder.path().to_owned(),
            child: None,
        };
        running.restart().unwrap();
        Self {
            _folder: folder,
            slot,
            running,
        }
    }

    fn stage(&self, script: &str) -> Digest {
        write_program(&self.slot.next(), "0.2.0", script);
        Digest::of_file(&self.slot.next()).unwrap().0
    }

    fn update(&mut self, script: &str) -> Outcome {
        let sum = self.stage(script);
        let versions = (&version("0.2.0"), &version("0.1.0"));
        gate::update(&self.slot, sum, versions, &mut self.running, BOUNDS).unwrap()
    }

    fn in_place(&self) -> String {
        let program = fs::read_to_string(self.slot.program()).unwrap();
        program.lines().nth(1).unwrap().to_owned()
    }
}

impl Service for Running {
    fn restart(&mut self) -> io::Result<()> {
        self.stop();
        let child = Command::new(self.folder.join("program"))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    fn ready(&mut self) -> Option<Serving> {
        let child = self.child.as_mut()?;
        if child.try_wait().ok()?.is_some() {
            return None;
        }
        let text = fs::read_to_string(self.folder.join("ready")).ok()?;
        (text.trim().parse() == Ok(child.id())).then_some(Serving {
            process: child.id(),
            is_partial: self.folder.join("partial").exists(),
        })
    }
}

impl Running {
    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn write_program(path: &Path, version: &str, script: &str) {
    fs::write(path, format!("#!/bin/sh\n# {version}\n{script}\n")).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_program_that_serves_is_kept() {
    let mut case = Case::new();
    assert_eq!(case.update(SERVES), Outcome::Confirmed(version("0.2.0")));
    assert_eq!(case.in_place(), "# 0.2.0");
    assert!(case.running.ready().is_some());
    assert_eq!(case.slot.guard().unwrap(), Guarded::Nothing);
}

#[test]
fn nothing_is_kept_before_all_of_it_serves() {
    let mut case = Case::new();
    assert_eq!(case.update(COMPLETES), Outcome::Confirmed(version("0.2.0")));
    // Its last part came when a probation would have been over.
    assert!(!case.running.folder.join("partial").exists());
}

#[test]
fn the_old_program_comes_back_and_serves_when_the_new_one_does_not() {
    for script in [CRASHES, HANGS, ENDS, ENDS_LATE] {
        let mut case = Case::new();
        let outcome = case.update(script);
        assert!(
            matches!(
                outcome,
                Outcome::Returned {
                    old_is_ready: true,
                    ..
                }
            ),
            "{script}: {outcome:?}"
        );
        assert_eq!(case.in_place(), "# 0.1.0");
        assert!(case.running.ready().is_some());
        let journal = case.slot.journal().read().unwrap();
        assert!(journal.has_failed(&version("0.2.0")), "{script}");
    }
}

#[test]
fn an_update_goes_on_when_the_updater_was_killed() {
    for (script, expected) in [(SERVES, "# 0.2.0"), (CRASHES, "# 0.1.0")] {
        let mut case = Case::new();
        let sum = case.stage(script);
        case.slot
            .activate(sum, &version("0.2.0"), &version("0.1.0"))
            .unwrap();
        case.running.restart().unwrap();
        // The updater is gone; the next one finds the journal.
        let outcome = gate::resume(&case.slot, &mut case.running, BOUNDS).unwrap();
        assert!(outcome.is_some());
        assert_eq!(case.in_place(), expected);
        assert!(case.running.ready().is_some());
        let again = gate::resume(&case.slot, &mut case.running, BOUNDS).unwrap();
        assert_eq!(again, None);
    }
}

#[test]
fn the_guard_alone_brings_the_old_program_back() {
    let mut case = Case::new();
    let sum = case.stage(CRASHES);
    case.slot
        .activate(sum, &version("0.2.0"), &version("0.1.0"))
        .unwrap();
    // As a supervisor does it, which knows nothing of updates.
    let started = (0..5).find(|_| {
        let _ = case.slot.guard().unwrap();
        case.running.restart().unwrap();
        (0..50).any(|_| {
            thread::sleep(Duration::from_millis(10));
            case.running.ready().is_some()
        })
    });
    assert_eq!(started, Some(2));
    assert_eq!(case.in_place(), "# 0.1.0");
}

/// Where the process that is to be killed finds its slot.
const VICTIM: &str = "SOTTO_UPDATE_TEST_VICTIM";

#[test]
fn killed_at_any_moment_there_is_a_whole_program() {
    if let Some(folder) = env::var_os(VICTIM) {
        updates_for_ever(Path::new(&folder));
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    let (old, new) = (vec![b'o'; 300_000], vec![b'n'; 500_000]);
    fs::write(&program, &old).unwrap();
    let slot = Slot::new(&program, &folder.path().join("state")).unwrap();
    let mut interrupted = 0;
    for round in 0..60 {
        let mut victim = Command::new(env::current_exe().unwrap())
            .args(["--exact", "killed_at_any_moment_there_is_a_whole_program"])
            .env(VICTIM, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !folder.path().join("began").exists() {
            thread::sleep(Duration::from_micros(200));
        }
        thread::sleep(Duration::from_micros(997 * round));
        victim.kill().unwrap();
        victim.wait().unwrap();
        fs::remove_file(folder.path().join("began")).unwrap();
        let content = fs::read(&program).unwrap();
        assert!(content == old || content == new, "round {round}");
        let journal = slot.journal().read().unwrap();
        interrupted += u32::from(journal.probation.is_some());
        // Whoever comes next gets it in order, to whichever end.
        if slot.recover().unwrap().is_some() {
            assert_eq!(fs::read(&program).unwrap(), new);
            assert_eq!(fs::read(slot.previous()).unwrap(), old);
            slot.back("it was killed").unwrap();
        }
        assert_eq!(fs::read(&program).unwrap(), old);
    }
    assert!(interrupted > 0, "it was never killed in the middle");
}

fn updates_for_ever(folder: &Path) -> ! {
    let slot = Slot::new(&folder.join("program"), &folder.join("state")).unwrap();
    let new = vec![b'n'; 500_000];
    fs::write(folder.join("began"), "").unwrap();
    loop {
        fs::write(slot.next(), &new).unwrap();
        let sum = Digest::of(&new);
        slot.activate(sum, &version("0.2.0"), &version("0.1.0"))
            .unwrap();
        slot.back("again").unwrap();
    }
}
