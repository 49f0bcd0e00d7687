//! Deployments, ReplicaSets and pods as the controller watches them: reduced while they are decoded to what a decision
//! depends on. A pod template exists here only for as long as it takes to read its digest and its probes.

use std::time::Duration;

use jiff::Timestamp;
use kube::core::ObjectMeta;
use serde::{Deserialize, Deserializer};

use crate::{
    rollout::{
        record::ObjectRef,
        snapshot::{
            Container, ContainerStatus, Deployment, Exit, Pod, Probe, Progress, ProgressState, ReplicaSet, Since,
            Template,
        },
    },
    template::{
        Digest, Json,
        containers::{self, ContainerKind},
        json, keys,
    },
};

/// A Deployment on the wire.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WireDeployment {
    #[serde(default, deserialize_with = "crate::cluster::wire::metadata")]
    metadata: ObjectMeta,
    spec: WireDeploymentSpec,
    #[serde(default)]
    status: WireDeploymentStatus,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDeploymentSpec {
    replicas: Option<u32>,
    paused: Option<bool>,
    progress_deadline_seconds: Option<u32>,
    #[serde(deserialize_with = "template")]
    template: Template,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDeploymentStatus {
    observed_generation: Option<i64>,
    replicas: Option<u32>,
    updated_replicas: Option<u32>,
    available_replicas: Option<u32>,
    conditions: Option<Vec<WireCondition>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireCondition {
    r#type: String,
    status: String,
    reason: Option<String>,
    message: Option<String>,
    last_transition_time: Option<Timestamp>,
    last_update_time: Option<Timestamp>,
}

crate::wire_kind!(WireDeployment, "apps", "v1", "Deployment", "deployments");

impl WireDeployment {
    pub(super) fn keep(self) -> Deployment {
        let Self { metadata, spec, status } = self;
        let annotation = |key: &str| metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned();
        let owner = controller(&metadata).map(|owner| format!("{}/{}", owner.kind, owner.name));
        Deployment {
            canary: metadata
                .labels
                .as_ref()
                .and_then(|all| all.get(keys::TRACK))
                .is_some_and(|track| track == "canary"),
            override_text: annotation(keys::OVERRIDE),
            budget_text: annotation(keys::BUDGET),
            owner,
            terminating: metadata.deletion_timestamp.is_some(),
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            observed_generation: status.observed_generation.unwrap_or_default(),
            replicas: spec.replicas.unwrap_or(1),
            paused: spec.paused.unwrap_or_default(),
            progress_deadline: Duration::from_secs(spec.progress_deadline_seconds.unwrap_or(600).into()),
            template: spec.template,
            total: status.replicas.unwrap_or_default(),
            updated: status.updated_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            progress: status.conditions.unwrap_or_default().into_iter().find_map(progress),
        }
    }
}

fn progress(condition: WireCondition) -> Option<Progress> {
    if condition.r#type != "Progressing" {
        return None;
    }
    let state = match condition.reason.as_deref() {
        Some("NewReplicaSetAvailable") => ProgressState::Complete,
        Some("ProgressDeadlineExceeded") => ProgressState::DeadlineExceeded,
        _ => ProgressState::Other,
    };
    // The update time, not the transition time: the status stays True from one rollout to the next.
    let since = condition.last_update_time.or(condition.last_transition_time)?;
    Some(Progress { state, message: condition.message.unwrap_or_default(), since })
}

/// A ReplicaSet, and whose it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OwnedSet {
    /// Name and uid of the Deployment that controls it.
    pub(super) owner: Option<ObjectRef>,
    pub(super) set: ReplicaSet,
}

/// A ReplicaSet on the wire.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WireReplicaSet {
    #[serde(default, deserialize_with = "crate::cluster::wire::metadata")]
    metadata: ObjectMeta,
    spec: WireReplicaSetSpec,
}

#[derive(Clone, Debug, Deserialize)]
struct WireReplicaSetSpec {
    replicas: Option<u32>,
    #[serde(deserialize_with = "template")]
    template: Template,
}

crate::wire_kind!(WireReplicaSet, "apps", "v1", "ReplicaSet", "replicasets");

