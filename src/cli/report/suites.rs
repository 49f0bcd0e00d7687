//! The report as JUnit sees it: a suite for each file or namespace, a case for each Deployment.

use std::fmt::Write as _;

use super::{
    Judged, Report,
    junit::{self, Case, Ended, Suite},
};
use crate::{
    admission::{Failure, Finding, Level, notation},
    cli::source::Why,
};

/// The whole report as one JUnit document.
pub(in crate::cli) fn render(report: &Report) -> anyhow::Result<String> {
    let mut suites: Vec<Suite> = Vec::new();
    for judged in &report.judged {
        let file = report.file_of(judged);
        let name = if file.is_cluster() { judged.object.namespace() } else { &file.name };
        match suites.last_mut().filter(|suite| suite.name == name) {
            Some(suite) => suite.cases.push(case(report, judged)),
            None => suites.push(Suite { name: name.to_owned(), cases: vec![case(report, judged)] }),
        }
    }
    let problems = report
        .problems
        .iter()
        .map(|problem| broken(&problem.file, problem.place.map_or(0, |place| place.line), "read", &problem.message));
    let failures = report.failures.iter().map(|Failure { policy, file, line, message, .. }| {
        let name = if policy.is_empty() { "load".to_owned() } else { format!("policy {policy}") };
        broken(file, *line as usize, &name, message)
    });
    let skipped = report.skipped.iter().map(|skipped| Case {
        class: "policies".to_owned(),
        name: format!("policy {}", skipped.policy),
        ended: Ended::Skipped(format!("needs {}", skipped.needs.join(" and "))),
        ..Case::default()
    });
    let templates = report.passed.iter().filter(|passed| matches!(passed.why, Why::Template(_))).map(|passed| Case {
        class: passed.file.clone(),
        name: "read".to_owned(),
        file: Some(passed.file.clone()),
        ended: Ended::Skipped(passed.why.words().to_owned()),
        ..Case::default()
    });
    let problems: Vec<Case> = problems.chain(templates).collect();
    let policies: Vec<Case> = failures.chain(skipped).collect();
    for (name, cases) in [("files", problems), ("policies", policies)] {
        if !cases.is_empty() {
            suites.push(Suite { name: name.to_owned(), cases });
        }
    }
    junit::render("surefoot check", &suites)
}

fn case(report: &Report, judged: &Judged) -> Case {
    let of = |level: Level| judged.findings.iter().filter(move |finding| finding.level == level);
    let told = |findings: &mut dyn Iterator<Item = &Finding>| -> String {
        findings.map(|finding| full(report, judged, finding)).collect()
    };
    let codes: Vec<String> = of(Level::Deny).map(Finding::name).collect();
    let ended = match codes.as_slice() {
        [] if judged.broken => Ended::Broken { message: "a policy broke on it".to_owned(), text: String::new() },
        [] => Ended::Passed,
        codes => {
            let message = format!("would be refused: {}", codes.join(", "));
            Ended::Failed { message, text: told(&mut of(Level::Deny)) }
        }
    };
    let file = report.file_of(judged);
    let is_file = !file.is_cluster();
    Case {
        class: judged.object.namespace().to_owned(),
        name: judged.title(),
        file: is_file.then(|| file.name.clone()),
        line: if is_file { judged.object.places.nearest("").line } else { 0 },
        ended,
        output: told(&mut of(Level::Warn)),
    }
}

/// `probes/no-readiness: … at … (file:line:column); fix: …`
fn full(report: &Report, judged: &Judged, finding: &Finding) -> String {
    let mut text = format!("{}: {}\n", finding.name(), finding.message);
    let at = notation(&finding.path);
    let _ = match report.place_in_file(judged, finding) {
        Some((file, place)) => writeln!(text, "  at   {at} ({}:{}:{})", file.name, place.line, place.column),
        None => writeln!(text, "  at   {at}"),
    };
    if !finding.fix.is_empty() {
        let _ = writeln!(text, "  fix  {}", finding.fix.replace('\n', "\n       "));
    }
    text
}

fn broken(file: &str, line: usize, name: &str, message: &str) -> Case {
    Case {
        class: file.to_owned(),
        name: name.to_owned(),
        file: (!file.is_empty() && file != "<stdin>").then(|| file.to_owned()),
        line,
        ended: Ended::Broken { message: message.to_owned(), text: String::new() },
        ..Case::default()
    }
}
