//! What is linked into the program, from `cargo metadata`, in CycloneDX's format: what a scanner of images reads, who finds
//! no packages in an image of one file.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// All crates that the root's normal dependencies lead to; build scripts and tests are not in the program.
pub(crate) fn sbom(metadata: &Value) -> Result<Value> {
    let packages = by_id(&metadata["packages"]);
    let nodes = by_id(&metadata["resolve"]["nodes"]);
    let root = metadata["resolve"]["root"].as_str().context("`cargo metadata` names no root")?;
    let (mut linked, mut ahead) = (BTreeSet::new(), vec![root]);
    while let Some(id) = ahead.pop() {
        if linked.insert(id) {
            ahead.extend(needed(nodes.get(id).context("`cargo metadata` lacks a node")?));
        }
    }
    let component = |id: &str| -> Result<Value> {
        let package = packages.get(id).context("`cargo metadata` lacks a package")?;
        let (name, version) = (&package["name"], &package["version"]);
        let purl = format!("pkg:cargo/{}@{}", name.as_str().unwrap_or_default(), version.as_str().unwrap_or_default());
        let kind = if id == root { "application" } else { "library" };
        let licence = json!([{"expression": package["license"].as_str().map(|text| text.replace('/', " OR "))}]);
        Ok(json!({"type": kind, "bom-ref": purl, "name": name, "version": version, "licenses": licence, "purl": purl}))
    };
    let libraries = linked.iter().filter(|id| **id != root).map(|id| component(id)).collect::<Result<Vec<_>>>()?;
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(root)?},
        "components": libraries,
    }))
}

fn by_id(list: &Value) -> BTreeMap<&str, &Value> {
    list.as_array().into_iter().flatten().filter_map(|one| Some((one["id"].as_str()?, one))).collect()
}

fn needed(node: &Value) -> impl Iterator<Item = &str> {
    let normal =
        |dep: &&Value| dep["dep_kinds"].as_array().is_some_and(|kinds| kinds.iter().any(|one| one["kind"].is_null()));
    node["deps"].as_array().into_iter().flatten().filter(normal).filter_map(|dep| dep["pkg"].as_str())
}
