//! Deployments that trials apply, and what kubectl answers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::support::{Answer, Kubectl, Look, until};

/// A Deployment that no policy has anything to say about, as an object to change.
pub(crate) fn good(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": {"surefoot.dev/model": name, "app.kubernetes.io/version": "1.0.0"}},
        "spec": {
            "replicas": 1, "minReadySeconds": 30,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name, "app.kubernetes.io/version": "1.0.0"}},
                "spec": {"containers": [{
                    "name": "model", "image": "registry.local/model:1.0.0",
                    "ports": [{"containerPort": 8000}],
                    "startupProbe": {"httpGet": {"path": "/ready", "port": 8000}, "failureThreshold": 5},
                    "readinessProbe": {"httpGet": {"path": "/ready", "port": 8000}},
                    "livenessProbe": {"httpGet": {"path": "/live", "port": 8000}, "failureThreshold": 6},
                    "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "10m", "memory": "16Mi"}},
                }]},
            },
        },
    })
}

/// No probes, no limits, `:latest`.
pub(crate) fn bad(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "model", "image": "registry.local/model:latest"}]},
            },
        },
    })
}

pub(crate) fn with(mut object: Value, pointer: &str, value: Value) -> Result<Value> {
    let (parent, key) = pointer.rsplit_once('/').context("no pointer")?;
    object.pointer_mut(parent).with_context(|| format!("nothing at {parent}"))?[key] = value;
    Ok(object)
}

pub(crate) fn create(kubectl: &Kubectl, object: &Value) -> Result<Answer> {
    kubectl.run_with_input(&["create", "-f", "-"], &object.to_string())
}

pub(crate) fn apply(kubectl: &Kubectl, object: &Value) -> Result<Answer> {
    kubectl.run_with_input(&["apply", "-f", "-"], &object.to_string())
}

/// Refused, with each of `says` in what is printed.
pub(crate) fn refused(answer: Answer, says: &[&str]) -> Result<Answer> {
    let answer = answer.failure()?;
    for text in says {
        ensure!(answer.stderr.contains(text), "no {text:?} in: {answer}");
    }
    Ok(answer)
}

/// `kubectl patch deploy NAME` with a merge patch.
pub(crate) fn patch(kubectl: &Kubectl, name: &str, patch: &Value) -> Result<Answer> {
    kubectl.run(&["patch", "deploy", name, "--type=merge", "-p", &patch.to_string()])
}

/// What a command is to come to. A text that begins with `!` must not be there.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// It goes through, without a word.
    Silent,
    /// It goes through, with warnings.
    Warned(&'static [&'static str]),
    /// It is refused.
    Refused(&'static [&'static str]),
}

impl Outcome {
    /// An error with all that was printed, unless it came so.
    pub(crate) fn of(self, answer: Answer) -> Result<()> {
        let (goes_through, warns, says) = match self {
            Self::Silent => (true, false, [].as_slice()),
            Self::Warned(says) => (true, true, says),
            Self::Refused(says) => (false, false, says),
        };
        ensure!(answer.ok() == goes_through, "wanted {self:?}: {answer}");
        ensure!(!goes_through || answer.stderr.contains("Warning: ") == warns, "wanted {self:?}: {answer}");
        for text in says {
            let is_there = |text: &str| answer.stderr.contains(text);
            let is_so = text.strip_prefix('!').map_or_else(|| is_there(text), |text| !is_there(text));
            ensure!(is_so, "{text:?} in: {answer}");
        }
        Ok(())
    }
}

/// Guards a namespace that was not, and waits until the API server and the webhook know.
pub(crate) fn guard(admin: &Kubectl) -> Result<()> {
    let namespace = admin.namespace().context("no namespace")?;
    admin.run(&["label", "namespace", namespace, "surefoot.dev/guard=enforce"])?.success()?;
    until("the namespace to be guarded", Duration::from_secs(30), || {
        let probe = admin.run_with_input(&["create", "--dry-run=server", "-f", "-"], &bad("probe").to_string())?;
        Ok(if probe.ok() { Look::Not(probe.to_string()) } else { Look::Done(()) })
    })
}
