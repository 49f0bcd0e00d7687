//! What is there after a revert on the real node: evidence, Event, record, whose the fields are, and what the next apply
//! makes of them. What is left by a controller that dies on its way is in `crash`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    node_trial, shared,
    support::{Answer, ControlPlane, Kubectl, Look, image::digits, until},
};

pub(crate) fn trials() -> Vec<Trial> {
    type Scenario = (&'static str, fn() -> Result<()>);
    let scenarios: [Scenario; 5] = [
        ("a_missed_deadline_says_what_readiness_said", deadline),
        ("a_failure_after_successfully_progressed_says_so_too", late),
        ("liveness_that_fails_alone_is_named", liveness),
        ("below_enforce_it_is_only_told", warned),
        ("a_fix_after_a_revert_runs_the_files_template", fixes),
    ];
    scenarios.map(|(name, test)| node_trial(&format!("revert::{name}"), test)).into()
}

/// Long enough for anything that is waited for, on a busy machine.
const LIMIT: Duration = Duration::from_secs(90);

fn deadline() -> Result<()> {
    let scene = Scene::new("rv-deadline")?;
    scene.settle_first()?;
    scene.apply(&File { deadline: 12, ..File::new("2", "broken") })?;
    let revert = scene.reverted("2")?;
    ensure!(revert["evidence"]["signal"] == "deadline" && revert["evidence"]["message"] == "HTTP 503", "{revert}");
    scene.good_is_back()
}

fn late() -> Result<()> {
    let scene = Scene::new("rv-late")?;
    scene.settle_first()?;
    scene.apply(&File { arguments: "--fail-after=4s", ..File::new("2", "late") })?;
    // `minReadySeconds` is 1: Kubernetes is satisfied, and the old pods are gone, before the first failure.
    scene.wait("Kubernetes to say that it has successfully progressed", |deployment| {
        let progressing = condition(deployment, "Progressing");
        let complete = deployment["status"]["updatedReplicas"] == 2 && deployment["status"]["replicas"] == 2;
        complete && progressing["reason"] == "NewReplicaSetAvailable" && image_of(deployment) == digits("late")
    })?;
    let revert = scene.reverted("2")?;
    ensure!(revert["evidence"]["signal"] == "readiness" && revert["evidence"]["message"] == "HTTP 503", "{revert}");
    scene.good_is_back()
}

fn liveness() -> Result<()> {
    let scene = Scene::new("rv-liveness")?;
    scene.settle_first()?;
    // Ready all the time: what fails is liveness alone.
    scene.apply(&File {
        arguments: "--fail-after=4s",
        budget: "failures=1",
        ready_path: "/v2",
        ..File::new("2", "hung")
    })?;
    let revert = scene.reverted("2")?;
    ensure!(revert["evidence"]["signal"] == "liveness", "{revert}");
    scene.good_is_back()
}

fn warned() -> Result<()> {
    let scene = Scene::with_guard("rv-warn", "warn")?;
    scene.settle_first()?;
    scene.apply(&File::new("2", "crash"))?;
    let event = scene.event("RolloutFailing")?;
    let note = event["note"].as_str().unwrap_or_default();
    ensure!(note.contains("guard is `warn`") && note.contains("2 reverted to 1"), "{note}");
    let deployment = scene.deployment()?;
    ensure!(image_of(&deployment) == digits("crash"), "{deployment}");
    let record = scene.record()?.context("no record")?;
    ensure!(record["reverts"][0]["outcome"] == "observed", "{record}");
    scene.replicas_untouched()
}

/// The good template has what neither the bad file nor the fix has: an annotation, an argument, a variable, a second
/// container. Nothing of it may be left once the fix is applied.
fn fixes() -> Result<()> {
    std::thread::scope(|scope| {
        let both = [("rv-fix-client", false), ("rv-fix-server", true)].map(|(name, server_side)| {
            scope.spawn(move || fix(name, server_side).with_context(|| format!("server-side: {server_side}")))
        });
        both.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow::anyhow!("panicked"))?)
    })
}

