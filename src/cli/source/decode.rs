//! Would the API server take this as a Deployment at all? What it would not is a finding, not an error: the file is
//! fine YAML, and the answer to applying it would be a refusal.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::tree::escape;
use crate::{
    admission::{Finding, Level},
    template::{Json, quantity},
};

const POD: &str = "/spec/template/spec";
const CONTAINERS: &str = "/spec/template/spec/containers";

/// Nothing, or why `object` is no apps/v1 Deployment: every quantity that does not parse, else the first field that does
/// not decode, else that it runs nothing.
pub(in crate::cli) fn faults(object: &Json) -> Vec<Finding> {
    let mut value = match serde_json::to_value(object) {
        Ok(value) => value,
        Err(error) => return vec![fault("", format!("is no JSON: {error}"), "")],
    };
    if value["apiVersion"] != "apps/v1" {
        let found = value["apiVersion"].as_str().map_or("missing".to_owned(), |found| format!("`{found}`"));
        return vec![fault(
            "/apiVersion",
            format!("apiVersion is {found}; Deployments are served as apps/v1"),
            "apiVersion: apps/v1",
        )];
    }
    let mut quantities = Quantities::default();
    if let Some(pod) = value.pointer_mut(POD) {
        quantities.walk_pod(pod, POD);
    }
    if !quantities.faults.is_empty() {
        return quantities.faults;
    }
    let has_containers = value.pointer(CONTAINERS).is_some_and(|list| list.as_array() != Some(&Vec::new()));
    match decode(value) {
        Some(fault) => vec![fault],
        // Policies would find nothing wrong with containers that are not there.
        None if !has_containers => vec![fault(CONTAINERS, "the pod template has no container".to_owned(), "")],
        None => Vec::new(),
    }
}

/// The first field that does not decode.
fn decode(mut value: Value) -> Option<Finding> {
    drop_nulls(&mut value);
    let error = serde_path_to_error::deserialize::<_, Deployment>(value).err()?;
    let pointer: String = error.path().iter().filter_map(step).collect();
    let told = error.inner().to_string();
    let fix = if told.contains("expected a string") { "put it in quotes" } else { "" };
    Some(fault(&pointer, format!("the API server cannot read this as a Deployment: {told}"), fix))
}

