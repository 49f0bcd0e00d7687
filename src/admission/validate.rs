//! The verdict: every policy is asked, what it finds is weighed (action, guard, ratchet, exemption, override), what breaks
//! is kept beside it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{
    Facts, Failure, Finding, Level, Limits, PolicySet, Request, Skipped, Verdict,
    engine::{Broken, Session},
    facts::Isolation,
    metadata::Need,
    pointer::{self, Step},
    policy_set::Policy,
    quarantine,
    raw::{self, Complaint},
    settings::Effective,
    stamps,
    wire::{Operation, Via, tree},
};
use crate::{
    config::{Action, Config, Guard},
    template::{Digest, Json, json, keys, overriding, owner},
};

/// Judges one request. `limits` hold for all policies together.
pub fn validate(
    set: &PolicySet,
    request: &Request,
    facts: &Facts,
    config: &Config,
    now: Timestamp,
    limits: impl Into<Limits>,
) -> Verdict {
    let mut verdict = Verdict::default();
    let request = &stamps::without(request, set.unseen());
    let Some(scope) = Scope::new(request, facts, config, now) else { return verdict };
    verdict.notes.extend(scope.notes());
    verdict.notes.extend(scope.overrides_not_judged(set));
    verdict.findings.extend(quarantine::finding(request, facts, now, scope.most));
    verdict.used_facts = verdict.denied();
    let mut session = Session::new(limits);
    for policy in set.policies.iter().filter(|policy| policy.judges() && scope.concerns(policy)) {
        match scope.missing(policy) {
            missing if missing.is_empty() => scope.judge(policy, &mut session, &mut verdict),
            needs => verdict.skipped.push(Skipped { policy: policy.name.clone(), needs }),
        }
    }
    scope.say_what_was_let_through(&mut verdict);
    verdict
}

/// What is the same for all policies of one request.
pub(super) struct Scope<'a> {
    pub(super) request: &'a Request,
    facts: &'a Facts,
    config: &'a Config,
    now: Timestamp,
    pub(super) guard: Guard,
    /// Of the namespace; `None` where they cannot be known here.
    labels: Option<BTreeMap<String, String>>,
    overridden: Option<overriding::Override>,
    /// Why the override that is there counts for nothing.
    void: Option<overriding::Void>,
    owner: Option<owner::Owner>,
    goes_back: bool,
    /// The most that anything can do to this request.
    pub(super) most: Level,
}

impl<'a> Scope<'a> {
    /// `None`: nothing here is judged.
    pub(super) fn new(request: &'a Request, facts: &'a Facts, config: &'a Config, now: Timestamp) -> Option<Self> {
        let guard = facts.guard?;
        let object = request.object();
        let is_going = request.operation == Operation::Update
            && json::at(object, &["metadata", "deletionTimestamp"]).is_some_and(|at| *at != Json::Null);
        let is_judged = request.is_deployment() || request.is_namespace();
        if request.operation == Operation::Other || is_going || !is_judged {
            return None;
        }
        let (overridden, void) = match overriding::of(object, now) {
            Some(Ok(overridden)) => (Some(overridden), None),
            Some(Err(void)) => (None, Some(void)),
            None => (None, None),
        };
        let owner = json::get(object, "metadata").and_then(owner::controller_of);
        let goes_back = goes_back(request, facts);
        let most = match guard {
            Guard::Audit => Level::Audit,
            Guard::Warn => Level::Warn,
            // Nothing was asked for that could be refused.
            Guard::Enforce if request.is_namespace() => Level::Warn,
            Guard::Enforce if overridden.is_some() || owner.is_some() || goes_back => Level::Warn,
            Guard::Enforce => Level::Deny,
        };
        let labels = facts.namespace.as_ref().map(labels_of);
        Some(Self { request, facts, config, now, guard, labels, overridden, void, owner, goes_back, most })
    }

    /// The policy has a say in this request.
    pub(super) fn concerns(&self, policy: &Policy) -> bool {
        policy.judges_namespaces() == self.request.is_namespace()
            && (self.request.via == Via::Deployment || policy.metadata.scale)
    }

    pub(super) fn is_owned(&self) -> bool {
        self.owner.is_some()
    }

