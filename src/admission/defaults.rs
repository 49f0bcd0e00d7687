//! Defaults: what policies add to a Deployment that does not say it itself. Add if absent, parents made, so that asking
//! twice changes nothing (what was added to follow its source, `"sticky": false`, goes on following it); and only where a rollout starts anyway, because what is added to a pod template starts one.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use json_patch::{AddOperation, Patch, PatchOperation};

use super::{
    DefaultValue, Facts, Failure, Level, Limits, PolicySet, Request,
    engine::Session,
    managed, pointer,
    policy_set::Policy,
    raw,
    settings::plain,
    stamps,
    validate::{Scope, failure, misshapen},
    wire::{Operation, Via},
};
use crate::{
    config::{Config, Guard},
    template::{Digest, Json, defaulter, json, keys},
};

/// Asking again until nothing is added: a default may call for another. Four that do so in a row are a mistake.
const PASSES: usize = 4;

/// What the policies add to one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaulting {
    /// In policy order, parents first.
    pub added: Vec<DefaultValue>,
    /// The object with all that was added.
    pub object: Json,
    /// The same as one patch; empty where nothing is added.
    pub patch: Patch,
    /// Policies that broke; they add nothing.
    pub failures: Vec<Failure>,
    /// One line for each policy and container.
    pub warnings: Vec<String>,
}

/// What the policies add to the object of `request`. Below `enforce` nothing is added, and the warnings say what would be.
pub fn default(
    set: &PolicySet,
    request: &Request,
    facts: &Facts,
    config: &Config,
    now: Timestamp,
    limits: impl Into<Limits>,
) -> Defaulting {
    let (given, request) = (request.object(), &stamps::without(request, set.unseen()));
    let nothing = Defaulting {
        added: Vec::new(),
        object: request.object().clone(),
        patch: Patch(Vec::new()),
        failures: Vec::new(),
        warnings: Vec::new(),
    };
    let Some(scope) = Scope::new(request, facts, config, now).filter(|scope| starts_rollout(scope, facts)) else {
        return Defaulting { object: given.clone(), ..nothing };
    };
    let mut session = Session::new(limits);
    let mut restless = Vec::new();
    loop {
        let mut fold = Fold { scope: &scope, result: Defaulting { failures: restless.clone(), ..nothing.clone() } };
        match fold.settle(set, &mut session) {
            Ok(()) => return fold.finish(given),
            // Once more without them: what others added in answer to them is not to stay either.
            Err(found) => restless.extend(found),
        }
    }
}

/// On CREATE, and where the request itself changes the template; never on a template that once settled, nor where
/// another controller would take back what is added.
fn starts_rollout(scope: &Scope<'_>, facts: &Facts) -> bool {
    let request = scope.request;
    let template = json::at(request.object(), &["spec", "template"]);
    let changes = match request.operation {
        Operation::Create => true,
        _ => request.old_object().is_some_and(|old| json::at(old, &["spec", "template"]) != template),
    };
    let settled = facts.history.as_ref().map(|history| history.settled.as_slice()).unwrap_or_default();
    let has_settled = || template.is_some_and(|template| settled.contains(&Digest::of_template(template)));
    request.is_deployment()
        && request.via == Via::Deployment
        && changes
        && !scope.is_owned()
        && (settled.is_empty() || !has_settled())
}

struct Fold<'a> {
    scope: &'a Scope<'a>,
    result: Defaulting,
}

