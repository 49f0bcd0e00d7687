//! What a machine reads.

use serde_json::{Value, json};

use super::run::Run;

/// Version 1: members may be added, none goes or changes its meaning.
pub(super) fn json(run: &Run) -> anyhow::Result<String> {
    let policies = run.rows().map(|(name, row)| {
        let files = row.files.iter().map(
            |file| json!({"file": file.file, "lines": file.coverage.lines.len(), "not_reached": file.coverage.missed}),
        );
        json!({
            "name": name,
            "tests": row.tests,
            "cases": row.cases,
            "coverage": row.coverage(),
            "files": files.collect::<Vec<_>>(),
            "milliseconds": milliseconds(row.took),
        })
    });
    let tests = run.tests().map(|test| {
        let why = test.why.as_ref().map(|why| {
            let values = why.values.iter().map(|shown| json!({"part": shown.part, "values": shown.values}));
            json!({"line": why.line, "text": why.text, "values": values.collect::<Vec<_>>()})
        });
        json!({
            "name": test.name,
            "file": test.file,
            "line": test.line,
            "column": test.column,
            "outcome": outcome(test.failed.is_some(), test.skipped),
            "message": test.failed,
            "why": why,
            "printed": test.prints,
            "milliseconds": milliseconds(test.took),
        })
    });
    let cases = run.cases().map(|case| {
        json!({
            "file": case.file,
            "policy": case.policy,
            "outcome": outcome(case.failed.is_some(), false),
            "message": case.failed,
            "milliseconds": milliseconds(case.took),
        })
    });
    let report = json!({
        "version": 1,
        "policies": policies.collect::<Vec<_>>(),
        "tests": tests.collect::<Vec<_>>(),
        "cases": cases.collect::<Vec<_>>(),
        "coverage": run.coverage(),
        "failed": run.failed(),
        "problems": run.problems().collect::<Vec<_>>(),
        "notes": run.sets.iter().flat_map(|set| &set.notes).collect::<Vec<_>>(),
        "milliseconds": milliseconds(run.took),
    });
    Ok(serde_json::to_string_pretty(&report)?)
}

fn outcome(failed: bool, skipped: bool) -> Value {
    match (failed, skipped) {
        (true, _) => "failed",
        (false, true) => "skipped",
        (false, false) => "passed",
    }
    .into()
}

fn milliseconds(took: std::time::Duration) -> f64 {
    (took.as_secs_f64() * 1e6).round() / 1e3
}
