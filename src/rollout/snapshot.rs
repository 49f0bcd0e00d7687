//! What is seen of one Deployment at one moment: the little of it, of its ReplicaSets and of their pods that a decision
//! depends on. No pod template: its digest, and the numbers of its probes.
//!
//! Made by `controller/` from its watches, and by the command line from a few reads.

use std::time::Duration;

use jiff::Timestamp;

use super::record::ObjectRef;
use crate::template::Digest;

/// One Deployment with what belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The Deployment.
    pub deployment: Deployment,
    /// The ReplicaSets that it controls (by owner uid), in any order.
    pub replica_sets: Vec<ReplicaSet>,
    /// The pods of those ReplicaSets.
    pub pods: Vec<Pod>,
}

/// What counts of a Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployment {
    /// metadata.namespace
    pub namespace: String,
    /// metadata.name
    pub name: String,
    /// metadata.uid
    pub uid: String,
    /// metadata.generation: rises with the spec and with annotations.
    pub generation: i64,
    /// status.observedGeneration: what the rest of the status is about.
    pub observed_generation: i64,
    /// Label `surefoot.dev/track` is `canary`.
    pub canary: bool,
    /// Annotation `surefoot.dev/override`, as it is.
    pub override_text: Option<String>,
    /// Annotation `surefoot.dev/budget`, as it is.
    pub budget_text: Option<String>,
    /// Kind and name of the controller owner, where there is one: it would put its own template back.
    pub owner: Option<String>,
    /// Being deleted.
    pub terminating: bool,
    /// spec.replicas
    pub replicas: u32,
    /// spec.paused
    pub paused: bool,
    /// spec.progressDeadlineSeconds
    pub progress_deadline: Duration,
    /// The pod template.
    pub template: Template,
    /// status.replicas
    pub total: u32,
    /// status.updatedReplicas
    pub updated: u32,
    /// status.availableReplicas
    pub available: u32,
    /// Condition `Progressing`.
    pub progress: Option<Progress>,
    /// Message of condition `ReplicaFailure` while it holds: pods are not even made (a quota, a policy).
    pub replica_failure: Option<String>,
}

/// A pod template, reduced.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    /// What identifies it.
    pub digest: Digest,
    /// Annotation of `kubectl rollout restart`. Not part of the digest, but two ReplicaSets may differ in nothing else.
    pub restarted_at: Option<String>,
    /// Its version label.
    pub version: Option<String>,
    /// Its containers that stay: the regular ones, and sidecars (`initContainers` with `restartPolicy: Always`).
    pub containers: Vec<Container>,
}

/// A container of a template: the allow-list of what can be charged, and the prices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image, as written.
    pub image: String,
    /// Readiness probe.
    pub readiness: Option<Probe>,
    /// Liveness probe.
    pub liveness: Option<Probe>,
    /// Startup probe.
    pub startup: Option<Probe>,
}

/// The two numbers of a probe that the budget knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// periodSeconds
    pub period: Duration,
    /// failureThreshold
    pub failure_threshold: u32,
}

/// Condition `Progressing` of a Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// What it says.
    pub state: ProgressState,
    /// Its message names the ReplicaSet that it is about: after a switch an old one can be visible for a moment.
    pub message: String,
    /// When this state began.
    pub since: Timestamp,
}

/// The reasons of condition `Progressing` that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressState {
    /// `NewReplicaSetAvailable`: Kubernetes calls it "successfully progressed".
    Complete,
    /// `ProgressDeadlineExceeded`
    DeadlineExceeded,
    /// Any other.
    Other,
}

/// What counts of a ReplicaSet.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSet {
    /// Name and uid.
    pub object: ObjectRef,
    /// metadata.creationTimestamp
    pub created: Timestamp,
    /// Its template, without the hash label.
    pub template: Template,
    /// spec.replicas
    pub replicas: u32,
}