impl Fold<'_> {
    /// Asks all policies until none adds anything. `Err`: those that never end.
    fn settle(&mut self, set: &PolicySet, session: &mut Session) -> Result<(), Vec<Failure>> {
        let mut before = 0;
        for _ in 0..PASSES {
            before = self.result.added.len();
            for policy in &set.policies {
                self.policy(policy, session);
            }
            if self.result.added.len() == before {
                return Ok(());
            }
        }
        let latest = &self.result.added[before..];
        let still_adds = |policy: &Policy| latest.iter().find(|added| added.policy == policy.name);
        let restless = |(policy, added): (&Policy, &DefaultValue)| {
            let path = pointer::notation(&added.path);
            let message =
                format!("each default calls for another, and {PASSES} in a row are a mistake: the last is {path}");
            Failure { level: Level::Warn, ..misshapen(policy, "defaults", &message) }
        };
        Err(set.policies.iter().filter_map(|policy| Some((policy, still_adds(policy)?))).map(restless).collect())
    }

    fn policy(&mut self, policy: &Policy, session: &mut Session) {
        let Some(rule) = policy.defaults_rule() else { return };
        let has_broken = self.result.failures.iter().any(|failure| failure.policy == policy.name);
        if has_broken || self.scope.is_exempt(policy) || !self.scope.missing(policy).is_empty() {
            return;
        }
        let request = self.scope.request.with_object(self.result.object.clone());
        let wanted = session
            .eval(&policy.engine, &rule, self.scope.input(policy, request.tree()))
            .map_err(|broken| failure(policy, broken))
            .and_then(|value| raw::defaults(&value).map_err(|message| misshapen(policy, "defaults", &message)));
        let added = wanted.and_then(|wanted| {
            let kept = self.addition(policy, &wanted, true)?;
            if !kept.differs {
                return Ok(kept);
            }
            // What was added before, to another object, may contradict what this one says.
            let fresh = self.addition(policy, &wanted, false)?;
            let mut refusals = |object: &Json| {
                let request = self.scope.request.with_object(object.clone());
                self.scope.ask(policy, request.tree(), session).map_or(0, |answer| answer.deny.len())
            };
            Ok(if refusals(&fresh.object) < refusals(&kept.object) { fresh } else { kept })
        });
        match added {
            Ok(Addition { object, added, operations, .. }) => {
                self.result.object = object;
                self.result.added.extend(added);
                self.result.patch.0.extend(operations);
            }
            // The mutating path never denies.
            Err(failure) => self.result.failures.push(Failure { level: Level::Warn, ..failure }),
        }
    }

    /// On a copy: a policy that breaks half-way adds nothing at all.
    fn addition(&self, policy: &Policy, wanted: &[raw::Default], keeps: bool) -> Result<Addition, Failure> {
        let object = self.result.object.clone();
        let mut addition = Addition { object, added: Vec::new(), operations: Vec::new(), keeps, differs: false };
        for default in wanted {
            addition
                .add(&policy.name, default.clone(), self.scope.request)
                .map_err(|message| misshapen(policy, "defaults", &message))?;
        }
        Ok(addition)
    }

    fn finish(self, given: &Json) -> Defaulting {
        let Self { scope, mut result } = self;
        let verb = if scope.guard == Guard::Enforce { "added" } else { "would add" };
        if scope.guard != Guard::Audit {
            result.warnings = warnings(&result, verb);
        }
        stamps::put_back(&mut result.object, given);
        if scope.guard != Guard::Enforce {
            result.object = given.clone();
            result.added.clear();
            result.patch.0.clear();
        }
        result
    }
}

/// What one policy adds.
struct Addition {
    object: Json,
    added: Vec<DefaultValue>,
    operations: Vec<PatchOperation>,
    /// What was added before is added again, where the policy says so.
    keeps: bool,
    /// That was another value than the policy would give now.
    differs: bool,
}

impl Addition {
    fn add(&mut self, policy: &str, default: raw::Default, request: &Request) -> Result<(), String> {
        let raw::Default { path, value, sticky } = default;
        let (old, there) = (request.old_object(), pointer::lookup(&self.object, &path));
        // Webhooks see objects with the API's defaults filled in: these cannot be told from absent.
        let is_absent = |value: &Json| *value == Json::Null || defaulter::is_default(&path, value);
        let follows = |value: &Json| !sticky && self.was_added(&path, value, request);
        if there.is_some_and(|value| !is_absent(value) && !follows(value)) {
            return Ok(());
        }
        let before = old.filter(|_| sticky && self.keeps).and_then(|old| stored(old, &self.object, &path));
        self.differs |= before.as_ref().is_some_and(|before| *before != value);
        let value = before.unwrap_or(value);
        if there == Some(&value) {
            return Ok(());
        }
        let (at, made) = put(&mut self.object, &path, &value)?;
        let path_of = |pointer: &str| pointer.parse().map_err(|_| format!("{pointer} is no JSON pointer"));
        self.operations.push(PatchOperation::Add(AddOperation { path: path_of(&at)?, value: plain(&made) }));
        self.added.push(DefaultValue { policy: policy.to_owned(), path, value });
        Ok(())
    }

