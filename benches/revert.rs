//! What users of a model notice of a bad version, with surefoot beside a plain Deployment: two replicas on a real node, probes
//! each second, requests all the while through a Service and kube-proxy. `make bench-revert`; more rounds than one:
//! `cargo bench --bench revert -- 3`.
//!
//! The bars, in seconds from the first failed probe or crash of the new version to the template being back: healthy for 4 s,
//! then 503: 15; a crash after 1 s: 15; a crash after 9 s: 20. With `minReadySeconds: 10` never below 2 ready pods, and at most 1 % of
//! the requests of the minute that follows the apply fail.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use support::{ControlPlane, Inside, Look, Surefoot, control_plane::Reader, http, image::digits, run, until};

#[path = "../tests/support/mod.rs"]
mod support;

const LIMIT: Duration = Duration::from_secs(180);
/// Of the requests of one client.
const PACE: Duration = Duration::from_millis(50);
const CLIENTS: usize = 4;
/// The requests that are counted: those of a minute from the apply on.
const MINUTE: Duration = Duration::from_secs(60);
/// How often pods and endpoints are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The default budget and, for the bad version, the default bake. That the good one settles is not waited for.
const CONFIG: &str = "\
apiVersion: surefoot.dev/v1
kind: Config
rollouts:
  bake: 1s
  overrides:
    - {namespaces: {matchLabels: {bake: default}}, bake: 10m}
";

/// A way to fail: what the model server is started with, and the seconds until the template has to be back.
const FAILURES: [(&str, &str, f64); 3] = [
    ("503 after 4 s", "--fail-after=4s", 15.0),
    ("crash after 1 s", "--crash-after=1s", 15.0),
    ("crash after 9 s", "--crash-after=9s", 20.0),
];

fn main() -> Result<()> {
    run::janitor_if_asked();
    let done = bench();
    run::end();
    done
}

fn bench() -> Result<()> {
    let rounds = std::env::args().find_map(|rounds| rounds.parse().ok()).unwrap_or(1);
    let inside = Inside::start_with(None)?;
    let plane = &inside.plane;
    let mut surefoot = Surefoot::install(plane, Path::new(env!("CARGO_BIN_EXE_surefoot")), CONFIG)?;
    surefoot.start_webhook()?;
    surefoot.start_controller()?;
    println!(
        "{:<18}{:>16}{:>18}{:>24}{:>18}{:>12}{:>20}",
        "new version",
        "minReadySeconds",
        "template back",
        "alone and ready again",
        "lowest ready",
        "requests",
        "failed"
    );
    for (what, argument, bar) in FAILURES {
        for wait in [1, 10] {
            for _ in 0..rounds {
                let seen = Round::prepare(plane, wait)?.play(argument).with_context(|| surefoot.tails())?;
                seen.print(what, wait, bar);
            }
        }
    }
    Ok(())
}

/// One Deployment of two replicas, and its users.
struct Round<'a> {
    plane: &'a ControlPlane,
    namespace: String,
    /// Of its Service.
    address: SocketAddr,
    wait: u32,
}

/// What was seen of one bad version.
struct Seen {
    /// Seconds from the first failure to the template being back.
    back: f64,
    /// Seconds from there until all replicas are of the good version and ready.
    ready: f64,
    lowest: usize,
    requests: usize,
    failed: usize,
}

impl Seen {
    fn print(&self, what: &str, wait: u32, bar: f64) {
        let met = |is: bool| if is { "met" } else { "missed" };
        let share = 100.0 * self.failed as f64 / self.requests.max(1) as f64;
        let judged = |text: String, is: bool| if wait == 10 { format!("{text} ({})", met(is)) } else { text };
        println!(
            "{what:<18}{wait:>16}{:>18}{:>24}{:>18}{:>12}{:>20}",
            format!("{:.1} s ({})", self.back, met(self.back <= bar)),
            format!("{:.1} s later", self.ready),
            judged(self.lowest.to_string(), self.lowest >= 2),
            self.requests,
            judged(format!("{}, {share:.2} %", self.failed), share <= 1.0),
        );
    }
}

