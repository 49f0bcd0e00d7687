//! From the tree of `config.yaml` to [`Config`]: every field checked, every mistake named with its place.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Action, Budget, Config, ConfigError, Exemption, Origin, Parameter, PolicyOverride, PolicySettings, RolloutOverride,
    Rollouts, Selector,
    yaml::{self, Node, Wrong},
};

const ACTIONS: [(&str, Action); 3] = [("Deny", Action::Deny), ("Warn", Action::Warn), ("Audit", Action::Audit)];
/// What was there before is warned about, or refused all the same.
const EXISTING: [(&str, Action); 2] = [("Deny", Action::Deny), ("Warn", Action::Warn)];

/// The fields of each object in the file; `schema.rs` describes the same.
pub(super) mod fields {
    pub(in super::super) const CONFIG: [&str; 5] = ["apiVersion", "kind", "policies", "exemptions", "rollouts"];
    pub(in super::super) const POLICY: [&str; 4] = ["action", "parameters", "existing", "overrides"];
    pub(in super::super) const POLICY_OVERRIDE: [&str; 3] = ["namespaces", "action", "parameters"];
    pub(in super::super) const EXEMPTION: [&str; 5] = ["policies", "namespace", "name", "reason", "until"];
    pub(in super::super) const ROLLOUTS: [&str; 3] = ["budget", "bake", "overrides"];
    pub(in super::super) const ROLLOUT_OVERRIDE: [&str; 3] = ["namespaces", "budget", "bake"];
    pub(in super::super) const BUDGET: [&str; 3] = ["failures", "percent", "window"];
}

const MAX_WINDOW: Duration = Duration::from_secs(24 * 3600);

pub(super) fn config(text: &str, file: &str) -> Result<Config, ConfigError> {
    yaml::parse(text)
        .and_then(|root| decode(&root, Origin { file: file.to_owned(), text: text.to_owned() }))
        .map_err(|wrong| ConfigError::new(file, text, wrong.at, wrong.message))
}

fn decode(root: &Node, origin: Origin) -> Result<Config, Wrong> {
    let config = root.members("the configuration", &fields::CONFIG)?;
    for (key, wanted) in [("apiVersion", "surefoot.dev/v1"), ("kind", "Config")] {
        let found = config.required(key, &format!("; write `{key}: {wanted}`"))?;
        if found.text(key)? != wanted {
            return found.wrong(format!("`{key}` must be `{wanted}`"));
        }
    }
    let mut policies = BTreeMap::new();
    if let Some(node) = config.get("policies") {
        for (name, settings) in node.entries("policies")? {
            policies.insert(name.text("a policy name")?.to_owned(), policy(name, settings)?);
        }
    }
    let mut exemptions = Vec::new();
    if let Some(node) = config.get("exemptions") {
        for node in node.elements("exemptions")? {
            exemptions.push(exemption(node)?);
        }
    }
    let rollouts = config.get("rollouts").map(rollouts).transpose()?.unwrap_or_default();
    Ok(Config { policies, exemptions, rollouts, origin })
}

fn policy(name: &Node, node: &Node) -> Result<PolicySettings, Wrong> {
    let settings = node.members("a policy", &fields::POLICY)?;
    let mut overrides = Vec::new();
    if let Some(node) = settings.get("overrides") {
        for node in node.elements("overrides")? {
            let one = node.members("an override", &fields::POLICY_OVERRIDE)?;
            overrides.push(PolicyOverride {
                namespaces: Selector::parse(one.required("namespaces", "; it says where the override counts")?)?,
                action: one.get("action").map(|node| node.word("`action`", &ACTIONS)).transpose()?,
                parameters: parameters(one.get("parameters"))?,
            });
        }
    }
    Ok(PolicySettings {
        at: name.at,
        action: settings.get("action").map(|node| node.word("`action`", &ACTIONS)).transpose()?,
        parameters: parameters(settings.get("parameters"))?,
        existing: settings.get("existing").map(|node| node.word("`existing`", &EXISTING)).transpose()?,
        overrides,
    })
}

fn parameters(node: Option<&Node>) -> Result<BTreeMap<String, Parameter>, Wrong> {
    let Some(node) = node else { return Ok(BTreeMap::new()) };
    node.entries("parameters")?
        .into_iter()
        .map(|(key, value)| {
            let name = key.text("the name of a parameter")?.to_owned();
            Ok((name, Parameter { at: key.at, value: value.to_json(), node: value.clone() }))
        })
        .collect()
}

