//! The bill of materials: CycloneDX, which scanners of vulnerabilities and licences read.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::{Package, PackageId};
use cyclonedx_bom::{
    external_models::uri::{Purl, Uri},
    models::{
        bom::SpecVersion,
        component::Classification,
        dependency::{Dependencies, Dependency},
        external_reference::{ExternalReference, ExternalReferenceType, ExternalReferences},
        license::{LicenseChoice, Licenses},
    },
    prelude::*,
};

use crate::{NAME, Release};

/// The bill of a target, in JSON. It has no serial number and no time, so that two builds give the same bytes.
pub(crate) fn json(release: &Release<'_>) -> Result<Vec<u8>> {
    let packages = release.linked.packages();
    let program = packages.iter().find(|package| package.name.as_str() == NAME);
    let program = program.context("the program is not among the packages")?;
    let mut components = Vec::new();
    for package in packages.iter().filter(|package| package.id != program.id) {
        components.push(component(package, Classification::Library)?);
    }
    let references: BTreeMap<&PackageId, String> =
        packages.iter().map(|package| (&package.id, reference(package))).collect();
    let dependencies = packages.iter().map(|package| Dependency {
        dependency_ref: reference(package),
        dependencies: release
            .linked
            .needs(package)
            .filter_map(|id| references.get(id).cloned())
            .collect(),
    });
    let bom = Bom {
        serial_number: None,
        metadata: Some(Metadata {
            component: Some(component(program, Classification::Application)?),
            ..Metadata::default()
        }),
        components: Some(Components(components)),
        dependencies: Some(Dependencies(dependencies.collect())),
        ..Bom::default()
    };
    let result = bom.validate_version(SpecVersion::V1_5);
    ensure!(result.passed(), "the bill of materials is not valid: {result:?}");
    let mut json = Vec::new();
    bom.output_as_json_v1_5(&mut json)?;
    Ok(json)
}

/// What a package is called within the bill. (Cargo's own id has the path of the build.)
fn reference(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

fn component(package: &Package, class: Classification) -> Result<Component> {
    let version = package.version.to_string();
    let reference = Some(reference(package));
    let mut component = Component::new(class, package.name.as_str(), &version, reference);
    component.purl = Some(Purl::new("cargo", package.name.as_str(), &version)?);
    component.description = package.description.as_deref().map(NormalizedString::new);
    component.licenses = package.license.as_deref().map(|licence| {
        // Older manifests have a slash for "or".
        Licenses(vec![LicenseChoice::expression(&licence.replace('/', " OR "))])
    });
    let address = package.repository.as_deref().and_then(|it| Uri::try_from(it.to_owned()).ok());
    component.external_references = address.map(|url| {
        ExternalReferences(vec![ExternalReference::new(ExternalReferenceType::Vcs, url)])
    });
    Ok(component)
}
