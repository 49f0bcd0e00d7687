//! The Helm chart: made from the base (`make docs` writes it), and used with the real Helm.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use libtest_mimic::Trial;
use serde_json::json;

use crate::{
    manifests::{objects, rendered},
    schema::{kept, top},
    support::{
        ControlPlane, Look,
        kubectl::{Answer, capture},
        run, tools, until,
    },
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("chart::template_is_fresh", || kept("manifests/chart/templates/surefoot.yaml", &template()?)),
        trial("chart::renders_what_kustomize_renders", the_same),
        trial("chart::is_installed_upgraded_and_uninstalled", a_life),
    ]
}

/// The base's files in their order, with values in the place of what installations differ in.
fn template() -> Result<String> {
    let base = |file: &str| std::fs::read_to_string(top("manifests/base").join(file)).with_context(|| file.to_owned());
    let mut text = "# Written by `make docs` from manifests/base; a test holds it to that.\n".to_owned();
    for file in base("kustomization.yaml")?.lines().filter_map(|line| line.strip_prefix("  - ")) {
        let replaced = match file {
            "webhook.yaml" => part(&base(file)?, "webhook", 3)?,
            "controller.yaml" => part(&base(file)?, "controller", 2)?,
            "config.yaml" => {
                let value = "    {{- toYaml .Values.config | nindent 4 }}\n";
                once(&base(file)?, "    apiVersion: surefoot.dev/v1\n    kind: Config\n", value)?
            }
            _ => base(file)?,
        };
        text.push_str("---\n");
        text.push_str(&replaced);
    }
    Ok(text)
}

fn part(text: &str, name: &str, replicas: u32) -> Result<String> {
    let image = format!("image: localhost/surefoot:{}\n", env!("CARGO_PKG_VERSION"));
    let text = once(text, &image, "image: {{ .Values.image }}\n")?;
    once(&text, &format!("  replicas: {replicas}\n"), &format!("  replicas: {{{{ .Values.{name}.replicas }}}}\n"))
}

fn once(text: &str, from: &str, to: &str) -> Result<String> {
    ensure!(text.matches(from).count() == 1, "{from:?} should be there once");
    Ok(text.replace(from, to))
}

fn helm(plane: Option<&ControlPlane>, args: &[&str]) -> Result<Answer> {
    let mut command = Command::new(tools::helm()?);
    command.args(args).current_dir(top("")).env("HOME", run::subfolder("helm")?);
    if let Some(plane) = plane {
        command.env("KUBECONFIG", plane.admin().kubeconfig());
    }
    capture(command, &format!("helm {}", args.join(" ")), "")
}

/// Without a cluster Helm takes the version that it was built with, and one built from its sources knows none.
const KUBERNETES: &str = "--kube-version=1.33.0";

fn the_same() -> Result<()> {
    let linted = helm(None, &["lint", "--strict", "manifests/chart", KUBERNETES])?.success()?;
    ensure!(!linted.stdout.contains("[WARNING]"), "{linted}");
    let kustomize = objects(&rendered("manifests")?.stdout)?;
    let chart = helm(None, &["template", "surefoot", "manifests/chart", KUBERNETES])?.success()?;
    let chart = objects(&chart.stdout)?;
    ensure!(kustomize.keys().eq(chart.keys()), "{:?}\n{:?}", kustomize.keys(), chart.keys());
    for (name, object) in &chart {
        ensure!(kustomize[name] == *object, "{name} differs:\n{object}\n{}", kustomize[name]);
    }
    // A value that is misspelt is said.
    let wrong = helm(None, &["template", "surefoot", "manifests/chart", KUBERNETES, "--set", "imgae=x"])?.failure()?;
    ensure!(wrong.stderr.contains("imgae"), "{wrong}");
    Ok(())
}

fn a_life() -> Result<()> {
    let plane = ControlPlane::start()?;
    let kubectl = |args: &[&str]| plane.admin().run(args);
    helm(Some(&plane), &["install", "surefoot", "manifests/chart"])?.success()?;
    // What the controller writes there is not taken back by an upgrade.
    let hooks = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/surefoot";
    let ca = std::fs::read_to_string(plane.ca())?;
    let ca = BASE64_STANDARD.encode(ca);
    let patch = json!([{"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": ca}]).to_string();
    kubectl(&["patch", "validatingwebhookconfiguration", "surefoot", "--type=json", "-p", &patch])?.success()?;
    let values = ["--set", "image=localhost/surefoot:next", "--set", "config.policies.images.action=Warn"];
    helm(Some(&plane), &[&["upgrade", "surefoot", "manifests/chart"], &values[..]].concat())?.success()?;
    let object = plane.get(hooks)?.context("no hooks")?;
    ensure!(object["webhooks"][0]["clientConfig"]["caBundle"] == ca.as_str(), "the caBundle is gone");
    let own = "/apis/apps/v1/namespaces/surefoot-system/deployments/surefoot-webhook";
    let image = plane.get(own)?.context("no webhook")?["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    ensure!(image == "localhost/surefoot:next", "{image}");
    let config = kubectl(&["get", "configmap", "surefoot-config", "-n", "surefoot-system", "-o", "yaml"])?.success()?;
    ensure!(config.stdout.contains("action: Warn"), "{config}");

    helm(Some(&plane), &["uninstall", "surefoot"])?.success()?;
    let kinds = "clusterroles,clusterrolebindings,namespaces,validatingadmissionpolicies,\
                 validatingadmissionpolicybindings,mutatingwebhookconfigurations,validatingwebhookconfigurations";
    until("nothing to be left", std::time::Duration::from_secs(60), || {
        let left = kubectl(&["get", kinds, "-o", "name"])?.success()?;
        let left: Vec<_> = left.stdout.lines().filter(|name| name.contains("surefoot")).map(str::to_owned).collect();
        Ok(if left.is_empty() { Look::Done(()) } else { Look::Not(left.join(" ")) })
    })
}
