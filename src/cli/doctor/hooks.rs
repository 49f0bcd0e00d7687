//! The hooks and the policy beside them, held to the manifests of this program; and what the hooks trust.

use serde_json::{Value, json};

use super::{
    Level, Row, apply_again,
    seen::{Got, Seen, decoded, text},
};
use crate::{
    certificates::{self, Stored},
    template::keys,
};

/// What of a hook says when it is asked, and what becomes of a request that it cannot be asked about.
const FIELDS: [&str; 10] = [
    "failurePolicy",
    "namespaceSelector",
    "objectSelector",
    "rules",
    "matchConditions",
    "matchPolicy",
    "timeoutSeconds",
    "sideEffects",
    "reinvocationPolicy",
    "admissionReviewVersions",
];

pub(super) fn rows(seen: &Seen, base: &[Value]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (plural, list) in seen.configurations() {
        match (list, Seen::ours(list)) {
            (Err(why), _) => rows.push(Row::new(Level::Skip, "hooks", why, "")),
            (_, None) => rows.push(Row::new(
                Level::Fail,
                "hooks",
                format!("{plural}/surefoot is missing, so nothing that it asks about is judged"),
                apply_again(seen),
            )),
            (_, Some(found)) => {
                let wanted = base.iter().find(|object| kind_of(object) == plural).map(|object| &object["webhooks"]);
                rows.extend(drift(seen, wanted.unwrap_or(&Value::Null), &found["webhooks"]));
                rows.extend(owned(seen, plural, found));
            }
        }
    }
    rows.extend(bounds(seen, base));
    if rows.is_empty() {
        rows.push(Row::ok("hooks", "as in the manifests of this version, with the policy that bounds the controller"));
    }
    rows.extend(certificate(seen));
    rows
}

fn kind_of(object: &Value) -> String {
    format!("{}s", text(&object["kind"]).to_lowercase())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn drift(seen: &Seen, wanted: &Value, found: &Value) -> Vec<Row> {
    let mut rows = Vec::new();
    for hook in list(wanted) {
        let name = text(&hook["name"]);
        let Some(there) = list(found).find(|one| one["name"] == hook["name"]) else {
            rows.push(Row::new(Level::Fail, "hooks", format!("{name} is missing"), apply_again(seen)));
            continue;
        };
        // Absent and empty are the same to the API server.
        let plain = |value: &Value| if *value == json!({}) { Value::Null } else { value.clone() };
        for field in FIELDS.into_iter().filter(|field| plain(&hook[field]) != plain(&there[field])) {
            let (level, what) = meaning(field, &hook[field], &there[field]);
            rows.push(Row::new(level, "hooks", format!("{name} {what}"), apply_again(seen)));
        }
    }
    let known = |hook: &&Value| !list(wanted).any(|one| one["name"] == hook["name"]);
    rows.extend(list(found).filter(known).map(|hook| {
        let what = format!("{} is none of this version's: it is of another version, or of somebody else", hook["name"]);
        Row::new(Level::Warn, "hooks", what, apply_again(seen))
    }));
    rows
}

/// What it means that a field is not as it should be.
fn meaning(field: &str, wanted: &Value, found: &Value) -> (Level, String) {
    let (want, is) = (plainly(wanted), plainly(found));
    match (field, is.as_str()) {
        ("failurePolicy", "Ignore") => (
            Level::Fail,
            format!("has failurePolicy Ignore, not {want}: what it would refuse passes while no webhook answers"),
        ),
        ("failurePolicy", _) => (
            Level::Fail,
            format!(
                "has failurePolicy {is}, not {want}: autoscalers and pipelines stand still while no webhook answers"
            ),
        ),
        ("namespaceSelector" | "objectSelector" | "rules" | "matchConditions", _) => (
            Level::Fail,
            format!("has {field} unlike the manifests of this version: it asks about too much, or too little"),
        ),
        _ => (Level::Warn, format!("has {field} {is}, not {want}")),
    }
}

fn plainly(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Hooks that would stay when the namespace goes refuse what they cannot ask about.
fn owned(seen: &Seen, plural: &str, object: &Value) -> Option<Row> {
    let uid = &seen.namespace(&seen.own)?["metadata"]["uid"];
    let mine = list(&object["metadata"]["ownerReferences"]).any(|owner| owner["uid"] == *uid);
    let inside = seen.url().is_none();
    (inside && !mine).then(|| {
        Row::new(
            Level::Warn,
            "hooks",
            format!("{plural}/surefoot does not belong to the namespace {}, so it would stay when that is deleted; the controller sees to it", seen.own),
            logs(&seen.own, "controller"),
        )
    })
}

pub(super) fn logs(own: &str, part: &str) -> String {
    format!("kubectl logs -n {own} deploy/surefoot-{part}")
}

/// The ValidatingAdmissionPolicy and its binding.
fn bounds(seen: &Seen, base: &[Value]) -> Vec<Row> {
    let mut rows = Vec::new();
    let both: [(&str, &Got); 2] =
        [("ValidatingAdmissionPolicy", &seen.bounds), ("ValidatingAdmissionPolicyBinding", &seen.binding)];
    for (kind, got) in both {
        let wanted = base.iter().find(|object| object["kind"] == kind).map_or(&Value::Null, |object| &object["spec"]);
        let wrong = match got {
            Err(why) => {
                rows.push(Row::new(Level::Skip, "hooks", why, ""));
                continue;
            }
            Ok(Value::Null) => "is missing",
            Ok(found) if !within(wanted, &found["spec"]) => "is not as in the manifests of this version",
            Ok(_) => continue,
        };
        let what =
            format!("{kind} bounds.surefoot.dev {wrong}: nothing bounds who sets overrides, or the controller's token");
        rows.push(Row::new(Level::Fail, "hooks", what, apply_again(seen)));
    }
    rows
}

/// Whether all that is wanted is there; the API server adds its defaults.
fn within(wanted: &Value, found: &Value) -> bool {
    match (wanted, found) {
        (Value::Object(wanted), Value::Object(found)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|there| within(value, there)))
        }
        (Value::Array(wanted), Value::Array(found)) => {
            wanted.len() == found.len() && wanted.iter().zip(found).all(|(wanted, found)| within(wanted, found))
        }
        _ => wanted == found,
    }
}

