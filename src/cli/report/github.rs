//! Workflow commands of GitHub: an annotation at the line of each finding, then the verdict for the log.

use std::fmt::Write as _;

use super::{Report, shown, text};
use crate::admission::{Failure, Level, notation};

/// The report, a command in a line.
pub(in crate::cli) fn render(report: &Report) -> String {
    let mut out = String::new();
    for problem in &report.problems {
        let place = problem.place.map(|place| (place.line, place.column));
        command(&mut out, "error", &problem.file, place, "surefoot", &shown::line(&problem.message));
    }
    for Failure { policy, file, line, column, message, level: _ } in &report.failures {
        let title = if policy.is_empty() { "surefoot".to_owned() } else { format!("policy {policy} is broken") };
        let place = (*line > 0).then_some((*line as usize, *column as usize));
        command(&mut out, "error", file, place, &title, &shown::line(message));
    }
    for judged in &report.judged {
        for finding in &judged.findings {
            let kind = if finding.level == Level::Deny { "error" } else { "warning" };
            let mut message = shown::line(&finding.message).into_owned();
            let (file, place) = match report.place_in_file(judged, finding) {
                Some((file, place)) => (file.name.as_str(), Some((place.line, place.column))),
                None => ("", None),
            };
            let _ = write!(message, "\n{}", judged.title());
            if !finding.path.is_empty() {
                let _ = write!(message, ": {}", shown::line(&notation(&finding.path)));
            }
            if !finding.fix.is_empty() {
                let _ = write!(message, "\nfix: {}", shown::lines(&finding.fix));
            }
            command(&mut out, kind, file, place, &finding.name(), &message);
        }
    }
    for notice in &report.notices {
        command(&mut out, "notice", "", None, "surefoot", &shown::line(notice));
    }
    out + &text::summary(report)
}

fn command(out: &mut String, kind: &str, file: &str, place: Option<(usize, usize)>, title: &str, message: &str) {
    let mut properties = Vec::new();
    // What was piped in lies in no file of the repository.
    if !file.is_empty() && file != "<stdin>" {
        properties.push(format!("file={}", escape_property(file.strip_prefix("./").unwrap_or(file))));
        if let Some((line, column)) = place {
            properties.push(format!("line={line},col={column}"));
        }
    }
    properties.push(format!("title={}", escape_property(title)));
    let _ = writeln!(out, "::{kind} {}::{}", properties.join(","), escape(message));
}

/// As the runner's own toolkit escapes the message of a command.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// In a property, what ends it too.
fn escape_property(text: &str) -> String {
    escape(text).replace(':', "%3A").replace(',', "%2C")
}
