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
        trial("manifests::overlays_change_what_they_say", overlays),
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

fn overlays() -> Result<()> {
    let base = objects(&rendered("manifests")?.stdout)?;
    let differing = |overlay: &str| {
        let found = objects(&rendered(&format!("manifests/overlays/{overlay}"))?.stdout)?;
        ensure!(base.keys().all(|name| found.contains_key(name)), "{overlay} leaves something out");
        anyhow::Ok(
            found.into_iter().filter(|(name, object)| base.get(name) != Some(object)).collect::<BTreeMap<_, _>>(),
        )
    };
    let small = differing("small")?;
    ensure!(small.len() == 2 && small.values().all(|object| object["spec"]["replicas"] == 1), "{small:?}");

    let prometheus = differing("prometheus")?;
    let (operators, more): (Vec<_>, Vec<_>) =
        prometheus.values().partition(|object| object["apiVersion"] == "monitoring.coreos.com/v1");
    ensure!(operators.len() == 3 && more.len() == 1, "{prometheus:#?}");
    let found = &more[0]["metadata"]["labels"]["grafana_dashboard"];
    ensure!(found == "1" && more[0]["data"]["surefoot.json"].is_string(), "{more:?}");

    let theirs = differing("cert-manager")?;
    let (new, changed): (Vec<_>, Vec<_>) =
        theirs.values().partition(|object| object["apiVersion"] == "cert-manager.io/v1");
    ensure!(new.len() == 4 && changed.len() == 3, "{theirs:#?}");
    for object in changed {
        match object["kind"].as_str() {
            Some("Deployment") => {
                let args = object["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
                ensure!(args.contains("--hooks=surefoot") && !args.contains("--certificate"), "{args}");
            }
            _ => {
                let from = &object["metadata"]["annotations"]["cert-manager.io/inject-ca-from"];
                ensure!(from == "surefoot-system/surefoot-webhook", "{object}");
            }
        }
    }
    let webhook = base.iter().find(|(name, _)| name.contains("surefoot-webhook") && name.contains("Deployment"));
    let mounted =
        webhook.map(|(_, object)| object["spec"]["template"]["spec"]["volumes"].to_string()).unwrap_or_default();
    let secret =
        new.iter().any(|object| object["spec"]["secretName"].as_str().is_some_and(|name| mounted.contains(name)));
    ensure!(secret, "no certificate is made for the Secret that the webhook mounts");
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
