//! What an evaluation gives: findings, defaults, and what broke or was skipped, side by side.

use serde::Serialize;

use crate::template::Json;

/// What a finding does to the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Counted and annotated only.
    Audit,
    /// Told.
    Warn,
    /// Refuses.
    Deny,
}

/// One complaint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Policy name, with dashes; `quarantine` and `kubernetes` are ours.
    pub policy: String,
    /// One word within the policy; empty where the policy gave a bare message.
    pub code: String,
    /// After action, guard, ratchet, exemption and override.
    pub level: Level,
    /// JSON pointer into the Deployment, to the field that is wrong or missing; empty where the policy gave none.
    pub path: String,
    /// One sentence.
    pub message: String,
    /// How to mend it; may be empty.
    pub fix: String,
    /// More that a denial shows, each under a short label: `why`, `now`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<(&'static str, String)>,
}

impl Finding {
    /// `policy/code`, or the policy alone where there is no code.
    pub fn name(&self) -> String {
        if self.code.is_empty() { self.policy.clone() } else { format!("{}/{}", self.policy, self.code) }
    }
}

/// One value that a policy would add.
#[derive(Clone, Debug, PartialEq)]
pub struct DefaultValue {
    /// Policy name, with dashes.
    pub policy: String,
    /// JSON pointer of the member to add.
    pub path: String,
    /// What to add.
    pub value: Json,
}

/// A policy that broke: named, counted; it denies under `enforce` and warns below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Policy name, with dashes.
    pub policy: String,
    /// Policy file, relative to the policy folder.
    pub file: String,
    /// From 1; 0 where unknown.
    pub line: u32,
    /// From 1; 0 where unknown.
    pub column: u32,
    /// What happened.
    pub message: String,
    /// What it does to the request: the milder of the policy's action and the guard.
    #[serde(skip)]
    pub level: Level,
}

impl Failure {
    /// It was stopped because it took too long: asked about something else it will mostly do the same.
    pub fn is_overrun(&self) -> bool {
        self.message.starts_with(super::engine::OVERRAN)
    }
}

/// A policy that was not run because a fact it needs cannot be known here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Skipped {
    /// Policy name, with dashes.
    pub policy: String,
    /// The facts it needs: `namespace`, `peers`, `history`, `isolation`.
    pub needs: Vec<String>,
}

/// What the evaluation of one request gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// In policy order, then as found.
    pub findings: Vec<Finding>,
    /// Policies that broke.
    pub failures: Vec<Failure>,
    /// Policies that could not be asked.
    pub skipped: Vec<Skipped>,
    /// A denial used `peers` or `history`: decide again on a live read where the facts were cached.
    pub used_facts: bool,
    /// Sentences that belong to no finding: an unknown guard, an override in force. Told as warnings.
    pub notes: Vec<String>,
}

impl Verdict {
    /// The request is refused.
    pub fn denied(&self) -> bool {
        self.denials().next().is_some() || self.failures.iter().any(|failure| failure.level == Level::Deny)
    }

    /// The findings that refuse it.
    pub fn denials(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.level == Level::Deny)
    }
}
