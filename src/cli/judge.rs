//! Deployments of files, recordings or a cluster, judged as the webhook would: the same code, with the facts that are
//! known here.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    around::Around,
    load,
    report::{About, Judged, Report, Silenced},
    source::{Manifests, Object, Problem, decode, set, tree::Places},
};
use crate::{
    admission::{self, Facts, Failure, Finding, Level, Limits, Operation, Policy, PolicySet, Request, Watch, limits},
    config::Config,
    template::{Json, defaulter, json},
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
    pub(super) aside: Aside,
}

/// Policies that overran their time once in this run, by package: they are not asked again, or a folder of Deployments
/// would wait for them as often as it has any.
#[derive(Default)]
pub(super) struct Aside(RefCell<BTreeMap<String, Failure>>);

impl Aside {
    /// What the next evaluation may spend, and on which policies.
    fn limits(&self) -> Limits {
        let barred = self.0.borrow().keys().map(|package| (package.clone(), limits::STUCK)).collect();
        Limits { time: LIMIT, watch: Some(Arc::new(Watch::barring(barred))) }
    }

    /// Sets aside what overran. For a policy that was not asked, what it did when it was.
    fn note(&self, failures: Vec<Failure>) -> Vec<Failure> {
        let noted = |failure: Failure| {
            let (mut aside, package) = (self.0.borrow_mut(), failure.policy.replace('-', "_"));
            if failure.is_overrun() && !aside.contains_key(&package) {
                let message = format!("{}; it is not asked again in this run", failure.message);
                aside.insert(package.clone(), Failure { message, ..failure.clone() });
            }
            aside.get(&package).map_or(failure.clone(), |known| Failure { level: failure.level, ..known.clone() })
        };
        failures.into_iter().map(noted).collect()
    }
}

/// One Deployment that is to be judged.
pub(super) struct Subject {
    pub(super) object: Rc<Object>,
    pub(super) asks: Asks,
    pub(super) facts: Facts,
}

/// What is asked of the API server.
pub(super) enum Asks {
    /// `kubectl apply` of a manifest, over what the cluster has.
    Apply(Option<Json>),
    /// A review that was recorded.
    Recorded(Request),
    /// To take a Deployment that is there as it is, were it new.
    Again,
    /// Nothing: what is judged is a namespace.
    Whole,
}

impl Subject {
    /// Every Deployment and recorded review among the given objects. What cannot be judged becomes a problem.
    pub(super) fn given(found: &mut Manifests, around: &Around) -> Vec<Self> {
        let mut subjects = Vec::new();
        for object in &found.objects {
            if object.kind == REVIEW {
                match recorded(object, found, around) {
                    Ok(subject) => subjects.extend(subject.map(|(object, request)| Self {
                        facts: around.facts(&object),
                        asks: Asks::Recorded(request),
                        object: Rc::new(object),
                    })),
                    Err(message) => found.problems.push(Problem {
                        file: found.files[object.file].name.clone(),
                        place: Some(object.places.nearest("")),
                        message,
                    }),
                }
            } else if object.is_deployment() {
                let stored = around.stored(object.namespace(), object.name()).cloned();
                let (facts, object) = (around.facts(object), Rc::new(object.clone()));
                subjects.push(Self { object, asks: Asks::Apply(stored), facts });
            }
        }
        subjects
    }

    /// Every namespace of a cluster, and every Deployment that it has and keeps.
    pub(super) fn held(around: &Around) -> Vec<Self> {
        let mut subjects = Vec::new();
        for held in around.live() {
            let stays = |found: &&Json| json::at(found, &["metadata", "deletionTimestamp"]).is_none();
            let mut found: Vec<&Json> = held.deployments.iter().filter(stays).collect();
            found.sort_by_key(|found| json::str_at(found, &["metadata", "name"]));
            for found in found {
                let object = live_object("Deployment", found.clone(), &held.name, subjects.len());
                let mut facts = around.facts(&object);
                // The template that comes next will not be one that has settled, so it gets defaults.
                facts.history.iter_mut().for_each(|history| history.settled.clear());
                subjects.push(Self { object: Rc::new(object), asks: Asks::Again, facts });
            }
            subjects.push(Self::whole(&held.name, around, subjects.len()));
        }
        subjects
    }

    /// A namespace, for the policies that judge it as a whole.
    pub(super) fn whole(name: &str, around: &Around, index: usize) -> Self {
        let value = tree([("metadata", tree([("name", Json::from(name))]))]);
        let object = Rc::new(live_object("Namespace", value, name, index));
        Self { object, asks: Asks::Whole, facts: around.facts_of_namespace(name) }
    }
}

fn live_object(kind: &str, value: Json, namespace: &str, index: usize) -> Object {
    Object { file: 0, index, kind: kind.to_owned(), value, places: Places::default(), home: namespace.into() }
}

