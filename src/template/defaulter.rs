//! The defaults of apps/v1: a Deployment as the API server hands it to a webhook.
//!
//! Offline input passes through here, so that a policy sees the same document in a pipeline and in the cluster: what is
//! absent is filled in, what is zero and optional is left out, quantities are canonical. What the server does is in
//! [`table`], type by type; here is how a table is applied. What admission plugins add, and fields whose feature gate is
//! off, are left alone, and so is whatever is not of the kind that the API wants.

use std::sync::Arc;

use super::{
    image,
    json::{self, Json},
    quantity,
};

mod table;

/// What the API server does with an object of one type of the API.
struct Type {
    /// Left out where they are zero: `0`, `false`, `""`, `[]`.
    optional: &'static [&'static str],
    /// The others that it does something about, in this order. A field that is not listed stays as it is.
    fields: &'static [(&'static str, Rule)],
}

/// What the API server does with one field.
enum Rule {
    /// Every element of a list; an empty list is left out.
    Each(&'static Type),
    /// An object that may be there.
    Inner(&'static Type),
    /// An object that is always there.
    Always(&'static Type),
    /// An object with keys of the user's choice; an empty one is left out.
    Map,
    /// The same of requests or limits.
    Quantities,
    /// One quantity, which may be there.
    Quantity,
    /// A value where there is none.
    Absent(Literal),
    /// A value where there is none, or zero.
    Zero(Literal),
    /// What follows from the object around it; `None`: it stays as it is.
    From(fn(&Json) -> Option<Json>),
}

enum Literal {
    Null,
    False,
    Int(i64),
    Text(&'static str),
}

impl Literal {
    fn json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::False => Json::from(false),
            Self::Int(number) => Json::from(*number),
            Self::Text(text) => Json::from(*text),
        }
    }
}

/// `deployment` with the defaults of apps/v1.
pub fn defaulted(deployment: &Json) -> Json {
    let mut deployment = deployment.clone();
    apply(&mut deployment);
    deployment
}

/// Fills in the defaults of apps/v1. Once is enough: a second time changes nothing.
pub fn apply(deployment: &mut Json) {
    table::DEPLOYMENT.apply(deployment);
}

/// Whether `value` at the JSON pointer `path` of a Deployment is what the API server puts there by itself, so that
/// nobody can tell it from absent.
pub fn is_default(path: &str, value: &Json) -> bool {
    let steps: Vec<&str> = path.split('/').skip(1).collect();
    table::DEPLOYMENT.is_default(&steps, value)
}

impl Type {
    fn is_default(&self, steps: &[&str], value: &Json) -> bool {
        let [key, below @ ..] = steps else { return false };
        let of_rule = |rule: &Rule| match (rule, below) {
            (Rule::Absent(default) | Rule::Zero(default), []) => default.json() == *value,
            (Rule::Always(_), []) => *value == Json::new_object(),
            (Rule::Always(inner) | Rule::Inner(inner), below) => inner.is_default(below, value),
            (Rule::Each(inner), [_, below @ ..]) => inner.is_default(below, value),
            _ => false,
        };
        below.is_empty() && self.optional.contains(key) && is_zero(value)
            || self.fields.iter().any(|(name, rule)| name == key && of_rule(rule))
    }

    fn apply(&self, object: &mut Json) {
        let Json::Object(members) = object else { return };
        let members = Arc::make_mut(members);
        members.retain(|key, value| {
            let is_optional = || matches!(key, Json::String(key) if self.optional.contains(&key.as_ref()));
            *value != Json::Null && !(is_zero(value) && is_optional())
        });
        for (key, rule) in self.fields {
            rule.apply(object, key);
        }
    }
}

impl Rule {
    fn apply(&self, object: &mut Json, key: &str) {
        let found = json::get(object, key);
        let made = match self {
            Self::Always(_) if found.is_none() => Some(Json::new_object()),
            Self::Absent(default) if found.is_none() => Some(default.json()),
            Self::Zero(default) if found.is_none_or(is_zero) => Some(default.json()),
            Self::From(derive) => derive(object),
            _ => None,
        };
        let Json::Object(members) = object else { return };
        let members = Arc::make_mut(members);
        if let Some(value) = made {
            members.insert(Json::from(key), value);
        }
        let Some(value) = members.get_mut(&Json::from(key)) else { return };
        match (self, value) {
            (Self::Each(_), Json::Array(elements)) if elements.is_empty() => drop(members.remove(&Json::from(key))),
            (Self::Each(below), Json::Array(elements)) => {
                Arc::make_mut(elements).iter_mut().for_each(|element| below.apply(element));
            }
            (Self::Inner(below) | Self::Always(below), value) => below.apply(value),
            (Self::Map | Self::Quantities, Json::Object(entries)) if entries.is_empty() => {
                members.remove(&Json::from(key));
            }
            (Self::Map, Json::Object(entries)) => {
                // Go reads null as the zero value of what a map holds.
                for (_, value) in Arc::make_mut(entries).iter_mut().filter(|(_, value)| **value == Json::Null) {
                    *value = Json::from("");
                }
            }
            (Self::Quantities, Json::Object(entries)) => {
                Arc::make_mut(entries).iter_mut().for_each(|(_, value)| canonical(value, Precision::Milli));
            }
            (Self::Quantity, value) => canonical(value, Precision::Nano),
            _ => {}
        }
    }
}

fn is_zero(value: &Json) -> bool {
    match value {
        Json::Bool(value) => !value,
        Json::Number(number) => number.as_i64() == Some(0),
        Json::String(text) => text.is_empty(),
        Json::Array(elements) => elements.is_empty(),
        _ => false,
    }
}

#[derive(PartialEq)]
enum Precision {
    Milli,
    Nano,
}

/// A quantity in the form in which the API server gives it back; what is none stays.
fn canonical(value: &mut Json, precision: Precision) {
    let text = match value {
        Json::String(text) => text.to_string(),
        Json::Number(number) => number.format_decimal(),
        Json::Null => "0".to_owned(),
        _ => return,
    };
    let Ok(quantity) = quantity::parse(&text) else { return };
    let quantity = if precision == Precision::Milli { quantity.rounded_to_milli() } else { quantity };
    *value = Json::from(quantity.to_string());
}

/// Not zero and of the kind text.
fn text<'a>(object: &'a Json, key: &str) -> Option<&'a str> {
    json::str_at(object, &[key]).filter(|text| !text.is_empty())
}

