//! Security keys on USB, as Linux shows them: `/dev/hidraw*`, of which sysfs
//! tells whether it is a FIDO key. No C library is needed for that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::KeyError;
use super::hid::{REPORT, Report, Reports};

const SYSTEM: &str = "/sys/class/hidraw";
/// The usage page of FIDO keys (CTAP 2.1, section 11.2.8.1).
const FIDO: u32 = 0xf1d0;
/// Longest report descriptor that the HID core of Linux knows, in bytes.
const DESCRIPTOR: u64 = 4_096;
/// Devices that are looked at.
const DEVICES: usize = 256;

/// One key.
pub struct Hidraw(File);

/// The FIDO keys that are plugged in now.
///
/// # Errors
/// [`KeyError::Forbidden`] when there is one that this user may not speak to.
pub fn plugged_in() -> Result<Vec<Hidraw>, KeyError> {
    let opened = keys_below(Path::new(SYSTEM)).into_iter().map(|name| {
        let path = Path::new("/dev").join(name);
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        opened.map(Hidraw).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => KeyError::Forbidden(path.display().to_string()),
            _ => KeyError::Broken(error.to_string()),
        })
    });
    opened.collect()
}

fn keys_below(system: &Path) -> Vec<PathBuf> {
    let Ok(devices) = fs::read_dir(system) else {
        return Vec::new();
    };
    let keys = devices.take(DEVICES).flatten().filter(|device| {
        let descriptor = read_at_most(&device.path().join("device/report_descriptor"), DESCRIPTOR);
        descriptor.is_ok_and(|descriptor| is_fido(&descriptor))
    });
    keys.map(|device| device.file_name().into()).collect()
}

fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whether a report descriptor (HID 1.11, section 6.2.2) names FIDO's page.
fn is_fido(descriptor: &[u8]) -> bool {
    const USAGE_PAGE: u8 = 0x04;
    const LONG: u8 = 0xfe;
    let mut rest = descriptor;
    while let Some((&prefix, after)) = rest.split_first() {
        if prefix == LONG {
            return false;
        }
        let size = [0, 1, 2, 4].get(usize::from(prefix & 0x03));
        let Some((data, next)) = size.and_then(|size| after.split_at_checked(*size)) else {
            return false;
        };
        let value = data.iter().rev();
        let value = value.fold(0, |value: u32, byte| value << 8 | u32::from(*byte));
        if prefix & 0xfc == USAGE_PAGE && value == FIDO {
            return true;
        }
        rest = next;
    }
    false
}

impl Reports for Hidraw {
    fn write(&mut self, report: &Report) -> io::Result<()> {
        // A device without report numbers takes a zero in their place.
        let mut numbered = [0; REPORT + 1];
        let (_, room) = numbered.split_at_mut(1);
        room.copy_from_slice(report);
        self.0.write_all(&numbered)
    }

    fn read(&mut self, patience: Duration) -> io::Result<Report> {
        let timeout = Timespec::try_from(patience).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut polled = [PollFd::new(&self.0, PollFlags::IN)];
        if poll(&mut polled, Some(&timeout))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut report = [0; REPORT];
        self.0.read_exact(&mut report)?;
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The descriptor in CTAP 2.1, section 11.2.8.1, and that of a mouse.
    const KEY: &[u8] = &[
        0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01, 0x09, 0x20, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75,
        0x08, 0x95, 0x40, 0x81, 0x02, 0x09, 0x21, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95,
        0x40, 0x91, 0x02, 0xc0,
    ];
    const MOUSE: &[u8] = &[0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xc0];

    #[test]
    fn a_key_is_told_from_other_devices() {
        assert!(is_fido(KEY));
        assert!(!is_fido(MOUSE));
        assert!(is_fido(&[MOUSE, KEY].concat()));
        assert!(!is_fido(&KEY[..2]));
        assert!(!is_fido(&[]));
        assert!(!is_fido(&[0xfe; 9]));
    }

    #[test]
    fn keys_are_found_where_linux_shows_them() {
        let system = tempfile::tempdir().unwrap();
        for (name, descriptor) in [("hidraw0", MOUSE), ("hidraw1", KEY)] {
            let device = system.path().join(name).join("device");
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("report_descriptor"), descriptor).unwrap();
        }
        fs::create_dir(system.path().join("hidraw2")).unwrap();
        assert_eq!(keys_below(system.path()), [Path::new("hidraw1")]);
        assert!(keys_below(&system.path().join("nothing")).is_empty());
    }
}