const REVIEW: &str = "AdmissionReview";

/// The Deployment that a recorded review is about; `None`: it is about something else, or deletes it.
fn recorded(review: &Object, found: &Manifests, around: &Around) -> Result<Option<(Object, Request)>, String> {
    let text = review.value.to_json_str().map_err(|error| format!("is no JSON: {error}"))?;
    let request = Request::parse(text.as_bytes()).map_err(|error| format!("no review to judge: {error}"))?;
    let request = match (request.operation, request.kind.as_str()) {
        (Operation::Create | Operation::Update, "Deployment") => request,
        (Operation::Update, "Scale") => {
            let is_scaled =
                |it: &&Object| it.is_deployment() && (it.namespace(), it.name()) == (&request.namespace, &request.name);
            let (namespace, name) = (&request.namespace, &request.name);
            let given = found.objects.iter().find(is_scaled).map(stored);
            let Some(deployment) = given.or_else(|| around.stored(namespace, name).cloned()) else {
                return Err(format!(
                    "scales Deployment {namespace}/{name}; give its manifest too, or nothing can be said"
                ));
            };
            request.scaled(deployment)
        }
        _ => return Ok(None),
    };
    let object = Object {
        kind: "Deployment".to_owned(),
        value: request.object().clone(),
        places: review.places.below("/request/object"),
        home: request.namespace.as_str().into(),
        ..*review
    };
    Ok(Some((object, request)))
}

impl Judge {
    /// Judges them in order.
    pub(super) fn all(&self, subjects: &[Subject]) -> Report {
        let mut report = Report::default();
        let mut skipped = BTreeSet::new();
        let mut applied = Applied::new();
        for subject in subjects {
            let outcome = self.one(subject, &mut applied);
            skipped.extend(outcome.skipped);
            let broken = outcome.failures.iter().any(|failure| failure.level == Level::Deny);
            for mut failure in outcome.failures {
                failure.file = load::shown(self.policies.as_deref(), &failure.file);
                // A policy that breaks on one Deployment mostly breaks on all; it is told once.
                if !report.failures.contains(&failure) {
                    report.failures.push(failure);
                }
            }
            let Outcome { findings, defaults, notes, .. } = outcome;
            let object = Rc::clone(&subject.object);
            let (silent, findings) = findings.into_iter().partition(|finding: &Finding| finding.level == Level::Audit);
            let silenced = self.silenced(&object, silent);
            if matches!(subject.asks, Asks::Whole) && findings.is_empty() && silenced.is_empty() {
                continue;
            }
            report.judged.push(Judged { object, findings, silenced, defaults, notes, broken, change: None });
        }
        report.skipped = skipped.into_iter().collect();
        report.policies = self.set.policies().iter().map(|policy| (policy.name.clone(), about(policy))).collect();
        report
    }

    /// With the entry of the configuration that each owes its silence to.
    fn silenced(&self, object: &Object, findings: Vec<Finding>) -> Vec<Silenced> {
        let exemption =
            |policy: &str| self.config.exemption(policy, object.namespace(), object.name(), self.now).cloned();
        findings.into_iter().map(|finding| Silenced { exemption: exemption(&finding.policy), finding }).collect()
    }

    fn one(&self, subject: &Subject, applied: &mut Applied) -> Outcome {
        let (mut outcome, request) = self.request(subject, applied);
        if let Some(request) = request {
            let limits = self.aside.limits();
            let verdict = admission::validate(&self.set, &request, &subject.facts, &self.config, self.now, limits);
            outcome.failures.extend(self.aside.note(verdict.failures));
            outcome.findings.extend(verdict.findings);
            (outcome.notes, outcome.skipped) = (verdict.notes, verdict.skipped);
            if subject.facts.guard.is_none() {
                outcome.notes.push(format!("never judged: surefoot leaves {} alone", subject.object.namespace()));
            }
        }
        outcome
    }

