//! Deployments that trials apply, and what kubectl answers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use surefoot::template::{Digest, Json};

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

/// `kubectl replace`, again where the Deployment controller wrote in between.
pub(crate) fn replace(kubectl: &Kubectl, object: &Value) -> Result<Answer> {
    until("nobody else to write", Duration::from_secs(30), || {
        let answer = kubectl.run_with_input(&["replace", "-f", "-"], &object.to_string())?;
        let is_conflict = answer.stderr.contains("(Conflict)");
        Ok(if is_conflict { Look::Not(answer.to_string()) } else { Look::Done(answer) })
    })
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
        // No pod runs here, so no rollout ever settles, and every next one is told so.
        let unsettled = |line: &&str| line.starts_with("Warning: [one-at-a-time/");
        let told: Vec<&str> = answer.stderr.lines().filter(|line| !unsettled(line)).collect();
        let told = told.join("\n");
        ensure!(answer.ok() == goes_through, "wanted {self:?}: {answer}");
        ensure!(!goes_through || told.contains("Warning: ") == warns, "wanted {self:?}: {answer}");
        for text in says {
            let is_there = |text: &str| told.contains(text);
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

/// The digest of a Deployment's pod template, as the API server stores it.
pub(crate) fn digest(deployment: &Value) -> Digest {
    Digest::of_template(&Json::from(deployment["spec"]["template"].clone()))
}

/// What the record of a Deployment says from now on: templates that settled, and one that was reverted. Written as the
/// controller writes it, over whatever there is.
pub(crate) fn remember(admin: &Kubectl, name: &str, settled: &[Digest], reverted: Option<&Digest>) -> Result<()> {
    let namespace = admin.namespace().context("no namespace")?;
    let uid = admin.json(&["deploy", name])?["metadata"]["uid"].clone();
    let settled: Vec<Value> = settled
        .iter()
        .map(|digest| {
            json!({"digest": digest, "version": "1.0.0", "at": "2026-11-22T10:00:00Z",
            "replicaSet": {"name": "set", "uid": "set"}})
        })
        .collect();
    let reverts: Vec<Value> = reverted
        .iter()
        .map(|digest| {
            json!({"digest": digest, "version": "2.0.0", "at": "2026-11-22T14:21:48Z",
            "outcome": "written", "class": "application",
            "evidence": {"failures": 12, "attempts": 30, "budget": 10, "since": "2026-11-22T14:21:07Z",
                "until": "2026-11-22T14:21:48Z", "container": "model", "signal": "readiness", "message": "HTTP 503"}})
        })
        .collect();
    let record = json!({"version": 1, "namespace": namespace, "name": name, "uid": uid,
        "settled": settled, "reverts": reverts});
    write_record(admin, name, &record.to_string())
}

/// Any text as the record of a Deployment.
pub(crate) fn write_record(admin: &Kubectl, name: &str, text: &str) -> Result<()> {
    let namespace = admin.namespace().context("no namespace")?;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": format!("record.{namespace}.{name}"),
            "labels": {"surefoot.dev/record": "true", "surefoot.dev/record-namespace": namespace}},
        "data": {"record.json": text}});
    let own = admin.in_namespace("surefoot-system");
    own.run_with_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], &object.to_string())?.success()?;
    Ok(())
}

/// `surefoot.dev/override=…` that ends so many hours from now.
pub(crate) fn override_for(hours: i64, reason: &str) -> String {
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours);
    format!("surefoot.dev/override={} {reason}", until.strftime("%Y-%m-%dT%H:%MZ"))
}
