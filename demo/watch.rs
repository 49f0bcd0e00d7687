//! What is seen of a rollout from outside: images, pods, probe failures, spent budget.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::stage::{NAMESPACE, Stage};

/// When things were first seen, as somebody who looks ten times a second sees them.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) first_failure: Option<Instant>,
    pub(crate) reverted: Option<Instant>,
    pub(crate) only_good: Option<Instant>,
}

impl Seen {
    /// From the first restart, which is the first failure that counts, to the good template.
    pub(crate) fn to_revert(&self) -> String {
        between(self.first_failure, self.reverted)
    }

    /// From the good template to the last bad pod's end.
    pub(crate) fn to_good_pods_only(&self) -> String {
        between(self.reverted, self.only_good)
    }
}

fn between(from: Option<Instant>, to: Option<Instant>) -> String {
    match (from, to) {
        (Some(from), Some(to)) => format!("{:.1} s", to.saturating_duration_since(from).as_secs_f64()),
        _ => "not seen".to_owned(),
    }
}

/// Watches the rollout of a bad version until the good one alone is back; shows one line that grows.
pub(crate) fn until_reverted(stage: &Stage, bad: &str, good: &str, limit: Duration) -> Result<Seen> {
    let start = Instant::now();
    let before = stage.traffic.as_ref().map(|traffic| traffic.count()).unwrap_or_default();
    let (mut seen, mut shown) = (Seen::default(), String::new());
    while seen.only_good.is_none() {
        if start.elapsed() > limit {
            println!();
            bail!("{good} was not back within {} s", limit.as_secs());
        }
        look(stage, bad, good, &mut seen)?;
        let count = stage.traffic.as_ref().map(|traffic| traffic.count()).unwrap_or_default().since(before);
        let line = format!("{}   requests served {}, failed {}", budget(stage)?, count.served, count.failed);
        show(&mut shown, &line);
        std::thread::sleep(Duration::from_millis(100));
    }
    println!();
    Ok(seen)
}

fn look(stage: &Stage, bad: &str, good: &str, seen: &mut Seen) -> Result<()> {
    let now = Instant::now();
    let pods = pods_of(stage, bad)?;
    if pods.iter().any(failed) {
        seen.first_failure.get_or_insert(now);
    }
    if version_of(stage)? == good {
        seen.reverted.get_or_insert(now);
    }
    if seen.reverted.is_some() && pods.is_empty() && pods_of(stage, good)?.iter().all(ready) {
        seen.only_good.get_or_insert(now);
    }
    Ok(())
}

/// The version in the Deployment's template.
pub(crate) fn version_of(stage: &Stage) -> Result<String> {
    let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/digits");
    let deployment = stage.plane.get(&path)?.context("the Deployment is gone")?;
    let version = &deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"];
    Ok(version.as_str().unwrap_or_default().to_owned())
}

/// Pods of the stable Deployment with this version that are not on their way out.
fn pods_of(stage: &Stage, version: &str) -> Result<Vec<Value>> {
    let selector = format!("app%3Ddigits%2C%21track%2Capp.kubernetes.io%2Fversion%3D{version}");
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={selector}");
    let pods = stage.plane.get(&path)?.unwrap_or_default();
    let pods = pods["items"].as_array().cloned().unwrap_or_default();
    Ok(pods.into_iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).collect())
}

fn ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

/// A container that was restarted: its probe failed as often as it may, or it ended by itself.
fn failed(pod: &Value) -> bool {
    let statuses = pod["status"]["containerStatuses"].as_array();
    statuses.into_iter().flatten().any(|status| status["restartCount"].as_u64() > Some(0))
}

/// `budget [######----] 6/10`, as `surefoot status` has it.
fn budget(stage: &Stage) -> Result<String> {
    let rows = stage.runs(&format!("surefoot status digits -n {NAMESPACE} -o json"))?;
    let rows: Value = serde_json::from_str(&rows.text).unwrap_or_default();
    let row = &rows["rollouts"][0];
    let (failed, budget) = (row["failed"].as_u64().unwrap_or(0), row["budget"].as_u64().unwrap_or(10));
    let full = usize::try_from((failed * 10 / budget.max(1)).min(10))?;
    Ok(format!("budget [{}{}] {failed}/{budget}", "#".repeat(full), "-".repeat(10 - full)))
}

/// In a terminal the line is written over; in a log each change is a line.
fn show(shown: &mut String, line: &str) {
    use std::io::{IsTerminal, Write};
    let mut out = std::io::stdout();
    if out.is_terminal() {
        print!("\r{line}");
        let _shown = out.flush();
    } else if shown.split("   ").next() != line.split("   ").next() {
        println!("{line}");
    }
    line.clone_into(shown);
}
