//! What programs consist of: the packages that cargo says are compiled into
//! them, for this machine's platform.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// Packages, and what each needs.
pub(crate) struct Contents {
    packages: BTreeMap<PackageId, Package>,
    needs: BTreeMap<PackageId, BTreeSet<PackageId>>,
}

impl Contents {
    /// Of the packages that build `programs`, in the workspace of a Cargo.toml.
    pub(crate) fn of(manifest: &Path, programs: &[&str]) -> anyhow::Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(manifest)
            .other_options(["--locked", "--filter-platform", "host-tuple"].map(str::to_owned))
            .exec()
            .context("asking cargo what the programs consist of")?;
        let needs = reached(&metadata, programs)?;
        let packages = metadata.packages.into_iter();
        let packages = packages.filter(|package| needs.contains_key(&package.id));
        Ok(Self {
            packages: packages
                .map(|package| (package.id.clone(), package))
                .collect(),
            needs,
        })
    }

    /// All of them, in the same order for the same sources.
    pub(crate) fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.values()
    }

    /// What this package needs.
    pub(crate) fn needs(&self, package: &Package) -> impl Iterator<Item = &Package> {
        let needs = self.needs.get(&package.id).into_iter().flatten();
        needs.filter_map(|need| self.packages.get(need))
    }
}

/// Every package that is compiled into the programs, and what each needs.
fn reached(
    metadata: &Metadata,
    programs: &[&str],
) -> anyhow::Result<BTreeMap<PackageId, BTreeSet<PackageId>>> {
    let resolve = metadata
        .resolve
        .as_ref()
        .context("cargo resolved nothing")?;
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let builds = |package: &&Package| {
        let mut targets = package.targets.iter().filter(|target| target.is_bin());
        targets.any(|target| programs.contains(&target.name.as_str()))
    };
    let mut waiting: Vec<&PackageId> = metadata
        .packages
        .iter()
        .filter(builds)
        .map(|package| &package.id)
        .collect();
    let mut reached = BTreeMap::new();
    while let Some(id) = waiting.pop() {
        let Some(node) = nodes.get(id).filter(|_| !reached.contains_key(id)) else {
            continue;
        };
        let needed = node.deps.iter().filter(|dependency| {
            let mut kinds = dependency.dep_kinds.iter();
            kinds.any(|kind| kind.kind != DependencyKind::Development)
        });
        let needed: Vec<&PackageId> = needed.map(|dependency| &dependency.pkg).collect();
        waiting.extend(&needed);
        reached.insert(id.clone(), needed.into_iter().cloned().collect());
    }
    Ok(reached)
}
