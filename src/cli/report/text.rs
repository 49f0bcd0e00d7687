//! Text for a terminal: a block for each finding as rustc shows it, a line for each Deployment, one for the verdict.
//! Nothing but the verdict when all is well.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
};

use annotate_snippets::{Group, Level as Severity, Renderer};
use anstyle::{AnsiColor, Style};

use super::{Change, Judged, Report, diff, excerpt, shown};
use crate::{
    admission::{Failure, Finding, Level, LoadError, Skipped, notation},
    cli::{
        plural,
        source::{File, Problem, tree::Place},
    },
    cluster::inventory::Guarding,
    config::{Exemption, Guard},
    template::keys,
};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const MIXED: Style = AnsiColor::Yellow.on_default().bold();
const TITLE: Style = Style::new().bold();

/// The report, with colours that the stream takes out again where they are not wanted.
pub(in crate::cli) fn render(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write_report(report, &mut text);
    text
}

/// What went wrong beside the findings: files that could not be read, policies that broke. For stderr.
pub(in crate::cli) fn render_problems(report: &Report) -> String {
    if !report.unusable.is_empty() {
        return report.unusable.iter().map(unusable).collect();
    }
    let unread = report.problems.iter().map(|problem| {
        let file = report.files.iter().find(|file| file.name == problem.file);
        unreadable(problem, file)
    });
    let notices = report.notices.iter().map(|notice| format!("{MIXED}note{MIXED:#}: {}\n", shown::line(notice)));
    unread.chain(report.failures.iter().map(broken)).chain(notices).collect()
}

fn write_report(report: &Report, out: &mut String) -> fmt::Result {
    if !report.unusable.is_empty() {
        return Ok(());
    }
    if report.compared.is_some() {
        write_changes(report, out)?;
    } else if report.is_of_cluster() {
        write_namespaces(report, out)?;
    } else {
        write_files(report, out)?;
    }
    for Skipped { policy, needs } in &report.skipped {
        let words = needs.iter().map(|need| if need == "isolation" { "a live namespace" } else { need });
        let needs = words.collect::<Vec<_>>().join(" and ");
        let why = if report.guards.is_empty() { " (--cluster)" } else { ", which could not be read" };
        writeln!(out, "skipped: {policy} needs {needs}{why}")?;
    }
    if !report.passed.is_empty() {
        let (files, are) = (plural(report.passed.len(), "file"), if report.passed.len() == 1 { "is" } else { "are" });
        writeln!(out, "passed over: {files} that {are} no manifest (-o json says which)")?;
    }
    out.push_str(&summary(report));
    Ok(())
}

fn write_files(report: &Report, out: &mut String) -> fmt::Result {
    report.judged.iter().try_for_each(|judged| write_findings(report, judged, out))?;
    if report.judged.iter().any(has_something) {
        write_table(report, &report.judged.iter().collect::<Vec<_>>(), out)?;
    }
    Ok(())
}

/// A part for each namespace in which something is to be said: how far surefoot goes there, then as for files.
fn write_namespaces(report: &Report, out: &mut String) -> fmt::Result {
    for (namespace, guarding) in &report.guards {
        let judged: Vec<_> = report.judged.iter().filter(|it| it.object.namespace() == namespace).collect();
        if !judged.iter().any(|judged| has_something(judged)) && matches!(guarding, Guarding::By(Guard::Enforce)) {
            continue;
        }
        writeln!(out, "{TITLE}namespace {namespace}{TITLE:#}: {}", guard(guarding))?;
        judged.iter().try_for_each(|judged| write_findings(report, judged, out))?;
        write_table(report, &judged, out)?;
        out.push('\n');
    }
    Ok(())
}

/// A line for each Deployment that another verdict or other findings have come to.
fn write_changes(report: &Report, out: &mut String) -> fmt::Result {
    let place = |judged: &Judged| {
        let (file, name) = (report.file_of(judged), format!("{}/{}", judged.object.namespace(), judged.object.name()));
        let name = if file.is_cluster() { name } else { format!("{}    {name}", file.name) };
        shown::line(&name).into_owned()
    };
    let width = report.judged.iter().map(|judged| place(judged).chars().count()).max().unwrap_or(0);
    for (judged, change) in report.judged.iter().filter_map(|judged| Some((judged, judged.change.as_ref()?))) {
        let (what, style) = match (change.was_denied, judged.denied()) {
            (false, true) => ("newly refused", BAD),
            (true, false) => ("newly admitted", GOOD),
            _ => ("changed", MIXED),
        };
        let text = said(change, change.was_denied == judged.denied());
        writeln!(out, "{:width$}    {style}{what}{style:#}: {text}", place(judged))?;
    }
    Ok(())
}

