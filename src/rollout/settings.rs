//! What a decision is measured by: guard, budgets (the Deployment's own annotation is one) and bake.

use std::{collections::BTreeMap, time::Duration};

use jiff::SignedDuration;

use crate::config::{Budget, Guard, Rollouts};

/// What a decision is measured by, for one Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Of its namespace.
    pub guard: Guard,
    /// A rollout fails when it fails any of these: the configured one, and the one of the Deployment's annotation. So
    /// an annotation can tighten and never widen, whatever it says.
    pub budgets: Vec<Budget>,
    /// How long a complete rollout must be quiet.
    pub bake: Duration,
    /// What is wrong with the Deployment's annotations, to be said and otherwise ignored.
    pub complaints: Vec<String>,
}

impl Settings {
    /// The configuration as it counts for a Deployment with this budget annotation, in a namespace with these labels.
    pub fn of(rollouts: &Rollouts, guard: Guard, labels: &BTreeMap<String, String>, annotation: Option<&str>) -> Self {
        let (budget, bake) = rollouts.for_namespace(labels);
        let mut settings = Self { guard, budgets: vec![budget], bake, complaints: Vec::new() };
        match annotation.map(|text| parse_budget(text, budget)) {
            Some(Ok(tighter)) => settings.budgets.push(tighter),
            Some(Err(complaint)) => settings.complaints.push(complaint),
            None => {}
        }
        settings
    }

    /// The longest window: older failures count for nothing.
    pub fn window(&self) -> Duration {
        self.budgets.iter().map(|budget| budget.window).max().unwrap_or_default()
    }
}

/// Reads `failures=5, percent=5, window=5m`; what is left out is taken from `base`.
fn parse_budget(text: &str, base: Budget) -> Result<Budget, String> {
    let mut budget = base;
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let wrong = || {
            format!(
                "annotation {} is ignored: `{part}` is none of failures=N, percent=N, window=5m",
                crate::template::keys::BUDGET
            )
        };
        let (key, value) = part.split_once('=').ok_or_else(wrong)?;
        let value = value.trim();
        match key.trim() {
            "failures" => budget.failures = value.parse().map_err(|_| wrong())?,
            "percent" => budget.percent = value.parse().map_err(|_| wrong())?,
            "window" => {
                let window: SignedDuration = value.parse().map_err(|_| wrong())?;
                budget.window = Duration::try_from(window).map_err(|_| wrong())?;
            }
            _ => return Err(wrong()),
        }
    }
    Ok(budget)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_annotation_is_laid_beside_the_configured_one() {
        let base = Rollouts::default().budget;
        for (text, wanted) in [
            ("failures=5, window=5m", Some(Budget { failures: 5, window: Duration::from_secs(300), ..base })),
            ("percent=1", Some(Budget { percent: 1, ..base })),
            ("failures=500", Some(Budget { failures: 500, ..base })),
            ("failures=-5", None),
            ("window=-5m", None),
            ("failures", None),
            ("tries=5", None),
        ] {
            let settings = Settings::of(&Rollouts::default(), Guard::Enforce, &BTreeMap::new(), Some(text));
            assert_eq!(settings.budgets[0], base, "{text:?}");
            assert_eq!(settings.budgets.get(1).copied(), wanted, "{text:?}");
            assert_eq!(settings.complaints.is_empty(), wanted.is_some(), "{text:?}");
        }
    }
}
