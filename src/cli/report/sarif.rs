//! SARIF 2.1.0, for code scanning: a rule for each kind of finding, a result for each finding, a notification for
//! everything that kept a verdict from being reached.

use std::{collections::BTreeSet, env, path::Path};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Judged, Report};
use crate::{
    admission::{Failure, Finding, Level, notation},
    cli::source::{File, tree::Place},
    template::{Json, json},
};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";

/// The whole report as one log with one run.
pub(in crate::cli) fn render(report: &Report) -> serde_json::Result<String> {
    let names: BTreeSet<String> =
        report.judged.iter().flat_map(|judged| judged.findings.iter().map(Finding::name)).collect();
    let rules: Vec<String> = names.into_iter().collect();
    let results = report.judged.iter().flat_map(|judged| {
        judged.findings.iter().map(|finding| result(report, judged, finding, &rules)).collect::<Vec<_>>()
    });
    let outcome = report.outcome();
    let driver = json!({
        "name": "surefoot",
        "semanticVersion": env!("CARGO_PKG_VERSION"),
        "rules": rules.iter().map(|name| rule(report, name)).collect::<Vec<_>>(),
    });
    let invocation = json!({
        "executionSuccessful": outcome != crate::cli::Outcome::Failed,
        "exitCode": outcome.code(),
        "toolExecutionNotifications": notifications(report),
    });
    serde_json::to_string_pretty(&json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": driver},
            "columnKind": "unicodeCodePoints",
            "invocations": [invocation],
            "results": results.collect::<Vec<_>>(),
        }],
    }))
}

/// What a reader is told of all findings of one name.
fn rule(report: &Report, name: &str) -> Value {
    let policy = name.split('/').next().unwrap_or(name);
    let (title, description) = match (policy, report.policies.get(policy)) {
        ("kubernetes", None) => {
            ("The API server takes it", "What the API server itself would refuse, or not understand.")
        }
        ("quarantine", None) => {
            ("Not reverted before", "A pod template that was reverted is not let in again by accident.")
        }
        (_, Some(about)) => (about.title.as_str(), about.description.as_str()),
        (_, None) => (policy, ""),
    };
    let title = if title.is_empty() { policy } else { title };
    let description = if description.trim().is_empty() { title } else { description.trim() };
    json!({
        "id": name,
        "shortDescription": message(&format!("{title} ({name})")),
        "fullDescription": message(description),
        "help": message(&format!("{description}\n\nsurefoot explain {policy}")),
        "properties": {"tags": [format!("policy:{policy}")]},
    })
}

fn result(report: &Report, judged: &Judged, finding: &Finding, rules: &[String]) -> Value {
    let name = finding.name();
    let mut text = finding.message.clone();
    if !finding.fix.is_empty() {
        text += &format!("\nfix: {}", finding.fix);
    }
    let mut location = json!({
        "logicalLocations": [{
            "fullyQualifiedName": format!("{}: {}", judged.title(), notation(&finding.path)),
            "kind": "member",
        }],
    });
    let place = report.place_in_file(judged, finding);
    if let Some((file, place)) = place {
        location["physicalLocation"] = json!({"artifactLocation": artifact(&file.name), "region": region(file, place)});
    }
    json!({
        "ruleId": name,
        "ruleIndex": rules.iter().position(|rule| *rule == name),
        "level": if finding.level == Level::Deny { "error" } else { "warning" },
        "message": message(&text),
        "locations": [location],
        "partialFingerprints": {"surefoot/v1": fingerprint(judged, finding, place.map_or("", |(file, _)| &file.name))},
    })
}

/// A message as the standard has them (§3.11.5): a single brace would begin a placeholder.
fn message(text: &str) -> Value {
    json!({"text": text.replace('{', "{{").replace('}', "}}")})
}

/// From the place to the end of what is underlined.
fn region(file: &File, Place { line, column, length }: Place) -> Value {
    let rest = || {
        let text = file.line(line);
        text.chars().count().saturating_sub(column.saturating_sub(1))
    };
    let length = length.unwrap_or_else(rest);
    json!({"startLine": line.max(1), "startColumn": column.max(1), "endColumn": column.max(1) + length})
}

/// A file below the working folder, which in CI is the repository, relative to it; others as they are.
fn artifact(file: &str) -> Value {
    if file == "<stdin>" {
        // It lies in no repository, but readers ask for a file, and `<` begins no URI.
        return json!({"uri": "stdin"});
    }
    let path = Path::new(file);
    let here = env::current_dir().unwrap_or_default();
    match path.strip_prefix(&here).unwrap_or(path) {
        path if path.is_absolute() => json!({"uri": format!("file://{}", encoded(&path.to_string_lossy()))}),
        path => {
            let path = path.strip_prefix(".").unwrap_or(path);
            json!({"uri": encoded(&path.to_string_lossy()), "uriBaseId": "%SRCROOT%"})
        }
    }
}

/// A path as the path of a URI (RFC 3986).
fn encoded(path: &str) -> String {
    let mut uri = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => uri.push(char::from(byte)),
            _ => uri += &format!("%{byte:02X}"),
        }
    }
    uri
}

/// The same for the same finding, wherever its line has moved to and however containers are ordered.
fn fingerprint(judged: &Judged, finding: &Finding, file: &str) -> String {
    let mut hash = Sha256::new();
    for part in [file, &judged.title(), &finding.name(), &by_name(&judged.object.value, &finding.path)] {
        hash.update(part);
        hash.update([0]);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// A pointer in which list elements go by their name.
fn by_name(root: &Json, pointer: &str) -> String {
    let mut node = Some(root);
    let mut steps = Vec::new();
    for step in pointer.split('/').skip(1) {
        let key = step.replace("~1", "/").replace("~0", "~");
        let below = match node {
            Some(Json::Array(elements)) => key.parse().ok().and_then(|index: usize| elements.get(index)),
            Some(object) => json::get(object, &key),
            None => None,
        };
        let name = below.filter(|_| matches!(node, Some(Json::Array(_)))).and_then(|it| json::str_at(it, &["name"]));
        steps.push(name.map_or(step.to_owned(), str::to_owned));
        node = below;
    }
    steps.join("/")
}

fn notifications(report: &Report) -> Vec<Value> {
    let problems = report.problems.iter().map(|problem| {
        let place = problem.place.map(|place| (place.line, place.column));
        notification("error", &problem.message, &problem.file, place)
    });
    let failures = report.failures.iter().map(|Failure { policy, file, line, column, message, .. }| {
        let place = (*line > 0).then_some((*line as usize, *column as usize));
        let message = if policy.is_empty() { message.clone() } else { format!("policy {policy} is broken: {message}") };
        notification("error", &message, file, place)
    });
    let notices = report.notices.iter().map(|notice| notification("note", notice, "", None));
    problems.chain(failures).chain(notices).collect()
}

fn notification(level: &str, text: &str, file: &str, place: Option<(usize, usize)>) -> Value {
    let mut notification = json!({"level": level, "message": message(text)});
    if !file.is_empty() {
        let mut physical = json!({"artifactLocation": artifact(file)});
        if let Some((line, column)) = place {
            physical["region"] = json!({"startLine": line, "startColumn": column.max(1)});
        }
        notification["locations"] = json!([{"physicalLocation": physical}]);
    }
    notification
}
