//! `-o json`: stable, version 1; fields may be added.

use serde::Serialize;

use super::{Judged, Report, Silenced};
use crate::{
    admission::{Failure, Level, Skipped},
    cluster::inventory::Guarding,
    config::Guard,
    template::Json,
};

#[derive(Serialize)]
struct Output<'a> {
    version: u32,
    objects: Vec<ObjectOut<'a>>,
    skipped: &'a [Skipped],
    failures: Vec<Failure>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    notices: &'a [String],
    /// Files in the folders that are no manifests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    passed_over: Vec<PassedOut<'a>>,
    /// With `--baseline`: how many were compared; `objects` holds those that changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared: Option<usize>,
}

#[derive(Serialize)]
struct PassedOut<'a> {
    file: &'a str,
    why: &'static str,
}

#[derive(Serialize)]
struct ObjectOut<'a> {
    file: &'a str,
    index: usize,
    line: usize,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    verdict: &'static str,
    findings: Vec<FindingOut<'a>>,
    defaults: Vec<DefaultOut<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    notes: &'a [String],
    /// Findings that count for nothing: exempted, or of a policy whose action is Audit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silenced: Vec<SilencedOut<'a>>,
    /// With `--cluster`: `audit`, `warn`, `enforce`, `none`, or `unknown` where it may not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    guard: Option<String>,
    /// With `--baseline`: `newly-denied`, `newly-allowed` or `changed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<&'static str>,
    /// What the baseline says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<BaselineOut<'a>>,
}

#[derive(Serialize)]
struct BaselineOut<'a> {
    verdict: &'static str,
    findings: Vec<FindingOut<'a>>,
}

#[derive(Serialize)]
struct FindingOut<'a> {
    policy: &'a str,
    code: &'a str,
    level: Level,
    path: &'a str,
    message: &'a str,
    fix: &'a str,
    line: usize,
    column: usize,
}

#[derive(Serialize)]
struct SilencedOut<'a> {
    #[serde(flatten)]
    finding: FindingOut<'a>,
    /// The entry of the configuration; absent: the action of the policy is Audit.
    #[serde(skip_serializing_if = "Option::is_none")]
    exemption: Option<ExemptionOut<'a>>,
}

#[derive(Serialize)]
struct ExemptionOut<'a> {
    policies: &'a [String],
    reason: &'a str,
    until: jiff::civil::Date,
}

#[derive(Serialize)]
struct DefaultOut<'a> {
    policy: &'a str,
    path: &'a str,
    value: &'a Json,
}

/// The whole report as one JSON document.
pub(in crate::cli) fn render(report: &Report) -> serde_json::Result<String> {
    // A file that could not be read is a failure of no policy.
    let unread = report.problems.iter().map(|problem| Failure {
        policy: String::new(),
        file: problem.file.clone(),
        line: problem.place.map_or(0, |place| place.line as u32),
        column: problem.place.map_or(0, |place| place.column as u32),
        message: problem.message.clone(),
        level: Level::Deny,
    });
    serde_json::to_string_pretty(&Output {
        version: 1,
        objects: report.judged.iter().map(|judged| object(report, judged)).collect(),
        skipped: &report.skipped,
        failures: report.failures.iter().cloned().chain(unread).collect(),
        notices: &report.notices,
        passed_over: report.passed.iter().map(|it| PassedOut { file: &it.file, why: it.why.words() }).collect(),
        compared: report.compared,
    })
}

fn object<'a>(report: &'a Report, judged: &'a Judged) -> ObjectOut<'a> {
    let object = &judged.object;
    let finding = |finding| {
        let place = report.place_in_file(judged, finding).map(|(_, place)| place).unwrap_or_default();
        let crate::admission::Finding { policy, code, level, path, message, fix, details: _ } = finding;
        FindingOut { policy, code, level: *level, path, message, fix, line: place.line, column: place.column }
    };
    let silenced = |silenced: &'a Silenced| SilencedOut {
        finding: finding(&silenced.finding),
        exemption: silenced.exemption.as_ref().map(|entry| ExemptionOut {
            policies: &entry.policies,
            reason: &entry.reason,
            until: entry.until,
        }),
    };
    ObjectOut {
        file: &report.file_of(judged).name,
        index: object.index,
        line: if report.file_of(judged).is_cluster() { 0 } else { object.places.nearest("").line },
        kind: &object.kind,
        namespace: object.namespace(),
        name: object.name(),
        verdict: verdict(judged.denied()),
        findings: judged.findings.iter().map(finding).collect(),
        defaults: judged
            .defaults
            .iter()
            .map(|default| DefaultOut { policy: &default.policy, path: &default.path, value: &default.value })
            .collect(),
        notes: &judged.notes,
        silenced: judged.silenced.iter().map(silenced).collect(),
        guard: report.guards.get(object.namespace()).map(|guarding| match guarding {
            Guarding::By(guard) => guard.to_string(),
            Guarding::Odd(_) => Guard::Warn.to_string(),
            Guarding::Not => "none".to_owned(),
            Guarding::Unknown(_) => "unknown".to_owned(),
        }),
        change: judged.change.as_ref().map(|change| match (change.was_denied, judged.denied()) {
            (false, true) => "newly-denied",
            (true, false) => "newly-allowed",
            _ => "changed",
        }),
        baseline: judged.change.as_ref().map(|change| BaselineOut {
            verdict: verdict(change.was_denied),
            findings: change.before.iter().map(finding).collect(),
        }),
    }
}

fn verdict(denied: bool) -> &'static str {
    if denied { "denied" } else { "allowed" }
}
