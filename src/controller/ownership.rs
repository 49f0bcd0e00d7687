//! The patches of a revert, as values: what they change, and whose the changed fields are afterwards.
//!
//! A revert that only put the template back would leave the next `kubectl apply` with fields of the good template that
//! the file does not have: client-side apply would find them nowhere in `last-applied-configuration`, server-side apply
//! would find them owned by us. So the same patch replaces the template inside that annotation, and a second one merges
//! our entry of `managedFields` into the entry of whoever applied the template (an entry cannot be removed in the request
//! that changes the fields). After both, the object is as if the good file had been applied last.

use std::{cmp::Reverse, collections::BTreeMap};

use serde_json::{Map, Value, json};

use crate::template::keys;

/// Field manager of `kubectl apply` without `--server-side`; its entry is an Update.
const CLIENT_SIDE: &str = "kubectl-client-side-apply";
/// Keeps `last-applied-configuration` where an object made by client-side apply is applied server-side.
const LAST_APPLIED_MANAGER: &str = "kubectl-last-applied";

/// Puts `template` (of a ReplicaSet) into the Deployment `live`, and into what client-side apply remembers. Holds only
/// while nobody has changed the Deployment.
pub(super) fn revert(live: &Value, template: &Value) -> Vec<Value> {
    let template = without_hash(template);
    let mut patch = guards(live);
    patch.push(json!({"op": "replace", "path": "/spec/template", "value": template}));
    let version = template.pointer(&label(keys::VERSION)).and_then(Value::as_str);
    let labelled = live.pointer(&label(keys::VERSION)).and_then(Value::as_str);
    if let (Some(good), Some(bad)) = (version, labelled)
        && good != bad
    {
        patch.push(json!({"op": "replace", "path": label(keys::VERSION), "value": good}));
    }
    if let Some(text) = last_applied(live, &template, version) {
        patch.push(json!({"op": "replace", "path": annotation(keys::LAST_APPLIED), "value": text}));
    }
    patch
}

/// Scales a canary with nothing to go back to to 0.
pub(super) fn withdraw(live: &Value) -> Vec<Value> {
    let mut patch = guards(live);
    patch.push(json!({"op": "replace", "path": "/spec/replicas", "value": 0}));
    patch
}

/// Gives the fields that we changed to whoever applied them: as it was `before` the revert where that is known, else as
/// far as what they still own tells. `None`: there is nothing of ours, or nobody else who could own it.
pub(super) fn give_back(live: &Value, before: Option<&Value>) -> Option<Vec<Value>> {
    let entries = entries(live)?;
    let ours = entries.iter().position(|entry| is(entry, keys::FIELD_MANAGER, "Update"))?;
    let heirs = heirs(before.and_then(self::entries).unwrap_or(entries));
    let mut fields = fields_of(&entries[ours]).clone();
    let kept = take_last_applied(&mut fields);
    let claims: Vec<_> = heirs.iter().enumerate().map(|(heir, entry)| (heir, fields_of(entry))).collect();
    let mut parts = BTreeMap::new();
    share(&fields, &claims, claims.first()?.0, &mut Vec::new(), &mut parts);
    let mut merged: BTreeMap<usize, Value> = BTreeMap::new();
    let mut lost = Vec::new();
    for (heir, part) in parts {
        match entries.iter().position(|entry| is_same(entry, heirs[heir])) {
            Some(index) => drop(merged.insert(index, deep_merge(fields_of(&entries[index]).clone(), part))),
            // All that it had was what we changed.
            None => lost.push(json!({"op": "add", "path": "/metadata/managedFields/-",
                "value": Value::Object(with_fields(heirs[heir], part))})),
        }
    }
    if let (Some(kept), Some(keeper)) = (kept, keeper(entries)) {
        let fields = merged.remove(&keeper).unwrap_or_else(|| fields_of(&entries[keeper]).clone());
        merged.insert(keeper, deep_merge(fields, kept));
    }

    let mut patch = guards(live);
    let path = |index: usize| format!("/metadata/managedFields/{index}");
    patch.push(json!({"op": "test", "path": path(ours), "value": entries[ours]}));
    for (index, fields) in merged {
        patch.push(json!({"op": "test", "path": path(index), "value": entries[index]}));
        patch.push(json!({"op": "replace", "path": format!("{}/fieldsV1", path(index)), "value": fields}));
    }
    patch.extend(lost);
    // Last: the indices above are those of before.
    patch.push(json!({"op": "remove", "path": path(ours)}));
    Some(patch)
}

