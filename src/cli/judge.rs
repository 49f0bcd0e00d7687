//! The Deployments of the given files, judged as the webhook would: the same code, with the facts that files tell.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    load,
    report::{Judged, Report},
    source::{Manifests, Object, decode},
};
use crate::{
    admission::{self, Facts, PolicySet, Request},
    config::{Config, Guard},
    template::{Json, defaulter, json, keys},
};

/// For one Deployment; the webhook has three seconds, and nobody waits for an API server here.
const LIMIT: Duration = Duration::from_secs(10);

/// What judges, the same for all Deployments of a run.
pub(super) struct Judge {
    pub(super) set: PolicySet,
    /// The folder of the set; `None`: it is compiled in.
    pub(super) policies: Option<PathBuf>,
    pub(super) config: Config,
    /// Add what the policies would add before they judge.
    pub(super) with_defaults: bool,
    pub(super) now: Timestamp,
}

impl Judge {
    /// Judges every Deployment in `found`.
    pub(super) fn all(&self, found: Manifests) -> Report {
        let Manifests { files, objects, problems } = found;
        let neighbours = Neighbours::new(&objects);
        let mut report = Report { files, problems, ..Report::default() };
        let mut skipped = BTreeSet::new();
        let mut applied = Applied::new();
        for object in objects.into_iter().filter(Object::is_deployment) {
            let mut verdict = self.one(&object, &neighbours, &mut applied);
            skipped.extend(std::mem::take(&mut verdict.skipped));
            let broken = !verdict.failures.is_empty();
            for mut failure in verdict.failures {
                failure.file = load::shown(self.policies.as_deref(), &failure.file);
                // A policy that breaks on one Deployment mostly breaks on all; it is told once.
                if !report.failures.contains(&failure) {
                    report.failures.push(failure);
                }
            }
            let Outcome { findings, defaults, notes, .. } = verdict;
            report.judged.push(Judged { object, findings, defaults, notes, broken });
        }
        report.skipped = skipped.into_iter().collect();
        report
    }

    fn one(&self, object: &Object, neighbours: &Neighbours, applied: &mut Applied) -> Outcome {
        let findings = decode::faults(&object.value);
        if !findings.is_empty() {
            // No policy is asked about something that the API server would not hand to it.
            return Outcome { findings, ..Outcome::default() };
        }
        let key = key(object);
        let mut request = match key.as_ref().and_then(|key| applied.remove(key)) {
            Some(old) => Request::update(old, stored(object), object.namespace()),
            None => Request::create(stored(object), object.namespace()),
        };
        let facts = neighbours.facts(object);
        let mut outcome = Outcome::default();
        if self.with_defaults {
            let added = admission::default(&self.set, &request, &facts, &self.config, self.now, LIMIT);
            // As in the cluster, where the API server completes what a webhook adds before the next one sees it.
            request = request.with_object(defaulter::defaulted(&added.object));
            outcome.defaults = added.added;
            outcome.failures = added.failures;
        }
        let verdict = admission::validate(&self.set, &request, &facts, &self.config, self.now, LIMIT);
        outcome.failures.extend(verdict.failures);
        applied.extend(key.map(|key| (key, request.object().clone())));
        Outcome { findings: verdict.findings, notes: verdict.notes, skipped: verdict.skipped, ..outcome }
    }
}

/// What was judged so far, by namespace and name: a Deployment that is given again is an update of what it was before,
/// as it would be for `kubectl apply` of the same files.
type Applied = BTreeMap<Key, Json>;

/// Namespace and name.
type Key = (String, String);

/// `None` for one that the API server names: each is another one.
fn key(object: &Object) -> Option<Key> {
    let name = json::str_at(&object.value, &["metadata", "name"]).filter(|name| !name.is_empty())?;
    Some((object.namespace().to_owned(), name.to_owned()))
}

#[derive(Default)]
struct Outcome {
    findings: Vec<admission::Finding>,
    defaults: Vec<admission::DefaultValue>,
    notes: Vec<String>,
    failures: Vec<admission::Failure>,
    skipped: Vec<admission::Skipped>,
}

