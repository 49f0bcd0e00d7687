//! What a person reads. Two renderings of the same findings: [`block`] for a denial, [`line()`] for a warning.
//!
//! ASCII without control characters: the API server drops a warning with a newline in it without a trace, and what a
//! terminal makes of the rest is not ours to guess.

use std::fmt::Write as _;

use jiff::Timestamp;

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
        let line = quarantine::override_line(request, now);
        field(&mut text, "fix", &format!("tell who looks after the policies; if it cannot wait:\n{line}"));
    }
    let is_about_a_file =
        request.via == Via::Deployment && denials.iter().any(|finding| finding.policy != "quarantine");
    if is_about_a_file && denials.len() <= SHOWN {
        // A policy that broke may have more to say.
        let all = if broken.is_empty() { "These are all of them. " } else { "" };
        let _ = writeln!(text, "\n  {all}To see the same before you apply: surefoot check FILE");
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::fixtures::*, *};
    use crate::admission::{Facts, History, LastGood, Quarantined, Request, answer};
    use crate::template::Digest;

    fn finding(name: &str, message: &str, path: &str, fix: &str) -> Finding {
        let (policy, code) = name.split_once('/').unwrap_or((name, ""));
        Finding {
            policy: policy.to_owned(),
            code: code.to_owned(),
            level: Level::Deny,
            path: path.to_owned(),
            message: message.to_owned(),
            fix: fix.to_owned(),
            details: Vec::new(),
        }
    }

    fn request() -> Request {
        Request::create(deployment("", "", r#"{"name":"model"}"#), "shop")
    }

    fn scale() -> Request {
        let review = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"kind":"Scale"},
            "operation":"UPDATE","name":"churn","namespace":"shop","userInfo":{"username":"ana"},
            "object":{"kind":"Scale","spec":{"replicas":5}},"oldObject":{"kind":"Scale"}}}"#;
        Request::parse(review.as_bytes()).unwrap().scaled(deployment("", r#""replicas":1"#, ""))
    }

    #[test]
    fn a_denial_says_everything_at_once() {
        let verdict = Verdict {
            findings: vec![
                finding(
                    "probes/no-readiness",
                    "container \"model\" has no readinessProbe, so it gets traffic before the model has loaded",
                    "/spec/template/spec/containers/0/readinessProbe",
                    "readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}",
                ),
                finding("images/latest", "it runs churn:latest", "/spec/template/spec/containers/0/image", ""),
                finding(
                    "version-labels/differ",
                    "the Deployment says version 2.4.0, its pods say 2.3.1",
                    "/spec/template/metadata/labels/app.kubernetes.io~1version",
                    "give both the same version",
                ),
                Finding { level: Level::Warn, ..finding("a/b", "only a warning", "", "") },
            ],
            ..Verdict::default()
        };
        assert_eq!(
            block(&request(), &verdict, now()),
            r#"3 problems (probes/no-readiness, images/latest, version-labels/differ); nothing was changed

  probes/no-readiness    container "model" has no readinessProbe, so it gets traffic before the model has loaded
    at   spec.template.spec.containers[0].readinessProbe
    fix  readinessProbe: {httpGet: {path: /v2/health/ready, port: 8000}}

  images/latest          it runs churn:latest
    at   spec.template.spec.containers[0].image (model)

  version-labels/differ  the Deployment says version 2.4.0, its pods say 2.3.1
    at   spec.template.metadata.labels[app.kubernetes.io/version]
    fix  give both the same version

  These are all of them. To see the same before you apply: surefoot check FILE"#
        );
    }

    #[test]
    fn a_scale_says_who_asked() {
        let above = finding(
            "canary-cap/above-cap",
            "5 canary replicas against 20 stable, the cap is 2",
            "/spec/replicas",
            "set replicas to 2, or scale the stable Deployment first",
        );
        let verdict = Verdict { findings: vec![above], ..Verdict::default() };
        assert_eq!(
            block(&scale(), &verdict, now()),
            "1 problem (canary-cap/above-cap); nothing was changed

  canary-cap/above-cap   5 canary replicas against 20 stable, the cap is 2
    at   spec.replicas, asked for by ana through deployments/scale
    fix  set replicas to 2, or scale the stable Deployment first"
        );
    }

    fn quarantined(history: impl Fn(&Digest) -> History, request: &Request) -> Verdict {
        let template = crate::template::json::at(request.object(), &["spec", "template"]).unwrap();
        let facts =
            Facts { history: Some(history(&Digest::of_template(template))), ..facts(crate::config::Guard::Enforce) };
        judge(&one("deny contains \"never\" if input.x"), request, &facts, &crate::config::Config::default())
    }

    fn entry(digest: &Digest, until: Option<&str>) -> Quarantined {
        Quarantined {
            digest: digest.clone(),
            version: Some("2.4.0".into()),
            at: "2026-11-22T15:02:00Z".parse().unwrap(),
            until: until.map(|until| until.parse().unwrap()),
            evidence: "version 2.4.0 failed 12 of 30 probes in 41 s, the budget is 10: readiness of container \"model\", HTTP 503".into(),
        }
    }

    fn history(digest: &Digest) -> History {
        let last_good = LastGood { digest: digest.clone(), version: Some("2.3.1".into()), at: now() };
        History { last_good: Some(last_good), quarantine: vec![entry(digest, None)], ..History::default() }
    }

    #[test]
    fn quarantine_says_why_what_runs_and_the_way_out() {
        let old = json(
            r#"{"metadata":{},"spec":{"template":{"metadata":{"labels":{"app.kubernetes.io/version":"2.3.1"}}}},
                "status":{"replicas":4,"readyReplicas":4}}"#,
        );
        let request = Request::update(old, deployment("", "", r#"{"name":"model"}"#), "shop");
        let verdict = quarantined(history, &request);
        assert!(verdict.used_facts && verdict.denied());
        assert_eq!(
            block(&request, &verdict, now()),
            r#"1 problem (quarantine); nothing was changed

  quarantine             this pod template was reverted at 2026-11-22T15:02:00Z
    why  version 2.4.0 failed 12 of 30 probes in 41 s, the budget is 10: readiness of container "model", HTTP 503
    now  version 2.3.1 is running, 4 of 4 pods ready
    fix  change the pod template (a new image is enough), or take the risk for a few hours, say why, and apply again:
         kubectl annotate deploy churn -n shop surefoot.dev/override="2026-11-22T18:00Z WHY" --overwrite"#
        );
        assert_eq!(
            line(&verdict.findings[0]),
            "[quarantine] this pod template was reverted at 2026-11-22T15:02:00Z: version 2.4.0 failed 12 of 30 probes in 41 s, \
             the budget is 10: readiness of container \"model\", HTTP 503"
        );
    }

    #[test]
    fn quarantine_holds_what_brings_or_grows_the_template() {
        let object = |spec: &str, metadata: &str| deployment(metadata, spec, r#"{"name":"model"}"#);
        let other = || deployment("", "", r#"{"name":"model","image":"other"}"#);
        let annotated = r#""annotations":{"surefoot.dev/override":"2026-11-22T17:16Z x"}"#;
        let two = r#""replicas":2"#;
        let rows = [
            ("created", Request::create(object("", ""), "shop"), Some(Level::Deny)),
            ("applied again", Request::update(other(), object("", ""), "shop"), Some(Level::Deny)),
            ("grown", Request::update(object("", ""), object(two, ""), "shop"), Some(Level::Deny)),
            ("shrunk", Request::update(object(two, ""), object("", ""), "shop"), None),
            ("annotated", Request::update(object("", ""), object("", r#""labels":{"a":"b"}"#), "shop"), None),
            ("overridden", Request::create(object("", annotated), "shop"), Some(Level::Warn)),
        ];
        for (what, request, level) in rows {
            let verdict = quarantined(history, &request);
            assert_eq!(verdict.findings.first().map(|finding| finding.level), level, "{what}");
        }
        let request = Request::create(object("", ""), "shop");
        for (until, held) in [("2026-11-22T15:16:01Z", true), ("2026-11-22T15:16:00Z", false)] {
            let history =
                |digest: &Digest| History { quarantine: vec![entry(digest, Some(until))], ..History::default() };
            assert_eq!(quarantined(history, &request).denied(), held);
        }
        let elsewhere = |_: &Digest| history(&Digest::of_template(&json("{}")));
        assert!(!quarantined(elsewhere, &request).denied());
    }

    #[test]
    fn a_broken_policy_names_itself() {
        let failure = Failure {
            policy: "resources".into(),
            file: "resources/policy.rego".into(),
            line: 12,
            column: 3,
            message: "divide by zero".into(),
            level: Level::Deny,
        };
        let verdict = Verdict { failures: vec![failure.clone()], ..Verdict::default() };
        assert_eq!(
            block(&request(), &verdict, now()),
            "1 problem (resources/broken); nothing was changed

  resources/broken       not your fault: this policy broke, so it cannot say yes
    why  divide by zero
    at   resources/policy.rego:12:3
    fix  tell who looks after the policies; if it cannot wait:
         metadata: {annotations: {surefoot.dev/override: \"2026-11-22T18:00Z WHY\"}}"
        );
        let scaled = block(&scale(), &verdict, now());
        let way_out =
            "kubectl annotate deploy churn -n shop surefoot.dev/override=\"2026-11-22T18:00Z WHY\" --overwrite";
        assert!(scaled.ends_with(way_out), "{scaled}");
        assert_eq!(
            failure_line(&failure),
            "[resources] not your fault: this policy broke at resources/policy.rego:12:3: divide by zero"
        );
    }

    #[test]
    fn twenty_findings_are_enough_for_one_person() {
        let findings = (0..25).map(|i| finding(&format!("p{i}/c"), "wrong", "", "")).collect();
        let text = block(&request(), &Verdict { findings, ..Verdict::default() }, now());
        assert!(
            text.starts_with("25 problems (p0/c, p1/c, p2/c, p3/c, p4/c, p5/c and 19 more); nothing was changed\n")
        );
        assert!(text.ends_with("\n  and 5 more: surefoot check FILE"), "{text}");
        assert!(text.contains("  p19/c  ") && !text.contains("  p20/c  "));
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_line_of_ascii(message in "(\\PC|[\\n\\t\\x00-\\x1f]|\u{202e}){0,400}", fix in "\\PC{0,80}", code in "\\PC{0,20}") {
            let found = Finding { level: Level::Warn, ..finding(&format!("p/{code}"), &message, "", &fix) };
            let text = line(&found);
            prop_assert!(text.len() <= LINE && text.chars().all(|c| (' '..='~').contains(&c)), "{}", text);
            let denied = Finding { level: Level::Deny, ..found.clone() };
            let verdict = Verdict { findings: vec![found, denied], ..Verdict::default() };
            let text = block(&request(), &verdict, now());
            prop_assert!(text.chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "{}", text);
            let answer = answer::validated(&request(), &verdict, now());
            prop_assert!(answer.warnings.iter().map(String::len).sum::<usize>() <= 4096);
        }
    }
}
