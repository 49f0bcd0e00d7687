//! What must hold whatever is given: one function for each door through which a stranger's bytes come in. Each takes the
//! bytes and panics where a promise is broken.
//!
//! `make fuzz` looks for bytes that do that; `make test` gives the same functions the seeds, and every input that was
//! once found.

use std::{sync::LazyLock, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Value, json};
use surefoot::{
    admission::{Answer, Facts, LoadErrors, PolicySet, Request, Source, answer, default, validate},
    cli,
    config::{Config, ConfigError, Guard},
    template::Json,
};

/// Name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 5] = [
    ("wire", wire),
    ("patch", patch),
    ("manifests", manifests),
    ("configuration", configuration),
    ("policies", policies),
];

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// What a request may take; none of the shipped policies comes near it.
const LIMIT: Duration = Duration::from_secs(10);

/// The longest warning that the API server hands on.
const WARNING: usize = 256;

static SHIPPED: LazyLock<PolicySet> = LazyLock::new(|| {
    let sources = PolicySet::built_in_sources().into_iter().filter(|source| !source.path.ends_with("_test.rego"));
    loaded(PolicySet::load(sources.collect(), &Config::default()))
});

/// A body as the API server posts it: refused with a sentence, or read as any other reader of JSON reads it and answered
/// in a form that the API server takes.
pub fn wire(body: &[u8]) {
    let request = match Request::parse(body) {
        Ok(request) => request,
        Err(error) => {
            assert_eq!(error.status, 400, "{error}");
            return one_line(&error.message);
        }
    };
    match serde_json::from_slice::<Value>(body) {
        Ok(review) => {
            let read = Json::from(without_managed_fields(review["request"].clone()));
            assert_eq!(*request.tree(), read, "read differently");
        }
        // What is passed over is not looked at: a text there may be no UTF-8.
        Err(error) => {
            assert!(String::from_utf8_lossy(body).contains("managedFields"), "another reader refuses: {error}")
        }
    }
    let facts = facts();
    let verdict = validate(&SHIPPED, &request, &facts, &Config::default(), NOW, LIMIT);
    let told = checked(&request, &answer::validated(&request, &verdict, NOW));
    assert_eq!(told["allowed"], !verdict.denied());
    let added = default(&SHIPPED, &request, &facts, &Config::default(), NOW, LIMIT);
    let told = checked(&request, &answer::defaulted(&request, &added));
    assert_eq!(told["allowed"], true, "the mutating path denies");
    let deployment = request.object().clone();
    let scaled = request.scaled(deployment);
    validate(&SHIPPED, &scaled, &facts, &Config::default(), NOW, LIMIT);
}

/// `{"object", "old", "wanted"}`: what a policy wants to add to an object. The patch makes of the object what the next
/// policy is shown, asking again adds nothing, and what was there stays.
pub fn patch(given: &[u8]) {
    static ASKING: LazyLock<PolicySet> = LazyLock::new(|| {
        let text = "package surefoot.asking\ndefaults contains entry if some entry in input.request.wanted\n";
        loaded(PolicySet::load(vec![source("asking/policy.rego", text)], &Config::default()))
    });
    let Ok(mut given) = serde_json::from_slice::<Value>(given) else { return };
    let [object, old, wanted] =
        ["object", "old", "wanted"].map(|key| given.get_mut(key).map(Value::take).unwrap_or_default());
    if vague(&wanted) {
        return;
    }
    let operation = if old.is_object() { "UPDATE" } else { "CREATE" };
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "operation": operation, "kind": {"kind": "Deployment"},
        "object": object, "oldObject": old, "wanted": wanted}});
    let Ok(request) = Request::parse(review.to_string().as_bytes()) else { return };
    let add = |request: &Request| default(&ASKING, request, &facts(), &Config::default(), NOW, LIMIT);
    let added = add(&request);
    let mut patched = plain(request.object());
    json_patch::patch(&mut patched, &added.patch.0).expect("the API server could not apply this patch");
    assert!(same(&patched, &plain(&added.object)), "the patch makes {patched}, the next is shown {:?}", added.object);
    keeps(&plain(request.object()), &patched);
    let again = add(&request.with_object(added.object.clone()));
    assert!(again.patch.0.is_empty(), "asked again, it adds {:?}", again.patch);
    let told = checked(&request, &answer::defaulted(&request, &added));
    let sent = told["patch"].as_str().map(|sent| BASE64_STANDARD.decode(sent).expect("no base64"));
    if let Some(sent) = &sent {
        serde_json::from_slice::<json_patch::Patch>(sent).expect("no patch");
    }
    // The bytes: what serde_json reads of a long number may be off by its last digit.
    let made = (!added.patch.0.is_empty()).then(|| serde_json::to_vec(&added.patch).expect("no JSON"));
    assert_eq!(sent, made);
}