/// Hands each field to all heirs that have it (`claims`, largest first). What none has goes to the first that has the
/// item of a list around it (a container, a variable), else to `fallback`.
fn share(
    fields: &Value,
    claims: &[(usize, &Value)],
    fallback: usize,
    path: &mut Vec<String>,
    parts: &mut BTreeMap<usize, Value>,
) {
    let members = fields.as_object().filter(|members| !members.is_empty());
    let Some(members) = members.filter(|_| !claims.is_empty()) else {
        let owners = if claims.is_empty() { vec![fallback] } else { claims.iter().map(|(heir, _)| *heir).collect() };
        for owner in owners {
            let leaf = path.iter().rev().fold(fields.clone(), |inner, key| json!({ key: inner }));
            let part = parts.remove(&owner).unwrap_or_else(|| json!({}));
            parts.insert(owner, deep_merge(part, leaf));
        }
        return;
    };
    for (key, inner) in members {
        let nearer: Vec<_> = claims.iter().filter_map(|(heir, known)| Some((*heir, known.get(key)?))).collect();
        let fallback = nearer.first().filter(|_| key.starts_with("k:")).map_or(fallback, |(heir, _)| *heir);
        path.push(key.clone());
        share(inner, &nearer, fallback, path, parts);
        path.pop();
    }
}

/// Whether Helm keeps a copy of the manifests that a revert cannot reach: it compares the next release with that.
pub(super) fn is_helm_3(live: &Value) -> bool {
    let annotated = live.pointer(&annotation("meta.helm.sh/release-name")).is_some();
    let applied = live.pointer("/metadata/managedFields").and_then(Value::as_array).is_some_and(|entries| {
        entries.iter().any(|entry| {
            entry["operation"] == "Apply" && entry["manager"].as_str().is_some_and(|name| name.starts_with("helm"))
        })
    });
    annotated && !applied
}

/// The operations that make the patch fail (422) once the Deployment has changed in anything but its status.
/// resourceVersion would not do: it moves with each status update.
fn guards(live: &Value) -> Vec<Value> {
    ["/metadata/uid", "/metadata/generation"]
        .map(|path| json!({"op": "test", "path": path, "value": live.pointer(path)}))
        .to_vec()
}

fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(keys::POD_TEMPLATE_HASH);
    }
    template
}

/// `last-applied-configuration` with the good template; `None` where there is none that can be read.
fn last_applied(live: &Value, template: &Value, version: Option<&str>) -> Option<String> {
    let text = live.pointer(&annotation(keys::LAST_APPLIED))?.as_str()?;
    let mut applied: Value = serde_json::from_str(text).ok()?;
    *applied.pointer_mut("/spec/template")? = template.clone();
    if let (Some(version), Some(label)) = (version, applied.pointer_mut(&label(keys::VERSION))) {
        *label = version.into();
    }
    Some(format!("{applied}\n"))
}

fn entries(object: &Value) -> Option<&[Value]> {
    object.pointer("/metadata/managedFields")?.as_array().map(Vec::as_slice)
}

/// Whoever applied a part of the template, server-side or client-side; the one with most of it first.
fn heirs(entries: &[Value]) -> Vec<&Value> {
    let size = |entry: &Value| fields_of(entry).pointer("/f:spec/f:template").map_or(0, leaves);
    let applied = |entry: &&Value| {
        let server_side = entry["operation"] == "Apply" && entry.get("subresource").is_none() && size(entry) > 0;
        server_side || is(entry, CLIENT_SIDE, "Update")
    };
    let mut heirs: Vec<_> = entries.iter().filter(applied).collect();
    heirs.sort_by_key(|entry| Reverse(size(entry)));
    heirs
}

