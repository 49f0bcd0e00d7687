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