/// A file for `surefoot check`: every format can be read by those whom it is for, and each place is in the file.
pub fn manifests(text: &[u8]) {
    let said = cli::said(SHIPPED.clone(), text, NOW).expect("a format could not be written");
    let report: Value = serde_json::from_str(&said.json).expect("-o json is no JSON");
    serde_json::from_str::<Value>(&said.sarif).expect("-o sarif is no JSON");
    roxmltree::Document::parse(&said.junit).expect("-o junit is no XML");
    assert!(!said.github.contains('\r') && !said.text.contains('\u{1b}') || said.text.contains("\u{1b}["));
    let lines = lines(text);
    let objects = report["objects"].as_array().into_iter().flatten();
    let findings = objects.clone().flat_map(|object| object["findings"].as_array().into_iter().flatten());
    for place in objects.chain(findings.clone()) {
        assert!((1..=lines).contains(&place["line"].as_u64().unwrap_or_default()), "outside of the file: {place}");
    }
    for finding in findings {
        assert!(finding["column"].as_u64() > Some(0), "nowhere in its line: {finding}");
    }
    for failure in report["failures"].as_array().into_iter().flatten() {
        assert!(failure["line"].as_u64() <= Some(lines), "outside of the file: {failure}");
        one_line(failure["message"].as_str().unwrap_or_default());
    }
}

/// `config.yaml`: a mistake is named with its place, and what is accepted can be laid over a policy.
pub fn configuration(text: &[u8]) {
    const POLICY: &str = "package surefoot.settled\nimport data.surefoot.lib\n\
        params := lib.params({\"percent\": 10, \"names\": [], \"mode\": \"a\", \"limits\": {}})\n\
        deny contains \"no\" if params.percent > input.request.object.spec.replicas\n\
        warn contains \"no\" if { some name in params.names; glob.match(name, [], \"model\") }\n";
    const LIB: &str = "package surefoot.lib\n\
        params(defaults) := object.union(defaults, object.get(input, \"parameters\", {}))\n";
    let Ok(text) = std::str::from_utf8(text) else { return };
    let config = match Config::parse(text, "config.yaml") {
        Ok(config) => config,
        Err(error) => return within(&error, "config.yaml", text),
    };
    assert_eq!(Config::parse(text, "config.yaml").as_ref(), Ok(&config));
    let sources = vec![source("settled/policy.rego", POLICY), source("lib/lib.rego", LIB)];
    match PolicySet::load(sources, &config) {
        Ok(set) => drop(validate(&set, &sample(), &facts(), &config, NOW, LIMIT)),
        Err(LoadErrors(errors)) => errors.iter().for_each(|error| within(error, "config.yaml", text)),
    }
}