/// To the API server null is absent, or in a map the zero value; the generated type does not take it everywhere.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(elements) => elements.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// One step of a JSON pointer.
fn step(segment: &Segment) -> Option<String> {
    match segment {
        Segment::Seq { index } => Some(format!("/{index}")),
        Segment::Map { key } => Some(format!("/{}", escape(key))),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

fn fault(path: &str, message: String, fix: &str) -> Finding {
    Finding {
        policy: "kubernetes".to_owned(),
        code: "invalid".to_owned(),
        level: Level::Deny,
        path: path.to_owned(),
        message,
        fix: fix.to_owned(),
        details: Vec::new(),
    }
}

/// Checks quantities where a pod has them, and writes numbers as the text that they stand for: the API server takes
/// `cpu: 2`, the generated type takes only `cpu: "2"`.
#[derive(Default)]
struct Quantities {
    faults: Vec<Finding>,
}

impl Quantities {
    fn walk_pod(&mut self, pod: &mut Value, at: &str) {
        for list in ["containers", "initContainers", "ephemeralContainers"] {
            for (index, container) in items(pod, list) {
                self.walk_resources(container, &format!("{at}/{list}/{index}"));
                for (variable_index, variable) in items(container, "env") {
                    let at = format!("{at}/{list}/{index}/env/{variable_index}/valueFrom/resourceFieldRef");
                    self.check_member(variable.pointer_mut("/valueFrom/resourceFieldRef"), &at, "divisor");
                }
            }
        }
        self.walk_resources(pod, at);
        self.check_members(pod.get_mut("overhead"), &format!("{at}/overhead"));
        for (index, volume) in items(pod, "volumes") {
            let at = format!("{at}/volumes/{index}");
            self.check_member(volume.get_mut("emptyDir"), &format!("{at}/emptyDir"), "sizeLimit");
            const CLAIM: &str = "/ephemeral/volumeClaimTemplate/spec";
            if let Some(claim) = volume.pointer_mut(CLAIM) {
                self.walk_resources(claim, &format!("{at}{CLAIM}"));
            }
        }
    }

    fn walk_resources(&mut self, owner: &mut Value, at: &str) {
        for kind in ["requests", "limits"] {
            let here = format!("{at}/resources/{kind}");
            self.check_members(owner.pointer_mut(&format!("/resources/{kind}")), &here);
        }
    }

    fn check_members(&mut self, object: Option<&mut Value>, at: &str) {
        for (key, value) in object.and_then(Value::as_object_mut).into_iter().flatten() {
            self.check(value, &format!("{at}/{}", escape(key)));
        }
    }

    fn check_member(&mut self, object: Option<&mut Value>, at: &str, key: &str) {
        if let Some(value) = object.and_then(|object| object.get_mut(key)) {
            self.check(value, &format!("{at}/{key}"));
        }
    }

    fn check(&mut self, value: &mut Value, at: &str) {
        if value.is_number() {
            *value = Value::String(value.to_string());
        }
        let Some(text) = value.as_str() else { return };
        if quantity::parse(text).is_err() {
            let message = format!("`{text}` is no quantity");
            self.faults.push(fault(at, message, "a number with a unit such as 500m, 2, 512Mi or 2Gi"));
        }
    }
}

fn items<'a>(owner: &'a mut Value, list: &str) -> impl Iterator<Item = (usize, &'a mut Value)> {
    owner.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten().enumerate()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::source::tree;

    #[test]
    fn what_the_api_server_would_not_take() {
        let cases = [
            ("", Some("/spec/template/spec/containers")),
            ("spec: null", Some("/spec/template/spec/containers")),
            ("spec: {template: {spec: {containers: []}}}", Some("/spec/template/spec/containers")),
            ("spec: {template: {spec: {containers: [{name: a, resources: {limits: {cpu: 2, memory: 1.5Gi}}}]}}}", None),
            (
                "spec: {template: {spec: {containers: [{name: a, ports: [{containerPort: 80}], livenessProbe: {httpGet: {port: http}}}]}}}",
                None,
            ),
            ("metadata: {annotations: {a: null}}\nspec: {replicas: null, template: {spec: {containers: [{}]}}}", None),
            ("spec: {replicas: two}", Some("/spec/replicas")),
            ("metadata: {labels: {a/b: no}}", Some("/metadata/labels/a~1b")),
            ("metadata: {annotations: {version: 1.10}}", Some("/metadata/annotations/version")),
            ("spec: {template: {spec: {containers: {name: a}}}}", Some("/spec/template/spec/containers")),
            (
                "spec: {template: {spec: {containers: [{}, {resources: {limits: {cpu: lots}}}]}}}",
                Some("/spec/template/spec/containers/1/resources/limits/cpu"),
            ),
            (
                "spec: {template: {spec: {initContainers: [{resources: {requests: {memory: 2Gib}}}]}}}",
                Some("/spec/template/spec/initContainers/0/resources/requests/memory"),
            ),
            (
                "spec: {template: {spec: {volumes: [{emptyDir: {sizeLimit: big}}]}}}",
                Some("/spec/template/spec/volumes/0/emptyDir/sizeLimit"),
            ),
        ];
        for (text, path) in cases {
            let document = &tree::parse(&format!("apiVersion: apps/v1\nkind: Deployment\n{text}\n")).unwrap()[0];
            let faults = faults(&document.value);
            assert_eq!(faults.first().map(|fault| fault.path.as_str()), path, "{text}: {faults:?}");
        }
    }

    #[test]
    fn other_versions_are_not_served() {
        let document = &tree::parse("apiVersion: extensions/v1beta1\nkind: Deployment\n").unwrap()[0];
        assert_eq!(faults(&document.value)[0].fix, "apiVersion: apps/v1");
    }
}