fn is_same(entry: &Value, other: &Value) -> bool {
    ["manager", "operation", "apiVersion", "subresource"].iter().all(|key| entry.get(key) == other.get(key))
}

fn with_fields(entry: &Value, fields: Value) -> Map<String, Value> {
    let mut entry = entry.as_object().cloned().unwrap_or_default();
    entry.insert("fieldsV1".to_owned(), fields);
    entry
}

/// The entry that owns `last-applied-configuration`. Were it given to an Apply entry, the next apply, which does not
/// mention it, would remove it.
fn keeper(entries: &[Value]) -> Option<usize> {
    entries
        .iter()
        .position(|entry| is(entry, LAST_APPLIED_MANAGER, "Apply") || is(entry, LAST_APPLIED_MANAGER, "Update"))
        .or_else(|| entries.iter().position(|entry| is(entry, CLIENT_SIDE, "Update")))
}

/// Takes the annotation out of `fields`; gives it as a tree of its own.
fn take_last_applied(fields: &mut Value) -> Option<Value> {
    let key = format!("f:{}", keys::LAST_APPLIED);
    let annotations = fields.pointer_mut("/f:metadata/f:annotations")?.as_object_mut()?;
    let leaf = annotations.remove(&key)?;
    Some(json!({"f:metadata": {"f:annotations": {key: leaf}}}))
}

fn is(entry: &Value, manager: &str, operation: &str) -> bool {
    entry["manager"] == manager && entry["operation"] == operation && entry.get("subresource").is_none()
}

fn fields_of(entry: &Value) -> &Value {
    entry.get("fieldsV1").unwrap_or(&Value::Null)
}

fn leaves(fields: &Value) -> usize {
    fields.as_object().filter(|members| !members.is_empty()).map_or(1, |members| members.values().map(leaves).sum())
}

/// The union of two field sets.
fn deep_merge(into: Value, from: Value) -> Value {
    match (into, from) {
        (Value::Object(mut into), Value::Object(from)) => {
            for (key, value) in from {
                let known = into.remove(&key).unwrap_or_else(|| Value::Object(Map::new()));
                into.insert(key, deep_merge(known, value));
            }
            Value::Object(into)
        }
        (Value::Null, from) => from,
        (into, _) => into,
    }
}

fn label(key: &str) -> String {
    format!("/metadata/labels/{}", escape(key))
}

fn annotation(key: &str) -> String {
    format!("/metadata/annotations/{}", escape(key))
}

