//! On a real node: what a cluster does to pods of a good version. It is told, never charged, never reverted.

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::node::{Ground, POD, Play, file, set, soon_late};

pub(crate) const PLAYS: &[(&str, Play)] = &[
    ("a_node_that_nobody_has_is_told", unschedulable),
    ("a_quota_is_told", quota),
    ("evictions_are_not_charged", evicted),
];

fn unschedulable() -> Result<String> {
    let mut ground = Ground::settled("unschedulable")?;
    let mut file = soon_late(file("2", "better", &[]));
    set(&mut file, POD, "nodeSelector", json!({"example.com/gpu": "there"}));
    ground.apply(&file)?;
    let told = ground.hindered("unschedulable")?;
    let nodes = ground.scene.plane.get("/api/v1/nodes")?.unwrap_or_default();
    let node = nodes["items"][0]["metadata"]["name"].as_str().context("no node")?;
    ground.scene.plane.admin().run(&["label", "node", node, "example.com/gpu=there"])?.success()?;
    let settled = ground.settles("2")?;
    ground.left_alone()?;
    Ok(format!("{told}; with such a node {settled}"))
}

fn quota() -> Result<String> {
    let mut ground = Ground::settled("quota")?;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "pods"}, "spec": {"hard": {"pods": "2"}}});
    ground.scene.admin.apply(&quota.to_string())?;
    ground.apply(&soon_late(file("2", "better", &[])))?;
    let told = ground.hindered("notMade")?;
    ground.scene.admin.run(&["delete", "resourcequota", "pods"])?.success()?;
    let settled = ground.settles("2")?;
    ground.left_alone()?;
    Ok(format!("{told}; without it {settled}"))
}

/// Both pods of the new version, three times over.
fn evicted() -> Result<String> {
    let mut ground = Ground::settled("evicted")?;
    ground.bakes_long()?;
    ground.apply(&file("2", "better", &[]))?;
    for _ in 0..3 {
        ground.complete("2")?;
        for pod in ground.pods("2")? {
            let name = pod["metadata"]["name"].as_str().context("no name")?;
            let path = format!("/api/v1/namespaces/{}/pods/{name}/eviction", ground.scene.namespace);
            let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
            let answer = ground.scene.plane.post(&path, &eviction.to_string())?;
            ensure!(answer.status == 201, "{} {}", answer.status, answer.body);
        }
    }
    ground.complete("2")?;
    ground.left_alone()?;
    let spent = ground.record()?["current"]["spent"]["failures"].as_u64().unwrap_or_default();
    ensure!(spent == 0, "{spent} charged\n{}", ground.scene.story());
    ground.scene.admin.run(&["label", "namespace", &ground.scene.namespace, "bake-"])?.success()?;
    let settled = ground.settles("2")?;
    Ok(format!("6 evictions, 0 charged; {settled}"))
}
