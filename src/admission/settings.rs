//! What counts for a policy in a namespace: its METADATA, the configuration over it, the first matching override over that.

use std::collections::BTreeMap;

use super::{
    bounds::Kind,
    policy_set::{LoadError, Policy},
};
use crate::{
    config::{
        Action, Config, ConfigError, Parameter, Selector,
        yaml::{self, Position},
    },
    template::{Json, json},
};

/// The settings of one policy, checked once at load.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    base: Effective,
    overrides: Vec<(Selector, Effective)>,
    /// Findings that were there before deny all the same.
    pub(super) no_ratchet: bool,
}

/// What counts where.
#[derive(Clone, Debug)]
pub(super) struct Effective {
    pub(super) action: Action,
    /// `input.parameters`: only what is configured; the defaults live in the policy.
    pub(super) parameters: Json,
}

impl Default for Effective {
    fn default() -> Self {
        Self { action: Action::Deny, parameters: Json::new_object() }
    }
}

impl Settings {
    /// What counts in a namespace with these labels; `None`: they are not known, and no override counts.
    pub(super) fn in_namespace(&self, labels: Option<&BTreeMap<String, String>>) -> &Effective {
        let matching =
            labels.and_then(|labels| self.overrides.iter().find(|(namespaces, _)| namespaces.matches(labels)));
        matching.map_or(&self.base, |(_, effective)| effective)
    }

    /// What counts depends on the namespace.
    pub(super) fn has_overrides(&self) -> bool {
        !self.overrides.is_empty()
    }
}

/// The settings of `policy`, or every mistake in them.
pub(super) fn settings(policy: &Policy, config: &Config) -> Result<Settings, Vec<LoadError>> {
    let Some(configured) = config.policies.get(&policy.name) else {
        let base = Effective { action: policy.metadata.action, ..Effective::default() };
        return Ok(Settings { base, ..Settings::default() });
    };
    let mut errors = Vec::new();
    let overridden = configured.overrides.iter().flat_map(|one| &one.parameters);
    for (name, parameter) in configured.parameters.iter().chain(overridden) {
        let refused = refuse(policy, name, parameter).into_iter();
        errors.extend(
            refused.map(|(at, message)| ConfigError::new(&config.origin.file, &config.origin.text, at, message)),
        );
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let base = Effective {
        action: configured.action.unwrap_or(policy.metadata.action),
        parameters: object([&configured.parameters, &BTreeMap::new()]),
    };
    let overrides = configured.overrides.iter().map(|one| {
        let parameters = object([&configured.parameters, &one.parameters]);
        (one.namespaces.clone(), Effective { action: one.action.unwrap_or(base.action), parameters })
    });
    Ok(Settings { overrides: overrides.collect(), base, no_ratchet: configured.existing == Some(Action::Deny) })
}

fn object(layers: [&BTreeMap<String, Parameter>; 2]) -> Json {
    let members = layers.into_iter().flatten();
    Json::from(
        members
            .map(|(name, parameter)| (Json::from(name.as_str()), Json::from(parameter.value.clone())))
            .collect::<BTreeMap<_, _>>(),
    )
}

/// Why the policy does not take this parameter, and where.
fn refuse(policy: &Policy, name: &str, parameter: &Parameter) -> Vec<(Position, String)> {
    let Some(default) = policy.parameters.get(name) else {
        let known: Vec<&str> = policy.parameters.keys().map(String::as_str).collect();
        let what = format!("policy {} has no parameter", policy.name);
        return vec![(parameter.at, yaml::unknown(&what, name, &known))];
    };
    let (wanted, found) = (Kind::of(&plain(default)), Kind::of(&parameter.value));
    if wanted.is_some() && wanted != found {
        let message = format!("`{name}` must be {} such as {default}, not {}", Kind::told(wanted), Kind::told(found));
        return vec![(parameter.at, message)];
    }
    let Some(bounds) = policy.metadata.parameters.get(name) else { return Vec::new() };
    let place = |path: &[String]| if path.is_empty() { parameter.at } else { parameter.node.place(path) };
    bounds.refuse(name, &parameter.value).into_iter().map(|one| (place(&one.path), one.message)).collect()
}

/// The value as plain JSON; a set becomes a list.
pub(super) fn plain(value: &Json) -> serde_json::Value {
    match value {
        Json::Null | Json::Undefined => serde_json::Value::Null,
        Json::Bool(value) => (*value).into(),
        Json::String(text) => text.as_ref().into(),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => number.into(),
            (_, Some(number)) => number.into(),
            // Larger than any integer of JSON; as_f64 would cut digits off instead of rounding.
            _ => serde_json::to_value(value).unwrap_or_default(),
        },
        Json::Array(elements) => elements.iter().map(plain).collect(),
        Json::Set(elements) => elements.iter().map(plain).collect(),
        Json::Object(members) => members
            .iter()
            .map(|(key, value)| (json::as_str(key).map_or_else(|| key.to_string(), str::to_owned), plain(value)))
            .collect(),
    }
}
