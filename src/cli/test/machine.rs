//! What a machine reads: JSON, and JUnit XML.

use serde_json::{Value, json};

use super::{run::Run, text};
use crate::cli::report::junit::{self, Ended, Suite};

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

/// A suite for the unit tests, one for the cases, and one for what kept them from being run.
pub(super) fn junit(run: &Run) -> anyhow::Result<String> {
    let tests = run.tests().map(|test| junit::Case {
        class: test.name.rsplit_once('.').map(|(package, _)| package.to_owned()).unwrap_or_default(),
        name: test.name.rsplit('.').next().unwrap_or_default().to_owned(),
        file: Some(test.file.clone()),
        line: test.line as usize,
        ended: match (&test.failed, test.skipped) {
            (Some(message), _) => Ended::Failed { message: message.clone(), text: text::plain_failure(test) },
            (None, true) => Ended::Skipped("todo".to_owned()),
            (None, false) => Ended::Passed,
        },
        output: test.prints.join("\n"),
    });
    let cases = run.cases().map(|case| junit::Case {
        class: case.policy.clone(),
        name: case.file.clone(),
        file: Some(case.file.clone()),
        ended: match &case.failed {
            Some(message) => Ended::Failed { message: message.clone(), text: String::new() },
            None => Ended::Passed,
        },
        ..junit::Case::default()
    });
    // What was not run is no test, but whoever reads nothing else must see it.
    let notes = run.sets.iter().flat_map(|set| &set.notes).map(|note| junit::Case {
        name: "not run".to_owned(),
        ended: Ended::Skipped(note.clone()),
        ..junit::Case::default()
    });
    let problems = run.problems().map(|problem| junit::Case {
        name: "load".to_owned(),
        ended: Ended::Broken { message: problem.lines().next().unwrap_or_default().to_owned(), text: problem.clone() },
        ..junit::Case::default()
    });
    let coverage = run.too_little().then(|| junit::Case {
        name: "coverage".to_owned(),
        ended: Ended::Failed {
            message: format!("{:.1} % of the lines are covered", run.coverage().unwrap_or(0.0)),
            text: String::new(),
        },
        ..junit::Case::default()
    });
    let suites = [
        Suite { name: "unit tests".to_owned(), cases: tests.collect() },
        Suite { name: "cases".to_owned(), cases: cases.chain(notes).collect() },
        Suite { name: "policies".to_owned(), cases: problems.chain(coverage).collect() },
    ];
    junit::render("surefoot test", &suites.into_iter().filter(|suite| !suite.cases.is_empty()).collect::<Vec<_>>())
}
