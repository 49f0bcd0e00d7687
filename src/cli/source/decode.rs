//! Would the API server take this as a Deployment at all? What it would not is a finding, not an error: the file is
//! fine YAML, and the answer to applying it would be a refusal.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::Value;

use super::{fields, tree::escape, validity};
use crate::{
    admission::{Finding, Level},
    template::{Json, quantity},
};

/// The version whose fields are known: the feature of k8s-openapi in `Cargo.toml`.
const NEWEST: &str = "1.33";

/// Parts of a Deployment in a folder are mostly patches, which are nothing by themselves.
pub(super) const PATCH: &str = "if this is a patch, judge what it becomes: kustomize build DIR | surefoot check -";

const POD: &str = "/spec/template/spec";
const CONTAINERS: &str = "/spec/template/spec/containers";

/// Why `object` is no apps/v1 Deployment: every quantity that does not parse, else the first field that does not decode,
/// else that it runs nothing. `Ok`: it is one, and this is what the API server would say of it all the same.
pub(in crate::cli) fn faults(object: &Json) -> Result<Vec<Finding>, Vec<Finding>> {
    let mut value =
        serde_json::to_value(object).map_err(|error| vec![fault("", format!("is no JSON: {error}"), "")])?;
    if value["apiVersion"] != "apps/v1" {
        let found = value["apiVersion"].as_str().map_or("missing".to_owned(), |found| format!("`{found}`"));
        let message = format!("apiVersion is {found}; Deployments are served as apps/v1");
        return Err(vec![fault("/apiVersion", message, "apiVersion: apps/v1")]);
    }
    let mut quantities = Quantities::default();
    if let Some(pod) = value.pointer_mut(POD) {
        quantities.walk_pod(pod, POD);
    }
    if !quantities.faults.is_empty() {
        return Err(quantities.faults);
    }
    drop_nulls(&mut value);
    let unknown = fields::unknown::<Deployment>(&value).map_err(|undecoded| vec![not_decoded(&value, &undecoded)])?;
    let mut faults = unknown_fields(unknown);
    if value.pointer(CONTAINERS).is_none_or(|list| list.as_array() == Some(&Vec::new())) {
        // Policies would find nothing wrong with containers that are not there.
        faults.push(fault(CONTAINERS, "the pod template has no container".to_owned(), PATCH));
        return Err(faults);
    }
    faults.extend(validity::faults(object));
    Ok(faults)
}

/// A misspelt field is refused as the API server refuses it. One that resembles none is only warned about: a newer
/// Kubernetes may have it.
fn unknown_fields(unknown: Vec<fields::Unknown>) -> Vec<Finding> {
    let found = unknown.into_iter().filter(|it| !it.path.starts_with("/status/"));
    found
        .map(|fields::Unknown { path, name, known }| {
            let close = misspelt(&name, known);
            let (level, message) = match close {
                Some(close) => (Level::Deny, format!("there is no field `{name}` here; did you mean `{close}`?")),
                None => (
                    Level::Warn,
                    format!("Kubernetes {NEWEST} has no field `{name}` here, and kubectl would refuse it"),
                ),
            };
            let fix = close.map_or_else(
                || "remove it, or put it where it belongs".to_owned(),
                |close| format!("rename it to {close}"),
            );
            Finding { code: "unknown-field".to_owned(), level, ..fault(&path, message, &fix) }
        })
        .collect()
}

/// The field that was meant: at most two slips away, one where it is short.
fn misspelt<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let slips = |one: &&str| strsim::damerau_levenshtein(&name.to_lowercase(), &one.to_lowercase());
    let closest = known.iter().min_by_key(|one| slips(one))?;
    (slips(closest) <= if name.len() < 6 { 1 } else { 2 }).then_some(*closest)
}

fn not_decoded(value: &Value, fields::Undecoded { path, error }: &fields::Undecoded) -> Finding {
    let told = error.to_string();
    // Quotes make a text of what is one word; not of a list or a map.
    let is_word = value.pointer(path).is_some_and(|it| !it.is_array() && !it.is_object());
    let fix = if is_word && told.contains("expected a string") { "put it in quotes" } else { "" };
    fault(path, format!("the API server cannot read this as a Deployment: {told}"), fix)
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

pub(super) fn fault(path: &str, message: String, fix: &str) -> Finding {
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
            let faults = faults(&document.value).err().unwrap_or_default();
            assert_eq!(faults.first().map(|fault| fault.path.as_str()), path, "{text}: {faults:?}");
        }
    }

    #[test]
    fn quotes_help_a_word_alone() {
        for (value, fix) in [("5", "put it in quotes"), ("no", "put it in quotes"), ("{b: 1}", ""), ("[b]", "")] {
            let text = format!("apiVersion: apps/v1\nkind: Deployment\nmetadata: {{labels: {{a/b: {value}}}}}\n");
            let faults = faults(&tree::parse(&text).unwrap()[0].value).unwrap_err();
            assert_eq!(faults[0].fix, fix, "{value}: {}", faults[0].message);
        }
    }

    #[test]
    fn a_misspelt_field_is_refused_and_a_strange_one_told() {
        let text = |fields: &str| {
            format!(
                "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: x}}\nspec:\n  selector: {{matchLabels: {{a: b}}}}\n  \
                 template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: m, image: i, {fields}}}]}}}}\n"
            )
        };
        let rows = [
            ("readinesProbe: {}", Some((Level::Deny, "did you mean `readinessProbe`?"))),
            ("Env: []", Some((Level::Deny, "did you mean `env`?"))),
            ("restartPolicyOfTomorrow: []", Some((Level::Warn, "kubectl would refuse it"))),
            ("readinessProbe: {tcpSocket: {port: 1}}", None),
        ];
        for (fields, expected) in rows {
            let found = faults(&tree::parse(&text(fields)).unwrap()[0].value).unwrap();
            let told = found.first().map(|fault| (fault.level, fault.message.contains(expected.unwrap().1)));
            assert_eq!(told, expected.map(|(level, _)| (level, true)), "{fields}: {found:?}");
        }
    }

    #[test]
    fn other_versions_are_not_served() {
        let document = &tree::parse("apiVersion: extensions/v1beta1\nkind: Deployment\n").unwrap()[0];
        assert_eq!(faults(&document.value).unwrap_err()[0].fix, "apiVersion: apps/v1");
    }
}
