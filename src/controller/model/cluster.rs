//! The API server as a value: the objects that a revert is about, and what becomes of them with each request. What
//! Kubernetes is known to do is written down here; what surefoot does is not.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use serde_json::{Value, json};

use crate::template::{Digest, Json, keys};

pub(super) const OWN: &str = "surefoot-system";
pub(super) const NAMESPACE: &str = "shop";
pub(super) const NAME: &str = "churn";
/// Before all that is told here.
const LONG_AGO: &str = "2026-11-22T11:00:00Z";
/// The pod of the bad version was made.
const BORN: &str = "2026-11-22T11:59:00Z";
/// The bad version crashed often enough, and before anybody looked.
const CRASHED: &str = "2026-11-22T11:59:58Z";

/// A value that is hashed once and shared: states are compared far more often than made.
pub(super) struct Kept<T> {
    pub(super) hash: u64,
    value: Arc<T>,
}

impl<T: Hash> Kept<T> {
    pub(super) fn new(value: T) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Self { hash: hasher.finish(), value: Arc::new(value) }
    }

    /// The same, changed.
    pub(super) fn with(&self, change: impl FnOnce(&mut T)) -> Self
    where
        T: Clone,
    {
        let mut value = T::clone(self);
        change(&mut value);
        Self::new(value)
    }
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        Self { hash: self.hash, value: Arc::clone(&self.value) }
    }
}

impl<T> Deref for Kept<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl<T> Eq for Kept<T> {}

impl<T> Hash for Kept<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

impl<T: fmt::Debug> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// What a controller asks.
#[derive(Clone, Debug, Hash)]
pub(super) struct Request {
    /// `PATCH /apis/apps/v1/…?dryRun=All`
    pub(super) line: String,
    pub(super) body: Value,
}

impl Request {
    /// It goes through the gate of all writes, as a dry run does.
    pub(super) fn is_write(&self) -> bool {
        !self.line.starts_with("GET ")
    }

    /// ReplicaSets, and the Events of the kubelet.
    pub(super) fn is_of_what_never_changes(&self) -> bool {
        !self.is_write() && (self.line.contains("/replicasets") || self.line.contains("/events?"))
    }
}

/// Status code and body.
pub(super) type Answer = (u16, Value);

/// What is watched of the Deployment and what belongs to it.
#[derive(Clone, Debug, Hash)]
pub(super) struct Objects {
    pub(super) deployment: Value,
    pub(super) sets: Vec<Value>,
    pub(super) pods: Vec<Value>,
}

/// All there is.
#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub(super) struct Cluster {
    pub(super) objects: Kept<Objects>,
    /// The ConfigMap of the record.
    pub(super) record: Kept<Option<Value>>,
    /// By name.
    pub(super) events: Kept<BTreeMap<String, Value>>,
    /// Writes that changed something: the time in which all this plays.
    pub(super) writes: u32,
    /// How often the bad template came to be the one that runs: the causes of reverts.
    pub(super) causes: usize,
    /// How often a revert was written.
    pub(super) reverts: usize,
}

