//! Plugs keys in software in: a program that is started behind this sees
//! `/sys/class/hidraw` and `/dev/hidraw*` as Linux would show them, in a mount
//! namespace of its own. Behind each device is a pseudo terminal.
//!
//! Needs `unshare` and `mount` of util-linux.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::thread;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use sotto_client_native::security_key::{REPORT, Reports};
use tempfile::TempDir;

use super::hid::Wire;

/// The report descriptor in CTAP 2.1, section 11.2.8.1.
const DESCRIPTOR: &[u8] = &[
    0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01, 0x09, 0x20, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08,
    0x95, 0x40, 0x81, 0x02, 0x09, 0x21, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, 0x40, 0x91,
    0x02, 0xc0,
];
/// What a program may want of `/dev` beside keys.
const OTHERS: [&str; 5] = ["null", "zero", "random", "urandom", "tty"];

/// The keys that are plugged in, until this is dropped.
pub struct Usb {
    folder: TempDir,
    /// Held open: else a reader would end with each program.
    _terminals: Vec<File>,
}

impl Usb {
    pub fn with(wires: impl IntoIterator<Item = Wire>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (devices, system) = (
            folder.path().join("dev"),
            folder.path().join("class/hidraw"),
        );
        fs::create_dir_all(&devices).unwrap();
        fs::create_dir_all(&system).unwrap();
        let mut script = String::from("set -e\n");
        let mut mount = |from: &str, to: &Path| {
            script.push_str(&format!("mount --bind {from} {}\n", to.display()));
        };
        for name in OTHERS {
            File::create(devices.join(name)).unwrap();
            mount(&format!("/dev/{name}"), &devices.join(name));
        }
        let mut terminals = Vec::new();
        for (number, wire) in wires.into_iter().enumerate() {
            let name = format!("hidraw{number}");
            let device = system.join(&name).join("device");
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("report_descriptor"), DESCRIPTOR).unwrap();
            let (path, terminal) = plug_in(wire);
            File::create(devices.join(&name)).unwrap();
            mount(&path, &devices.join(&name));
            terminals.push(terminal);
        }
        let class = folder.path().join("class");
        script.push_str(&format!(
            "mount --bind {} /sys/class\nmount --rbind {} /dev\nexec \"$@\"\n",
            class.display(),
            devices.display(),
        ));
        fs::write(folder.path().join("enter"), script).unwrap();
        Self {
            folder,
            _terminals: terminals,
        }
    }

    /// What comes before a command that is to see them.
    pub fn enter(&self) -> Vec<String> {
        let mut command = vec!["unshare", "--mount"];
        if !rustix::process::geteuid().is_root() {
            command.extend(["--user", "--map-root-user"]);
        }
        let mut command: Vec<_> = command.into_iter().map(str::to_owned).collect();
        let script = self.folder.path().join("enter");
        command.extend(["sh".to_owned(), script.display().to_string()]);
        command
    }
}

/// The device that leads to a key.
fn plug_in(mut wire: Wire) -> (String, File) {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let path = ptsname(&near, Vec::new()).unwrap().into_string().unwrap();
    let far = rustix::fs::open(
        path.as_str(),
        rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY,
        rustix::fs::Mode::empty(),
    );
    let far = File::from(far.unwrap());
    let mut settings = tcgetattr(&far).unwrap();
    settings.make_raw();
    tcsetattr(&far, OptionalActions::Now, &settings).unwrap();
    let mut near = File::from(near);
    thread::spawn(move || {
        let mut numbered = [0; REPORT + 1];
        // Ends with an error when nobody holds the other end any more.
        while near.read_exact(&mut numbered).is_ok() {
            assert_eq!(numbered[0], 0, "keys do not number their reports");
            wire.write(numbered[1..].try_into().unwrap()).unwrap();
            while let Ok(report) = wire.read(std::time::Duration::ZERO) {
                if near.write_all(&report).is_err() {
                    return;
                }
            }
        }
    });
    (path, far)
}