/// The object as a webhook is shown it: in its namespace. This is where the defaults of the API belong.
fn stored(object: &Object) -> Json {
    let mut value = object.value.clone();
    let mut metadata = json::get(&value, "metadata").cloned().unwrap_or_else(Json::new_object);
    set(&mut metadata, "namespace", Json::from(object.namespace()));
    set(&mut value, "metadata", metadata);
    defaulter::apply(&mut value);
    value
}

/// What the given files tell of the cluster around a Deployment.
struct Neighbours {
    /// Deployments that name a model, each as it is given last.
    peers: BTreeMap<Key, Peer>,
    /// Namespaces by name, as policies see them.
    namespaces: BTreeMap<String, Json>,
}

/// A Deployment as the policies of another one see it.
struct Peer {
    model: String,
    shown: Json,
}

impl Neighbours {
    fn new(objects: &[Object]) -> Self {
        let namespaces = objects.iter().filter(|object| object.kind == "Namespace");
        Self {
            peers: objects.iter().filter_map(|object| Some((key(object)?, Peer::of(object)?))).collect(),
            namespaces: namespaces.map(|object| (object.name().to_owned(), seen(object))).collect(),
        }
    }

    fn facts(&self, object: &Object) -> Facts {
        let model = json::str_at(&object.value, &["metadata", "labels", keys::MODEL]);
        let peers = self.peers.iter().filter(|((namespace, name), peer)| {
            Some(peer.model.as_str()) == model && namespace == object.namespace() && name != object.name()
        });
        Facts {
            guard: Some(Guard::Enforce),
            namespace: self.namespaces.get(object.namespace()).cloned(),
            peers: Some(peers.map(|(_, peer)| peer.shown.clone()).collect()),
            history: None,
            isolation: None,
            cached: false,
        }
    }
}

impl Peer {
    /// `None`: it names no model, so it is nobody's peer.
    fn of(object: &Object) -> Option<Self> {
        let labels = json::at(&object.value, &["metadata", "labels"])?;
        let model = json::str_at(labels, &[keys::MODEL]).filter(|model| !model.is_empty())?;
        let metadata = tree([
            ("name", object.name().into()),
            ("namespace", object.namespace().into()),
            ("labels", labels.clone()),
        ]);
        let replicas = json::int_at(&object.value, &["spec", "replicas"]).unwrap_or(1);
        object.is_deployment().then(|| Self {
            model: model.to_owned(),
            shown: tree([("metadata", metadata), ("spec", tree([("replicas", Json::from(replicas))]))]),
        })
    }
}

/// `input.context.namespace` of a Namespace.
fn seen(namespace: &Object) -> Json {
    let part = |key| json::at(&namespace.value, &["metadata", key]).cloned().unwrap_or_else(Json::new_object);
    tree([("labels", part("labels")), ("annotations", part("annotations"))])
}

fn tree<const N: usize>(members: [(&str, Json); N]) -> Json {
    Json::from(members.into_iter().map(|(key, value)| (Json::from(key), value)).collect::<BTreeMap<_, _>>())
}

