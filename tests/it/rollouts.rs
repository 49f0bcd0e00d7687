//! Rollouts on a real node: containers whose probes really fail, and what the controller makes of it.
//!
//! Each scenario has a namespace of its own on the shared cluster. The good version settles, another one follows, and
//! whatever happens, nobody touches `spec.replicas`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    node_trial,
    shared::{self, program},
    support::{Answer, ControlPlane, Kubectl, Look, Surefoot, image::digits, until},
};

/// Longer than any of it takes here, on a machine that has other things to do.
const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        node_trial("rollouts::never_ready_is_reverted", || reverted("never-ready", "broken", &[])),
        node_trial("rollouts::a_missed_deadline_is_reverted", a_missed_deadline_is_reverted),
        node_trial("rollouts::a_crash_is_reverted", || reverted("crash", "crash", &[])),
        node_trial("rollouts::out_of_memory_is_reverted", || reverted("memory", "4.0.0", &[])),
        node_trial("rollouts::failing_liveness_is_reverted", || reverted("liveness", "hung", &[])),
        node_trial("rollouts::a_late_failure_is_reverted", a_late_failure_is_reverted),
        node_trial("rollouts::a_healthy_version_settles", a_healthy_version_settles),
        node_trial("rollouts::a_bad_first_version_is_left_and_said", a_bad_first_version_is_left_and_said),
        node_trial("rollouts::a_bad_canary_is_withdrawn", a_bad_canary_is_withdrawn),
        node_trial("rollouts::the_reverted_template_is_refused", the_reverted_template_is_refused),
        node_trial("rollouts::the_fix_runs_as_written_by_client_side_apply", || {
            the_fix_runs_as_written("fix-client", Scene::apply)
        }),
        node_trial("rollouts::the_fix_runs_as_written_by_server_side_apply", || {
            the_fix_runs_as_written("fix-server", Scene::apply_server_side)
        }),
        node_trial("rollouts::undo_to_the_settled_template_is_admitted", undo_is_admitted),
    ]
}

/// One model in a namespace of its own.
pub(crate) struct Scene {
    pub(crate) plane: &'static ControlPlane,
    pub(crate) admin: Kubectl,
    /// A developer.
    pub(crate) ana: Kubectl,
    pub(crate) namespace: String,
}

impl Scene {
    /// In a namespace of its own on the shared cluster.
    fn set(name: &str) -> Result<Self> {
        Self::with_labels(name, "surefoot.dev/guard: enforce")
    }

    /// The same with any labels of the namespace, in YAML.
    pub(crate) fn with_labels(name: &str, labels: &str) -> Result<Self> {
        let plane = shared::node()?;
        drop(shared::surefoot_on_node()?);
        let namespace = format!("rollouts-{name}");
        let (admin, ana) = shared::labelled_namespace(plane, &namespace, labels)?;
        Ok(Self { plane, admin, ana, namespace })
    }

    /// The same with the good version settled.
    fn settled(name: &str) -> Result<Self> {
        let scene = Self::set(name)?;
        scene.apply(&model("good", &[]))?.success()?;
        scene.settles()?;
        Ok(scene)
    }

    pub(crate) fn apply(&self, manifest: &Value) -> Result<Answer> {
        self.ana.run_with_input(&["apply", "-f", "-"], &manifest.to_string())
    }

    fn apply_server_side(&self, manifest: &Value) -> Result<Answer> {
        let args = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.ana.run_with_input(&args, &manifest.to_string())
    }

    pub(crate) fn surefoot(&self, args: &[&str]) -> Result<Answer> {
        let mut all = args.to_vec();
        all.extend_from_slice(&["-n", &self.namespace]);
        let (program, kubeconfig) = (program(), self.admin.kubeconfig());
        Surefoot::run_program(program, kubeconfig, &all)
    }

    pub(crate) fn settles(&self) -> Result<Answer> {
        self.surefoot(&["wait", "deploy/digits", "--for", "settled", "--timeout", "120s"])?.success()
    }

    pub(crate) fn deployment(&self, name: &str) -> Result<Value> {
        let path = format!("/apis/apps/v1/namespaces/{}/deployments/{name}", self.namespace);
        self.plane.get(&path)?.with_context(|| format!("{name} is gone"))
    }

    /// Waits until the Deployment fulfils a condition.
    pub(crate) fn until(&self, what: &str, name: &str, holds: impl Fn(&Value) -> bool) -> Result<Value> {
        until(what, LIMIT, || {
            let deployment = self.deployment(name)?;
            Ok(if holds(&deployment) { Look::Done(deployment) } else { Look::Not(deployment["status"].to_string()) })
        })
        .map_err(|error| anyhow::anyhow!("{error:#}\n{}", self.story()))
    }

