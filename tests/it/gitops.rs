//! A tool that keeps applying what is in Git, whatever the cluster says: Argo CD as a client-side apply, Flux as a
//! server-side one. Without a kubelet: pods are what the trial says they are.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{
    models::good,
    shared,
    stage::{LIMIT, Stage, managers, version_of},
    support::{Answer, Kubectl, Look, until},
    trial,
};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("gitops::refused_for_ever_client_side", || refused_for_ever("gitops-argo", CLIENT_SIDE)),
        trial("gitops::refused_for_ever_server_side", || refused_for_ever("gitops-flux", SERVER_SIDE)),
        trial("gitops::without_the_webhook_it_is_reverted_three_times", three_times),
    ]
}

const CLIENT_SIDE: &[&str] = &["apply", "-f", "-"];
const SERVER_SIDE: &[&str] =
    &["apply", "--server-side", "--force-conflicts", "--field-manager=kustomize-controller", "-f", "-"];

/// How often and how long the tool tries. Faster than any does, for minutes' worth of its tries.
const BEAT: Duration = Duration::from_millis(500);
const LASTS: Duration = Duration::from_secs(30);

/// One Deployment in a namespace of the shared surefoot, and the tool that applies it.
struct Play {
    name: &'static str,
    how: &'static [&'static str],
    admin: Kubectl,
}

