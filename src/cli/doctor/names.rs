//! What is in the cluster besides: guarded namespaces, other webhooks, what an uninstall left, records that nobody can read.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Level, Row,
    seen::{HOOKS, Seen, items, text},
};
use crate::{cli::plural, cluster::records::Records, config::Guard, template::keys};

/// All there is to say where surefoot is not, or no longer, installed; `None` where it is.
pub(super) fn absent(seen: &Seen) -> Option<Vec<Row>> {
    if seen.namespaces.is_err()
        || seen.namespace(&seen.own).is_some_and(|own| own["metadata"]["deletionTimestamp"].is_null())
    {
        return None;
    }
    const AREA: &str = "install";
    let mut rows = Vec::new();
    let going = seen.namespace(&seen.own).is_some();
    if going {
        let fix = format!("wait for it, or see what holds it: kubectl describe namespace {}", seen.own);
        rows.push(Row::new(Level::Fail, AREA, format!("namespace {} is being deleted", seen.own), fix));
    }
    let hooks: Vec<_> = seen
        .configurations()
        .into_iter()
        .filter(|(_, list)| Seen::ours(list).is_some())
        .map(|(plural, _)| plural)
        .collect();
    if !hooks.is_empty() && !going {
        let what = format!(
            "hooks without the namespace {}: they ask nobody, so changes in guarded namespaces are refused",
            seen.own
        );
        rows.push(Row::new(Level::Fail, AREA, what, format!("kubectl delete {} {HOOKS}", hooks.join(","))));
    }
    let mut left: Vec<String> =
        items(&seen.roles).map(|role| format!("clusterrole/{}", text(&role["metadata"]["name"]))).collect();
    let bounds = [("validatingadmissionpolicy", &seen.bounds), ("validatingadmissionpolicybinding", &seen.binding)];
    left.extend(
        bounds
            .iter()
            .filter(|(_, got)| got.as_ref().is_ok_and(|got| !got.is_null()))
            .map(|(kind, _)| format!("{kind}/bounds.surefoot.dev")),
    );
    if !left.is_empty() && !going {
        let what = format!("{} of an uninstall", plural(left.len(), "left-over"));
        rows.push(Row::new(Level::Warn, AREA, what, format!("kubectl delete {}", left.join(" "))));
    }
    if rows.is_empty() {
        rows.push(Row::new(
            Level::Fail,
            AREA,
            format!("not installed: there is no namespace {}", seen.own),
            "surefoot manifests | kubectl apply -f -",
        ));
    }
    Some(rows)
}

pub(super) fn rows(seen: &Seen) -> Vec<Row> {
    [guards(seen), others(seen)].concat()
}

fn guards(seen: &Seen) -> Vec<Row> {
    const AREA: &str = "guard";
    let mut rows = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for namespace in items(&seen.namespaces) {
        let name = text(&namespace["metadata"]["name"]);
        let Some(label) = namespace["metadata"]["labels"][keys::GUARD].as_str() else { continue };
        if name == "kube-system" || name == seen.own {
            let what =
                format!("{name} has the label {}, which does nothing: surefoot keeps its hands off it", keys::GUARD);
            rows.push(Row::new(Level::Warn, AREA, what, format!("kubectl label ns {name} {}-", keys::GUARD)));
            continue;
        }
        let guard = label.parse::<Guard>();
        if guard.is_err() {
            let what = format!("{name} has the unknown guard \"{label}\", which counts as warn");
            rows.push(Row::new(
                Level::Warn,
                AREA,
                what,
                format!("kubectl label ns {name} --overwrite {}=warn", keys::GUARD),
            ));
        }
        *counts.entry(if guard.is_ok() { label } else { "warn" }).or_default() += 1;
    }
    if counts.is_empty() {
        rows.push(Row::new(
            Level::Warn,
            AREA,
            "no namespace is guarded",
            format!("kubectl label ns NAMESPACE {}=audit", keys::GUARD),
        ));
    } else {
        let all: Vec<_> = counts.iter().map(|(guard, count)| format!("{count} on {guard}")).collect();
        let total: usize = counts.values().sum();
        rows.push(Row::ok(AREA, format!("{} guarded, {}", plural(total, "namespace"), all.join(", "))));
    }
    rows
}

/// Other webhooks that are asked about Deployments; another surefoot among them.
fn others(seen: &Seen) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut shared = Vec::new();
    for (plural, list) in seen.configurations() {
        for object in items(list).filter(|object| object["metadata"]["name"] != HOOKS) {
            let name = text(&object["metadata"]["name"]);
            let hooks = object["webhooks"].as_array().map_or(&[][..], Vec::as_slice);
            if hooks.iter().any(|hook| text(&hook["name"]).ends_with(".surefoot.dev")) {
                let what = format!("{plural}/{name} is a second surefoot: each Deployment is judged twice");
                rows.push(Row::new(Level::Fail, "others", what, format!("kubectl delete {plural} {name}")));
            } else if hooks.iter().any(asked_about_deployments) {
                shared.push(format!("{plural}/{name}"));
            }
        }
    }
    if !shared.is_empty() {
        let what = format!("asked about Deployments, too: {}", shared.join(", "));
        rows.push(Row::new(Level::Note, "others", what, ""));
    }
    rows
}

fn asked_about_deployments(hook: &Value) -> bool {
    let names = |list: &Value, known: &[&str]| {
        list.as_array().into_iter().flatten().filter_map(Value::as_str).any(|one| known.contains(&one))
    };
    hook["rules"].as_array().into_iter().flatten().any(|rule| {
        names(&rule["apiGroups"], &["apps", "*"])
            && names(&rule["resources"], &["deployments", "deployments/*", "*", "*/*"])
            && names(&rule["operations"], &["CREATE", "UPDATE", "*"])
    })
}

/// Records that cannot be read: the rollouts they are of are left alone.
pub(super) async fn records(records: &Records) -> Vec<Row> {
    const AREA: &str = "records";
    match records.list(None).await {
        Err(error) => vec![Row::new(Level::Skip, AREA, error.to_string(), "")],
        Ok(all) => {
            let wrong = all.into_iter().filter_map(|(namespace, name, found)| Some((namespace, name, found.err()?)));
            wrong
                .map(|(namespace, name, error)| Row::new(Level::Fail, AREA, format!("{namespace}/{name}: {error}"), ""))
                .collect()
        }
    }
}
