//! What the API server refuses of requests and limits, as `validateContainerResourceRequirements` and
//! `validatePodResources` of Kubernetes have it. What the policy `resources` finds is absent: a request above its limit, GPUs
//! whose request and limit differ.

use std::collections::BTreeMap;

use super::{decode::fault, tree::escape};
use crate::{
    admission::Finding,
    template::{
        Json, json,
        quantity::{self, Quantity},
    },
};

const POD: &str = "/spec/template/spec/resources";
const KINDS: [&str; 2] = ["requests", "limits"];

/// Everything of this kind that is wrong with the container at the pointer `at`.
pub(super) fn faults(container: &Json, at: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    for kind in KINDS {
        for (name, amount) in amounts(container, kind) {
            let at = format!("{at}/resources/{kind}/{}", escape(name));
            if !is_standard(name) && name != "ephemeral-storage" && !name.contains('/') {
                let message = format!("there is no resource `{name}`");
                let fix = "cpu, memory, ephemeral-storage, or a device by its full name, such as nvidia.com/gpu";
                found.push(fault(&at, message, fix));
            } else if amount.is_negative() {
                found.push(fault(&at, format!("{amount} of {name}; it cannot be negative"), ""));
            } else if name.contains('/') && !amount.is_whole() {
                let message = format!("{amount} of {name}; a device cannot be divided");
                found.push(fault(&at, message, "a whole number"));
            }
        }
    }
    found
}

/// The same of what the pod has as a whole. Of requests each container is held against it, not yet their sum.
pub(super) fn faults_of_pod(pod: &Json) -> Vec<Finding> {
    let mut found = Vec::new();
    for kind in KINDS {
        for (name, amount) in amounts(pod, kind) {
            let at = format!("{POD}/{kind}/{}", escape(name));
            if !is_standard(name) {
                let message = format!("a pod as a whole has no {name}");
                found.push(fault(&at, message, "cpu and memory here, everything else in its containers"));
                continue;
            }
            let above = json::list_at(pod, &["containers"]).iter().find_map(|container| {
                let own = amounts(container, kind).remove(name).filter(|own| *own > amount)?;
                Some((json::str_at(container, &["name"])?, own))
            });
            found.extend(above.map(|(container, own)| {
                let message =
                    format!("{amount} of {name} for the pod as a whole, and container \"{container}\" has {own}");
                fault(&at, message, "at least what its containers have together")
            }));
        }
    }
    found
}

fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn amounts<'a>(owner: &'a Json, kind: &str) -> BTreeMap<&'a str, Quantity> {
    let Some(Json::Object(members)) = json::at(owner, &["resources", kind]) else { return BTreeMap::new() };
    let read = |value: &Json| match json::as_str(value) {
        Some(text) => quantity::parse(text).ok(),
        None => quantity::parse(&value.to_string()).ok(),
    };
    members.iter().filter_map(|(name, value)| Some((json::as_str(name)?, read(value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_refuses() {
        let rows = [
            (r#"{"limits": {"cpu": 1.5, "memory": "1Gi", "ephemeral-storage": "1Gi", "hugepages-2Mi": "4Mi"}}"#, ""),
            (r#"{"limits": {"nvidia.com/gpu": "2"}, "requests": {"nvidia.com/gpu": 2}}"#, ""),
            (r#"{"limits": {"nvidia.com/gpu": "1k"}}"#, ""),
            (r#"{"limits": {"memory": "-1"}, "requests": {"cpu": "-0"}}"#, "/c/resources/limits/memory"),
            (r#"{"limits": {"gpu": "1"}}"#, "/c/resources/limits/gpu"),
            (r#"{"requests": {"Memory": "1Gi"}}"#, "/c/resources/requests/Memory"),
            (r#"{"limits": {"nvidia.com/gpu": "1.5"}}"#, "/c/resources/limits/nvidia.com~1gpu"),
            (r#"{"limits": {"nvidia.com/gpu": 0.5}}"#, "/c/resources/limits/nvidia.com~1gpu"),
        ];
        for (resources, path) in rows {
            let container = Json::from_json_str(&format!(r#"{{"resources": {resources}}}"#)).unwrap();
            let found: Vec<_> = faults(&container, "/c").into_iter().map(|fault| fault.path).collect();
            assert_eq!(found.join(" "), path, "{resources}");
        }
    }

    #[test]
    fn of_a_pod_as_a_whole() {
        let rows = [
            (r#"{"limits": {"cpu": 4, "memory": "2Gi"}, "requests": {"memory": "1Gi"}}"#, ""),
            (r#"{"limits": {"memory": "1023Mi"}}"#, "/spec/template/spec/resources/limits/memory"),
            (r#"{"requests": {"memory": "1023Mi"}}"#, "/spec/template/spec/resources/requests/memory"),
            (r#"{"limits": {"nvidia.com/gpu": 1}}"#, "/spec/template/spec/resources/limits/nvidia.com~1gpu"),
        ];
        let container =
            r#"{"name": "model", "resources": {"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}}}"#;
        for (resources, path) in rows {
            let pod = Json::from_json_str(&format!(r#"{{"resources": {resources}, "containers": [{container}]}}"#));
            let found: Vec<_> = faults_of_pod(&pod.unwrap()).into_iter().map(|fault| fault.path).collect();
            assert_eq!(found.join(" "), path, "{resources}");
        }
    }
}
