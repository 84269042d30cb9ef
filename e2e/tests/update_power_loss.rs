//! A machine that loses power in the middle of an update has a whole program
//! afterwards, and knows which.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use semver::Version;
use sotto_e2e::mounts;
use sotto_faults::Disk;
use sotto_update::{Digest, Slot};

const TEST: &str = "without_power_at_any_moment_there_is_a_whole_program";
/// Where the process that is killed finds the disk.
const UPDATES: &str = "SOTTO_TEST_UPDATES_FOR_EVER";

#[test]
fn without_power_at_any_moment_there_is_a_whole_program() {
    if let Some(root) = env::var_os(UPDATES) {
        update_for_ever(Path::new(&root));
    }
    if !mounts::are_own(TEST).unwrap() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("disk");
    fs::create_dir(&root).unwrap();
    let disk = Disk::mount(&root).expect("FUSE, and leave to use it");
    let (old, new) = (vec![b'o'; 200_000], new());
    let program = root.join("program");
    fs::write(&program, &old).unwrap();
    fs::File::open(&program).unwrap().sync_all().unwrap();
    fs::File::open(&root).unwrap().sync_all().unwrap();
    let slot = Slot::new(&program, &root.join("state")).unwrap();
    fs::File::open(&root).unwrap().sync_all().unwrap();

    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut seen = [0; 2];
    for round in 0..40 {
        let mut updating = Command::new(env::current_exe().unwrap())
            .args(["--exact", TEST])
            .env(UPDATES, &root)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let began = folder.path().join("began");
        while !began.exists() {
            thread::sleep(Duration::from_micros(200));
        }
        thread::sleep(Duration::from_micros(rng.gen_range(0..60_000)));
        updating.kill().unwrap();
        updating.wait().unwrap();
        fs::remove_file(began).unwrap();
        // Some writes were on their way to the disk, others were not.
        disk.cut_power(|| rng.gen_bool(0.5));

        let content = fs::read(&program).unwrap();
        assert!(
            content == old || content == new,
            "round {round}: {}",
            content.len()
        );
        seen[usize::from(content == new)] += 1;
        if slot.recover().unwrap().is_some() {
            assert_eq!(fs::read(&program).unwrap(), new);
            slot.back("there was no power").unwrap();
        }
        assert_eq!(fs::read(&program).unwrap(), old, "round {round}");
    }
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
}

/// Until it is killed.
fn update_for_ever(root: &Path) -> ! {
    let slot = Slot::new(&root.join("program"), &root.join("state")).unwrap();
    let new = new();
    let (version, running) = (Version::new(0, 2, 0), Version::new(0, 1, 0));
    fs::write(root.with_file_name("began"), "").unwrap();
    loop {
        fs::write(slot.next(), &new).unwrap();
        slot.activate(Digest::of(&new), &version, &running).unwrap();
        slot.back("again").unwrap();
    }
}

fn new() -> Vec<u8> {
    vec![b'n'; 300_000]
}
