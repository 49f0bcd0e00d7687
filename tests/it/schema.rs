//! What editors and OPA's type checker know of policies: `policies/schemas/input.json`, the shape of the document that a
//! policy sees, and `policies/capabilities.json`, the built-in functions it may call. Both are generated, and held here:
//! `make docs` writes them anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::Trial;
use serde_json::{Map, Value, json};
use surefoot::{
    admission::{PolicySet, Source},
    config::Config,
};

use crate::{shared, support::tools::rego_tools, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("schema::input_is_what_the_api_server_says", input_is_what_the_api_server_says),
        trial("schema::opa_finds_misspelt_fields_with_it", misspelt_fields),
        trial("schema::of_the_configuration_refuses_what_is_refused", configurations),
        trial("schema::capabilities_are_what_both_engines_have", capabilities),
    ]
}

const INPUT: &str = "policies/schemas/input.json";
const CAPABILITIES: &str = "policies/capabilities.json";

/// Types of which all that matters is that they may be a text or a number, or anything at all.
const SCALARS: [(&str, &[&str]); 2] = [
    ("io.k8s.apimachinery.pkg.api.resource.Quantity", &["string", "number"]),
    ("io.k8s.apimachinery.pkg.util.intstr.IntOrString", &["integer", "string"]),
];

fn input_is_what_the_api_server_says() -> Result<()> {
    let plane = shared::plane()?;
    let answer = plane.admin().run(&["get", "--raw", "/openapi/v3/apis/apps/v1"])?.success()?;
    let api: Value = answer.json()?;
    let schemas = api["components"]["schemas"].as_object().context("no schemas in it")?;
    let mut definitions = BTreeMap::new();
    define("io.k8s.api.apps.v1.Deployment", schemas, &mut definitions)?;
    println!("{} types of the API", definitions.len());
    kept(INPUT, &pretty(&input_schema(definitions)))
}

/// The document of DESIGN: the request field for field, the policy's parameters, the context that it declared.
fn input_schema(definitions: BTreeMap<String, Value>) -> Value {
    let text = || json!({"type": "string"});
    let texts = || json!({"type": "object", "additionalProperties": {"type": "string"}});
    let free = || json!({"type": "object", "additionalProperties": true});
    let list = |items: Value| json!({"type": "array", "items": items});
    let of = |members: Value| json!({"type": "object", "properties": members});
    let deployment = || json!({"$ref": "#/definitions/io.k8s.api.apps.v1.Deployment"});
    let kind = of(json!({"group": text(), "version": text(), "kind": text()}));
    let resource = of(json!({"group": text(), "version": text(), "resource": text()}));
    let user = of(json!({
        "username": text(), "uid": text(), "groups": list(text()), "extra": {"type": "object", "additionalProperties": list(text())},
    }));
    let request = of(json!({
        "uid": text(), "kind": kind, "resource": resource, "subResource": text(), "requestKind": kind, "requestResource": resource,
        "requestSubResource": text(), "name": text(), "namespace": text(), "operation": {"enum": ["CREATE", "UPDATE"]},
        "userInfo": user, "object": deployment(), "oldObject": deployment(), "dryRun": {"type": "boolean"}, "options": free(),
    }));
    let peer = of(json!({
        "metadata": of(json!({"name": text(), "namespace": text(), "labels": texts()})),
        "spec": of(json!({"replicas": {"type": "integer"}})),
    }));
    let stamped = |mut members: Map<String, Value>| {
        members.extend([("digest".to_owned(), text()), ("version".to_owned(), text())]);
        of(Value::Object(members))
    };
    let rollout = Map::from_iter([("since".to_owned(), text()), ("failing".to_owned(), json!({"type": "boolean"}))]);
    let template = Map::from_iter([("settled".to_owned(), json!({"type": "boolean"}))]);
    let quarantined = Map::from_iter(["at", "until", "evidence"].map(|key| (key.to_owned(), text())));
    let history = of(json!({
        "rollout": stamped(rollout), "template": stamped(template), "lastGood": stamped(Map::from_iter([("at".to_owned(), text())])),
        "quarantine": list(stamped(quarantined)),
    }));
    let isolation =
        of(json!({"resourceQuotas": list(free()), "limitRanges": list(free()), "networkPolicies": list(free())}));
    let context = of(json!({
        "via": {"enum": ["deployment", "scale"]}, "namespace": of(json!({"labels": texts(), "annotations": texts()})),
        "peers": list(peer), "history": history, "isolation": isolation,
    }));
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "What a surefoot policy sees as input",
        "type": "object",
        "properties": {"request": request, "parameters": free(), "context": context},
        "definitions": definitions,
    })
}