impl Cluster {
    /// Version 1 has settled, as the record says; version 2 has been applied over it, and fails.
    pub(super) fn new() -> Self {
        let good = template("1");
        let settled = json!({"digest": digest(&good), "version": "1", "at": LONG_AGO,
            "replicaSet": {"name": "churn-1", "uid": "set-1"}});
        let record = json!({"version": 1, "namespace": NAMESPACE, "name": NAME, "uid": "uid", "settled": [settled]});
        let record = json!({"metadata": {"name": format!("record.{NAMESPACE}.{NAME}"), "namespace": OWN,
            "resourceVersion": "0"}, "data": {"record.json": record.to_string()}});
        let deployment = json!({"metadata": {"name": NAME, "namespace": NAMESPACE, "uid": "uid", "generation": 1,
                "labels": {keys::VERSION: "1"}, "managedFields": applied()},
            "spec": {"replicas": 1, "template": good}});
        let set = |version: &str| {
            json!({"metadata": {"name": format!("churn-{version}"), "namespace": NAMESPACE,
                    "uid": format!("set-{version}"), "creationTimestamp": LONG_AGO,
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME, "uid": "uid",
                        "controller": true}]},
                "spec": {"replicas": 1, "template": template(version)}})
        };
        let mut cluster = Self {
            objects: Kept::new(Objects { deployment, sets: vec![set("1"), set("2")], pods: Vec::new() }),
            record: Kept::new(Some(record)),
            events: Kept::new(BTreeMap::new()),
            writes: 0,
            causes: 0,
            reverts: 0,
        };
        cluster.apply();
        cluster
    }

    /// A tool applies the bad version server-side.
    pub(super) fn apply(&mut self) {
        let mut next = self.objects.deployment.clone();
        next["spec"]["template"] = template("2");
        next["metadata"]["labels"][keys::VERSION] = "2".into();
        next["metadata"]["managedFields"] = applied();
        self.store(next);
    }

    /// Somebody changes something else.
    pub(super) fn edit(&mut self) {
        let mut next = self.objects.deployment.clone();
        next["spec"]["revisionHistoryLimit"] = self.writes.into();
        self.store(next);
    }

    pub(super) fn runs_bad(&self) -> bool {
        self.objects.deployment["spec"]["template"] == template("2")
    }

    /// Whoever applied owns all of the template again.
    pub(super) fn is_given_back(&self) -> bool {
        self.objects.deployment["metadata"]["managedFields"] == applied()
    }

    /// Answers a request of a controller.
    pub(super) fn answer(&mut self, Request { line, body }: &Request) -> Answer {
        let (verb, path) = line.split_once(' ').unwrap();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let (_, inside) = path.split_once("/namespaces/").unwrap();
        let place: Vec<_> = inside.split('/').collect();
        let objects = &self.objects;
        let get = |found: Option<&Value>| found.map_or_else(|| refusal(404), |found| (200, found.clone()));
        let named = |all: &[Value], name: &str| get(all.iter().find(|one| one["metadata"]["name"] == name));
        match (verb, place.as_slice()) {
            ("GET", [NAMESPACE, "deployments", NAME]) => (200, objects.deployment.clone()),
            ("GET", [NAMESPACE, "replicasets", name]) => named(&objects.sets, name),
            ("GET", [NAMESPACE, "pods", name]) => named(&objects.pods, name),
            ("GET", [NAMESPACE, "replicasets"]) => list(&objects.sets),
            ("GET", [NAMESPACE, "pods"]) => list(&objects.pods),
            ("GET", [NAMESPACE, "events"]) => list(&[]),
            ("GET", [OWN, "configmaps", _]) => get(self.record.as_ref()),
            ("PATCH", [NAMESPACE, "deployments", NAME]) => self.patch(body, query.contains("dryRun=All")),
            ("POST", [NAMESPACE, "events"]) => self.publish(body),
            ("PUT" | "POST", [OWN, "configmaps", ..]) => self.write_record(verb == "PUT", body),
            _ => panic!("{line}"),
        }
    }

    fn patch(&mut self, operations: &Value, dry_run: bool) -> Answer {
        let mut next = self.objects.deployment.clone();
        let patch: json_patch::Patch = serde_json::from_value(operations.clone()).unwrap();
        if json_patch::patch(&mut next, &patch).is_err() {
            return refusal(422);
        }
        if dry_run {
            return (200, next);
        }
        if next["spec"]["template"] != self.objects.deployment["spec"]["template"] {
            next["metadata"]["managedFields"] = reverted();
            self.reverts += 1;
        }
        self.store(next);
        (200, self.objects.deployment.clone())
    }

    /// What the API server and the Deployment controller make of a Deployment that is written.
    fn store(&mut self, mut next: Value) {
        let before = &self.objects.deployment;
        if next == *before {
            return;
        }
        self.writes += 1;
        let mut pods = self.objects.pods.clone();
        if next["spec"] != before["spec"] {
            let generation = before["metadata"]["generation"].as_i64().unwrap() + 1;
            next["metadata"]["generation"] = generation.into();
            next["status"] = json!({"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1});
        }
        if next["spec"]["template"] != before["spec"]["template"] {
            let bad = next["spec"]["template"] == template("2");
            self.causes += usize::from(bad);
            pods = if bad { vec![crashing(self.causes)] } else { Vec::new() };
        }
        self.objects = self.objects.with(|objects| {
            objects.deployment = next;
            objects.pods = pods;
        });
    }

    fn publish(&mut self, event: &Value) -> Answer {
        let name = event["metadata"]["name"].as_str().unwrap().to_owned();
        if self.events.contains_key(&name) {
            return refusal(409);
        }
        self.writes += 1;
        self.events = self.events.with(|events| drop(events.insert(name, event.clone())));
        (201, event.clone())
    }

    fn write_record(&mut self, replaces: bool, body: &Value) -> Answer {
        let version = |record: &Value| record["metadata"]["resourceVersion"].clone();
        match &*self.record {
            Some(_) if !replaces => return refusal(409),
            // What names no version is written over any.
            Some(there) if !version(body).is_null() && version(there) != version(body) => return refusal(409),
            None if replaces => return refusal(404),
            _ => {}
        }
        self.writes += 1;
        let mut body = body.clone();
        body["metadata"]["resourceVersion"] = self.writes.to_string().into();
        self.record = Kept::new(Some(body.clone()));
        (200, body)
    }
}

/// A refusal, or the answer that is none.
pub(super) fn refusal(code: u16) -> Answer {
    let reason = if code == 409 { "AlreadyExists" } else { "" };
    let status = kube::core::Status::failure("as the model has it", reason).with_code(code);
    (code, serde_json::to_value(status).unwrap())
}

fn list(items: &[Value]) -> Answer {
    (200, json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}))
}

