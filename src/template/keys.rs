//! Names that are part of the API: labels, annotations, identities, reasons. One module, so that each is spelt once.

/// Namespace label: `audit`, `warn` or `enforce`.
pub const GUARD: &str = "surefoot.dev/guard";
/// Deployment label: Deployments of one namespace with the same model are peers.
pub const MODEL: &str = "surefoot.dev/model";
/// Deployment label: `stable` (also when absent) or `canary`.
pub const TRACK: &str = "surefoot.dev/track";
/// Deployment annotation: `"<until> <reason>"`, at most 24 h ahead.
pub const OVERRIDE: &str = "surefoot.dev/override";
/// Deployment annotation that tightens its own budget: `failures=5, window=5m`.
pub const BUDGET: &str = "surefoot.dev/budget";
/// Kubernetes' recommended label, on the Deployment and on its pod template.
pub const VERSION: &str = "app.kubernetes.io/version";
/// Written by client-side apply (kubectl).
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Starts a server-side rollback on an apps/v1 Deployment even today (pkg/controller/deployment/rollback.go).
pub const DEPRECATED_ROLLBACK: &str = "deprecated.deployment.rollback.to";
/// Written on pod templates by `kubectl rollout restart`.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";
/// Added to ReplicaSets and their templates by the Deployment controller.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// Which container is the model's, where it is not the first.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// surefoot's own namespace, unless `POD_NAMESPACE` says otherwise.
pub const NAMESPACE: &str = "surefoot-system";
/// Service account of the webhook, in [`NAMESPACE`].
pub const WEBHOOK_ACCOUNT: &str = "surefoot-webhook";
/// Service account of the controller, in [`NAMESPACE`].
pub const CONTROLLER_ACCOUNT: &str = "surefoot-controller";
/// Field manager of every write that surefoot makes.
pub const FIELD_MANAGER: &str = "surefoot";
/// Label on the ConfigMaps that hold records, value `"true"`.
pub const RECORD: &str = "surefoot.dev/record";
/// Label on them: namespace of the Deployment.
pub const RECORD_NAMESPACE: &str = "surefoot.dev/record-namespace";
/// Annotation on them, for people: `namespace/name` of the Deployment.
pub const RECORD_OF: &str = "surefoot.dev/record-of";
/// Lease of the controller, in [`NAMESPACE`].
pub const LEASE: &str = "surefoot-controller";

/// What the controller calls itself in Events.
pub const REPORTER: &str = "surefoot";
/// Reason of the Event: the last good template is back.
pub const REASON_REVERTED: &str = "RolloutReverted";
/// Reason of the Event: a canary with nothing to go back to was scaled to 0.
pub const REASON_WITHDRAWN: &str = "RolloutWithdrawn";
/// Reason of the Event: a failing rollout is left as it is, and why.
pub const REASON_STALLED: &str = "RolloutStalled";
/// Reason of the Event: what would have been reverted under `enforce`, or without the override or owner.
pub const REASON_OBSERVED: &str = "RolloutFailing";
/// Reason of the Event: the override annotation counts for nothing, and why.
pub const REASON_OVERRIDE: &str = "OverrideIgnored";
