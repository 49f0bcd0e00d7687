//! A Deployment that passes through our defaulter is the one that the API server hands to a webhook, field for field.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use surefoot::template::{Json, defaulter};

use crate::{
    shared,
    support::{ControlPlane, Kubectl},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("defaulter::every_deployment_is_what_the_api_server_makes_of_it", as_the_api_server),
        trial("defaulter::so_it_is_with_each_field_left_out_or_empty", with_each_field_left_out_or_empty),
    ]
}

/// Where Deployments lie that somebody wrote.
const FOLDERS: [&str; 4] = ["tests/fixtures/defaulter", "tests/cases", "demo", "docs"];

/// Where they lie in AdmissionReviews.
const REVIEWS: &str = "benches/reviews";

fn as_the_api_server() -> Result<()> {
    let plane = shared::plane()?;
    shared::namespace(plane, "defaulter", "")?;
    let mut all: Vec<(String, Value)> = Vec::new();
    for folder in FOLDERS {
        for file in files(&root().join(folder), "yaml")? {
            let found = deployments(plane.admin(), &file).with_context(|| file.display().to_string())?;
            all.extend(found.into_iter().map(|deployment| (file.display().to_string(), deployment)));
        }
    }
    for file in files(&root().join(REVIEWS), "json")? {
        let review: Value = serde_json::from_slice(&fs::read(&file)?)?;
        for key in ["object", "oldObject"] {
            let object = &review["request"][key];
            all.extend(object.is_object().then(|| (format!("{} {key}", file.display()), stripped(object))));
        }
    }
    let (mut differences, mut folders) = (Vec::new(), BTreeSet::new());
    for (shown, deployment) in &all {
        folders.insert(Path::new(shown).parent());
        match compare(plane, deployment).with_context(|| shown.clone())? {
            Some(found) => differences.extend(found.into_iter().map(|difference| format!("{shown}: {difference}"))),
            // A case may be one that the API server would not take.
            None if shown.contains("/tests/cases/") => {}
            None => differences.push(format!("{shown}: refused")),
        }
    }
    ensure!(all.len() >= 60 && folders.len() >= 10, "only {} Deployments in {} folders", all.len(), folders.len());
    ensure!(differences.is_empty(), "ours, and the API server's:\n{}", differences.join("\n"));
    Ok(())
}

/// Each place of each fixture once without what is there, once with null, and once with something empty.
fn with_each_field_left_out_or_empty() -> Result<()> {
    let plane = shared::plane()?;
    shared::namespace(plane, "defaulter", "")?;
    let (mut compared, mut differences) = (0, BTreeSet::new());
    for file in files(&root().join(FOLDERS[0]), "yaml")? {
        for deployment in deployments(plane.admin(), &file)? {
            let mut places = Vec::new();
            walk(&deployment["spec"], "/spec", &mut places);
            for place in places {
                for (what, changed) in variants(&deployment, &place)? {
                    let found = compare(plane, &changed)?;
                    compared += usize::from(found.is_some());
                    let shown = |difference| format!("{place} {what}: {difference}");
                    differences.extend(found.into_iter().flatten().map(shown));
                }
            }
        }
    }
    ensure!(compared >= 500, "only {compared} of these are taken by the API server");
    let differences: Vec<String> = differences.into_iter().collect();
    ensure!(differences.is_empty(), "ours, and the API server's:\n{}", differences.join("\n"));
    Ok(())
}

/// JSON pointers to all that is below `node`.
fn walk(node: &Value, pointer: &str, places: &mut Vec<String>) {
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    let below: Vec<(String, &Value)> = match node {
        Value::Object(members) => members.iter().map(|(key, value)| (escaped(key), value)).collect(),
        Value::Array(elements) => elements.iter().enumerate().map(|(at, value)| (at.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (key, value) in below {
        let pointer = format!("{pointer}/{key}");
        walk(value, &pointer, places);
        places.push(pointer);
    }
}

/// What may be written at a place instead of what is there.
fn variants(deployment: &Value, place: &str) -> Result<Vec<(&'static str, Value)>> {
    let (parent, key) = place.rsplit_once('/').context("a pointer")?;
    let key = key.replace("~1", "/").replace("~0", "~");
    let there = deployment.pointer(place).context("a place")?;
    let empty = match there {
        Value::Object(_) => json!({}),
        Value::Array(_) => json!([]),
        Value::String(_) => json!(""),
        Value::Number(_) => json!(0),
        other => other.clone(),
    };
    let mut found = Vec::new();
    if let Value::Object(_) = deployment.pointer(parent).context("its parent")? {
        for (what, value) in [("absent", None), ("null", Some(Value::Null)), ("empty", Some(empty))] {
            let mut changed = deployment.clone();
            let members = changed.pointer_mut(parent).and_then(Value::as_object_mut).context("its parent")?;
            match value {
                Some(value) => members.insert(key.clone(), value),
                None => members.remove(&key),
            };
            found.push((what, changed));
        }
    }
    Ok(found)
}

/// What differs between the specs that ours and the server's default make of the same Deployment; nothing is left out of
/// either. `None`: the server does not take it.
fn compare(plane: &ControlPlane, deployment: &Value) -> Result<Option<Vec<String>>> {
    let answer = plane.post("/apis/apps/v1/namespaces/defaulter/deployments?dryRun=All", &deployment.to_string())?;
    if answer.status != 201 {
        ensure!(matches!(answer.status, 400 | 422), "{} {}", answer.status, answer.body);
        return Ok(None);
    }
    let theirs: Value = serde_json::from_str(&answer.body)?;
    let ours: Value = serde_json::from_str(&defaulter::defaulted(&Json::from(deployment.clone())).to_string())?;
    let (ours, theirs) = (leaves(&ours["spec"]), leaves(&theirs["spec"]));
    let paths: BTreeSet<_> =
        ours.keys().chain(theirs.keys()).filter(|path| ours.get(*path) != theirs.get(*path)).collect();
    let shown = |side: &BTreeMap<String, Value>, path| side.get(path).map_or("-".to_owned(), Value::to_string);
    Ok(Some(paths.into_iter().map(|path| format!("{path}: {} {}", shown(&ours, path), shown(&theirs, path))).collect()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What a user could have sent of an object that was stored.
fn stripped(object: &Value) -> Value {
    let mut deployment = object.clone();
    deployment["metadata"] = json!({"name": object["metadata"]["name"], "namespace": "defaulter"});
    deployment["status"] = json!({});
    deployment
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
    // A configuration of surefoot itself is nothing that a cluster knows.
    if fs::read_to_string(file)?.contains("kind: Config\n") {
        return Ok(Vec::new());
    }
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

/// Files with this extension in a folder and below; none where there is no such folder.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return Ok(found) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, extension)?);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