/// `canary-cap/above-cap; no longer probes/no-liveness`. `all`: the verdict alone does not tell what matters.
fn said(change: &Change, all: bool) -> String {
    let names = |findings: &[Finding], but: &[Finding], least: Level| {
        let mut names: Vec<String> = findings
            .iter()
            .filter(|finding| finding.level >= least && but.iter().all(|other| !is_alike(other, finding)))
            .map(
                |finding| {
                    if finding.level == Level::Warn { format!("warning {}", finding.name()) } else { finding.name() }
                },
            )
            .collect();
        names.dedup();
        names.join(", ")
    };
    let least = if all { Level::Warn } else { Level::Deny };
    let mut parts = vec![names(&change.come, &change.gone, least)];
    let gone = names(&change.gone, &change.come, least);
    parts.extend((!gone.is_empty()).then(|| format!("no longer {gone}")));
    if all {
        let reworded: Vec<Finding> =
            change.come.iter().filter(|it| change.gone.iter().any(|was| is_alike(was, it))).cloned().collect();
        let reworded = names(&reworded, &[], least);
        parts.extend((!reworded.is_empty()).then(|| format!("other words in {reworded}")));
        parts.extend(change.defaults.then(|| "other defaults".to_owned()));
    }
    parts.retain(|part| !part.is_empty());
    if parts.is_empty() { "a policy broke".to_owned() } else { parts.join("; ") }
}

/// The same complaint, whatever its words.
fn is_alike(one: &Finding, other: &Finding) -> bool {
    (&one.policy, &one.code, &one.path, one.level) == (&other.policy, &other.code, &other.path, other.level)
}

/// What happens today in a namespace with this label.
fn guard(guarding: &Guarding) -> String {
    match guarding {
        Guarding::By(Guard::Enforce) => "guard enforce".to_owned(),
        Guarding::By(Guard::Warn) => "guard warn, so nothing is refused yet: people are warned".to_owned(),
        Guarding::By(Guard::Audit) => "guard audit, so nothing is refused yet and nobody is told".to_owned(),
        Guarding::Odd(odd) => odd.to_string(),
        Guarding::Not => format!("not guarded, so surefoot is not asked; to begin: label it {}=audit", keys::GUARD),
        Guarding::Unknown(why) => format!("guard unknown, {why}"),
    }
}

fn has_something(judged: &Judged) -> bool {
    let Judged { findings, silenced, defaults, broken, .. } = judged;
    *broken || !(findings.is_empty() && silenced.is_empty() && defaults.is_empty())
}

fn write_findings(report: &Report, judged: &Judged, out: &mut String) -> fmt::Result {
    for finding in &judged.findings {
        out.push_str(&block(report, judged, finding));
        out.push('\n');
    }
    // What the guard label says wrong is said of its namespace.
    let of_guard = report.guards.get(judged.object.namespace()).map(guard);
    for note in judged.notes.iter().filter(|note| of_guard.as_ref() != Some(note)) {
        writeln!(out, "{MIXED}note{MIXED:#}: {}: {}", judged.title(), shown::line(note))?;
    }
    if report.diffs {
        // What cannot be written as YAML has been said in JSON.
        out.push_str(&diff::diff(judged, &report.file_of(judged).name).unwrap_or_default());
    }
    Ok(())
}

/// `error[probes/no-readiness]: …` with the line and a caret, or for what is in no file its place in words.
fn block(report: &Report, judged: &Judged, finding: &Finding) -> String {
    let severity = if finding.level == Level::Deny { Severity::ERROR } else { Severity::WARNING };
    let title = severity.primary_title(shown::line(&finding.message)).id(finding.name());
    let place = match notation(&finding.path) {
        path if path.is_empty() => judged.title(),
        path => format!("{}, {}", judged.title(), shown::line(&path)),
    };
    let mut group = Group::with_title(title);
    group = match report.place_in_file(judged, finding) {
        Some((file, place)) => {
            group.element(excerpt::of(file, place, shown::line(&notation(&finding.path)).into_owned()))
        }
        None => group.element(Severity::NOTE.with_name("at").message(&place)),
    };
    if !finding.fix.is_empty() {
        group = group.element(Severity::HELP.with_name("fix").message(shown::lines(&finding.fix)));
    }
    Renderer::styled().render(&[group]) + "\n"
}

fn unreadable(problem: &Problem, file: Option<&File>) -> String {
    let (name, message) = (shown::line(&problem.file), shown::line(&problem.message));
    match (file, problem.place) {
        (Some(file), Some(place)) => {
            let title = Severity::ERROR.primary_title(message);
            let group = Group::with_title(title).element(excerpt::of(file, place, String::new()));
            Renderer::styled().render(&[group]) + "\n\n"
        }
        (_, Some(Place { line, column, .. })) => {
            format!("{BAD}error{BAD:#}: {name}:{line}:{column}: {message}\n")
        }
        (_, None) => format!("{BAD}error{BAD:#}: {name}: {message}\n"),
    }
}