fn fix(name: &str, server_side: bool) -> Result<()> {
    let scene = Scene { server_side, ..Scene::new(name)? };
    scene.apply(&File { only_in_good: true, ..File::new("1", "good") })?;
    scene.settled("1")?;
    let good = scene.deployment()?["spec"]["template"].clone();
    scene.apply(&File { variable: "BAD", ..File::new("2", "crash") })?;
    let revert = scene.reverted("2")?;
    ensure!(revert["evidence"]["signal"] == "crash" && revert["evidence"]["message"] == "exit code 1", "{revert}");
    let after = scene.deployment()?;
    ensure!(after["spec"]["template"] == good, "not the good template: {}", after["spec"]["template"]);
    ensure!(after["metadata"]["labels"]["app.kubernetes.io/version"] == "1", "{}", after["metadata"]["labels"]);
    no_fields_of_ours(&after)?;

    let again = scene.try_apply(&File { variable: "BAD", ..File::new("2", "crash") })?.failure()?;
    let evidence = "version 2 failed ";
    ensure!(again.stderr.contains("quarantine") && again.stderr.contains(evidence), "{again}");

    let file = File { variable: "FIXED", ..File::new("3", "3.0.0") };
    scene.apply(&file)?;
    let fixed = scene.deployment()?;
    // What the API server makes of the file where there was nothing before.
    let mut fresh = file.manifest();
    fresh = fresh.replacen("name: digits\n", "name: fresh\n", 1);
    let fresh = scene.user.run_with_input(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &fresh)?;
    let fresh = fresh.success()?.json()?;
    ensure!(
        fixed["spec"]["template"] == fresh["spec"]["template"],
        "left-overs in the fix:\n{}\nwanted:\n{}",
        fixed["spec"]["template"],
        fresh["spec"]["template"]
    );
    scene.settled("3")?;

    // Back by hand to what has settled before.
    scene.user.run(&["rollout", "undo", "deploy/digits"])?.success()?;
    scene.settled("1")?;
    scene.replicas_untouched()
}

/// One Deployment `digits` in a namespace of its own, and the record that surefoot keeps of it.
struct Scene<'a> {
    plane: &'a ControlPlane,
    admin: Kubectl,
    user: Kubectl,
    name: String,
    server_side: bool,
}

impl Scene<'static> {
    fn new(name: &str) -> Result<Self> {
        Self::with_guard(name, "enforce")
    }

    fn with_guard(name: &str, guard: &str) -> Result<Self> {
        let plane = shared::node()?;
        drop(shared::surefoot_on_node()?);
        let (admin, user) = shared::namespace(plane, name, guard)?;
        Ok(Self { plane, admin, user, name: name.to_owned(), server_side: false })
    }
}

impl Scene<'_> {
    fn apply(&self, file: &File) -> Result<()> {
        self.try_apply(file)?.success().map(drop)
    }

    fn try_apply(&self, file: &File) -> Result<Answer> {
        let side: &[&str] = if self.server_side { &["--server-side"] } else { &[] };
        self.user.run_with_input(&[&["apply", "-f", "-"], side].concat(), &file.manifest())
    }

    /// Version 1 is applied and has settled.
    fn settle_first(&self) -> Result<()> {
        self.apply(&File::new("1", "good"))?;
        self.settled("1")
    }

    fn settled(&self, version: &str) -> Result<()> {
        let last_good = |record: &Value| record["settled"][0]["version"] == version && record.get("current").is_none();
        self.record_when(&format!("version {version} to settle"), last_good).map(drop)
    }

    /// Waits for the revert of a version to be written; gives its entry in the record.
    fn reverted(&self, version: &str) -> Result<Value> {
        let written =
            |record: &Value| record["reverts"][0]["version"] == version && record["reverts"][0]["outcome"] == "written";
        let record = self.record_when(&format!("the revert of version {version}"), written)?;
        let event = self.event("RolloutReverted")?;
        let note = event["note"].as_str().unwrap_or_default();
        ensure!(
            note.starts_with(&format!("{version} reverted to 1: ")) && note.contains("Details: surefoot status"),
            "{note}"
        );
        Ok(record["reverts"][0].clone())
    }

    /// Version 1 runs again, in as many pods as ever.
    fn good_is_back(&self) -> Result<()> {
        self.wait("all pods to be of version 1 again", |deployment| {
            let status = &deployment["status"];
            image_of(deployment) == digits("good")
                && status["observedGeneration"] == deployment["metadata"]["generation"]
                && [&status["updatedReplicas"], &status["replicas"], &status["availableReplicas"]]
                    .iter()
                    .all(|count| **count == 2)
        })?;
        self.replicas_untouched()
    }

    fn replicas_untouched(&self) -> Result<()> {
        let deployment = self.deployment()?;
        ensure!(deployment["spec"]["replicas"] == 2, "{}", deployment["spec"]);
        Ok(())
    }

    fn deployment(&self) -> Result<Value> {
        self.plane.get(&format!("/apis/apps/v1/namespaces/{}/deployments/digits", self.name))?.context("no Deployment")
    }

    fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        until(what, LIMIT, || {
            let deployment = self.deployment()?;
            Ok(if wanted(&deployment) { Look::Done(deployment) } else { Look::Not(deployment["status"].to_string()) })
        })
        .with_context(|| self.told())
    }

    fn record(&self) -> Result<Option<Value>> {
        let path = format!("/api/v1/namespaces/surefoot-system/configmaps/record.{}.digits", self.name);
        let found = self.plane.get(&path)?;
        found
            .map(|found| Ok(serde_json::from_str(found["data"]["record.json"].as_str().context("no record.json")?)?))
            .transpose()
    }

    fn record_when(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        until(what, LIMIT, || {
            Ok(match self.record()? {
                Some(record) if wanted(&record) => Look::Done(record),
                other => Look::Not(other.unwrap_or_default().to_string()),
            })
        })
        .with_context(|| self.told())
    }

    /// The Events with this reason on the Deployment.
    fn events(&self, reason: &str) -> Result<Vec<Value>> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.name);
        let all = self.plane.get(&path)?.unwrap_or_default();
        let about = |event: &&Value| event["reason"] == reason && event["regarding"]["name"] == "digits";
        Ok(all["items"].as_array().into_iter().flatten().filter(about).cloned().collect())
    }

    fn event(&self, reason: &str) -> Result<Value> {
        until(&format!("an Event {reason}"), LIMIT, || {
            Ok(match self.events(reason)?.pop() {
                Some(event) => Look::Done(event),
                None => Look::Not("no such Event".to_owned()),
            })
        })
        .with_context(|| self.told())
    }

    /// For the message of a failed scenario: what the controller said of it, and what its pods say.
    fn told(&self) -> String {
        let log = shared::surefoot_on_node().map(|surefoot| surefoot.log("controller")).unwrap_or_default();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&self.name)).collect();
        let pods = self.admin.run(&["get", "deploy,rs,pods"]).map(|answer| answer.to_string()).unwrap_or_default();
        format!("{}\n{pods}", lines.join("\n"))
    }
}

