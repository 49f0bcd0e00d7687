//! The alert rules: each fires when it should and is quiet when all is well, by Prometheus' own promtool.

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use regex::Regex;
use serde_json::{Value, json};

use crate::{schema::top, support::kubectl::capture, trial};

pub(crate) fn trials() -> Vec<Trial> {
    let fire = "alerts::each_fires_when_provoked_and_only_then";
    let there = Command::new("promtool").arg("--version").output().is_ok();
    vec![
        trial("alerts::name_what_is_measured_and_are_explained", named),
        match there {
            true => trial(fire, fires),
            false => trial(&format!("{fire} [promtool is missing: Debian's package prometheus]"), fires)
                .with_ignored_flag(true),
        },
    ]
}

/// As they are shipped.
pub(crate) fn rules() -> Result<Value> {
    let text = fs::read_to_string(top("manifests/overlays/prometheus/alerts.yaml"))?;
    Ok(serde_saphyr::from_str::<Value>(&text)?["spec"].take())
}

pub(crate) fn each(rules: &Value) -> impl Iterator<Item = &Value> {
    rules["groups"][0]["rules"].as_array().into_iter().flatten()
}

/// Metrics as the programs register them, each alert in the table of what to do.
fn named() -> Result<()> {
    let document = fs::read_to_string(top("docs/operating.md"))?;
    let rules = rules()?;
    for rule in each(&rules) {
        are_measured(rule["expr"].as_str().context("no expression")?)?;
        let alert = rule["alert"].as_str().context("no name")?;
        ensure!(document.contains(&format!("`{alert}`")), "docs/operating.md does not say what to do about {alert}");
    }
    Ok(())
}

/// Each metric in `expression` is one that a program registers.
pub(crate) fn are_measured(expression: &str) -> Result<()> {
    let source = |file| fs::read_to_string(top(file));
    let (webhook, controller) = (source("src/telemetry.rs")?, source("src/telemetry/controller.rs")?);
    for found in Regex::new(r"surefoot_(controller_)?([a-z_]+)")?.captures_iter(expression) {
        let source = if found.get(1).is_some() { &controller } else { &webhook };
        let name = found[2].trim_end_matches("_total").trim_end_matches("_bucket");
        ensure!(source.contains(&format!("\"{name}\"")), "nobody measures {}", &found[0]);
    }
    Ok(())
}

/// Series that provoke each, and the labels that the alert has then besides its severity.
const PROVOKED: [(&str, &[&str], &str); 9] = [
    ("SurefootWebhookAbsent", &["surefoot_ready 0x60"], ""),
    (
        "SurefootNobodyLeads",
        &["surefoot_controller_leader{pod='a'} 0x60", "surefoot_controller_leader{pod='b'} 0x60"],
        "",
    ),
    ("SurefootCertificateEnds", &["surefoot_certificate_end_seconds 1000000x60"], ""),
    ("SurefootReloadRefused", &["surefoot_reload_refused{part='policies'} 1x60"], "part: policies"),
    (
        "SurefootPolicySetsDiffer",
        &["surefoot_policy_set_info{digest='a'} 1x60", "surefoot_policy_set_info{digest='b'} 1x60"],
        "",
    ),
    ("SurefootPolicyBreaks", &["surefoot_policy_failures_total{policy='mine'} 0+1x60"], "policy: mine"),
    ("SurefootRequestsWithoutVerdict", &["surefoot_refused_requests_total{reason='busy'} 0+1x60"], "reason: busy"),
    ("SurefootReverted", &["surefoot_controller_reverts_total{signal='readiness'} 0+1x60"], "signal: readiness"),
    ("SurefootStalled", &["surefoot_controller_stalls_total{reason='Paused'} 0+1x60"], "reason: Paused"),
];

/// All is well.
const QUIET: [&str; 9] = [
    "surefoot_ready 1x60",
    "surefoot_controller_leader{pod='a'} 1x60",
    "surefoot_certificate_end_seconds 20000000x60",
    "surefoot_reload_refused{part='policies'} 0x60",
    "surefoot_policy_set_info{digest='a',pod='a'} 1x60",
    "surefoot_policy_set_info{digest='a',pod='b'} 1x60",
    "surefoot_policy_failures_total{policy='mine'} 3x60",
    "surefoot_refused_requests_total{reason='busy'} 3x60",
    "surefoot_controller_reverts_total{signal='readiness'} 3x60",
];

fn fires() -> Result<()> {
    let rules = rules()?;
    let all: BTreeSet<_> = each(&rules).filter_map(|rule| rule["alert"].as_str()).collect();
    ensure!(all == PROVOKED.iter().map(|(alert, ..)| *alert).collect(), "{all:?}");
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("rules.yaml"), rules.to_string())?;
    let series = |lines: &[&str]| {
        let one =
            |line: &&str| line.rsplit_once(' ').map(|(series, values)| json!({"series": series, "values": values}));
        lines.iter().filter_map(one).collect::<Vec<_>>()
    };
    let mut tests = Vec::new();
    for (alert, lines, labels) in PROVOKED {
        let rule = each(&rules).find(|rule| rule["alert"] == alert).context("no rule")?;
        let mut wanted = json!({"severity": rule["labels"]["severity"]});
        let mut summary = rule["annotations"]["summary"].as_str().unwrap_or_default().to_owned();
        if let Some((label, value)) = labels.split_once(": ") {
            wanted[label] = json!(value);
            summary = summary.replace(&format!("{{{{ $labels.{label} }}}}"), value);
        }
        let alert_of = json!([{"exp_labels": wanted, "exp_annotations": {"summary": summary}}]);
        tests.push(json!({"interval": "1m", "name": alert, "input_series": series(lines), "alert_rule_test":
            [{"eval_time": "30m", "alertname": alert, "exp_alerts": alert_of}]}));
        tests.push(json!({"interval": "1m", "name": format!("{alert}, quiet"), "input_series": series(&QUIET), "alert_rule_test":
            [{"eval_time": "30m", "alertname": alert, "exp_alerts": []}]}));
    }
    let text = json!({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests});
    fs::write(folder.path().join("tests.yaml"), text.to_string())?;
    for args in [["check", "rules", "rules.yaml"], ["test", "rules", "tests.yaml"]] {
        let mut command = Command::new("promtool");
        command.args(args).current_dir(folder.path());
        capture(command, &format!("promtool {}", args.join(" ")), "")?.success()?;
    }
    Ok(())
}
