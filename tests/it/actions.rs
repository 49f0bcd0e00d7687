//! `action.yml` and `.pre-commit-hooks.yaml`: what they say is read, and the command lines in them are run.

use std::{collections::BTreeMap, fs, os::unix::fs as unix, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    check::{Run, SAFE, run},
    shared, trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("actions::the_action_is_whole", the_action_is_whole),
        trial("actions::it_builds_from_its_own_checkout", it_builds_from_its_own_checkout),
        trial("actions::it_annotates_and_writes_sarif", it_annotates_and_writes_sarif),
        trial("actions::the_hook_judges_a_folder", the_hook_judges_a_folder),
    ]
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> Result<Value> {
    Ok(serde_saphyr::from_str(&fs::read_to_string(top().join(name))?)?)
}

fn steps(action: &Value) -> Result<&Vec<Value>> {
    action["runs"]["steps"].as_array().context("steps")
}

fn step<'a>(action: &'a Value, id: &str) -> Result<&'a Value> {
    steps(action)?.iter().find(|step| step["id"] == id).with_context(|| format!("no step {id}"))
}

/// Every expression is about something that is there, and no input is put into a script unquoted.
fn the_action_is_whole() -> Result<()> {
    let action = read("action.yml")?;
    ensure!(action["name"].is_string() && action["description"].is_string(), "{action:#}");
    ensure!(action["runs"]["using"] == "composite", "{action:#}");
    let inputs = action["inputs"].as_object().context("inputs")?;
    ensure!(inputs.values().all(|it| it["description"].is_string() && it["default"].is_string()), "{inputs:#?}");
    let mut used = BTreeMap::<&str, usize>::new();
    for step in steps(&action)? {
        ensure!(step["run"].is_string() != step["uses"].is_string(), "{step:#}");
        ensure!(step["run"].is_null() || step["shell"] == "bash", "{step:#}");
        let script = step["run"].as_str().unwrap_or_default();
        ensure!(!script.contains("${{"), "an expression in a script is an injection:\n{script}");
    }
    let text = fs::read_to_string(top().join("action.yml"))?;
    for part in text.split("inputs.").skip(1) {
        let name: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
        let (name, _) = inputs.get_key_value(&name).with_context(|| format!("there is no input `{name}`"))?;
        *used.entry(name.as_str()).or_default() += 1;
    }
    ensure!(used.len() == inputs.len(), "an input that nothing reads: {used:?}");
    for part in text.split("steps.").skip(1) {
        let id: String = part.chars().take_while(char::is_ascii_lowercase).collect();
        step(&action, &id)?;
    }
    Ok(())
}

/// Runs the script of a step as the runner does, in `folder`.
fn script(step: &Value, folder: &Path, environment: &[(&str, &str)]) -> Result<Run> {
    let script = step["run"].as_str().context("a script")?;
    let mut command = Command::new("bash");
    command.args(["--noprofile", "--norc", "-eo", "pipefail", "-c", script]).current_dir(folder);
    command.env("GITHUB_ACTION_PATH", top()).env("RUNNER_TEMP", folder.join("temp"));
    run(command.envs(environment.iter().copied()), "")
}

