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
            Template, Waiting,
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
        let conditions = status.conditions.unwrap_or_default();
        let failure = conditions.iter().find(|one| one.r#type == "ReplicaFailure" && one.status == "True");
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
            replica_failure: failure.map(|one| one.message.clone().unwrap_or_default()),
            progress: conditions.into_iter().find_map(progress),
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
    init_containers: Option<Vec<WireInitContainer>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireInitContainer {
    name: String,
    restart_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WirePodStatus {
    phase: Option<String>,
    reason: Option<String>,
    conditions: Option<Vec<WireCondition>>,
    container_statuses: Option<Vec<WireContainerStatus>>,
    init_container_statuses: Option<Vec<WireContainerStatus>>,
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
    waiting: Option<WireWaiting>,
    running: Option<WireRunning>,
    terminated: Option<WireTerminated>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct WireWaiting {
    reason: String,
    message: String,
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
        let sidecars: Vec<_> = spec
            .init_containers
            .unwrap_or_default()
            .into_iter()
            .filter(|one| one.restart_policy.as_deref() == Some("Always"))
            .map(|one| one.name)
            .collect();
        let inits = status.init_container_statuses.unwrap_or_default();
        let (stay, init): (Vec<_>, Vec<_>) = inits.into_iter().partition(|one| sidecars.contains(&one.name));
        let unscheduled = conditions.iter().find(|one| one.r#type == "PodScheduled" && one.status != "True");
        let pod = Pod {
            scheduled: condition("PodScheduled"),
            unschedulable: unscheduled.and_then(|one| one.message.clone()),
            init_failure: init.into_iter().find_map(init_failure),
            created: created(&metadata),
            terminating: metadata.deletion_timestamp.is_some(),
            uid: metadata.uid.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            owner: owner.as_ref().map(|owner| owner.uid.clone()).unwrap_or_default(),
            node: spec.node_name,
            // Known when the pod is put beside its node.
            node_ready: None,
            boot: None,
            disrupted: ended || driven_out || condition("DisruptionTarget").is_some_and(|since| since.is),
            containers_ready: condition("ContainersReady"),
            initialized: condition("Initialized").filter(|since| since.is).map(|since| since.at),
            containers: status
                .container_statuses
                .unwrap_or_default()
                .into_iter()
                .chain(stay)
                .map(container_status)
                .collect(),
        };
        OwnedPod { set: owner.map(|owner| owner.name), pod }
    }
}

/// What counts of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// Condition `Ready`.
    pub(super) ready: bool,
    /// Another one after each start.
    pub(super) boot: String,
}

/// A node on the wire.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WireNode {
    #[serde(default, deserialize_with = "crate::cluster::wire::metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    status: WireNodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireNodeStatus {
    conditions: Vec<WireNodeCondition>,
    node_info: WireNodeInfo,
}

#[derive(Clone, Debug, Deserialize)]
struct WireNodeCondition {
    r#type: String,
    status: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct WireNodeInfo {
    #[serde(rename = "bootID")]
    boot_id: String,
}

crate::wire_kind!(WireNode, "", "v1", "Node", "nodes", ClusterResourceScope);

impl WireNode {
    pub(super) fn keep(self) -> Node {
        let ready = |one: &WireNodeCondition| one.r#type == "Ready" && one.status == "True";
        Node { ready: self.status.conditions.iter().any(ready), boot: self.status.node_info.boot_id }
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
        waiting: wire.state.waiting.map(|waiting| waiting.keep()),
        last_exit: ended.map(|ended| Exit {
            code: ended.exit_code.unwrap_or_default(),
            reason: ended.reason.unwrap_or_default(),
            at: ended.finished_at,
        }),
    }
}

/// An init container that has ended badly, or that something keeps from running.
fn init_failure(wire: WireContainerStatus) -> Option<(String, Waiting)> {
    if wire.state.running.is_some() {
        return None;
    }
    let finished = wire.state.terminated.as_ref().is_some_and(|ended| ended.exit_code == Some(0));
    let ended = wire.state.terminated.or(wire.last_state.terminated);
    // 255 and `Unknown` is what the reboot of a node leaves behind.
    let badly = |ended: &WireTerminated| {
        let code = ended.exit_code.unwrap_or_default();
        code != 0 && !(code == 255 && ended.reason.as_deref() == Some("Unknown"))
    };
    let waiting = wire.state.waiting.filter(|waiting| !matches!(waiting.reason.as_str(), "PodInitializing" | ""));
    let failure = match ended.filter(|ended| !finished && badly(ended)) {
        Some(ended) => Waiting {
            reason: ended.reason.filter(|reason| reason == "OOMKilled").unwrap_or_else(|| "Error".to_owned()),
            message: format!("exit code {}", ended.exit_code.unwrap_or_default()),
        },
        None => waiting?.keep(),
    };
    Some((wire.name, failure))
}

impl WireWaiting {
    fn keep(self) -> Waiting {
        // The kubelet's back-off messages carry the pod's name and uid; of the others the beginning says it all.
        let end = self.message.floor_char_boundary(512);
        Waiting { reason: self.reason, message: self.message[..end].to_owned() }
    }
}

/// Reads a template, and keeps what [`Template`] holds of it.
fn template<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Template, D::Error> {
    Json::deserialize(deserializer).map(|whole| reduce(&whole))
}

/// What the controller keeps of a pod template.
pub(super) fn reduce(whole: &Json) -> Template {
    let text = |path: &[&str]| json::str_at(whole, path).map(str::to_owned);
    let stay = containers::containers(whole).into_iter().filter(|one| one.kind != ContainerKind::Init);
    let mut containers: Vec<Container> = stay.map(container).collect();
    // Collected in place, it would keep the room of what it was made from.
    containers.shrink_to_fit();
    Template {
        digest: Digest::of_template(whole),
        restarted_at: text(&["metadata", "annotations", keys::RESTARTED_AT]),
        version: text(&["metadata", "labels", keys::VERSION]),
        containers,
    }
}

fn container(whole: containers::Container) -> Container {
    let numbers = |probe: containers::Probe| Probe { period: probe.period, failure_threshold: probe.failure_threshold };
    Container {
        name: whole.name,
        image: whole.image,
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
        let mut starting = text.clone();
        starting["spec"]["initContainers"] = json!([{"name": "fetch"}, {"name": "proxy", "restartPolicy": "Always"}]);
        let back_off = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}});
        let ended = |code: i32, reason: &str| json!({"terminated": {"exitCode": code, "reason": reason}});
        for (state, last, wanted) in [
            (back_off.clone(), ended(1, "Error"), Some(("Error", "exit code 1"))),
            (back_off, ended(255, "Unknown"), Some(("CrashLoopBackOff", "back-off 10s"))),
            (ended(0, "Completed"), ended(1, "Error"), None),
            (json!({"running": {}}), ended(1, "Error"), None),
            (json!({"waiting": {"reason": "InvalidImageName"}}), json!({}), Some(("InvalidImageName", ""))),
        ] {
            let status = |name: &str, state: &serde_json::Value| json!({"name": name, "restartCount": 1, "state": state, "lastState": last});
            let running = json!({"running": {"startedAt": "2026-11-22T14:21:09Z"}});
            starting["status"]["initContainerStatuses"] = json!([status("fetch", &state), status("proxy", &running)]);
            let pod = serde_json::from_value::<WirePod>(starting.clone()).unwrap().keep().pod;
            let found = pod.init_failure.as_ref().map(|(name, waiting)| {
                assert_eq!(name, "fetch");
                (waiting.reason.as_str(), waiting.message.as_str())
            });
            assert_eq!(found, wanted);
            let names: Vec<_> = pod.containers.iter().map(|status| status.name.as_str()).collect();
            assert_eq!(names, ["model", "proxy"]);
            assert_eq!(pod.containers[0].waiting.as_ref().unwrap().reason, "CrashLoopBackOff");
        }
        let mut evicted = text;
        evicted["status"] = json!({"phase": "Failed", "reason": "Evicted"});
        assert!(serde_json::from_value::<WirePod>(evicted).unwrap().keep().pod.disrupted);
    }

    #[test]
    fn a_deployment_and_its_replica_set_have_the_same_template() {
        let template = json!({"metadata": {"labels": {"app": "churn", "app.kubernetes.io/version": "2.4.0"}},
            "spec": {"containers": [{"name": "model", "readinessProbe": {"httpGet": {"port": 1}, "periodSeconds": 5}}],
                "initContainers": [{"name": "fetch"}, {"name": "proxy", "restartPolicy": "Always"}]}});
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
        let names: Vec<_> = deployment.template.containers.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["model", "proxy"], "what stays is watched");
        let set = json!({"metadata": {"name": "churn-1", "uid": "rs", "ownerReferences":
                [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "churn", "uid": "d", "controller": true}]},
            "spec": {"template": of_set}});
        let owned = serde_json::from_value::<WireReplicaSet>(set).unwrap().keep();
        assert_eq!(owned.owner.unwrap().uid, "d");
        assert_eq!(owned.set.template, deployment.template);
    }

    #[test]
    fn a_node_as_the_kubelet_writes_it() {
        let node = |ready: &str| {
            let text = json!({"metadata": {"name": "bed"}, "status": {"nodeInfo": {"bootID": "b-1", "machineID": "m"},
                "conditions": [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": ready}]}});
            serde_json::from_value::<WireNode>(text).unwrap().keep()
        };
        assert_eq!(node("True"), Node { ready: true, boot: "b-1".into() });
        // What the control plane writes when the kubelet is silent.
        assert!(!node("Unknown").ready);
    }
}
