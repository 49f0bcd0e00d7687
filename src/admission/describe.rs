//! What a policy set says of itself: for `surefoot explain`, the documents, and the schema of `config.yaml`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    bounds::{Bounds, Format, Kind},
    policy_set::{Policy, PolicySet},
    settings::plain,
};
use crate::config;

/// Findings that come from no policy, and what they mean.
pub const NATIVE: [(&str, &str); 4] = [
    (
        "broken",
        "Not the fault of whoever applied: the named policy itself broke, at the file and line in the message. Under guard enforce nothing passes that it could not judge. Tell whoever keeps the policies.",
    ),
    (
        "quarantine",
        "This pod template was reverted here. It is refused until it is changed (a new image is enough), or until an override lets it through and it settles. No policy and no configuration switches that off.",
    ),
    ("kubernetes/invalid", "Offline only: the API server would refuse this Deployment, whatever the policies say."),
    (
        "kubernetes/unknown-field",
        "Offline only: no Kubernetes that is known has a field of this name there; kubectl would refuse it, or the API server drop it.",
    ),
];

impl PolicySet {
    /// `{"version": 1, "policies": [{"name", "title", "description", "action", "needs", "scale", "rules", "parameters",
    /// "codes"}], "codes": {}}`; `parameters` are JSON schemas by name, the outer `codes` are [`NATIVE`].
    pub fn describe(&self) -> Value {
        let policies: Vec<Value> = self.policies().iter().map(Policy::describe).collect();
        json!({"version": 1, "policies": policies, "codes": BTreeMap::from(NATIVE)})
    }

    /// What may stand below `policies` in `config.yaml`: a JSON schema for each policy.
    pub fn config_schema(&self) -> Value {
        let settings = |policy: &Policy| {
            let parameters = json!({
                "description": "Values for the parameters of the policy.",
                "type": "object", "additionalProperties": false, "properties": policy.parameter_schemas(),
            });
            (policy.name.clone(), config::policy_schema(&policy.metadata.title, &parameters))
        };
        Value::Object(self.policies().iter().map(settings).collect())
    }
}

impl Policy {
    fn describe(&self) -> Value {
        let metadata = &self.metadata;
        let rules: Vec<&str> = ["deny", "warn", "defaults"].into_iter().filter(|rule| self.has(rule)).collect();
        let needs: Vec<&str> = metadata.needs.iter().map(|need| need.as_str()).collect();
        json!({
            "name": self.name, "title": metadata.title, "description": metadata.description, "action": metadata.action,
            "needs": needs, "scale": metadata.scale, "rules": rules, "parameters": self.parameter_schemas(),
            "codes": metadata.codes,
        })
    }

    fn parameter_schemas(&self) -> BTreeMap<String, Value> {
        self.parameters
            .iter()
            .map(|(name, default)| (name.clone(), self.parameter_schema(name, &plain(default))))
            .collect()
    }

    fn parameter_schema(&self, name: &str, default: &Value) -> Value {
        let free = Bounds::default();
        let bounds = self.metadata.parameters.get(name).unwrap_or(&free);
        let mut schema = schema(Kind::of(default), bounds);
        schema.insert("default".to_owned(), default.clone());
        Value::Object(schema)
    }
}

/// What METADATA says of a value of this kind, or of any, as JSON schema has it.
fn schema(kind: Option<Kind>, bounds: &Bounds) -> Map<String, Value> {
    let mut schema = Map::new();
    let is_whole = kind == Some(Kind::Number) && bounds.format == Some(Format::Integer);
    let word = kind.map(|kind| if is_whole { "integer" } else { kind.as_str() });
    schema.extend(word.map(|word| ("type".to_owned(), word.into())));
    if !bounds.description.is_empty() {
        schema.insert("description".to_owned(), bounds.description.clone().into());
    }
    for (key, bound) in [("minimum", bounds.minimum), ("maximum", bounds.maximum)] {
        schema.extend(bound.map(|bound| (key.to_owned(), whole(bound))));
    }
    if !bounds.allowed.is_empty() {
        schema.insert("enum".to_owned(), bounds.allowed.clone().into());
    }
    if let Some(pattern) = &bounds.pattern {
        everywhere(&mut schema, kind, json!({"type": "string", "pattern": pattern}));
    }
    if bounds.format == Some(Format::Quantity) {
        everywhere(&mut schema, kind, json!({"type": ["string", "number"], "pattern": QUANTITY, "minimum": 0}));
    }
    if let Some(element) = &bounds.element {
        schema.insert("items".to_owned(), self::schema(element.kind, element).into());
    }
    if !bounds.members.is_empty() {
        let members = bounds.members.iter().map(|(name, below)| (name.clone(), self::schema(below.kind, below).into()));
        schema.insert("properties".to_owned(), Value::Object(members.collect()));
        schema.insert("required".to_owned(), bounds.required.clone().into());
        schema.insert("additionalProperties".to_owned(), false.into());
    }
    schema
}

/// What holds of every text in a value: of itself, or of what it has in it.
fn everywhere(schema: &mut Map<String, Value>, kind: Option<Kind>, texts: Value) {
    match (kind, texts) {
        (Some(Kind::List), texts) => drop(schema.insert("items".to_owned(), texts)),
        (None | Some(Kind::Mapping), texts) => drop(schema.insert("additionalProperties".to_owned(), texts)),
        (_, texts) => {
            for (key, value) in texts.as_object().into_iter().flatten() {
                schema.entry(key).or_insert_with(|| value.clone());
            }
        }
    }
}

/// A quantity as Kubernetes reads it, but for white space around it and what is negative.
const QUANTITY: &str = "^[+]?([0-9]+[.]?[0-9]*|[.][0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]+)?$";

/// 10 and not 10.0, where that is the same.
#[allow(clippy::cast_possible_truncation, reason = "only where nothing is cut off")]
fn whole(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 { (number as i64).into() } else { number.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn each_code_of_a_shipped_policy_is_explained_and_no_other() {
        let sources = PolicySet::built_in_sources();
        let set = PolicySet::load(sources.clone(), &Config::default()).unwrap();
        for policy in set.policies() {
            let text = &sources.iter().find(|source| source.path == policy.file).unwrap().text;
            let written = text.match_indices("\"code\": \"").map(|(at, start)| {
                let rest = &text[at + start.len()..];
                rest.split('"').next().unwrap().to_owned()
            });
            // The nouns of a computed code (`no-request`, `no-limit`) are tested with the cases.
            for code in written {
                assert!(policy.metadata.codes.contains_key(&code), "{}/{code} is not explained", policy.name);
            }
            for code in policy.metadata.codes.keys() {
                let noun = code.strip_prefix("no-").unwrap_or(code);
                assert!(text.contains(&format!("\"{code}\"")) || text.contains(&format!("\"{noun}\"")), "{code}");
            }
        }
    }

    #[test]
    fn a_parameter_is_described_with_kind_default_and_bounds() {
        let set = PolicySet::load(PolicySet::built_in_sources(), &Config::default()).unwrap();
        let schema = set.config_schema();
        let percent = &schema["canary-cap"]["properties"]["parameters"]["properties"]["percent"];
        assert_eq!(
            (&percent["type"], &percent["default"], &percent["minimum"], &percent["maximum"]),
            (&json!("integer"), &json!(10), &json!(1), &json!(100))
        );
        assert_eq!(set.describe()["policies"][0]["name"], "canary-cap");
    }
}
