//! The software bill of materials: CycloneDX 1.5 in JSON, of what cargo says
//! goes into the programs. The same for the same sources.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, anyhow};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use cyclonedx_bom::external_models::date_time::DateTime;
use cyclonedx_bom::external_models::uri::Purl;
use cyclonedx_bom::models::bom::{Bom, SpecVersion};
use cyclonedx_bom::models::component::{Classification, Component, Components};
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::license::{LicenseChoice, Licenses};
use cyclonedx_bom::models::metadata::Metadata as BomMetadata;
use jiff::Timestamp;

/// Of the packages that build `programs`, for this machine's platform.
pub(crate) fn describe(
    manifest: &Path,
    programs: &[&str],
    version: &str,
    made: Timestamp,
) -> anyhow::Result<Vec<u8>> {
    let metadata = MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(["--locked", "--filter-platform", "host-tuple"].map(str::to_owned))
        .exec()
        .context("asking cargo what the programs consist of")?;
    let reached = reached(&metadata, programs)?;
    let packages: BTreeMap<&PackageId, &Package> = metadata
        .packages
        .iter()
        .filter(|package| reached.contains_key(&package.id))
        .map(|package| (&package.id, package))
        .collect();
    let components = packages.values().map(|package| component(package));
    let dependencies = reached.iter().filter_map(|(id, needs)| {
        let dependencies = needs.iter().filter_map(|need| packages.get(need));
        Some(Dependency {
            dependency_ref: reference(packages.get(id)?),
            dependencies: dependencies.map(|package| reference(package)).collect(),
        })
    });
    let bom = Bom {
        serial_number: None,
        metadata: Some(BomMetadata {
            timestamp: Some(time(made)?),
            tools: None,
            authors: None,
            component: Some(Component::new(
                Classification::Application,
                "sotto",
                version,
                Some("sotto".to_owned()),
            )),
            manufacture: None,
            supplier: None,
            licenses: None,
            properties: None,
            lifecycles: None,
        }),
        components: Some(Components(components.collect::<anyhow::Result<_>>()?)),
        dependencies: Some(Dependencies(dependencies.collect())),
        ..Bom::default()
    };
    let mut json = Vec::new();
    bom.output_as_json(&mut json, SpecVersion::V1_5)
        .map_err(|error| anyhow!("writing the bill of materials: {error}"))?;
    Ok(json)
}

/// Every package that is compiled into the programs, and what each needs.
fn reached<'a>(
    metadata: &'a Metadata,
    programs: &[&str],
) -> anyhow::Result<BTreeMap<&'a PackageId, BTreeSet<&'a PackageId>>> {
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
        let needs: BTreeSet<&PackageId> = node
            .deps
            .iter()
            .filter(|dependency| {
                let mut kinds = dependency.dep_kinds.iter();
                kinds.any(|kind| kind.kind != DependencyKind::Development)
            })
            .map(|dependency| &dependency.pkg)
            .collect();
        waiting.extend(&needs);
        reached.insert(id, needs);
    }
    Ok(reached)
}

fn component(package: &Package) -> anyhow::Result<Component> {
    let (name, version) = (package.name.as_str(), package.version.to_string());
    let mut component = Component::new(
        Classification::Library,
        name,
        &version,
        Some(reference(package)),
    );
    if package.source.is_some() {
        let purl = Purl::new("cargo", name, &version);
        component.purl = Some(purl.map_err(|error| anyhow!("{name}: {error}"))?);
    }
    component.licenses = package
        .license
        .as_deref()
        .map(|license| Licenses(vec![LicenseChoice::expression(license)]));
    Ok(component)
}

/// Unlike cargo's own id, it holds no path of this machine.
fn reference(package: &Package) -> String {
    format!("{}@{}", package.name, package.version)
}

fn time(time: Timestamp) -> anyhow::Result<DateTime> {
    DateTime::try_from(time.to_string()).map_err(|error| anyhow!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_what_the_programs_consist_of_and_no_path() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let made = Timestamp::UNIX_EPOCH;
        let json = describe(&manifest, &["sotto-release"], "0.1.0", made).unwrap();
        assert_eq!(
            json,
            describe(&manifest, &["sotto-release"], "0.1.0", made).unwrap()
        );
        let bom = Bom::parse_from_json(json.as_slice()).unwrap();
        let components = bom.components.unwrap().0;
        let has = |wanted: &str| {
            let mut names = components
                .iter()
                .map(|component| component.name.to_string());
            names.any(|name| name == wanted)
        };
        assert!(has("tough") && has("aws-lc-sys"));
        assert!(!has("axum-server"), "that is for others");
        let text = String::from_utf8(json).unwrap();
        assert!(!text.contains(env!("CARGO_MANIFEST_DIR")));
    }
}
