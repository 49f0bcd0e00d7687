//! What a verdict may know beyond the review itself. Made by `cluster/` from watches, by `cli/` from the given files.

use jiff::Timestamp;

use super::wire::tree;
use crate::{
    config::Guard,
    template::{Digest, Json},
};

/// What is known of the cluster around one Deployment. `None` means that it cannot be known here (offline): a policy
/// that `needs` it is skipped, never passed in silence.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The guard of the namespace; `None`: not guarded, everything is allowed and counted.
    pub guard: Option<Guard>,
    /// `{"labels": {…}, "annotations": {…}}` of the namespace: `input.context.namespace`.
    pub namespace: Option<Json>,
    /// Deployments of the same namespace with the same model, without the one judged: `input.context.peers`. Each is
    /// `{"metadata": {"name", "namespace", "labels"}, "spec": {"replicas"}}`.
    pub peers: Option<Vec<Json>>,
    /// What the record says: `input.context.history`, and the quarantine.
    pub history: Option<History>,
    /// What keeps the namespace apart from others: `input.context.isolation`. Only commands that ask a live cluster look it
    /// up, for [`Request::of_namespace`](super::Request::of_namespace).
    pub isolation: Option<Isolation>,
    /// What should be known here and could not be read: a sentence each, for whoever applies. Offline there is nothing to
    /// be said about that.
    pub gaps: Vec<String>,
    /// The object is gone from or never was in the caches, or they are older than this request: a denial that used
    /// peers or history must be decided again on a live read before it counts.
    pub cached: bool,
}

/// The objects of a namespace that bound what runs in it, whole, as the API server lists them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Isolation {
    /// `v1`.
    pub resource_quotas: Vec<Json>,
    /// `v1`.
    pub limit_ranges: Vec<Json>,
    /// `networking.k8s.io/v1`.
    pub network_policies: Vec<Json>,
}

impl Isolation {
    /// `{"resourceQuotas": […], "limitRanges": […], "networkPolicies": […]}`.
    pub(super) fn to_json(&self) -> Json {
        let Self { resource_quotas, limit_ranges, network_policies } = self;
        tree([
            ("resourceQuotas", Json::from(resource_quotas.clone())),
            ("limitRanges", Json::from(limit_ranges.clone())),
            ("networkPolicies", Json::from(network_policies.clone())),
        ])
    }
}

/// What the record of a Deployment says, as admission sees it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The newest settled template.
    pub last_good: Option<LastGood>,
    /// Digests of all templates known to have settled: never defaulted again, never quarantined.
    pub settled: Vec<Digest>,
    /// Templates that were reverted and not lifted.
    pub quarantine: Vec<Quarantined>,
    /// The rollout that has not settled yet.
    pub rollout: Option<Unsettled>,
}

/// The newest settled template.
#[derive(Clone, Debug, PartialEq)]
pub struct LastGood {
    /// Its digest.
    pub digest: Digest,
    /// Its version label.
    pub version: Option<String>,
    /// When it settled.
    pub at: Timestamp,
}

/// A rollout under watch.
#[derive(Clone, Debug, PartialEq)]
pub struct Unsettled {
    /// Digest of its template.
    pub digest: Digest,
    /// Its version label.
    pub version: Option<String>,
    /// When it was first seen.
    pub since: Timestamp,
    /// It has spent some of its budget, or is stalled.
    pub failing: bool,
}

/// A template that was reverted.
#[derive(Clone, Debug, PartialEq)]
pub struct Quarantined {
    /// Its digest.
    pub digest: Digest,
    /// Its version label.
    pub version: Option<String>,
    /// When it was reverted.
    pub at: Timestamp,
    /// When the quarantine ends by itself (configuration class only).
    pub until: Option<Timestamp>,
    /// One line: `version 2.4.0 failed 12 of 30 probes in 41 s, the budget is 10: readiness of container "model", HTTP 503`.
    pub evidence: String,
}
