//! `config.yaml`, typed and checked. It holds only what differs from what the policies declare.
//!
//! Pure: text in, [`Config`] or a [`ConfigError`] with its position out; files are read at the rim.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod parse;
mod schema;
mod selector;
pub mod yaml;

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

pub use parse::parse_duration;
pub(crate) use schema::policy as policy_schema;
pub use schema::schema;
pub use selector::Selector;
use yaml::Position;

/// How far surefoot goes in a namespace: the label `surefoot.dev/guard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// Silent to the user: audit annotations and metrics only.
    Audit,
    /// Denials become warnings; the controller says what it would do.
    Warn,
    /// Denials deny, defaults are added, failing rollouts are reverted.
    Enforce,
}

impl FromStr for Guard {
    type Err = UnknownGuard;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "audit" => Ok(Self::Audit),
            "warn" => Ok(Self::Warn),
            "enforce" => Ok(Self::Enforce),
            _ => Err(UnknownGuard(text.to_owned())),
        }
    }
}

impl fmt::Display for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Audit => "audit",
            Self::Warn => "warn",
            Self::Enforce => "enforce",
        })
    }
}

/// A guard label whose value is none of the three; whoever meets it treats the namespace as [`Guard::Warn`] and says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("namespace label surefoot.dev/guard is `{0}`; it takes audit, warn or enforce, and counts as warn until then")]
pub struct UnknownGuard(pub String);

/// What a policy's `deny` does at most (ValidatingAdmissionPolicy's words). What counts is the milder of action and guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Counted and annotated, told to nobody.
    Audit,
    /// Told as a warning.
    Warn,
    /// Refused.
    Deny,
}

/// Everything `config.yaml` can say. The default is an empty file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Settings by policy name (with dashes).
    pub policies: BTreeMap<String, PolicySettings>,
    /// Standing exceptions.
    pub exemptions: Vec<Exemption>,
    /// Budget and bake.
    pub rollouts: Rollouts,
    /// Where it was read from, for errors that only show when the policies are known.
    pub origin: Origin,
}

/// The file a configuration came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// File name as given; empty for the default configuration.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// What the configuration changes for one policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySettings {
    /// Where the policy is named.
    pub at: Position,
    /// Milder (or stricter) than the policy's METADATA says.
    pub action: Option<Action>,
    /// Values for the policy's `params`, checked against its METADATA when the set is loaded.
    pub parameters: BTreeMap<String, Parameter>,
    /// `existing: Deny`: findings that the old object has too are denials all the same (no ratchet).
    pub existing: Option<Action>,
    /// The first whose selector matches the namespace's labels wins.
    pub overrides: Vec<PolicyOverride>,
}

/// A value for one of a policy's parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Where it is named.
    pub at: Position,
    /// The value.
    pub value: serde_json::Value,
    /// The same, with its places.
    pub node: yaml::Node,
}

/// Other settings for the namespaces that a selector matches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyOverride {
    /// Where it counts.
    pub namespaces: Selector,
    /// As in [`PolicySettings`].
    pub action: Option<Action>,
    /// Laid over the policy's parameters.
    pub parameters: BTreeMap<String, Parameter>,
}

/// A standing exception, with a reason and an end.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemption {
    /// Where its policies are named.
    pub at: Position,
    /// Policy names; `*` is all.
    pub policies: Vec<String>,
    /// Namespace of the Deployment.
    pub namespace: String,
    /// Name of the Deployment.
    pub name: String,
    /// For those who read it later.
    pub reason: String,
    /// The last day (UTC) on which it counts.
    pub until: jiff::civil::Date,
}

/// `rollouts:`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollouts {
    /// Probe failures a rollout may spend.
    pub budget: Budget,
    /// How long a complete rollout must be quiet before it counts as settled.
    pub bake: Duration,
    /// The first whose selector matches the namespace's labels wins.
    pub overrides: Vec<RolloutOverride>,
}

/// Probe failures a rollout may spend: failing when `failures > max(budget.failures, budget.percent % of attempts)`
/// within `window`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Absolute number of probe failures.
    pub failures: u32,
    /// Per cent of probe attempts.
    pub percent: u32,
    /// Sliding window.
    pub window: Duration,
}