/// A type of the API and those that it is made of. Without `required`: a policy may see what the API server would refuse.
fn define(name: &str, schemas: &Map<String, Value>, definitions: &mut BTreeMap<String, Value>) -> Result<()> {
    if definitions.contains_key(name) {
        return Ok(());
    }
    definitions.insert(name.to_owned(), json!({}));
    let schema = match SCALARS.iter().find(|(scalar, _)| *scalar == name) {
        Some((_, types)) => json!({"anyOf": types.iter().map(|one| json!({"type": one})).collect::<Vec<_>>()}),
        None => plain(schemas.get(name).with_context(|| format!("no type {name}"))?, schemas, definitions)?,
    };
    definitions.insert(name.to_owned(), schema);
    Ok(())
}

/// Kind, members and items of a schema of the API, as draft 7 and OPA have them.
fn plain(schema: &Value, schemas: &Map<String, Value>, definitions: &mut BTreeMap<String, Value>) -> Result<Value> {
    let reference = schema.get("$ref").or_else(|| schema["allOf"][0].get("$ref"));
    if let Some(name) = reference.and_then(Value::as_str).and_then(|path| path.strip_prefix("#/components/schemas/")) {
        define(name, schemas, definitions)?;
        return Ok(json!({"$ref": format!("#/definitions/{name}")}));
    }
    let mut plainly = Map::new();
    if let Some(kind) = schema.get("type") {
        plainly.insert("type".to_owned(), kind.clone());
    }
    if let Some(members) = schema["properties"].as_object() {
        let members = members
            .iter()
            .map(|(name, member)| Ok((name.clone(), plain(member, schemas, definitions)?)))
            .collect::<Result<Map<_, _>>>()?;
        plainly.insert("properties".to_owned(), Value::Object(members));
    }
    for key in ["items", "additionalProperties"] {
        if let Some(below) = schema.get(key) {
            plainly.insert(key.to_owned(), plain(below, schemas, definitions)?);
        }
    }
    Ok(Value::Object(plainly))
}

fn misspelt_fields() -> Result<()> {
    let rows = [
        ("input.request.objct", Some("objct")),
        ("input.request.object.spec.template.spec.containers[_].readinesProbe", Some("readinesProbe")),
        ("input.request.object.spec.template.spec.containers[_].resources.limits.cpu", None),
        ("input.request.object.metadata.labels[\"surefoot.dev/model\"]", None),
        ("input.request.oldObject.spec.replica", Some("replica")),
        ("input.contxt.peers", Some("contxt")),
        ("input.context.peers[_].spec.replicas", None),
        ("input.context.history.rollout.failing", None),
        ("input.context.history.rollout.fails", Some("fails")),
        ("input.parameters.whatever", None),
    ];
    let folder = tempfile::tempdir()?;
    for (reference, misspelt) in rows {
        let text = format!(
            "# METADATA\n# schemas:\n# - input: schema.input\npackage surefoot.p\n\ndeny contains \"x\" if {reference}\n"
        );
        let file = folder.path().join("policy.rego");
        fs::write(&file, text)?;
        let opa = Command::new(rego_tools()?.path("opa"))
            .args(["check", "--strict", "--schema"])
            .arg(top("policies/schemas"))
            .arg(&file)
            .output()?;
        let told = String::from_utf8_lossy(&opa.stderr);
        match misspelt {
            None => ensure!(opa.status.success(), "{reference}: {told}"),
            Some(field) => ensure!(told.contains(&format!("have: \"{field}\"")), "{reference}: {told}"),
        }
    }
    Ok(())
}

/// What the schema lets through and surefoot does too, and the other way round.
fn configurations() -> Result<()> {
    let printed = Command::new(env!("CARGO_BIN_EXE_surefoot")).arg("schema").output()?;
    let schema: Value = serde_json::from_slice(&printed.stdout)?;
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("schema.json", schema).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut schemas = boon::Schemas::new();
    let compiled = compiler.compile("schema.json", &mut schemas).map_err(|error| anyhow::anyhow!("{error}"))?;
    let passes = |text: &str| {
        let tree = surefoot::config::yaml::parse(text).map(|node| node.to_json());
        tree.is_ok_and(|tree| schemas.validate(&tree, compiled).is_ok())
    };
    let loads = |text: &str| {
        let config = Config::parse(text, "config.yaml").map_err(|error| error.to_string())?;
        let set = PolicySet::load(PolicySet::built_in_sources(), &config);
        set.map(|_| ()).map_err(|errors| errors.to_string())
    };
    for file in ["config.yaml", "demo/config.yaml"] {
        let text = fs::read_to_string(top(file))?;
        loads(&text).map_err(anyhow::Error::msg)?;
        ensure!(passes(&text), "{file} does not pass the schema");
    }
    for (good, rows) in [(true, GOOD), (false, BAD)] {
        for row in rows {
            let text = format!("apiVersion: surefoot.dev/v1\nkind: Config\n{row}\n");
            ensure!(loads(&text).is_ok() == good, "{row}: {:?}", loads(&text));
            ensure!(passes(&text) == good, "{row}: the schema says otherwise");
        }
    }
    println!("{} good and {} bad configurations", GOOD.len() + 2, BAD.len());
    Ok(())
}

