//! Memory, and how many files and connections a program may have open.

use procfs::process::{LimitValue, Process};
use procfs::{Current, Meminfo};

use crate::finding::{Check, Finding};
use crate::server::Server;

/// Connections and files that a server soon has: what is below is spoken of.
const FILES: u64 = 4_096;
/// With less it does not even serve a small organisation.
const FILES_MIN: u64 = 512;
/// Free memory below which something will be slow, and below which programs
/// are killed, in bytes.
const MEMORY: u64 = 256 * 1024 * 1024;
const MEMORY_MIN: u64 = 64 * 1024 * 1024;
/// What our units give.
const ADVICE: &str = "run it by its systemd unit (`sotto-relay unit`, `sotto-gateway unit`), which allows 65536, or say `ulimit -n 65536` before you start it";

/// Looks at the machine, and at each program that runs; else at what a program
/// would have that is started from here.
pub(crate) fn check(server: &Server) -> Vec<Finding> {
    let mut findings = vec![memory()];
    let running: Vec<_> = server.programs.named().collect();
    for (name, program) in &running {
        let files = Process::new(program.pid)
            .ok()
            .and_then(|process| soft(&process));
        findings.push(match files {
            Some(files) => judge_files(name, files),
            None => Finding::not_checked(
                Check::Memory,
                format!("only its user can see how many files {name} may open"),
                "run this as the user that the server runs as, or as root",
            ),
        });
    }
    if running.is_empty() {
        let files = Process::myself().ok().and_then(|process| soft(&process));
        findings.extend(files.map(|files| judge_files("what is started from here", files)));
    }
    findings
}

/// How many files a process may have open; the greatest number for no limit.
fn soft(process: &Process) -> Option<u64> {
    match process.limits().ok()?.max_open_files.soft_limit {
        LimitValue::Unlimited => Some(u64::MAX),
        LimitValue::Value(files) => Some(files),
    }
}

fn judge_files(name: &str, files: u64) -> Finding {
    let what = match files {
        u64::MAX => format!("{name} may open any number of files and connections"),
        files => format!("{name} may open {files} files and connections"),
    };
    if files < FILES_MIN {
        return Finding::problem(Check::Memory, what, ADVICE);
    }
    match files < FILES {
        true => Finding::warning(Check::Memory, what, ADVICE),
        false => Finding::ok(Check::Memory, what),
    }
}

fn memory() -> Finding {
    let told = Meminfo::current().ok();
    match told.and_then(|memory| Some((memory.mem_available?, memory.mem_total))) {
        Some((available, total)) => judge_memory(available, total),
        None => Finding::not_checked(
            Check::Memory,
            "/proc/meminfo does not say how much memory is available",
            "look with `free -m` instead",
        ),
    }
}

fn judge_memory(available: u64, total: u64) -> Finding {
    let megabytes = |bytes: u64| bytes / 1_000_000;
    let what = format!(
        "{} MB of {} MB of memory are available",
        megabytes(available),
        megabytes(total)
    );
    if available < MEMORY_MIN {
        let advice = "stop what else runs here, or give the machine more memory: programs are about to be killed";
        return Finding::problem(Check::Memory, what, advice);
    }
    match available < MEMORY {
        true => Finding::warning(
            Check::Memory,
            what,
            "stop what else runs here, or give the machine more memory",
        ),
        false => Finding::ok(Check::Memory, what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    #[test]
    fn few_files_are_spoken_of() {
        for (files, level) in [
            (256, Level::Problem),
            (1_024, Level::Warning),
            (4_096, Level::Ok),
            (u64::MAX, Level::Ok),
        ] {
            assert_eq!(judge_files("sotto-relay", files).level, level, "{files}");
        }
        let advice = judge_files("sotto-relay", 1_024).advice.unwrap();
        assert!(advice.contains("ulimit -n 65536"));
    }

    #[test]
    fn little_memory_is_spoken_of() {
        let megabyte = 1024 * 1024;
        for (available, level) in [
            (4_000, Level::Ok),
            (256, Level::Ok),
            (255, Level::Warning),
            (63, Level::Problem),
        ] {
            let finding = judge_memory(available * megabyte, 8_000 * megabyte);
            assert_eq!(finding.level, level, "{available}");
        }
    }

    #[test]
    fn this_process_has_limits() {
        assert!(soft(&Process::myself().unwrap()).unwrap() > 0);
        assert_ne!(memory().level, Level::NotChecked);
    }
}