/// A policy that somebody put into the folder: a mistake is named with its place, and one that loads can be asked, for as
/// long as it is given and no longer. `lib/lib.rego` lies beside it.
pub fn policies(text: &[u8]) {
    // What a thread of the server has, where a folder that changed is loaded.
    const STACK: usize = 2 << 20;
    let Ok(text) = std::str::from_utf8(text) else { return };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let done = thread.spawn_scoped(scope, || one_policy(text)).expect("no thread");
        done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn one_policy(text: &str) {
    static LIB: LazyLock<Vec<Source>> = LazyLock::new(|| {
        PolicySet::built_in_sources().into_iter().filter(|source| source.path == "lib/lib.rego").collect()
    });
    let mut sources = vec![source("some/policy.rego", text)];
    sources.extend(LIB.iter().filter(|_| text.contains("lib")).cloned());
    match PolicySet::load(sources, &Config::default()) {
        Ok(set) => {
            let limit = Duration::from_millis(20);
            let (request, facts) = (sample(), facts());
            let verdict = validate(&set, &request, &facts, &Config::default(), NOW, limit);
            checked(&request, &answer::validated(&request, &verdict, NOW));
            let added = default(&set, &request, &facts, &Config::default(), NOW, limit);
            checked(&request, &answer::defaulted(&request, &added));
        }
        Err(LoadErrors(errors)) => {
            assert!(!errors.is_empty(), "refused without a reason");
            errors.iter().for_each(|error| within(error, "some/policy.rego", text));
        }
    }
}

/// The response, if the API server would take it.
fn checked(request: &Request, answer: &Answer) -> Value {
    let mut review: Value = serde_json::from_slice(&answer.to_bytes()).expect("the answer is no JSON");
    let response = review["response"].take();
    assert_eq!(response["uid"], request.uid.as_str());
    for warning in response["warnings"].as_array().into_iter().flatten() {
        let warning = warning.as_str().expect("a warning is text");
        one_line(warning);
        assert!(warning.chars().count() <= WARNING, "the API server cuts this: {warning}");
    }
    response
}

/// A mistake is in this file at a place that there is, or in all of them and nowhere, and said in one line.
fn within(error: &ConfigError, file: &str, text: &str) {
    let last = if error.file == file { lines(text.as_bytes()) } else { 0 };
    assert!(error.file == file || error.file.is_empty(), "in a file that is not at fault: {error}");
    assert!(u64::from(error.line) <= last, "outside of the file: {error}");
    one_line(&error.message);
}

/// At most; to YAML a carriage return ends a line, too.
fn lines(text: &[u8]) -> u64 {
    1 + text.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u64
}

fn one_line(text: &str) {
    assert!(!text.is_empty(), "nothing is said");
    assert!(!text.contains(['\n', '\r', '\u{1b}', '\0']), "more than a line of plain text: {text:?}");
}

/// Equal, numbers by value: serde_json takes `-0` and `-0.0` for two.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(key, value)| other.get(key).is_some_and(|other| same(value, other)))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        // Two that are not equal may be the same zero; as floats, large integers would be the same too early.
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == Some(0.0) && other.as_f64() == Some(0.0)
        }
        _ => one == other,
    }
}

/// Has a number that a double cannot hold to the unit, written with a fraction: each writer rounds it in its own way, and
/// no field of the API is one.
fn vague(value: &Value) -> bool {
    const EXACT: f64 = (1_u64 << 53) as f64;
    match value {
        Value::Object(map) => map.values().any(vague),
        Value::Array(list) => list.iter().any(vague),
        Value::Number(number) => number.is_f64() && number.as_f64().is_some_and(|it| it.abs() >= EXACT),
        _ => false,
    }
}

/// What has a value before has it afterwards; what is null or the API's own default counts as absent.
fn keeps(before: &Value, after: &Value) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (key, value) in before {
                keeps(value, after.get(key).unwrap_or_else(|| panic!("{key} is gone")));
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            assert_eq!(before.len(), after.len(), "a list has grown");
            before.iter().zip(after).for_each(|(before, after)| keeps(before, after));
        }
        _ => {}
    }
}

fn without_managed_fields(mut request: Value) -> Value {
    for key in ["object", "oldObject"] {
        if let Some(metadata) = request.pointer_mut(&format!("/{key}/metadata")).and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
    }
    request
}

fn facts() -> Facts {
    Facts { guard: Some(Guard::Enforce), peers: Some(Vec::new()), ..Facts::default() }
}

fn sample() -> Request {
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "churn", "namespace": "shop"},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "model", "image": "x:1"}]}}}});
    Request::create(Json::from(object), "shop")
}

fn plain(value: &Json) -> Value {
    serde_json::to_value(value).expect("no plain JSON")
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

fn loaded(set: Result<PolicySet, LoadErrors>) -> PolicySet {
    set.unwrap_or_else(|errors| panic!("{errors}"))
}