const CERTIFICATE: &str = "certificate";

fn certificate(seen: &Seen) -> Vec<Row> {
    let hooks: Vec<(String, Vec<u8>)> = seen
        .configurations()
        .into_iter()
        .filter_map(|(_, list)| Seen::ours(list))
        .flat_map(|object| list(&object["webhooks"]))
        .map(|hook| (text(&hook["name"]), decoded(&hook["clientConfig"]["caBundle"])))
        .collect();
    let fix = match seen.url() {
        Some(_) => apply_again(seen),
        None => format!("the controller writes it within seconds: {}", logs(&seen.own, "controller")),
    };
    let mut rows = Vec::new();
    let (cert, key, ca) = (seen.file("tls.crt"), seen.file("tls.key"), seen.file("ca.crt"));
    let name = &certificates::service_names(&seen.own, keys::WEBHOOK_ACCOUNT)[0];
    let inside = seen.url().is_none() && !hooks.is_empty();
    let pair = Stored { ca: &ca, cert: &cert, key: &key };
    let stored = match &seen.secret {
        _ if !inside => None,
        Err(why) => {
            rows.push(Row::new(Level::Skip, CERTIFICATE, why, ""));
            None
        }
        Ok(Value::Null) => {
            let what = format!("the Secret {} is missing, so webhook pods cannot start", super::seen::SECRET);
            rows.push(Row::new(
                Level::Fail,
                CERTIFICATE,
                what,
                format!("the controller makes it: {}", logs(&seen.own, "controller")),
            ));
            None
        }
        Ok(_) => Some(certificates::due(pair, name, seen.now)),
    };
    if let Some(Err(wrong)) = &stored {
        let what = format!("the Secret {} is of no use: {wrong}", super::seen::SECRET);
        rows.push(Row::new(
            Level::Fail,
            CERTIFICATE,
            what,
            format!("the controller makes another: {}", logs(&seen.own, "controller")),
        ));
    }
    if let Some(Ok(due)) = &stored
        && *due < seen.now
    {
        let what = "two thirds of its life are over and nobody has made the next";
        rows.push(Row::new(Level::Warn, CERTIFICATE, what, logs(&seen.own, "controller")));
    }
    for (hook, bundle) in &hooks {
        let until = certificates::until(bundle);
        let wrong = if bundle.is_empty() {
            Some("is empty, so no API server trusts the webhook".to_owned())
        } else if until.is_none_or(|until| until <= seen.now) {
            Some("holds no certificate that is still valid".to_owned())
        } else if let Some(Ok(_)) = &stored {
            certificates::due(Stored { ca: bundle, ..pair }, name, seen.now)
                .err()
                .map(|_| format!("is stale: it does not trust the certificate in the Secret {}", super::seen::SECRET))
        } else {
            None
        };
        rows.extend(
            wrong.map(|wrong| {
                Row::new(Level::Fail, CERTIFICATE, format!("the caBundle of {hook} {wrong}"), fix.clone())
            }),
        );
    }
    if rows.is_empty() && !hooks.is_empty() {
        let until = if inside {
            certificates::until(&cert)
        } else {
            hooks.iter().filter_map(|(_, bundle)| certificates::until(bundle)).min()
        };
        let days = until.map_or(0, |until| until.duration_since(seen.now).as_hours() / 24);
        let what = if inside {
            "trusted by the webhook configurations"
        } else {
            "the CA that the webhook configurations trust"
        };
        rows.push(Row::ok(CERTIFICATE, format!("{what}, {days} days left")));
    }
    rows
}