impl Play {
    fn new(name: &'static str, how: &'static [&'static str]) -> Result<Self> {
        let (admin, _) = shared::namespace(shared::plane()?, name, "enforce")?;
        let now = format!("{:.0}", jiff::Timestamp::now());
        let ready = json!({"type": "Ready", "status": "True", "reason": "Trial", "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now});
        // Nothing of other trials is to be put there.
        let taint = json!({"key": "trial", "value": name, "effect": "NoSchedule"});
        let node = json!({"metadata": {"name": name}, "spec": {"taints": [taint]}, "status": {"conditions": [ready]}});
        let answer = shared::plane()?.post("/api/v1/nodes", &node.to_string())?;
        ensure!(answer.status == 201, "{} {}", answer.status, answer.body);
        Ok(Self { name, how, admin })
    }

    fn file(&self, version: &str) -> Value {
        let mut file = good("digits");
        file["metadata"]["labels"]["app.kubernetes.io/version"] = json!(version);
        let template = &mut file["spec"]["template"];
        template["metadata"]["labels"]["app.kubernetes.io/version"] = json!(version);
        template["spec"]["nodeName"] = json!(self.name);
        template["spec"]["terminationGracePeriodSeconds"] = json!(0);
        template["spec"]["containers"][0]["image"] = json!(format!("registry.local/model:{version}"));
        file["spec"]["minReadySeconds"] = json!(1);
        file
    }

    fn sync(&self, version: &str) -> Result<Answer> {
        self.admin.run_with_input(self.how, &self.file(version).to_string())
    }

    /// The pod of a version is ready, or has restarted so often that no budget allows it.
    fn say(&self, version: &str, ready: bool) -> Result<()> {
        let selector = format!("app.kubernetes.io/version={version}");
        let name = until("a pod", LIMIT, || {
            let pods = self.admin.json(&["pods", "-l", &selector])?;
            let name = pods["items"][0]["metadata"]["name"].as_str().map(str::to_owned);
            Ok(name.map_or_else(|| Look::Not(pods.to_string()), Look::Done))
        })?;
        let now = format!("{:.0}", jiff::Timestamp::now());
        let condition = |kind: &str, is: bool| json!({"type": kind, "status": if is { "True" } else { "False" }, "lastTransitionTime": now});
        let exit = json!({"terminated": {"exitCode": 1, "reason": "Error", "startedAt": now, "finishedAt": now}});
        let (restarts, state, last) = match ready {
            true => (0, json!({"running": {"startedAt": now}}), json!({})),
            false => (5, json!({"waiting": {"reason": "CrashLoopBackOff"}}), exit),
        };
        let status = json!({"status": {"phase": "Running",
            "conditions": [condition("PodScheduled", true), condition("Initialized", true),
                condition("ContainersReady", ready), condition("Ready", ready)],
            "containerStatuses": [{"name": "model", "image": "model", "imageID": "model", "ready": ready,
                "started": ready, "restartCount": restarts, "state": state, "lastState": last}]}});
        let path = format!("/api/v1/namespaces/{}/pods/{name}/status", self.name);
        shared::plane()?.patch(&path, &status).map(drop)
    }

    fn deployment(&self) -> Result<Value> {
        let path = format!("/apis/apps/v1/namespaces/{}/deployments/digits", self.name);
        shared::plane()?.get(&path)?.context("no Deployment")
    }

    fn record(&self) -> Result<Value> {
        let path = format!("/api/v1/namespaces/surefoot-system/configmaps/record.{}.digits", self.name);
        let found = shared::plane()?.get(&path)?.unwrap_or_default();
        Ok(serde_json::from_str(found["data"]["record.json"].as_str().unwrap_or("null"))?)
    }

    fn record_when(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        until(what, LIMIT, || {
            let record = self.record()?;
            Ok(if wanted(&record) { Look::Done(()) } else { Look::Not(record.to_string()) })
        })
    }

    /// All that could grow, or be written again.
    fn kept(&self) -> Result<Value> {
        let names = |kind: &str| -> Result<Vec<String>> {
            let all = self.admin.json(&[kind])?;
            let of = |one: &Value| format!("{} {}", one["metadata"]["name"], one["series"]);
            Ok(all["items"].as_array().into_iter().flatten().map(of).collect())
        };
        let deployment = self.deployment()?;
        Ok(json!({"events": names("events.events.k8s.io")?, "sets": names("replicasets")?, "record": self.record()?,
            "generation": deployment["metadata"]["generation"], "version": version_of(&deployment),
            "managers": deployment["metadata"]["managedFields"], "annotations": deployment["metadata"]["annotations"]}))
    }
}

fn refused_for_ever(name: &'static str, how: &'static [&'static str]) -> Result<()> {
    drop(shared::surefoot()?);
    let play = Play::new(name, how)?;
    play.sync("1.0.0")?.success()?;
    play.say("1.0.0", true)?;
    play.record_when("1.0.0 to settle", |record| record["settled"][0]["version"] == "1.0.0")?;
    play.sync("2.0.0")?.success()?;
    play.say("2.0.0", false)?;
    play.record_when("the revert", |record| record["reverts"][0]["outcome"] == "written")?;
    play.say("1.0.0", true)?;
    let first = until("the quarantine to be known", LIMIT, || {
        let answer = play.sync("2.0.0")?;
        Ok(if answer.ok() { Look::Not(answer.to_string()) } else { Look::Done(answer.stderr) })
    })?;
    ensure!(first.contains("1 problem (quarantine)"), "{first}");
    // Nothing that follows a revert by itself is to be taken for growth.
    let mut before = until("all to be quiet", LIMIT, || {
        let kept = play.kept()?;
        let complete = play.deployment()?["status"]["readyReplicas"] == 1;
        let same = complete && {
            std::thread::yield_now();
            kept == play.kept()?
        };
        Ok(if same { Look::Done(kept) } else { Look::Not(kept.to_string()) })
    })?;
    let (begun, mut times, mut worst) = (Instant::now(), 0, Duration::ZERO);
    let message = play.sync("2.0.0")?.failure()?.stderr;
    while begun.elapsed() < LASTS {
        let sent = Instant::now();
        let said = play.sync("2.0.0")?.failure()?.stderr;
        worst = worst.max(sent.elapsed());
        times += 1;
        ensure!(said == message, "another message the {times}th time:\n{message}\n{said}");
        std::thread::sleep(BEAT.saturating_sub(sent.elapsed()));
    }
    let mut after = play.kept()?;
    // The API server may fold the times of entries of managedFields; the controller manager writes its status there.
    for kept in [&mut before, &mut after] {
        kept["managers"].as_array_mut().context("managers")?.retain(|entry| entry["subresource"] != "status");
    }
    ensure!(before == after, "it grew:\n{before}\n{after}");
    println!("gitops {name}: refused {times} times in {} s, the same each time, nothing grew", LASTS.as_secs());
    // What Git goes back to passes at once, and so does what comes next.
    play.sync("1.0.0")?.success()?;
    ensure!(version_of(&play.deployment()?) == "1.0.0", "{}", play.deployment()?);
    play.sync("3.0.0")?.success()?;
    ensure!(version_of(&play.deployment()?) == "3.0.0" && !managers(&play.deployment()?).contains("\"surefoot\""));
    play.sync("1.0.0")?.success().map(drop)
}

/// The webhook is away, and the tool puts the failing template back whenever it is gone. Each time it is reverted, later
/// than the time before; after the third it is left alone, and that is told.
fn three_times() -> Result<()> {
    let stage = Stage::new("gitops-away")?;
    stage.start()?;
    stage.settle()?;
    stage.apply("2")?;
    stage.crash("2")?;
    let reverts = |record: &Value| {
        let all = record["reverts"].as_array().into_iter().flatten();
        all.filter(|revert| revert["outcome"] == "written").count()
    };
    stage.record_when("the first revert", |record| reverts(record) == 1)?;
    let mut waits = Vec::new();
    for count in 2..=3 {
        // Applied again and again: only the first changes anything.
        let begun = Instant::now();
        stage.apply("2")?;
        while reverts(&stage.record()?) < count {
            ensure!(begun.elapsed() < LIMIT * 2, "not reverted: {}\n{}", stage.record()?, stage.logs());
            if version_of(&stage.deployment()?) == "2" {
                stage.apply("2")?;
            }
            stage.pass(BEAT)?;
        }
        waits.push(begun.elapsed().as_secs());
    }
    println!("gitops without the webhook: back again, reverted after {} s, then after {} s", waits[0], waits[1]);
    ensure!((9..25).contains(&waits[0]) && (59..90).contains(&waits[1]), "{waits:?}");
    stage.apply("2")?;
    stage.crash("2")?;
    let stalled = |record: &Value| record["current"]["stall"]["reason"] == "TooManyReverts";
    stage.record_when("it to be left alone", stalled)?;
    let told = "three reverts in 24 hours: left alone until somebody looks";
    let notes = stage.events("RolloutStalled")?;
    ensure!(notes.len() == 1 && notes[0].contains(told), "{notes:?}");
    ensure!(stage.logs().contains(told), "{}", stage.logs());
    let status = stage.status()?;
    ensure!(status.stdout.contains(told), "{status}");
    // The tool goes on: nothing is told or written again.
    let (record, begun) = (stage.record()?, Instant::now());
    while begun.elapsed() < Duration::from_secs(5) {
        stage.apply("2")?;
        stage.pass(BEAT)?;
    }
    ensure!(reverts(&stage.record()?) == 3 && record["reverts"] == stage.record()?["reverts"], "{}", stage.record()?);
    ensure!(version_of(&stage.deployment()?) == "2" && stage.events("RolloutStalled")?.len() == 1, "{}", stage.logs());
    // Git goes back: nobody is in the way.
    stage.apply("1")?;
    stage.ready("1")?;
    stage.until("it to be over", || {
        let status = stage.status()?;
        let over = status.ok() && !status.stdout.contains(told) && version_of(&stage.deployment()?) == "1";
        Ok(if over { Look::Done(()) } else { Look::Not(status.to_string()) })
    })?;
    stage.stop()
}