impl WireReplicaSet {
    pub(super) fn keep(self) -> OwnedSet {
        let owner = controller(&self.metadata).filter(|owner| owner.kind == "Deployment");
        OwnedSet {
            owner: owner.map(|owner| ObjectRef { name: owner.name.clone(), uid: owner.uid.clone() }),
            set: ReplicaSet {
                created: created(&self.metadata),
                object: ObjectRef {
                    name: self.metadata.name.unwrap_or_default(),
                    uid: self.metadata.uid.unwrap_or_default(),
                },
                template: self.spec.template,
                replicas: self.spec.replicas.unwrap_or(1),
            },
        }
    }
}

/// A pod, and the name of the ReplicaSet that it is of.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OwnedPod {
    pub(super) set: Option<String>,
    pub(super) pod: Pod,
}

/// A pod on the wire.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WirePod {
    #[serde(default, deserialize_with = "crate::cluster::wire::metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: WirePodSpec,
    #[serde(default)]
    status: WirePodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePodSpec {
    node_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePodStatus {
    phase: Option<String>,
    reason: Option<String>,
    conditions: Option<Vec<WireCondition>>,
    container_statuses: Option<Vec<WireContainerStatus>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireContainerStatus {
    name: String,
    restart_count: Option<u32>,
    ready: Option<bool>,
    started: Option<bool>,
    #[serde(default)]
    state: WireState,
    #[serde(default)]
    last_state: WireState,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct WireState {
    running: Option<WireRunning>,
    terminated: Option<WireTerminated>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRunning {
    started_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireTerminated {
    exit_code: Option<i32>,
    reason: Option<String>,
    finished_at: Option<Timestamp>,
}

crate::wire_kind!(WirePod, "", "v1", "Pod", "pods");

impl WirePod {
    pub(super) fn keep(self) -> OwnedPod {
        let Self { metadata, spec, status } = self;
        let owner = controller(&metadata).filter(|owner| owner.kind == "ReplicaSet").cloned();
        let conditions = status.conditions.unwrap_or_default();
        let condition = |kind: &str| {
            let found = conditions.iter().find(|condition| condition.r#type == kind)?;
            Some(Since { is: found.status == "True", at: found.last_transition_time? })
        };
        let ended = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
        let driven_out = matches!(status.reason.as_deref(), Some("Evicted" | "NodeLost" | "Preempting" | "Shutdown"));
        let pod = Pod {
            created: created(&metadata),
            terminating: metadata.deletion_timestamp.is_some(),
            uid: metadata.uid.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            owner: owner.as_ref().map(|owner| owner.uid.clone()).unwrap_or_default(),
            node: spec.node_name,
            // Nodes are not watched yet. What the loss of one does to `ContainersReady` is nothing, and a reboot shows in
            // how the containers ended.
            node_ready: None,
            disrupted: ended || driven_out || condition("DisruptionTarget").is_some_and(|since| since.is),
            containers_ready: condition("ContainersReady"),
            initialized: condition("Initialized").filter(|since| since.is).map(|since| since.at),
            containers: status.container_statuses.unwrap_or_default().into_iter().map(container_status).collect(),
        };
        OwnedPod { set: owner.map(|owner| owner.name), pod }
    }
}

fn container_status(wire: WireContainerStatus) -> ContainerStatus {
    let ended = wire.state.terminated.or(wire.last_state.terminated);
    ContainerStatus {
        name: wire.name,
        restarts: wire.restart_count.unwrap_or_default(),
        ready: wire.ready.unwrap_or_default(),
        started: wire.started.unwrap_or_default(),
        running_since: wire.state.running.and_then(|running| running.started_at),
        last_exit: ended.map(|ended| Exit {
            code: ended.exit_code.unwrap_or_default(),
            reason: ended.reason.unwrap_or_default(),
            at: ended.finished_at,
        }),
    }
}

/// Reads a template, and keeps what [`Template`] holds of it.
fn template<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
    Json::deserialize(deserializer).map(|whole| reduce(&whole))
}

/// What the controller keeps of a pod template.
pub(super) fn reduce(whole: &Json) -> Template {
    let text = |path: &[&str]| json::str_at(whole, path).map(str::to_owned);
    let regular = containers::containers(whole).into_iter().filter(|one| one.kind == ContainerKind::Regular);
    Template {
        digest: Digest::of_template(whole),
        restarted_at: text(&["metadata", "annotations", keys::RESTARTED_AT]),
        version: text(&["metadata", "labels", keys::VERSION]),
        containers: regular.map(container).collect(),
    }
}

fn container(whole: containers::Container) -> Container {
    let numbers = |probe: containers::Probe| Probe { period: probe.period, failure_threshold: probe.failure_threshold };
    Container {
        name: whole.name,
        readiness: whole.readiness.map(numbers),
        liveness: whole.liveness.map(numbers),
        startup: whole.startup.map(numbers),
    }
}

fn controller(metadata: &ObjectMeta) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

fn created(metadata: &ObjectMeta) -> Timestamp {
    metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_as_the_kubelet_writes_it() {
        let owner =
            |kind| json!([{"apiVersion": "apps/v1", "kind": kind, "name": "churn-1", "uid": "rs", "controller": true}]);
        let text = json!({"metadata": {"name": "churn-1-a", "uid": "u", "creationTimestamp": "2026-11-22T14:21:07Z",
                "ownerReferences": owner("ReplicaSet")},
            "spec": {"nodeName": "bed", "containers": [{"name": "model"}]},
            "status": {"phase": "Running",
                "conditions": [
                    {"type": "Initialized", "status": "True", "lastTransitionTime": "2026-11-22T14:21:08Z", "lastProbeTime": null},
                    {"type": "ContainersReady", "status": "False", "lastTransitionTime": "2026-11-22T14:21:30Z"}],
                "containerStatuses": [{"name": "model", "ready": false, "started": false, "restartCount": 2,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-11-22T14:21:30Z"}}}]}});
        let owned = serde_json::from_value::<WirePod>(text.clone()).unwrap().keep();
        assert_eq!(owned.set.as_deref(), Some("churn-1"));
        let pod = owned.pod;
        assert_eq!(
            (pod.owner.as_str(), pod.node.as_deref(), pod.disrupted, pod.terminating),
            ("rs", Some("bed"), false, false)
        );
        assert!(!pod.containers_ready.unwrap().is);
        let status = &pod.containers[0];
        assert_eq!((status.restarts, status.ready, status.running_since), (2, false, None));
        assert_eq!(status.last_exit.as_ref().unwrap().reason, "OOMKilled");

        let mut other = text.clone();
        other["metadata"]["ownerReferences"] = owner("Job");
        assert_eq!(serde_json::from_value::<WirePod>(other).unwrap().keep().set, None);
        let mut evicted = text;
        evicted["status"] = json!({"phase": "Failed", "reason": "Evicted"});
        assert!(serde_json::from_value::<WirePod>(evicted).unwrap().keep().pod.disrupted);
    }

    #[test]
    fn a_deployment_and_its_replica_set_have_the_same_template() {
        let template = json!({"metadata": {"labels": {"app": "churn", "app.kubernetes.io/version": "2.4.0"}},
            "spec": {"containers": [{"name": "model", "readinessProbe": {"httpGet": {"port": 1}, "periodSeconds": 5}}],
                "initContainers": [{"name": "fetch"}]}});
        let mut of_set = template.clone();
        of_set["metadata"]["labels"]["pod-template-hash"] = "7d9f4c".into();
        let deployment = json!({"metadata": {"name": "churn", "namespace": "shop", "uid": "d", "generation": 4,
                "labels": {"surefoot.dev/track": "canary"}, "annotations": {"surefoot.dev/budget": "failures=5"}},
            "spec": {"template": template, "selector": {}},
            "status": {"observedGeneration": 3, "conditions": [{"type": "Progressing", "status": "False",
                "reason": "ProgressDeadlineExceeded", "message": "ReplicaSet \"churn-1\" has timed out progressing.",
                "lastUpdateTime": "2026-11-22T14:21:30Z", "lastTransitionTime": "2026-11-22T14:21:30Z"}]}});
        let deployment = serde_json::from_value::<WireDeployment>(deployment).unwrap().keep();
        assert!(deployment.canary && deployment.owner.is_none() && deployment.replicas == 1);
        assert_eq!(deployment.progress.unwrap().state, ProgressState::DeadlineExceeded);
        assert_eq!(deployment.template.version.as_deref(), Some("2.4.0"));
        assert_eq!(deployment.template.containers.len(), 1);
        let set = json!({"metadata": {"name": "churn-1", "uid": "rs", "ownerReferences":
                [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "churn", "uid": "d", "controller": true}]},
            "spec": {"template": of_set}});
        let owned = serde_json::from_value::<WireReplicaSet>(set).unwrap().keep();
        assert_eq!(owned.owner.unwrap().uid, "d");
        assert_eq!(owned.set.template, deployment.template);
    }
}
