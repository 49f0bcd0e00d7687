//! What a finding tells people to write mends it: for every case below `tests/cases` with findings, each fix that is a line
//! of a manifest is put where the finding points, and the same file is judged again.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Map, Value};

use crate::{policies::cases_of_files, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("fixes::each_line_that_is_told_mends_what_it_is_told_for", each_line_mends)]
}

fn each_line_mends() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (mut mended, mut others) = (BTreeSet::new(), BTreeSet::new());
    for case in cases_of_files() {
        let text = fs::read_to_string(&case)?;
        if text.starts_with("# want: allow") {
            continue;
        }
        let (before, last) = text.rsplit_once("\n---\n").unwrap_or(("", &text));
        let mut applied: Value = serde_saphyr::from_str(last)?;
        let mut told = Vec::new();
        for finding in findings(&case)? {
            let edits = edits(&finding);
            others.extend(edits.is_empty().then(|| name(&finding)));
            told.extend((!edits.is_empty()).then_some(finding));
            for (pointer, value) in edits {
                put(&mut applied, &pointer, value).with_context(|| format!("{}: {pointer}", case.display()))?;
            }
        }
        let file = folder.path().join("mended.yaml");
        fs::write(&file, format!("{before}\n---\n{applied}\n"))?;
        let left = findings(&file)?;
        for finding in told {
            let is_there = |one: &&Value| name(one) == name(&finding) && one["path"] == finding["path"];
            if let Some(one) = left.iter().find(is_there) {
                anyhow::bail!("{}: not mended by `{}`: {one}", case.display(), finding["fix"]);
            }
            mended.insert(name(&finding));
        }
    }
    println!("mended: {}", mended.iter().cloned().collect::<Vec<_>>().join(", "));
    others.retain(|other| !mended.contains(other));
    println!("told in words: {}", others.iter().cloned().collect::<Vec<_>>().join(", "));
    ensure!(mended.len() >= 15, "only {mended:?}");
    Ok(())
}

/// What is said of the last Deployment in the file.
fn findings(file: &Path) -> Result<Vec<Value>> {
    let run = Command::new(env!("CARGO_BIN_EXE_surefoot")).args(["check", "-o", "json"]).arg(file).output()?;
    let report: Value = serde_json::from_slice(&run.stdout).with_context(|| format!("{run:?}"))?;
    let applied = report["objects"].as_array().and_then(|objects| objects.last()).context("no Deployment")?;
    Ok(applied["findings"].as_array().cloned().unwrap_or_default())
}

fn name(finding: &Value) -> String {
    [&finding["policy"], &finding["code"]].map(|part| part.as_str().unwrap_or_default()).join("/")
}

/// What the fix says to write, and where; empty where it is told in words.
fn edits(finding: &Value) -> Vec<(String, Value)> {
    let text = |key: &str| finding[key].as_str().unwrap_or_default();
    let (path, fix) = (text("path"), text("fix"));
    let Some((parent, field)) = path.rsplit_once('/') else { return Vec::new() };
    // Behind these words stand a reason or another way.
    let fix = [", or ", ", what ", ", on the ", ", with "]
        .iter()
        .fold(fix, |fix, tail| fix.split_once(tail).map_or(fix, |(fix, _)| fix));
    let fix = fix.split_once("  # ").map_or(fix, |(fix, _)| fix);
    if field == "image" || field == "reference" {
        return vec![(path.to_owned(), fix.into())];
    }
    if let Some(count) = fix.strip_prefix("set replicas to ").and_then(|count| count.parse::<i64>().ok()) {
        return vec![(path.to_owned(), count.into())];
    }
    let lines: Map<String, Value> = serde_saphyr::from_str(&format!("{{{fix}}}")).unwrap_or_default();
    let is_told = lines.contains_key(&field.replace("~1", "/"));
    let place = |(key, value): (String, Value)| (format!("{parent}/{}", key.replace('/', "~1")), value);
    if is_told { lines.into_iter().map(place).collect() } else { Vec::new() }
}

/// Puts a value there, with the objects on the way.
fn put(object: &mut Value, pointer: &str, value: Value) -> Result<()> {
    let mut node = object;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        node = match node {
            Value::Array(elements) => elements.get_mut(step.parse::<usize>()?).context("no such element")?,
            Value::Null => {
                *node = Value::Object(Map::new());
                &mut node[step]
            }
            Value::Object(members) => members.entry(step).or_insert(Value::Null),
            _ => anyhow::bail!("{step} is within a value"),
        };
    }
    *node = value;
    Ok(())
}
