//! What the API server refuses of a Deployment that decodes: the rules that people meet, as `ValidateDeployment` of
//! Kubernetes has them. What it alone can know (quotas, other webhooks) is absent, and so is what `resources` finds.

use std::collections::BTreeMap;

use super::{decode::fault, probes, resources};
use crate::{
    admission::Finding,
    template::{Json, json},
};

const TEMPLATE: [&str; 2] = ["spec", "template"];

/// Everything of this kind that is wrong with `object`.
pub(super) fn faults(object: &Json) -> Vec<Finding> {
    let mut found = Vec::new();
    found.extend(name(object));
    found.extend(numbers(object));
    found.extend(selector(object));
    found.extend(strategy(object));
    for path in [&["metadata", "labels"][..], &["spec", "template", "metadata", "labels"]] {
        found.extend(labels(object, path));
    }
    found.extend(pod(object));
    found
}

fn name(object: &Json) -> Option<Finding> {
    let text = |key| json::str_at(object, &["metadata", key]).filter(|text| !text.is_empty());
    match (text("name"), text("generateName")) {
        (None, None) => Some(fault("/metadata/name", "the Deployment has no name".to_owned(), "name: churn")),
        (Some(name), _) if !is_subdomain(name) => {
            let message = format!("`{name}` is no name for a Deployment");
            Some(fault(
                "/metadata/name",
                message,
                "lower case letters, digits, `-` and `.`, a letter or digit at both ends",
            ))
        }
        _ => None,
    }
}

fn numbers(object: &Json) -> Vec<Finding> {
    let number = |key| json::int_at(object, &["spec", key]);
    let mut found = Vec::new();
    for key in ["replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        if let Some(value) = number(key).filter(|value| *value < 0) {
            found.push(fault(&format!("/spec/{key}"), format!("{key} is {value}; it cannot be negative"), ""));
        }
    }
    let (ready, deadline) = (number("minReadySeconds").unwrap_or(0), number("progressDeadlineSeconds").unwrap_or(600));
    if found.is_empty() && deadline <= ready {
        let message = format!("progressDeadlineSeconds ({deadline}) must be greater than minReadySeconds ({ready})");
        let fix = format!("progressDeadlineSeconds: {}", ready + 600);
        found.push(fault("/spec/progressDeadlineSeconds", message, &fix));
    }
    found
}

/// It must be there, select something, and select the pods of the template.
fn selector(object: &Json) -> Option<Finding> {
    const PATH: &str = "/spec/selector";
    let labels = labels_at(object, &["spec", "template", "metadata", "labels"]);
    let own = labels.iter().find(|(key, _)| **key != crate::template::keys::VERSION);
    let fix = own.map_or_else(
        || "selector: {matchLabels: {app: churn}}, and the same label in spec.template.metadata.labels".to_owned(),
        |(key, value)| format!("selector: {{matchLabels: {{{key}: {value}}}}}"),
    );
    let Some(selector @ Json::Object(_)) = json::at(object, &["spec", "selector"]) else {
        return Some(fault(PATH, "the Deployment has no selector".to_owned(), &fix));
    };
    let wanted = labels_at(selector, &["matchLabels"]);
    let expressions = json::list_at(selector, &["matchExpressions"]);
    if wanted.is_empty() && expressions.is_empty() {
        return Some(fault(PATH, "the selector is empty, which is no selector".to_owned(), &fix));
    }
    let unmatched = wanted.iter().find(|(key, value)| labels.get(*key) != Some(value));
    let unmatched = unmatched.map(|(key, value)| format!("{key}: {value}")).or_else(|| {
        let broken = expressions.iter().find(|expression| !holds(expression, &labels))?;
        Some(broken.to_string())
    })?;
    let message = format!("the selector wants {unmatched}, and the labels of the pod template do not match that");
    Some(fault(PATH, message, "give the template that label, or a Deployment that is not there yet another selector"))
}

/// One of `matchExpressions`; an unknown operator holds for nothing.
fn holds(expression: &Json, labels: &BTreeMap<&str, &str>) -> bool {
    let value = labels.get(json::str_at(expression, &["key"]).unwrap_or_default());
    let values = json::list_at(expression, &["values"]);
    let is_in = value.is_some_and(|value| values.iter().any(|one| json::as_str(one) == Some(value)));
    match json::str_at(expression, &["operator"]) {
        Some("In") => is_in,
        Some("NotIn") => !is_in,
        Some("Exists") => value.is_some(),
        Some("DoesNotExist") => value.is_none(),
        _ => false,
    }
}

