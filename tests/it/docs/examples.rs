//! What is shown in `docs/messages.md`: for each code something that the program really says, of the cases and, where a
//! file cannot bring it about, of a review and facts that are made here.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use surefoot::{
    admission::{
        Facts, History, Isolation, LastGood, Level, PolicySet, Quarantined, Request, Source, Unsettled, Verdict,
        message, notation, validate,
    },
    config::{Config, Guard},
    rollout::record::{Evidence, Signal},
    template::{Digest, Json, json::at},
};

use super::{json as said, list, named, plain, sorted};
use crate::{check, schema::top};

/// By `POLICY/CODE`: what was said, as a denial shows it below its first line.
pub(super) type Examples = BTreeMap<String, Example>;

/// One thing that was really said.
pub(super) struct Example {
    /// `refused`, or `warned of`.
    pub(super) verb: &'static str,
    pub(super) text: String,
}

impl Example {
    fn of_finding(level: &str, message: &str, place: &str, fix: &str) -> Self {
        let line = |label: &str, value: &str| match value {
            "" => String::new(),
            _ => format!("\n  {label:3}  {value}"),
        };
        let verb = if level == "deny" { "refused" } else { "warned of" };
        Self { verb, text: format!("{message}{}{}", line("at", place), line("fix", fix)) }
    }
}

/// All of them.
pub(super) fn all() -> Result<Examples> {
    let mut found = of_cases()?;
    let shipped = PolicySet::load(PolicySet::built_in_sources(), &Config::default())?;
    add(&mut found, &asked(&shipped, &Request::of_namespace("shop", None), of_bare_namespace()));
    let update = update()?;
    add(&mut found, &asked(&shipped, &update, within_a_rollout()?));
    found.extend(native(&shipped, &update)?);
    Ok(found)
}

/// The first example of each code in the cases; each file on its own, because files given together are peers.
fn of_cases() -> Result<Examples> {
    let mut found = Examples::new();
    for folder in sorted(&top("tests/cases"))? {
        for case in sorted(&folder)?.iter().filter(|case| !named(case).starts_with("allow")) {
            let report = said(&["check", "-o", "json", case.to_str().context("an odd path")?])?;
            for finding in list(&report["objects"]).flat_map(|object| list(&object["findings"])) {
                let text = |key: &str| plain(&finding[key]);
                let example =
                    Example::of_finding(&text("level"), &text("message"), &notation(&text("path")), &text("fix"));
                found.entry(format!("{}/{}", text("policy"), text("code"))).or_insert(example);
            }
        }
    }
    Ok(found)
}

fn add(examples: &mut Examples, verdict: &Verdict) {
    for finding in &verdict.findings {
        let level = if finding.level == Level::Deny { "deny" } else { "warn" };
        let example = Example::of_finding(level, &finding.message, &notation(&finding.path), &finding.fix);
        examples.entry(finding.name()).or_insert(example);
    }
}

fn asked(set: &PolicySet, request: &Request, facts: Facts) -> Verdict {
    let facts = Facts { guard: Some(Guard::Enforce), ..facts };
    validate(set, request, &facts, &Config::default(), now(), Duration::from_secs(10))
}

/// A namespace in which nothing keeps the teams apart.
fn of_bare_namespace() -> Facts {
    Facts { isolation: Some(Isolation::default()), ..Facts::default() }
}

/// The rollout of another template began three minutes ago.
fn within_a_rollout() -> Result<Facts> {
    let rollout = Unsettled {
        digest: Digest::of_template(&Json::new_object()),
        version: Some("2.3.2".to_owned()),
        since: "2026-11-22T15:13:00Z".parse()?,
        failing: false,
    };
    Ok(Facts { history: Some(History { rollout: Some(rollout), ..History::default() }), ..Facts::default() })
}