const GOOD: &[&str] = &[
    "",
    "policies: {}",
    "policies: {images: {}}",
    "policies: {images: {action: Audit, existing: Deny}}",
    "policies: {canary-cap: {parameters: {percent: 1, minimum: 3}}}",
    "policies: {resources: {parameters: {requests: {cpu: 500m, memory: 1Gi, nvidia.com/gpu: 1}, limits: {cpu: 0.5, memory: 1e9}}}}",
    "policies: {resources: {parameters: {require: [], ignoreContainers: [istio-*]}}}",
    "policies: {resources: {parameters: {require: [limits.nvidia.com/gpu, requests.ephemeral-storage, limits.memory]}}}",
    "policies: {isolation: {parameters: {denyByDefault: [Ingress, Egress]}}}",
    "policies: {probes: {overrides: [{namespaces: {matchLabels: {a: b}}, action: Warn, parameters: {}}]}}",
    "policies: {probes: {overrides: [{namespaces: {matchExpressions: [{key: a, operator: NotIn, values: [b, c]}]}}]}}",
    "policies: {probes: {overrides: [{namespaces: {matchExpressions: [{key: a, operator: Exists}, {key: b, operator: DoesNotExist, values: []}]}}]}}",
    "policies: {probes: {parameters: {servers: []}}}",
    "policies: {probes: {parameters: {servers: [{image: 'registry.local:5000/acme/bento-*', port: 3000, ready: /readyz, others: [1]}]}}}",
    "exemptions: []",
    "exemptions: [{policies: ['*'], namespace: a, name: b, reason: c, until: 2027-01-31}]",
    "rollouts: {}",
    "rollouts: {budget: {failures: 1, percent: 0, window: 1s}, bake: 24h}",
    "rollouts: {overrides: [{namespaces: {matchLabels: {a: b}}, budget: {failures: 10000}, bake: 1h30m}]}",
];

const BAD: &[&str] = &[
    "polices: {}",
    "policies: []",
    "policies: {prob: {}}",
    "policies: {images: {action: deny}}",
    "policies: {images: {existing: No}}",
    "policies: {images: {existing: Audit}}",
    "policies: {resources: {parameters: {require: [request.cpu]}}}",
    "policies: {resources: {parameters: {require: [limits.mem]}}}",
    "policies: {isolation: {parameters: {denyByDefault: [ingress]}}}",
    "policies: {images: {params: {}}}",
    "policies: {canary-cap: {parameters: {percnt: 5}}}",
    "policies: {canary-cap: {parameters: {percent: 101}}}",
    "policies: {canary-cap: {parameters: {percent: 10.001}}}",
    "policies: {canary-cap: {parameters: {minimum: 1.5}}}",
    "policies: {probes: {parameters: {ignoreContainers: [7]}}}",
    "policies: {images: {parameters: {ignoreContainers: ['']}}}",
    "policies: {canary-cap: {parameters: {percent: '5'}}}",
    "policies: {resources: {parameters: {requests: {cpu: lots}}}}",
    "policies: {resources: {parameters: {limits: {cpu: -1}}}}",
    "policies: {resources: {parameters: {requests: [cpu]}}}",
    "policies: {resources: {parameters: {require: cpu}}}",
    "policies: {probes: {parameters: {servers: [acme]}}}",
    "policies: {probes: {parameters: {servers: [{image: acme, port: 3000}]}}}",
    "policies: {probes: {parameters: {servers: [{image: acme, port: 3000, readyz: /}]}}}",
    "policies: {probes: {parameters: {servers: [{image: acme, port: 3000, ready: readyz}]}}}",
    "policies: {probes: {parameters: {servers: [{image: 'acme:1', port: 3000, ready: /}]}}}",
    "policies: {probes: {parameters: {servers: [{image: acme, port: 3000.5, ready: /}]}}}",
    "policies: {probes: {parameters: {servers: [{image: acme, port: '3000', ready: /}]}}}",
    "policies: {probes: {parameters: {servers: [{image: acme, port: 3000, ready: /, others: ['1']}]}}}",
    "policies: {probes: {parameters: {servers: [{image: acme, port: 3000, ready: /, live: null}]}}}",
    "policies: {probes: {overrides: [{parameters: {}}]}}",
    "policies: {probes: {overrides: [{namespaces: {}}]}}",
    "policies: {probes: {overrides: [{namespaces: {matchLabels: {}}}]}}",
    "policies: {probes: {overrides: [{namespaces: {matchLabels: {}, matchExpressions: []}}]}}",
    "policies: {probes: {overrides: [{namespaces: {matchLabels: {a: 1}}}]}}",
    "policies: {probes: {overrides: [{namespaces: {matchExpressions: [{key: a, operator: In}]}}]}}",
    "policies: {probes: {overrides: [{namespaces: {matchExpressions: [{key: a, operator: In, values: []}]}}]}}",
    "policies: {probes: {overrides: [{namespaces: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]}}",
    "policies: {probes: {overrides: [{namespaces: {matchExpressions: [{key: a, operator: exists}]}}]}}",
    "exemptions: {}",
    "exemptions: [{policies: [], namespace: a, name: b, reason: c, until: 2027-01-31}]",
    "exemptions: [{policies: [probes], namespace: a, name: b, reason: ' ', until: 2027-01-31}]",
    "exemptions: [{policies: [probes], namespace: a, name: b, until: 2027-01-31}]",
    "exemptions: [{policies: [probes], namespace: a, name: b, reason: c, until: soon}]",
    "rollouts: {bake: 10}",
    "rollouts: {bake: 0s}",
    "rollouts: {bake: 1.5h}",
    "rollouts: {budget: {failures: 0}}",
    "rollouts: {budget: {percent: 101}}",
    "rollouts: {budget: {window: 5 m}}",
    "rollouts: {budget: {failures: 1.5}}",
    "rollouts: {overrides: [{budget: {failures: 3}}]}",
    "rollouts: {budgets: {}}",
];