    pub(super) fn settings<'p>(&self, policy: &'p Policy) -> &'p Effective {
        policy.settings.in_namespace(self.labels.as_ref())
    }

    pub(super) fn is_exempt(&self, policy: &Policy) -> bool {
        let Request { namespace, name, .. } = self.request;
        self.config.exemption(&policy.name, namespace, name, self.now).is_some()
    }

    /// Facts that the policy needs and that cannot be known here.
    pub(super) fn missing(&self, policy: &Policy) -> Vec<String> {
        let is_missing = |need: &&Need| match need {
            Need::Namespace => self.facts.namespace.is_none(),
            Need::Peers => self.facts.peers.is_none(),
            Need::History => self.facts.history.is_none(),
            Need::Isolation => self.facts.isolation.is_none(),
        };
        policy.metadata.needs.iter().filter(is_missing).map(|need| need.as_str().to_owned()).collect()
    }

    /// The one document that a policy sees: the request, its parameters, and of the context what it declared.
    pub(super) fn input(&self, policy: &Policy, request: &Json) -> Json {
        let mut context = BTreeMap::from([(Json::from("via"), Json::from(self.request.via.as_str()))]);
        for need in &policy.metadata.needs {
            let value = match need {
                Need::Namespace => self.facts.namespace.clone(),
                Need::Peers => self.facts.peers.clone().map(Json::from),
                Need::History => {
                    let object = json::get(request, "object");
                    self.facts.history.as_ref().map(|history| quarantine::context(history, object))
                }
                Need::Isolation => self.facts.isolation.as_ref().map(Isolation::to_json),
            };
            context.extend(value.map(|value| (Json::from(need.as_str()), value)));
        }
        tree([
            ("request", request.clone()),
            ("parameters", self.settings(policy).parameters.clone()),
            ("context", Json::from(context)),
        ])
    }

    fn judge(&self, policy: &Policy, session: &mut Session, verdict: &mut Verdict) {
        let most = if self.is_exempt(policy) { Level::Audit } else { self.most };
        let deny = most.min(match self.settings(policy).action {
            Action::Audit => Level::Audit,
            Action::Warn => Level::Warn,
            Action::Deny => Level::Deny,
        });
        let answer = match self.ask(policy, self.request.tree(), session) {
            Ok(answer) => answer,
            Err(failure) => return verdict.failures.push(Failure { level: deny, ..failure }),
        };
        // Only a denial needs an excuse, so the old object costs nothing while all is well.
        let old = match deny {
            Level::Deny if !answer.deny.is_empty() => self.old_answer(policy, session),
            _ => None,
        };
        for complaint in answer.deny {
            let was_there = old.as_ref().is_some_and(|old| old.has(&complaint, self.request.object()));
            let level = if was_there { deny.min(Level::Warn) } else { deny };
            verdict.used_facts |= level == Level::Deny && policy.uses_facts();
            verdict.findings.push(finding(policy, level, complaint));
        }
        let warn = deny.min(Level::Warn);
        verdict.findings.extend(answer.warn.into_iter().map(|complaint| finding(policy, warn, complaint)));
    }

    /// What the policy says of a request, unweighed.
    pub(super) fn ask(&self, policy: &Policy, request: &Json, session: &mut Session) -> Result<Complaints, Failure> {
        let value = session
            .eval(&policy.engine, &policy.verdict_rule(), self.input(policy, request))
            .map_err(|broken| failure(policy, broken))?;
        let read = |rule: &'static str| {
            raw::complaints(json::get(&value, rule)).map_err(|message| misshapen(policy, rule, &message))
        };
        Ok(Complaints { deny: read("deny")?, warn: read("warn")? })
    }

    /// What the policy says of the object as it is stored; `None` where there is none, or no ratchet.
    fn old_answer(&self, policy: &Policy, session: &mut Session) -> Option<OldAnswer<'a>> {
        let old = self.request.old_object()?;
        if policy.settings.no_ratchet {
            return None;
        }
        // An UPDATE that changes nothing: what was there already is what remains.
        let unchanged = self.request.with_object(old.clone());
        let answer = self.ask(policy, unchanged.tree(), session).ok()?;
        let complaints = answer.deny.iter().map(|complaint| (named(complaint), pointer::place(old, &complaint.path)));
        Some(OldAnswer { old, complaints: complaints.collect() })
    }

    /// What somebody believes and what is not so: a guard that is none, an override that counts for nothing, facts that are
    /// not there.
    fn notes(&self) -> Vec<String> {
        if self.guard == Guard::Audit {
            return Vec::new();
        }
        let unknown = self
            .labels
            .as_ref()
            .and_then(|labels| labels.get(keys::GUARD))
            .and_then(|value| value.parse::<Guard>().err());
        let void = self.void.as_ref().map(|why| format!("annotation {} counts for nothing: {why}", keys::OVERRIDE));
        let gaps = self.facts.gaps.iter().cloned();
        unknown.map(|unknown| unknown.to_string()).into_iter().chain(void).chain(gaps).collect()
    }

    /// A selector says nothing of labels that are not known: not even `NotIn` matches.
    fn overrides_not_judged(&self, set: &PolicySet) -> Option<String> {
        let chosen_by_namespace = |policy: &&Policy| policy.settings.has_overrides() && self.concerns(policy);
        if self.labels.is_some() || self.guard == Guard::Audit {
            return None;
        }
        let names: Vec<&str> =
            set.policies.iter().filter(chosen_by_namespace).map(|policy| policy.name.as_str()).collect();
        let (names, namespace) = (names.join(", "), &self.request.namespace);
        (!names.is_empty()).then(|| {
            format!("the labels of namespace {namespace} are not known here, so no override in the configuration counts ({names})")
        })
    }

    /// Under `enforce` somebody wants to know why this was not refused.
    fn say_what_was_let_through(&self, verdict: &mut Verdict) {
        if self.guard != Guard::Enforce || (verdict.findings.is_empty() && verdict.failures.is_empty()) {
            return;
        }
        if let Some(overriding::Override { until, reason }) = &self.overridden {
            verdict.notes.push(format!("the override until {until} is in force ({reason}): nothing is refused"));
        } else if let Some(owner) = &self.owner {
            let (kind, name) = (&owner.kind, &owner.name);
            verdict.notes.push(format!("{kind} {name} manages this Deployment, so surefoot only warns"));
        } else if self.goes_back {
            verdict.notes.push("this pod template has settled before: going back to it is never refused".to_owned());
        }
    }
}