pub(super) fn template(version: &str) -> Value {
    json!({"metadata": {"labels": {"app": NAME, keys::VERSION: version}},
        "spec": {"containers": [{"name": "model", "image": format!("churn:{version}")}]}})
}

pub(super) fn digest(template: &Value) -> Digest {
    Digest::of_template(&serde_json::from_value::<Json>(template.clone()).unwrap())
}

fn crashing(cause: usize) -> Value {
    let exit = json!({"terminated": {"exitCode": 1, "reason": "Error", "finishedAt": CRASHED}});
    json!({"metadata": {"name": format!("churn-2-{cause}"), "namespace": NAMESPACE,
            "uid": format!("pod-{cause}"), "creationTimestamp": BORN,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "churn-2", "uid": "set-2",
                "controller": true}]},
        "spec": {"nodeName": "node"},
        "status": {"phase": "Running", "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": BORN},
                {"type": "ContainersReady", "status": "False", "lastTransitionTime": CRASHED}],
            "containerStatuses": [{"name": "model", "restartCount": 9, "ready": false, "started": false,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": exit}]}})
}

fn fields(of_model: &Value) -> Value {
    json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {r#"k:{"name":"model"}"#: of_model}}}}})
}

fn entry(manager: &str, operation: &str, fields: &Value) -> Value {
    json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "fieldsType": "FieldsV1",
        "fieldsV1": fields})
}

/// managedFields after the tool has applied.
fn applied() -> Value {
    json!([entry("tool", "Apply", &fields(&json!({".": {}, "f:name": {}, "f:image": {}})))])
}

/// managedFields after the template was put back.
fn reverted() -> Value {
    json!([
        entry("tool", "Apply", &fields(&json!({".": {}, "f:name": {}}))),
        entry(keys::FIELD_MANAGER, "Update", &fields(&json!({"f:image": {}})))
    ])
}