fn set(object: &mut Json, key: &str, value: Json) {
    if let Json::Object(members) = object {
        std::sync::Arc::make_mut(members).insert(Json::from(key), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::source;

    /// Has what the policies read, with something to find for most of their rules.
    const RICH: &str = r#"{"apiVersion": "apps/v1", "kind": "Deployment",
      "metadata": {"name": "churn-canary", "namespace": "shop", "labels":
        {"surefoot.dev/model": "churn", "surefoot.dev/track": "canary", "app.kubernetes.io/version": "2"}},
      "spec": {"replicas": 3, "minReadySeconds": 1, "progressDeadlineSeconds": 600,
        "selector": {"matchLabels": {"app.kubernetes.io/version": "2"},
          "matchExpressions": [{"key": "app.kubernetes.io/version", "operator": "Exists"}]},
        "template": {
          "metadata": {"labels": {"app.kubernetes.io/version": "3"},
            "annotations": {"kubectl.kubernetes.io/default-container": "model"}},
          "spec": {
            "resources": {"limits": {"cpu": "4"}},
            "volumes": [{"name": "v", "image": {"reference": "x:latest"}}],
            "initContainers": [{"name": "init", "image": "busybox:latest", "resources": {"limits": {"cpu": "1"}}}],
            "containers": [
              {"name": "model", "image": "pytorch/torchserve:1", "args": ["0.0.0.0"], "env": [{"name": "A", "value": "0.0.0.0"}],
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "resources": {"requests": {"cpu": "2", "nvidia.com/gpu": "1"}, "limits": {"cpu": "1000m", "nvidia.com/gpu": "2"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "initialDelaySeconds": 1, "periodSeconds": 1},
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 10, "failureThreshold": 3},
                "startupProbe": {"exec": {"command": ["x"]}, "periodSeconds": 100, "failureThreshold": 100}},
              {"name": "ollama", "image": "registry:5000/ollama/ollama@sha256:0", "ports": [{"containerPort": 1}],
                "livenessProbe": {"tcpSocket": {"port": "x"}}, "readinessProbe": {"grpc": {"port": 1}}}]}}}}"#;

    /// JSON pointers to everything below `node`.
    fn places(node: &serde_json::Value, at: &str, found: &mut Vec<String>) {
        let below: Vec<_> = match node {
            serde_json::Value::Array(items) => {
                items.iter().enumerate().map(|(i, item)| (i.to_string(), item)).collect()
            }
            serde_json::Value::Object(members) => {
                members.iter().map(|(key, member)| (source::tree::escape(key), member)).collect()
            }
            _ => Vec::new(),
        };
        for (step, node) in below {
            let here = format!("{at}/{step}");
            places(node, &here, found);
            found.push(here);
        }
    }

    fn judge() -> Judge {
        let text = "apiVersion: surefoot.dev/v1\nkind: Config\npolicies:\n  resources: {parameters: {requests: {memory: 1Gi}, limits: {memory: 2Gi}}}\n";
        let config = Config::parse(text, "config.yaml").unwrap();
        let set = PolicySet::load(PolicySet::built_in_sources(), &config).unwrap();
        let now = "2026-11-22T15:16:00Z".parse().unwrap();
        Judge { set, policies: None, config, with_defaults: true, now }
    }

    fn judged(judge: &Judge, texts: &[String]) -> Report {
        judge.all(source::read(&["-".into()], &mut texts.join("\n---\n").as_bytes()))
    }

    #[test]
    fn whatever_the_api_server_can_read_breaks_no_policy() {
        const ODD: [&str; 9] = ["null", "7", "-1", r#""""#, r#""x""#, r#"":/@:""#, "[]", "{}", "[{}]"];
        let rich: serde_json::Value = serde_json::from_str(RICH).unwrap();
        let (mut all, judge) = (Vec::new(), judge());
        places(&rich, "", &mut all);
        for place in all.iter().filter(|place| place.starts_with("/spec") || place.starts_with("/metadata/labels")) {
            let versions = ODD.map(|odd| {
                let mut version = rich.clone();
                *version.pointer_mut(place).unwrap() = serde_json::from_str(odd).unwrap();
                version.to_string()
            });
            for (odd, version) in ODD.into_iter().zip(versions) {
                let report = judged(&judge, &[version]);
                assert!(report.problems.is_empty(), "{place} = {odd}: {:?}", report.problems);
                assert_eq!(report.failures, [], "{place} = {odd}");
            }
        }
    }

    #[test]
    fn each_generated_name_is_another_deployment() {
        let text = RICH.replace(r#""name": "churn-canary""#, r#""generateName": "churn-""#);
        let report = judged(&judge(), &[text.clone(), text.replace("torchserve:1", "torchserve:2")]);
        let codes = |judged: &Judged| judged.findings.iter().map(|finding| finding.code.clone()).collect::<Vec<_>>();
        let [one, other] = report.judged.as_slice() else { panic!("{:?}", report.problems) };
        assert_eq!(codes(one), codes(other));
    }
}