/// The request does nothing but put a template back that has settled before. `kubectl rollout undo` leaves the version
/// label of the Deployment behind, and that must not stand in the way; an older file brings its own. Any other label may
/// make the Deployment another one: a canary, say.
fn goes_back(request: &Request, facts: &Facts) -> bool {
    let Some(old) = request.old_object().filter(|_| request.via == Via::Deployment) else { return false };
    let settled = facts.history.as_ref().map(|history| history.settled.as_slice()).unwrap_or_default();
    let object = request.object();
    let (template, before) = (json::at(object, TEMPLATE), json::at(old, TEMPLATE));
    let has_settled = || template.is_some_and(|template| settled.contains(&Digest::of_template(template)));
    template != before
        && same_but("template", object, old, &["spec"])
        && same_but(keys::VERSION, object, old, &["metadata", "labels"])
        && has_settled()
}

/// The members of both objects at `path`, without `key`, are the same; one that is absent has none.
fn same_but(key: &str, one: &Json, other: &Json, path: &[&str]) -> bool {
    let members = |object| match json::at(object, path) {
        Some(Json::Object(members)) => members.iter().filter(|(name, _)| json::as_str(name) != Some(key)).collect(),
        _ => BTreeMap::new(),
    };
    members(one) == members(other)
}

const TEMPLATE: &[&str] = &["spec", "template"];

pub(super) struct Complaints {
    pub(super) deny: Vec<Complaint>,
    warn: Vec<Complaint>,
}

struct OldAnswer<'a> {
    old: &'a Json,
    /// What is said, and where.
    complaints: BTreeSet<((String, String), Vec<Step>)>,
}

impl OldAnswer<'_> {
    /// The same complaint at the same place, where this request changes nothing.
    fn has(&self, complaint: &Complaint, new: &Json) -> bool {
        let place = pointer::place(new, &complaint.path);
        let known = (named(complaint), place);
        if !self.complaints.contains(&known) {
            return false;
        }
        // A complaint without a place is about the whole specification.
        let place = if known.1.is_empty() { vec![Step::Key("spec".to_owned())] } else { known.1 };
        pointer::value_at(new, &place) == pointer::value_at(self.old, &place)
    }
}

