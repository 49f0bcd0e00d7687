//! The JSON schema of `config.yaml`, for editors and for `docs/config.md`.
//!
//! The file is read by hand, because each mistake is to be named with its place; so this is written by hand beside it, and
//! the tests hold the two together.

use serde_json::{Value, json};

/// The schema (draft 7). `policies`: what stands below `policies`, by policy name; see
/// [`PolicySet::config_schema`](crate::admission::PolicySet::config_schema).
pub fn schema(policies: &Value) -> Value {
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "The configuration of surefoot",
        "description": "Holds only what differs from what the policies say of themselves. All but apiVersion and kind is optional.",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "additionalProperties": false,
        "properties": {
            "apiVersion": {"const": "surefoot.dev/v1"},
            "kind": {"const": "Config"},
            "policies": {
                "description": "Settings by policy name.",
                "type": "object",
                "additionalProperties": false,
                "properties": policies,
            },
            "exemptions": {
                "description": "Standing exceptions, each with a reason and an end.",
                "type": "array",
                "items": exemption(),
            },
            "rollouts": rollouts(),
        },
    })
}

/// The settings of one policy; `parameters`: the schema of its parameters.
pub(crate) fn policy(title: &str, parameters: &Value) -> Value {
    let action = || {
        json!({
            "description": "What its deny does at most; without it what the policy says of itself. What counts is the milder of this and the namespace's guard label.",
            "enum": ["Deny", "Warn", "Audit"],
        })
    };
    json!({
        "description": title,
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "action": action(),
            "parameters": parameters,
            "existing": {
                "description": "What becomes of what the Deployment had before and keeps: Deny refuses it too, Warn only warns about it.",
                "enum": ["Deny", "Warn"],
                "default": "Warn",
            },
            "overrides": {
                "description": "Other settings in some namespaces. The first whose selector matches counts.",
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["namespaces"],
                    "additionalProperties": false,
                    "properties": {"namespaces": selector(), "action": action(), "parameters": parameters},
                },
            },
        },
    })
}

fn exemption() -> Value {
    let text = |description: &str| json!({"description": description, "type": "string", "pattern": "\\S"});
    json!({
        "type": "object",
        "required": ["policies", "namespace", "name", "reason", "until"],
        "additionalProperties": false,
        "properties": {
            "policies": {
                "description": "Names of policies; * is all.",
                "type": "array", "minItems": 1, "items": {"type": "string"},
            },
            "namespace": text("Namespace of the Deployment."),
            "name": text("Name of the Deployment."),
            "reason": text("For those who read it later."),
            "until": {
                "description": "The last day (UTC) on which it counts.",
                "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
            },
        },
    })
}

fn rollouts() -> Value {
    let bake = || {
        duration(
            "How long a complete rollout must be quiet before it has settled and is what a revert goes back to.",
            "10m",
        )
    };
    json!({
        "description": "When the controller reverts.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "budget": budget(),
            "bake": bake(),
            "overrides": {
                "description": "Other numbers in some namespaces. The first whose selector matches counts.",
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["namespaces"],
                    "additionalProperties": false,
                    "properties": {"namespaces": selector(), "budget": budget(), "bake": bake()},
                },
            },
        },
    })
}

fn budget() -> Value {
    json!({
        "description": "Probe failures that a rollout may spend: it fails when both numbers are exceeded within the window.",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "failures": {"description": "Probe failures.", "type": "integer", "minimum": 1, "maximum": 10_000, "default": 10},
            "percent": {"description": "Of all probe attempts.", "type": "integer", "minimum": 0, "maximum": 100, "default": 10},
            "window": duration("Failures before it are forgotten.", "10m"),
        },
    })
}

fn duration(description: &str, default: &str) -> Value {
    json!({
        "description": format!("{description} From 1s to 24h."),
        "type": "string", "default": default,
        "pattern": "^([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$", "not": {"pattern": "^[0hms]*$"},
    })
}

fn selector() -> Value {
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let compares = json!({"properties": {"operator": {"enum": ["In", "NotIn"]}}});
    let with_values = json!({"required": ["values"], "properties": {"values": {"minItems": 1}}});
    let without = json!({"properties": {"values": {"maxItems": 0}}});
    let is_empty = |key: &str, empty: Value| json!({"properties": {key: {"const": empty}}});
    // Both may be there and empty; then nothing is selected by.
    let selects_nothing =
        json!({"allOf": [is_empty("matchLabels", json!({})), is_empty("matchExpressions", json!([]))]});
    json!({
        "description": "Namespaces by their labels, as in any Kubernetes selector.",
        "type": "object",
        "not": selects_nothing,
        "additionalProperties": false,
        "properties": {
            "matchLabels": {
                "description": "All of them are there.",
                "type": "object", "additionalProperties": {"type": "string"},
            },
            "matchExpressions": {
                "description": "All of them hold.",
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "additionalProperties": false,
                    "properties": {
                        "key": {"type": "string"},
                        "operator": {"enum": ["In", "NotIn", "Exists", "DoesNotExist"]},
                        "values": texts,
                    },
                    "if": compares, "then": with_values, "else": without,
                },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        super::{parse::fields, selector},
        *,
    };

    #[test]
    fn has_the_fields_that_are_read_and_no_others() {
        let schema = schema(&json!({"p": policy("", &json!({}))}));
        let rows: [(&str, &[&str]); 10] = [
            ("", &fields::CONFIG),
            ("/properties/policies/properties/p", &fields::POLICY),
            ("/properties/policies/properties/p/properties/overrides/items", &fields::POLICY_OVERRIDE),
            ("/properties/exemptions/items", &fields::EXEMPTION),
            ("/properties/rollouts", &fields::ROLLOUTS),
            ("/properties/rollouts/properties/overrides/items", &fields::ROLLOUT_OVERRIDE),
            ("/properties/rollouts/properties/budget", &fields::BUDGET),
            ("/properties/rollouts/properties/overrides/items/properties/budget", &fields::BUDGET),
            ("/properties/rollouts/properties/overrides/items/properties/namespaces", &selector::FIELDS),
            (
                "/properties/rollouts/properties/overrides/items/properties/namespaces/properties/matchExpressions/items",
                &selector::EXPRESSION_FIELDS,
            ),
        ];
        for (path, read) in rows {
            let object = schema.pointer(path).unwrap_or_else(|| panic!("{path}"));
            let described: BTreeSet<&str> =
                object["properties"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(described, read.iter().copied().collect(), "{path}");
            assert_eq!(object["additionalProperties"], false, "{path}");
        }
    }
}
