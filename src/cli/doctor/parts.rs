//! What runs: webhook and controller, what they say of themselves, and their configuration.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Level, Row, apply_again,
    hooks::logs,
    seen::{Seen, items, ready, text},
};
use crate::{admission::PolicySet, cli::plural, config::Config, template::keys};

pub(super) fn rows(seen: &Seen) -> Vec<Row> {
    let mut rows = match seen.url() {
        Some(url) => vec![Row::ok("webhook", format!("runs beside the cluster, at {url}"))],
        None => [webhook(seen), images(seen), configuration(seen)].concat(),
    };
    rows.extend(controller(seen));
    rows
}

/// Ready replicas of those that are wanted, or why there is nothing to tell.
fn replicas(seen: &Seen, part: &'static str) -> Result<(u64, u64), Row> {
    let name = format!("surefoot-{part}");
    if let Err(why) = &seen.deployments {
        return Err(Row::new(Level::Skip, part, why, ""));
    }
    let Some(found) = items(&seen.deployments).find(|object| object["metadata"]["name"] == name.as_str()) else {
        return Err(Row::new(Level::Fail, part, format!("Deployment {name} is missing"), apply_again(seen)));
    };
    let wanted = found["spec"]["replicas"].as_u64().unwrap_or(1);
    Ok((found["status"]["readyReplicas"].as_u64().unwrap_or(0), wanted))
}

fn webhook(seen: &Seen) -> Vec<Row> {
    let (ready, wanted) = match replicas(seen, "webhook") {
        Ok(found) => found,
        Err(row) => return vec![row],
    };
    let mut rows = Vec::new();
    let endpoints = items(&seen.slices).flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let served = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false).count();
    if ready == 0 {
        let fix = format!("kubectl describe pods -n {} -l app.kubernetes.io/component=webhook", seen.own);
        rows.push(Row::new(
            Level::Fail,
            "webhook",
            format!("0 of {wanted} ready: changes in guarded namespaces are refused"),
            fix,
        ));
    } else if served == 0 && seen.slices.is_ok() {
        let what =
            format!("the Service {} leads to no pod, though {ready} of {wanted} are ready", keys::WEBHOOK_ACCOUNT);
        rows.push(Row::new(Level::Fail, "webhook", what, apply_again(seen)));
    } else if ready < wanted {
        let fix = format!("kubectl get pods -n {}", seen.own);
        rows.push(Row::new(Level::Warn, "webhook", format!("{ready} of {wanted} ready"), fix));
    }
    let mut sets: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (pod, said) in &seen.said {
        match said {
            Err(why) => rows.push(Row::new(Level::Skip, "webhook", format!("{pod} cannot be asked: {why}"), "")),
            Ok(said) => {
                let policies = said.lines().find_map(|line| line.strip_prefix("policies")).unwrap_or_default();
                sets.entry(policies.trim().to_owned()).or_default().push(pod);
                rows.extend(refused(said).into_iter().map(|what| {
                    Row::new(
                        Level::Fail,
                        "webhook",
                        format!("{pod} goes on with what it had: {what}"),
                        "mend that; it is read again by itself",
                    )
                }));
            }
        }
    }
    if sets.len() > 1 {
        let all: Vec<_> = sets.iter().map(|(set, pods)| format!("{set} ({})", pods.join(", "))).collect();
        let what = format!("replicas judge by different policies: {}", all.join("; "));
        rows.push(Row::new(
            Level::Warn,
            "webhook",
            what,
            format!("right while a change spreads, a minute at most; then: {}", logs(&seen.own, "webhook")),
        ));
    }
    if rows.is_empty() {
        let policies = sets.keys().next().and_then(|said| said.split_once(" in set "));
        let set = policies.map_or_else(String::new, |(count, set)| {
            format!(", one policy set ({}), {count} policies", set.chars().take(12).collect::<String>())
        });
        rows.push(Row::ok("webhook", format!("{ready} of {wanted} ready{set}")));
    }
    rows
}