/// A file that somebody applies.
struct File {
    version: &'static str,
    tag: &'static str,
    arguments: &'static str,
    ready_path: &'static str,
    track: &'static str,
    variable: &'static str,
    budget: &'static str,
    deadline: u32,
    replicas: u32,
    only_in_good: bool,
}

impl File {
    fn new(version: &'static str, tag: &'static str) -> Self {
        Self {
            version,
            tag,
            arguments: "",
            ready_path: "/v2/health/ready",
            track: "stable",
            variable: "",
            budget: "",
            deadline: 60,
            replicas: 2,
            only_in_good: false,
        }
    }

    fn manifest(&self) -> String {
        let Self { version, ready_path, track, deadline, replicas, .. } = self;
        let image = digits(self.tag);
        let mut lines = Vec::new();
        if !self.arguments.is_empty() {
            lines.push(format!("args: [{}]", self.arguments));
        }
        if self.only_in_good {
            lines.push("args: [--loading=50ms]".to_owned());
            lines.push("env: [{name: ONLY_IN_GOOD, value: '1'}, {name: BOTH, value: good}]".to_owned());
        } else if !self.variable.is_empty() {
            lines.push(format!("env: [{{name: BOTH, value: {}}}]", self.variable));
        }
        let more: String = lines.iter().map(|line| format!("\n        {line}")).collect();
        let budget = match self.budget {
            "" => String::new(),
            budget => format!("\n  annotations: {{surefoot.dev/budget: '{budget}'}}"),
        };
        let annotations = if self.only_in_good { "annotations: {only-in-good: 'yes'}, " } else { "" };
        let container = |name: &str, more: &str, port: u16| {
            format!(
                "
      - name: {name}
        image: {image}
        ports: [{{containerPort: {port}}}]
        readinessProbe: {{httpGet: {{path: {ready_path}, port: {port}}}, periodSeconds: 1, failureThreshold: 1}}
        livenessProbe: {{httpGet: {{path: /v2/health/live, port: {port}}}, periodSeconds: 1, failureThreshold: 3}}
        resources: {{requests: {{memory: 64Mi, cpu: 10m}}, limits: {{memory: 64Mi, cpu: 200m}}}}{more}"
            )
        };
        let mut containers = container("model", &more, 8000);
        if self.only_in_good {
            containers += &container("only-in-good", "\n        args: ['--listen=:8001']", 8001);
        }
        format!(
            "
apiVersion: apps/v1
kind: Deployment
metadata:
  name: digits
  labels: {{app: digits, surefoot.dev/model: digits, surefoot.dev/track: {track}, app.kubernetes.io/version: '{version}'}}{budget}
spec:
  replicas: {replicas}
  minReadySeconds: 1
  progressDeadlineSeconds: {deadline}
  strategy: {{rollingUpdate: {{maxSurge: 100%, maxUnavailable: 0}}}}
  selector: {{matchLabels: {{app: digits}}}}
  template:
    metadata: {{{annotations}labels: {{app: digits, app.kubernetes.io/version: '{version}'}}}}
    spec:
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 1
      containers:{containers}
"
        )
    }
}

fn no_fields_of_ours(deployment: &Value) -> Result<()> {
    let entries = deployment["metadata"]["managedFields"].as_array().map_or(&[][..], Vec::as_slice);
    ensure!(!entries.iter().any(|entry| entry["manager"] == "surefoot"), "our entry is still there: {entries:?}");
    Ok(())
}

fn image_of(deployment: &Value) -> String {
    deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let all = object["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}
