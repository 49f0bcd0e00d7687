//! Logging set-up, and metrics as a struct that is passed in.

mod controller;

use std::io::IsTerminal;

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};
use tracing_subscriber::EnvFilter;

pub use self::controller::{ControllerMetrics, DecisionLabels, ReasonLabels, RevertLabels, WriteLabels};

/// Sets up logging to standard error for the long-running commands: text on a terminal, JSON lines elsewhere.
/// `RUST_LOG` selects; the default is `info`.
pub fn init() {
    // kube's crates repeat an error at every try; `cluster` says it once, with what to do.
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_client=off,kube_runtime=off"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.init();
    } else {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    }
}

/// The content type of what [`WebhookMetrics::render`] and [`ControllerMetrics::render`] give.
pub const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bucket bounds in seconds: a review takes some hundred microseconds, the API server waits for 3 seconds at most.
const BUCKETS: [f64; 12] = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 3.0];

/// What the webhook counts. Every label takes few values: hooks, operations, verdicts, levels, reasons, and the names of the
/// policies that are loaded; never a namespace, an object, a user or the text of an error.
#[derive(Debug)]
pub struct WebhookMetrics {
    registry: Registry,
    policy_set: Family<PolicySetLabels, Gauge>,
    reloads: Family<ReloadLabels, Counter>,
    refused_reloads: Family<PartLabels, Gauge>,
    /// When the serving certificate ends, in seconds since 1970.
    pub certificate_end: Gauge,
    /// Reviews answered.
    pub reviews: Family<ReviewLabels, Counter>,
    /// Findings in them.
    pub findings: Family<FindingLabels, Counter>,
    /// Policies that broke in them.
    pub failures: Family<PolicyLabels, Counter>,
    /// Evaluations that overran their time and still run, by policy.
    pub overrun: Family<PolicyLabels, Gauge>,
    /// 1 while a policy is not asked, because it always overran its time.
    pub set_aside: Family<PolicyLabels, Gauge>,
    /// Requests that got no verdict.
    pub refused: Family<RefusedLabels, Counter>,
    /// Facts read from the API server because the caches did not know them.
    pub live_reads: Family<LiveReadLabels, Counter>,
    /// Reviews judged without facts that could not be read.
    pub incomplete_facts: Counter,
    /// From the first byte of a body to its answer.
    pub seconds: Family<HookLabels, Histogram, fn() -> Histogram>,
    /// Reviews that were answered as the same one was before, by the hook that asked.
    pub remembered: Family<HookLabels, Counter>,
    /// 1 once facts were complete.
    pub ready: Gauge,
}

/// What verdicts are made by.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PolicySetLabels {
    /// Of policies and configuration; replicas that disagree on it are seen in it.
    pub digest: String,
    /// surefoot's.
    pub version: &'static str,
}

/// What was read anew, and whether it counts.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReloadLabels {
    /// `policies` or `certificate`.
    pub part: &'static str,
    /// `accepted` or `refused`.
    pub outcome: &'static str,
}

/// What can be read anew.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PartLabels {
    /// `policies` or `certificate`.
    pub part: &'static str,
}

/// `hook`, `operation` and `verdict` of a review.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ReviewLabels {
    /// `validate`, `mutate` or `scale`.
    pub hook: &'static str,
    /// `create`, `update` or `other`.
    pub operation: &'static str,
    /// What was answered.
    pub verdict: VerdictLabel,
}

/// What was answered.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "these are the label values as Prometheus shows them")]
pub enum VerdictLabel {
    /// Nothing to say.
    allowed,
    /// Allowed, and something was told.
    warned,
    /// Refused.
    denied,
    /// Allowed, with a patch.
    patched,
    /// Allowed, because the namespace is not guarded.
    unguarded,
    /// Allowed unseen: what is scaled could not be read.
    unknown,
}

/// Policy and level of a finding.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FindingLabels {
    /// Policy name.
    pub policy: String,
    /// `audit`, `warn` or `deny`.
    pub level: &'static str,
}

/// A policy.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct PolicyLabels {
    /// Its name.
    pub policy: String,
}

/// Why a request got no verdict.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RefusedLabels {
    /// One word.
    pub reason: &'static str,
}

/// What was read live, and whether it came.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LiveReadLabels {
    /// `namespace`, `facts` or `deployment`.
    pub what: &'static str,
    /// `found`, `absent` or `failed`.
    pub outcome: &'static str,
}

/// A hook.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct HookLabels {
    /// `validate`, `mutate` or `scale`.
    pub hook: &'static str,
}

impl Default for WebhookMetrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("surefoot");
        let r = &mut registry;
        let seconds = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        r.register("review_seconds", "From the first byte of a body to its answer", seconds.clone());
        Self {
            policy_set: metric(r, "policy_set_info", "Digest of the loaded policies, and surefoot's version"),
            reloads: metric(r, "reloads", "Policies and certificates read anew, by outcome"),
            refused_reloads: metric(r, "reload_refused", "1 while what the files hold does not count: it is wrong"),
            certificate_end: metric(r, "certificate_end_seconds", "When the serving certificate ends, since 1970"),
            reviews: metric(r, "reviews", "Admission reviews answered"),
            findings: metric(r, "findings", "Findings by policy and level"),
            failures: metric(r, "policy_failures", "Policies that broke while judging a request"),
            overrun: metric(r, "policy_overruns", "Evaluations that were given up and still run, by policy"),
            set_aside: metric(r, "policy_set_aside", "1 while a policy is not asked: it always overran its time"),
            refused: metric(r, "refused_requests", "Requests that got no verdict, by reason"),
            live_reads: metric(r, "live_reads", "Facts read from the API server during a request"),
            incomplete_facts: metric(r, "incomplete_facts", "Reviews judged without facts that could not be read"),
            seconds,
            remembered: metric(r, "remembered_reviews", "Reviews answered from memory: nothing has changed since"),
            ready: metric(r, "ready", "1 once policies are compiled and facts synced"),
            registry,
        }
    }
}

/// A new metric that `registry` shows under this name, after its prefix.
fn metric<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// The text that Prometheus scrapes.
fn render(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = text::encode(&mut text, registry);
    text
}

impl WebhookMetrics {
    /// The set with this digest counts from now on.
    pub fn loaded(&self, digest: &str) {
        self.policy_set.clear();
        let labels = PolicySetLabels { digest: digest.to_owned(), version: env!("CARGO_PKG_VERSION") };
        self.policy_set.get_or_create(&labels).set(1);
    }

    /// `part` was read anew; what was there counts only if it is `good`.
    pub fn reload(&self, part: &'static str, good: bool) {
        let outcome = if good { "accepted" } else { "refused" };
        self.reloads.get_or_create(&ReloadLabels { part, outcome }).inc();
        self.refused_reloads.get_or_create(&PartLabels { part }).set(i64::from(!good));
    }

    /// The text that Prometheus scrapes, of type [`METRICS_TYPE`].
    pub fn render(&self) -> String {
        render(&self.registry)
    }
}