    /// The request that the policies are asked about, with what came up on the way to it. `None`: there is none.
    fn request(&self, subject: &Subject, applied: &mut Applied) -> (Outcome, Option<Request>) {
        let object = &subject.object;
        let mut outcome = Outcome::default();
        let (mut request, key, is_asked) = match &subject.asks {
            Asks::Recorded(request) => {
                // A recording may have been written by hand; the API server decodes before it asks.
                if let Err(findings) = decode::faults(request.object()) {
                    return (Outcome { findings, ..outcome }, None);
                }
                (request.clone(), None, true)
            }
            Asks::Again => (Request::create(object.value.clone(), object.namespace()), None, true),
            Asks::Whole => {
                let namespace = Request::of_namespace(object.name(), subject.facts.namespace.as_ref());
                return (outcome, Some(namespace));
            }
            Asks::Apply(stored_now) => {
                match decode::faults(&object.value) {
                    // No policy is asked about something that the API server could not hand to it.
                    Err(findings) => return (Outcome { findings, ..outcome }, None),
                    Ok(findings) => outcome.findings = findings,
                }
                let key = key(object);
                let before = key.as_ref().and_then(|key| applied.remove(key));
                let before =
                    before.or_else(|| stored_now.clone().map(|now| Before { given: now.clone(), stored: now }));
                let given = stored(object);
                match before {
                    Some(before) => {
                        // By what the files say: what was added to the first stays when the second is applied.
                        let is_asked = admission::is_asked_about(&before.given, &given);
                        (Request::update(before.stored, given, object.namespace()), key, is_asked)
                    }
                    None => (Request::create(given, object.namespace()), key, true),
                }
            }
        };
        let given = request.object().clone();
        if self.with_defaults {
            let limits = self.aside.limits();
            let added = admission::default(&self.set, &request, &subject.facts, &self.config, self.now, limits);
            // As in the cluster, where the API server completes what a webhook adds before the next one sees it.
            request = request.with_object(defaulter::defaulted(&added.object));
            outcome.findings.extend(faults_of_defaults(&added.object, &added.added, &outcome.findings));
            outcome.defaults = added.added;
            outcome.failures = self.aside.note(added.failures);
        }
        applied.extend(key.map(|key| (key, Before { given, stored: request.object().clone() })));
        (outcome, is_asked.then_some(request))
    }

    /// What the policies (or the one that is asked for) see as `input`, with the policy and what it is about.
    pub(super) fn inputs(&self, subjects: &[Subject], only: Option<&str>) -> Vec<(String, Rc<Object>, Json)> {
        let mut applied = Applied::new();
        let mut inputs = Vec::new();
        for subject in subjects {
            let Some(request) = self.request(subject, &mut applied).1 else { continue };
            let asked = admission::inputs(&self.set, &request, &subject.facts, &self.config, self.now);
            let asked = asked.into_iter().filter(|(policy, _)| only.is_none_or(|only| only == policy));
            inputs.extend(asked.map(|(policy, input)| (policy, Rc::clone(&subject.object), input)));
        }
        inputs
    }
}

/// What the API server could not read, or would drop, of what policies add: it is none of the file's faults.
fn faults_of_defaults(object: &Json, added: &[admission::DefaultValue], known: &[Finding]) -> Vec<Finding> {
    if added.is_empty() {
        return Vec::new();
    }
    let (Ok(found) | Err(found)) = decode::faults(object);
    let news =
        found.into_iter().filter(|one| !known.iter().any(|known| known.path == one.path && known.code == one.code));
    news.map(|one| match added.iter().find(|added| one.path.starts_with(&added.path)) {
        Some(added) => Finding {
            // Of what a webhook adds the API server drops what it does not know; kubectl's strictness is for files.
            level: if one.code == "unknown-field" { Level::Warn } else { one.level },
            message: format!("{}, and policy {} adds it", one.message, added.policy),
            fix: format!("mend `defaults` of policy {}", added.policy),
            ..one
        },
        None => one,
    })
    .collect()
}

fn about(policy: &Policy) -> About {
    About { title: policy.metadata.title.clone(), description: policy.metadata.description.clone() }
}

/// What was judged so far: a Deployment that its file gives again is an update of what it was before, as it would be for
/// `kubectl apply` of that file. The same name in another file is mostly another environment, and judged on its own.
type Applied = BTreeMap<Key, Before>;

struct Before {
    /// By its file, with the defaults of the API.
    given: Json,
    /// With what policies added to it.
    stored: Json,
}

/// File, namespace and name.
type Key = (usize, String, String);

/// `None` for one that the API server names: each is another one.
fn key(object: &Object) -> Option<Key> {
    let name = json::str_at(&object.value, &["metadata", "name"]).filter(|name| !name.is_empty())?;
    Some((object.file, object.namespace().to_owned(), name.to_owned()))
}

#[derive(Default)]
struct Outcome {
    findings: Vec<Finding>,
    defaults: Vec<admission::DefaultValue>,
    notes: Vec<String>,
    failures: Vec<Failure>,
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

pub(super) fn tree<const N: usize>(members: [(&str, Json); N]) -> Json {
    Json::from(members.into_iter().map(|(key, value)| (Json::from(key), value)).collect::<BTreeMap<_, _>>())
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
        Judge { set, policies: None, config, with_defaults: true, now, aside: Aside::default() }
    }

    fn judged(judge: &Judge, texts: &[String]) -> Report {
        let mut found = source::read(&["-".into()], &mut texts.join("\n---\n").as_bytes(), "default");
        let around = Around::new(&found, None);
        let subjects = Subject::given(&mut found, &around);
        Report { files: found.files, problems: found.problems, ..judge.all(&subjects) }
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
