//! A Deployment that passes through our defaulter is the one that the API server hands to a webhook, field for field.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;
use surefoot::template::{Json, defaulter};

use crate::{shared, support::Kubectl, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("defaulter::every_deployment_is_what_the_api_server_makes_of_it", as_the_api_server)]
}

/// Where Deployments lie that somebody wrote.
const FOLDERS: [&str; 3] = ["tests/fixtures/defaulter", "tests/cases", "demo/shop"];

fn as_the_api_server() -> Result<()> {
    let plane = shared::plane()?;
    let (admin, _) = shared::namespace(plane, "defaulter", "")?;
    let mut compared = 0;
    let mut differences = Vec::new();
    for folder in FOLDERS {
        for file in manifests(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))? {
            let shown = file.display().to_string();
            for deployment in deployments(plane.admin(), &file).with_context(|| shown.clone())? {
                compared += 1;
                compare(&admin, &deployment, &mut differences).with_context(|| format!("{shown}: {deployment}"))?;
            }
        }
    }
    ensure!(compared >= 5, "only {compared} Deployments found");
    ensure!(differences.is_empty(), "ours, and the API server's:\n{}", differences.join("\n"));
    Ok(())
}

/// The specs that ours and the server's default make of the same Deployment; nothing is left out of either.
fn compare(admin: &Kubectl, deployment: &Value, differences: &mut Vec<String>) -> Result<()> {
    let name = deployment["metadata"]["name"].as_str().unwrap_or("?").to_owned();
    let create = ["create", "-f", "-", "--dry-run=server", "-o", "json"];
    let answer = admin.run_with_input(&create, &deployment.to_string())?;
    if !answer.ok() {
        differences.push(format!("{name}: refused: {}", answer.stderr.trim()));
        return Ok(());
    }
    let theirs = answer.json()?;
    let ours: Value = serde_json::from_str(&defaulter::defaulted(&Json::from(deployment.clone())).to_string())?;
    let (ours, theirs) = (leaves(&ours["spec"]), leaves(&theirs["spec"]));
    let paths: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    for path in paths {
        let shown = |side: &BTreeMap<String, Value>| side.get(path).map_or("-".to_owned(), Value::to_string);
        if ours.get(path) != theirs.get(path) {
            differences.push(format!("{name}: {path}: {} {}", shown(&ours), shown(&theirs)));
        }
    }
    Ok(())
}

/// Every scalar and every empty list or object by its path.
fn leaves(tree: &Value) -> BTreeMap<String, Value> {
    fn walk(node: &Value, path: String, found: &mut BTreeMap<String, Value>) {
        match node {
            Value::Object(members) if !members.is_empty() => {
                members.iter().for_each(|(key, below)| walk(below, format!("{path}/{key}"), found));
            }
            Value::Array(elements) if !elements.is_empty() => {
                elements.iter().enumerate().for_each(|(index, below)| walk(below, format!("{path}/{index}"), found));
            }
            _ => drop(found.insert(path, node.clone())),
        }
    }
    let mut found = BTreeMap::new();
    walk(tree, String::new(), &mut found);
    found
}

/// The Deployments of a file, as kubectl sends them.
fn deployments(admin: &Kubectl, file: &Path) -> Result<Vec<Value>> {
    let file = file.to_str().context("an odd path")?;
    let read = admin.run(&["create", "-f", file, "--dry-run=client", "--validate=false", "-o", "json"])?.success()?;
    let objects =
        serde_json::Deserializer::from_str(&read.stdout).into_iter::<Value>().collect::<Result<Vec<_>, _>>()?;
    let items = objects.into_iter().flat_map(|object| match object["items"].as_array() {
        Some(items) => items.clone(),
        None => vec![object],
    });
    let mut found: Vec<Value> =
        items.filter(|object| object["kind"] == "Deployment" && object["apiVersion"] == "apps/v1").collect();
    for deployment in &mut found {
        deployment["metadata"]["namespace"] = "defaulter".into();
    }
    Ok(found)
}

/// YAML files in a folder and below; none where there is no such folder.
fn manifests(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return Ok(found) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(manifests(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
