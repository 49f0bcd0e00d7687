//! A namespace with bad Deployments in it is taken from nothing to `enforce`: what `check --cluster` says before each step is what
//! happens after it, and work on what runs already goes on.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    cluster::surefoot,
    models::{bad, create, good, refused},
    shared,
    support::{Kubectl, Look, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial("adoption::audit_warn_enforce", stages)]
}

const HERE: &str = "adoption";

/// The names that `enforce` would refuse, of what runs.
fn foretold(admin: &Kubectl) -> Result<Vec<String>> {
    let answer = surefoot(admin, &["check", "--cluster", "-n", HERE, "-o", "json"])?;
    let report = answer.json()?;
    let objects = report["objects"].as_array().context("no objects")?;
    let denied = objects.iter().filter(|object| object["verdict"] == "denied");
    Ok(denied.filter_map(|object| object["name"].as_str().map(str::to_owned)).collect())
}

/// What the webhook goes by follows the label at once, but not in the same instant.
fn guarded(admin: &Kubectl, ana: &Kubectl, guard: &str, sign: &str) -> Result<()> {
    admin.run(&["label", "namespace", HERE, "--overwrite", &format!("surefoot.dev/guard={guard}")])?.success()?;
    until(&format!("guard {guard}"), std::time::Duration::from_secs(30), || {
        let tried = ana.run_with_input(&["create", "--dry-run=server", "-f", "-"], &bad("try").to_string())?;
        let there = if sign.is_empty() { tried.stderr.is_empty() } else { tried.stderr.contains(sign) };
        Ok(if there { Look::Done(()) } else { Look::Not(tried.to_string()) })
    })
}

fn stages() -> Result<()> {
    let plane = shared::plane()?;
    drop(shared::surefoot()?);
    let (admin, ana) = shared::namespace(plane, HERE, "")?;
    create(&ana, &bad("old"))?.success()?;
    create(&ana, &good("fine"))?.success()?;
    ensure!(foretold(&admin)? == ["old"], "before: {:?}", foretold(&admin)?);

    guarded(&admin, &ana, "audit", "")?;
    let silent = create(&ana, &bad("audited"))?.success()?;
    ensure!(silent.stderr.is_empty(), "{silent}");

    guarded(&admin, &ana, "warn", "Warning: ")?;
    let told = create(&ana, &bad("warned"))?.success()?;
    ensure!(told.stderr.contains("Warning: ") && told.stderr.contains("probes/"), "{told}");

    let before = foretold(&admin)?;
    ensure!(before == ["audited", "old", "warned"], "{before:?}");
    guarded(&admin, &ana, "enforce", "denied the request")?;
    // What runs goes on, and so does work on it that makes nothing worse.
    for name in &before {
        for command in [["annotate", "a=b"], ["scale", "--replicas=0"], ["set", "env"]] {
            let deployment = format!("deploy/{name}");
            let args = match command {
                ["set", "env"] => vec!["set", "env", &deployment, "A=b"],
                [verb, what] => vec![verb, &deployment, what],
            };
            ana.run(&args)?.success()?;
        }
    }
    // Made anew, each is what was foretold of it.
    for name in ["old", "audited", "warned", "fine"] {
        let object: Value = if name == "fine" { good(name) } else { bad(name) };
        ana.run(&["delete", "deploy", name])?.success()?;
        let made = create(&ana, &object)?;
        match before.iter().any(|one| one == name) {
            true => refused(made, &["denied the request"])?,
            false => made.success()?,
        };
    }
    Ok(())
}
