//! Where the controller is tried without a kubelet: a control plane on which pods are what a trial says they are.
//!
//! Each trial has a namespace, a node, a namespace for surefoot's records and lease, and a relay through which its
//! controllers see only that: so many trials run side by side on one control plane, each with controllers that it may
//! kill, freeze and cut off.

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    relay::Relay,
    shared::{self, once},
    support::{
        Answer, ControlPlane, Look, Surefoot, http, kubectl,
        run::{self, Process},
        until,
    },
};

/// Longer than anything takes here, on a machine that has other things to do.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// What is under test is the order of things, not their length.
const CONFIG: &str = "\
apiVersion: surefoot.dev/v1
kind: Config
rollouts:
  budget: {failures: 3, percent: 10, window: 10m}
  bake: 1s
  overrides:
    - {namespaces: {matchLabels: {window: short}}, budget: {window: 5s}, bake: 4s}
    - {namespaces: {matchLabels: {bake: seen}}, bake: 3s}
    - {namespaces: {matchLabels: {bake: long}}, bake: 60s}
";

struct Ground {
    plane: ControlPlane,
    surefoot: Surefoot,
}

/// The control plane of all stages. The webhook is not part of the play.
fn ground() -> Result<&'static Ground> {
    static GROUND: OnceLock<Result<Ground, String>> = OnceLock::new();
    once(&GROUND, || {
        let plane = ControlPlane::start()?;
        let surefoot = Surefoot::install(&plane, shared::program(), CONFIG)?;
        let hooks = "validatingwebhookconfigurations,mutatingwebhookconfigurations";
        plane.admin().run(&["delete", hooks, "--all"])?.success()?;
        Ok(Ground { plane, surefoot })
    })
}

/// One trial's part of the control plane. Its Deployment is called `digits`.
pub(crate) struct Stage {
    ground: &'static Ground,
    pub(crate) name: String,
    pub(crate) relay: Relay,
    account: PathBuf,
    folder: PathBuf,
    /// metadata.generation as we left it.
    generation: Cell<i64>,
    /// The one that is to die somewhere, and when it did.
    mortal: RefCell<Option<Process>>,
    died: Cell<Option<Instant>>,
    others: RefCell<Vec<Process>>,
    /// What controllers are started with besides.
    arguments: RefCell<Vec<String>>,
}

impl Stage {
    pub(crate) fn new(name: &str) -> Result<Self> {
        Self::with_labels(name, &[("surefoot.dev/guard", "enforce")])
    }