    /// Nobody wrote this value: the stored object has the same, and the file that `kubectl apply` was given does not name it,
    /// or, where no such file is kept, nobody manages it. Neither kind of apply removes what a webhook has added, so this is the
    /// only way for it to follow its source.
    fn was_added(&self, path: &str, value: &Json, request: &Request) -> bool {
        let place = pointer::place(&self.object, path);
        let is_nobodys = || match json::str_at(&self.object, &["metadata", "annotations", keys::LAST_APPLIED]) {
            Some(file) => Json::from_json_str(file).is_ok_and(|file| pointer::value_at(&file, &place).is_none()),
            None => request.managed_fields().and_then(|fields| managed::is_managed(fields, &place)) == Some(false),
        };
        request.old_object().and_then(|old| pointer::value_at(old, &place)) == Some(value) && is_nobodys()
    }
}

/// What the stored object has at this place, where it has more than the API's default.
fn stored(old: &Json, new: &Json, path: &str) -> Option<Json> {
    let value = pointer::value_at(old, &pointer::place(new, path))?;
    (*value != Json::Null && !defaulter::is_default(path, value)).then(|| value.clone())
}

/// Puts `value` at `path` and makes the objects on the way; gives the topmost pointer that was not there, and what is
/// there now.
fn put(root: &mut Json, path: &str, value: &Json) -> Result<(String, Json), String> {
    let steps = pointer::steps(path);
    let escape = |step: &String| step.replace('~', "~0").replace('/', "~1");
    let mut node = root;
    for (depth, step) in steps.iter().enumerate() {
        let is_there = pointer::step(node, step).is_some_and(|below| *below != Json::Null);
        let is_last = depth + 1 == steps.len();
        if is_there && !is_last {
            node = below(node, step).ok_or_else(|| format!("{path} leads through {step}, which cannot be changed"))?;
            continue;
        }
        let Json::Object(members) = node else {
            return Err(format!("{path} leads through a list element or a value that is not there"));
        };
        let made = steps[depth + 1..]
            .iter()
            .rev()
            .fold(value.clone(), |below, step| Json::from(BTreeMap::from([(Json::from(step.as_str()), below)])));
        Arc::make_mut(members).insert(Json::from(step.as_str()), made.clone());
        let at = steps[..=depth].iter().map(|step| format!("/{}", escape(step))).collect();
        return Ok((at, made));
    }
    Err("the empty path is the object itself".to_owned())
}

fn below<'a>(node: &'a mut Json, step: &str) -> Option<&'a mut Json> {
    match node {
        Json::Object(members) => Arc::make_mut(members).get_mut(&Json::from(step)),
        Json::Array(elements) => Arc::make_mut(elements).get_mut(pointer::index(step)?),
        _ => None,
    }
}

/// One sentence for each policy and container.
fn warnings(result: &Defaulting, verb: &str) -> Vec<String> {
    struct Group<'a> {
        policy: &'a str,
        container: Option<String>,
        items: Vec<String>,
    }
    let mut groups: Vec<Group<'_>> = Vec::new();
    for default in &result.added {
        let container = pointer::innermost_name(&result.object, &default.path);
        let what = named(default, container.is_some());
        match groups.iter_mut().find(|group| group.policy == default.policy && group.container == container) {
            Some(group) => group.items.push(what),
            None => groups.push(Group { policy: &default.policy, container, items: vec![what] }),
        }
    }
    let sentence = |Group { policy, container, items }| {
        let place = container.map(|name| format!(" to container \"{name}\"")).unwrap_or_default();
        let what = joined(&items);
        format!("[{policy}] {verb} {what}{place}; put your own in the file to keep them in your hands")
    };
    groups.into_iter().map(sentence).collect()
}

/// The field as it is called within its container, with its value where that is short.
fn named(default: &DefaultValue, in_container: bool) -> String {
    let field = pointer::notation(&default.path);
    let field = match field.rfind("].").filter(|_| in_container) {
        Some(end) => field[end + 2..].to_owned(),
        None => field,
    };
    match &default.value {
        value @ (Json::Number(_) | Json::Bool(_)) => format!("{field} {value}"),
        Json::String(text) if text.len() <= 40 => format!("{field} {text}"),
        _ => field,
    }
}

