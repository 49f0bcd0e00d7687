//! What the controller counts.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::metric;

/// Bucket bounds in seconds: most looks write nothing, a write is given up after some seconds.
const BUCKETS: [f64; 10] = [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];

/// What the controller counts. Every label takes few values: kinds of decisions, writes and failures; never a namespace,
/// an object or the text of an error. Which version of which Deployment it was is in the Event, the record and the log,
/// which have the same figures.
#[derive(Debug)]
pub struct ControllerMetrics {
    registry: Registry,
    /// Deployments by what was decided about them last, by the one that leads.
    pub rollouts: Family<DecisionLabels, Gauge>,
    /// From when a Deployment is looked at to the end of what is done about it.
    pub look_seconds: Histogram,
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
        let r = &mut registry;
        let build: Family<BuildLabels, Gauge> = metric(r, "build_info", "surefoot's version");
        build.get_or_create(&BuildLabels { version: env!("CARGO_PKG_VERSION") }).set(1);
        let look_seconds = Histogram::new(BUCKETS);
        let look = "From when a Deployment is looked at to the end of what is done about it, writes included";
        r.register("look_seconds", look, look_seconds.clone());
        let failing_since = "Since when the last one's rollout had failed, since 1970";
        Self {
            rollouts: metric(r, "rollouts", "Deployments by what was decided about them last"),
            look_seconds,
            reverts: metric(r, "reverts", "Reverts and withdrawals that are done"),
            revert_failures: metric(r, "revert_failures", "Probe failures that reverts were made for"),
            revert_attempts: metric(r, "revert_attempts", "Out of so many probes"),
            revert_budget: metric(r, "revert_budget", "Of what was allowed"),
            last_revert: metric(r, "last_revert_seconds", "When the last one was decided, since 1970"),
            last_revert_since: metric(r, "last_revert_since_seconds", failing_since),
            stalls: metric(r, "stalls", "Failing rollouts that were left as they are, by reason"),
            observed: metric(r, "observed_reverts", "Reverts that were only observed, by reason"),
            writes: metric(r, "writes", "Writes by what they are for and what came of them"),
            watch_restarts: metric(r, "watch_restarts", "Watches that broke and were begun again"),
            leader: metric(r, "leader", "1 while this one leads"),
            ready: metric(r, "ready", "1 once all that is watched has been listed"),
            registry,
        }
    }
}

impl ControllerMetrics {
    /// The text that Prometheus scrapes, of type [`super::METRICS_TYPE`].
    pub fn render(&self) -> String {
        super::render(&self.registry)
    }
}