fn exemption(node: &Node) -> Result<Exemption, Wrong> {
    let one = node.members("an exemption", &fields::EXEMPTION)?;
    let text = |key: &str, why: &str| -> Result<String, Wrong> {
        let node = one.required(key, why)?;
        match node.text(&format!("`{key}`"))? {
            empty if empty.trim().is_empty() => node.wrong(format!("`{key}` is empty{why}")),
            text => Ok(text.to_owned()),
        }
    };
    let listed = one.required("policies", "; name the policies, or write [\"*\"] for all")?;
    let policies: Vec<String> = listed
        .elements("`policies`")?
        .iter()
        .map(|node| node.text("a policy name").map(str::to_owned))
        .collect::<Result<_, _>>()?;
    if policies.is_empty() {
        return listed.wrong("`policies` is empty; name the policies, or write [\"*\"] for all");
    }
    let until = one.required("until", "; an exemption ends on some day, e.g. 2027-01-31")?;
    let Ok(last_day) = until.text("`until`")?.parse() else {
        return until.wrong("`until` must be a day such as 2027-01-31");
    };
    Ok(Exemption {
        at: listed.at,
        policies,
        namespace: text("namespace", "; an exemption is for one Deployment")?,
        name: text("name", "; an exemption is for one Deployment")?,
        reason: text("reason", "; whoever reads this next year wants to know")?,
        until: last_day,
    })
}

fn rollouts(node: &Node) -> Result<Rollouts, Wrong> {
    let default = Rollouts::default();
    let given = node.members("rollouts", &fields::ROLLOUTS)?;
    let base = budget_and_bake(given.get("budget"), given.get("bake"))?;
    let mut overrides = Vec::new();
    if let Some(node) = given.get("overrides") {
        for node in node.elements("overrides")? {
            let one = node.members("an override", &fields::ROLLOUT_OVERRIDE)?;
            let namespaces = Selector::parse(one.required("namespaces", "; it says where the override counts")?)?;
            overrides.push(RolloutOverride { namespaces, ..budget_and_bake(one.get("budget"), one.get("bake"))? });
        }
    }
    Ok(Rollouts {
        budget: Budget {
            failures: base.failures.unwrap_or(default.budget.failures),
            percent: base.percent.unwrap_or(default.budget.percent),
            window: base.window.unwrap_or(default.budget.window),
        },
        bake: base.bake.unwrap_or(default.bake),
        overrides,
    })
}

fn budget_and_bake(budget: Option<&Node>, bake: Option<&Node>) -> Result<RolloutOverride, Wrong> {
    let second = Duration::from_secs(1);
    let mut found = RolloutOverride {
        bake: bake.map(|node| duration(node, "`bake`", second, MAX_WINDOW)).transpose()?,
        ..RolloutOverride::default()
    };
    if let Some(node) = budget {
        let budget = node.members("a budget", &fields::BUDGET)?;
        let number = |key: &str, least: u64, most: u64| {
            let number = budget.get(key).map(|node| node.integer(&format!("`{key}`"), least, most)).transpose()?;
            Ok::<_, Wrong>(number.map(|number| u32::try_from(number).unwrap_or(u32::MAX)))
        };
        found.failures = number("failures", 1, 10_000)?;
        found.percent = number("percent", 0, 100)?;
        found.window = budget.get("window").map(|node| duration(node, "`window`", second, MAX_WINDOW)).transpose()?;
    }
    Ok(found)
}

/// Go's way of writing a duration, in whole hours, minutes and seconds: `1h30m`, `90s`.
fn duration(node: &Node, what: &str, least: Duration, most: Duration) -> Result<Duration, Wrong> {
    let wanted = format!("{what} must be a duration such as 10m, 90s or 1h30m, from 1s to 24h");
    let Ok(text) = node.text(what) else { return node.wrong(wanted) };
    match parse_duration(text) {
        Some(found) if (least..=most).contains(&found) => Ok(found),
        _ => node.wrong(format!("{wanted}, not `{text}`")),
    }
}