    /// `labels`: of the namespace.
    pub(crate) fn with_labels(name: &str, labels: &[(&str, &str)]) -> Result<Self> {
        let ground = ground()?;
        let own = format!("{name}-own");
        let mut namespace = json!({"metadata": {"name": name, "labels": {"stage": name}}});
        for (key, value) in labels {
            namespace["metadata"]["labels"][key] = json!(value);
        }
        let now = format!("{:.0}", jiff::Timestamp::now());
        let ready = json!({"type": "Ready", "status": "True", "reason": "Trial", "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now});
        // What the role of surefoot's own namespace allows, in this one.
        let binding = json!({"metadata": {"name": "surefoot"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
            "subjects": [{"kind": "ServiceAccount", "name": "surefoot-controller", "namespace": "surefoot-system"}]});
        for (path, object) in [
            ("/api/v1/namespaces", json!({"metadata": {"name": own}})),
            ("/api/v1/namespaces", namespace),
            ("/api/v1/nodes", json!({"metadata": {"name": name}, "status": {"conditions": [ready]}})),
            (&*format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{own}/rolebindings"), binding),
        ] {
            let answer = ground.plane.post(path, &object.to_string())?;
            ensure!(answer.status == 201, "{path}: {} {}", answer.status, answer.body);
        }
        let relay = Relay::start_for(&ground.plane, Some(&format!("stage={name}")))?;
        let account = relay.account(ground.surefoot.controller_account())?;
        let folder = run::subfolder(name)?;
        let (generation, mortal, died, others, arguments) = Default::default();
        Ok(Self { ground, name: name.to_owned(), relay, account, folder, generation, mortal, died, others, arguments })
    }

    /// Starts a controller that lives until it is told otherwise.
    pub(crate) fn start(&self) -> Result<()> {
        self.start_with(&self.account)
    }

    /// The same through a relay of its own.
    pub(crate) fn start_apart(&self) -> Result<Relay> {
        let relay = Relay::start_for(&self.ground.plane, Some(&format!("stage={}", self.name)))?;
        self.start_with(&relay.account(self.ground.surefoot.controller_account())?)?;
        Ok(relay)
    }

    fn start_with(&self, account: &Path) -> Result<()> {
        let name = format!("controller-{}", self.others.borrow().len() + 1);
        self.others.borrow_mut().push(self.process(&name, account, None)?);
        Ok(())
    }

    /// Starts one that dies at a point; another follows it.
    pub(crate) fn start_mortal(&self, point: &str) -> Result<()> {
        *self.mortal.borrow_mut() = Some(self.process("mortal", &self.account, Some(point))?);
        Ok(())
    }

    fn process(&self, log: &str, account: &Path, die_at: Option<&str>) -> Result<Process> {
        let mut command = Command::new(shared::program());
        command.arg("controller").arg("--config").arg(self.ground.surefoot.config());
        command.arg("--kubeconfig").arg(account).env("POD_NAMESPACE", self.own());
        command.args(["--listen", "127.0.0.1:0"]).args(&*self.arguments.borrow());
        if let Some(point) = die_at {
            command.env("SUREFOOT_DIE_AT", point);
        }
        Process::start(log, &self.folder, command)
    }

    /// `surefoot revert` by a person, who may do anything.
    pub(crate) fn revert_by_hand(&self, die_at: Option<&str>) -> Result<Answer> {
        let mut command = Command::new(shared::program());
        command.args(["revert", "digits", "-n", &self.name, "--yes", "--reason", "INC-1"]);
        command.env("KUBECONFIG", self.plane().admin().kubeconfig()).env("POD_NAMESPACE", self.own());
        command.envs(die_at.map(|point| ("SUREFOOT_DIE_AT", point)));
        kubectl::capture(command, "surefoot revert", "")
    }

    /// `surefoot status digits` by the same.
    pub(crate) fn status(&self) -> Result<Answer> {
        let mut command = Command::new(shared::program());
        command.args(["status", "digits", "-n", &self.name]);
        command.env("KUBECONFIG", self.plane().admin().kubeconfig()).env("POD_NAMESPACE", self.own());
        kubectl::capture(command, "surefoot status", "")
    }

    /// Of the controllers that [`Self::start`] started, by number.
    pub(crate) fn signal(&self, controller: usize, signal: Signal) -> Result<()> {
        let others = self.others.borrow();
        Self::signal_to(others.get(controller).context("no such controller")?, signal)
    }

    fn signal_to(process: &Process, signal: Signal) -> Result<()> {
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).context("a process id")?;
        Ok(kill_process(pid, signal)?)
    }

    /// SIGTERM to the one that is to die.
    pub(crate) fn end_mortal(&self) -> Result<()> {
        self.mortal.borrow().as_ref().map_or(Ok(()), |mortal| Self::signal_to(mortal, Signal::TERM))
    }

    /// SIGTERM to all that live; they have to end well. Whoever followed the mortal one has had a look at everything by
    /// then.
    pub(crate) fn stop(&self) -> Result<()> {
        if self.died().is_some() {
            self.until("a look by the next one", || {
                let log = self.others.borrow().last().map(Process::log).unwrap_or_default();
                let looks = ["\"leading\"", "caches are filled"].iter().all(|line| log.contains(line));
                Ok(if looks { Look::Done(()) } else { Look::Not(log) })
            })?;
            self.pass(Duration::from_millis(300))?;
        }
        for process in self.others.borrow_mut().iter_mut() {
            process.stop(LIMIT)?;
        }
        Ok(())
    }

    /// When the mortal one has died, another takes its place.
    fn tend(&self) -> Result<()> {
        let dead = self.mortal.borrow_mut().as_mut().is_some_and(|mortal| mortal.check().is_err());
        if dead {
            self.died.set(Some(Instant::now()));
            drop(self.mortal.borrow_mut().take());
            // The next one would wait until the lease has run out; how long that takes is another trial's matter.
            self.ground.plane.delete(&self.lease_path())?;
            self.start()?;
        }
        Ok(())
    }

    pub(crate) fn died(&self) -> Option<Instant> {
        self.died.get()
    }

    /// Looks until it is so; a controller that dies meanwhile is replaced.
    pub(crate) fn until<T>(&self, what: &str, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
        let looked = until(what, LIMIT, || {
            self.tend()?;
            look()
        });
        looked.with_context(|| self.logs())
    }

    /// What the controllers said.
    pub(crate) fn logs(&self) -> String {
        let mortal = std::fs::read_to_string(self.folder.join("mortal.log")).unwrap_or_default();
        let others: String = self.others.borrow().iter().map(|process| process.tail(30)).collect();
        format!("--- {}\n{mortal}{others}", self.name)
    }

    /// What the one that was started last answers on its own port.
    pub(crate) fn ask(&self, path: &str) -> Result<http::Answer> {
        let address = self.until("its port", || {
            let log = self.others.borrow().last().map(Process::log).unwrap_or_default();
            let told = log.split_once("metrics on http://").and_then(|(_, rest)| rest.split('"').next()?.parse().ok());
            Ok(told.map_or(Look::Not(log), Look::Done))
        })?;
        http::plain(address, path, None)
    }

    pub(crate) fn plane(&self) -> &'static ControlPlane {
        &self.ground.plane
    }

    /// From now on controllers are started with these as well.
    pub(crate) fn with_arguments(&self, arguments: &[&str]) {
        self.arguments.borrow_mut().extend(arguments.iter().map(|&argument| argument.to_owned()));
    }

    /// surefoot's namespace.
    pub(crate) fn own(&self) -> String {
        format!("{}-own", self.name)
    }

    fn lease_path(&self) -> String {
        format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases/surefoot-controller", self.own())
    }

    /// Waits until another than `before` holds the lease; gives its name.
    pub(crate) fn led_after(&self, before: &str) -> Result<String> {
        self.until("a leader", || {
            let lease = self.plane().get(&self.lease_path())?.unwrap_or_default();
            let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
            Ok(if holder.is_empty() || holder == before { Look::Not(holder.into()) } else { Look::Done(holder.into()) })
        })
    }

    /// Makes a lease as if somebody had left it behind.
    pub(crate) fn leave_lease(&self, spec: &Value) -> Result<()> {
        let object = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "surefoot-controller"}, "spec": spec});
        self.plane().apply(&self.lease_path(), &object).map(drop)
    }

    /// Of its Deployment.
    pub(crate) fn path(&self) -> String {
        format!("/apis/apps/v1/namespaces/{}/deployments/digits", self.name)
    }

    pub(crate) fn deployment(&self) -> Result<Value> {
        self.plane().get(&self.path())?.context("no Deployment")
    }

    /// Server-side apply of a version.
    pub(crate) fn apply(&self, version: &str) -> Result<()> {
        self.apply_with(version, "stable")
    }

    pub(crate) fn apply_with(&self, version: &str, track: &str) -> Result<()> {
        let probe = json!({"httpGet": {"path": "/ready", "port": 8000}, "periodSeconds": 1});
        let labels = json!({"app": "digits", "app.kubernetes.io/version": version});
        let applied = self.plane().apply(
            &self.path(),
            &json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": "digits", "labels": {"surefoot.dev/model": "digits", "surefoot.dev/track": track,
                    "app.kubernetes.io/version": version}},
                "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "digits"}},
                    "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                    "template": {"metadata": {"labels": labels}, "spec": {
                        "nodeName": self.name, "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
                        "containers": [{"name": "model", "image": format!("registry.local/digits:{version}"),
                            "ports": [{"containerPort": 8000}], "readinessProbe": probe}]}}},
            }),
        )?;
        self.wrote(&applied)
    }

    /// Changes the Deployment with a merge patch.
    pub(crate) fn patch(&self, patch: &Value) -> Result<()> {
        self.wrote(&self.plane().patch(&self.path(), patch)?)
    }

    /// Has whoever watches the Deployment look at it: an annotation would count as a new generation.
    pub(crate) fn touch(&self) -> Result<()> {
        self.plane().patch(&self.path(), &json!({"metadata": {"labels": {"example.com/look": "now"}}})).map(drop)
    }

    fn wrote(&self, deployment: &Value) -> Result<()> {
        self.generation.set(deployment["metadata"]["generation"].as_i64().context("a generation")?);
        Ok(())
    }

    /// From now on the pod of a version is ready and has never failed.
    pub(crate) fn ready(&self, version: &str) -> Result<()> {
        self.say(version, true, 0)
    }

    /// From now on the pod of a version has restarted so often that no budget allows it.
    pub(crate) fn crash(&self, version: &str) -> Result<()> {
        self.say(version, false, 5)
    }

    /// Says what a kubelet would say of the pod of a version, once there is one.
    pub(crate) fn say(&self, version: &str, ready: bool, restarts: u32) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/pods", self.name);
        let query = format!("{path}?labelSelector=app.kubernetes.io/version={version}");
        let name = self.until(&format!("a pod of version {version}"), || {
            let pods = self.plane().get(&query)?.unwrap_or_default();
            let alive = |pod: &&Value| pod["metadata"].get("deletionTimestamp").is_none();
            let pod = pods["items"].as_array().into_iter().flatten().find(alive);
            let name = pod.and_then(|pod| pod["metadata"]["name"].as_str());
            Ok(name.map_or_else(|| Look::Not(pods.to_string()), |name| Look::Done(name.to_owned())))
        })?;
        let now = format!("{:.0}", jiff::Timestamp::now());
        let condition = |kind: &str, is: bool| json!({"type": kind, "status": if is { "True" } else { "False" }, "lastTransitionTime": now});
        let exit = json!({"terminated": {"exitCode": 1, "reason": "Error", "startedAt": now, "finishedAt": now}});
        let state = match (ready, restarts) {
            (false, 1..) => json!({"waiting": {"reason": "CrashLoopBackOff"}}),
            _ => json!({"running": {"startedAt": now}}),
        };
        let status = json!({"status": {"phase": "Running",
            "conditions": [condition("PodScheduled", true), condition("Initialized", true),
                condition("ContainersReady", ready), condition("Ready", ready)],
            "containerStatuses": [{"name": "model", "image": "model", "imageID": "model", "ready": ready, "started": ready,
                "restartCount": restarts, "state": state, "lastState": if restarts > 0 { exit } else { json!({}) }}]}});
        self.plane().patch(&format!("{path}/{name}/status"), &status).map(drop)
    }

    pub(crate) fn record(&self) -> Result<Value> {
        let path = format!("/api/v1/namespaces/{}/configmaps/record.{}.digits", self.own(), self.name);
        let found = self.plane().get(&path)?.unwrap_or_default();
        Ok(serde_json::from_str(found["data"]["record.json"].as_str().unwrap_or("null"))?)
    }

    pub(crate) fn record_when(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        self.until(what, || {
            let record = self.record()?;
            Ok(if wanted(&record) { Look::Done(record) } else { Look::Not(record.to_string()) })
        })
    }

    /// Notes of the Events with this reason.
    pub(crate) fn events(&self, reason: &str) -> Result<Vec<String>> {
        let all = self.plane().get(&format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.name))?;
        let all = all.unwrap_or_default();
        let notes = all["items"].as_array().into_iter().flatten().filter(|event| event["reason"] == reason);
        Ok(notes.map(|event| event["note"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Nothing happens for so long, as far as this trial is concerned.
    pub(crate) fn pass(&self, time: Duration) -> Result<()> {
        let begun = Instant::now();
        self.until("time to pass", || {
            Ok(if begun.elapsed() >= time { Look::Done(()) } else { Look::Not(String::new()) })
        })
    }

    /// Version 1 is applied, is well, and has settled.
    pub(crate) fn settle(&self) -> Result<()> {
        self.apply("1")?;
        self.ready("1")?;
        let settled = |record: &Value| record["settled"][0]["version"] == "1" && record.get("current").is_none();
        self.record_when("version 1 to settle", settled).map(drop)
    }

    /// Waits for version 1 to be back, then ends the controllers and looks at what is left: one revert, and all that
    /// belongs to one.
    pub(crate) fn reverted_once(&self) -> Result<()> {
        self.record_when("the revert", |record| record["reverts"][0]["outcome"] == "written")?;
        self.until("an end of all writes", || {
            let (deployment, events) = (self.deployment()?, self.events("RolloutReverted")?);
            let mended = version_of(&deployment) == "1" && !managers(&deployment).contains("\"surefoot\"");
            Ok(if mended && !events.is_empty() {
                Look::Done(())
            } else {
                Look::Not(format!("{events:?} {deployment}"))
            })
        })?;
        self.stop()?;
        let (deployment, record) = (self.deployment()?, self.record()?);
        let events = self.events("RolloutReverted")?;
        let reverts = record["reverts"].as_array().map_or(0, Vec::len);
        let all = format!("{record}\n{events:?}\n{deployment}\n{}", self.logs());
        ensure!(version_of(&deployment) == "1" && reverts == 1 && events.len() == 1, "not one revert: {all}");
        ensure!(record["reverts"][0]["outcome"] == "written", "not done: {all}");
        ensure!(record["reverts"][0].get("lifted").is_none(), "not quarantined: {all}");
        ensure!(record["reverts"][0]["version"] == "2" && record["settled"][0]["version"] == "1", "{all}");
        ensure!(record.get("current").is_none(), "still watched: {all}");
        ensure!(events[0].starts_with("2 reverted to 1"), "{all}");
        let generation = self.generation.get() + 1;
        ensure!(deployment["metadata"]["generation"] == generation, "its spec was written more than once: {all}");
        ensure!(!managers(&deployment).contains("\"surefoot\""), "its fields are ours: {all}");
        ensure!(deployment["spec"]["replicas"] == 1, "{all}");
        Ok(())
    }
}

pub(crate) fn version_of(deployment: &Value) -> &str {
    let image = deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
    image.rsplit(':').next().unwrap_or_default()
}

pub(crate) fn managers(deployment: &Value) -> String {
    deployment["metadata"]["managedFields"].to_string()
}