/// A release build takes minutes, so cargo's place is taken by a script that says how it was called; what it was asked
/// for is then looked at.
fn it_builds_from_its_own_checkout() -> Result<()> {
    let (folder, action) = (tempfile::tempdir()?, read("action.yml")?);
    let bin = folder.path().join("bin");
    fs::create_dir(&bin)?;
    for name in ["cargo", "rustup"] {
        let stand_in = bin.join(name);
        fs::write(&stand_in, format!("#!/bin/sh\nprintf '%s\\n' {name} \"$@\" $RUSTUP_TOOLCHAIN\n"))?;
        fs::set_permissions(&stand_in, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    let built = script(step(&action, "build")?, folder.path(), &[("PATH", &path), ("RUSTUP_TOOLCHAIN", "")])?;
    let root = folder.path().join("temp/surefoot");
    let rust = env!("CARGO_PKG_RUST_VERSION");
    let expected = format!(
        "rustup\ntoolchain\ninstall\n{rust}\n--profile\nminimal\n--no-self-update\n\
         cargo\ninstall\n--locked\n--path\n{}\n--root\n{}\n{rust}\n",
        top().display(),
        root.display()
    );
    ensure!(built.stdout == expected && built.code == Some(0), "{}{}", built.stdout, built.stderr);
    ensure!(top().join("Cargo.lock").exists() && top().join("src/main.rs").exists(), "--locked needs a lock file");
    let cached = step(&action, "cache")?["with"]["path"].as_str().context("a path")?.to_owned();
    ensure!(cached == "${{ runner.temp }}/surefoot/bin", "cargo installs into --root/bin, the cache keeps {cached}");

    let output = folder.path().join("output");
    let output_text = output.display().to_string();
    let keyed = script(step(&action, "sources")?, folder.path(), &[("GITHUB_OUTPUT", &output_text)])?;
    let key = fs::read_to_string(output)?;
    let digest = key.trim().strip_prefix("key=").unwrap_or_default();
    ensure!(digest.len() == 64 && keyed.code == Some(0), "{key}{}", keyed.stderr);
    Ok(())
}

fn it_annotates_and_writes_sarif() -> Result<()> {
    let (folder, action) = (tempfile::tempdir()?, read("action.yml")?);
    let bin = folder.path().join("temp/surefoot/bin");
    fs::create_dir_all(&bin)?;
    unix::symlink(shared::program(), bin.join("surefoot"))?;
    fs::create_dir(folder.path().join("k 8s"))?;
    let readiness = "        readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}\n";
    fs::write(folder.path().join("k 8s/churn.yaml"), SAFE.replace(readiness, ""))?;
    fs::write(folder.path().join("good.yaml"), SAFE)?;
    let step = step(&action, "check")?;
    let output = folder.path().join("output");
    let output_text = output.display().to_string();
    let check = |paths: &str, sarif: &str| {
        let mut given: BTreeMap<&str, &str> = BTreeMap::from([("PATHS", paths), ("SARIF", sarif)]);
        for name in step["env"].as_object().context("env")?.keys() {
            given.entry(name).or_insert("");
        }
        // It is there only after a run that wrote to it.
        let _ = fs::remove_file(&output);
        given.insert("GITHUB_OUTPUT", &output_text);
        script(step, folder.path(), &given.into_iter().collect::<Vec<_>>())
    };
    let refused = check("good.yaml\nk 8s\n", "out.sarif")?;
    let annotation = "::error file=k 8s/churn.yaml,line=18,col=9,title=probes/no-readiness::";
    ensure!(refused.stdout.contains(annotation), "{}{}", refused.stdout, refused.stderr);
    ensure!(refused.code == Some(1), "{:?}", refused.code);
    let log: Value = serde_json::from_str(&fs::read_to_string(folder.path().join("out.sarif"))?)?;
    ensure!(log["runs"][0]["results"].as_array().map(Vec::len) == Some(1), "{log:#}");
    ensure!(fs::read_to_string(&output)? == "sarif=true\n", "nothing to upload");
    // A log that could not be written is not uploaded.
    let unread = check("good.yaml", "no/such/folder/out.sarif")?;
    ensure!(!output.exists(), "{}", unread.stderr);
    let admitted = check("good.yaml", "")?;
    ensure!(admitted.code == Some(0) && !admitted.stdout.contains("::"), "{}{}", admitted.stdout, admitted.stderr);
    let missing = check("nowhere", "")?;
    ensure!(missing.code == Some(2) && missing.stdout.contains("::error file=nowhere"), "{}", missing.stdout);
    Ok(())
}

fn the_hook_judges_a_folder() -> Result<()> {
    let hooks = read(".pre-commit-hooks.yaml")?;
    let hook = hooks.as_array().and_then(|hooks| hooks.first()).context("a hook")?;
    ensure!(hook["language"] == "rust" && hook["id"].is_string() && hook["name"].is_string(), "{hook:#}");
    ensure!(hook["pass_filenames"] == false, "the files that change say too little: {hook:#}");
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("churn.yaml"), SAFE)?;
    fs::write(folder.path().join("values.yaml"), "replicas: 2\n")?;
    let mut words = hook["entry"].as_str().context("entry")?.split(' ');
    ensure!(words.next() == Some("surefoot"), "{hook:#}");
    let arguments = words.chain(hook["args"].as_array().into_iter().flatten().filter_map(Value::as_str));
    let mut command = Command::new(shared::program());
    let ran = run(command.args(arguments.collect::<Vec<_>>()).current_dir(folder.path()), "")?;
    ensure!(
        ran.code == Some(0) && ran.stdout.contains("1 Deployment would be admitted"),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    Ok(())
}
