//! The answer on the wire: what the API server does, and what it tells the user.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    Defaulting, Level, Request, Verdict,
    message::{self, clean},
    pointer::notation,
};

/// Characters that all warnings may have together; beyond that the API server cuts.
const ALL_WARNINGS: usize = 4096;
/// Causes that a denial lists for machines.
const CAUSES: usize = 100;
/// Longest value of an audit annotation.
const ANNOTATION: usize = 1024;

/// An AdmissionReview response.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    uid: String,
    /// The request goes through.
    pub allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    /// What the user is told beside the outcome, one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    /// For the audit log; the API server puts the hook's name before each key.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub audit_annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Status {
    status: &'static str,
    message: String,
    reason: &'static str,
    details: Details,
    code: u16,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Details {
    name: String,
    group: &'static str,
    kind: &'static str,
    causes: Vec<Cause>,
}

/// For machines: `kubectl -o json`, clients that read `details`.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Cause {
    reason: String,
    field: String,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: &'a Answer,
}

/// The answer to `/validate` and `/scale`.
pub fn validated(request: &Request, verdict: &Verdict, now: Timestamp) -> Answer {
    let mut warnings: Vec<String> = verdict.notes.iter().map(|note| message::note(note)).collect();
    let told = verdict.findings.iter().filter(|finding| finding.level == Level::Warn);
    warnings.extend(told.map(message::line));
    let broken = verdict.failures.iter().filter(|failure| failure.level == Level::Warn);
    warnings.extend(broken.map(message::failure_line));
    let mut annotations = BTreeMap::new();
    for (key, level) in [("denied", Level::Deny), ("warned", Level::Warn), ("audited", Level::Audit)] {
        let names = verdict.findings.iter().filter(|finding| finding.level == level).map(|finding| finding.name());
        annotate(&mut annotations, key, names);
    }
    annotate(&mut annotations, "broken", verdict.failures.iter().map(|failure| failure.policy.clone()));
    annotate(&mut annotations, "skipped", verdict.skipped.iter().map(|skipped| skipped.policy.clone()));
    Answer {
        allowed: !verdict.denied(),
        status: verdict.denied().then(|| refusal(request, verdict, now)),
        warnings: bounded(warnings),
        audit_annotations: annotations,
        ..Answer::allowed(request)
    }
}

/// The answer to `/mutate`: never a denial.
pub fn defaulted(request: &Request, defaulting: &Defaulting) -> Answer {
    let mut annotations = BTreeMap::new();
    annotate(&mut annotations, "added", defaulting.added.iter().map(|default| default.path.clone()));
    annotate(&mut annotations, "broken", defaulting.failures.iter().map(|failure| failure.policy.clone()));
    let mut answer = Answer { audit_annotations: annotations, ..Answer::allowed(request) };
    answer.warnings = bounded(defaulting.warnings.iter().map(|warning| message::note(warning)).collect());
    if !defaulting.patch.0.is_empty() {
        // Operations and plain JSON values always serialise.
        answer.patch = serde_json::to_vec(&defaulting.patch).ok().map(|patch| BASE64_STANDARD.encode(patch));
        answer.patch_type = answer.patch.is_some().then_some("JSONPatch");
    }
    answer
}

impl Answer {
    /// Goes through without a word.
    pub fn allowed(request: &Request) -> Self {
        Self {
            uid: request.uid.clone(),
            allowed: true,
            status: None,
            warnings: Vec::new(),
            patch_type: None,
            patch: None,
            audit_annotations: BTreeMap::new(),
        }
    }

    /// The same answer to another request that asked the same.
    pub fn to(self, uid: &str) -> Self {
        Self { uid: uid.to_owned(), ..self }
    }

    /// The whole AdmissionReview.
    pub fn to_bytes(&self) -> Vec<u8> {
        let review = Review { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response: self };
        serde_json::to_vec(&review).unwrap_or_default()
    }
}

fn refusal(request: &Request, verdict: &Verdict, now: Timestamp) -> Status {
    let causes = verdict.denials().take(CAUSES).map(|finding| Cause {
        reason: clean(&finding.name(), 100),
        field: notation(&finding.path),
        message: clean(&finding.message, 500),
    });
    let broken = verdict.failures.iter().filter(|failure| failure.level == Level::Deny).map(|failure| Cause {
        reason: clean(&format!("{}/broken", failure.policy), 100),
        field: String::new(),
        message: clean(&failure.message, 500),
    });
    Status {
        status: "Failure",
        message: message::block(request, verdict, now),
        // With `Invalid` kubectl would hide the message.
        reason: "Forbidden",
        details: Details {
            name: request.name.clone(),
            group: "apps",
            kind: "deployments",
            causes: causes.chain(broken).collect(),
        },
        code: 403,
    }
}

fn annotate(annotations: &mut BTreeMap<String, String>, key: &str, values: impl Iterator<Item = String>) {
    let joined = values.collect::<Vec<_>>().join(",");
    if !joined.is_empty() {
        annotations.insert(key.to_owned(), clean(&joined, ANNOTATION));
    }
}