fn strategy(object: &Json) -> Option<Finding> {
    let strategy = json::at(object, &["spec", "strategy"])?;
    match json::str_at(strategy, &["type"]) {
        None | Some("" | "RollingUpdate") => rolling(json::get(strategy, "rollingUpdate")?),
        Some("Recreate") => matches!(json::get(strategy, "rollingUpdate"), Some(Json::Object(_))).then(|| {
            let message = "rollingUpdate is set and the type is Recreate".to_owned();
            fault("/spec/strategy/rollingUpdate", message, "strategy: {type: RollingUpdate}")
        }),
        Some(other) => {
            let message = format!("there is no strategy `{other}`; there is RollingUpdate and Recreate");
            Some(fault("/spec/strategy/type", message, "strategy: {type: RollingUpdate}"))
        }
    }
}

/// Both are counts or percentages, and one of them lets a rollout go on.
fn rolling(update: &Json) -> Option<Finding> {
    const FIX: &str = "a whole number of pods such as 1, or a percentage such as 25%";
    let mut room = Vec::new();
    for key in ["maxSurge", "maxUnavailable"] {
        let Some(value) = json::get(update, key).filter(|value| **value != Json::Null) else { continue };
        let at = format!("/spec/strategy/rollingUpdate/{key}");
        let is_percent = json::as_str(value).is_some();
        match share(value) {
            None => return Some(fault(&at, format!("{key} cannot be {value}"), FIX)),
            Some(share) if is_percent && share > 100 && key == "maxUnavailable" => {
                let message = format!("{key} is {share}% of the pods; there are no more than 100%");
                return Some(fault(&at, message, FIX));
            }
            Some(share) => room.push(share),
        }
    }
    (room == [0, 0]).then(|| {
        let message = "maxSurge and maxUnavailable are both 0, so no pod could ever be replaced".to_owned();
        fault("/spec/strategy/rollingUpdate/maxUnavailable", message, "maxUnavailable: 1, or maxSurge: 1")
    })
}

/// A count or a percentage that is not negative.
fn share(value: &Json) -> Option<i64> {
    match json::as_str(value) {
        Some(text) => {
            let digits = text.strip_suffix('%')?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
            digits.parse().ok()
        }
        None => json::int_at(value, &[]).filter(|count| *count >= 0),
    }
}

fn labels(object: &Json, path: &[&str]) -> Vec<Finding> {
    let is_value = |value: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let ends = value.bytes().next().into_iter().chain(value.bytes().last());
        value.len() <= 63 && value.bytes().all(inner) && ends.into_iter().all(|byte| byte.is_ascii_alphanumeric())
    };
    let found = labels_at(object, path).into_iter().filter(|(_, value)| !is_value(value));
    let fix = "at most 63 letters, digits, `-`, `_` and `.`, a letter or digit at both ends";
    found
        .map(|(key, value)| {
            let path = format!("/{}/{}", path.join("/"), super::tree::escape(key));
            fault(&path, format!("`{value}` is no value for label {key}"), fix)
        })
        .collect()
}

fn pod(object: &Json) -> Vec<Finding> {
    let mut found = Vec::new();
    let Some(pod) = json::at(object, &TEMPLATE).and_then(|template| json::get(template, "spec")) else { return found };
    if let Some(policy) = json::str_at(pod, &["restartPolicy"]).filter(|policy| !matches!(*policy, "" | "Always")) {
        let message = format!("the restartPolicy of a Deployment's pods is Always, not {policy}");
        found.push(fault("/spec/template/spec/restartPolicy", message, "remove it"));
    }
    found.extend(resources::faults_of_pod(pod));
    let mut names: Vec<&str> = Vec::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in json::list_at(pod, &[list]).iter().enumerate() {
            let at = format!("/spec/template/spec/{list}/{index}");
            let text = |key| json::str_at(container, &[key]).unwrap_or_default();
            let (name, image) = (text("name"), text("image"));
            if name.is_empty() {
                found.push(fault(&format!("{at}/name"), "the container has no name".to_owned(), "name: model"));
            } else if !is_label(name) {
                let message = format!("`{name}` is no name for a container");
                let fix = "at most 63 lower case letters, digits and `-`, a letter or digit at both ends";
                found.push(fault(&format!("{at}/name"), message, fix));
            } else if names.contains(&name) {
                let message = format!("two containers are called `{name}`");
                found.push(fault(&format!("{at}/name"), message, "give one of them another name"));
            }
            names.push(name);
            // Blanks are taken here; only of a pod they are refused.
            if image.is_empty() {
                let message = format!("container \"{name}\" has no image");
                found.push(fault(&format!("{at}/image"), message, "image: registry.example/churn:2.4.0"));
            }
            found.extend(match list {
                "initContainers" => probes::faults_of_init(container, &at),
                _ => probes::faults(container, &at),
            });
            found.extend(resources::faults(container, &at));
        }
    }
    found
}

fn labels_at<'a>(object: &'a Json, path: &[&str]) -> BTreeMap<&'a str, &'a str> {
    let Some(Json::Object(labels)) = json::at(object, path) else { return BTreeMap::new() };
    labels.iter().filter_map(|(key, value)| Some((json::as_str(key)?, json::as_str(value)?))).collect()
}

