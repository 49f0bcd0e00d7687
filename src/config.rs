//! `config.yaml`, typed and checked. It holds only what differs from what the policies declare.
//!
//! Pure: text in, [`Config`] or a [`ConfigError`] with its position out; files are read at the rim.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

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
}

/// What the configuration changes for one policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicySettings {
    /// Milder (or stricter) than the policy's METADATA says.
    pub action: Option<Action>,
    /// Values for the policy's `params`, checked against its METADATA when the set is loaded.
    pub parameters: BTreeMap<String, serde_json::Value>,
    /// `existing: Deny`: findings that the old object has too are denials all the same (no ratchet).
    pub existing: Option<Action>,
    /// The first whose selector matches the namespace's labels wins.
    pub overrides: Vec<PolicyOverride>,
}

/// Other settings for the namespaces that a selector matches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyOverride {
    /// `namespaces: {matchLabels: …}`.
    pub match_labels: BTreeMap<String, String>,
    /// As in [`PolicySettings`].
    pub action: Option<Action>,
    /// Laid over the policy's parameters.
    pub parameters: BTreeMap<String, serde_json::Value>,
}

/// A standing exception, with a reason and an end.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemption {
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
    /// `namespaces: {matchLabels: …}`.
    pub match_labels: BTreeMap<String, String>,
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
    /// 10 failures, 10 %, 10 minutes; bake 10 minutes (DESIGN: 1 bad pod of 50 is 2 %, a crash loop spends 10 in 37 s).
    fn default() -> Self {
        let ten_minutes = Duration::from_secs(600);
        Self {
            budget: Budget { failures: 10, percent: 10, window: ten_minutes },
            bake: ten_minutes,
            overrides: Vec::new(),
        }
    }
}

/// What is wrong with a configuration, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct ConfigError {
    /// File name as given.
    pub file: String,
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
    /// One sentence, with the way out.
    pub message: String,
}
