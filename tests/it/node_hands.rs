//! On a real node: people who do something in the middle of a rollout, and a good version that is good no longer.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::node::{CONTAINER, Ground, Play, Verdict, file, reverts, runs, set};

pub(crate) const PLAYS: &[(&str, Play)] = &[
    ("paused_in_the_middle_waits_for_the_resume", paused),
    ("scaled_in_the_middle_keeps_the_new_scale", scaled),
    ("the_bake_stands_still_at_zero", zero),
    ("a_good_one_right_after_a_bad_one_settles", good_after_bad),
    ("a_bad_one_right_after_a_good_one_goes_back_to_the_settled", bad_after_good),
    ("an_undo_in_the_middle_is_all_there_is", undone),
    ("a_good_version_that_fails_too_stalls", good_fails_too),
    ("the_same_template_failing_by_its_configmap_stalls", same_template),
    ("a_canary_and_its_stable_at_once", canary_and_stable),
];

const CRASH: Verdict = Verdict::of(&["crash"]);

fn crash(version: &str) -> Value {
    file(version, "crash", &[])
}

fn paused() -> Result<String> {
    let mut ground = Ground::settled("paused")?;
    ground.apply(&crash("2"))?;
    ground.has_pods("2")?;
    ground.scene.ana.run(&["rollout", "pause", "deploy/digits"])?.success()?;
    let stalled = ground.stalls("Paused")?;
    ground.left_alone()?;
    runs(&ground, "crash")?;
    ground.begun = std::time::Instant::now();
    ground.scene.ana.run(&["rollout", "resume", "deploy/digits"])?.success()?;
    let told = ground.reverted(&CRASH)?;
    Ok(format!("{stalled}; resumed, {told}"))
}

fn scaled() -> Result<String> {
    let mut ground = Ground::settled("scaled")?;
    ground.apply(&crash("2"))?;
    ground.has_pods("2")?;
    ground.scene.ana.run(&["scale", "deploy/digits", "--replicas=3"])?.success()?;
    ground.reverted(&Verdict { replicas: 3, ..CRASH })
}

fn zero() -> Result<String> {
    let mut ground = Ground::settled("zero")?;
    ground.apply(&file("2", "better", &[]))?;
    ground.complete("2")?;
    ground.scene.ana.run(&["scale", "deploy/digits", "--replicas=0"])?.success()?;
    ground.stays_for(15, || {
        let record = ground.record()?;
        ensure!(record["settled"][0]["version"] == "1", "settled without a pod: {record}");
        Ok(())
    })?;
    ground.scene.ana.run(&["scale", "deploy/digits", "--replicas=2"])?.success()?;
    let told = ground.settles("2")?;
    ground.left_alone()?;
    Ok(format!("{told}, 15 s of them at 0 replicas"))
}

fn good_after_bad() -> Result<String> {
    let mut ground = Ground::settled("good-after-bad")?;
    ground.apply(&crash("2"))?;
    ground.apply(&file("3", "better", &[]))?;
    let told = ground.settles("3")?;
    ground.left_alone()?;
    Ok(told)
}

fn bad_after_good() -> Result<String> {
    let mut ground = Ground::settled("bad-after-good")?;
    ground.apply(&file("2", "better", &[]))?;
    ground.apply(&crash("3"))?;
    ground.reverted(&CRASH)
}

fn undone() -> Result<String> {
    let mut ground = Ground::settled("undone")?;
    ground.apply(&crash("2"))?;
    ground.has_pods("2")?;
    ground.scene.ana.run(&["rollout", "undo", "deploy/digits"])?.success()?;
    ground.complete("1")?;
    ground.stays_for(15, || ground.left_alone())?;
    runs(&ground, "good")?;
    let told = format!("not a revert of ours, nothing quarantined, {:.1} s", ground.seconds());
    // So it may come back.
    ground.apply(&crash("2"))?;
    let reverted = ground.reverted(&CRASH)?;
    Ok(format!("{told}; applied again, {reverted}"))
}

/// Its container crashes so long after its start as a ConfigMap says; 0 is never.
fn configured(version: &str) -> Value {
    let mut file = file(version, "good", &["--crash-after=$(AFTER)"]);
    let after = json!({"name": "AFTER", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "after"}}});
    set(&mut file, CONTAINER, "env", json!([after]));
    file
}

fn configure(ground: &Ground, after: &str) -> Result<()> {
    let object =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"after": after}});
    ground.scene.admin.apply(&object.to_string()).map(drop)
}

fn good_fails_too() -> Result<String> {
    // The old pods go first, so the good version has to start anew.
    let recreate = |mut file: Value| {
        set(&mut file, "/spec", "strategy", json!({"type": "Recreate"}));
        file
    };
    let mut ground = Ground::bare("good-fails")?;
    configure(&ground, "0s")?;
    ground.apply(&recreate(configured("1")))?;
    ground.settles("1")?;
    configure(&ground, "1s")?;
    ground.apply(&recreate(crash("2")))?;
    let told = ground.stalls("SameTemplate")?;
    let generation = ground.scene.deployment("digits")?["metadata"]["generation"].clone();
    ground.stays_for(15, || {
        let (record, now) = (ground.record()?, ground.scene.deployment("digits")?["metadata"]["generation"].clone());
        ensure!(reverts(&record) == 1 && now == generation, "back and forth: {record}\n{}", ground.scene.story());
        Ok(())
    })?;
    runs(&ground, "good")?;
    Ok(format!("one revert, then {told}"))
}

fn same_template() -> Result<String> {
    let mut ground = Ground::bare("same")?;
    configure(&ground, "0s")?;
    ground.apply(&configured("1"))?;
    ground.settles("1")?;
    configure(&ground, "1s")?;
    ground.begun = std::time::Instant::now();
    ground.scene.ana.run(&["rollout", "restart", "deploy/digits"])?.success()?;
    let told = ground.stalls("SameTemplate")?;
    ground.left_alone()?;
    Ok(told)
}

fn canary_and_stable() -> Result<String> {
    let mut ground = Ground::settled("both")?;
    let mut canary = file("3", "crash", &[]);
    for (at, key, value) in [
        ("/metadata", "name", "digits-canary"),
        ("/metadata/labels", "surefoot.dev/track", "canary"),
        ("/spec/selector/matchLabels", "app", "canary"),
        ("/spec/template/metadata/labels", "app", "canary"),
    ] {
        set(&mut canary, at, key, json!(value));
    }
    set(&mut canary, "/spec", "replicas", json!(1));
    ground.apply(&crash("2"))?;
    ground.scene.apply(&canary)?.success()?;
    let told = ground.reverted(&CRASH)?;
    ground.scene.until("the canary to be scaled to 0", "digits-canary", |canary| canary["spec"]["replicas"] == 0)?;
    let record = ground.record_of("digits-canary")?;
    ensure!(reverts(&record) == 1 && record["reverts"][0].get("target").is_none(), "{record}");
    let withdrawn = ground.seconds();
    Ok(format!("canary withdrawn after {withdrawn:.1} s; stable {told}"))
}