/// RFC 1123, as Kubernetes reads it.
fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_word)
}

fn is_label(name: &str) -> bool {
    name.len() <= 63 && is_word(name)
}

pub(super) fn is_word(word: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !word.is_empty() && word.bytes().all(inner) && !word.starts_with('-') && !word.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"metadata": {"name": "churn.v2"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "churn"},
        "matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "churn"]}, {"key": "tier", "operator": "DoesNotExist"},
          {"key": "app", "operator": "NotIn", "values": ["x"]}, {"key": "app", "operator": "Exists"}]},
        "strategy": {"type": "RollingUpdate"}, "template": {"metadata": {"labels": {"app": "churn", "v": "2.4.0_a", "e": ""}},
        "spec": {"restartPolicy": "Always", "initContainers": [{"name": "init", "image": "i"}], "containers": [{"name": "model", "image": "x"}]}}}}"#;

    #[test]
    fn what_the_api_server_refuses() {
        let rows = [
            ("{\"name\": \"churn.v2\"}", "{}", "/metadata/name"),
            ("churn.v2", "Churn", "/metadata/name"),
            ("\"replicas\": 0", "\"replicas\": -1", "/spec/replicas"),
            ("\"replicas\": 0", "\"minReadySeconds\": 600", "/spec/progressDeadlineSeconds"),
            ("\"replicas\": 0", "\"revisionHistoryLimit\": -2", "/spec/revisionHistoryLimit"),
            ("\"selector\"", "\"selecter\"", "/spec/selector"),
            ("{\"matchLabels\": {\"app\": \"churn\"}", "{\"matchLabels\": {\"app\": \"other\"}", "/spec/selector"),
            ("\"DoesNotExist\"", "\"Exists\"", "/spec/selector"),
            ("\"NotIn\"", "\"Near\"", "/spec/selector"),
            ("{\"type\": \"RollingUpdate\"}", "{\"type\": \"Rolling\"}", "/spec/strategy/type"),
            (
                "{\"type\": \"RollingUpdate\"}",
                "{\"type\": \"Recreate\", \"rollingUpdate\": {}}",
                "/spec/strategy/rollingUpdate",
            ),
            ("2.4.0_a", "2.4.0+a", "/spec/template/metadata/labels/v"),
            ("\"Always\"", "\"Never\"", "/spec/template/spec/restartPolicy"),
            ("{\"name\": \"model\", \"image\": \"x\"}", "{\"image\": \"x\"}", "/spec/template/spec/containers/0/name"),
            (
                "{\"name\": \"model\", \"image\": \"x\"}",
                "{\"name\": \"model\"}",
                "/spec/template/spec/containers/0/image",
            ),
            ("\"name\": \"model\"", "\"name\": \"init\"", "/spec/template/spec/containers/0/name"),
            ("\"name\": \"model\"", "\"name\": \"a_b\"", "/spec/template/spec/containers/0/name"),
        ];
        assert_eq!(faults(&Json::from_json_str(GOOD).unwrap()), []);
        for (good, bad, path) in rows {
            let text = GOOD.replacen(good, bad, 1);
            assert_ne!(text, GOOD, "{good}");
            let found = faults(&Json::from_json_str(&text).unwrap());
            assert_eq!(found.iter().map(|fault| fault.path.as_str()).collect::<Vec<_>>(), [path], "{bad}: {found:?}");
        }
    }

    #[test]
    fn how_many_pods_a_rollout_may_miss_or_add() {
        let rows = [
            ("{}", None),
            (r#"{"maxUnavailable": null, "maxSurge": 0}"#, None),
            (r#"{"maxUnavailable": 0}"#, None),
            (r#"{"maxUnavailable": "100%", "maxSurge": "200%"}"#, None),
            (r#"{"maxUnavailable": 200, "maxSurge": "0%"}"#, None),
            (r#"{"maxUnavailable": "101%"}"#, Some("maxUnavailable")),
            (r#"{"maxUnavailable": -1}"#, Some("maxUnavailable")),
            (r#"{"maxUnavailable": "1"}"#, Some("maxUnavailable")),
            (r#"{"maxUnavailable": "50 %"}"#, Some("maxUnavailable")),
            (r#"{"maxUnavailable": "+5%"}"#, Some("maxUnavailable")),
            (r#"{"maxUnavailable": "%"}"#, Some("maxUnavailable")),
            (r#"{"maxSurge": "1"}"#, Some("maxSurge")),
            (r#"{"maxSurge": 0, "maxUnavailable": "0%"}"#, Some("maxUnavailable")),
        ];
        for (update, wanted) in rows {
            let found = rolling(&Json::from_json_str(update).unwrap()).map(|fault| fault.path);
            let wanted = wanted.map(|key| format!("/spec/strategy/rollingUpdate/{key}"));
            assert_eq!(found, wanted, "{update}");
        }
    }
}