/// Findings that come from no policy, by the name that `explain` has for them.
fn native(shipped: &PolicySet, update: &Request) -> Result<Examples> {
    let mut found = Examples::new();
    let mut insert = |name: &str, text: String| found.insert(name.to_owned(), Example { verb: "refused", text });
    insert("broken", broken(update)?);
    insert("quarantine", quarantined(shipped, update)?);
    insert("kubernetes/invalid", of_check("replicas: 4", "replicas: -4", "kubernetes/invalid")?);
    insert("kubernetes/unknown-field", of_check("readinessProbe:", "readynessProbe:", "kubernetes/unknown-field")?);
    Ok(found)
}

/// By a policy that takes the name of a team for a number.
fn broken(request: &Request) -> Result<String> {
    let policy = "package surefoot.owner\n\n\
                  deny contains \"the team has no number\" if to_number(input.request.object.metadata.labels.team) < 1\n";
    let source = Source { path: "owner/policy.rego".to_owned(), text: policy.to_owned() };
    let set = PolicySet::load(vec![source], &Config::default())?;
    Ok(message::block(request, &asked(&set, request, Facts::default()), now()))
}

/// The template that the request brings was reverted 14 minutes ago.
fn quarantined(shipped: &PolicySet, request: &Request) -> Result<String> {
    let digest = Digest::of_template(at(request.object(), &["spec", "template"]).context("no template")?);
    let evidence = Evidence {
        failures: 12,
        attempts: 30,
        budget: 10,
        since: "2026-11-22T15:01:19Z".parse()?,
        until: "2026-11-22T15:02:00Z".parse()?,
        container: "model".to_owned(),
        signal: Signal::Readiness,
        message: "HTTP 503".to_owned(),
        pods: Vec::new(),
        nodes: Vec::new(),
    };
    let version = Some("2.4.0".to_owned());
    let evidence = evidence.sentence(version.as_deref());
    let entry = Quarantined { digest, version, at: "2026-11-22T15:02:00Z".parse()?, until: None, evidence };
    let last_good = LastGood {
        digest: Digest::of_template(&Json::new_object()),
        version: Some("2.3.1".to_owned()),
        at: "2026-11-16T09:00:00Z".parse()?,
    };
    let history = History { last_good: Some(last_good), quarantine: vec![entry], ..History::default() };
    let facts = Facts { history: Some(history), ..Facts::default() };
    Ok(message::block(request, &asked(shipped, request, facts), now()))
}

/// What `surefoot check` prints of the file of the demo with something in it changed, up to the first empty line.
fn of_check(good: &str, bad: &str, code: &str) -> Result<String> {
    let text = fs::read_to_string(top("demo/shop/digits.yaml"))?;
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("digits.yaml"), text.replacen(good, bad, 1))?;
    let printed = check::surefoot(folder.path(), &["check", "digits.yaml"], "")?.stdout;
    let block = printed.split("\n\n").find(|block| block.contains(code));
    Ok(block.with_context(|| format!("no {code} in\n{printed}"))?.trim_end().to_owned())
}

/// An apply of version 2.4.0 where 2.3.1 runs: the review of the benchmarks, with what they leave out.
fn update() -> Result<Request> {
    let review: Value = serde_json::from_slice(&fs::read(top("benches/reviews/create.json"))?)?;
    let object = &review["request"]["object"];
    let mut old = object.clone();
    for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
        let labels = old.pointer_mut(labels).with_context(|| format!("no {labels}"))?;
        labels["app.kubernetes.io/version"] = "2.3.1".into();
    }
    let image = old.pointer_mut("/spec/template/spec/containers/0/image").context("no image")?;
    *image = plain(image).replace("2.4.0", "2.3.1").into();
    old["status"] = json!({"replicas": 4, "readyReplicas": 4});
    ensure!(old["spec"]["template"] != object["spec"]["template"], "the templates are the same");
    Ok(Request::update(Json::from(old), Json::from(object.clone()), "shop"))
}

/// What is shown has this time in it.
fn now() -> Timestamp {
    "2026-11-22T15:16:00Z".parse().unwrap_or_default()
}