impl<'a> Round<'a> {
    /// The good version has settled.
    fn prepare(plane: &'a ControlPlane, wait: u32) -> Result<Self> {
        static ROUNDS: AtomicUsize = AtomicUsize::new(0);
        let namespace = format!("round-{}", ROUNDS.fetch_add(1, Relaxed));
        plane.admin().apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: {{surefoot.dev/guard: enforce}}}}}}"
        ))?;
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "digits"},
            "spec": {"selector": {"app": "digits"}, "ports": [{"port": 80, "targetPort": 8000}]}});
        let answer = plane.post(&format!("/api/v1/namespaces/{namespace}/services"), &service.to_string())?;
        let address = serde_json::from_str::<Value>(&answer.body)?["spec"]["clusterIP"].clone();
        let address = format!("{}:80", address.as_str().with_context(|| answer.body.clone())?).parse()?;
        let round = Self { plane, namespace, address, wait };
        round.apply("1.0.0", &[])?;
        let record = format!("/api/v1/namespaces/surefoot-system/configmaps/record.{}.digits", round.namespace);
        until("the good version to settle", LIMIT, || {
            let record = plane.get(&record)?.unwrap_or_default();
            let record = record["data"]["record.json"].as_str().unwrap_or_default();
            let record: Value = serde_json::from_str(record).unwrap_or_default();
            let settled = record["settled"][0]["version"] == "1.0.0";
            Ok(if settled { Look::Done(()) } else { Look::Not(record.to_string()) })
        })?;
        plane.admin().run(&["label", "namespace", &round.namespace, "bake=default"])?.success()?;
        Ok(round)
    }

    fn apply(&self, version: &str, arguments: &[&str]) -> Result<()> {
        let file = model(version, self.wait, arguments);
        let admin = self.plane.admin().in_namespace(&self.namespace);
        admin.run_with_input(&["apply", "-f", "-"], &file.to_string())?.success().map(drop)
    }

    /// The bad version comes, fails, and is taken back.
    fn play(&self, argument: &str) -> Result<Seen> {
        let users = Users::default();
        let (reader, stop) = (self.plane.reader(), AtomicBool::new(false));
        let (failure, lowest) = (Mutex::new(None), Mutex::new(usize::MAX));
        let (back, ready) = thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| users.ask(self.address, &stop));
            }
            scope.spawn(|| self.watch(&reader, &stop, &failure, &lowest));
            let begun = Instant::now();
            let end = self.fail(argument);
            // For so long the share is of, whatever the end: a plain Deployment has none.
            thread::sleep((begun + MINUTE).saturating_duration_since(Instant::now()));
            stop.store(true, Relaxed);
            end
        })?;
        let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner).context("nobody saw it fail")?;
        self.plane.delete(&format!("{}/digits", self.deployments()))?;
        Ok(Seen {
            back: back.duration_since(failure).as_secs_f64(),
            ready: ready.duration_since(back).as_secs_f64(),
            lowest: lowest.into_inner().unwrap_or_else(PoisonError::into_inner),
            requests: users.asked.into_inner(),
            failed: users.failed.into_inner(),
        })
    }

    /// When the template was back, and when all was as before.
    fn fail(&self, argument: &str) -> Result<(Timestamp, Timestamp)> {
        self.apply("2.0.0", &["--loading=100ms", argument])?;
        let version =
            |digits: &Value| digits["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/version"].clone();
        let back = self.until("the template to be back", |digits| version(digits) == "1.0.0")?;
        let ready = self.until("the good version to be alone and ready", |digits| {
            let status = &digits["status"];
            let counts = ["replicas", "updatedReplicas", "readyReplicas"];
            status["observedGeneration"] == digits["metadata"]["generation"]
                && counts.iter().all(|count| status[count] == 2)
        })?;
        Ok((back, ready))
    }

    fn deployments(&self) -> String {
        format!("/apis/apps/v1/namespaces/{}/deployments", self.namespace)
    }

    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Result<Timestamp> {
        until(what, LIMIT, || {
            let digits = self.plane.get(&format!("{}/digits", self.deployments()))?.context("it is gone")?;
            Ok(if holds(&digits) { Look::Done(Timestamp::now()) } else { Look::Not(digits["status"].to_string()) })
        })
    }

    /// Notes when a pod of the new version first failed, and how few pods were ready at the least.
    fn watch(&self, reader: &Reader, stop: &AtomicBool, failure: &Mutex<Option<Timestamp>>, lowest: &Mutex<usize>) {
        let pods = format!("/api/v1/namespaces/{}/pods", self.namespace);
        let mut served = Vec::new();
        while !stop.load(Relaxed) {
            let found = reader.get(&pods).ok().flatten().unwrap_or_default();
            let pods = || found["items"].as_array().into_iter().flatten();
            let ready = pods().filter(|pod| is_ready(pod)).count();
            let mut lowest = lowest.lock().unwrap_or_else(PoisonError::into_inner);
            *lowest = ready.min(*lowest);
            drop(lowest);
            let new = |pod: &&Value| pod["metadata"]["labels"]["app.kubernetes.io/version"] == "2.0.0";
            let failed = pods().filter(new).filter_map(|pod| first_failure(pod, &mut served)).min();
            let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
            *failure = failure.into_iter().chain(failed).min();
            drop(failure);
            thread::sleep(LOOK);
        }
    }
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    pod["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// It gets requests: one that goes away gets none, however ready it is.
fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True")
        && pod["metadata"]["deletionTimestamp"].is_null()
}

