//! Which updates the API server asks about: what the condition `changes-what-is-judged` of `manifests/base/hooks.yaml` says in
//! CEL, for those who judge without an API server. Scaling down, and what no policy looks at, passes unseen.

use std::collections::BTreeMap;

use crate::template::{Json, json, keys};

/// Whether the hooks are asked when `old` becomes `new`, both with the defaults of the API.
pub fn is_asked_about(old: &Json, new: &Json) -> bool {
    let replicas = |object| json::int_at(object, &["spec", "replicas"]).unwrap_or(1);
    let spec = |object| members(object, &["spec"], |key| !["replicas", "paused"].contains(&key));
    let labels = |object| members(object, &["metadata", "labels"], |_| true);
    let annotations = |object| {
        members(object, &["metadata", "annotations"], |key| key.starts_with(OWN) || key == keys::DEPRECATED_ROLLBACK)
    };
    json::at(new, &["metadata", "deletionTimestamp"]).is_none()
        && (spec(new) != spec(old)
            || replicas(new) > replicas(old)
            || labels(new) != labels(old)
            || annotations(new) != annotations(old))
}

const OWN: &str = "surefoot.dev/";

/// The members at `path` whose key counts; none where there is nothing.
fn members<'a>(object: &'a Json, path: &[&str], counts: impl Fn(&str) -> bool) -> BTreeMap<&'a str, &'a Json> {
    let Some(Json::Object(members)) = json::at(object, path) else { return BTreeMap::new() };
    let named = members.iter().filter_map(|(key, value)| Some((json::as_str(key)?, value)));
    named.filter(|(key, _)| counts(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"metadata": {"labels": {"a": "1"}, "annotations": {"surefoot.dev/budget": "3", "note": "x"}},
        "spec": {"replicas": 3, "paused": true, "template": {"spec": {"x": 1}}}}"#;

    #[test]
    fn what_is_asked() {
        // (what of the old object, what instead, whether it is asked about)
        for (from, to, asked) in [
            ("", "", false),
            (r#""replicas": 3"#, r#""replicas": 2"#, false),
            (r#""replicas": 3"#, r#""replicas": 0"#, false),
            (r#""replicas": 3, "#, "", false),
            (r#""replicas": 3"#, r#""replicas": 4"#, true),
            (r#""paused": true, "#, "", false),
            (r#""x": 1"#, r#""x": 2"#, true),
            (r#", "template": {"spec": {"x": 1}}"#, "", true),
            (r#""paused": true"#, r#""minReadySeconds": 3"#, true),
            (r#""a": "1""#, "", true),
            (r#""a": "1""#, r#""a": "2""#, true),
            (r#""labels": {"a": "1"}, "#, "", true),
            (r#""note": "x""#, r#""note": "y""#, false),
            (r#""surefoot.dev/budget": "3", "#, "", true),
            (r#""note": "x""#, r#""surefoot.dev/override": "x""#, true),
            (r#""note": "x""#, r#""deprecated.deployment.rollback.to": "1""#, true),
            (r#""labels": {"a": "1"}"#, r#""labels": {"a": "2"}, "deletionTimestamp": "2026-11-22T10:00:00Z""#, false),
        ] {
            let (old, new) = (OLD.to_owned(), OLD.replace(from, to));
            let [old, new] = [old, if from.is_empty() { OLD.to_owned() } else { new }]
                .map(|text| Json::from_json_str(&text).unwrap());
            assert_eq!(is_asked_about(&old, &new), asked, "{from} -> {to}");
        }
    }

    /// Who changes the one has to look at the other.
    #[test]
    fn the_hooks_say_the_same() {
        let hooks = include_str!("../../manifests/base/hooks.yaml");
        let told = [
            "request.operation == 'CREATE' || (!has(object.metadata.deletionTimestamp) && (",
            "!object.spec.all(k, k in ['replicas', 'paused'] || (k in oldObject.spec && object.spec[k] == oldObject.spec[k]))",
            "|| !oldObject.spec.all(k, k in ['replicas', 'paused'] || k in object.spec)",
            "|| object.spec.?replicas.orValue(1) > oldObject.spec.?replicas.orValue(1)",
            "|| object.metadata.?labels.orValue({}) != oldObject.metadata.?labels.orValue({})",
            "(k.startsWith('surefoot.dev/') || k == 'deprecated.deployment.rollback.to')",
        ];
        for line in told {
            assert!(hooks.matches(line).count() >= 2, "{line}");
        }
    }
}