/// As many warnings as the API server passes on, and how many were left out.
fn bounded(mut warnings: Vec<String>) -> Vec<String> {
    warnings.dedup();
    let mut room = ALL_WARNINGS - message::LINE;
    let all = warnings.len();
    let fits = warnings.iter().take_while(|warning| {
        let enough = warning.len() <= room;
        room = room.saturating_sub(warning.len());
        enough
    });
    let kept = fits.count();
    warnings.truncate(kept);
    if kept < all {
        warnings.push(format!("and {} more: surefoot check FILE", all - kept));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::{super::fixtures::*, *};
    use crate::{
        admission::{Failure, Finding, PolicySet},
        config::{Config, Guard},
        template::json as tree,
    };

    fn sent(answer: &Answer) -> serde_json::Value {
        serde_json::from_slice(&answer.to_bytes()).unwrap()
    }

    #[test]
    fn a_denial_on_the_wire() {
        let set = PolicySet::load(standard(), &Config::default()).unwrap();
        let request = Request::create(deployment("", r#""replicas":1"#, r#"{"name":"model","image":"x"}"#), "shop");
        let verdict = judge(&set, &request, &facts(Guard::Enforce), &Config::default());
        let sent = sent(&validated(&request, &verdict, now()));
        assert_eq!(sent["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(sent["kind"], "AdmissionReview");
        let response = &sent["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&"offline".into(), &false.into()));
        let status = &response["status"];
        assert_eq!((&status["code"], &status["reason"]), (&403.into(), &"Forbidden".into()));
        assert!(
            status["message"].as_str().unwrap().starts_with("1 problem (probes/no-readiness); nothing was changed\n")
        );
        let cause = serde_json::json!({
            "reason": "probes/no-readiness",
            "field": "spec.template.spec.containers[0].readinessProbe",
            "message": "container \"model\" has no readinessProbe",
        });
        assert_eq!(status["details"]["causes"], serde_json::json!([cause]));
        assert_eq!(status["details"]["kind"], "deployments");
        assert_eq!(response["warnings"], serde_json::json!(["[probes] no liveness probe"]));
        assert_eq!(response["auditAnnotations"]["denied"], "probes/no-readiness");
        assert_eq!(response.get("patch"), None);
    }

    #[test]
    fn what_is_allowed_says_no_more_than_it_must() {
        let request = Request::create(deployment("", "", ""), "shop");
        assert_eq!(
            sent(&validated(&request, &Verdict::default(), now())),
            serde_json::json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                "response": {"uid": "offline", "allowed": true}})
        );
    }

    #[test]
    fn a_broken_policy_denies_or_warns_on_the_wire_too() {
        let failure = |level| Failure {
            policy: "p".into(),
            file: "p/policy.rego".into(),
            line: 3,
            column: 1,
            message: "divide by zero".into(),
            level,
        };
        let request = Request::create(deployment("", "", ""), "shop");
        for (level, allowed, warnings) in [(Level::Deny, false, 0), (Level::Warn, true, 1), (Level::Audit, true, 0)] {
            let verdict = Verdict { failures: vec![failure(level)], ..Verdict::default() };
            let answer = validated(&request, &verdict, now());
            assert_eq!((answer.allowed, answer.warnings.len()), (allowed, warnings));
            assert_eq!(answer.audit_annotations["broken"], "p");
            assert_eq!(answer.status.is_some(), !allowed);
        }
    }

    #[test]
    fn a_patch_is_base64_and_what_it_says_is_told() {
        let set = PolicySet::load(standard(), &Config::default()).unwrap();
        let object = deployment("", "", r#"{"name":"model","image":"triton:1"}"#);
        let request = Request::create(object, "shop");
        let defaulting = add_to(&set, &request, &facts(Guard::Enforce), &Config::default());
        let sent = sent(&defaulted(&request, &defaulting));
        let response = &sent["response"];
        assert_eq!((&response["allowed"], &response["patchType"]), (&true.into(), &"JSONPatch".into()));
        let patch = BASE64_STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        assert_eq!(
            serde_json::from_slice::<serde_json::Value>(&patch).unwrap(),
            serde_json::json!([{"op": "add", "path": "/spec/template/spec/containers/0/startupProbe", "value": {"periodSeconds": 5}}])
        );
        assert_eq!(response["warnings"].as_array().unwrap().len(), 1);
        assert_eq!(response["auditAnnotations"]["added"], "/spec/template/spec/containers/0/startupProbe");
        assert!(tree::at(request.object(), &["spec"]).is_some());
    }

    #[test]
    fn warnings_are_as_many_as_the_api_server_passes_on() {
        let finding = |i: usize| Finding {
            policy: format!("p{i}"),
            code: String::new(),
            level: Level::Warn,
            path: String::new(),
            message: "x".repeat(300),
            fix: String::new(),
            details: Vec::new(),
        };
        let verdict = Verdict { findings: (0..40).map(finding).collect(), ..Verdict::default() };
        let answer = validated(&Request::create(deployment("", "", ""), "shop"), &verdict, now());
        assert!(answer.warnings.iter().all(|warning| warning.len() <= message::LINE));
        assert!(answer.warnings.iter().map(String::len).sum::<usize>() <= ALL_WARNINGS);
        assert_eq!(answer.warnings.last().unwrap(), "and 25 more: surefoot check FILE");
    }
}