/// Those of OPA that the engine has too, but for the ones whose value is not decided by their arguments.
fn capabilities() -> Result<()> {
    let opa = Command::new(rego_tools()?.path("opa")).args(["capabilities", "--current"]).output()?;
    let theirs: Value = serde_json::from_slice(&opa.stdout)?;
    let theirs = theirs["builtins"].as_array().context("no builtins")?;
    let is_allowed = |builtin: &&Value| builtin["infix"].is_string() || loads(builtin);
    let allowed: Vec<Value> = theirs.iter().filter(is_allowed).map(declared).collect();
    let refused: BTreeSet<&str> =
        theirs.iter().filter(|one| !is_allowed(one)).filter_map(|one| one["name"].as_str()).collect();
    println!("{} built-in functions, not {}", allowed.len(), Vec::from_iter(refused.iter().copied()).join(", "));
    for never in ["http.send", "opa.runtime", "rand.intn", "time.now_ns", "net.lookup_ip_addr", "uuid.rfc4122"] {
        ensure!(refused.contains(never), "{never} loads");
    }
    let file = json!({"builtins": allowed, "features": ["keywords_in_refs", "rego_v1"], "future_keywords": []});
    kept(CAPABILITIES, &pretty(&file))?;
    let check = Command::new(rego_tools()?.path("opa"))
        .args(["check", "--strict", "--capabilities", CAPABILITIES, "policies"])
        .current_dir(top(""))
        .output()?;
    ensure!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    Ok(())
}

/// A policy that calls it passes the gate.
fn loads(builtin: &Value) -> bool {
    let name = builtin["name"].as_str().unwrap_or_default();
    let arity = builtin["decl"]["args"].as_array().map_or(0, Vec::len);
    let arguments: Vec<String> = (0..arity).map(|index| format!("input.request.a{index}")).collect();
    let text = format!("package surefoot.p\n\ndeny contains \"x\" if {name}({}) == 1\n", arguments.join(", "));
    PolicySet::load(vec![Source { path: "p/policy.rego".to_owned(), text }], &Config::default()).is_ok()
}

/// Without the prose, which is OPA's own.
fn declared(builtin: &Value) -> Value {
    fn without_prose(node: &Value) -> Value {
        match node {
            Value::Object(members) => {
                let kept = members.iter().filter(|(key, value)| *key != "description" || !value.is_string());
                kept.map(|(key, value)| (key.clone(), without_prose(value))).collect()
            }
            Value::Array(elements) => elements.iter().map(without_prose).collect(),
            other => other.clone(),
        }
    }
    without_prose(builtin)
}

/// The file is this text; or is made so, where that is asked for.
pub(crate) fn kept(path: &str, text: &str) -> Result<()> {
    if std::env::var_os("SUREFOOT_BLESS").is_some() {
        let path = top(path);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::write(&path, text)?;
        return Ok(());
    }
    let there = fs::read_to_string(top(path)).with_context(|| path.to_owned())?;
    ensure!(there == text, "{path} is not what it is generated from; `make docs` writes it anew");
    Ok(())
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

pub(crate) fn top(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
