//! What is installed: that both ways of saying it say the same, and that the API server takes it.

use std::{collections::BTreeMap, process::Command};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    shared,
    support::{
        ControlPlane,
        kubectl::{Answer, capture},
    },
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("manifests::kustomize_and_surefoot_print_the_same", the_same),
        trial("manifests::the_api_server_takes_them_in_one_go", taken),
    ]
}

fn the_same() -> Result<()> {
    let kustomize = rendered("manifests")?;
    let ours = printed(&["manifests"])?.success()?;
    let (kustomize, ours) = (objects(&kustomize.stdout)?, objects(&ours.stdout)?);
    ensure!(kustomize.keys().eq(ours.keys()), "{:?}\n{:?}", kustomize.keys(), ours.keys());
    for (name, object) in &ours {
        ensure!(kustomize[name] == *object, "{name} differs:\n{object}\n{}", kustomize[name]);
    }
    Ok(())
}

/// On a cluster that knows nothing of surefoot; and nothing of it is fought over with the API server's defaults.
fn taken() -> Result<()> {
    let plane = ControlPlane::start()?;
    let folder = format!("{}/manifests", env!("CARGO_MANIFEST_DIR"));
    let applied = plane.admin().run(&["apply", "-k", &folder])?.success()?;
    ensure!(!applied.stderr.contains("Warning"), "{applied}");
    // What GitOps tools would show as drift. `apply` says "configured" of some all the same.
    plane.admin().run(&["diff", "-k", &folder])?.success()?;
    Ok(())
}

/// `kubectl kustomize` of a folder of this repository.
pub(crate) fn rendered(folder: &str) -> Result<Answer> {
    let folder = format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(crate::support::tools::tools()?.path("kubectl"));
    command.args(["kustomize", &folder]);
    capture(command, &format!("kubectl kustomize {folder}"), "")?.success()
}

fn printed(args: &[&str]) -> Result<Answer> {
    let mut command = Command::new(shared::program());
    command.args(args);
    capture(command, &format!("surefoot {}", args.join(" ")), "")
}

/// The documents of a stream by kind and name.
pub(crate) fn objects(text: &str) -> Result<BTreeMap<String, Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("no YAML")?;
    let name = |object: &Value| {
        format!("{} {}/{}", object["kind"], object["metadata"]["namespace"], object["metadata"]["name"])
    };
    Ok(documents.into_iter().map(|object| (name(&object), object)).collect())
}
