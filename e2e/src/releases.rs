//! Releases as those who make them do it: with `sotto-release`, and keys of
//! three people of whom two sign.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::process::binary;

/// The version of this build.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A folder of releases, and the keys for it.
#[derive(Debug)]
pub struct Releases {
    folder: PathBuf,
    keys: PathBuf,
}

impl Releases {
    /// Makes the keys in one folder, and a root of trust for the other; neither
    /// is there yet.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn create(keys: &Path, folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(keys).context("making a folder for keys")?;
        let releases = Self {
            folder: folder.to_owned(),
            keys: keys.to_owned(),
        };
        for name in ["ann", "ben", "cem", "online"] {
            releases.does(&["key", name])?;
        }
        let mut root = vec!["root", "root.json", "--threshold", "2"];
        root.extend(["--offline", "ann.pub", "--offline", "ben.pub"]);
        root.extend(["--offline", "cem.pub", "--online", "online.pub"]);
        releases.does(&root)?;
        releases.does(&["sign", "root.json", "--key", "ann"])?;
        releases.does(&["sign", "root.json", "--key", "ben"])?;
        let folder = folder.display().to_string();
        releases.does(&["trust", &folder, "--root", "root.json"])?;
        Ok(releases)
    }

    /// Two of three people release these files as this version.
    ///
    /// # Errors
    /// When that is refused.
    pub fn publish(&self, version: &str, programs: &[(&str, &Path)]) -> anyhow::Result<()> {
        let folder = self.folder.display().to_string();
        let named = programs.iter();
        let named: Vec<_> = named
            .map(|(name, file)| format!("{name}={}", file.display()))
            .collect();
        let mut draft = vec!["draft", folder.as_str(), "--version", version];
        for program in &named {
            draft.extend(["--program", program]);
        }
        self.does(&draft)?;
        let draft = self.folder.join("draft.json").display().to_string();
        self.does(&["sign", &draft, "--key", "ben"])?;
        self.does(&["sign", &draft, "--key", "cem"])?;
        self.does(&["publish", &folder, "--online", "online"])?;
        Ok(())
    }

    /// What machines pin.
    pub fn root(&self) -> PathBuf {
        self.folder.join("metadata/1.root.json")
    }

    fn does(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let output = Command::new(binary("sotto-release")?)
            .args(arguments)
            .current_dir(&self.keys)
            .output()
            .context("starting sotto-release")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(())
    }
}

/// Makes `to` the same program as `from`, a program of this build, with another
/// version, which is as long.
///
/// # Errors
/// When the disk says no.
pub fn with_version(from: &Path, version: &str, to: &Path) -> anyhow::Result<()> {
    ensure!(version.len() == VERSION.len(), "{version} is not as long");
    let mut bytes = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    let finder = aho_corasick::AhoCorasick::new([VERSION])?;
    let places: Vec<_> = finder
        .find_iter(&bytes)
        .map(|found| found.range())
        .collect();
    for place in places {
        let place = bytes.get_mut(place).context("a place that was found")?;
        place.copy_from_slice(version.as_bytes());
    }
    write_program(to, &bytes)
}

/// Makes a program that says its version, and otherwise does this.
///
/// # Errors
/// When the disk says no.
pub fn script(name: &str, version: &str, does: &str, to: &Path) -> anyhow::Result<()> {
    let text = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo {name} {version}; exit 0; fi\n{does}\n"
    );
    write_program(to, text.as_bytes())
}

fn write_program(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))?;
    Ok(fs::set_permissions(
        path,
        fs::Permissions::from_mode(0o755),
    )?)
}