/// With the line that it is about. Its tabs, and those above the caret, take as many columns as each other.
fn unusable(error: &LoadError) -> String {
    format!("{BAD}error{BAD:#}: {}\n", shown::lines(&error.to_string().replace('\t', "    ")))
}

fn broken(failure: &Failure) -> String {
    let Failure { policy, file, line, column, message, level: _ } = failure;
    let policy = if policy.is_empty() { String::new() } else { format!("policy {policy} is broken: ") };
    let place = match (file.as_str(), line) {
        ("", _) => String::new(),
        (file, 0) => format!("{file}: "),
        (file, line) => format!("{file}:{line}:{column}: "),
    };
    format!("{BAD}error{BAD:#}: {policy}{}{}\n", shown::line(&place), shown::line(message))
}

/// A line for each Deployment, its columns aligned.
fn write_table(report: &Report, judged: &[&Judged], out: &mut String) -> fmt::Result {
    let rows: Vec<_> = judged.iter().map(|judged| Row::new(report, judged)).collect();
    let width = |cell: fn(&Row<'_>) -> usize| rows.iter().map(cell).max().unwrap_or(0);
    let (files, names, states) =
        (width(|row| row.file.chars().count()), width(|row| row.name.chars().count()), width(|row| row.state.len()));
    for Row { file, name, state, style, more } in &rows {
        let (states, gap) = (if more.is_empty() { 0 } else { states }, if files == 0 { "  " } else { "    " });
        let line = format!("{file:files$}{gap}{name:names$}   {style}{state:states$}{style:#}   {more}");
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

struct Row<'a> {
    file: Cow<'a, str>,
    name: String,
    state: String,
    style: Style,
    more: String,
}

impl<'a> Row<'a> {
    fn new(report: &'a Report, judged: &'a Judged) -> Self {
        let (state, style) = state(judged);
        let file = report.file_of(judged);
        let file = if file.is_cluster() { Cow::Borrowed("") } else { shown::line(&file.name) };
        Self { file, name: judged.title(), state, style, more: more(judged, report.diffs) }
    }
}

/// `1 error`, `2 errors, 1 warning`, `ok`.
fn state(judged: &Judged) -> (String, Style) {
    let count = |count: usize, what: &str| (count > 0).then(|| plural(count, what));
    let (denials, warnings) = (judged.count(Level::Deny), judged.count(Level::Warn));
    let broken = judged.broken.then(|| "a policy broke".to_owned());
    let parts: Vec<_> = [broken, count(denials, "error"), count(warnings, "warning")].into_iter().flatten().collect();
    match () {
        () if judged.denied() => (parts.join(", "), BAD),
        () if !parts.is_empty() => (parts.join(", "), MIXED),
        () => ("ok".to_owned(), GOOD),
    }
}

/// What would be added, and what counts for nothing.
fn more(judged: &Judged, shown: bool) -> String {
    let exempt = judged.silenced.iter().filter(|silenced| silenced.exemption.is_some()).count();
    let audited = judged.silenced.len() - exempt;
    let defaults = match judged.defaults.len() {
        0 => None,
        count => Some(format!("{} would be added{}", plural(count, "default"), if shown { "" } else { " (--diff)" })),
    };
    let exempt = (exempt > 0).then(|| format!("{exempt} exempted"));
    let audited = (audited > 0).then(|| format!("{audited} only counted"));
    [defaults, exempt, audited].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The last lines: which exemptions held something back, and what would happen, with the exit code at the right.
pub(super) fn summary(report: &Report) -> String {
    const WIDTH: usize = 90;
    let mut out: String = exemptions(report).into_iter().map(|line| line + "\n").collect();
    let under = if report.is_of_cluster() { " under guard enforce" } else { "" };
    let verdict = match (report.denied(), report.deployments()) {
        _ if report.compared.is_some() => compared(report),
        (0, 0) => "no Deployment found".to_owned(),
        (0, all) => format!("{} would be admitted{under}", plural(all, "Deployment")),
        (denied, all) => format!("{denied} of {} would be refused{under}", plural(all, "Deployment")),
    };
    let _ = match report.outcome().code() {
        0 => writeln!(out, "{verdict}"),
        code => {
            let end = format!("exit code {code}");
            writeln!(out, "{verdict:gap$}{end}", gap = WIDTH - end.len())
        }
    };
    out
}

/// `41 Deployments, 1 verdict changes`
fn compared(report: &Report) -> String {
    let turned = |judged: &&Judged| judged.change.as_ref().is_some_and(|it| it.was_denied != judged.denied());
    let (verdicts, all) =
        (report.judged.iter().filter(turned).count(), plural(report.compared.unwrap_or(0), "Deployment"));
    match (verdicts, report.judged.len()) {
        (_, 0) => format!("{all}, nothing changes"),
        (0, changed) => format!("{all}, no verdict changes, {changed} in what is said"),
        (1, _) => format!("{all}, 1 verdict changes"),
        (verdicts, _) => format!("{all}, {verdicts} verdicts change"),
    }
}

/// `exempted: 2 findings of probes on shop/legacy-scorer until 2027-01-31 (speaks only TCP, OPS-311)`
fn exemptions(report: &Report) -> Vec<String> {
    let mut entries: Vec<(String, &Exemption, usize)> = Vec::new();
    for judged in &report.judged {
        for (finding, entry) in judged.silenced.iter().filter_map(|it| Some((&it.finding, it.exemption.as_ref()?))) {
            let what = format!("{} on {}/{}", finding.policy, judged.object.namespace(), judged.object.name());
            match entries.iter_mut().find(|(known, ..)| *known == what) {
                Some((.., count)) => *count += 1,
                None => entries.push((what, entry, 1)),
            }
        }
    }
    let line = |(what, entry, count): (String, &Exemption, usize)| {
        format!("exempted: {} of {what} until {} ({})", plural(count, "finding"), entry.until, entry.reason)
    };
    entries.into_iter().map(|entry| shown::line(&line(entry)).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admission::DefaultValue, cli::source, template::Json};

    const CHURN: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: churn, namespace: shop}
spec:
  template:
    spec:
      containers:
      - name: model  # the server
        image: registry.local/churn:2.4.0
";

    fn report(texts: &[(&str, &str)]) -> Report {
        let mut report = Report::default();
        for (name, text) in texts {
            let mut found = source::read(&["-".into()], &mut text.as_bytes(), "default");
            for mut object in found.objects.drain(..) {
                object.file = report.files.len();
                report.judged.push(Judged::of(object));
            }
            report.files.push(File::new(*name, *text));
        }
        report
    }

    fn finding(level: Level, path: &str) -> Finding {
        Finding {
            policy: "probes".into(),
            code: "no-readiness".into(),
            level,
            path: path.into(),
            message: "container \"model\" has no readinessProbe".into(),
            fix: "readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}".into(),
            details: Vec::new(),
        }
    }

    fn plain(report: &Report) -> String {
        anstream::adapter::strip_str(&render(report)).to_string()
    }

    #[test]
    fn a_refused_deployment_beside_a_good_one() {
        let canary = CHURN.replace("churn", "churn-canary");
        let mut report = report(&[("k8s/churn.yaml", CHURN), ("k8s/canary.yaml", &canary)]);
        report.judged[0].findings = vec![finding(Level::Deny, "/spec/template/spec/containers/0/readinessProbe")];
        let default =
            DefaultValue { policy: "probes".into(), path: "/spec/minReadySeconds".into(), value: Json::from(10) };
        report.judged[0].defaults = vec![default.clone(), default];
        report.skipped = vec![Skipped { policy: "one-at-a-time".into(), needs: vec!["history".into()] }];
        let expected = "\
error[probes/no-readiness]: container \"model\" has no readinessProbe
 --> k8s/churn.yaml:8:9
  |
8 |       - name: model  # the server
  |         ^^^^^^^^^^^ spec.template.spec.containers[0].readinessProbe
  |
  = fix: readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}

k8s/churn.yaml     Deployment shop/churn          1 error   2 defaults would be added (--diff)
k8s/canary.yaml    Deployment shop/churn-canary   ok
skipped: one-at-a-time needs history (--cluster)
1 of 2 Deployments would be refused                                            exit code 1
";
        assert_eq!(plain(&report), expected);
    }

    #[test]
    fn quiet_when_all_is_well() {
        assert_eq!(plain(&report(&[("a.yaml", CHURN)])), "1 Deployment would be admitted\n");
        assert_eq!(plain(&Report::default()), "no Deployment found\n");
    }

    #[test]
    fn a_warning_refuses_nothing() {
        let mut report = report(&[("a.yaml", CHURN)]);
        report.judged[0].findings = vec![finding(Level::Warn, "")];
        let text = plain(&report);
        assert!(text.starts_with("warning[probes/no-readiness]"), "{text}");
        assert!(text.ends_with("Deployment shop/churn   1 warning\n1 Deployment would be admitted\n"), "{text}");
    }

    #[test]
    fn places_beyond_the_text_do_not_break_the_report() {
        let file = File::new("x", "a: ä\n");
        for (line, column, length) in [(0, 0, None), (1, 4, Some(1)), (1, 40, Some(9)), (7, 1, None), (1, 4, Some(0))] {
            let place = Place { line, column, length };
            let problem = Problem { file: "x".into(), place: Some(place), message: "bad".into() };
            assert!(unreadable(&problem, Some(&file)).contains("bad"));
        }
    }
}