/// What a webhook says that it has not taken: part and reason.
fn refused(said: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut open = false;
    for line in said.lines() {
        if let Some(rest) = line.strip_prefix("refused ") {
            all.push(rest.split("; ").next().unwrap_or(rest).trim().to_owned() + ":");
            open = true;
        } else if let Some(last) = all.last_mut().filter(|_| open && line.starts_with("     ")) {
            last.push(' ');
            last.push_str(line.trim());
        } else {
            open = false;
        }
    }
    all
}

/// Two versions at once.
fn images(seen: &Seen) -> Vec<Row> {
    let all: BTreeSet<String> =
        items(&seen.pods).filter(|pod| ready(pod)).map(|pod| text(&pod["spec"]["containers"][0]["image"])).collect();
    if all.len() < 2 {
        return Vec::new();
    }
    let what = format!("two versions at once: {}", all.into_iter().collect::<Vec<_>>().join(", "));
    let fix = format!("right during an upgrade; then: kubectl rollout status -n {} deploy/surefoot-webhook", seen.own);
    vec![Row::new(Level::Warn, "webhook", what, fix)]
}

const CONTROLLER: &str = "controller";

fn controller(seen: &Seen) -> Vec<Row> {
    let mut rows = Vec::new();
    if seen.url().is_none() {
        match replicas(seen, CONTROLLER) {
            Err(row) => rows.push(row),
            Ok((ready, wanted)) if ready < wanted => {
                let level = if ready == 0 { Level::Fail } else { Level::Warn };
                let fix = format!("kubectl describe pods -n {} -l app.kubernetes.io/component=controller", seen.own);
                rows.push(Row::new(level, CONTROLLER, format!("{ready} of {wanted} ready"), fix));
            }
            Ok(_) => {}
        }
    }
    rows.push(leader(seen));
    // One that leads says all there is to say.
    let wrong = rows.iter().any(|row| row.level != Level::Ok);
    rows.retain(|row| !wrong || row.level != Level::Ok);
    rows
}

fn leader(seen: &Seen) -> Row {
    let fix = match seen.url() {
        Some(_) => "start surefoot controller".to_owned(),
        None => logs(&seen.own, CONTROLLER),
    };
    let spec = match &seen.lease {
        Err(why) => return Row::new(Level::Skip, CONTROLLER, why, ""),
        Ok(lease) => &lease["spec"],
    };
    let holder = text(&spec["holderIdentity"]);
    let renewed = spec["renewTime"].as_str().and_then(|time| time.parse::<Timestamp>().ok());
    let (false, Some(renewed)) = (holder.is_empty(), renewed) else {
        return Row::new(Level::Fail, CONTROLLER, "nobody leads, so nothing is reverted", fix);
    };
    let age = seen.now.duration_since(renewed).as_secs().max(0);
    let valid = spec["leaseDurationSeconds"].as_i64().unwrap_or(15);
    if age > valid {
        let what =
            format!("{holder} has not renewed its lease for {age} s, it was good for {valid} s: nothing is reverted");
        return Row::new(Level::Fail, CONTROLLER, what, fix);
    }
    Row::ok(CONTROLLER, format!("leader {holder}, lease {age} s old"))
}