/// What counts of a pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// metadata.uid
    pub uid: String,
    /// metadata.name
    pub name: String,
    /// uid of the ReplicaSet that controls it.
    pub owner: String,
    /// spec.nodeName
    pub node: Option<String>,
    /// The node's condition `Ready`, where it is known.
    pub node_ready: Option<bool>,
    /// The node's bootID, where it is known: another one means that the node was rebooted.
    pub boot: Option<String>,
    /// Condition `PodScheduled`.
    pub scheduled: Option<Since>,
    /// Why it has no node, as the scheduler says.
    pub unschedulable: Option<String>,
    /// metadata.creationTimestamp
    pub created: Timestamp,
    /// Has a deletionTimestamp: its readiness probe goes on, so it must not be charged.
    pub terminating: bool,
    /// Ended, evicted, preempted or about to be: the cluster's doing.
    pub disrupted: bool,
    /// Condition `ContainersReady`; not `Ready`, which the loss of a node and readiness gates change too.
    pub containers_ready: Option<Since>,
    /// Condition `Initialized` became true.
    pub initialized: Option<Timestamp>,
    /// An init container that fails: its name and how.
    pub init_failure: Option<(String, Waiting)>,
    /// Statuses of its containers that stay, those that others injected included.
    pub containers: Vec<ContainerStatus>,
}

/// A condition that is true or false, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// status is `True`
    pub is: bool,
    /// lastTransitionTime
    pub at: Timestamp,
}

/// The status of one container.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// restartCount
    pub restarts: u32,
    /// ready
    pub ready: bool,
    /// started: the startup probe has passed, or there is none.
    pub started: bool,
    /// state.running.startedAt
    pub running_since: Option<Timestamp>,
    /// state.waiting, where it is there.
    pub waiting: Option<Waiting>,
    /// state.terminated, else lastState.terminated
    pub last_exit: Option<Exit>,
}

/// What a container waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// `CrashLoopBackOff`, `ImagePullBackOff`, `CreateContainerConfigError` …
    pub reason: String,
    /// What the kubelet says about it; may be empty.
    pub message: String,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Exit {
    /// exitCode
    pub code: i32,
    /// `Error`, `OOMKilled`, `Completed`, `Unknown` …
    pub reason: String,
    /// finishedAt
    pub at: Option<Timestamp>,
}

impl Snapshot {
    /// The ReplicaSet of the Deployment's template, as the Deployment controller finds it: equal template, the oldest
    /// if several match. `None` until it has been made.
    pub fn current(&self) -> Option<&ReplicaSet> {
        let template = &self.deployment.template;
        let equal = |set: &&ReplicaSet| {
            set.template.digest == template.digest && set.template.restarted_at == template.restarted_at
        };
        self.replica_sets
            .iter()
            .filter(equal)
            .min_by(|a, b| (a.created, &a.object.name).cmp(&(b.created, &b.object.name)))
    }

    /// The pods of one ReplicaSet.
    pub fn pods_of<'a>(&'a self, set: &'a ReplicaSet) -> impl Iterator<Item = &'a Pod> {
        self.pods.iter().filter(|pod| pod.owner == set.object.uid)
    }
}

impl Deployment {
    /// The status is about this spec, and all of at least one replica are of the current template and available.
    /// (The rules of `kubectl rollout status`.)
    pub fn is_complete(&self) -> bool {
        self.is_observed()
            && self.replicas > 0
            && self.updated >= self.replicas
            && self.total == self.updated
            && self.available >= self.updated
    }

    /// The status is about this spec.
    pub fn is_observed(&self) -> bool {
        self.observed_generation >= self.generation
    }

    /// What condition `Progressing` says about `set`, and since when; `None` where it is about another ReplicaSet or an
    /// older spec.
    pub fn progress_of(&self, set: &ReplicaSet) -> Option<(ProgressState, Timestamp)> {
        let progress = self.progress.as_ref()?;
        let about = progress.message.split('"').any(|quoted| quoted == set.object.name);
        (self.is_observed() && about).then_some((progress.state, progress.since))
    }
}

impl Container {
    /// How often readiness is asked; Kubernetes' default period where there is no probe, so that back-off costs too.
    pub fn readiness_period(&self) -> Duration {
        self.readiness.map_or(Duration::from_secs(10), |probe| probe.period).max(Duration::from_secs(1))
    }

    /// What one restart costs: the probes that must fail before the kubelet restarts it, 3 where none would. One that ended
    /// by itself (`killed` is false) before it had started failed once, not as often as its startup probe allows: at
    /// most 3, or a single exit at boot would spend the whole budget of a model that may load for half an hour.
    pub fn restart_cost(&self, started: bool, killed: bool) -> u32 {
        let starting = !started && self.startup.is_some();
        let probe = if starting { self.startup } else { self.liveness };
        let cost = probe.map_or(3, |probe| probe.failure_threshold.max(1));
        if starting && !killed { cost.min(3) } else { cost }
    }
}