/// A key as a step of a JSON pointer.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patched(live: &Value, operations: &[Value]) -> Value {
        let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations.to_vec())).unwrap();
        let mut after = live.clone();
        json_patch::patch(&mut after, &patch).unwrap();
        after
    }

    fn live(entries: Value) -> Value {
        let applied = json!({"kind": "Deployment", "metadata": {"labels": {"app.kubernetes.io/version": "2"}},
            "spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "model", "image": "m:2"}]}}}});
        json!({"metadata": {"uid": "u", "generation": 7, "labels": {"app.kubernetes.io/version": "2", "a": "b"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": format!("{applied}\n")},
                "managedFields": entries},
            "spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "model", "image": "m:2"}]}}}})
    }

    fn good() -> Value {
        json!({"metadata": {"labels": {"app": "churn", "app.kubernetes.io/version": "1", "pod-template-hash": "x"}},
            "spec": {"containers": [{"name": "model", "image": "m:1", "env": [{"name": "ONLY_IN_GOOD", "value": "1"}]}]}})
    }

    #[test]
    fn a_revert_changes_template_version_and_what_apply_remembers_and_nothing_else() {
        let before = live(json!([]));
        let after = patched(&before, &revert(&before, &good()));
        let mut template = good();
        template["metadata"]["labels"].as_object_mut().unwrap().remove("pod-template-hash");
        assert_eq!(after["spec"], json!({"replicas": 3, "template": template}));
        assert_eq!(after["metadata"]["labels"], json!({"app.kubernetes.io/version": "1", "a": "b"}));
        let text = after["metadata"]["annotations"][keys::LAST_APPLIED].as_str().unwrap();
        let applied: Value = serde_json::from_str(text).unwrap();
        assert_eq!(applied["spec"], json!({"replicas": 2, "template": template}));
        assert_eq!(applied["metadata"]["labels"][keys::VERSION], "1");
    }

    #[test]
    fn a_revert_leaves_alone_what_is_not_there() {
        let mut before = live(json!([]));
        before["metadata"].as_object_mut().unwrap().remove("labels");
        for annotations in
            [json!(null), json!({}), json!({keys::LAST_APPLIED: "no json"}), json!({keys::LAST_APPLIED: "{}"})]
        {
            before["metadata"]["annotations"] = annotations;
            let after = patched(&before, &revert(&before, &good()));
            assert_eq!(after["metadata"], before["metadata"]);
        }
    }

    #[test]
    fn a_patch_for_what_has_changed_fails() {
        let before = live(json!([]));
        for (path, value) in [("/metadata/uid", json!("other")), ("/metadata/generation", json!(8))] {
            for operations in [revert(&before, &good()), withdraw(&before)] {
                let mut changed = before.clone();
                *changed.pointer_mut(path).unwrap() = value.clone();
                let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations)).unwrap();
                assert!(json_patch::patch(&mut changed, &patch).is_err());
            }
        }
    }

    #[test]
    fn a_withdrawal_scales_to_zero() {
        let before = live(json!([]));
        assert_eq!(patched(&before, &withdraw(&before))["spec"]["replicas"], 0);
    }

    fn entry(manager: &str, operation: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "apps/v1", "time": "2026-11-22T14:21:07Z",
            "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    fn image(extra: Value) -> Value {
        json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"model\"}": extra}}}}})
    }

    #[test]
    fn what_we_changed_goes_to_the_apply_entry_that_has_most_of_the_template() {
        let mut status = entry("kube-controller-manager", "Update", json!({"f:status": {}}));
        status["subresource"] = "status".into();
        let before = live(json!([
            entry("scaler", "Apply", json!({"f:spec": {"f:replicas": {}}})),
            entry("kubectl", "Apply", image(json!({".": {}, "f:name": {}, "f:ports": {}}))),
            entry("surefoot", "Update", image(json!({"f:image": {}, "f:env": {"k:{\"name\":\"A\"}": {".": {}}}}))),
            status,
        ]));
        let after = patched(&before, &give_back(&before, None).unwrap());
        let entries = after["metadata"]["managedFields"].as_array().unwrap();
        assert_eq!(
            entries.iter().map(|entry| entry["manager"].as_str().unwrap()).collect::<Vec<_>>(),
            ["scaler", "kubectl", "kube-controller-manager"]
        );
        let merged = image(
            json!({".": {}, "f:name": {}, "f:ports": {}, "f:image": {}, "f:env": {"k:{\"name\":\"A\"}": {".": {}}}}),
        );
        assert_eq!(entries[1]["fieldsV1"], merged);
        assert_eq!(entries[1]["time"], before["metadata"]["managedFields"][1]["time"]);
    }

    #[test]
    fn after_client_side_apply_it_goes_to_the_entry_of_kubectl() {
        let before = live(json!([
            entry(
                "surefoot",
                "Update",
                json!({"f:metadata": {"f:annotations": {format!("f:{}", keys::LAST_APPLIED): {}}}})
            ),
            entry("kubectl-client-side-apply", "Update", image(json!({"f:name": {}}))),
        ]));
        let after = patched(&before, &give_back(&before, None).unwrap());
        let entries = after["metadata"]["managedFields"].as_array().unwrap();
        assert_eq!(entries.len(), 1);
        assert!(
            entries[0]["fieldsV1"]["f:metadata"]["f:annotations"].get(format!("f:{}", keys::LAST_APPLIED)).is_some()
        );
    }

    #[test]
    fn last_applied_is_never_given_to_server_side_apply() {
        let annotation = json!({"f:metadata": {"f:annotations": {format!("f:{}", keys::LAST_APPLIED): {}}}});
        let before = live(json!([
            entry("kubectl", "Apply", image(json!({"f:name": {}}))),
            entry("kubectl-last-applied", "Update", json!({})),
            entry("surefoot", "Update", deep_merge(annotation.clone(), image(json!({"f:image": {}})))),
        ]));
        let after = patched(&before, &give_back(&before, None).unwrap());
        let entries = &after["metadata"]["managedFields"];
        assert_eq!(
            entries[0]["fieldsV1"],
            json!({"f:metadata": {"f:annotations": {}}, "f:spec": image(json!({"f:name": {}, "f:image": {}}))["f:spec"]})
        );
        assert_eq!(entries[1]["fieldsV1"], annotation);
    }

    #[test]
    fn each_of_two_who_applied_gets_what_was_theirs() {
        let variable = |value: Value| image(json!({".": {}, "f:name": {}, "f:env": {"k:{\"name\":\"A\"}": value}}));
        let note = json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {"f:note": {}}}}}});
        let main = entry(
            "kubectl",
            "Apply",
            image(json!({".": {}, "f:name": {}, "f:image": {}, "f:ports": {}, "f:resources": {},
            "f:readinessProbe": {}})),
        );
        let platform = |value| entry("platform", "Apply", variable(value));
        let was = live(json!([
            main,
            platform(json!({".": {}, "f:name": {}, "f:value": {}})),
            entry("noter", "Apply", note.clone())
        ]));
        let changed = deep_merge(
            note.clone(),
            image(
                json!({"f:env": {"k:{\"name\":\"A\"}": {"f:value": {}}, "k:{\"name\":\"ONLY_IN_GOOD\"}": {".": {}}}}),
            ),
        );
        let now = live(json!([main, platform(json!({".": {}, "f:name": {}})), entry("surefoot", "Update", changed)]));
        let fields = |after: &Value, manager: &str| {
            let entries = after["metadata"]["managedFields"].as_array().unwrap();
            entries.iter().find(|entry| entry["manager"] == manager).map(|entry| entry["fieldsV1"].clone())
        };
        for before in [Some(&was), None] {
            let after = patched(&now, &give_back(&now, before).unwrap());
            assert_eq!(
                fields(&after, "platform"),
                Some(variable(json!({".": {}, "f:name": {}, "f:value": {}}))),
                "{before:?}"
            );
            let kubectl = fields(&after, "kubectl").unwrap().to_string();
            assert!(kubectl.contains("ONLY_IN_GOOD") && !kubectl.contains("f:value"), "{kubectl}");
            assert_eq!(fields(&after, "noter"), before.map(|_| note.clone()));
            assert_eq!(fields(&after, "surefoot"), None);
        }
    }

    #[test]
    fn who_applies_a_bit_server_side_gets_nothing_of_who_applies_the_rest_client_side() {
        let bit = json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {"f:note": {}}}}}});
        let now = live(json!([
            entry("noter", "Apply", bit.clone()),
            entry("kubectl-client-side-apply", "Update", image(json!({"f:name": {}, "f:ports": {}}))),
            entry("surefoot", "Update", image(json!({"f:image": {}}))),
        ]));
        let after = patched(&now, &give_back(&now, None).unwrap());
        let entries = &after["metadata"]["managedFields"];
        assert_eq!(entries[0]["fieldsV1"], bit);
        assert_eq!(entries[1]["fieldsV1"], image(json!({"f:name": {}, "f:ports": {}, "f:image": {}})));
    }

    #[test]
    fn where_nobody_applied_the_entry_stays() {
        for entries in [
            json!([
                entry("surefoot", "Update", image(json!({"f:image": {}}))),
                entry("kubectl-edit", "Update", image(json!({})))
            ]),
            json!([entry("kubectl", "Apply", image(json!({"f:image": {}})))]),
        ] {
            assert_eq!(give_back(&live(entries), None), None);
        }
    }
}
