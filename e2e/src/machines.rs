//! Bare Linux machines with a real systemd and a real sshd, in namespaces of
//! this one: what `sotto bootstrap` is for. They are made of the Debian that
//! `cargo xtask setup` puts together, and only root can have them.

pub mod updating;

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::process::{Outcome, PATIENCE, Running, binary, nats_server};

/// How long nothing is looked at again.
const PAUSE: Duration = Duration::from_millis(50);
/// What a server's machine gets.
const PROGRAMS: [&str; 3] = ["sotto", "sotto-relay", "sotto-gateway"];

/// Some machines, m1, m2, …, and a desk from which they are reached. All ends
/// when it is dropped.
#[derive(Debug)]
pub struct Machines {
    machines: Vec<Child>,
    base: PathBuf,
    folder: TempDir,
}

/// Whether the test of this name runs where it may have machines; if not, it is
/// run there by this, if that is possible at all.
///
/// # Errors
/// When it fails there.
pub fn are_possible(test: &str) -> anyhow::Result<bool> {
    const INSIDE: &str = "SOTTO_TEST_HAS_MACHINES";
    if std::env::var_os(INSIDE).is_some() {
        return Ok(true);
    }
    if !rustix::process::getuid().is_root() {
        #[expect(clippy::print_stderr, reason = "why a test says nothing")]
        {
            eprintln!("skipped: only root can have machines in namespaces");
        }
        return Ok(false);
    }
    let test_program = std::env::current_exe().context("finding this program")?;
    let status = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
        .arg("--mount-proc")
        .arg(test_program)
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(INSIDE, "yes")
        .status()
        .context("starting `unshare`, of util-linux")?;
    ensure!(status.success(), "{test}, with machines: {status}");
    Ok(false)
}

