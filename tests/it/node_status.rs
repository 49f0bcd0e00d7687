//! What befalls nodes and pods that no kubelet can be made to do: their statuses are written instead. It is told, never
//! charged, never reverted, and the version settles when it is over. Budget: 3.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    stage::{Stage, version_of},
    support::Look,
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    type Play = (&'static str, fn() -> Result<()>);
    let plays: [Play; 5] = [
        ("a_node_that_is_not_ready_is_told", not_ready),
        ("a_reboot_is_not_charged", rebooted),
        ("a_preemption_is_not_charged", || disrupted("preempted", "PreemptionByScheduler")),
        ("an_eviction_under_pressure_is_not_charged", || disrupted("pressed", "TerminationByKubelet")),
        ("the_same_restarts_without_all_that_are_reverted", charged),
    ];
    plays.map(|(name, play)| trial(&format!("node_status::{name}"), play)).into()
}

/// So long would be more than the budget.
const LONGER: Duration = Duration::from_secs(6);

/// Version 1 has settled; version 2 is complete, and bakes until it is told to settle.
fn baking(name: &str) -> Result<Stage> {
    let stage = Stage::new(&format!("status-{name}"))?;
    stage.start()?;
    node(&stage, &json!({"nodeInfo": info("first")}))?;
    stage.settle()?;
    bake(&stage, json!("long"))?;
    stage.apply("2")?;
    stage.ready("2")?;
    stage.record_when("version 2 to bake", |record| record["current"]["completed"] != Value::Null)?;
    Ok(stage)
}

fn bake(stage: &Stage, length: Value) -> Result<()> {
    let labels = json!({"metadata": {"labels": {"bake": length}}});
    stage.plane().patch(&format!("/api/v1/namespaces/{}", stage.name), &labels).map(drop)
}

fn info(boot: &str) -> Value {
    json!({"bootID": boot, "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "", "kubeProxyVersion": "",
        "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""})
}

fn node(stage: &Stage, status: &Value) -> Result<()> {
    let path = format!("/api/v1/nodes/{}/status", stage.name);
    stage.plane().patch(&path, &json!({"status": status})).map(drop)
}

fn node_is(stage: &Stage, ready: bool) -> Result<()> {
    let now = format!("{:.0}", jiff::Timestamp::now());
    let status = if ready { "True" } else { "False" };
    node(
        stage,
        &json!({"conditions": [{"type": "Ready", "status": status, "reason": "Trial", "message": "",
        "lastHeartbeatTime": now, "lastTransitionTime": now}]}),
    )
}

/// Nothing is done for longer than the budget would last.
fn left_alone(stage: &Stage) -> Result<()> {
    let begun = Instant::now();
    stage.until("time to pass", || {
        let (record, version) = (stage.record()?, version_of(&stage.deployment()?).to_owned());
        ensure!(record.get("reverts").is_none_or(|all| *all == json!([])) && version == "2", "{record}");
        ensure!(record["current"].get("stall").is_none(), "{record}");
        Ok(if begun.elapsed() > LONGER { Look::Done(()) } else { Look::Not(String::new()) })
    })
}

/// All is well again: version 2 settles, with nothing charged.
fn settles(stage: &Stage, what: &str, begun: Instant) -> Result<()> {
    let spent = stage.record()?["current"]["spent"]["failures"].as_u64().unwrap_or_default();
    bake(stage, Value::Null)?;
    let record = stage.record_when("version 2 to settle", |record| record["settled"][0]["version"] == "2")?;
    ensure!(record.get("reverts").is_none_or(|all| *all == json!([])), "{record}");
    ensure!(stage.events("RolloutReverted")?.is_empty(), "{record}");
    let seconds = begun.elapsed().as_secs_f32();
    println!("{what:<24} not reverted, {spent} charged against 3, version 2 settled {seconds:.1} s after it began");
    ensure!(spent <= 1, "{spent} charged: {record}");
    stage.stop()
}

fn not_ready() -> Result<()> {
    let stage = baking("not-ready")?;
    let begun = Instant::now();
    node_is(&stage, false)?;
    stage.say("2", false, 0)?;
    let told = |record: &Value| record["current"]["hindrance"]["reason"] == "nodeNotReady";
    stage.record_when("that a node is not ready", told)?;
    // Nobody saw why it restarted.
    stage.say("2", false, 2)?;
    left_alone(&stage)?;
    node_is(&stage, true)?;
    stage.say("2", true, 2)?;
    settles(&stage, "node not ready", begun)
}

fn rebooted() -> Result<()> {
    let stage = baking("rebooted")?;
    let begun = Instant::now();
    let pod = pod(&stage)?;
    let now = format!("{:.0}", jiff::Timestamp::now());
    node(&stage, &json!({"nodeInfo": info("second")}))?;
    // It runs again, and loads.
    says(&stage, &pod, 1, &json!({"running": {"startedAt": now}}), None)?;
    left_alone(&stage)?;
    stage.say("2", true, 1)?;
    settles(&stage, "node rebooted", begun)
}

/// `reason`: of the condition that says that somebody else ended the pod.
fn disrupted(name: &str, reason: &str) -> Result<()> {
    let stage = baking(name)?;
    let begun = Instant::now();
    let pod = pod(&stage)?;
    says(&stage, &pod, 5, &json!({"terminated": killed()}), Some(reason))?;
    left_alone(&stage)?;
    stage.plane().delete(&format!("/api/v1/namespaces/{}/pods/{pod}", stage.name))?;
    stage.ready("2")?;
    settles(&stage, reason, begun)
}

/// The pod of version 2.
fn pod(stage: &Stage) -> Result<String> {
    let path = format!("/api/v1/namespaces/{}/pods?labelSelector=app.kubernetes.io/version=2", stage.name);
    let found = stage.plane().get(&path)?.unwrap_or_default();
    Ok(found["items"][0]["metadata"]["name"].as_str().context("no pod")?.to_owned())
}

fn killed() -> Value {
    let now = format!("{:.0}", jiff::Timestamp::now());
    json!({"exitCode": 137, "reason": "Error", "startedAt": now, "finishedAt": now})
}

/// A pod is unready, its container was killed so often and is in this state. `reason`: see [`disrupted`].
fn says(stage: &Stage, pod: &str, restarts: u32, state: &Value, reason: Option<&str>) -> Result<()> {
    let now = format!("{:.0}", jiff::Timestamp::now());
    let condition = |kind: &str, status: &str, reason: &str| json!({"type": kind, "status": status, "reason": reason, "lastTransitionTime": now});
    let mut conditions = vec![
        condition("PodScheduled", "True", ""),
        condition("Initialized", "True", ""),
        condition("ContainersReady", "False", ""),
        condition("Ready", "False", ""),
    ];
    conditions.extend(reason.map(|reason| condition("DisruptionTarget", "True", reason)));
    let status = json!({"conditions": conditions,
        "containerStatuses": [{"name": "model", "image": "model", "imageID": "model", "ready": false, "started": true,
            "restartCount": restarts, "state": state, "lastState": {"terminated": killed()}}]});
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/status", stage.name);
    stage.plane().patch(&path, &json!({"status": status})).map(drop)
}

/// What all the others would come to.
fn charged() -> Result<()> {
    let stage = baking("charged")?;
    stage.crash("2")?;
    stage.record_when("the revert", |record| record["reverts"][0]["outcome"] == "written")?;
    stage.stop()
}
