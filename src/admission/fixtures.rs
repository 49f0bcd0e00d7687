//! What the tests of this room share: a small policy set and Deployments as short text.

use std::time::Duration;

use jiff::Timestamp;

use super::{Defaulting, Facts, PolicySet, Request, Source, Verdict};
use crate::{
    config::{Config, Guard},
    template::Json,
};

pub(super) const LIMIT: Duration = Duration::from_secs(5);

pub(super) const LIB: &str = r#"package surefoot.lib

params(defaults) := object.union(defaults, object.get(input, "parameters", {}))
"#;

/// One rule of each kind, over `spec.template.spec.containers`.
pub(super) const PROBES: &str = r#"# METADATA
# title: Probes
package surefoot.probes

import data.surefoot.lib

deny contains {
	"code": "no-readiness",
	"msg": sprintf("container %q has no readinessProbe", [container.name]),
	"path": sprintf("/spec/template/spec/containers/%d/readinessProbe", [i]),
	"fix": "readinessProbe: {httpGet: {path: /ready, port: 8080}}",
} if {
	some i, container in input.request.object.spec.template.spec.containers
	not container.readinessProbe
	not container.name in params.ignoreContainers
}

warn contains "no liveness probe" if {
	some container in input.request.object.spec.template.spec.containers
	not container.livenessProbe
}

defaults contains {"path": sprintf("/spec/template/spec/containers/%d/startupProbe", [i]), "value": {"periodSeconds": params.period}} if {
	some i, container in input.request.object.spec.template.spec.containers
	startswith(container.image, "triton")
}

params := lib.params({"ignoreContainers": [], "period": 5})
"#;

pub(super) const CAP: &str = r#"# METADATA
# custom:
#   needs: [peers]
#   scale: true
#   parameters:
#     cap: {minimum: 1, maximum: 10}
package surefoot.canary_cap

import data.surefoot.lib

deny contains {"code": "above-cap", "msg": sprintf("%d replicas, the cap is %d", [count(input.context.peers) + replicas, params.cap]), "path": "/spec/replicas"} if {
	count(input.context.peers) + replicas > params.cap
}

replicas := input.request.object.spec.replicas

params := lib.params({"cap": 2})
"#;

pub(super) fn sources(files: &[(&str, &str)]) -> Vec<Source> {
    files.iter().map(|(path, text)| Source { path: (*path).to_owned(), text: (*text).to_owned() }).collect()
}

pub(super) fn standard() -> Vec<Source> {
    sources(&[("lib/lib.rego", LIB), ("probes/policy.rego", PROBES), ("canary-cap/policy.rego", CAP)])
}

/// A set of one policy with the given body, in package `surefoot.p`, file `p/policy.rego`, from line 2 on.
pub(super) fn one(body: &str) -> PolicySet {
    let text = format!("package surefoot.p\n{body}\n");
    PolicySet::load(sources(&[("lib/lib.rego", LIB), ("p/policy.rego", &text)]), &Config::default()).unwrap()
}

pub(super) fn config(text: &str) -> Config {
    Config::parse(&format!("apiVersion: surefoot.dev/v1\nkind: Config\n{text}"), "config.yaml").unwrap()
}

pub(super) fn json(text: &str) -> Json {
    Json::from_json_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A Deployment `churn` with these members of `metadata` and `spec`, and these containers.
pub(super) fn deployment(metadata: &str, spec: &str, containers: &str) -> Json {
    let comma = |text: &str| if text.is_empty() { String::new() } else { format!(",{text}") };
    json(&format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"churn","namespace":"shop"{}}},
            "spec":{{"template":{{"spec":{{"containers":[{containers}]}}}}{}}}}}"#,
        comma(metadata),
        comma(spec)
    ))
}

pub(super) fn now() -> Timestamp {
    "2026-11-22T15:16:00Z".parse().unwrap()
}

pub(super) fn facts(guard: Guard) -> Facts {
    Facts { guard: Some(guard), peers: Some(Vec::new()), history: Some(super::History::default()), ..Facts::default() }
}

pub(super) fn judge(set: &PolicySet, request: &Request, facts: &Facts, config: &Config) -> Verdict {
    super::validate(set, request, facts, config, now(), LIMIT)
}

pub(super) fn add_to(set: &PolicySet, request: &Request, facts: &Facts, config: &Config) -> Defaulting {
    super::default(set, request, facts, config, now(), LIMIT)
}

/// `level policy/code path`, one line for each finding.
pub(super) fn summary(verdict: &Verdict) -> Vec<String> {
    verdict
        .findings
        .iter()
        .map(|finding| format!("{:?} {} {}", finding.level, finding.name(), finding.path).trim().to_owned())
        .collect()
}