/// What the ConfigMap says by now; pods go on with what they had where it is wrong, and do not start with it.
fn configuration(seen: &Seen) -> Vec<Row> {
    const AREA: &str = "configuration";
    let fix = || format!("kubectl edit configmap surefoot-config -n {}", seen.own);
    let wrong = |what: String| {
        Row::new(
            Level::Fail,
            AREA,
            format!("ConfigMap surefoot-config, {what}: what was there before counts until a pod restarts"),
            fix(),
        )
    };
    let text = match &seen.config {
        Err(why) => return vec![Row::new(Level::Skip, AREA, why, "")],
        Ok(Value::Null) => {
            return vec![Row::new(
                Level::Fail,
                AREA,
                "ConfigMap surefoot-config is missing, so no pod can start",
                apply_again(seen),
            )];
        }
        Ok(found) => match found["data"]["config.yaml"].as_str() {
            Some(text) => text,
            None => return vec![wrong("it has no key config.yaml".to_owned())],
        },
    };
    let config = match Config::parse(text, "config.yaml") {
        Ok(config) => config,
        Err(error) => return vec![wrong(place(&error.file, error.line, error.column, &error.message))],
    };
    let mut rows: Vec<Row> =
        config.ended(seen.now).into_iter().map(|ended| Row::new(Level::Warn, AREA, ended, fix())).collect();
    // Other policies have other parameters; whoever runs them says so in their own words.
    let own_policies =
        items(&seen.deployments).any(|object| object["spec"]["template"].to_string().contains("--policies"));
    if !own_policies && let Err(errors) = PolicySet::load(built_in(), &config) {
        rows.extend(
            errors.0.into_iter().map(|error| wrong(place(&error.file, error.line, error.column, &error.message))),
        );
    }
    if rows.is_empty() {
        let count = config.exemptions.len();
        let exemptions = if count == 0 { "no exemptions".to_owned() } else { plural(count, "exemption") };
        rows.push(Row::ok(AREA, format!("loads, {exemptions}")));
    }
    rows
}

fn built_in() -> Vec<crate::admission::Source> {
    PolicySet::built_in_sources().into_iter().filter(|source| !source.path.ends_with("_test.rego")).collect()
}

fn place(file: &str, line: u32, column: u32, message: &str) -> String {
    if line == 0 { format!("{file}: {message}") } else { format!("{file}:{line}:{column}: {message}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(said: &[(&str, &str)]) -> Seen {
        let list = |items: Value| Ok(serde_json::json!({"items": items}));
        let none = || Ok(Value::Null);
        let webhook = serde_json::json!([{"metadata": {"name": "surefoot-webhook"}, "spec": {"replicas": 2}, "status": {"readyReplicas": 2}}]);
        Seen {
            own: "own".to_owned(),
            now: Timestamp::UNIX_EPOCH,
            namespaces: none(),
            mutating: none(),
            validating: none(),
            bounds: none(),
            binding: none(),
            roles: none(),
            deployments: list(webhook),
            pods: none(),
            slices: list(serde_json::json!([{"endpoints": [{}]}])),
            secret: none(),
            lease: none(),
            config: none(),
            said: said.iter().map(|(pod, said)| ((*pod).to_owned(), Ok((*said).to_owned()))).collect(),
        }
    }

    #[test]
    fn replicas_that_judge_by_different_policies_are_named() {
        let (old, new) = ("policies     8 in set 4f1c9a\nok\n", "policies     9 in set 77aa00\nok\n");
        let rows = webhook(&running(&[("a", old), ("b", old)]));
        assert_eq!(rows, [Row::ok("webhook", "2 of 2 ready, one policy set (4f1c9a), 8 policies")]);
        let rows = webhook(&running(&[("a", old), ("b", new)]));
        let want = "replicas judge by different policies: 8 in set 4f1c9a (a); 9 in set 77aa00 (b)";
        assert_eq!((rows.len(), rows[0].level, rows[0].message.as_str()), (1, Level::Warn, want));
    }

    #[test]
    fn what_a_webhook_has_not_taken_is_read_from_what_it_says() {
        let said = "policies     8 in set 4f1c\nfacts        synced\nrefused      policies, since 2026-11-22T12:00:00Z; what was \
                    there before counts:\n             config.yaml:3:1: no such field\n             more\nok\n";
        assert_eq!(refused(said), ["policies, since 2026-11-22T12:00:00Z: config.yaml:3:1: no such field more"]);
        assert!(refused("policies     8 in set 4f1c\nok\n").is_empty());
    }
}
