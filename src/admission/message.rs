//! What a person reads. Two renderings of the same findings: [`block`] for a denial, [`line()`] for a warning.
//!
//! ASCII without control characters: the API server drops a warning with a newline in it without a trace, and what a
//! terminal makes of the rest is not ours to guess.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

use super::{
    Failure, Finding, Level, Request, Verdict,
    pointer::{innermost_name, notation},
    quarantine,
    wire::Via,
};

/// Longest warning that the API server passes on whole.
pub const LINE: usize = 256;
/// Findings that a denial spells out.
const SHOWN: usize = 20;
/// Findings that its first line names.
const NAMED: usize = 6;
/// Longest text of one field of a finding.
const FIELD: usize = 1000;
/// Where messages begin at least.
const COLUMN: usize = 23;

/// The whole text of a denial. Its first line stands alone: some tools show only that.
pub fn block(request: &Request, verdict: &Verdict, now: Timestamp) -> String {
    let denials: Vec<&Finding> = verdict.denials().collect();
    let broken: Vec<&Failure> = verdict.failures.iter().filter(|failure| failure.level == Level::Deny).collect();
    let mut names: Vec<String> = denials.iter().map(|finding| clean(&finding.name(), 60)).collect();
    names.extend(broken.iter().map(|failure| broken_name(failure)));
    let mut text = headline(&names);
    let column = names.iter().map(|name| name.len() + 2).max().unwrap_or(0).clamp(COLUMN, 45);
    for finding in denials.iter().take(SHOWN) {
        text.push('\n');
        entry(&mut text, column, &finding.name(), &finding.message);
        for (label, value) in &finding.details {
            field(&mut text, label, value);
        }
        if let Some(at) = where_it_is(request, finding) {
            field(&mut text, "at", &at);
        }
        field(&mut text, "fix", &finding.fix);
    }
    if denials.len() > SHOWN {
        let _ = write!(text, "\n  and {} more: surefoot check FILE\n", denials.len() - SHOWN);
    }
    for failure in &broken {
        text.push('\n');
        entry(&mut text, column, &broken_name(failure), "not your fault: this policy broke, so it cannot say yes");
        field(&mut text, "why", &failure.message);
        field(&mut text, "at", &file_place(failure));
        let line = quarantine::override_line(&request.namespace, &request.name, now);
        field(&mut text, "fix", &format!("tell who looks after the policies; if it cannot wait:\n{line}"));
    }
    let is_about_a_file =
        request.via == Via::Deployment && denials.iter().any(|finding| finding.policy != "quarantine");
    if is_about_a_file && denials.len() <= SHOWN {
        text.push_str("\n  These are all of them. To see the same before you apply: surefoot check FILE\n");
    }
    text.truncate(text.trim_end().len());
    text
}

/// A finding as a warning: one line.
pub fn line(finding: &Finding) -> String {
    let text = format!("[{}] {}", finding.name(), finding.message);
    let why = finding.details.iter().find(|(label, _)| *label == "why");
    let more = match (why, finding.fix.as_str()) {
        (Some((_, why)), _) => format!("{text}: {why}"),
        (None, "") => text.clone(),
        (None, fix) => format!("{text}; fix: {fix}"),
    };
    let whole = clean(&more, usize::MAX);
    if whole.len() <= LINE { whole } else { clean(&text, LINE) }
}

/// A policy that broke, as a warning.
pub fn failure_line(failure: &Failure) -> String {
    clean(
        &format!(
            "[{}] not your fault: this policy broke at {}: {}",
            failure.policy,
            file_place(failure),
            failure.message
        ),
        LINE,
    )
}

/// Any sentence as a warning.
pub fn note(text: &str) -> String {
    clean(text, LINE)
}

/// `14 minutes ago`, in the greatest unit that fits.
pub fn ago(since: SignedDuration) -> String {
    let seconds = since.as_secs().max(0);
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

fn headline(names: &[String]) -> String {
    let mut unique: Vec<&str> = Vec::new();
    for name in names.iter().map(String::as_str) {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    let more = match unique.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    unique.truncate(NAMED);
    let count = names.len();
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} problem{plural} ({}{more}); nothing was changed\n", unique.join(", "))
}

fn entry(text: &mut String, column: usize, name: &str, message: &str) {
    let _ = writeln!(text, "  {:<column$}{}", clean(name, 60), clean(message, FIELD));
}

fn field(text: &mut String, label: &str, value: &str) {
    for (index, part) in value.lines().filter(|part| !part.trim().is_empty()).enumerate() {
        let label = if index == 0 { label } else { "" };
        let _ = writeln!(text, "    {label:<5}{}", clean(part, FIELD));
    }
}

fn broken_name(failure: &Failure) -> String {
    clean(&format!("{}/broken", failure.policy), 60)
}

fn file_place(failure: &Failure) -> String {
    match failure.line {
        0 => failure.file.clone(),
        line => format!("{}:{line}:{}", failure.file, failure.column),
    }
}

/// The field, with the container's name where the message does not say it; on scale, who asked.
fn where_it_is(request: &Request, finding: &Finding) -> Option<String> {
    if finding.path.is_empty() || finding.policy == "quarantine" {
        return None;
    }
    let mut text = notation(&finding.path);
    if let Some(name) = innermost_name(request.object(), &finding.path).filter(|name| !finding.message.contains(name)) {
        let _ = write!(text, " ({name})");
    }
    if request.via == Via::Scale {
        let _ = write!(text, ", asked for by {} through deployments/scale", request.user);
    }
    Some(text)
}

/// One line of ASCII, at most `most` characters.
pub(super) fn clean(text: &str, most: usize) -> String {
    let mut cleaned = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        match c {
            ' '..='~' => cleaned.push(c),
            '\n' | '\t' | '\r' => cleaned.push(' '),
            c if c.is_control() => {}
            '\u{2018}' | '\u{2019}' => cleaned.push('\''),
            '\u{201c}' | '\u{201d}' => cleaned.push('"'),
            '\u{2010}'..='\u{2015}' => cleaned.push('-'),
            '\u{2026}' => cleaned.push_str("..."),
            '\u{d7}' => cleaned.push('x'),
            '\u{a0}' => cleaned.push(' '),
            _ => cleaned.push('?'),
        }
    }
    let mut cleaned = cleaned.trim().to_owned();
    if cleaned.len() > most {
        cleaned.truncate(most.saturating_sub(3));
        cleaned.push_str("...");
    }
    cleaned
}