/// What makes a complaint the same as another one: its code. A bare message has none; it is its own.
fn named(complaint: &Complaint) -> (String, String) {
    let message = if complaint.code.is_empty() { complaint.message.clone() } else { String::new() };
    (complaint.code.clone(), message)
}

fn finding(policy: &Policy, level: Level, complaint: Complaint) -> Finding {
    let Complaint { code, message, path, fix } = complaint;
    Finding { policy: policy.name.clone(), code, level, path, message, fix, details: Vec::new() }
}

pub(super) fn failure(policy: &Policy, broken: Broken) -> Failure {
    let Broken { file, line, column, message } = broken;
    let file = if file.is_empty() { policy.file.clone() } else { file };
    Failure { policy: policy.name.clone(), file, line, column, message, level: Level::Deny }
}

/// A rule gave something that is no finding: the place is where the rule begins.
pub(super) fn misshapen(policy: &Policy, rule: &'static str, message: &str) -> Failure {
    let (file, at) = policy.places.get(rule).cloned().unwrap_or_default();
    let message = format!("`{rule}`: {message}");
    Failure { policy: policy.name.clone(), file, line: at.line, column: at.column, message, level: Level::Deny }
}

fn labels_of(namespace: &Json) -> BTreeMap<String, String> {
    let Some(Json::Object(labels)) = json::get(namespace, "labels") else {
        return BTreeMap::new();
    };
    let text = |(key, value)| Some((json::as_str(key)?.to_owned(), json::as_str(value)?.to_owned()));
    labels.iter().filter_map(text).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::{History, Unsettled, fixtures::*},
        *,
    };

    const GOOD: &str = r#"{"name":"model","image":"x","readinessProbe":{},"livenessProbe":{}}"#;
    const BAD: &str = r#"{"name":"model","image":"x","livenessProbe":{}}"#;
    const NO_READINESS: &str = "no-readiness /spec/template/spec/containers/0/readinessProbe";

    fn set() -> PolicySet {
        PolicySet::load(standard(), &Config::default()).unwrap()
    }

    fn create(metadata: &str, containers: &str) -> Request {
        Request::create(deployment(metadata, r#""replicas":1"#, containers), "shop")
    }

    #[test]
    fn what_a_guard_makes_of_a_denial() {
        let set = set();
        let rows = [
            (Some(Guard::Enforce), vec![format!("Deny probes/{NO_READINESS}")]),
            (Some(Guard::Warn), vec![format!("Warn probes/{NO_READINESS}")]),
            (Some(Guard::Audit), vec![format!("Audit probes/{NO_READINESS}")]),
            (None, vec![]),
        ];
        for (guard, wanted) in rows {
            let facts = Facts { guard, ..facts(Guard::Enforce) };
            let verdict = judge(&set, &create("", BAD), &facts, &Config::default());
            assert_eq!(summary(&verdict), wanted);
            assert_eq!(verdict.denied(), guard == Some(Guard::Enforce));
        }
        assert_eq!(judge(&set, &create("", GOOD), &facts(Guard::Enforce), &Config::default()), Verdict::default());
    }

    fn update(old: &str, new: &str) -> Request {
        let object = |containers: &str| deployment("", r#""replicas":1"#, containers);
        Request::update(object(old), object(new), "shop")
    }

    fn verdict(set: &PolicySet, request: &Request, config_text: &str) -> Verdict {
        judge(set, request, &facts(Guard::Enforce), &config(config_text))
    }

    #[test]
    fn what_was_there_before_is_a_warning_while_it_stays_as_it_is() {
        let bad = |name: &str, more: &str| format!(r#"{{"name":"{name}","image":"x","livenessProbe":{{}}{more}}}"#);
        let rows = [
            // (old containers, new containers, level of each finding)
            (bad("a", ""), bad("a", ""), vec!["Warn"]),
            (bad("a", ""), bad("a", r#","env":[{"name":"X"}]"#), vec!["Warn"]),
            (bad("a", ""), bad("b", ""), vec!["Deny"]),
            // Another container in front moves the index, not the name.
            (bad("a", ""), format!("{GOOD},{}", bad("a", "")), vec!["Warn"]),
            (bad("a", ""), format!("{},{}", bad("b", ""), bad("a", "")), vec!["Warn", "Deny"]),
            (GOOD.to_owned(), bad("model", ""), vec!["Deny"]),
            // What is wrong was changed, and is wrong still: `null` is not what was there.
            (bad("a", ""), bad("a", r#","readinessProbe":false"#), vec!["Deny"]),
        ];
        let set = set();
        for (old, new, levels) in rows {
            let verdict = verdict(&set, &update(&old, &new), "");
            let found: Vec<String> = verdict.findings.iter().map(|finding| format!("{:?}", finding.level)).collect();
            assert_eq!(found, levels, "{old} -> {new}");
        }
        let text = "policies: {probes: {existing: Deny}}";
        let strict = PolicySet::load(standard(), &config(text)).unwrap();
        assert!(verdict(&strict, &update(BAD, BAD), text).denied());
    }

    #[test]
    fn messages_without_a_place_are_compared_by_their_text() {
        let set = one(
            "deny contains \"too many\" if input.request.object.spec.replicas > 3\ndeny contains m if m := input.request.object.spec.x",
        );
        let object = |spec: &str| deployment("", spec, "");
        let rows = [
            (r#""replicas":5"#, r#""replicas":5"#, "Warn"),
            (r#""replicas":5"#, r#""replicas":6"#, "Deny"),
            (r#""replicas":3"#, r#""replicas":5"#, "Deny"),
            (r#""x":"a""#, r#""x":"b""#, "Deny"),
        ];
        for (old, new, level) in rows {
            let verdict = verdict(&set, &Request::update(object(old), object(new), "shop"), "");
            assert_eq!(summary(&verdict), [format!("{level} p")], "{old} -> {new}");
        }
    }

    #[test]
    fn the_milder_of_action_and_guard_counts() {
        let labels = json(r#"{"labels":{"tier":"research"}}"#);
        let rows = [
            ("", "Deny"),
            ("policies: {probes: {action: Warn}}", "Warn"),
            ("policies: {probes: {action: Audit}}", "Audit"),
            ("policies: {probes: {overrides: [{namespaces: {matchLabels: {tier: research}}, action: Warn}]}}", "Warn"),
            ("policies: {probes: {overrides: [{namespaces: {matchLabels: {tier: other}}, action: Warn}]}}", "Deny"),
            (
                "policies: {probes: {action: Audit, overrides: [{namespaces: {matchLabels: {tier: research}}, action: Deny}]}}",
                "Deny",
            ),
            ("exemptions: [{policies: [probes], namespace: shop, name: churn, reason: r, until: 2026-11-22}]", "Audit"),
            ("exemptions: [{policies: ['*'], namespace: shop, name: churn, reason: r, until: 2026-11-22}]", "Audit"),
            ("exemptions: [{policies: [probes], namespace: shop, name: churn, reason: r, until: 2026-11-21}]", "Deny"),
            ("exemptions: [{policies: [probes], namespace: shop, name: other, reason: r, until: 2026-11-22}]", "Deny"),
            (
                "exemptions: [{policies: [canary-cap], namespace: shop, name: churn, reason: r, until: 2026-11-22}]",
                "Deny",
            ),
        ];
        for (text, level) in rows {
            let config = config(text);
            let set = PolicySet::load(standard(), &config).unwrap();
            let facts = Facts { namespace: Some(labels.clone()), ..facts(Guard::Enforce) };
            let verdict = judge(&set, &create("", BAD), &facts, &config);
            assert_eq!(summary(&verdict), [format!("{level} probes/{NO_READINESS}")], "{text}");
        }
    }

    #[test]
    fn parameters_follow_the_namespace() {
        let text = "policies: {probes: {parameters: {ignoreContainers: [model]},
            overrides: [{namespaces: {matchLabels: {tier: research}}, parameters: {ignoreContainers: []}}]}}";
        let config = config(text);
        let set = PolicySet::load(standard(), &config).unwrap();
        for (tier, denied) in [("research", true), ("other", false)] {
            let namespace = Some(json(&format!(r#"{{"labels":{{"tier":"{tier}"}}}}"#)));
            let facts = Facts { namespace, ..facts(Guard::Enforce) };
            assert_eq!(judge(&set, &create("", BAD), &facts, &config).denied(), denied);
        }
    }

    #[test]
    fn a_selector_says_nothing_of_labels_that_are_not_known() {
        let text = "policies: {probes: {overrides: [{action: Audit,
            namespaces: {matchExpressions: [{key: tier, operator: NotIn, values: [prod]}]}}]}}";
        let config = config(text);
        let set = PolicySet::load(standard(), &config).unwrap();
        let unknown = judge(&set, &create("", BAD), &facts(Guard::Enforce), &config);
        assert!(unknown.denied());
        assert!(unknown.notes[0].contains("labels of namespace shop are not known"), "{:?}", unknown.notes);
        let known = Facts { namespace: Some(json(r#"{"labels":{}}"#)), ..facts(Guard::Enforce) };
        let known = judge(&set, &create("", BAD), &known, &config);
        assert_eq!((known.denied(), known.notes.len()), (false, 0));
    }

    #[test]
    fn an_override_lets_everything_through_and_says_so() {
        let annotated = |text: &str| create(&format!(r#""annotations":{{"surefoot.dev/override":"{text}"}}"#), BAD);
        let rows = [
            ("2026-11-22T17:16Z INC-1234", false),
            ("2026-11-23T15:16:00Z INC-1234", false),
            ("2026-11-22T15:16Z INC-1234", true),
            ("2026-11-23T15:17Z INC-1234", true),
            ("2026-11-22T17:16Z", true),
            ("for two hours please", true),
        ];
        let set = set();
        for (text, denied) in rows {
            let verdict = verdict(&set, &annotated(text), "");
            assert_eq!(verdict.denied(), denied, "{text}");
            assert_eq!(verdict.findings.len(), 1);
            let noted = |text: &str| verdict.notes.iter().any(|note| note.contains(text));
            assert_eq!(noted("(INC-1234): nothing is refused"), !denied);
            assert_eq!(
                noted("annotation surefoot.dev/override counts for nothing: it "),
                denied,
                "{:?}",
                verdict.notes
            );
        }
    }

    #[test]
    fn what_another_controller_manages_is_only_warned_about() {
        let owned = r#""ownerReferences":[{"kind":"InferenceService","name":"churn","controller":true}]"#;
        let found = verdict(&set(), &create(owned, BAD), "");
        assert_eq!(summary(&found), [format!("Warn probes/{NO_READINESS}")]);
        assert_eq!(found.notes, ["InferenceService churn manages this Deployment, so surefoot only warns"]);
        assert_eq!(verdict(&set(), &create(owned, GOOD), ""), Verdict::default());
    }

    #[test]
    fn going_back_to_what_has_settled_is_never_refused() {
        let object = |spec: &str, containers: &str| deployment("", spec, containers);
        let settled = Digest::of_template(json::at(&object("", BAD), TEMPLATE).unwrap());
        let history = History { settled: vec![settled], ..History::default() };
        let facts = Facts { history: Some(history), ..facts(Guard::Enforce) };
        let (two, three) = (r#""replicas":2"#, r#""replicas":3"#);
        let labelled = |label: &str| deployment(&format!(r#""labels":{{{label}}}"#), two, BAD);
        let rows = [
            (Request::update(object(two, GOOD), object(two, BAD), "shop"), false),
            (Request::update(object(two, GOOD), object(three, BAD), "shop"), true),
            (Request::create(object(two, BAD), "shop"), true),
            // The version label may go back with the template; what else is asked for beside it is judged as ever.
            (Request::update(object(two, GOOD), labelled(r#""app.kubernetes.io/version":"1""#), "shop"), false),
            (Request::update(object(two, GOOD), labelled(r#""surefoot.dev/track":"canary""#), "shop"), true),
        ];
        for (request, denied) in rows {
            let verdict = judge(&set(), &request, &facts, &Config::default());
            assert!(verdict.denied() == denied && !verdict.findings.is_empty(), "{verdict:?}");
            assert_eq!(verdict.notes.iter().any(|note| note.contains("has settled before")), !denied);
        }
    }

    #[test]
    fn an_unknown_guard_counts_as_warn_and_is_named() {
        let namespace = Some(json(r#"{"labels":{"surefoot.dev/guard":"on"}}"#));
        let facts = Facts { namespace, ..facts(Guard::Warn) };
        let verdict = judge(&set(), &create("", GOOD), &facts, &Config::default());
        assert!(verdict.notes[0].contains("surefoot.dev/guard is `on`; it takes audit, warn or enforce"));
    }

    #[test]
    fn facts_that_are_not_there_are_told_to_whoever_is_told_anything() {
        for (guard, told) in [(Guard::Enforce, 1), (Guard::Warn, 1), (Guard::Audit, 0)] {
            let facts = Facts { history: None, gaps: vec!["not known".to_owned()], ..facts(guard) };
            let verdict = judge(&set(), &create("", GOOD), &facts, &Config::default());
            assert_eq!(verdict.notes, vec!["not known"; told], "{guard}");
        }
    }

    #[test]
    fn a_policy_gets_what_it_needs_or_is_skipped() {
        let set = set();
        let three = Request::create(deployment("", r#""replicas":3"#, GOOD), "shop");
        let found = verdict(&set, &three, "");
        assert_eq!(
            (summary(&found), found.used_facts),
            (vec!["Deny canary-cap/above-cap /spec/replicas".into()], true)
        );
        let offline = Facts { peers: None, ..facts(Guard::Enforce) };
        let found = judge(&set, &three, &offline, &Config::default());
        assert_eq!(summary(&found), Vec::<String>::new());
        assert_eq!(found.skipped, [Skipped { policy: "canary-cap".into(), needs: vec!["peers".into()] }]);
        // What is not declared is not there.
        let nosy = one("deny contains msg if msg := sprintf(\"%v\", [object.keys(input.context)])");
        let found = verdict(&nosy, &three, "");
        assert_eq!(found.findings[0].message, r#"{"via"}"#);
    }

    #[test]
    fn only_policies_for_scale_judge_a_scale() {
        let rows = [(1, 0), (2, 0), (3, 1)];
        for (replicas, denials) in rows {
            let review = format!(
                r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","kind":{{"kind":"Scale"}},
                    "operation":"UPDATE","name":"churn","namespace":"shop","object":{{"kind":"Scale","spec":{{"replicas":{replicas}}}}},
                    "oldObject":{{"kind":"Scale"}}}}}}"#
            );
            let scale = Request::parse(review.as_bytes()).unwrap();
            assert_eq!(verdict(&set(), &scale, ""), Verdict::default(), "a scale of something unknown is let through");
            let request = scale.scaled(deployment("", r#""replicas":1"#, BAD));
            assert_eq!(verdict(&set(), &request, "").denials().count(), denials);
        }
    }

    #[test]
    fn another_version_before_the_last_has_settled_is_warned_of() {
        let set = PolicySet::load(PolicySet::built_in_sources(), &Config::default()).unwrap();
        let request = update(GOOD, &GOOD.replace("\"x\"", "\"y\""));
        let digest = |containers| Digest::of_template(json::at(&deployment("", "", containers), TEMPLATE).unwrap());
        let codes = |digest: Digest, settled: Vec<Digest>, failing| {
            let rollout = Unsettled { digest, version: Some("2.4.0".to_owned()), since: now(), failing };
            let history = History { settled, rollout: Some(rollout), ..History::default() };
            let facts = Facts { history: Some(history), ..facts(Guard::Enforce) };
            let mut found = summary(&judge(&set, &request, &facts, &Config::default()));
            found.retain(|finding| finding.contains("one-at-a-time"));
            found
        };
        let (old, new) = (digest(GOOD), digest(&GOOD.replace("\"x\"", "\"y\"")));
        let warned = ["Warn one-at-a-time/unsettled /spec/template"];
        assert_eq!(codes(old.clone(), vec![], false), warned);
        assert!(codes(old.clone(), vec![], true).is_empty(), "it mends a failing one");
        assert!(codes(old, vec![new.clone()], false).is_empty(), "it goes back");
        assert!(codes(new, vec![], false).is_empty(), "it is the one under way");
    }

    #[test]
    fn a_policy_on_isolation_judges_namespaces_and_nothing_else() {
        let mut sources = standard();
        sources.push(super::super::Source {
            path: "walls/policy.rego".into(),
            text: "# METADATA
# custom: {needs: [isolation, namespace]}
package surefoot.walls

deny contains sprintf(\"%s of %s has %d\", [name, input.context.namespace.labels.team, count(input.context.isolation.resourceQuotas)]) if {
	input.request.kind.kind == \"Namespace\"
	input.request.namespace == input.request.object.metadata.name
	name := input.request.name
	count(input.context.isolation.limitRanges) + count(input.context.isolation.networkPolicies) == 0
}

defaults contains {\"path\": \"/metadata/labels/x\", \"value\": \"y\"} if input.request
"
            .to_owned(),
        });
        let set = PolicySet::load(sources, &Config::default()).unwrap();
        let namespace = json(r#"{"labels":{"team":"risk"},"annotations":{}}"#);
        let request = Request::of_namespace("shop", Some(&namespace));
        let known = Facts {
            namespace: Some(namespace),
            isolation: Some(Isolation { resource_quotas: vec![Json::Null], ..Isolation::default() }),
            ..facts(Guard::Enforce)
        };
        let found = judge(&set, &request, &known, &Config::default());
        assert_eq!(
            found.findings.iter().map(|one| (one.level, one.message.as_str())).collect::<Vec<_>>(),
            [(Level::Warn, "shop of risk has 1")]
        );
        assert_eq!(found.skipped, []);
        let audited = judge(&set, &request, &Facts { guard: Some(Guard::Audit), ..known.clone() }, &Config::default());
        assert_eq!(audited.findings[0].level, Level::Audit);
        let offline = judge(&set, &request, &Facts { isolation: None, ..known.clone() }, &Config::default());
        assert_eq!(offline.skipped, [Skipped { policy: "walls".into(), needs: vec!["isolation".into()] }]);
        assert_eq!(add_to(&set, &request, &known, &Config::default()).added, []);
        // A review of a Deployment never meets it, whatever is known.
        let verdict = judge(&set, &create("", GOOD), &known, &Config::default());
        assert_eq!(verdict, Verdict::default());
    }

    #[test]
    fn a_broken_policy_costs_only_itself() {
        let rows = [
            ("deny contains \"x\" if 1 / 0 == 1", "p/policy.rego:2:24: divide by zero"),
            (
                "\ndeny contains 7",
                "p/policy.rego:3:1: `deny`: it gave 7, which is no finding: it must be text or an object",
            ),
            (
                "deny contains {\"message\": \"x\"}",
                "p/policy.rego:2:1: `deny`: it gave {\"message\":\"x\"}, which is no finding: `msg` is missing",
            ),
            (
                "deny contains {\"msg\": 1}",
                "p/policy.rego:2:1: `deny`: it gave {\"msg\":1}, which is no finding: `msg` must be text",
            ),
            ("deny contains {\"msg\": \"a\", \"path\": \"spec\"}", "`path` must be a JSON pointer"),
            ("deny contains {\"msg\": \"a\", \"code\": \"no\\nlimit\"}", "`code` must be one word"),
            ("deny contains {\"msg\": \"a\", \"code\": \"no limit\"}", "`code` must be one word"),
            ("warn contains {}", "p/policy.rego:2:1: `warn`: it gave {}, which is no finding"),
            (
                "deny contains \"x\" if count([1 | some x in numbers.range(1, 9000); some y in numbers.range(1, 9000); x == y]) > 0",
                "p/policy.rego:0:0: did not end within",
            ),
        ];
        for (body, message) in rows {
            let mut sources = standard();
            sources.push(super::super::Source {
                path: "p/policy.rego".into(),
                text: format!("package surefoot.p\n{body}\n"),
            });
            let set = PolicySet::load(sources, &Config::default()).unwrap();
            let limit = Duration::from_millis(300);
            let ask = |guard, config: &Config| validate(&set, &create("", BAD), &facts(guard), config, now(), limit);
            let found = ask(Guard::Enforce, &Config::default());
            let [failure] = found.failures.as_slice() else { panic!("{body}: {:?}", found.failures) };
            let text = format!("{}:{}:{}: {}", failure.file, failure.line, failure.column, failure.message);
            assert!(text.contains(message), "{body}: {text}");
            assert_eq!((failure.policy.as_str(), failure.level, found.findings.len()), ("p", Level::Deny, 1));
            assert_eq!(ask(Guard::Warn, &Config::default()).failures[0].level, Level::Warn);
            let exempt = "exemptions: [{policies: [p], namespace: shop, name: churn, reason: r, until: 2026-11-22}]";
            assert_eq!(ask(Guard::Enforce, &config(exempt)).failures[0].level, Level::Audit);
        }
    }

    #[test]
    fn what_is_on_its_way_out_is_never_held_up() {
        let going = r#""deletionTimestamp":"2026-11-22T15:00:00Z""#;
        let object = deployment(going, "", BAD);
        assert_eq!(verdict(&set(), &Request::update(object.clone(), object, "shop"), ""), Verdict::default());
    }
}
