//! What a cluster may hold that nobody should have made, and what is gone when somebody comes to look: never a crash, never
//! a revert on doubt. Without a kubelet: pods are what the trial says they are.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    relay::Fate,
    stage::{Stage, version_of},
    support::Look,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    // Each is asked once while version 2 is reverted, in this order.
    let asked = [
        "GET pods",
        "GET deployments",
        "GET replicasets",
        "PATCH deployments dry run",
        "PUT configmaps",
        "PATCH deployments",
        "POST events",
    ];
    let gone = asked.into_iter().enumerate().map(|(nth, kind)| {
        let name = format!("odd::gone_before_{}", kind.to_lowercase().replace(' ', "_"));
        trial(&name, move || gone_before(nth, kind))
    });
    gone.chain([
        trial("odd::replica_sets_of_nobody", sets_of_nobody),
        trial("odd::a_megabyte_of_template", a_megabyte),
        trial("odd::made_again_and_failing", made_again),
    ])
    .collect()
}

/// The Deployment is deleted when the controller has just seen it, and made again under the same name: it is another one,
/// and what was to be done to the first is not done to it.
fn gone_before(nth: usize, kind: &'static str) -> Result<()> {
    let stage = Stage::new(&format!("odd-gone-{nth}"))?;
    stage.start()?;
    stage.settle()?;
    let (plane, path, deleted) = (stage.plane(), stage.path(), Arc::new(AtomicBool::new(false)));
    let first = deleted.clone();
    stage.relay.rule(move |asked| {
        if asked.kind() == kind && !first.swap(true, Relaxed) {
            let _seen_below = plane.delete(&path);
        }
        Fate::Pass
    });
    stage.apply("2")?;
    stage.crash("2")?;
    stage.until("it to be gone", || {
        let gone = deleted.load(Relaxed) && stage.plane().get(&stage.path())?.is_none();
        Ok(if gone { Look::Done(()) } else { Look::Not(stage.record()?.to_string()) })
    })?;
    stage.apply("3")?;
    stage.ready("3")?;
    stage.record_when("version 3 to settle", |record| record["settled"][0]["version"] == "3")?;
    let (deployment, record) = (stage.deployment()?, stage.record()?);
    ensure!(version_of(&deployment) == "3" && deployment["metadata"]["generation"] == 1, "{deployment}");
    ensure!(record["uid"] == deployment["metadata"]["uid"] && record["settled"][1].is_null(), "{record}");
    stage.stop()
}

/// Of those that lie beside the Deployment's own: without an owner, of another Deployment that had its name, of another kind.
fn sets_of_nobody() -> Result<()> {
    let stage = Stage::new("odd-sets")?;
    stage.start()?;
    stage.settle()?;
    let good = stage.deployment()?["spec"]["template"].clone();
    let uid = "00000000-0000-0000-0000-000000000001";
    let owner =
        |kind: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": "digits", "uid": uid, "controller": true}]);
    for (name, owners, app) in [
        ("orphan", json!([]), "apart"),
        ("formerly", owner("Deployment"), "digits"),
        ("other-kind", owner("StatefulSet"), "digits"),
    ] {
        let mut template = good.clone();
        template["metadata"]["labels"]["app"] = json!(app);
        let set = json!({"metadata": {"name": format!("digits-{name}"), "ownerReferences": owners, "labels": {"app": app}},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"app": app}}, "template": template}});
        let sets = format!("/apis/apps/v1/namespaces/{}/replicasets", stage.name);
        let answer = stage.plane().post(&sets, &set.to_string())?;
        ensure!(answer.status == 201, "{name}: {} {}", answer.status, answer.body);
    }
    stage.apply("2")?;
    stage.crash("2")?;
    stage.reverted_once()
}

/// About as much as etcd takes.
fn a_megabyte() -> Result<()> {
    let stage = Stage::new("odd-large")?;
    stage.apply("0")?;
    let large = |version: &str| {
        let env: Vec<Value> =
            (0..10).map(|nth| json!({"name": format!("FILLING_{nth}"), "value": version.repeat(110_000)})).collect();
        let mut container = container_of(&stage.deployment()?).clone();
        container["image"] = json!(format!("registry.local/digits:{version}"));
        container["env"] = json!(env);
        let labels = json!({"labels": {"app.kubernetes.io/version": version}});
        let template = json!({"metadata": labels, "spec": {"containers": [container]}});
        stage.patch(&json!({"metadata": labels, "spec": {"template": template}}))
    };
    large("1")?;
    stage.start()?;
    stage.ready("1")?;
    stage.record_when("version 1 to settle", |record| record["settled"][0]["version"] == "1")?;
    large("2")?;
    stage.crash("2")?;
    stage.reverted_once()
}

fn container_of(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["containers"][0]
}

/// What settled under its name settled in another Deployment.
fn made_again() -> Result<()> {
    let stage = Stage::new("odd-again")?;
    stage.start()?;
    stage.settle()?;
    let uid = stage.deployment()?["metadata"]["uid"].clone();
    stage.plane().delete(&stage.path())?;
    stage.until("it to be gone", || {
        let found = stage.plane().get(&stage.path())?;
        Ok(found.map_or(Look::Done(()), |found| Look::Not(found["metadata"].to_string())))
    })?;
    stage.apply("2")?;
    stage.crash("2")?;
    let stalled = |record: &Value| record["current"]["stall"]["reason"] == "NothingSettled";
    let record = stage.record_when("it to be left", stalled)?;
    let deployment = stage.deployment()?;
    ensure!(record["uid"] != uid && record["reverts"].get(0).is_none(), "{record}");
    ensure!(version_of(&deployment) == "2" && deployment["metadata"]["generation"] == 1, "{deployment}");
    let status = stage.status()?;
    ensure!(status.stdout.contains("stalled"), "{status}");
    stage.stop().context("the controller")
}