/// `Always` where the image is `latest`, by name or for want of one.
fn pull_policy(object: &Json, own: &str, image: &str) -> Option<Json> {
    let is_set = json::get(object, own).is_some_and(|value| !is_zero(value));
    let image = match json::get(object, image) {
        None => "",
        Some(image) => json::as_str(image)?,
    };
    (!is_set).then(|| Json::from(if image::is_latest(image) { "Always" } else { "IfNotPresent" }))
}

/// A volume that says nothing of its source is an empty directory.
fn empty_dir(volume: &Json) -> Option<Json> {
    let Json::Object(members) = volume else { return None };
    let has_source = members.keys().any(|key| *key != Json::from("name"));
    (!has_source).then(Json::new_object)
}

/// The parameters of a rolling update, where there is to be one.
fn rolling_update(strategy: &Json) -> Option<Json> {
    let is_rolling = text(strategy, "type") == Some("RollingUpdate");
    (is_rolling && json::get(strategy, "rollingUpdate").is_none()).then(Json::new_object)
}

/// Either name of the service account stands for both; `serviceAccountName` wins.
fn service_account(pod: &Json) -> Option<Json> {
    text(pod, "serviceAccountName").or_else(|| text(pod, "serviceAccount")).map(Json::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Json {
        Json::from_json_str(text).unwrap()
    }

    fn deployment(spec: &str) -> Json {
        parse(&format!(r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"a"}},"spec":{spec}}}"#))
    }

    /// A trial against a real API server says what is right; here is what it looks like.
    #[test]
    fn the_least_deployment() {
        let given =
            deployment(r#"{"selector":{},"template":{"spec":{"containers":[{"name":"model","image":"model"}]}}}"#);
        let want = r#"{
            "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, "selector": {},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {"metadata": {}, "spec": {
                "containers": [{
                    "name": "model", "image": "model", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30}}}"#;
        assert_eq!(defaulted(&given), deployment(want));
    }

    /// Rows: a container and one of its members, before and after.
    #[test]
    fn members_of_a_container() {
        let rows = [
            (r#""ports":[{"containerPort":80,"hostPort":0}]"#, r#""ports":[{"containerPort":80,"protocol":"TCP"}]"#),
            (r#""ports":[]"#, ""),
            (r#""ports":{"containerPort":80}"#, r#""ports":{"containerPort":80}"#),
            (r#""ports":[7,"http"]"#, r#""ports":[7,"http"]"#),
            (
                r#""startupProbe":{"httpGet":{"port":"http"},"initialDelaySeconds":0,"periodSeconds":2}"#,
                r#""startupProbe":{"httpGet":{"path":"/","port":"http","scheme":"HTTP"},"failureThreshold":3,"periodSeconds":2,"successThreshold":1,"timeoutSeconds":1}"#,
            ),
            (r#""startupProbe":"soon""#, r#""startupProbe":"soon""#),
            (r#""env":[{"name":"A","value":""}]"#, r#""env":[{"name":"A"}]"#),
        ];
        for (member, want) in rows {
            let given = deployment(&format!(r#"{{"template":{{"spec":{{"containers":[{{{member}}}]}}}}}}"#));
            let container = json::list_at(&defaulted(&given), &["spec", "template", "spec", "containers"])[0].clone();
            let want = parse(&format!("{{{want}}}"));
            for key in ["ports", "startupProbe", "env"] {
                assert_eq!(json::get(&container, key), json::get(&want, key), "{member}");
            }
        }
    }

    /// Rows: limits before and after; requests are not made of them.
    #[test]
    fn quantities() {
        let rows = [
            (r#"{"cpu":"1000m","memory":"1.5Gi"}"#, r#"{"limits":{"cpu":"1","memory":"1536Mi"}}"#),
            (r#"{"cpu":0.5,"memory":1024}"#, r#"{"limits":{"cpu":"500m","memory":"1024"}}"#),
            (r#"{"cpu":"1u","memory":"lots"}"#, r#"{"limits":{"cpu":"1m","memory":"lots"}}"#),
            (r#"{"cpu":true,"memory":null}"#, r#"{"limits":{"cpu":true,"memory":"0"}}"#),
            ("{}", "{}"),
        ];
        for (limits, want) in rows {
            let container = format!(r#"{{"resources":{{"limits":{limits}}}}}"#);
            let given = deployment(&format!(r#"{{"template":{{"spec":{{"containers":[{container}]}}}}}}"#));
            let containers = defaulted(&given);
            let container = &json::list_at(&containers, &["spec", "template", "spec", "containers"])[0];
            assert_eq!(json::get(container, "resources"), Some(&parse(want)), "{limits}");
        }
    }

    #[test]
    fn what_cannot_be_told_from_absent() {
        const CONTAINER: &str = "/spec/template/spec/containers/1";
        let rows = [
            ("/spec/minReadySeconds", "0", true),
            ("/spec/minReadySeconds", "1", false),
            ("/spec/progressDeadlineSeconds", "600", true),
            ("/spec/progressDeadlineSeconds", r#""600""#, false),
            ("/spec/revisionHistoryLimit", "0", false),
            ("/spec/strategy/rollingUpdate/maxSurge", r#""25%""#, true),
            ("/spec/template/spec/securityContext", "{}", true),
            ("/spec/template/metadata/labels/a", "\"\"", false),
            (&format!("{CONTAINER}/readinessProbe/periodSeconds"), "10", true),
            (&format!("{CONTAINER}/readinessProbe/periodSeconds"), "0", false),
            (&format!("{CONTAINER}/readinessProbe"), "{}", false),
            ("/spec/template/spec/containers", "[]", false),
            ("/spec/unknown", "0", false),
            ("", "{}", false),
        ];
        for (path, value, want) in rows {
            assert_eq!(is_default(path, &parse(value)), want, "{path} {value}");
        }
    }

    #[test]
    fn what_is_no_deployment_stays() {
        for text in ["null", "7", "[]", r#""a""#, r#"{"spec":7}"#, r#"{"spec":[{}]}"#] {
            assert_eq!(defaulted(&parse(text)), parse(text));
        }
    }

    /// Every way through the table, as the steps of a path; `0` enters a list.
    fn paths(of: &'static Type, above: &[&'static str], found: &mut Vec<Vec<&'static str>>) {
        let below = |key| [above, &[key]].concat();
        found.extend(of.optional.iter().map(|key| below(key)));
        for (key, rule) in of.fields {
            found.push(below(key));
            match rule {
                Rule::Each(inner) => paths(inner, &[below(key), vec!["0"]].concat(), found),
                Rule::Inner(inner) | Rule::Always(inner) => paths(inner, &below(key), found),
                Rule::Map | Rule::Quantities => found.push([below(key), vec!["some"]].concat()),
                _ => {}
            }
        }
    }

    fn planted(path: &[&str], value: &serde_json::Value) -> serde_json::Value {
        match path {
            [] => value.clone(),
            ["0", rest @ ..] => serde_json::json!([planted(rest, value), {}]),
            [key, rest @ ..] => serde_json::json!({ *key: planted(rest, value) }),
        }
    }

    /// Odd values, one at each of the paths that `paths` goes.
    fn odd() -> impl Strategy<Value = serde_json::Value> {
        prop::sample::select(vec![
            "null",
            "0",
            "1",
            "-1",
            "1.5",
            "1e30",
            "true",
            "false",
            r#""""#,
            r#""a""#,
            r#""1Gi""#,
            "[]",
            "[null]",
            "[[]]",
            "{}",
            r#"{"":null}"#,
            r#"{"name":""}"#,
        ])
        .prop_map(|text| serde_json::from_str(text).unwrap())
    }

    proptest! {
        #[test]
        fn once_is_enough_whatever_is_given(picks in prop::collection::vec((any::<prop::sample::Index>(), odd()), 1..6)) {
            let mut all = Vec::new();
            paths(&table::DEPLOYMENT, &[], &mut all);
            let mut given = serde_json::json!({});
            for (pick, value) in &picks {
                json_patch::merge(&mut given, &planted(&all[pick.index(all.len())], value));
            }
            let once = defaulted(&Json::from(given.clone()));
            prop_assert_eq!(&defaulted(&once), &once, "{}", given);
        }
    }
}