/// When its container ended, or when it was no longer ready, in whole seconds as the kubelet writes them: never later than
/// it was. `served`: the pods that have been ready.
fn first_failure(pod: &Value, served: &mut Vec<String>) -> Option<Timestamp> {
    let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    let name = pod["metadata"]["name"].as_str()?;
    if is_ready(pod) && !served.iter().any(|served| served == name) {
        served.push(name.to_owned());
    }
    let status = &pod["status"]["containerStatuses"][0];
    let ended = ["state", "lastState"].iter().find_map(|state| time(&status[state]["terminated"]["finishedAt"]));
    let going = !pod["metadata"]["deletionTimestamp"].is_null();
    let ready = condition(pod, "ContainersReady").filter(|ready| ready["status"] == "False" && !going);
    let fell = ready
        .filter(|_| served.iter().any(|served| served == name))
        .and_then(|ready| time(&ready["lastTransitionTime"]));
    ended.filter(|_| !going).into_iter().chain(fell).min()
}

/// Those who ask the model.
#[derive(Default)]
struct Users {
    asked: AtomicUsize,
    failed: AtomicUsize,
}

impl Users {
    fn ask(&self, address: SocketAddr, stop: &AtomicBool) {
        let begun = Instant::now();
        for turn in 1_u32.. {
            if stop.load(Relaxed) {
                return;
            }
            let answer = http::plain(address, "/v2/models/digits/ready", None);
            self.asked.fetch_add(1, Relaxed);
            if !answer.is_ok_and(|answer| answer.status == 200) {
                self.failed.fetch_add(1, Relaxed);
            }
            thread::sleep((begun + PACE * turn).saturating_duration_since(Instant::now()));
        }
    }
}

/// As a user would write it, with Kubernetes' default strategy.
fn model(version: &str, wait: u32, arguments: &[&str]) -> Value {
    let probe = |path: &str, failures: u32| json!({"httpGet": {"path": path, "port": 8000}, "periodSeconds": 1, "failureThreshold": failures});
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "digits", "labels": {"surefoot.dev/model": "digits", "app.kubernetes.io/version": version}},
        "spec": {
            "replicas": 2, "minReadySeconds": wait, "selector": {"matchLabels": {"app": "digits"}},
            "template": {
                "metadata": {"labels": {"app": "digits", "app.kubernetes.io/version": version}},
                "spec": {
                    "automountServiceAccountToken": false,
                    "containers": [{
                        "name": "model", "image": digits("good"),
                        "ports": [{"containerPort": 8000}],
                        "startupProbe": probe("/v2/health/ready", 30),
                        "readinessProbe": probe("/v2/health/ready", 1),
                        "livenessProbe": probe("/v2/health/live", 3),
                        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"}},
                    }],
                },
            },
        },
    });
    if !arguments.is_empty() {
        object["spec"]["template"]["spec"]["containers"][0]["args"] = json!(arguments);
    }
    object
}
