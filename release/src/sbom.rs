//! The software bill of materials: CycloneDX 1.5 in JSON, of what goes into the
//! programs. The same for the same sources.

use std::str::FromStr;

use anyhow::anyhow;
use cargo_metadata::Package;
use cyclonedx_bom::external_models::date_time::DateTime;
use cyclonedx_bom::external_models::uri::Purl;
use cyclonedx_bom::models::bom::{Bom, SpecVersion};
use cyclonedx_bom::models::component::{Classification, Component, Components};
use cyclonedx_bom::models::dependency::{Dependencies, Dependency};
use cyclonedx_bom::models::hash::{Hash, HashAlgorithm, HashValue, Hashes};
use cyclonedx_bom::models::license::{LicenseChoice, Licenses};
use cyclonedx_bom::models::metadata::Metadata as BomMetadata;
use jiff::Timestamp;

use crate::contents::Contents;
use crate::nats_server::{Module, NatsServer};

/// The program that carries nats-server.
pub(crate) const CARRIER: &str = "sotto-relay";

/// Of these packages, and of the nats-server that one of them carries.
pub(crate) fn describe(
    contents: &Contents,
    nats_server: Option<&NatsServer>,
    version: &str,
    made: Timestamp,
) -> anyhow::Result<Vec<u8>> {
    let mut components: Vec<Component> = contents
        .packages()
        .map(component)
        .collect::<anyhow::Result<_>>()?;
    let dependencies = contents.packages().map(|package| {
        let mut needs: Vec<String> = contents.needs(package).map(reference).collect();
        if package.name.as_str() == CARRIER {
            needs.extend(nats_server.map(|carried| carried.server.reference()));
        }
        Dependency {
            dependency_ref: reference(package),
            dependencies: needs,
        }
    });
    let mut dependencies: Vec<Dependency> = dependencies.collect();
    if let Some(carried) = nats_server {
        components.push(server(carried));
        components.extend(carried.needs.iter().map(module));
        dependencies.push(Dependency {
            dependency_ref: carried.server.reference(),
            dependencies: carried.needs.iter().map(Module::reference).collect(),
        });
    }
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
        components: Some(Components(components)),
        dependencies: Some(Dependencies(dependencies)),
        ..Bom::default()
    };
    let mut json = Vec::new();
    bom.output_as_json(&mut json, SpecVersion::V1_5)
        .map_err(|error| anyhow!("writing the bill of materials: {error}"))?;
    Ok(json)
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
    component.licenses = package.license.as_deref().map(|license| {
        // As cargo let people write it, before it was SPDX.
        let license = license.replace('/', " OR ");
        Licenses(vec![LicenseChoice::expression(&license)])
    });
    Ok(component)
}

fn server(carried: &NatsServer) -> Component {
    let mut component = module(&carried.server);
    component.component_type = Classification::Application;
    component.hashes = Some(Hashes(vec![Hash {
        alg: HashAlgorithm::SHA_256,
        content: HashValue(carried.sha256.to_string()),
    }]));
    component
}

fn module(module: &Module) -> Component {
    let mut component = Component::new(
        Classification::Library,
        &module.path,
        &module.version,
        Some(module.reference()),
    );
    let purl = format!("pkg:golang/{}", module.reference());
    component.purl = Purl::from_str(&purl).ok();
    component.licenses = Some(Licenses(vec![LicenseChoice::expression(module.licence)]));
    component
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
    use std::path::Path;

    use cyclonedx_bom::validation::Validate;
    use sotto_update::Digest;

    use super::*;

    #[test]
    fn it_names_what_the_programs_consist_of_and_no_path() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let contents = Contents::of(&manifest, &["sotto-release", CARRIER]).unwrap();
        let module = |path: &str| Module {
            path: path.to_owned(),
            version: "v2.0.0".to_owned(),
            licence: "Apache-2.0",
        };
        let nats_server = NatsServer {
            sha256: Digest::of(b"nats"),
            server: module("example.org/server"),
            needs: vec![module("example.org/nkeys")],
        };
        let made = Timestamp::UNIX_EPOCH;
        let json = describe(&contents, Some(&nats_server), "0.1.0", made).unwrap();
        assert_eq!(
            json,
            describe(&contents, Some(&nats_server), "0.1.0", made).unwrap()
        );
        let bom = Bom::parse_from_json(json.as_slice()).unwrap();
        assert!(bom.validate().passed());
        let components = bom.components.unwrap().0;
        let has = |wanted: &str| {
            let mut names = components
                .iter()
                .map(|component| component.name.to_string());
            names.any(|name| name == wanted)
        };
        assert!(has("tough") && has("aws-lc-sys"));
        assert!(has("example.org/server") && has("example.org/nkeys"));
        assert!(!has("axum-server"), "that is for others");
        let dependencies = bom.dependencies.unwrap().0;
        let needed_by = |name: &str| {
            let mut needed = dependencies.iter();
            let needed = needed.find(|needed| needed.dependency_ref.starts_with(name));
            needed.unwrap().dependencies.clone()
        };
        let server = "example.org/server@v2.0.0".to_owned();
        assert!(needed_by("sotto-relay@").contains(&server));
        assert_eq!(
            needed_by("example.org/server@"),
            ["example.org/nkeys@v2.0.0"]
        );
        let text = String::from_utf8(json).unwrap();
        assert!(text.contains(&nats_server.sha256.to_string()));
        assert!(!text.contains(env!("CARGO_MANIFEST_DIR")));
    }
}