/// `None` unless every number has a unit, the units fall from hours to seconds, and each occurs once.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = 0u64;
    let mut number = String::new();
    let mut units = [('h', 3600), ('m', 60), ('s', 1)].into_iter();
    for c in text.chars() {
        if c.is_ascii_digit() && number.len() < 9 {
            number.push(c);
            continue;
        }
        let (_, seconds) = units.find(|(unit, _)| *unit == c)?;
        total += number.parse::<u64>().ok()? * seconds;
        number.clear();
    }
    (number.is_empty() && !text.is_empty()).then(|| Duration::from_secs(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: surefoot.dev/v1\nkind: Config\n";

    #[test]
    fn the_example_of_the_design_is_read() {
        let text = format!(
            "{HEAD}{}",
            r#"
policies:
  resources:   {parameters: {requests: {cpu: 500m, memory: 1Gi}}}
  images:      {action: Warn, existing: Deny}
  canary-cap:
    parameters: {percent: 20}
    overrides:
      - namespaces: {matchLabels: {tier: research}}
        parameters: {percent: 50}
exemptions:
  - {policies: [probes], namespace: shop, name: legacy-scorer, reason: "speaks only TCP, OPS-311", until: 2027-01-31}
rollouts:
  budget: {failures: 20, percent: 5, window: 5m}
  bake: 1h30m
  overrides:
    - namespaces: {matchLabels: {tier: research}}
      budget: {failures: 30}
"#
        );
        let config = Config::parse(&text, "config.yaml").unwrap();
        assert_eq!(config.policies["images"].action, Some(Action::Warn));
        assert_eq!(config.policies["images"].existing, Some(Action::Deny));
        let canary = &config.policies["canary-cap"];
        assert_eq!((canary.at.line, canary.at.column), (7, 3));
        assert_eq!(canary.parameters["percent"].value, serde_json::json!(20));
        assert_eq!(canary.overrides[0].parameters["percent"].value, serde_json::json!(50));
        assert_eq!(config.policies["resources"].parameters["requests"].value["cpu"], "500m");
        let labels = |value: &str| BTreeMap::from([("tier".to_owned(), value.to_owned())]);
        let (budget, bake) = config.rollouts.for_namespace(&labels("research"));
        assert_eq!((budget.failures, budget.percent, budget.window.as_secs(), bake.as_secs()), (30, 5, 300, 5400));
        assert_eq!(config.rollouts.for_namespace(&labels("x")).0.failures, 20);
        for (now, covered) in [("2027-01-31T23:59:59Z", true), ("2027-02-01T00:00:00Z", false)] {
            let now = now.parse().unwrap();
            assert_eq!(config.exemption("probes", "shop", "legacy-scorer", now).is_some(), covered);
            assert_eq!(config.ended(now).len(), usize::from(!covered));
            assert!(config.exemption("images", "shop", "legacy-scorer", now).is_none());
            assert!(config.exemption("probes", "shop", "other", now).is_none());
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let rows = [
            ("", "1:1", "`apiVersion` is missing"),
            ("[]", "1:1", "the configuration must be a mapping"),
            ("apiVersion: v1\n", "1:13", "`apiVersion` must be `surefoot.dev/v1`"),
            ("apiVersion: surefoot.dev/v1\nkind: Confg\n", "2:7", "`kind` must be `Config`"),
            ("*polices: {}", "3:1", "no field `polices`; did you mean `policies`?"),
            ("*policies: {a: {acton: Warn}}", "3:16", "did you mean `action`?"),
            ("*policies: {a: {action: warn}}", "3:24", "did you mean `Warn`?"),
            ("*policies: {a: {}, a: {}}", "3:19", "there twice"),
            ("*policies: {a: {overrides: [{parameters: {}}]}}", "3:28", "`namespaces` is missing"),
            ("*policies: {a: {overrides: [{namespaces: {matchLabels: {}}}]}}", "3:41", "would match every namespace"),
            ("*exemptions: [{policies: [a], namespace: b, name: c, until: 2027-01-31}]", "3:14", "`reason` is missing"),
            ("*exemptions: [{policies: [a], namespace: b, name: c, reason: d}]", "3:14", "`until` is missing"),
            (
                "*exemptions: [{policies: [a], namespace: b, name: c, reason: d, until: soon}]",
                "3:71",
                "a day such as 2027-01-31",
            ),
            (
                "*exemptions: [{policies: [], namespace: b, name: c, reason: d, until: x}]",
                "3:25",
                "`policies` is empty",
            ),
            ("*rollouts: {bake: 10}", "3:18", "a duration such as 10m"),
            ("*rollouts: {bake: 10 m}", "3:18", "not `10 m`"),
            ("*rollouts: {bake: 48h}", "3:18", "from 1s to 24h"),
            ("*rollouts: {bake: 0s}", "3:18", "from 1s to 24h"),
            ("*rollouts: {budget: {failures: 0}}", "3:31", "from 1 to 10000, not 0"),
            ("*rollouts: {budget: {percent: 101}}", "3:30", "from 0 to 100"),
            ("*rollouts: {budget: {percent: 1.5}}", "3:30", "whole number"),
            ("*rollouts: {budget: {failures: -1}}", "3:31", "whole number"),
            ("*rollouts: {budget: [", "3:20", ""),
        ];
        for (text, at, message) in rows {
            let text = text.replacen('*', HEAD, 1);
            let error = Config::parse(&text, "c.yaml").unwrap_err();
            assert_eq!(format!("{}:{}", error.line, error.column), at, "{text}: {error}");
            assert!(error.message.contains(message), "{text}: {error}");
            assert!(error.to_string().starts_with(&format!("c.yaml:{at}: ")));
        }
    }

    #[test]
    fn durations_as_go_writes_them() {
        let rows = [
            ("10m", Some(600)),
            ("90s", Some(90)),
            ("1h30m", Some(5400)),
            ("1h1m1s", Some(3661)),
            ("0s", Some(0)),
            ("", None),
            ("10", None),
            ("m", None),
            ("-1m", None),
            ("1s1m", None),
            ("1m1m", None),
            ("1.5h", None),
            ("9999999999s", None),
        ];
        for (text, seconds) in rows {
            assert_eq!(parse_duration(text), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
