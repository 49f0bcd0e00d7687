//! What the controller counts.

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// What the controller counts. Every label takes few values: kinds of decisions, writes and failures; never a namespace,
/// an object or the text of an error. Which version of which Deployment it was is in the Event, the record and the log,
/// which have the same figures.
#[derive(Debug)]
pub struct ControllerMetrics {
    registry: Registry,
    /// Deployments by what was decided about them last, by the one that leads.
    pub rollouts: Family<DecisionLabels, Gauge>,
    /// Reverts and withdrawals that are done.
    pub reverts: Family<RevertLabels, Counter>,
    /// Probe failures that they were made for.
    pub revert_failures: Family<RevertLabels, Counter>,
    /// Out of so many probes.
    pub revert_attempts: Family<RevertLabels, Counter>,
    /// Of what was allowed together.
    pub revert_budget: Family<RevertLabels, Counter>,
    /// When the last of them was decided, in seconds since 1970.
    pub last_revert: Family<RevertLabels, Gauge>,
    /// Since when that had failed, in seconds since 1970.
    pub last_revert_since: Family<RevertLabels, Gauge>,
    /// Failing rollouts that were left as they are.
    pub stalls: Family<ReasonLabels, Counter>,
    /// Reverts that were not made because surefoot only observes there.
    pub observed: Family<ReasonLabels, Counter>,
    /// Requests that write, by what came of them.
    pub writes: Family<WriteLabels, Counter>,
    /// Watches that broke and were begun again.
    pub watch_restarts: Counter,
    /// 1 while this one leads.
    pub leader: Gauge,
    /// 1 once all that is watched has been listed.
    pub ready: Gauge,
}

/// What was decided.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DecisionLabels {
    /// `rest`, `watch`, `settle`, `revert`, `finish`, `stall` or `observe`.
    pub decision: &'static str,
}

/// What was done about which kind of failure.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RevertLabels {
    /// `reverted` or `withdrawn`.
    pub action: &'static str,
    /// What failed, as the Event says: `readiness`, `crash`, …
    pub signal: &'static str,
}

/// Why something was not done.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReasonLabels {
    /// One word, as in the record.
    pub reason: String,
}

/// A write and what came of it.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WriteLabels {
    /// What it is for: `PutBack`, `RecordSettled`, …
    pub write: String,
    /// `made`, `failed`, `unanswered` or `withheld` (this one leads no more).
    pub result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

impl Default for ControllerMetrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("surefoot_controller");
        let build = Family::<BuildLabels, Gauge>::default();
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        registry.register("build_info", "surefoot's version", build);
        let rollouts = Family::default();
        registry.register("rollouts", "Deployments by what was decided about them last", Family::clone(&rollouts));
        let reverts = Family::default();
        registry.register("reverts", "Reverts and withdrawals that are done", Family::clone(&reverts));
        let failures = Family::default();
        registry.register("revert_failures", "Probe failures that reverts were made for", Family::clone(&failures));
        let attempts = Family::default();
        registry.register("revert_attempts", "Out of so many probes", Family::clone(&attempts));
        let budget = Family::default();
        registry.register("revert_budget", "Of what was allowed", Family::clone(&budget));
        let last = Family::default();
        registry.register("last_revert_seconds", "When the last one was decided, since 1970", Family::clone(&last));
        let since = Family::default();
        let help = "Since when the last one's rollout had failed, since 1970";
        registry.register("last_revert_since_seconds", help, Family::clone(&since));
        let stalls = Family::default();
        registry.register("stalls", "Failing rollouts that were left as they are, by reason", Family::clone(&stalls));
        let observed = Family::default();
        registry.register("observed_reverts", "Reverts that were only observed, by reason", Family::clone(&observed));
        let writes = Family::default();
        registry.register("writes", "Writes by what they are for and what came of them", Family::clone(&writes));
        let watch_restarts = Counter::default();
        registry.register("watch_restarts", "Watches that broke and were begun again", watch_restarts.clone());
        let leader = Gauge::default();
        registry.register("leader", "1 while this one leads", leader.clone());
        let ready = Gauge::default();
        registry.register("ready", "1 once all that is watched has been listed", ready.clone());
        Self {
            registry,
            rollouts,
            reverts,
            revert_failures: failures,
            revert_attempts: attempts,
            revert_budget: budget,
            last_revert: last,
            last_revert_since: since,
            stalls,
            observed,
            writes,
            watch_restarts,
            leader,
            ready,
        }
    }
}

impl ControllerMetrics {
    /// The text that Prometheus scrapes; its type is [`super::METRICS_TYPE`].
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}