    /// Waits until the good version is back, alone and ready.
    fn reverted(&self) -> Result<Value> {
        self.until("the good version to be back", "digits", |digits| {
            let status = &digits["status"];
            image_of(digits) == self::digits("good")
                && status["observedGeneration"] == digits["metadata"]["generation"]
                && [&status["replicas"], &status["updatedReplicas"], &status["availableReplicas"]]
                    .iter()
                    .all(|n| **n == 2)
        })
    }

    fn events(&self) -> Result<Vec<Value>> {
        let events = self.admin.json(&["events"])?;
        Ok(events["items"].as_array().cloned().unwrap_or_default())
    }

    pub(crate) fn events_with(&self, reason: &str) -> Result<Vec<Value>> {
        Ok(self.events()?.into_iter().filter(|event| event["reason"] == reason).collect())
    }

    /// What there is to read when a scenario fails.
    pub(crate) fn story(&self) -> String {
        let status = self.surefoot(&["status", "digits"]).map(|answer| answer.to_string());
        let pods = self.admin.run(&["get", "pods,replicasets"]).map(|answer| answer.to_string());
        let tails = shared::surefoot_on_node().map(|surefoot| surefoot.tails());
        [status, pods, tails].map(|part| part.unwrap_or_else(|error| format!("{error:#}"))).join("\n")
    }
}

/// Gives the node back: its pods would take time from the others' probes.
impl Drop for Scene {
    fn drop(&mut self) {
        let deleted = self.admin.run(&["delete", "deploy", "--all", "--wait=false"]);
        if let Err(error) = deleted.and_then(Answer::success) {
            eprintln!("{}: {error:#}", self.namespace);
        }
    }
}

/// A model server of a version; `changes` are laid over it by JSON pointer.
pub(crate) fn model(version: &str, changes: &[(&str, Value)]) -> Value {
    let probe = |path: &str, threshold: u32| json!({"httpGet": {"path": path, "port": 8000}, "periodSeconds": 1, "failureThreshold": threshold});
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "digits", "labels": {"surefoot.dev/model": "digits", "app.kubernetes.io/version": version}},
        "spec": {
            "replicas": 2,
            "minReadySeconds": 1,
            "progressDeadlineSeconds": 60,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}},
            "selector": {"matchLabels": {"app": "digits"}},
            "template": {
                "metadata": {"labels": {"app": "digits", "app.kubernetes.io/version": version}},
                "spec": {
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 1,
                    "containers": [{
                        "name": "model", "image": digits(version),
                        "ports": [{"containerPort": 8000}],
                        "startupProbe": probe("/v2/health/ready", 5),
                        "readinessProbe": probe("/v2/health/ready", 1),
                        "livenessProbe": probe("/v2/health/live", 3),
                        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}},
                    }],
                },
            },
        },
    });
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap_or_default();
        if let Some(parent) = object.pointer_mut(parent) {
            parent[key] = value.clone();
        }
    }
    object
}

pub(crate) fn image_of(deployment: &Value) -> &str {
    deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default()
}

/// The good version settles, the bad one is admitted, and the good one comes back with an Event that says why.
fn reverted(name: &str, bad: &str, changes: &[(&str, Value)]) -> Result<()> {
    let scene = Scene::settled(name)?;
    scene.apply(&model(bad, changes))?.success()?;
    let back = scene.reverted()?;
    ensure!(back["spec"]["replicas"] == 2, "replicas were touched: {}", back["spec"]["replicas"]);
    let events = scene.events_with("RolloutReverted")?;
    ensure!(events.len() == 1, "{} events say RolloutReverted: {events:?}", events.len());
    let message = events[0]["message"].as_str().unwrap_or_default();
    ensure!(message.contains(bad) && message.contains("good"), "the Event does not name both versions: {message}");
    let wait = scene.surefoot(&["wait", "deploy/digits", "--for", "settled", "--timeout", "60s"])?;
    ensure!(wait.code == 1, "a pipeline would not learn of it: {wait}");
    Ok(())
}

/// Without a startup probe nothing but the deadline tells that a pod will never be ready.
fn a_missed_deadline_is_reverted() -> Result<()> {
    let deadline = ("/spec/progressDeadlineSeconds", json!(10));
    let no_startup = ("/spec/template/spec/containers/0/startupProbe", Value::Null);
    reverted("deadline", "broken", &[deadline, no_startup])
}