impl Machines {
    /// Starts so many, with nothing on them, and waits until all let us in.
    ///
    /// # Errors
    /// When they cannot be made here.
    pub fn start(count: u8) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("making a folder")?;
        let mut machines = Self {
            machines: Vec::new(),
            base: base()?,
            folder,
        };
        machines.make_groups()?;
        tool("ip", &["link", "set", "lo", "up"], None)?;
        tool("ip", &["link", "add", "machines", "type", "bridge"], None)?;
        let desk = ["address", "add", "10.77.0.1/24", "dev", "machines"];
        tool("ip", &desk, None)?;
        tool("ip", &["link", "set", "machines", "up"], None)?;
        for number in 1..=count {
            machines.boot(number)?;
        }
        machines.make_desk(count)?;
        for number in 1..=count {
            machines.answers(number)?;
        }
        Ok(machines)
    }

    /// The hierarchies of control groups that machines have: one with everything
    /// that the kernel has in it, and those of the older kind, when that is how
    /// it limits memory.
    fn make_groups(&self) -> anyhow::Result<()> {
        let groups = self.folder.path().join("groups");
        let hierarchy = |name: &str, options: &[&str]| {
            let path = groups.join(name);
            fs::create_dir_all(&path)?;
            tool("mount", &[options, &[name]].concat(), Some(&path))
        };
        hierarchy("unified", &["-t", "cgroup2"])?;
        if limits_memory_the_older_way()? {
            hierarchy("systemd", &["-t", "cgroup", "-o", "none,name=systemd"])?;
            hierarchy("memory", &["-t", "cgroup", "-o", "memory"])?;
        }
        Ok(())
    }

    /// The address of a machine.
    pub fn address(number: u8) -> String {
        format!("10.77.0.{}", 10 + number)
    }

    /// Has a machine do something, by ssh as root; what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub fn on(&self, number: u8, command: &str) -> anyhow::Result<String> {
        let mut ssh = Command::new(self.folder.path().join("bin/ssh"));
        let output = ssh
            .arg(format!("root@m{number}"))
            .arg(command)
            .stdin(Stdio::null())
            .output()
            .context("starting ssh")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "m{number}: {command}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Everything on a machine that could change when something is done to it:
    /// files with their times, and which processes its units run.
    ///
    /// # Errors
    /// When it does not say.
    pub fn state(&self, number: u8) -> anyhow::Result<String> {
        self.on(
            number,
            "find /usr/local /etc /srv /var/lib/sotto-update -not -path '/srv/sotto/nats/*' -not -path '/srv/sotto/directory*' \
             -not -path '/srv/sotto/cluster/*' -printf '%p %T@ %m %u %l\\n' | sort; \
             systemctl show -p MainPID,NRestarts sotto-relay sotto-gateway",
        )
    }

    /// The disk of a machine, as it is seen from here.
    pub fn disk(&self, number: u8) -> PathBuf {
        self.folder.path().join(format!("m{number}/root"))
    }

    /// The folder of the programs that are sent.
    pub fn programs(&self) -> PathBuf {
        self.folder.path().join("programs")
    }

    /// Where tests may put things.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `sotto bootstrap`, as typed at the desk.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn starts_bootstrap(&self, arguments: &[&str]) -> anyhow::Result<Running> {
        let mut path = vec![self.folder.path().join("bin")];
        path.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        let mut command = Command::new(binary("sotto")?);
        command
            .args(["bootstrap", "--json"])
            .args(arguments)
            .env("PATH", std::env::join_paths(path)?)
            // One that is killed leaves its sockets behind.
            .env("TMPDIR", self.folder.path());
        if !arguments.contains(&"--programs") {
            command.arg("--programs").arg(self.programs());
        }
        Running::start(command, Some(String::new()))
    }

    /// The same, until it ends.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn bootstrap(&self, arguments: &[&str]) -> anyhow::Result<Outcome> {
        self.starts_bootstrap(arguments)?.finish()
    }

    fn boot(&mut self, number: u8) -> anyhow::Result<()> {
        let name = format!("m{number}");
        let own = self.folder.path().join(&name);
        fs::create_dir(&own)?;
        let machine = Command::new("sh")
            .args(["-c", include_str!("machines/boot.sh"), "sh", &name])
            .arg(Self::address(number))
            .args([&self.base, &own])
            .stdin(Stdio::null())
            .spawn()
            .context("starting a machine")?;
        self.machines.push(machine);
        Ok(())
    }

    /// What the user has: a key that the machines know, the machines' own keys,
    /// names for them, and the programs.
    fn make_desk(&self, count: u8) -> anyhow::Result<()> {
        let at = |name: &str| self.folder.path().join(name);
        fs::create_dir(at("bin"))?;
        for program in ["ssh", "ssh-keygen"] {
            let file = at("bin").join(program);
            fs::write(&file, self.launcher(program))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        }
        let keygen = at("bin/ssh-keygen").display().to_string();
        let key = at("key");
        tool(
            &keygen,
            &["-q", "-t", "ed25519", "-N", "", "-f"],
            Some(&key),
        )?;
        let host_key = fs::read_to_string(self.base.join("etc/ssh/ssh_host_ed25519_key.pub"))?;
        let mut config = String::new();
        let mut known = String::new();
        for number in 1..=count {
            let address = Self::address(number);
            config.push_str(&format!("Host m{number}\n  HostName {address}\n"));
            known.push_str(&format!("{address} {host_key}"));
        }
        let (key, known_hosts) = (key.display(), at("known_hosts"));
        config.push_str(&format!(
            "Host *\n  IdentityFile {key}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  StrictHostKeyChecking yes\n",
            known_hosts.display()
        ));
        fs::write(&known_hosts, known)?;
        fs::write(at("config"), config)?;
        let public = fs::read_to_string(at("key.pub"))?;
        for number in 1..=count {
            let root = self.disk(number).join("root/.ssh");
            let deadline = Instant::now() + PATIENCE;
            while !root.parent().is_some_and(Path::is_dir) {
                ensure!(Instant::now() < deadline, "m{number} has no disk");
                thread::sleep(PAUSE);
            }
            fs::create_dir_all(&root)?;
            fs::set_permissions(&root, fs::Permissions::from_mode(0o700))?;
            fs::write(root.join("authorized_keys"), &public)?;
        }
        fs::create_dir(self.programs())?;
        let built = PROGRAMS.map(binary).into_iter().chain([nats_server()]);
        for program in built {
            let program = program?;
            let name = program.file_name().context("a program without a name")?;
            let sent = self.programs().join(name).display().to_string();
            // What is only for debuggers need not travel.
            let strip = ["--strip-debug", "-o", &sent];
            tool("strip", &strip, Some(&program))?;
        }
        Ok(())
    }

    /// OpenSSH's client of the base, with a configuration of the test's own.
    fn launcher(&self, program: &str) -> String {
        let base = self.base.display();
        let config = match program {
            "ssh" => format!("-F {}/config", self.folder.path().display()),
            _ => String::new(),
        };
        format!(
            "#!/bin/sh\n\
             for loader in {base}/lib64/ld-linux-x86-64.so.2 {base}/lib/ld-linux-aarch64.so.1; do\n\
             [ -e \"$loader\" ] && exec \"$loader\" --library-path \
             \"$(echo {base}/usr/lib/*-linux-gnu):$(echo {base}/lib/*-linux-gnu)\" \
             {base}/usr/bin/{program} {config} \"$@\"\n\
             done\n"
        )
    }

    fn answers(&self, number: u8) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let sshd = format!("{}:22", Self::address(number));
        while TcpStream::connect(&sshd).is_err() {
            ensure!(Instant::now() < deadline, "m{number} does not start");
            thread::sleep(PAUSE);
        }
        self.on(number, "systemctl is-system-running --wait || true")
            .map(drop)
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for machine in &mut self.machines {
            // Ignored: it may have ended already.
            machine.kill().ok();
            machine.wait().ok();
        }
        // Control groups outlive the namespace; they are empty in a moment.
        let groups = self.folder.path().join("groups");
        let own = self.folder.path().file_name().unwrap_or_default();
        let own = groups.join(format!("*/{}-*", own.to_string_lossy()));
        let deadline = Instant::now() + Duration::from_secs(5);
        let removed = || {
            let mut find = Command::new("find");
            find.arg(&groups)
                .args(["-depth", "-mindepth", "1", "-type", "d"]);
            let found = find
                .arg("-path")
                .arg(&own)
                .arg("-delete")
                .stderr(Stdio::null());
            found.status().is_ok_and(|status| status.success())
        };
        while !removed() && Instant::now() < deadline {
            thread::sleep(PAUSE);
        }
        // What is mounted below the folder cannot be removed with it.
        for machine in 1..=self.machines.len() {
            let root = self.folder.path().join(format!("m{machine}"));
            Command::new("umount")
                .args(["-R", "-l"])
                .arg(root)
                .status()
                .ok();
        }
        let hierarchies = fs::read_dir(groups).into_iter().flatten().flatten();
        for hierarchy in hierarchies {
            Command::new("umount").arg(hierarchy.path()).status().ok();
        }
    }
}

/// Whether the kernel has its controller of memory in a hierarchy of its own.
fn limits_memory_the_older_way() -> anyhow::Result<bool> {
    let controllers = fs::read_to_string("/proc/cgroups").context("reading /proc/cgroups")?;
    let memory = controllers.lines().find(|line| line.starts_with("memory"));
    let hierarchy = memory.and_then(|line| line.split_whitespace().nth(1));
    Ok(hierarchy.is_some_and(|hierarchy| hierarchy != "0"))
}

fn tool(program: &str, arguments: &[&str], path: Option<&Path>) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .args(path)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting `{program}`"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?}: {said}");
    Ok(())
}

/// The Debian that machines are made of.
fn base() -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe().context("finding this program")?;
    let mut candidates = here.ancestors().map(|folder| folder.join("tools/machine"));
    let found = candidates.find(|path| path.is_dir());
    found.context("the base of machines is not there: run `cargo xtask setup` as root first")
}