/// Other rollout settings for the namespaces that a selector matches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RolloutOverride {
    /// Where it counts.
    pub namespaces: Selector,
    /// Laid over [`Rollouts::budget`], field by field.
    pub failures: Option<u32>,
    /// See [`Budget::percent`].
    pub percent: Option<u32>,
    /// See [`Budget::window`].
    pub window: Option<Duration>,
    /// See [`Rollouts::bake`].
    pub bake: Option<Duration>,
}

impl Default for Rollouts {
    /// 10 failures, 10 %, 10 minutes; bake 10 minutes. Of real pods, one that crashes after a second spends 10 in 37 s, and
    /// one bad pod of 50 stays at 2 %: not reverted.
    fn default() -> Self {
        let ten_minutes = Duration::from_secs(600);
        Self {
            budget: Budget { failures: 10, percent: 10, window: ten_minutes },
            bake: ten_minutes,
            overrides: Vec::new(),
        }
    }
}

impl Config {
    /// Reads `text`; `file` is only for messages.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        parse::config(text, file)
    }

    /// The exemption that covers `policy` on the Deployment on the day of `now`.
    pub fn exemption(&self, policy: &str, namespace: &str, name: &str, now: jiff::Timestamp) -> Option<&Exemption> {
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
        self.exemptions.iter().find(|exemption| {
            exemption.namespace == namespace
                && exemption.name == name
                && today <= exemption.until
                && exemption.policies.iter().any(|covered| covered == policy || covered == "*")
        })
    }
}

impl Config {
    /// A sentence for each exemption that has ended by the day of `now`: whoever reads the file may believe that it counts.
    pub fn ended(&self, now: jiff::Timestamp) -> Vec<String> {
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
        let ended = self.exemptions.iter().filter(|exemption| today > exemption.until);
        ended
            .map(|exemption| {
                let Exemption { policies, namespace, name, until, .. } = exemption;
                let policies = policies.join(", ");
                format!(
                    "{}: the exemption from {policies} for {namespace}/{name} ended on {until}; remove it",
                    self.origin.file
                )
            })
            .collect()
    }
}

impl Rollouts {
    /// Budget and bake in a namespace with these labels: the first override that matches, laid over the rest.
    pub fn for_namespace(&self, labels: &BTreeMap<String, String>) -> (Budget, Duration) {
        let Some(found) = self.overrides.iter().find(|found| found.namespaces.matches(labels)) else {
            return (self.budget, self.bake);
        };
        let budget = Budget {
            failures: found.failures.unwrap_or(self.budget.failures),
            percent: found.percent.unwrap_or(self.budget.percent),
            window: found.window.unwrap_or(self.budget.window),
        };
        (budget, found.bake.unwrap_or(self.bake))
    }
}

/// What is wrong with a file that surefoot is given, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// File name as given.
    pub file: String,
    /// From 1; 0 where unknown.
    pub line: u32,
    /// From 1; 0 where unknown.
    pub column: u32,
    /// One sentence, with the way out.
    pub message: String,
    /// The line of the file, for those who read the error elsewhere; may be empty.
    pub source_line: String,
}

impl ConfigError {
    /// An error in `text`, the contents of `file`.
    pub fn new(file: &str, text: &str, at: Position, message: impl Into<String>) -> Self {
        let source_line = match at.line {
            0 => "",
            line => text.lines().nth(line as usize - 1).unwrap_or_default(),
        };
        Self {
            file: file.to_owned(),
            line: at.line,
            column: at.column,
            // It may quote a name of several lines.
            message: message.into().replace(char::is_control, " "),
            source_line: source_line.trim_end().to_owned(),
        }
    }
}

impl fmt::Display for ConfigError {
    /// `file:line:column: message`, and below it the line with a caret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, source_line } = self;
        match line {
            0 if file.is_empty() => return f.write_str(message),
            0 => return write!(f, "{file}: {message}"),
            _ => write!(f, "{file}:{line}:{column}: {message}")?,
        }
        if source_line.is_empty() {
            return Ok(());
        }
        // A tab before the caret stays a tab, or the caret would stand elsewhere.
        let before = source_line.chars().take((*column as usize).saturating_sub(1));
        let indent: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let margin = " ".repeat(line.to_string().len());
        write!(f, "\n  {line} | {source_line}\n  {margin} | {indent}^")
    }
}