fn a_late_failure_is_reverted() -> Result<()> {
    let scene = Scene::settled("late")?;
    scene.apply(&model("late", &[]))?.success()?;
    scene.until("Kubernetes to say that all went well", "digits", |digits| {
        let conditions = digits["status"]["conditions"].as_array();
        digits["status"]["observedGeneration"] == digits["metadata"]["generation"]
            && conditions.into_iter().flatten().any(|one| one["reason"] == "NewReplicaSetAvailable")
            && image_of(digits) == self::digits("late")
    })?;
    let back = scene.reverted()?;
    ensure!(back["spec"]["replicas"] == 2, "replicas were touched");
    ensure!(scene.events_with("RolloutReverted")?.len() == 1, "no Event, or more than one");
    Ok(())
}

fn a_healthy_version_settles() -> Result<()> {
    let scene = Scene::settled("healthy")?;
    scene.apply(&model("better", &[]))?.success()?;
    scene.settles()?;
    let deployment = scene.deployment("digits")?;
    ensure!(image_of(&deployment) == digits("better"), "{} is running", image_of(&deployment));
    ensure!(scene.events_with("RolloutReverted")?.is_empty(), "something was reverted");
    Ok(())
}

fn a_bad_first_version_is_left_and_said() -> Result<()> {
    let scene = Scene::set("first")?;
    scene.apply(&model("broken", &[]))?.success()?;
    until("the stall to be said", LIMIT, || {
        let status = scene.surefoot(&["status", "digits"])?;
        Ok(if status.stdout.contains("stalled") { Look::Done(()) } else { Look::Not(status.to_string()) })
    })?;
    let deployment = scene.deployment("digits")?;
    ensure!(image_of(&deployment) == digits("broken") && deployment["spec"]["replicas"] == 2, "it was changed");
    Ok(())
}

fn a_bad_canary_is_withdrawn() -> Result<()> {
    let scene = Scene::settled("canary")?;
    let mut canary = model(
        "broken",
        &[
            ("/metadata/name", json!("digits-canary")),
            ("/spec/replicas", json!(1)),
            ("/spec/selector/matchLabels/app", json!("canary")),
            ("/spec/template/metadata/labels/app", json!("canary")),
        ],
    );
    canary["metadata"]["labels"]["surefoot.dev/track"] = json!("canary");
    scene.apply(&canary)?.success()?;
    scene.until("the canary to be scaled to 0", "digits-canary", |canary| canary["spec"]["replicas"] == 0)?;
    let stable = scene.deployment("digits")?;
    ensure!(stable["spec"]["replicas"] == 2 && image_of(&stable) == digits("good"), "the stable one was touched");
    // The template is quarantined: giving it pods again is refused.
    scene.ana.run(&["scale", "deploy/digits-canary", "--replicas=1"])?.failure()?;
    Ok(())
}

fn the_reverted_template_is_refused() -> Result<()> {
    let scene = Scene::settled("again")?;
    scene.apply(&model("crash", &[]))?.success()?;
    scene.reverted()?;
    for answer in [scene.apply(&model("crash", &[]))?, scene.apply_server_side(&model("crash", &[]))?] {
        let text = answer.failure()?.stderr;
        ensure!(text.contains("quarantine") && text.contains("crash"), "no evidence: {text}");
    }
    ensure!(image_of(&scene.deployment("digits")?) == digits("good"), "the refused template is there");
    Ok(())
}

/// Nothing of the good version is left over, nothing of the file is missing.
fn the_fix_runs_as_written(name: &str, apply: fn(&Scene, &Value) -> Result<Answer>) -> Result<()> {
    let environment = |name: &str| [("/spec/template/spec/containers/0/env", json!([{"name": name, "value": "1"}]))];
    let scene = Scene::set(name)?;
    apply(&scene, &model("good", &environment("ONLY_IN_GOOD")))?.success()?;
    scene.settles()?;
    apply(&scene, &model("crash", &environment("ONLY_IN_BAD")))?.success()?;
    scene.reverted()?;
    let mut fix = model("better", &[]);
    apply(&scene, &fix)?.success()?;
    let stored = &scene.deployment("digits")?["spec"]["template"];
    ensure!(stored["spec"]["containers"][0]["image"] == digits("better"), "the fix is not there: {stored}");
    // A twin that never had another version is what the file means.
    fix["metadata"]["name"] = json!("twin");
    apply(&scene, &fix)?.success()?;
    let twin = &scene.deployment("twin")?["spec"]["template"];
    ensure!(stored == twin, "not what the file says: {stored}\nbut: {twin}");
    Ok(())
}

fn undo_is_admitted() -> Result<()> {
    let scene = Scene::settled("undo")?;
    scene.apply(&model("better", &[]))?.success()?;
    scene.settles()?;
    scene.ana.run(&["rollout", "undo", "deploy/digits"])?.success()?;
    scene.reverted()?;
    ensure!(scene.events_with("RolloutReverted")?.is_empty(), "surefoot reverted something");
    Ok(())
}