fn joined(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::{
        super::fixtures::{add_to, config, deployment, facts, json as parsed, one, standard},
        *,
    };

    /// `pointer value`, one line for each default.
    fn added(result: &Defaulting) -> Vec<String> {
        result.added.iter().map(|default| format!("{} {}", default.path, default.value)).collect()
    }

    /// The patch as the API server applies it.
    fn patched(given: &Json, patch: &Patch) -> Json {
        let mut document = plain(given);
        json_patch::patch(&mut document, &patch.0).unwrap();
        Json::from(document)
    }

    const BODY: &str = r#"
defaults contains {"path": "/spec/minReadySeconds", "value": 10}
defaults contains {"path": "/spec/progressDeadlineSeconds", "value": 900}
defaults contains {"path": "/spec/template/metadata/labels/a~1b", "value": "x", "sticky": false}
defaults contains {"path": "/spec/template/metadata/labels/c", "value": "y"}
defaults contains {"path": sprintf("/spec/template/spec/containers/%d/resources/limits/memory", [i]), "value": "1Gi"} if {
	some i, _ in input.request.object.spec.template.spec.containers
}
"#;

    #[test]
    fn absent_fields_are_added_with_their_parents() {
        let set = one(BODY);
        let rows = [
            // (metadata, spec, containers, what is added)
            (
                "",
                r#""replicas":1"#,
                r#"{"name":"a"},{"name":"b","resources":{"limits":{"memory":"2Gi"}}}"#,
                vec![
                    "/spec/minReadySeconds 10",
                    "/spec/progressDeadlineSeconds 900",
                    r#"/spec/template/metadata/labels/a~1b "x""#,
                    r#"/spec/template/metadata/labels/c "y""#,
                    r#"/spec/template/spec/containers/0/resources/limits/memory "1Gi""#,
                ],
            ),
            // What equals the API's default counts as absent, what does not is left alone.
            (
                "",
                r#""minReadySeconds":0,"progressDeadlineSeconds":601"#,
                "",
                vec![
                    "/spec/minReadySeconds 10",
                    r#"/spec/template/metadata/labels/a~1b "x""#,
                    r#"/spec/template/metadata/labels/c "y""#,
                ],
            ),
        ];
        for (metadata, spec, containers, wanted) in rows {
            let object = deployment(metadata, spec, containers);
            let request = Request::create(object.clone(), "shop");
            let result = add_to(&set, &request, &facts(Guard::Enforce), &Config::default());
            assert_eq!(added(&result), wanted);
            assert_eq!(result.failures, []);
            assert_eq!(patched(&object, &result.patch), result.object);
            let again = Request::create(result.object.clone(), "shop");
            let again = add_to(&set, &again, &facts(Guard::Enforce), &Config::default());
            assert_eq!((again.object, again.patch), (result.object, Patch(Vec::new())));
        }
    }

    #[test]
    fn below_enforce_nothing_changes_and_the_warning_says_what_would() {
        let set = PolicySet::load(standard(), &config("policies: {probes: {parameters: {period: 7}}}")).unwrap();
        let object = deployment("", "", r#"{"name":"model","image":"triton:1"}"#);
        let request = Request::create(object.clone(), "shop");
        let tail = "startupProbe to container \"model\"; put your own in the file to keep them in your hands";
        let rows = [
            (Guard::Enforce, 1, vec![format!("[probes] added {tail}")]),
            (Guard::Warn, 0, vec![format!("[probes] would add {tail}")]),
            (Guard::Audit, 0, vec![]),
        ];
        for (guard, operations, warnings) in rows {
            let result = add_to(&set, &request, &facts(guard), &Config::default());
            assert_eq!((result.patch.0.len(), result.warnings), (operations, warnings));
            assert_eq!(result.object == object, operations == 0);
        }
    }

    #[test]
    fn only_where_a_rollout_starts_anyway() {
        let set = one(r#"defaults contains {"path": "/spec/template/metadata/labels/a", "value": "x"}"#);
        let container = |image: &str| format!(r#"{{"name":"model","image":"{image}"}}"#);
        let object = |metadata: &str, image: &str| deployment(metadata, "", &container(image));
        let old = || object("", "x:1");
        let update = |new: Json| Request::update(old(), new, "shop");
        let owned = r#""ownerReferences":[{"kind":"InferenceService","name":"churn","controller":true}]"#;
        let exempt = "exemptions: [{policies: [p], namespace: shop, name: churn, reason: r, until: 2026-11-22}]";
        let rows = [
            ("created", Request::create(old(), "shop"), "", 1),
            ("another image", update(object("", "x:2")), "", 1),
            ("only annotated", update(object(r#""annotations":{"a":"b"}"#, "x:1")), "", 0),
            ("managed by another", Request::create(object(owned, "x:1"), "shop"), "", 0),
            ("exempt", Request::create(old(), "shop"), exempt, 0),
        ];
        for (what, request, text, count) in rows {
            let result = add_to(&set, &request, &facts(Guard::Enforce), &config(text));
            assert_eq!(result.added.len(), count, "{what}");
        }
        let template = Digest::of_template(json::at(&old(), &["spec", "template"]).unwrap());
        let mut settled = facts(Guard::Enforce);
        settled.history.as_mut().unwrap().settled.push(template);
        let back = Request::update(object("", "x:2"), old(), "shop");
        assert_eq!(add_to(&set, &back, &settled, &Config::default()).added, []);
    }

    #[test]
    fn what_was_added_stays_unless_it_contradicts_what_is_there_now() {
        let set = one(r#"
defaults contains {"path": "/spec/limit", "value": 20}
deny contains {"code": "above", "msg": "above", "path": "/spec/request"} if input.request.object.spec.request > input.request.object.spec.limit
deny contains {"code": "low", "msg": "low", "path": "/spec/limit"} if input.request.object.spec.limit < 4
"#);
        // (old limit, new request, what is added)
        for (before, request, wanted) in [(5, 4, 5), (5, 5, 5), (5, 6, 20), (20, 6, 20), (5, 30, 5), (3, 2, 20)] {
            let object = |image: u32, spec: String| {
                parsed(&format!(
                    r#"{{"metadata":{{"name":"churn"}},"spec":{{{spec},"template":{{"metadata":{{"labels":{{"v":"{image}"}}}}}}}}}}"#
                ))
            };
            let (old, new) = (object(1, format!(r#""limit":{before}"#)), object(2, format!(r#""request":{request}"#)));
            let result = add_to(&set, &Request::update(old, new, "shop"), &facts(Guard::Enforce), &Config::default());
            assert_eq!(added(&result), [format!("/spec/limit {wanted}")], "{before} {request}");
        }
    }

    #[test]
    fn what_was_added_follows_its_source_unless_a_file_says_otherwise() {
        let set = PolicySet::load(PolicySet::built_in_sources(), &Config::default()).unwrap();
        let object = |deployment: &str, template: &str, image: &str, file: Option<&str>| {
            let applied = file.map(|file| format!(r#","annotations":{{"{}":{file:?}}}"#, keys::LAST_APPLIED));
            let label = |version: &str| match version {
                "" => String::new(),
                version => format!(r#""app.kubernetes.io/version":"{version}""#),
            };
            parsed(&format!(
                r#"{{"metadata":{{"name":"churn","labels":{{{}}}{}}},"spec":{{"minReadySeconds":9,"template":{{
                    "metadata":{{"labels":{{{}}}}},"spec":{{"containers":[{{"name":"m","image":"churn:{image}"}}]}}}}}}}}"#,
                label(deployment),
                applied.unwrap_or_default(),
                label(template)
            ))
        };
        let plain_file = r#"{"spec":{"template":{"metadata":{"labels":{}}}}}"#;
        let full_file = r#"{"spec":{"template":{"metadata":{"labels":{"app.kubernetes.io/version":"1"}}}}}"#;
        let add_with = |template: &str, file: Option<&str>, managed: Option<&str>| {
            let (old, new) = (object("1", "1", "1", file), object("2", template, "2", file));
            let request = Request::update(old, new.clone(), "shop").with_managed_fields(managed);
            let result = add_to(&set, &request, &facts(Guard::Enforce), &Config::default());
            assert_eq!(patched(&new, &result.patch), result.object);
            added(&result)
        };
        let added_to = |template: &str, file: Option<&str>| add_with(template, file, None);
        let follows = [r#"/spec/template/metadata/labels/app.kubernetes.io~1version "2""#];
        assert_eq!(added_to("1", Some(plain_file)), follows);
        assert_eq!(added_to("", Some(plain_file)), follows);
        assert_eq!(added_to("", None), follows);
        assert!(added_to("1", Some(full_file)).is_empty(), "the file says 1");
        assert!(added_to("1", None).is_empty(), "nobody knows who wrote it");
        assert!(added_to("1", Some("{")).is_empty(), "nor here");
        assert!(added_to("3", Some(plain_file)).is_empty(), "somebody wrote it just now");
        // No file is kept: the API server knows who manages what.
        let managed = |labels: &str| {
            format!(
                r#"[{{"manager":"kubectl","fieldsV1":{{"f:metadata":{{"f:labels":{{"f:app.kubernetes.io/version":{{}}}}}},"f:spec":{{"f:template":{{"f:metadata":{{"f:labels":{labels}}}}}}}}}}}]"#
            )
        };
        let (others, own) = (managed(r#"{"f:app":{}}"#), managed(r#"{"f:app.kubernetes.io/version":{}}"#));
        assert_eq!(add_with("1", None, Some(&others)), follows);
        assert!(add_with("1", None, Some(&own)).is_empty(), "the file says 1");
        assert_eq!(add_with("1", Some(plain_file), Some(&own)), follows, "the kept file counts more");
    }

    #[test]
    fn what_the_stored_object_has_there_is_kept() {
        let set = one(r#"
defaults contains {"path": "/spec/template/metadata/labels/kept", "value": "new"}
defaults contains {"path": "/spec/template/metadata/labels/fresh", "value": "new", "sticky": false}
defaults contains {"path": "/spec/minReadySeconds", "value": 10}
defaults contains {"path": sprintf("/spec/template/spec/containers/%d/workingDir", [i]), "value": "/new"} if {
	some i, _ in input.request.object.spec.template.spec.containers
}"#);
        let old = parsed(
            r#"{"metadata":{"name":"churn"},"spec":{"minReadySeconds":0,"template":{
                "metadata":{"labels":{"kept":"old","fresh":"old"}},
                "spec":{"containers":[{"name":"a","workingDir":"/old"},{"name":"b"}]}}}}"#,
        );
        // The container has moved; it is found by its name.
        let new = parsed(
            r#"{"metadata":{"name":"churn"},"spec":{"minReadySeconds":0,"template":{
                "spec":{"containers":[{"name":"b"},{"name":"a"}]}}}}"#,
        );
        let result =
            add_to(&set, &Request::update(old, new.clone(), "shop"), &facts(Guard::Enforce), &Config::default());
        assert_eq!(
            added(&result),
            [
                "/spec/minReadySeconds 10",
                r#"/spec/template/metadata/labels/fresh "new""#,
                r#"/spec/template/metadata/labels/kept "old""#,
                r#"/spec/template/spec/containers/0/workingDir "/new""#,
                r#"/spec/template/spec/containers/1/workingDir "/old""#,
            ]
        );
        assert_eq!(patched(&new, &result.patch), result.object);
    }

    #[test]
    fn defaults_that_cannot_be_added_are_a_failure_and_add_nothing() {
        let deep = |steps, value| format!(r#"{{"path": "{}", "value": {value}}}"#, "/a".repeat(steps));
        let (path, both) = (deep(51, "1"), deep(45, "[[[[[[1]]]]]]"));
        let rows = [
            (r#"{"path": "/spec/template/spec/containers/7/tty", "value": 1}"#, "leads through a list element"),
            (r#"{"path": "/spec/template/spec/containers/-", "value": {}}"#, "leads through a list element"),
            (r#"{"path": "/metadata/name/x", "value": 1}"#, "leads through a list element or a value"),
            (r#"{"path": "spec", "value": 1}"#, "`path` must be a JSON pointer"),
            (r#"{"path": "/spec/x"}"#, "`value` is missing"),
            (r#"{"path": "/spec/x", "value": {1, 2}}"#, "without sets"),
            (path.as_str(), "nested more than 50 levels"),
            (both.as_str(), "nested more than 50 levels"),
            (r#"{"path": "/spec/x", "value": 1, "sticky": 0}"#, "`sticky` must be true or false"),
            (r#""text""#, "`path` must be a JSON pointer"),
        ];
        for (entry, message) in rows {
            let body = format!("defaults contains {{\"path\": \"/spec/a\", \"value\": 1}}\ndefaults contains {entry}");
            let request = Request::create(deployment("", "", r#"{"name":"model"}"#), "shop");
            let result = add_to(&one(&body), &request, &facts(Guard::Enforce), &Config::default());
            assert_eq!((added(&result), result.patch.0.len()), (vec![], 0), "{entry}");
            let [failure] = result.failures.as_slice() else { panic!("{entry}: {:?}", result.failures) };
            assert!(failure.message.contains(message), "{entry}: {}", failure.message);
            assert_eq!((failure.file.as_str(), failure.line, failure.level), ("p/policy.rego", 2, Level::Warn));
        }
    }

    #[test]
    fn a_default_may_call_for_another_but_not_for_ever() {
        // Label n calls for label n + 1, up to `most`.
        let chain = |most: usize| {
            format!(
                r#"
defaults contains {{"path": sprintf("/metadata/labels/l%d", [n]), "value": "x"}} if {{
	n := count(object.get(input.request.object.metadata, "labels", {{}}))
	n < {most}
}}"#
            )
        };
        let request = Request::create(parsed(r#"{"metadata":{"name":"churn"},"spec":{"template":{}}}"#), "shop");
        let of = |body: &str| add_to(&one(body), &request, &facts(Guard::Enforce), &Config::default());
        let ends = of(&chain(3));
        assert_eq!((added(&ends).len(), ends.failures), (3, vec![]));
        let never = of(&chain(100));
        assert_eq!((added(&never), never.patch), (vec![], Patch(Vec::new())));
        let [failure] = never.failures.as_slice() else { panic!("{:?}", never.failures) };
        assert!(
            failure.message.ends_with("4 in a row are a mistake: the last is metadata.labels.l3"),
            "{}",
            failure.message
        );
        assert_eq!(failure.level, Level::Warn);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_shipped_defaults_are_the_same_the_second_time(
            image in "nvidia/tritonserver:24-py3|vllm/vllm-openai:v0|pytorch/torchserve:1|churn:2||[a-z/:.@]{0,20}",
            ports in prop::collection::vec(prop_oneof![Just(8000u16), Just(8080), Just(8081), 1..9000u16], 0..3),
            probe in prop_oneof![Just("null"), Just("{}"), Just(r#"{"httpGet":{"port":8000},"periodSeconds":7}"#)],
            labels in prop_oneof![Just("{}"), Just(r#"{"app.kubernetes.io/version":"1"}"#), Just("null")],
            ready in prop_oneof![Just(""), Just(r#""minReadySeconds":0,"#), Just(r#""minReadySeconds":5,"progressDeadlineSeconds":30,"#)],
        ) {
            static SET: LazyLock<PolicySet> =
                LazyLock::new(|| PolicySet::load(PolicySet::built_in_sources(), &Config::default()).unwrap());
            let ports: Vec<String> = ports.iter().map(|port| format!(r#"{{"containerPort":{port}}}"#)).collect();
            let object = parsed(&format!(
                r#"{{"metadata":{{"name":"churn","labels":{labels}}},"spec":{{{ready}"template":{{"metadata":{{"labels":{{}}}},"spec":
                    {{"containers":[{{"name":"model","image":"{image}","ports":[{}],"livenessProbe":{probe}}},{{"name":"b"}}]}}}}}}}}"#,
                ports.join(",")
            ));
            let first = add_to(&SET, &Request::create(object.clone(), "shop"), &facts(Guard::Enforce), &Config::default());
            prop_assert_eq!(&first.failures, &[]);
            prop_assert_eq!(&patched(&object, &first.patch), &first.object);
            let second = add_to(&SET, &Request::create(first.object.clone(), "shop"), &facts(Guard::Enforce), &Config::default());
            prop_assert_eq!((second.object.to_string(), second.patch), (first.object.to_string(), Patch(Vec::new())));
        }
    }

    /// Places of a Deployment, and what may be found there that a policy did not think of.
    const PLACES: [&str; 24] = [
        "/metadata",
        "/metadata/labels",
        "/metadata/annotations",
        "/spec",
        "/spec/replicas",
        "/spec/minReadySeconds",
        "/spec/progressDeadlineSeconds",
        "/spec/strategy",
        "/spec/template",
        "/spec/template/metadata",
        "/spec/template/metadata/labels",
        "/spec/template/spec",
        "/spec/template/spec/containers",
        "/spec/template/spec/initContainers",
        "/spec/template/spec/resources",
        "/spec/template/spec/containers/0",
        "/spec/template/spec/containers/0/name",
        "/spec/template/spec/containers/0/image",
        "/spec/template/spec/containers/0/ports",
        "/spec/template/spec/containers/0/resources",
        "/spec/template/spec/containers/0/readinessProbe",
        "/spec/template/spec/containers/0/livenessProbe",
        "/spec/template/spec/containers/1",
        "/spec/template/spec/containers/1/name",
    ];
    const ODD: [&str; 14] = [
        "null",
        "{}",
        "[]",
        "\"\"",
        "0",
        "-1",
        "600",
        "false",
        "\"model\"",
        "[null]",
        "[{}]",
        "{\"a/b~c\":null}",
        r#"{"limits":{"cpu":"1e3","memory":"-1Gi","nvidia.com/gpu":1},"requests":{"cpu":"nonsense"}}"#,
        r#"{"httpGet":{"port":"http"},"periodSeconds":2147483647,"failureThreshold":2147483647}"#,
    ];

    /// A Deployment that defaults are added to, with something odd in some places; what is not there any more stays so.
    fn odd(changes: &[(usize, usize)]) -> Json {
        let mut object: serde_json::Value = serde_json::from_str(
            r#"{"metadata":{"name":"churn","labels":{"app.kubernetes.io/version":"1"},"annotations":{}},
                "spec":{"replicas":3,"minReadySeconds":0,"progressDeadlineSeconds":600,"strategy":{"type":"RollingUpdate"},
                "template":{"metadata":{"labels":{"app":"churn"}},"spec":{"resources":null,"initContainers":[{"name":"init"}],
                "containers":[{"name":"model","image":"nvcr.io/nvidia/tritonserver:24.05-py3","ports":[{"containerPort":8000}],
                "resources":{},"readinessProbe":null,"livenessProbe":{"httpGet":{"port":8000},"periodSeconds":7}},
                {"name":"b","image":"vllm/vllm-openai:v0","resources":{"limits":{"memory":"2Gi"}}}]}}}}"#,
        )
        .unwrap();
        for (place, value) in changes {
            if let Some(found) = object.pointer_mut(PLACES[*place]) {
                *found = serde_json::from_str(ODD[*value]).unwrap();
            }
        }
        Json::from(object)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn odd_objects_are_defaulted_once_too(
            old in prop::collection::vec((0..PLACES.len(), 0..ODD.len()), 0..4),
            new in prop::collection::vec((0..PLACES.len(), 0..ODD.len()), 0..4),
            is_update in any::<bool>(),
            is_raw in any::<bool>(),
        ) {
            static CONFIG: LazyLock<Config> = LazyLock::new(|| {
                config("policies: {resources: {parameters: {requests: {cpu: 500m, memory: 1Gi}, limits: {memory: 1Gi}}}}")
            });
            static SET: LazyLock<PolicySet> =
                LazyLock::new(|| PolicySet::load(PolicySet::built_in_sources(), &CONFIG).unwrap());
            // What a webhook sees has been filled in by the API server; what a command line reads may be anything.
            let (old, raw) = (defaulter::defaulted(&odd(&old)), odd(&new));
            let new = if is_raw && !is_update { raw } else { defaulter::defaulted(&raw) };
            let request = |object: &Json| match is_update {
                true => Request::update(old.clone(), object.clone(), "shop"),
                false => Request::create(object.clone(), "shop"),
            };
            let first = add_to(&SET, &request(&new), &facts(Guard::Enforce), &CONFIG);
            prop_assert_eq!(patched(&new, &first.patch).to_string(), first.object.to_string());
            // Asked again, at once or after the API server has filled in what is its own: nothing more.
            let filled_in = (!is_raw).then(|| defaulter::defaulted(&first.object));
            for again in [Some(first.object.clone()), filled_in].into_iter().flatten() {
                let second = add_to(&SET, &request(&again), &facts(Guard::Enforce), &CONFIG);
                prop_assert_eq!((second.object.to_string(), second.patch), (again.to_string(), Patch(Vec::new())));
            }
        }
    }
}
