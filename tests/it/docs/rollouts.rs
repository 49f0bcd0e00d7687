//! What `docs/rollouts.md` shows of a cluster: a namespace `shop` with five models, their pods as a kubelet would have
//! them and their records as the controller would, some time after it all happened.

use std::{ffi::OsString, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use regex::Regex;
use serde_json::{Value, json};

use super::{blocks, run_block};
use crate::{
    models::digest,
    schema::top,
    stage::Stage,
    support::{Look, until},
};

/// Blocks that begin with "```console cluster" are run there. Times of day are not compared.
pub(super) fn transcripts() -> Result<()> {
    let shop = Shop::open()?;
    let environment: [(&str, OsString); 2] =
        [("KUBECONFIG", shop.stage.plane().admin().kubeconfig().into()), ("POD_NAMESPACE", "shop-own".into())];
    let document = fs::read_to_string(top("docs/rollouts.md"))?;
    let times = Regex::new(r"\d\d:\d\d:\d\d")?;
    let mut commands = 0;
    for (language, block) in blocks(&document) {
        if language == "console cluster" {
            let timeless = |text: &str| times.replace_all(text, "HH:MM:SS").into_owned();
            commands += run_block(block, Path::new("."), &environment, timeless)?;
        }
    }
    println!("{commands} commands on a cluster");
    ensure!(commands >= 5, "only {commands} commands in docs/rollouts.md");
    Ok(())
}

struct Shop {
    stage: Stage,
    now: Timestamp,
}

impl Shop {
    fn open() -> Result<Self> {
        let shop = Self { stage: Stage::new("shop")?, now: Timestamp::now() };
        shop.model("churn", "stable", "2.3.1", 4)?;
        shop.model("churn-canary", "canary", "2.5.0", 1)?;
        shop.model("fraud", "stable", "1.9.0", 2)?;
        shop.model("ranker", "stable", "0.4.1", 2)?;
        shop.run()?;
        // No node takes these.
        shop.model("tagger", "stable", "3.1.0", 2)?;
        shop.churn()?;
        shop.record("churn-canary", |current| {
            json!({"current": current(json!({"since": shop.ago(4), "completed": shop.ago(3),
            "settlesAt": shop.ago(-8), "spent": evidence(0, 240, "readiness", "", shop.ago(3), shop.ago(0))}))})
        })?;
        shop.record("fraud", |current| json!({"settled": [settled(&current(json!({})), shop.ago(6 * 24 * 60))]}))?;
        let failing = evidence(18, 25, "crash", "exit code 1", shop.ago(122), shop.ago(121));
        let stall = json!({"reason": "NothingSettled", "at": shop.ago(120), "evidence": failing});
        shop.record("ranker", |current| json!({"current": current(json!({"since": shop.ago(125), "stall": stall}))}))?;
        let hindrance = json!({"reason": "unschedulable", "since": shop.ago(5),
            "message": "0/5 nodes are available: 5 Insufficient nvidia.com/gpu."});
        shop.record(
            "tagger",
            |current| json!({"current": current(json!({"since": shop.ago(6), "hindrance": hindrance}))}),
        )?;
        Ok(shop)
    }

    /// So many minutes ago, and a little.
    fn ago(&self, minutes: i64) -> Timestamp {
        self.now - SignedDuration::from_secs(minutes * 60 + 5)
    }

    fn churn(&self) -> Result<()> {
        let second = |seconds: i64| self.ago(14) + SignedDuration::from_secs(seconds);
        let bad =
            digest(&json!({"spec": {"template": {"metadata": {"labels": {"app.kubernetes.io/version": "2.4.0"}}}}}));
        self.record("churn", |current| {
            let good = settled(&current(json!({})), self.ago(90));
            json!({"settled": [good], "reverts": [{"digest": bad, "version": "2.4.0", "target": good, "began": second(-62),
                "replicaSet": {"name": "churn-7d9f4c", "uid": "set"}, "at": second(0), "outcome": "written",
                "class": "application",
                "evidence": evidence(12, 30, "readiness", "HTTP 503", second(-41), second(0))}]})
        })
    }

    fn model(&self, name: &str, track: &str, version: &str, replicas: u32) -> Result<()> {
        let labels = json!({"app": name, "app.kubernetes.io/version": version});
        let object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "labels": {"surefoot.dev/model": "churn", "surefoot.dev/track": track}},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
                "template": {"metadata": {"labels": labels}, "spec": {"nodeName": self.stage.name,
                    "containers": [{"name": "model", "image": format!("registry.example/{name}:{version}")}]}}}});
        self.stage.plane().apply(&path(name), &object).map(drop)
    }

    /// All pods there are become ready.
    fn run(&self) -> Result<()> {
        let limit = Duration::from_secs(60);
        let all = "/api/v1/namespaces/shop/pods";
        let pods = until("nine pods", limit, || {
            let pods =
                self.stage.plane().get(all)?.unwrap_or_default()["items"].as_array().cloned().unwrap_or_default();
            Ok(if pods.len() == 9 { Look::Done(pods) } else { Look::Not(pods.len().to_string()) })
        })?;
        let is = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": format!("{:.0}", self.now)});
        for pod in pods {
            let name = pod["metadata"]["name"].as_str().context("no name")?;
            let status = json!({"status": {"phase": "Running", "conditions": [is("Ready"), is("ContainersReady")]}});
            self.stage.plane().patch(&format!("{all}/{name}/status"), &status)?;
        }
        for name in ["churn", "churn-canary", "fraud", "ranker"] {
            until("the pods to be available", limit, || {
                let found = self.stage.plane().get(&path(name))?.context("no Deployment")?;
                let done = found["status"]["availableReplicas"] == found["spec"]["replicas"]
                    && found["status"]["observedGeneration"] == found["metadata"]["generation"];
                Ok(if done { Look::Done(()) } else { Look::Not(found["status"].to_string()) })
            })?;
        }
        Ok(())
    }

    /// Writes the record of a Deployment. `of` is given how to say something of its present template.
    fn record(&self, name: &str, of: impl FnOnce(&dyn Fn(Value) -> Value) -> Value) -> Result<()> {
        let deployment = self.stage.plane().get(&path(name))?.context("no Deployment")?;
        let labels = &deployment["spec"]["template"]["metadata"]["labels"];
        let of_present = |mut more: Value| {
            more["digest"] = json!(digest(&deployment));
            more["version"] = labels["app.kubernetes.io/version"].clone();
            more
        };
        let mut record = of(&of_present);
        for (key, value) in [
            ("version", json!(1)),
            ("namespace", json!("shop")),
            ("name", json!(name)),
            ("uid", deployment["metadata"]["uid"].clone()),
        ] {
            record[key] = value;
        }
        let own = format!("record.shop.{name}");
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": own, "labels": {"surefoot.dev/record": "true", "surefoot.dev/record-namespace": "shop"}},
            "data": {"record.json": record.to_string()}});
        self.stage.plane().apply(&format!("/api/v1/namespaces/shop-own/configmaps/{own}"), &object).map(drop)
    }
}

fn path(name: &str) -> String {
    format!("/apis/apps/v1/namespaces/shop/deployments/{name}")
}

fn settled(present: &Value, at: Timestamp) -> Value {
    let mut settled = present.clone();
    settled["replicaSet"] = json!({"name": "churn-5c8d7b", "uid": "set"});
    settled["at"] = json!(at);
    settled
}

fn evidence(failures: u32, attempts: u32, signal: &str, message: &str, since: Timestamp, until: Timestamp) -> Value {
    json!({"failures": failures, "attempts": attempts, "budget": 10, "since": since, "until": until, "container": "model",
        "signal": signal, "message": message})
}
