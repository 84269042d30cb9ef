//! The licence texts of everything that is in the programs, in one file: who
//! passes a release on passes these on with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cargo_metadata::Package;

use crate::contents::Contents;
use crate::nats_server;

/// What files with such texts are called, or how their names begin.
const NAMES: [&str; 6] = [
    "LICENSE",
    "LICENCE",
    "COPYING",
    "COPYRIGHT",
    "NOTICE",
    "UNLICENSE",
];

const LINE: &str =
    "==============================================================================\n";

/// Every text once, below the packages that it is for. The same for the same
/// sources.
pub(crate) fn texts(contents: &Contents, carries_nats_server: bool) -> anyhow::Result<String> {
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut without = Vec::new();
    let packages = contents
        .packages()
        .filter(|package| package.source.is_some());
    for package in packages {
        let found = files(package)?;
        let name = format!("{} {}", package.name, package.version);
        if found.is_empty() {
            let licence = package.license.as_deref().unwrap_or("unknown");
            without.push(format!("{name}: {licence}\n"));
        }
        for text in found {
            texts.entry(text).or_default().push(name.clone());
        }
    }
    let mut all = format!(
        "Sotto\n{LINE}\n{}\n",
        include_str!("../../LICENSE").trim_end()
    );
    if carries_nats_server {
        all += &format!(
            "\n{LINE}nats-server\n{LINE}\n{}\n",
            nats_server::LICENCES.trim_end()
        );
    }
    all += &format!(
        "\n{LINE}These bring no text of their own\n{LINE}\n{}",
        without.concat()
    );
    for (text, packages) in texts {
        all += &format!("\n{LINE}{}\n{LINE}\n{text}\n", packages.join("\n"));
    }
    Ok(all)
}

/// The texts that a package brings.
fn files(package: &Package) -> anyhow::Result<Vec<String>> {
    let manifest = package.manifest_path.as_std_path();
    let folder = manifest.parent().unwrap_or(Path::new("/"));
    let mut paths = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.to_uppercase();
        if path.is_file() && NAMES.iter().any(|begin| name.starts_with(begin)) {
            paths.push(path);
        }
    }
    paths.extend(package.license_file().map(PathBuf::from));
    paths.sort();
    paths.dedup();
    let text = |path: PathBuf| {
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
        Ok(text.trim().to_owned())
    };
    paths.into_iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_in_it() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let contents = Contents::of(&manifest, &["sotto-release"]).unwrap();
        let all = texts(&contents, true).unwrap();
        for package in contents.packages().filter(|it| it.source.is_some()) {
            let name = format!("\n{} {}", package.name, package.version);
            assert!(all.contains(&name), "{name}");
        }
        assert!(all.contains("GNU AFFERO GENERAL PUBLIC LICENSE"));
        assert!(all.contains("github.com/nats-io/nkeys"));
        let own = texts(&contents, false).unwrap();
        assert!(!own.contains("github.com/nats-io/nkeys"));
        assert!(!all.contains(env!("CARGO_MANIFEST_DIR")));
    }
}
